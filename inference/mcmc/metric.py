"""The metric of kernels that step through unconstrained space: a step size and a mass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from .low_rank import LowRank, diagonal_still

# Up to so many coordinates a metric is dense where it is not said: then a leapfrog step costs
# little beside a gradient, and what chance makes of so many correlations is shrunk away.
DENSE = 64

# Up to so many it is of low rank where there are gradients: a warm-up keeps two megabytes of
# positions and gradients for each chain then.
LOW_RANK = 1024

InverseMass = jax.Array | LowRank
"""Diagonal (n,), dense (n, n), or of low rank."""


class Metric(NamedTuple):
    """The step size and the inverse mass matrix, diagonal (n,), dense (n, n) or of low rank.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import Metric
    >>> Metric(0.5, jnp.ones(2)).inverse_mass.tolist()
    [1.0, 1.0]
    """

    step_size: Any
    inverse_mass: InverseMass

    @property
    def deviations(self) -> jax.Array:
        """Standard deviations of the coordinates, of shape (n,)."""
        mass = self.inverse_mass
        if isinstance(mass, LowRank):
            return jnp.sqrt(mass.diagonal())
        return jnp.sqrt(mass if mass.ndim == 1 else jnp.diagonal(mass))

    def spread(self, noise: jax.Array) -> jax.Array:
        """Noise of unit covariance as noise of covariance `inverse_mass`."""
        mass = self.inverse_mass
        if isinstance(mass, LowRank):
            return mass.factor_times(noise)
        return jnp.sqrt(mass) * noise if mass.ndim == 1 else jnp.linalg.cholesky(mass) @ noise

    def with_variances(self, variances: jax.Array) -> Metric:
        """The diagonal inverse mass of these, in the form that this metric has.

        >>> import jax.numpy as jnp
        >>> from inference.mcmc.metric import Metric
        >>> Metric(0.5, jnp.eye(2)).with_variances(jnp.array([2.0, 3.0])).inverse_mass.tolist()
        [[2.0, 0.0], [0.0, 3.0]]
        """
        if isinstance(self.inverse_mass, LowRank):
            return self._replace(inverse_mass=diagonal_still(variances))
        dense = self.inverse_mass.ndim == 2
        return self._replace(inverse_mass=jnp.diag(variances) if dense else variances)


def unit_metric(
    step_size: Any, n: int, dtype: Any, dense: bool | None, slopes: bool = False
) -> Metric:
    """Of mass one; its form by the number of coordinates where `dense` is None.

    Args:
      slopes: whether there are gradients, from which one of low rank is found.

    >>> from inference.mcmc.metric import unit_metric
    >>> [unit_metric(0.1, n, float, None).inverse_mass.shape for n in (2, 100)]
    [(2, 2), (100,)]
    >>> unit_metric(0.1, 100, float, None, slopes=True).inverse_mass.axes.shape
    (100, 24)
    """
    # by NumPy, since outside of a program JAX compiles each operation for itself
    if dense or (dense is None and n <= DENSE):
        return Metric(step_size, jnp.asarray(np.eye(n, dtype=dtype)))
    variances = jnp.asarray(np.ones(n, dtype))
    low_rank = dense is None and slopes and n <= LOW_RANK
    return Metric(step_size, diagonal_still(variances) if low_rank else variances)


def kinetic_energy(inverse_mass: InverseMass, r: jax.Array) -> jax.Array:
    """r M^-1 r / 2; infinite where it is too large for its products to be added up.

    Where momenta overflow, a sum of products of both signs may come out as -inf, and a
    trajectory that leaves all of space would be taken for one that gains energy.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import kinetic_energy
    >>> mass, r = jnp.array([[1.0, 0.5], [0.5, 1.0]]), jnp.array([2.0, -2.0])
    >>> [kinetic_energy(mass, x * r).item() for x in (1.0, jnp.finfo(r.dtype).max / 4)]
    [2.0, inf]
    """
    energy = 0.5 * jnp.dot(r, velocity(inverse_mass, r))
    return jnp.where(energy >= 0, energy, jnp.inf)


def velocity(inverse_mass: InverseMass, r: jax.Array) -> jax.Array:
    """M^-1 r.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import velocity
    >>> velocity(jnp.array([2.0, 3.0]), jnp.ones(2)).tolist()
    [2.0, 3.0]
    """
    if isinstance(inverse_mass, LowRank):
        return inverse_mass.times(r)
    return inverse_mass * r if inverse_mass.ndim == 1 else inverse_mass @ r


def momentum(inverse_mass: InverseMass, noise: jax.Array) -> jax.Array:
    """Noise of unit covariance as noise whose covariance is the mass.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import momentum
    >>> momentum(jnp.array([4.0, 1.0]), jnp.ones(2)).tolist()
    [0.5, 1.0]
    """
    if isinstance(inverse_mass, LowRank):
        return inverse_mass.inverse_factor_times(noise)
    if inverse_mass.ndim == 1:
        return noise / jnp.sqrt(inverse_mass)
    return solve_triangular(jnp.linalg.cholesky(inverse_mass), noise, trans=1, lower=True)


def shrunk(covariance: jax.Array, n: jax.Array, before: jax.Array) -> jax.Array:
    """The covariance of n positions as an inverse mass, whatever the units.

    A dense one is shrunk towards its diagonal by what chance makes of correlations, so that
    it is all but diagonal where they are: with correlations r, by the sum of their variances
    (1 - r^2)^2 / n over that of r^2 (Schäfer and Strimmer 2005, section 2.4, target D). By
    (5 / (n + 5))^2 at least, since few positions may lie in a plane. Stan's way, to draw
    variances towards 1e-3, changes them by any factor where a coordinate varies by less.

    Args:
      covariance: variances (d,) or a covariance matrix (d, d).
      n: how many positions it is of.
      before: the inverse mass so far, which a coordinate that did not vary at all keeps.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import shrunk
    >>> found = jnp.array([[4.0, 2.0], [2.0, 4.0]])
    >>> n = jnp.array(9)  # r = 1 / 2, whose variance is (3 / 4)^2 / 9: a quarter of r^2
    >>> shrunk(found, n, jnp.eye(2)).tolist()
    [[4.0, 1.5], [1.5, 4.0]]
    """
    if covariance.ndim == 1:
        return jnp.where(covariance > 0, covariance, before)
    d, dtype = len(covariance), covariance.dtype
    n = n.astype(dtype)
    variances = jnp.diagonal(covariance)
    varied = variances > 0
    deviations = jnp.sqrt(jnp.where(varied, variances, jnp.diagonal(before)))
    other = varied[:, None] & varied & ~jnp.eye(d, dtype=bool)
    scales = jnp.outer(deviations, deviations)
    correlations = jnp.where(other, covariance / scales, 0.0)
    squares = correlations**2
    chance = jnp.sum(jnp.where(other, (1 - squares) ** 2, 0.0)) / n
    share = jnp.where(chance < squares.sum(), chance / squares.sum(), 1.0)
    # and by what rounding may take from the least eigenvalue
    share = jnp.maximum(share, (5 / (n + 5)) ** 2 + 10 * d * jnp.finfo(dtype).eps)
    return scales * (jnp.eye(d, dtype=dtype) + (1 - share) * correlations)
