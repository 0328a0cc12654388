"""Resampling: a step that fixes the measure and evens out the weights."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw

from .weighted import Weighted, log_evidence, normalized


def multinomial(weights: jax.Array) -> jax.Array:
    """Ancestors drawn independently, each i with probability `weights[i]`.

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,). For other numbers of particles write a scheme of one's own.

    >>> import jax.numpy as jnp
    >>> from inference import multinomial
    >>> from ppl import integrate
    >>> weights = jnp.array([0.5, 0.25, 0.25])
    >>> copies = lambda: (multinomial(weights)[:, None] == jnp.arange(3)).sum(0)
    >>> integrate(copies)().round(4).tolist()  # on average n * weights
    [1.5, 0.75, 0.75]
    """
    n = weights.shape[0]
    return draw(dist.CategoricalProbs(weights).expand([n]))


def systematic(weights: jax.Array) -> jax.Array:
    """Ancestors by one uniform: i gets floor or ceil of n weights[i] copies. O(n).

    The number of points u, 1 + u, ... below n times the cumulated weight is the
    cumulated number of offspring (Carpenter, Clifford and Fearnhead 1999).

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,), in order.

    >>> import jax.numpy as jnp
    >>> from inference import systematic
    >>> from ppl import replay
    >>> ancestors = lambda: systematic(jnp.array([0.5, 0.25, 0.2, 0.05]))
    >>> [replay(ancestors, {"#0": u})().tolist() for u in (0.1, 0.9)]
    [[0, 0, 1, 2], [0, 0, 1, 3]]
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

    Proper for every scheme in which i has on average n * weights[i] offspring. Takes a
    `Weighted` of n particles and returns n.

    Args:
      scheme: normalised weights, of shape (n,), to ancestors; by default `systematic`.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, multinomial, resample
    >>> from ppl import integrate
    >>> s = Weighted(jnp.array([10.0, 20.0]), jnp.log(jnp.array([1.0, 3.0])))
    >>> def mean():
    ...     r = resample(s, multinomial)
    ...     return (jnp.exp(r.log_weight) * r.value).mean()
    >>> print(f"{integrate(mean)():.2f}")  # (1 * 10 + 3 * 20) / 2, as before
    35.00
    """
    ancestors = scheme(normalized(weighted.log_weight))
    value = jax.tree.map(lambda x: x[ancestors], weighted.value)
    return Weighted(value, jnp.full_like(weighted.log_weight, log_evidence(weighted)))
