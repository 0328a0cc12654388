"""Strategies of `expectation`, objectives and controls, and the terms that they lose.

The programs have two binary choices, of which the second depends on the first, so that an error
of credit shows as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import elbo, iwelbo
from ppl import (
    Target,
    draw,
    enumerate_,
    expectation,
    gen,
    leave_one_out,
    reinforce,
    reparam,
    sample,
)
from ppl.effects import box
from ppl.estimators.lanes import Lane, Value, along
from ppl.estimators.scores import Score
from ppl.estimators.strategies import Made, Site
from semantics.contracts.gradients import check_gradient

from .registry import Entry, Kind

POINTS = [(0.3,), (0.6,)]


def chain(p: Any, how: Any = None) -> Any:
    a = draw(dist.Bernoulli(p), how)
    b = draw(dist.Bernoulli(jnp.where(a == 1, p**2, 1 - p)), how)
    return jnp.sin(a + 2.0 * b) * p + b * a + jnp.exp(b)


def smooth(p: Any, how: Any = None) -> Any:
    x = draw(dist.Normal(p, 1 + p), how)
    return x**3 * p - x**2


@dataclass(frozen=True)
class Wrong:
    """A strategy with one term wrong."""

    wrong: str
    biased = False

    @property
    def several(self) -> bool:
        return self.wrong in ("lane", "divisor")

    @property
    def scored(self) -> bool:
        return self.wrong not in ("dropped", "doubled")

    def worlds(self, node: Any, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        if self.wrong in ("dropped", "doubled"):
            made = reparam().make(site)
            k = 0.0 if self.wrong == "dropped" else 2.0
            moved = along(lambda x: jax.lax.stop_gradient(x) * (1 - k) + k * x, made.value)
            return Made(moved)
        if self.wrong == "lane":
            made = enumerate_().make(site)
            assert made.score is not None
            array = along(lambda q: q, made.score.array)
            place = array.lanes.index(Lane(site.node.number, 2))
            other = Value(jnp.flip(array.array, place), array.lanes)
            return Made(made.value, Score(other, made.score.own, made.score.factor, None, None))
        if self.wrong == "divisor":
            lane = Lane(site.node.number, 3)
            value = site.sampled(lane)
            return Made(value, Score(site.log_density(value), lane, _by_all, _shares))
        value = site.sampled()
        log = site.log_density(value)
        own = along(lambda s, x: (1 - box(s)) * (0.5 + 2.0 * x), log, value)
        return Made(value, Score(log), own)


def _by_all(scores: Any) -> Any:
    """The mean over all values for a baseline, its own too: what 1/(M - 1) would make up for."""
    n = scores.shape[0]
    boxes = box(scores)
    return (boxes + jnp.mean(1 - boxes, 0)) / n


def _shares(scores: Any) -> Any:
    return jnp.full(scores.shape, 1 / scores.shape[0], scores.dtype)


@gen
def model() -> None:
    a = sample("a", dist.Bernoulli(0.3))
    sample("y", dist.Bernoulli(0.2 + 0.6 * a))


@gen
def guide(p: Any) -> None:
    sample("a", dist.Bernoulli(p))


TARGET = Target(model, (), {"y": 1})
LOGITS = [(-0.4,), (0.9,)]


def cost(x: Any, y: Any) -> Any:
    return (x - 0.4) ** 2 + 1.5 * x * y + y


def two(t: Any) -> Any:
    """E[cost(a, b)], b depending on a."""
    a = draw(dist.Bernoulli(logits=t))
    b = draw(dist.Bernoulli(logits=t - 2.0 * a))
    return cost(a, b)


def rebar(t: Any, wrong: str = "") -> Any:
    """The derivative of `two` with a control for the first choice, relaxed.

    Right: the control is a function of the noise alone, here with the second choice at its mean.
    Naive: it is what comes after, at the second choice as it happened, which depends on the first.
    """
    u, v = (draw(dist.Uniform(0.0, 1.0)) for _ in range(2))
    q = jax.nn.sigmoid(t)
    a = (jax.lax.stop_gradient(jnp.log(u) - jnp.log1p(-u)) > -t).astype(float)

    def noise(t: Any, level: Any) -> Any:
        return t + jnp.log(level) - jnp.log1p(-level)

    def given(t: Any) -> Any:
        q = jax.nn.sigmoid(t)
        return noise(t, jnp.where(a == 1, (1 - q) + v * q, v * (1 - q)))

    b = draw(dist.Bernoulli(logits=t - 2.0 * a)).astype(float)

    def control(z: Any) -> Any:
        x = jax.nn.sigmoid(2.0 * z)
        return cost(x, b if wrong == "naive" else jax.nn.sigmoid(t - 2.0 * x))

    of_a = a - q
    of_b = b - jax.nn.sigmoid(t - 2.0 * a)
    still = jax.lax.stop_gradient
    c, slope = jax.jvp(lambda t: control(given(t)), (t,), (1.0,))
    _, free = jax.jvp(lambda t: control(noise(t, u)), (t,), (1.0,))
    return still(cost(a, b)) * (of_a + of_b) - c * of_a + free - slope


def _strategy(kind: Kind, name: str, says: str, how: Any, program: Callable = chain) -> Entry:
    estimator = jax.grad(expectation(partial(program, how=how)))
    nodes = None if program is chain else (24, 32)
    check = partial(check_gradient, estimator, program, POINTS, nodes=nodes)
    return Entry("variational", name, says, check, kind)


def _objective(kind: Kind, name: str, says: str, taken: Any, told: Any) -> Entry:
    how = {"a": reinforce()}
    check = partial(check_gradient, jax.grad(expectation(taken, how)), told, POINTS)
    return Entry("variational", name, says, check, kind)


def _rebar(kind: Kind, wrong: str, says: str) -> Entry:
    how = {"nodes": (160, 224), "rule": "midpoint"}
    check = partial(check_gradient, partial(rebar, wrong=wrong), two, LOGITS, **how)
    return Entry("variational", f"rebar {wrong}".strip(), says, check, kind)


ENTRIES = (
    _strategy("correct", "score", "the score function", reinforce()),
    _strategy("correct", "leave one out", "of three values", reinforce(leave_one_out(3))),
    _strategy("correct", "lanes", "all outcomes", enumerate_()),
    _strategy("correct", "moving", "by location and scale", reparam(), smooth),
    _objective("correct", "iwelbo", "the bound of three particles", iwelbo(TARGET, guide, 3),
               iwelbo(TARGET, guide, 3)),
    _strategy("mutant", "own", "the baseline sees its own value", Wrong("own")),
    _strategy("mutant", "divisor", "1/M for 1/(M-1) in leave-one-out", Wrong("divisor")),
    _strategy("mutant", "lane", "lane weights of another lane", Wrong("lane")),
    _strategy("mutant", "dropped", "the pathwise term is dropped", Wrong("dropped"), smooth),
    _strategy("mutant", "doubled", "the pathwise term counts twice", Wrong("doubled"), smooth),
    _objective("mutant", "reported", "the bound that is reported is not the one that is climbed",
               elbo(TARGET, guide), iwelbo(TARGET, guide, 3)),
    _rebar("correct", "", "a control of the noise of the first of two choices"),
    _rebar("mutant", "naive", "a control that uses the second choice as it happened"),
)  # fmt: skip
