"""Part of a multivariate normal's vector: the density of what is known, and the rest given it.

With flags s of what is known, the covariance is made one of all: rows and columns of what is not
known are those of the unit matrix, and its deviations are 0. So shapes do not depend on flags.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from .distributions import elementwise


def has_parts(d: Any) -> bool:
    """Whether flags may be given for parts of one value.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl.part_of_normal import has_parts
    >>> vector = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    >>> has_parts(vector.expand([3])), has_parts(dist.Normal(0.0, 1.0))
    (True, False)
    """
    return isinstance(_vectors(d), dist.MultivariateNormal)


def _vectors(d: Any) -> Any:
    """The law of one vector, of which an expanded one has copies."""
    inner = elementwise(d)
    while isinstance(inner, dist.ExpandedDistribution):
        inner = inner.base_dist
    return inner


def are_of_parts(d: Any, flags: Any) -> bool:
    """Whether these flags have the axes of an event of `d`, a multivariate normal."""
    return has_parts(d) and jnp.ndim(flags) == len(elementwise(d).batch_shape) + 1


def log_density(d: Any, value: Any, known: Any) -> Any:
    """The log density of the known elements of each vector: their marginal, of the batch shape.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl.part_of_normal import log_density
    >>> d = dist.MultivariateNormal(jnp.zeros(2), jnp.array([[4.0, 1.0], [1.0, 9.0]]))
    >>> one = log_density(d, jnp.array([7.0, 3.0]), jnp.array([False, True]))
    >>> print(f"{one:.4f} {dist.Normal(0.0, 3.0).log_prob(3.0):.4f}")
    -2.5176 -2.5176
    """
    inner: Any = _vectors(d)
    root = _root(inner, known)
    z = _whitened(root, jnp.where(known, value - inner.loc, 0.0))
    log_det = jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
    count = jnp.sum(known, -1)
    return -0.5 * (z * z).sum(-1) - log_det - 0.5 * math.log(2 * math.pi) * count


def completed(d: Any, value: Any, known: Any, drawn: Any) -> Any:
    """The known elements of `value`, and the others from their law given these.

    Args:
      drawn: a draw of `d`. What it is off in what is known is taken from the rest of it, too,
        as far as both vary together (Matheron's rule; Journel and Huijbregts 1978).
    """
    inner: Any = _vectors(d)
    root = _root(inner, known)
    off = _whitened(root, jnp.where(known, value - drawn, 0.0))
    across = jnp.swapaxes(jnp.broadcast_to(root, (*off.shape[:-1], *root.shape[-2:])), -1, -2)
    gain = solve_triangular(across, off[..., None], lower=False)
    moved = drawn + (inner.covariance_matrix @ jnp.where(known[..., None], gain, 0.0))[..., 0]
    return jnp.where(known, value, moved)


def _root(d: Any, known: Any) -> Any:
    both = known[..., :, None] & known[..., None, :]
    unit = jnp.eye(d.event_shape[0], dtype=d.covariance_matrix.dtype)
    return jnp.linalg.cholesky(jnp.where(both, d.covariance_matrix, unit))


def _whitened(root: Any, deviation: Any) -> Any:
    batch = jnp.broadcast_shapes(root.shape[:-2], deviation.shape[:-1])
    root = jnp.broadcast_to(root, (*batch, *root.shape[-2:]))
    deviation = jnp.broadcast_to(deviation, (*batch, deviation.shape[-1]))
    return solve_triangular(root, deviation[..., None], lower=True)[..., 0]
