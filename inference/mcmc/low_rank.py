"""Inverse masses that are diagonal but along a few axes, for many coordinates."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Along so many axes: of 16, 24 and 32, posteriors of 89, 222 and 503 coordinates liked these best
# on the whole. A leapfrog step costs four products with them.
RANK = 24


class LowRank(NamedTuple):
    """S (I + U (L - 1) U') S, with S^2 the diagonal `variances`, and L that of `stretches`.

    Attributes:
      variances: of shape (n,).
      axes: U, of shape (n, k): orthonormal, in units of the square roots of `variances`.
      stretches: of shape (k,), above zero; 1 changes nothing along its axis.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.low_rank import LowRank
    >>> mass = LowRank(jnp.array([4.0, 1.0]), jnp.array([[0.6], [0.8]]), jnp.array([26.0]))
    >>> mass.times(jnp.array([1.0, 0.0])).tolist()
    [40.0, 24.0]
    """

    variances: jax.Array
    axes: jax.Array
    stretches: jax.Array

    def times(self, x: jax.Array) -> jax.Array:
        """The product with a vector (n,)."""
        scales = jnp.sqrt(self.variances)
        return scales * self._along(scales * x, self.stretches)

    def factor_times(self, x: jax.Array) -> jax.Array:
        """F x, for F F' this matrix."""
        return jnp.sqrt(self.variances) * self._along(x, jnp.sqrt(self.stretches))

    def inverse_factor_times(self, x: jax.Array) -> jax.Array:
        """F x, for F F' the inverse of this matrix."""
        return self._along(x, 1 / jnp.sqrt(self.stretches)) / jnp.sqrt(self.variances)

    def diagonal(self) -> jax.Array:
        """Its diagonal, of shape (n,)."""
        return self.variances * (1 + self.axes**2 @ (self.stretches - 1))

    def _along(self, x: jax.Array, stretches: jax.Array) -> jax.Array:
        return x + self.axes @ ((stretches - 1) * (x @ self.axes))


def diagonal_still(variances: jax.Array) -> LowRank:
    """With axes that change nothing yet, as many as it may get.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.low_rank import diagonal_still
    >>> diagonal_still(jnp.array([4.0, 1.0])).times(jnp.ones(2)).tolist()
    [4.0, 1.0]
    """
    n = len(variances)
    k = min(RANK, n)
    # by NumPy, since outside of a program JAX compiles each operation for itself
    axes, ones = np.eye(n, k, dtype=variances.dtype), np.ones(k, variances.dtype)
    return LowRank(variances, jnp.asarray(axes), jnp.asarray(ones))
