"""Elimination of a covariance, row after row: what is missing or certain is passed over."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .entries import contract, joined, times


def eliminated(matrix: Any, present: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """L^-1, D and 1 / D of `matrix` = L D L', by the rows that are present, with L unit lower.

    D is zero, and so is 1 / D, of a row that those before it determine: of which no more is left
    than rounding. 1 / D is zero of a row that is missing, which changes no other. L^-1 exists
    whatever the matrix: so what has singular noise becomes what has independent noise.

    Args:
      matrix: symmetric and positive semidefinite, `(p, p, n)`, or its entries.
      present: `(p, n)`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.elimination import eliminated
    >>> twice = jnp.array([[2.0, 2.0], [2.0, 2.0]])[..., None]
    >>> inverse, pivots, shares = eliminated(twice, jnp.ones((2, 1)))
    >>> inverse[..., 0].tolist(), pivots[:, 0].tolist(), shares[:, 0].tolist()
    ([[1.0, 0.0], [-1.0, 1.0]], [2.0, 0.0], [0.5, 0.0])
    """
    p = len(matrix)
    least = p * jnp.finfo(present.dtype).eps
    if isinstance(matrix, np.ndarray):
        left: Any = np.concatenate([matrix, np.eye(p).astype(object)], 1)
    else:
        eye = jnp.broadcast_to(jnp.eye(p, dtype=matrix.dtype)[..., None], matrix.shape)
        left = jnp.concatenate([matrix, eye], 1)
    pivots, shares = [], []
    for j in range(p):
        # what is no number is nothing that is certain: it goes on into all that follows
        says = (present[j] > 0) & ~(left[j, j] <= least * matrix[j, j])
        shares.append(jnp.where(says, 1 / jnp.where(says, left[j, j], 1.0), 0.0))
        pivots.append(jnp.where(says, left[j, j], 0.0))
        if j + 1 < p:
            below = left[j + 1 :] - contract("i,k->ik", times(left[j + 1 :, j], shares[j]), left[j])
            own = np if isinstance(left, np.ndarray) else jnp
            left = own.concatenate([left[: j + 1], below])
    return left[:, p:], jnp.stack(pivots), jnp.stack(shares)


def whitened(variance: jax.Array, present: jax.Array, *rows: jax.Array) -> tuple[jax.Array, ...]:
    """Variances of independent noise, and rows that have it, made of those of dependent noise.

    Args:
      variance: `(p, p, n)`, or `(p, n)` if it is independent already.
      rows: `(p, ..., n)` each.
    """
    if variance.ndim == 2:
        return variance, *rows
    inverse, pivots, _ = eliminated(variance, present)
    return pivots, *(jnp.einsum("pqn,q...n->p...n", joined(inverse), row) for row in rows)
