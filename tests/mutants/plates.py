"""Gibbs and Metropolis steps on the elements of one choice, and what can be wrong with them.

Elements that depend on one another are drawn in order, each given the others as they are
now; elements that do not may be drawn, or accepted, all at once, each by its own ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference.mcmc.gibbs import gibbs
from inference.mcmc.mh_each import mh_each
from inference.targets.plates import Plate
from ppl import Target, Trace, draw, gen, sample, select, vmap
from ppl.addresses import nest
from semantics import check_kernel

from .ratios import taken, total
from .registry import Entry, family

Kernel = Callable[[Trace], Trace]
PRIOR = jnp.array([0.2, 0.3, 0.5])
HEADS = jnp.array([0.1, 0.6, 0.9])
STEPS = jnp.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
Z = ("s", "z")


@gen
def coin(q):
    z = sample("z", dist.Categorical(PRIOR))
    sample("y", dist.Bernoulli(HEADS[z] * q))
    return z


COINS = gen(lambda: sample("s", vmap(coin)(jnp.array([0.5, 0.8, 1.0]))))
APART = Target(COINS, (), {"s": {"y": jnp.array([1, 0, 1])}})
"""Three elements of three values, with data of their own: independent given the data."""


@gen
def summed():
    total = sample("s", vmap(coin)(jnp.array([0.5, 0.8, 1.0]))).sum()
    sample("sum", dist.Bernoulli(0.1 + 0.1 * total))


TOGETHER = Target(summed, (), {"s": {"y": jnp.array([1, 0, 1])}, "sum": 1})
"""The same, with data on their sum: dependent."""


@gen
def chain():
    def step(state, _):
        state = sample("z", dist.Categorical(STEPS[state]))
        sample("y", dist.Bernoulli(HEADS[state]))
        return state, None

    sample("s", gen(lambda: jax.lax.scan(step, 0, None, length=3)[0])())


CHAIN = Target(chain, (), {"s": {"y": jnp.array([1, 0, 1])}})
"""Three states of a hidden Markov model."""


# -- Gibbs -------------------------------------------------------------------------------------


def in_order(target: Target, wrong: str = "") -> Kernel:
    """Each element from its conditional, one after the other, with one thing `wrong`."""
    length = target.sites[Z].shape[0]

    def conditional(trace: Trace, i: int) -> jax.Array:
        def at(value: jax.Array) -> jax.Array:
            return target.update(trace, nest({Z: trace[Z].at[i].set(value)}))[1]

        return jax.vmap(at)(jnp.arange(3))

    def kernel(trace: Trace) -> Trace:
        cache = [conditional(trace, i) for i in range(length)] if wrong == "cache" else None
        for i in range(length):
            logits = conditional(trace, i) if cache is None else cache[i]
            value = draw(dist.Categorical(logits=logits))
            trace = target.update(trace, nest({Z: trace[Z].at[i].set(value)}))[0]
        return trace

    return kernel


def at_once(target: Target, wrong: str = "") -> Kernel:
    """All elements from their conditionals at once, with one thing `wrong`."""
    plate = Plate.of(target, Z)

    def kernel(trace: Trace) -> Trace:
        at = lambda value: plate.log_densities(trace, jnp.full(3, value))  # noqa: E731
        logits = jax.vmap(at)(jnp.arange(3)).T
        if wrong == "another element":
            logits = jnp.roll(logits, 1, 0)
        if wrong == "one for all":
            logits = jnp.broadcast_to(logits.sum(0), logits.shape)
        values = draw(dist.Categorical(logits=logits))
        return target.update(trace, nest({Z: values}))[0]

    return kernel


def coupled(target: Target) -> Kernel:
    """All at once from densities that forget the data on the sum."""

    def conditionals(trace: Trace) -> jax.Array:
        each = lambda z, y, q: coin.assess({"z": z, "y": y}, q)[0]  # noqa: E731
        across = jax.vmap(each, (None, 0, 0))
        scales = jnp.array([0.5, 0.8, 1.0])
        return jax.vmap(lambda z: across(z, trace["s", "y"], scales))(jnp.arange(3)).T

    def kernel(trace: Trace) -> Trace:
        values = draw(dist.Categorical(logits=conditionals(trace)))
        return target.update(trace, nest({Z: values}))[0]

    return kernel


# -- Metropolis --------------------------------------------------------------------------------

WALK = gen(lambda value, i: sample("to", dist.Categorical(STEPS[value])))


def accepted_each(target: Target, wrong: str = "") -> Kernel:
    """Redraws all elements and accepts each by its own ratio, with one thing `wrong`."""
    plate = Plate.of(target, Z)
    counted = None if wrong == "own density" else ~select(Z)

    def kernel(trace: Trace) -> Trace:
        new = target.regenerate(trace, Z)[0][Z]
        after = plate.log_densities(trace, new, counted)
        ratio = after - plate.log_densities(trace, trace[Z], counted)
        if wrong in ("summed", "together"):
            ratio = jnp.broadcast_to(ratio.sum(), ratio.shape)
        if wrong == "another element":
            ratio = jnp.roll(ratio, 1)
        accepted = taken(ratio[0] if wrong == "together" else ratio)
        return target.update(trace, nest({Z: jnp.where(accepted, new, trace[Z])}))[0]

    return kernel


def walked_each(target: Target, wrong: str = "") -> Kernel:
    """As `accepted_each`, from a skewed walk on each element."""
    plate = Plate.of(target, Z)

    def kernel(trace: Trace) -> Trace:
        old = trace[Z]
        new = draw(dist.Categorical(STEPS[old]))
        terms = {
            "target": plate.log_densities(trace, new) - plate.log_densities(trace, old),
            "backward": jnp.log(STEPS[new, old]),
            "forward": -jnp.log(STEPS[old, new]),
        }
        accepted = taken(total(terms, wrong))
        return target.update(trace, nest({Z: jnp.where(accepted, new, old)}))[0]

    return kernel


def _library(target: Target) -> Kernel:
    return gibbs(target, Z)


def _library_each(target: Target) -> Kernel:
    return mh_each(target, Z)


def _library_walk(target: Target) -> Kernel:
    return mh_each(target, Z, WALK)


def _correct(of: str, says: str, make: Callable, target: Target) -> Entry:
    return Entry(of, says, says, partial(check_kernel, make, target), "correct")


_in_order = family("Gibbs of elements", check_kernel, in_order, TOGETHER)
_at_once = family("Gibbs of elements", check_kernel, at_once, APART)
_accepted = family("MH of elements", check_kernel, accepted_each, APART)
_walked = family("MH of elements", check_kernel, walked_each, APART)

ENTRIES = (
    _correct("Gibbs of elements", "gibbs on independent elements", _library, APART),
    _correct("Gibbs of elements", "gibbs on dependent elements", _library, TOGETHER),
    _correct("Gibbs of elements", "gibbs on the states of a chain", _library, CHAIN),
    _in_order("equivalent", "whole", "every density of the whole model"),
    _in_order("mutant", "cache", "stale cache: densities of all elements from before the sweep"),
    _at_once("mutant", "another element", "drawn with the probabilities of the element before"),
    _at_once("mutant", "one for all", "drawn with the densities summed over the elements"),
    Entry(
        "Gibbs of elements",
        "coupled",
        "dependent elements drawn at once",
        partial(check_kernel, coupled, TOGETHER),
    ),
    _correct("MH of elements", "mh_each from the model", _library_each, APART),
    _correct("MH of elements", "mh_each from a proposal", _library_walk, APART),
    _accepted("equivalent", "together", "all accepted together, by the summed ratio"),
    _accepted("mutant", "summed", "each accepted by the summed ratio"),
    _accepted("mutant", "another element", "each accepted by the ratio of the element before"),
    _accepted("mutant", "own density", "redrawn from the model, whose density is counted again"),
    _walked("mutant", "target", "the target left out of each ratio"),
    _walked("mutant", "backward", "the reverse density left out of each ratio"),
    _walked("mutant", "forward", "the forward density left out of each ratio"),
)
