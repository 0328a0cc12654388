"""Islands of particles on a chain of two hidden states, and what can be wrong with their masses.

Two islands of two particles: each resamples within, what that does to its mass goes to its
weight, and islands are resampled by their weights (Vergé, Dubarry, Del Moral and Moulines 2015).
Of the second state one value cannot show what is seen, so that particles and islands may die.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import (
    Weighted,
    each,
    islands,
    log_evidence,
    merged,
    multinomial,
    resample,
    then,
    within,
)
from inference.weighted import Step, normalized
from ppl import Target, draw, gen, sample
from semantics import check_proper

from .registry import Entry, Kind

PRIOR = jnp.array([0.6, 0.4])
MOVES = jnp.array([[0.7, 0.3], [0.2, 0.8]])
FIRST = jnp.array([0.2, 0.9])
SECOND = jnp.array([0.0, 0.7])


@gen
def chain():
    a = sample("a", dist.Categorical(PRIOR))
    sample("y", dist.Bernoulli(FIRST[a]))
    b = sample("b", dist.Categorical(MOVES[a]))
    sample("z", dist.Bernoulli(SECOND[b]))


CHAIN = Target(chain, (), {"y": 1, "z": 1})


def _begun(s: Weighted) -> Weighted:
    a = draw(dist.CategoricalProbs(PRIOR))
    return Weighted({"a": a}, s.log_weight + jnp.log(FIRST[a]))


def _went_on(s: Weighted) -> Weighted:
    b = draw(dist.CategoricalProbs(MOVES[s.value["a"]]))
    return Weighted({**s.value, "b": b}, s.log_weight + jnp.log(SECOND[b]))


def _evenly(s: Weighted) -> Weighted:
    return resample(s, multinomial)


def library(_: Target, exchange: bool = True) -> Step:
    """Resampled within, and if so told by islands, between the two steps."""
    return then(
        islands(2, 2),
        each(within(each(_begun))),
        _evenly if exchange else then(),
        each(within(then(_evenly, each(_went_on)))),
        merged,
    )


def log_evidence_of(w: jax.Array) -> jax.Array:
    return log_evidence(Weighted((), w))


def by_hand(_: Target, wrong: str = "") -> Step:
    """Arrays of islands and particles, and nothing of `inference.islands`."""

    def settled(w: jax.Array, outer: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the particles' weights have in common, moved to their islands'."""
        total = jax.vmap(log_evidence_of)(w)
        safe = total if wrong == "dead" else jnp.where(total > -jnp.inf, total, 0.0)
        rest = w if wrong == "twice" else w - safe[:, None]
        if wrong == "forgotten":
            return rest, outer
        if wrong == "shared":
            return rest, outer + log_evidence_of(total)
        if wrong == "last":
            return rest, total
        if wrong == "sum":
            return rest, outer + total + jnp.log(w.shape[1])
        return rest, outer + total

    def step(weighted: Weighted) -> Weighted:
        a = draw(dist.CategoricalProbs(PRIOR).expand([2, 2]))
        w, outer = settled(jnp.log(FIRST[a]), jnp.full(2, weighted.log_weight))
        chosen = draw(dist.CategoricalProbs(normalized(outer)).expand([2]))
        a, w = a[chosen], w[chosen]
        outer = outer[chosen] if wrong == "exchanged" else jnp.full(2, log_evidence_of(outer))
        own = jax.vmap(normalized)(w)[:, None]
        ancestors = draw(dist.CategoricalProbs(jnp.broadcast_to(own, (2, 2, 2))))
        a = jnp.take_along_axis(a, ancestors, 1)
        w = jnp.broadcast_to(jax.vmap(log_evidence_of)(w)[:, None], w.shape)
        b = draw(dist.CategoricalProbs(MOVES[a]))
        w, outer = settled(w + jnp.log(SECOND[b]), outer)
        outer = log_evidence_of(outer) if wrong == "alike" else outer[:, None]
        return Weighted({"a": a.ravel(), "b": b.ravel()}, (w + outer).ravel())

    return step


def _entry(kind: Kind, name: str, says: str, make: Callable) -> Entry:
    return Entry("islands", name, says, partial(check_proper, make, CHAIN), kind)


def _wrong(name: str, says: str) -> Entry:
    return _entry("mutant", name, says, partial(by_hand, wrong=name))


ENTRIES = (
    _entry("correct", "library", "resampled within islands, and by islands", library),
    _entry("correct", "apart", "resampled within islands alone", partial(library, exchange=False)),
    _entry("equivalent", "by hand", "masses and weights written out", by_hand),
    _wrong("forgotten", "the mass of an island is taken out and not given to its weight"),
    _wrong("twice", "the mass is given to the island's weight and not taken out"),
    _wrong("shared", "the mass of all islands is given to each"),
    _wrong("last", "an island's weight is its last mass alone"),
    _wrong("sum", "the mass is the sum of the weights, not their mean"),
    _wrong("exchanged", "islands are resampled with their weights"),
    _wrong("alike", "merged: all islands weigh alike"),
    _wrong("dead", "NaN where all particles of an island are dead"),
)
