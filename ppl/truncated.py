"""Densities of truncated distributions, whose normalisers never underflow.

The mass between the bounds is a difference of two tails. Far from the centre both are
smaller than the least number there is, though their logarithms are small numbers: here
everything is a logarithm, taken in the tail on whose side the interval lies.

For the families whose tails have no such formula (Student's t), numpyro's density runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr


def _cauchy(z: Any) -> Any:
    """log P(Z < z): `arctan2` keeps the digits of the left tail."""
    return jnp.log(jnp.arctan2(1.0, -z) / math.pi)


def _laplace(z: Any) -> Any:
    right = jnp.log1p(-0.5 * jnp.exp(-jnp.maximum(z, 0.0)))
    return jnp.where(z < 0, jnp.minimum(z, 0.0) - math.log(2.0), right)


def _soft_laplace(z: Any) -> Any:
    """log of 2/pi arctan(e^z); in the left tail arctan(x) = x (1 - x^2 / 3 + ...)."""
    far = z < -20.0  # where the second term is less than a rounding, of float64 too
    near = jnp.log(jnp.arctan(jnp.exp(jnp.where(far, 0.0, z))))
    return math.log(2.0 / math.pi) + jnp.where(far, z, near)


# log of the distribution function of the standard member, each symmetric about 0
_LOG_CDF: dict[type, Callable] = {
    dist.Normal: log_ndtr,
    dist.Logistic: jax.nn.log_sigmoid,
    dist.Laplace: _laplace,
    dist.Cauchy: _cauchy,
    dist.SoftLaplace: _soft_laplace,
}


def _log_difference(a: Any, b: Any) -> Any:
    """log(e^b - e^a), for a <= b."""
    gap = b - a
    return b + jnp.where(gap > math.log(2.0), jnp.log1p(-jnp.exp(-gap)), jnp.log(-jnp.expm1(-gap)))


def _ends(d: Any) -> tuple[Any, Any]:
    base = d.base_dist
    low, high = getattr(d, "low", None), getattr(d, "high", None)

    def standard(end: Any) -> Any:
        return None if end is None else (end - base.loc) / base.scale

    return standard(low), standard(high)


def log_mass(d: Any) -> Any | None:
    """log P(low <= X <= high) of the base distribution, if its tails have a formula."""
    log_cdf = _LOG_CDF.get(type(d.base_dist))
    if log_cdf is None:
        return None
    low, high = _ends(d)
    if high is None:
        return log_cdf(-low)
    if low is None:
        return log_cdf(high)
    right = low > 0  # reflected, so that both tails are left of the centre or around it
    a, b = jnp.where(right, -high, low), jnp.where(right, -low, high)
    return _log_difference(log_cdf(a), log_cdf(b))


def log_density(d: Any, value: Any) -> Any | None:
    """log p(value) of a truncated distribution, `-inf` off its support; or None, as above."""
    mass = log_mass(d)
    if mass is None:
        return None
    inside = jnp.asarray(True)
    if hasattr(d, "low"):
        inside = inside & (value >= d.low)
    if hasattr(d, "high"):
        inside = inside & (value <= d.high)
    base = d.base_dist
    return jnp.where(inside, type(base).log_prob.__wrapped__(base, value) - mass, -jnp.inf)


KINDS = (
    dist.LeftTruncatedDistribution,
    dist.RightTruncatedDistribution,
    dist.TwoSidedTruncatedDistribution,
)
