"""Joint normal laws of arrays, of which some elements may be missing or certain."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ReshapeTransform


def predicted(
    mean: jax.Array, covariance: jax.Array, present: Any, shape: tuple[int, ...], dtype: Any
) -> dist.Distribution:
    """The normal law of an array of this shape, with the density of what is present.

    Args:
      mean, covariance: of all elements, `(k,)` and `(k, k)`.
      present: `(k,)` flags, or None for all.
    """
    root = root_of(covariance)
    if shape == ():
        d = dist.Normal(mean[0].astype(dtype), root[0, 0].astype(dtype))
        return d if present is None else d.mask(present[0])
    if present is None:
        flat: Any = dist.MultivariateNormal(mean.astype(dtype), scale_tril=root.astype(dtype))
    else:
        flat = PartlyKnown(*(x.astype(dtype) for x in (mean, covariance)), present)
    if len(shape) == 1:
        return flat
    return dist.TransformedDistribution(flat, ReshapeTransform(shape, mean.shape))


def root_of(covariance: jax.Array) -> jax.Array:
    """A lower factor."""
    return jnp.sqrt(covariance) if covariance.shape == (1, 1) else jnp.linalg.cholesky(covariance)


def factor_of(covariance: jax.Array) -> jax.Array:
    """A lower factor of a covariance that may be singular."""
    values, vectors = jnp.linalg.eigh((covariance + jnp.swapaxes(covariance, -1, -2)) / 2)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :]
    upper = jnp.linalg.qr(jnp.swapaxes(root, -1, -2), mode="r")
    signs = jnp.where(jnp.diagonal(upper, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return jnp.swapaxes(signs[..., None] * upper, -1, -2)


def alone(covariance: jax.Array, present: jax.Array) -> jax.Array:
    """A covariance in which what is not present is standard normal and apart from the rest."""
    both = present[:, None] & present
    return jnp.where(both, covariance, jnp.eye(len(present), dtype=covariance.dtype))


def log_normal(white: jax.Array, root: jax.Array, present: Any) -> jax.Array:
    """The log density of deviations that are `root @ white`, of which some are not present."""
    count = white.shape[-1] if present is None else jnp.sum(present)
    logs = jnp.sum(jnp.log(jnp.diagonal(root)))
    return -0.5 * jnp.sum(white**2, -1) - logs - 0.5 * count * math.log(2 * math.pi)


class PartlyKnown(dist.Distribution):
    """A multivariate normal law whose density is that of the elements that are present.

    >>> import jax.numpy as jnp
    >>> from inference.exact.normals import PartlyKnown
    >>> covariance = jnp.array([[1.0, 0.5], [0.5, 4.0]])
    >>> law = PartlyKnown(jnp.zeros(2), covariance, jnp.array([False, True]))
    >>> round(float(law.log_prob(jnp.array([9.0, 2.0]))), 4)  # log N(2; 0, 4)
    -2.1121
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("mean_", "covariance", "present")

    def __init__(self, mean: jax.Array, covariance: jax.Array, present: jax.Array):
        self.mean_, self.covariance, self.present = mean, covariance, present
        super().__init__((), jnp.shape(mean), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.real_vector

    @property
    def mean(self) -> jax.Array:
        return self.mean_

    def log_prob(self, value: Any) -> jax.Array:
        root = root_of(alone(self.covariance, self.present))
        error = jnp.where(self.present, value - self.mean_, 0.0)
        return log_normal(solve_triangular(root, error, lower=True), root, self.present)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        shape = (*sample_shape, *self.event_shape)
        noise = jax.random.normal(key, shape, self.covariance.dtype)
        return self.mean_ + noise @ root_of(self.covariance).T
