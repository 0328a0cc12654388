"""Small Metropolis kernels: supports, adaptation, NaN ratios, keys, and moves with a density."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from hypothesis import strategies as st

from inference import Move, metropolize
from inference.move import accept
from ppl import Target, Trace, draw, factor, gen, sample
from semantics import (
    Measure,
    Verdict,
    check_kernel,
    kernel_matrix,
    programs,
)
from semantics.contracts.moves import check_move
from semantics.contracts.sampled import Opaque, check_kernel_sampled, check_pure_kernel

from .ratios import total
from .registry import Entry, Kind

Kernel = Callable[[Trace], Trace]
ONE = programs.discrete(shapes=("one",), rows="positive")
"""One choice `a` of three values."""

# -- a support off by one ------------------------------------------------------------------


def independence(target: Target, size: int = 3) -> Kernel:
    """Metropolis with a uniform proposal on the first `size` values."""
    propose = gen(lambda latents: sample("to", dist.Categorical((jnp.arange(3) < size) / size)))
    return metropolize(Move(propose, lambda x, u: ({"a": u["to"]}, {"to": x["a"]})), target)


def check_irreducible(make_kernel: Callable[[Target], Kernel], target: Target) -> Verdict:
    """Every state of the support is reached from every other."""
    _, kernel = kernel_matrix(make_kernel, target)
    passed = kernel.is_irreducible()
    return Verdict("irreducible", passed, "exact", float(not passed), 0.5, len(kernel.states))


THREE = Target(gen(lambda: sample("a", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))))

# -- adaptation ------------------------------------------------------------------------------

TIMID, BOLD = jnp.array([0.8, 0.1, 0.1]), jnp.array([0.2, 0.4, 0.4])


def adapting(target: Target, wrong: str = "") -> Kernel:
    """Two steps of a walk modulo three; the second is bold, if the first was refused."""

    def step(trace: Trace, by: Any) -> Trace:
        a = (trace["a"] + draw(dist.CategoricalProbs(by))) % 3
        return accept(trace, *target.update(trace, {"a": a})[:2])

    def kernel(trace: Trace) -> Trace:
        new = step(trace, TIMID)
        refused = new["a"] == trace["a"]
        return step(new, jnp.where(refused, BOLD, TIMID) if wrong == "adapts" else BOLD)

    return kernel


def remembering(target: Target, wrong: str = "") -> Opaque:
    """A walk on unconstrained space whose scale grows with every call, if `wrong`."""
    calls: list[None] = []

    def step(key: jax.Array, latents: Any) -> dict[str, jax.Array]:
        calls.append(None)
        scale = 1.0 + len(calls) if wrong == "remembers" else 1.0
        return _walk(target, key, latents, scale, reuse=False)

    return Opaque(step)


def remembering_walk(target: Target, wrong: str = "") -> Kernel:
    """That as a kernel between traces, which is a random program."""
    calls: list[None] = []

    def kernel(trace: Trace) -> Trace:
        calls.append(None)
        scale = 1.0 + len(calls) if wrong == "remembers" else 1.0
        mu = trace["mu"] + scale * draw(dist.Normal(0.0, 1.0))
        return accept(trace, *target.update(trace, {"mu": mu})[:2])

    return kernel


# -- keys --------------------------------------------------------------------------------------


@gen
def noisy():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 2.0))


NOISY = Target(noisy, (), {"y": 1.0})


def _walk(
    target: Target, key: jax.Array, latents: Any, scale: float, reuse: bool
) -> dict[str, jax.Array]:
    for_step, for_accept = jax.random.split(key)
    mu = latents["mu"] + scale * jax.random.normal(for_step)
    ratio = target.log_density({"mu": mu}) - target.log_density(latents)
    u = jax.random.uniform(for_step if reuse else for_accept)
    return {"mu": jnp.where(jnp.log(u) < ratio, mu, latents["mu"])}


def keyed(target: Target, wrong: str = "") -> Opaque:
    """Random-walk Metropolis with a key."""
    return Opaque(lambda key, latents: _walk(target, key, latents, 1.0, reuse=wrong == "key reuse"))


# -- a ratio that is not a number ---------------------------------------------------------------


@gen
def partly_undefined(p):
    a = sample("a", dist.Categorical(p))
    factor(jnp.log(a - 0.5))  # log of a negative number at 0


class PartlyUndefined:
    """A program whose density is NaN at one value, which therefore has no mass."""

    target = Target(partly_undefined, (jnp.array([0.5, 0.25, 0.25]),))

    def posterior(self) -> Measure:
        return Measure({((("a",), 1),): 0.125, ((("a",), 2),): 0.375})


def redraws(target: Target, wrong: str = "") -> Kernel:
    """Redraws `a` and accepts by the ratio; a NaN ratio is refused, or `wrong`ly accepted."""

    def kernel(trace: Trace) -> Trace:
        new, ratio, _ = target.regenerate(trace, "a")
        if wrong == "NaN":  # what `if not log(u) >= ratio` does
            ratio = jnp.where(jnp.isnan(ratio), 0.0, ratio)
        return accept(trace, new, ratio)

    return kernel


# -- moves with a density -----------------------------------------------------------------------


def skewed_walk(target: Target, wrong: str = "") -> Move:
    """A walk modulo three whose steps depend on where it is."""
    steps = jnp.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    propose = gen(lambda latents: sample("by", dist.Categorical(steps[latents["a"]])))
    back = 0 if wrong == "no involution" else -1

    def step(x: dict, u: dict) -> tuple[dict, dict]:
        return {"a": (x["a"] + u["by"]) % 3}, {"by": (back * u["by"]) % 3 if back else u["by"]}

    return Move(propose, step)


def ratio(make: Any, wrong: str, target: Target, trace: Trace, u: dict) -> Any:
    """log g(x') - log g(x) + log q(u'|x') - log q(u|x), without the term that is `wrong`."""
    move, x = make(target), target.choices(trace)
    new_x, new_u = move.involution(x, u)
    terms = {
        "target": target.log_density(new_x) - target.log_density(x),
        "backward": move.proposal.assess(new_u, new_x)[0],
        "forward": -move.proposal.assess(u, x)[0],
    }
    return total(terms, wrong)


def _move(kind: Kind, name: str, says: str, wrong: str = "", **how: Any) -> Entry:
    make = partial(skewed_walk, wrong=wrong)
    check = partial(check_move, make, ONE, max_examples=30, **how)
    return Entry("MH moves", name, says, check, kind)


def _ratio(wrong: str, says: str) -> Entry:
    return _move("mutant", wrong, says, ratio=partial(ratio, skewed_walk, wrong))


def _pair(family: str, check: Any, make: Any, *args: Any, by: str = "", **how: Any) -> Any:
    """Entries of a family whose versions differ in how they are made."""

    def entry(kind: Kind, name: str, says: str, **wrong: Any) -> Entry:
        made = partial(check, partial(make, **wrong), *args, **how)
        return Entry(family, name, says, made, kind, by)

    return entry


KEY = jax.random.key(0)
REACHED = "kernel_matrix, Kernel.is_irreducible"

_support = _pair("support", check_irreducible, independence, THREE, by=REACHED)
_nan = _pair("NaN", check_kernel, redraws, st.builds(PartlyUndefined))
_adaptation = _pair("adaptation", check_kernel, adapting, ONE)
_memory = _pair("adaptation", check_pure_kernel, remembering, NOISY, KEY)
_program = _pair("adaptation", check_pure_kernel, remembering_walk, NOISY, KEY)
_keys = _pair("keys", check_kernel_sampled, keyed, NOISY, KEY, sizes=(2000,), steps=4)

ENTRIES = (
    _move("correct", "correct", "a skewed walk, weighed and accepted"),
    _ratio("target", "the target left out of the ratio"),
    _ratio("backward", "the backward density left out"),
    _ratio("forward", "the forward density left out"),
    _move("mutant", "no involution", "the map does not turn the step around", "no involution"),
    _support("correct", "correct", "uniform proposals on all values"),
    _support("mutant", "off by one", "the last value is never proposed (so never left)", size=2),
    _nan("correct", "correct", "a NaN ratio is refused"),
    _nan("mutant", "accepted", "a NaN ratio is accepted", wrong="NaN"),
    _adaptation("correct", "correct", "two steps of fixed scales"),
    _adaptation("mutant", "adapts", "the scale depends on the last acceptance", wrong="adapts"),
    _memory("correct", "pure", "a fixed scale"),
    _memory("mutant", "remembers", "the scale depends on the calls before", wrong="remembers"),
    _program("correct", "pure program", "a fixed scale, of a random program"),
    _program(
        "mutant",
        "remembering program",
        "the scale of a random program depends on how often it ran",
        wrong="remembers",
    ),
    _keys("correct", "correct", "one key for the step, one to accept"),
    _keys("mutant", "reuse", "the step and its acceptance share a key", wrong="key reuse"),
)
