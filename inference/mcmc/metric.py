"""The metric of kernels that step through unconstrained space: a step size and a mass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

# Up to so many coordinates a metric is dense where it is not said: then a leapfrog step costs
# little beside a gradient, and what chance makes of so many correlations is shrunk away.
DENSE = 64


class Metric(NamedTuple):
    """The step size and the inverse mass matrix, diagonal (n,) or dense (n, n).

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import Metric
    >>> Metric(0.5, jnp.ones(2)).inverse_mass.tolist()
    [1.0, 1.0]
    """

    step_size: Any
    inverse_mass: jax.Array

    @property
    def deviations(self) -> jax.Array:
        """Standard deviations of the coordinates, of shape (n,)."""
        variances = self.inverse_mass
        return jnp.sqrt(variances if variances.ndim == 1 else jnp.diagonal(variances))

    def spread(self, noise: jax.Array) -> jax.Array:
        """Noise of unit covariance as noise of covariance `inverse_mass`."""
        if self.inverse_mass.ndim == 1:
            return self.deviations * noise
        return jnp.linalg.cholesky(self.inverse_mass) @ noise


def unit_metric(step_size: Any, n: int, dtype: Any, dense: bool | None) -> Metric:
    """Of mass one; dense if `dense` is None and n at most `DENSE`.

    >>> from inference.mcmc.metric import unit_metric
    >>> [unit_metric(0.1, n, float, None).inverse_mass.shape for n in (2, 100)]
    [(2, 2), (100,)]
    """
    dense = n <= DENSE if dense is None else dense
    return Metric(step_size, jnp.eye(n, dtype=dtype) if dense else jnp.ones(n, dtype))


def kinetic_energy(inverse_mass: jax.Array, r: jax.Array) -> jax.Array:
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


def velocity(inverse_mass: jax.Array, r: jax.Array) -> jax.Array:
    """M^-1 r.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import velocity
    >>> velocity(jnp.array([2.0, 3.0]), jnp.ones(2)).tolist()
    [2.0, 3.0]
    """
    return inverse_mass * r if inverse_mass.ndim == 1 else inverse_mass @ r


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


def by_slopes(covariance: jax.Array, slopes: jax.Array, before: jax.Array) -> jax.Array:
    """The inverse mass that takes positions and gradients for those of a normal density.

    It makes the normal density of that metric nearest to the target by the Fisher divergence
    (Seyboldt, Carlson and Carpenter 2026, "Preconditioning Hamiltonian Monte Carlo by minimizing
    Fisher divergence"): the geometric mean of the covariance of positions and the inverse of
    that of gradients. Of a normal density it is the covariance, from any positions whatever:
    those of chains that have not spread yet, and of few chance correlations, since these are in
    the gradients too. A dense one needs more positions than coordinates.

    Args:
      covariance: of positions, (d,) or (d, d).
      slopes: of the gradients there, of the same shape.
      before: the inverse mass so far, kept by a coordinate that did not vary.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.metric import by_slopes
    >>> z = jnp.array([1.0, 1.1, 1.3])  # of Normal(0, 10), whose gradient is -z / 100
    >>> by_slopes(jnp.var(z)[None], jnp.var(z / 100)[None], jnp.ones(1)).round(1).tolist()
    [100.0]
    """
    if covariance.ndim == 1:
        found = jnp.sqrt(covariance) / jnp.sqrt(slopes)
        return jnp.where((found > 0) & jnp.isfinite(found), found, before)
    d = len(covariance)
    variances = by_slopes(jnp.diagonal(covariance), jnp.diagonal(slopes), jnp.diagonal(before))
    scales = jnp.sqrt(jnp.outer(variances, variances))
    # in these units both are near one another, and so is what rounding may take from them
    share = 10 * d * jnp.finfo(covariance.dtype).eps
    positions, gradients = (
        (1 - share) * x + share * jnp.diag(jnp.diagonal(x))
        for x in (covariance / scales, slopes * scales)
    )
    # with gradients = L L', L^-T (L' positions L)^(1/2) L^-1
    factor = jnp.linalg.cholesky(gradients)
    squares, axes = jnp.linalg.eigh(factor.T @ positions @ factor)
    half = solve_triangular(factor, axes, trans="T", lower=True)
    found = scales * ((half * jnp.sqrt(jnp.maximum(squares, 0.0))) @ half.T)
    definite = (squares[0] > 0) & jnp.all(jnp.isfinite(found))
    return jnp.where(definite, found, jnp.diag(variances))
