"""Translations between targets, and the terms that their weights can lose.

Finite: a target of one state becomes one of two, the old state renewed (Lew et al. 2023).
Continuous: a target goes to itself by a map and back by its inverse, one of the two by a coin,
accepted by the weight, which leaves it invariant (Green 1995).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import Weighted, translate
from inference.move import accept
from ppl import Target, Trace, draw, gen, sample
from semantics import check_proper
from semantics.contracts.continuous import check_kernel_quadrature

from .ratios import total
from .registry import Entry, Kind

MOVES = jnp.array([[0.8, 0.2], [0.3, 0.7]])
EMITS = jnp.array([0.9, 0.2])


@gen
def one():
    k = sample("k", dist.Categorical(MOVES[0]))
    sample("y", dist.Bernoulli(EMITS[k]))


@gen
def two():
    one.fn()
    k = sample("next", dist.Bernoulli(0.4))
    sample("z", dist.Bernoulli(EMITS[k]))


@gen
def renew(x):
    k = sample("k", dist.Bernoulli(0.3 + 0.4 * x["k"]))
    sample("next", dist.Bernoulli(0.2 + 0.5 * k))


@gen
def old(x):
    sample("k", dist.Bernoulli(0.2 + 0.3 * x["k"]))


def renewed(x: dict, u: dict) -> tuple[dict, dict]:
    return {"k": u["k"], "next": u["next"]}, {"k": x["k"]}


SHORT = Target(one, (), {"y": 1})
LONG = Target(two, (), {"y": 1, "z": 0})


def by_hand(
    source: Target,
    target: Target,
    forward: Any,
    backward: Any,
    there: Callable,
    slope: Callable = lambda x, u: 0.0,
    wrong: str = "",
) -> Callable[[Weighted], Weighted]:
    """The step from source to target, term by term, with one thing `wrong`."""

    def step(s: Weighted) -> Weighted:
        x = source.choices(s.value)
        drawn = forward.simulate(x)
        new_x, new_u = there(x, drawn.choices)
        new, after = target.at(new_x)
        log_slope = slope(x, drawn.choices)
        at = x if wrong == "from here" else new_x
        terms = {
            "target": after,
            "backward": backward.assess(new_u, at)[0],
            "source": -(after if wrong == "scored twice" else s.value.score),
            "forward": -drawn.score,
            "Jacobian": -log_slope if wrong == "inverse Jacobian" else log_slope,
        }
        return Weighted(new, s.log_weight + total(terms, wrong))

    return step


def grown(target: Target, wrong: str = "") -> Callable[[Weighted], Weighted]:
    return by_hand(SHORT, target, renew, old, renewed, wrong=wrong)


def _grown(target: Target) -> Callable[[Weighted], Weighted]:
    return translate(SHORT, target, renew, old, renewed)


# -- continuous ------------------------------------------------------------------------------------


@gen
def seen():
    x = sample("x", dist.Normal(0.5, 1.0))
    sample("y", dist.Normal(x, 1.2))


AT = Target(seen, (), {"y": 0.3})


@gen
def out(x):
    sample("u", dist.Normal(0.2 + 0.1 * x["x"], 0.5))


@gen
def home(x):
    sample("u", dist.Normal(-0.1, 0.6))


def bent(x: dict, u: dict) -> tuple[dict, dict]:
    return {"x": jnp.sinh(x["x"]) * jnp.exp(u["u"])}, u


def straight(x: dict, u: dict) -> tuple[dict, dict]:
    return {"x": jnp.arcsinh(x["x"] * jnp.exp(-u["u"]))}, u


def log_bent(x: dict, u: dict) -> jax.Array:
    return jnp.log(jnp.cosh(x["x"])) + u["u"]


def log_straight(x: dict, u: dict) -> jax.Array:
    return -log_bent(*straight(x, u))


def back_and_forth(target: Target, wrong: str = "", library: bool = False) -> Callable:
    """There or back, accepted by the weight, with one thing `wrong`."""
    ways = (out, home, bent, log_bent), (home, out, straight, log_straight)

    def kernel(trace: Trace) -> Trace:
        def by(way: tuple) -> Callable:
            if library:
                return translate(target, target, *way[:3])
            return by_hand(target, target, *way, wrong=wrong)

        begun = Weighted(trace, jnp.zeros(()))
        s = jax.lax.switch(draw(dist.Bernoulli(0.5)), [by(way) for way in ways], begun)
        return accept(trace, s.value, s.log_weight)

    return kernel


def _proper(kind: Kind, name: str, says: str, make: Callable) -> Entry:
    check = partial(check_proper, make, LONG, source=lambda t: SHORT)
    return Entry("translations", name, says, check, kind)


def _quadrature(kind: Kind, name: str, says: str, make: Callable) -> Entry:
    check = partial(check_kernel_quadrature, make, AT)
    return Entry("translations of numbers", name, says, check, kind)


def _missing(name: str, says: str) -> Entry:
    return _proper("mutant", name, says, partial(grown, wrong=name))


def _lost(name: str, says: str) -> Entry:
    return _quadrature("mutant", name, says, partial(back_and_forth, wrong=name))


ENTRIES = (
    _proper("correct", "library", "the library's", _grown),
    _proper("equivalent", "by hand", "term by term", grown),
    _missing("target", "the target left out"),
    _missing("source", "the source left out"),
    _missing("forward", "the forward density left out"),
    _missing("backward", "the backward density left out"),
    _missing("from here", "the backward density given the old latents"),
    _missing("scored twice", "the target scored in the place of the source"),
    _quadrature("correct", "library", "the library's", partial(back_and_forth, library=True)),
    _quadrature("equivalent", "by hand", "term by term", back_and_forth),
    _lost("Jacobian", "the determinant left out"),
    _lost("inverse Jacobian", "the determinant upside down"),
    _lost("backward", "the backward density left out"),
)
