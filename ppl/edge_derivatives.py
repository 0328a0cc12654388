"""Densities whose derivatives are right at the edges, where a factor is zero to the power zero.

With no success, (1 - p)^n has the derivative -n in p at p = 0; a density written as
0 log p + n log(1 - p) has 0 times infinity there, or is cut off and has none. Here a power of
zero is left out before its logarithm is taken. The same for a Beta at 0 and 1.

`tests/test_distributions.py` compares them with closed forms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import betaln, gammaln


def log_density(d: Any, value: Any) -> jax.Array | None:
    """log p(value), `-inf` off the support, of the kinds in this file; None of others.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl.edge_derivatives import log_density
    >>> jax.grad(lambda p: log_density(dist.Binomial(5, p), 0))(0.0).item()
    -5.0
    """
    density = _KINDS.get(type(d))
    return None if density is None else density(d, value)


def _times_log(k: Any, x: Any) -> jax.Array:
    """k log x, nothing where k is 0."""
    return jnp.where(k == 0, 0.0, k * jnp.log(jnp.where(k == 0, 1.0, x)))


def _times_log1p(k: Any, x: Any) -> jax.Array:
    """k log(1 + x), nothing where k is 0."""
    return jnp.where(k == 0, 0.0, k * jnp.log1p(jnp.where(k == 0, 0.0, x)))


def _count(d: Any, value: Any) -> tuple[Any, Any]:
    """The value as a float that is a count, and whether it is one."""
    ok = d.support(value)
    return jnp.where(ok, jnp.asarray(value, jnp.result_type(float)), 0.0), ok


def _binomial(d: Any, value: Any) -> jax.Array:
    k, ok = _count(d, value)
    rest = d.total_count - k
    ways = gammaln(d.total_count + 1.0) - gammaln(k + 1) - gammaln(rest + 1)
    return jnp.where(ok, ways + _times_log(k, d.probs) + _times_log1p(rest, -d.probs), -jnp.inf)


def _poisson(d: Any, value: Any) -> jax.Array:
    k, ok = _count(d, value)
    rate = jnp.asarray(d.rate, jnp.result_type(float))
    return jnp.where(ok, _times_log(k, rate) - gammaln(k + 1) - rate, -jnp.inf)


def _geometric(d: Any, value: Any) -> jax.Array:
    k, ok = _count(d, value)
    return jnp.where(ok, _times_log1p(k, -d.probs) + jnp.log(d.probs), -jnp.inf)


def _negative_binomial(d: Any, value: Any) -> jax.Array:
    k, ok = _count(d, value)
    ways = -betaln(d.total_count, k + 1) - jnp.log(d.total_count + k)
    found = ways + _times_log(k, d.probs) + d.total_count * jnp.log1p(-d.probs)
    return jnp.where(ok, found, -jnp.inf)


def _multinomial(d: Any, value: Any) -> jax.Array:
    ok = d.support(value)
    k = jnp.where(ok[..., None], jnp.asarray(value, jnp.result_type(float)), 0.0)
    found = gammaln(d.total_count + 1.0) + (_times_log(k, d.probs) - gammaln(k + 1)).sum(-1)
    return jnp.where(ok, found, -jnp.inf)


def _beta(d: Any, value: Any) -> jax.Array:
    x, a, b = jnp.asarray(value), d.concentration1, d.concentration0
    left, right = x > 0, x < 1
    # at an edge a power is 0, 1 or infinite, whatever is near
    low = jax.lax.stop_gradient(jnp.where(a == 1, 0.0, jnp.where(a > 1, -jnp.inf, jnp.inf)))
    high = jax.lax.stop_gradient(jnp.where(b == 1, 0.0, jnp.where(b > 1, -jnp.inf, jnp.inf)))
    found = jnp.where(left, (a - 1) * jnp.log(jnp.where(left, x, 1.0)), low)
    found += jnp.where(right, (b - 1) * jnp.log1p(jnp.where(right, -x, 0.0)), high)
    return jnp.where(d.support(x), found + gammaln(a + b) - gammaln(a) - gammaln(b), -jnp.inf)


_KINDS: dict[type, Callable] = {
    dist.BinomialProbs: _binomial,
    dist.Poisson: _poisson,
    dist.GeometricProbs: _geometric,
    dist.NegativeBinomialProbs: _negative_binomial,
    dist.MultinomialProbs: _multinomial,
    dist.Beta: _beta,
}
