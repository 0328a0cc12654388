"""Small matrices as numbers of their own, so that a step of a loop is a few fused instructions.

A vector or matrix has its axes in front, and whatever is done side by side behind: times, or
blocks. Of few rows, it is an object array of its entries; of more, one array.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FEW = 2
"""Rows up to which a product is written out: of three, a compiler does more than it saves."""


def entries(x: jax.Array, rank: int, few: bool | None = None) -> Any:
    """`x` by its entries, if it has few rows: the first `rank` axes are those of the matrix.

    Args:
      few: whether it has; None to count those of `x`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.entries import contract, entries, joined
    >>> x = entries(jnp.arange(4.0).reshape(2, 2), 2)
    >>> joined(contract("ij,jk->ik", x, x)).tolist()
    [[2.0, 3.0], [6.0, 11.0]]
    """
    if not (x.shape[0] <= FEW if few is None else few):
        return x
    found = np.empty(x.shape[:rank], object)
    for index in np.ndindex(found.shape):
        found[index] = x[index]
    return found


def joined(x: Any) -> jax.Array:
    """The array of its entries."""
    if isinstance(x, np.ndarray):
        flat = jnp.stack([jnp.asarray(each) for each in x.reshape(-1)])
        return flat.reshape(*x.shape, *flat.shape[1:])
    return x


def matrices(rows: list[list[jax.Array]]) -> jax.Array:
    """Matrices `(..., d, d)` of their entries, which are kept apart in memory.

    A loop reads them with times behind, so that the axes are only said to be moved.
    """
    return jnp.moveaxis(jnp.stack([jnp.stack(row) for row in rows]), (0, 1), (-2, -1))


def contract(formula: str, *factors: Any) -> Any:
    """A sum of products, as of `einsum`; what is done side by side is written nowhere."""
    if isinstance(factors[0], np.ndarray):
        return np.einsum(formula, *factors)
    left, right = formula.split("->")
    each = ",".join(part + "..." for part in left.split(","))
    return jnp.einsum(f"{each}->{right}...", *factors)


def times(x: Any, number: Any) -> Any:
    """All entries times a number."""
    if isinstance(x, np.ndarray):
        found = np.empty(x.shape, object)
        for index in np.ndindex(x.shape):
            found[index] = x[index] * number
        return found
    return x * number


def mirrored(x: Any) -> Any:
    """A symmetric matrix, which may have lost its symmetry to rounding: its lower half twice."""
    if isinstance(x, np.ndarray):
        found = x.copy()
        for i, j in zip(*np.triu_indices(len(x), 1), strict=True):
            found[i, j] = x[j, i]
        return found
    return (x + jnp.swapaxes(x, 0, 1)) / 2


def lower(x: Any) -> jax.Array:
    """What a symmetric matrix is made of, on one axis in front: its lower half, if it is small."""
    d = x.shape[0]
    if d > FEW:
        return x.reshape(d * d, *x.shape[2:])
    half = zip(*np.tril_indices(d), strict=True)
    return jnp.stack([jnp.asarray(x[i, j]) for i, j in half])


def symmetric(x: jax.Array, d: int) -> Any:
    """The matrix of which `lower` is given, by its entries."""
    if d > FEW:
        return x.reshape(d, d, *x.shape[1:])
    found = np.empty((d, d), object)
    for k, (i, j) in enumerate(zip(*np.tril_indices(d), strict=True)):
        found[i, j] = found[j, i] = x[k]
    return found


def size(d: int) -> int:
    """How many numbers `lower` has."""
    return d * d if d > FEW else d * (d + 1) // 2


def packed(vector: Any, matrix: Any) -> jax.Array:
    """A vector and a symmetric matrix as one array, so that a loop carries one."""
    return jnp.concatenate([joined(vector), lower(matrix)])


def unpacked(x: jax.Array, d: int) -> tuple[Any, Any]:
    """The vector and the matrix that `packed` put together, by their entries."""
    return entries(x[:d], 1), symmetric(x[d:], d)
