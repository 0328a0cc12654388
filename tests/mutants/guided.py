"""Guided and auxiliary particle filters, and what can be wrong with their weights.

Particles move by a proposal q that looks at what is seen, weighted by transition times emission
over q (Doucet, Godsill and Andrieu 2000); before that they are resampled by their weights times
a lookahead, which is divided out again (Pitt and Shephard 1999, in the form of Johansen and
Doucet 2008).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import Weighted, genealogy, multinomial, particle_filter, resample, spawn
from inference.weighted import Step
from ppl import Target, draw, gen, sample
from semantics import check_proper

from .cases import HIDDEN_MARKOV, positive
from .registry import family

N = 2


def tables(target: Target) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Transitions, emissions, and what is seen."""
    return target.args[0]["x"], target.args[0]["y"], target.observations["y"]


def proposed(transition: jax.Array, y: jax.Array) -> jax.Array:
    """Half the transition, and a state that changes with what is seen."""
    k = transition.shape[-1]
    return 0.5 * transition + 0.5 * jnp.where(jnp.arange(k) == y % k, 0.6, 0.4 / (k - 1))


def promise(emission: jax.Array, state: jax.Array, y: jax.Array) -> jax.Array:
    """Log of the lookahead: as if the state stayed."""
    return 0.7 * jnp.log(emission[state, y])


def guided(target: Target, wrong: str = "") -> Step:
    """The filter, from the unit measure to the paths."""
    transition, emission, seen = tables(target)

    def look(s: Weighted, t: int, times: float) -> Weighted:
        potential = promise(emission, s.value[:, t - 1], seen[t])
        return Weighted(s.value, s.log_weight + times * potential)

    def extend(s: Weighted, t: int) -> Weighted:
        before = s.value[:, t - 1] if t else jnp.zeros(N, int)
        row = transition[before, t]
        q = proposed(row, seen[t])
        x = draw(dist.CategoricalProbs(q))
        own = (jnp.arange(N), x)
        log_weight = jnp.log(emission[x, seen[t]])
        if wrong != "no transition":
            log_weight += jnp.log(row[own])
        if wrong == "another proposal":
            log_weight -= jnp.log(proposed(row, seen[t] + 1)[own])
        elif wrong != "no proposal":
            log_weight -= jnp.log(q[own])
        return Weighted(s.value.at[:, t].set(x), s.log_weight + log_weight)

    def step(weighted: Weighted) -> Weighted:
        empty = Weighted(jnp.zeros(len(seen), int), weighted.log_weight)
        s = extend(spawn(N)(empty), 0)
        for t in range(1, len(seen)):
            s = resample(look(s, t, 1.0), multinomial)
            if wrong == "lookahead after the step":
                s = extend(s, t)
                potential = promise(emission, s.value[:, t], seen[t])
                s = Weighted(s.value, s.log_weight - potential)
                continue
            if wrong != "lookahead kept":
                s = look(s, t, -1.0)
            s = extend(s, t)
        return Weighted({"x": s.value}, s.log_weight)

    return step


def library(target: Target, wrong: str = "") -> Step:
    """`particle_filter` with both; wrong ones change what it is given."""
    transition, emission, seen = tables(target)

    @gen
    def model(state, t):
        x = sample("x", dist.CategoricalProbs(transition[state, t]))
        sample("y", dist.CategoricalProbs(emission[x]))
        return x, None

    @gen
    def proposal(state, t, observed):
        sample("x", dist.CategoricalProbs(proposed(transition[state, t], observed["y"])))

    def lookahead(state, t, observed):
        return promise(emission, state, observed["y"])

    def step(weighted: Weighted) -> Weighted:
        found = particle_filter(
            model, jnp.zeros((), int), {"y": seen}, N, xs=jnp.arange(len(seen)),
            proposal=proposal, lookahead=lookahead, scheme=multinomial,
            threshold=1.0 if wrong == "always" else 0.8, history=True,
        )  # fmt: skip
        paths = genealogy(found)
        return Weighted({"x": paths.value["x"]}, weighted.log_weight + paths.log_weight)

    return step


_guided = family("guided filter", check_proper, guided, positive(HIDDEN_MARKOV))
_library = family("guided filter", check_proper, library, positive(HIDDEN_MARKOV))

ENTRIES = (
    _guided("correct", "", "a proposal, and a lookahead divided out"),
    _library("correct", "adaptive", "inference.particle_filter with both, adaptive"),
    _library("correct", "always", "inference.particle_filter with both, always resampled"),
    _guided("mutant", "no proposal", "not divided by the density of the proposal"),
    _guided("mutant", "another proposal", "divided by the density at what is not seen"),
    _guided("mutant", "no transition", "weighted by the emission over the proposal alone"),
    _guided("mutant", "lookahead kept", "the lookahead is not divided out"),
    _guided("mutant", "lookahead after the step", "divided out at the state after the step"),
)
