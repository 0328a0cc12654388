"""Probabilities of outcomes, by no logarithm: right, with their derivatives, at 0 and at 1, too.

exp(log p) is p, but where p = 0 its derivative is 0 times infinity.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from .distributions import log_density


def probability(d: Any, value: Any) -> jax.Array:
    """p(value) of a discrete distribution, one number per element of the batch shape.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl.chances import probability
    >>> jax.grad(lambda p: probability(dist.Bernoulli(p), 1))(0.0).item()
    1.0
    """
    if isinstance(d, dist.Independent):
        inner = probability(d.base_dist, value)
        return jnp.prod(inner, tuple(range(-d.reinterpreted_batch_ndims, 0)))
    if type(d) is dist.ExpandedDistribution and not d.base_dist.event_shape:
        inner = probability(d.base_dist, value)
        return jnp.broadcast_to(inner, jnp.broadcast_shapes(inner.shape, d.batch_shape))
    if isinstance(d, dist.BernoulliProbs):
        return jnp.where(value == 1, d.probs, jnp.where(value == 0, 1 - d.probs, 0.0))
    if isinstance(d, dist.BernoulliLogits):
        sign = jnp.where(value == 1, 1.0, -1.0)
        return jnp.where((value == 0) | (value == 1), jax.nn.sigmoid(sign * d.logits), 0.0)
    if isinstance(d, dist.CategoricalProbs):
        return _picked(d.probs, value)
    if isinstance(d, dist.CategoricalLogits):
        return _picked(jax.nn.softmax(d.logits, -1), value)
    if isinstance(d, dist.BinomialProbs):
        return _binomial(d, value)
    return jnp.exp(log_density(d, value))


def _binomial(d: Any, value: Any) -> jax.Array:
    """By powers where p is 0 or 1, and else by logarithms, as there are many ways to succeed."""
    edge = (d.probs == 0) | (d.probs == 1)
    inner = dist.BinomialProbs(jnp.where(edge, 0.5, d.probs), d.total_count)
    ok = d.support(value)
    # a power of zero has derivatives if its exponent is an int
    k = jnp.where(ok, jnp.asarray(value).astype(int), 0)
    rest = jnp.asarray(d.total_count).astype(int) - k
    ways = gammaln(d.total_count + 1.0) - gammaln(k + 1.0) - gammaln(rest + 1.0)
    # where they are more, what they are multiplied with is zero, and so is its slope
    ways = jnp.exp(jnp.minimum(ways, 80.0))
    p = jnp.where(edge, d.probs, 0.0)
    each = ways * jax.lax.pow(*_alike(p, k)) * jax.lax.pow(*_alike(1 - p, rest))
    return jnp.where(ok, jnp.where(edge, each, jnp.exp(log_density(inner, value))), 0.0)


def _alike(x: Any, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    shape = jnp.broadcast_shapes(jnp.shape(x), k.shape)
    x = jnp.asarray(x, jnp.result_type(x, 0.0))
    return jnp.broadcast_to(x, shape), jnp.broadcast_to(k, shape)


def _picked(p: Any, value: Any) -> jax.Array:
    places = jnp.arange(p.shape[-1])
    return jnp.sum(jnp.where(jnp.asarray(value)[..., None] == places, p, 0.0), -1)
