"""Resampling schemes and samplers by inverse distribution functions, also at their ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import systematic
from ppl import at_boundary, draw
from semantics import Verdict
from semantics.contracts.resamplers import check_resampler

from .registry import Entry, Kind


def by_search(weights: jax.Array, wrong: str = "") -> jax.Array:
    """Systematic resampling by search: (j + u) / n among the cumulated weights."""
    n = len(weights)
    u = draw(dist.Uniform(jnp.zeros(()), 1.0))
    points = (jnp.arange(n) + u) / (n - 1 if wrong == "n - 1" else n)
    cumulated = jnp.cumsum(weights)
    cumulated = jnp.where(cumulated >= cumulated[-1], 1.0, cumulated)
    side = "left" if wrong == "uniform 0" else "right"
    return jnp.searchsorted(cumulated, jnp.minimum(points, 1 - 2.0**-53), side=side)


def naive_exponential() -> jax.Array:
    return -jnp.log(draw(dist.Uniform(0.0, 1.0)))


def exponential() -> jax.Array:
    return -jnp.log1p(-draw(dist.Uniform(0.0, 1.0)))


def never() -> jax.Array:
    """Whether an event of probability zero happens."""
    return jnp.where(draw(dist.Uniform(0.0, 1.0)) < 0.0, jnp.inf, 0.0)


def naive_never() -> jax.Array:
    return jnp.where(draw(dist.Uniform(0.0, 1.0)) <= 0.0, jnp.inf, 0.0)


def check_finite_at_boundaries(program: Callable[[], jax.Array]) -> Verdict:
    """No infinite value at a uniform of 0, the smallest one, or one less an ulp."""
    values = [at_boundary(program, where)() for where in ("zero", "smallest", "one")]
    infinite = sum(not bool(jnp.isfinite(value)) for value in values)
    return Verdict("boundaries", infinite == 0, "identity", infinite / 3, 0.1, len(values))


def _scheme(kind: Kind, name: str, says: str, scheme: Callable) -> Entry:
    return Entry("resampling", name, says, partial(check_resampler, scheme, (3,)), kind)


def _sampler(kind: Kind, name: str, says: str, program: Callable) -> Entry:
    check = partial(check_finite_at_boundaries, program)
    return Entry("inverse CDF", name, says, check, kind, "at_boundary")


ENTRIES = (
    _scheme("correct", "systematic", "the library's", systematic),
    _scheme("correct", "by search", "systematic, by search", by_search),
    _scheme(
        "mutant",
        "uniform 0",
        "a uniform of exactly 0 takes a particle of weight zero",
        partial(by_search, wrong="uniform 0"),
    ),
    _scheme("mutant", "n - 1", "points 1 / (n - 1) apart", partial(by_search, wrong="n - 1")),
    _sampler("correct", "exponential", "-log(1 - u)", exponential),
    _sampler("mutant", "exponential of 0", "-log(u), infinite at 0", naive_exponential),
    _sampler("correct", "Bernoulli", "u < p", never),
    _sampler("mutant", "Bernoulli at 0", "u <= p happens at p = 0", naive_never),
)
