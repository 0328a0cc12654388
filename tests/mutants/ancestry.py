"""Pairs of particles of unlike ancestors, and what can be wrong with their weights.

A particle filter of n particles, in which each keeps the index of its ancestor in the first step.
Pairs (i, j) of unlike ancestors, each of weight c w_i w_j with c = (n / (n - 1))^(k + 1) after k
multinomial resamplings, denote the target times itself (Lee and Whiteley 2018). So the first of a
pair, divided by the evidence, denotes the target; whence the variance of the evidence.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from inference import Weighted, log_evidence, multinomial, particle_filter, relative_variance
from inference.weighted import Step, normalized
from ppl import Target, draw, gen, sample
from semantics import check_proper
from semantics.generated.programs import hidden_markov

from .cases import HIDDEN_MARKOV, positive
from .registry import Entry, Kind

THREE_STEPS = hidden_markov(2, 2, 3)


def _tables(target: Target) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Transitions [from, t, to], emissions [state, symbol], what is seen, and its log evidence."""
    transition, emission = target.args[0]["x"], target.args[0]["y"]
    seen = target.observations["y"]
    mass = jnp.eye(len(emission))[0]
    for t in range(len(seen)):
        mass = (mass @ transition[:, t]) * emission[:, seen[t]]
    return transition, emission, seen, jnp.log(mass.sum())


def unlike(target: Target, wrong: str = "", n: int = 3, fraction: float = 2.0) -> Step:
    """From the unit measure to `target`: the first of each pair, by its weight with all others."""
    transition, emission, seen, evidence = _tables(target)

    def once() -> Weighted:
        paths, log_weight = jnp.zeros((n, len(seen)), int), jnp.zeros(n)
        eves, resamplings = jnp.arange(n), jnp.zeros((), int)
        for t in range(len(seen)):
            if t:
                few = 1 / (normalized(log_weight) ** 2).sum() < fraction * n
                drawn = multinomial(normalized(log_weight))
                ancestors = jnp.where(few, drawn, jnp.arange(n))
                paths = paths[ancestors]
                log_weight = jnp.where(few, log_evidence(Weighted((), log_weight)), log_weight)
                if wrong == "parents":
                    eves = ancestors
                elif wrong != "not inherited":
                    eves = eves[ancestors]
                resamplings += 1 if wrong == "every step" else few
            before = paths[:, t - 1] if t else jnp.zeros(n, int)
            x = draw(dist.CategoricalProbs(transition[before, t]))
            paths, log_weight = paths.at[:, t].set(x), log_weight + jnp.log(emission[x, seen[t]])
        weights = jnp.exp(log_weight)
        apart = eves[:, None] != eves
        if wrong == "all pairs":
            apart = jnp.ones((n, n), bool)
        exponent = resamplings + (0 if wrong == "once less" else 1)
        factor = 1.0 if wrong == "no factor" else (n / (n - 1)) ** exponent
        others = factor * (apart * weights).mean(1)
        return Weighted({"x": paths}, log_weight + jnp.log(others) - evidence)

    return lambda weighted: _after(weighted, once())


def by_variance(target: Target) -> Step:
    """The same measure from `inference.relative_variance`: one particle for each path.

    Z^2 (m - Cov) is that of the pairs, m being the filter's mean of an indicator and Cov its
    covariance with 1, relative to Z^2.
    """
    transition, emission, seen, evidence = _tables(target)
    steps, states = len(seen), len(emission)
    grid = np.indices((states,) * steps).reshape(steps, -1).T

    @gen
    def model(state, t):
        x = sample("x", dist.CategoricalProbs(transition[state[0], t]))
        sample("y", dist.CategoricalProbs(emission[x]))
        return (x, state[1].at[t].set(x)), None

    def once() -> Weighted:
        first = jnp.zeros((), int), jnp.zeros(steps, int)
        found = particle_filter(
            model, first, {"y": seen}, 2, xs=jnp.arange(steps), scheme=multinomial, threshold=1.0
        )

        def here(state: tuple) -> jax.Array:
            return (state[1] == grid).all(1).astype(float)

        mean = normalized(found.particles.log_weight) @ jax.vmap(here)(found.particles.value)
        whole, alone, both = (
            relative_variance(found, f)
            for f in (lambda s: jnp.ones(()), here, lambda s: 1 + here(s))
        )
        part = mean - (both - alone - whole) / 2
        part = jnp.where(part < 1e-12, 0.0, part)  # zero, but for rounding
        z = log_evidence(found.particles)
        return Weighted({"x": jnp.asarray(grid)}, jnp.log(part * len(grid)) + 2 * z - evidence)

    return lambda weighted: _after(weighted, once())


def _after(weighted: Weighted, found: Weighted) -> Weighted:
    return Weighted(found.value, found.log_weight + weighted.log_weight)


def _entry(kind: Kind, wrong: str, says: str, shape=HIDDEN_MARKOV, **how) -> Entry:
    make = partial(unlike, wrong=wrong, **how)
    name = wrong or ", ".join(["correct", *(f"{k} {v}" for k, v in how.items())])
    return Entry("ancestry", name, says, partial(check_proper, make, positive(shape)), kind)


ENTRIES = (
    _entry("correct", "", "pairs of unlike ancestors"),
    _entry("correct", "", "resampled adaptively", THREE_STEPS, n=2, fraction=0.9),
    Entry(
        "ancestry",
        "library",
        "inference.relative_variance, of two particles",
        partial(check_proper, by_variance, positive(THREE_STEPS)),
        "correct",
    ),
    _entry("mutant", "once less", "one generation is not counted: (n / (n - 1))^k"),
    _entry("mutant", "no factor", "the factor is left out, as in Chan and Lai (2013)"),
    _entry("mutant", "not inherited", "resampling leaves the ancestors behind"),
    _entry("mutant", "all pairs", "pairs of one ancestor count too"),
    _entry("mutant", "parents", "ancestors of the last step, not the first", THREE_STEPS, n=2),
    _entry(
        "mutant",
        "every step",
        "a step without resampling counts as one with",
        THREE_STEPS,
        n=2,
        fraction=0.9,
    ),
)
