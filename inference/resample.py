"""Resampling: a step that fixes the measure and evens out the weights."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw

from .weighted import Weighted, log_evidence, normalized


def multinomial(weights: jax.Array) -> jax.Array:
    """Ancestors drawn independently, each i with probability `weights[i]`."""
    n = weights.shape[0]
    return draw(dist.CategoricalProbs(weights).expand([n]))


def systematic(weights: jax.Array) -> jax.Array:
    """Ancestors by one uniform: i gets floor or ceil of n weights[i] copies. O(n).

    The number of points u, 1 + u, ... below n times the cumulated weight is the
    cumulated number of offspring (Carpenter, Clifford and Fearnhead 1999).
    """
    n = weights.shape[0]
    u = draw(dist.Uniform(jnp.zeros((), weights.dtype), 1.0))
    cumulative = jnp.cumsum(weights)
    # the last particle of positive weight takes what rounding leaves over
    cumulative = jnp.where(cumulative >= cumulative[-1], 1.0, cumulative / cumulative[-1])
    ends = jnp.clip(jnp.ceil(cumulative * n - u), 0, n).astype(int)
    starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
    slots = jnp.where(ends > starts, starts, n)
    first = jnp.zeros(n, ends.dtype).at[slots].max(jnp.arange(n), mode="drop")
    return jax.lax.cummax(first)


def resample(weighted: Weighted, scheme: Callable[[jax.Array], jax.Array] = systematic) -> Weighted:
    """Particles drawn by weight, all with the mean weight; <<.>> stays the same.

    Proper for every scheme in which i has on average n * weights[i] offspring.
    """
    ancestors = scheme(normalized(weighted.log_weight))
    value = jax.tree.map(lambda x: x[ancestors], weighted.value)
    return Weighted(value, jnp.full_like(weighted.log_weight, log_evidence(weighted)))
