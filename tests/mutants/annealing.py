"""Annealing by particles, and what can be wrong with its weights, moves and chains.

Particles at one power are weighed by the likelihood to the difference to the next, resampled,
and moved by a kernel that leaves the next power invariant (Neal 2001; Del Moral, Doucet and
Jasra 2006). Of a waste-free move all states of few chains are particles (Dau and Chopin 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import (
    Weighted,
    accept,
    adaptive_annealing,
    annealed,
    importance,
    log_evidence,
    multinomial,
    residual,
    reverse_annealed,
    temper,
    then,
    waste_free,
)
from inference.weighted import Step, normalized
from ppl import Target, Trace, draw, gen, sample
from semantics import check_proper

from .ratios import taken
from .registry import Entry, Kind

PRIOR = jnp.array([0.6, 0.4])
SHOWS = jnp.array([0.2, 0.9])
POWERS = (0.0, 0.4, 1.0)


@gen
def coin():
    b = sample("b", dist.Categorical(PRIOR))
    sample("y", dist.Bernoulli(SHOWS[b]))


COIN = Target(coin, (), {"y": 1})


def flipped(target: Target) -> Callable[[Trace], Trace]:
    def kernel(trace: Trace) -> Trace:
        moved, log_ratio, _ = target.update(trace, {"b": 1 - trace["b"]})
        return accept(trace, moved, log_ratio)

    return kernel


def _level(b: jax.Array) -> jax.Array:
    return jnp.log(SHOWS[b])


def _flip(b: jax.Array, power: float) -> jax.Array:
    prior = jnp.log(PRIOR)
    ratio = prior[1 - b] - prior[b] + power * (_level(1 - b) - _level(b))
    return jnp.where(taken(ratio), 1 - b, b)


def by_hand(_: Target, wrong: str = "") -> Step:
    """Two particles, resampled at each power."""

    def step(weighted: Weighted) -> Weighted:
        b = draw(dist.CategoricalProbs(PRIOR).expand([2]))
        w = weighted.log_weight + POWERS[0] * _level(b)
        for before, power in pairwise(POWERS):
            by = power if wrong == "whole power" else power - before
            at = {"power before": before, "coldest": 1.0}.get(wrong, power)
            if wrong == "weighed after":
                b = _flip(b, at)
            s = Weighted(b, w + by * _level(b))
            b = b[draw(dist.CategoricalProbs(normalized(s.log_weight)).expand([2]))]
            w = jnp.full(2, log_evidence(s))
            if wrong != "weighed after":
                b = _flip(b, at)
        return Weighted({"b": b}, w)

    return step


def _found(target: Target) -> Step:
    """Powers found from the particles."""

    def step(_: Weighted) -> Weighted:
        how = {"fraction": 0.9, "max_stages": 2, "scheme": multinomial}
        return adaptive_annealing(target, 2, flipped, **how).particles

    return step


def _library(target: Target) -> Step:
    return annealed(target, 3, flipped, POWERS, threshold=1.0, scheme=multinomial)


def _back(_: Target) -> Step:
    return reverse_annealed(COIN, flipped, POWERS)


# -- waste-free moves --------------------------------------------------------------------------


def chained(target: Target, wrong: str = "") -> Step:
    """Two chains of two states, from four particles."""

    def step(weighted: Weighted) -> Weighted:
        s = importance(target, 4)(weighted)
        ancestors = residual(normalized(s.log_weight)).reshape(2, 2)
        which = 0 if wrong == "every second" else draw(dist.DiscreteUniform(0, 1))
        ancestors = ancestors[:, which]
        b = s.value["b"][ancestors]
        w = jnp.full(4, log_evidence(s))
        if wrong == "weights of starts":
            w = jnp.tile(s.log_weight[ancestors], 2)
        return Weighted({"b": jnp.concatenate([b, _flip(b, 1.0)])}, w)

    return step


def _waste_free(target: Target) -> Step:
    return then(importance(target, 4), waste_free(flipped(target), 2, residual))


def _entry(family: str, kind: Kind, name: str, says: str, make: Callable, on: Target) -> Entry:
    return Entry(family, name, says, partial(check_proper, make, on), kind)


def _annealing(kind: Kind, name: str, says: str, make: Callable, on: Target = COIN) -> Entry:
    return _entry("annealing", kind, name, says, make, on)


def _wrong(name: str, says: str) -> Entry:
    return _annealing("mutant", name, says, partial(by_hand, wrong=name))


def _chains(kind: Kind, name: str, says: str, make: Callable) -> Entry:
    return _entry("waste-free", kind, name, says, make, COIN)


def _badly(name: str, says: str) -> Entry:
    return _chains("mutant", name, says, partial(chained, wrong=name))


BACK = partial(check_proper, _back, temper(COIN, 0.0), source=lambda _: COIN)

ENTRIES = (
    _annealing("correct", "library", "resampled at each power", _library),
    Entry("annealing", "reversed", "from the target to the prior", BACK, "correct"),
    _annealing("equivalent", "by hand", "weights and moves written out", by_hand),
    _wrong("whole power", "weighed by the whole power, not the difference"),
    _wrong("weighed after", "weighed after the move to the next power"),
    _wrong("power before", "moved by the power before"),
    _wrong("coldest", "moved by the last power at all of them"),
    _annealing("mutant", "found", "the powers are found from the particles", _found),
    _chains("correct", "library", "two chains of two states", _waste_free),
    _chains("equivalent", "by hand", "the chains written out", chained),
    _badly("every second", "starts at every second ancestor, from the first one on"),
    _badly("weights of starts", "chains keep the weights of their starts"),
)
