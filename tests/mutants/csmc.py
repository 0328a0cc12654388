"""Conditional sequential Monte Carlo on hidden Markov programs, and its classical bugs.

A particle filter in which one path is the current one, kept through every resampling; the
new path is one of the final particles. It leaves the posterior invariant for any number of
particles (Andrieu, Doucet and Holenstein 2010, theorem 5). With two particles some of the
bugs below are invisible; here are three.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import particle_gibbs
from ppl import Target, Trace, draw
from semantics import check_kernel

from .cases import HIDDEN_MARKOV, positive
from .registry import family


def conditional_smc(target: Target, wrong: str = "", n: int = 3) -> Callable[[Trace], Trace]:
    """The particle Gibbs kernel, with one thing `wrong`. The current path is in slot 0."""
    transition, emission = target.args[0]["x"], target.args[0]["y"]
    seen = target.observations["y"]
    last = len(seen) - 1
    slot = n - 1 if wrong == "last slot" else 0

    def kernel(trace: Trace) -> Trace:
        kept = trace["x"]

        def states(rows: jax.Array, t: int) -> jax.Array:
            """New states from these rows of the transition table, the kept one in its slot."""
            where = (slot + 1) % n if wrong == "slot lost" and t else slot
            if t == {"first state free": 0, "last state free": last}.get(wrong, -1):
                return draw(dist.CategoricalProbs(rows))
            others = draw(dist.CategoricalProbs(jnp.delete(rows, where, axis=0)))
            return jnp.insert(others, where, kept[t])

        def ancestors(weights: jax.Array, paths: jax.Array, t: int) -> jax.Array:
            choose = dist.CategoricalProbs(weights / weights.sum())
            if wrong == "reference resampled":
                return draw(choose.expand([n]))
            others = draw(choose.expand([n - 1]))
            mine = jnp.asarray(slot)
            if wrong == "ancestor sampling":
                backward = weights * transition[paths[:, t - 1], t, kept[t]]
                mine = draw(dist.CategoricalProbs(backward / backward.sum()))
            return jnp.insert(others, slot, mine)

        paths = jnp.zeros((n, last + 1), kept.dtype)
        weights = jnp.ones(n)
        for t in range(last + 1):
            if t:
                paths = paths[ancestors(weights, paths, t)]
            rows = transition[paths[:, t - 1] if t else jnp.zeros(n, int), t]
            paths = paths.at[:, t].set(states(rows, t))
            old, weights = weights, emission[paths[:, t], seen[t]]
            if t and wrong == "wrong step":
                weights = weights.at[slot].set(emission[kept[t - 1], seen[t - 1]])
            if wrong == "weights accumulated":
                weights = weights * old
        if wrong == "never chosen":
            weights = weights.at[slot].set(0.0)
        if wrong == "uniform choice":
            weights = jnp.ones(n)
        chosen = draw(dist.CategoricalProbs(weights / weights.sum()))
        return target.update(trace, {"x": paths[chosen]})[0]

    return kernel


_entry = family("conditional SMC", check_kernel, conditional_smc, positive(HIDDEN_MARKOV))


def _particle_gibbs(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    return particle_gibbs(target, "x", 3)


_library = family("conditional SMC", check_kernel, _particle_gibbs, positive(HIDDEN_MARKOV))

ENTRIES = (
    _entry("correct", "", "three particles, multinomial"),
    _library("correct", "library", "inference.particle_gibbs, with ancestor sampling"),
    _entry("equivalent", "last slot", "the current path is in the last slot"),
    _entry("equivalent", "ancestor sampling", "with ancestor sampling (Lindsten et al. 2014)"),
    _entry("mutant", "reference resampled", "the ancestor of the current path is drawn"),
    _entry("mutant", "never chosen", "the current path is never chosen again"),
    _entry("mutant", "wrong step", "the current path is weighted at the step before"),
    _entry("mutant", "slot lost", "later states are kept in another slot than the first"),
    _entry("mutant", "first state free", "the first state of the current path is redrawn"),
    _entry("mutant", "last state free", "the last state of the current path is redrawn"),
    _entry("mutant", "weights accumulated", "weights not reset after resampling"),
    _entry("mutant", "uniform choice", "the new path is chosen without its weight"),
)
