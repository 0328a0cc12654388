"""How the functions of the modes make one number: a product for each component, or a core.

Both are linear in the functions of each mode, and in the core. What inference needs of that are
two sums: with one mode left open, of vectors (of which they are means) and of matrices (of which
they are second moments). Rows are entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class CP:
    """Σ_r Π_k u^k_r.

    >>> import jax.numpy as jnp
    >>> from inference.tensors.forms import CP
    >>> vectors = [jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 5.0]])]
    >>> CP().partial(0, vectors, None).tolist()
    [[3.0, 5.0]]
    """

    def width(self, ranks: tuple[int, ...]) -> int:
        """How many numbers an entry needs at once, for the size of blocks."""
        return ranks[0] ** 2

    def partial(self, k: int, vectors: Sequence[Any], core: Any) -> Any:
        """What u^k is multiplied with, `(N, R_k)`."""
        others = [v for j, v in enumerate(vectors) if j != k]
        return math.prod(others[1:], start=others[0]) if others else jnp.ones_like(vectors[k])

    def square(self, k: int, matrices: Sequence[Any], core: Any) -> Any:
        """Of what u^k is multiplied with, the mean square `(N, R_k, R_k)`."""
        return self.partial(k, matrices, core)


@dataclass(frozen=True)
class Tucker:
    """Σ_s core_s Π_k u^k_(s_k), of a core of shape `ranks`.

    A core is its mean and its second moment, `(S,)` and `(S, S)` for S numbers.

    >>> import jax.numpy as jnp
    >>> from inference.tensors.forms import Tucker
    >>> vectors = [jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 5.0]])]
    >>> core = jnp.array([1.0, 0.0, 0.0, 1.0])
    >>> Tucker((2, 2)).partial(0, vectors, (core, jnp.outer(core, core))).tolist()
    [[3.0, 5.0]]
    """

    ranks: tuple[int, ...]

    def width(self, ranks: tuple[int, ...]) -> int:
        pairs = [rank * (rank + 1) // 2 for rank in ranks]
        return math.prod(pairs) // min(pairs)

    def partial(self, k: int, vectors: Sequence[Any], core: Any) -> Any:
        mean = jnp.moveaxis(core[0].reshape(self.ranks), k, -1).reshape(-1, self.ranks[k])
        return products([v for j, v in enumerate(vectors) if j != k], vectors[k]) @ mean

    def square(self, k: int, matrices: Sequence[Any], core: Any) -> Any:
        rank, count = self.ranks[k], len(self.ranks)
        second = core[1].reshape(*self.ranks, *self.ranks)
        # each pair of axes of a mode side by side, as in the product of its matrices
        second = second.transpose([axis + half * count for axis in range(count) for half in (0, 1)])
        second = jnp.moveaxis(second, (2 * k, 2 * k + 1), (-2, -1))
        others = [r for j, r in enumerate(self.ranks) if j != k]
        for axis, r in enumerate(others):
            second = _folded(second, axis, r)
        flat = [_halves(m) for m in matrices]
        found = products([m for j, m in enumerate(flat) if j != k], flat[k])
        return (found @ second.reshape(-1, rank * rank)).reshape(-1, rank, rank)

    def outer(self, vectors: Sequence[Any]) -> Any:
        """What the core is multiplied with, `(N, S)`."""
        return products(vectors, vectors[0])

    def outer_square(self, matrices: Sequence[Any], weight: Any) -> Any:
        """The mean square of that, weighed and summed over entries, `(S, S)`."""
        flat = [_halves(m) for m in matrices]
        half = products(flat[:-1], flat[-1]) * weight[:, None]
        found = (half.T @ flat[-1]).reshape([m.shape[-1] for m in flat])
        for k, rank in enumerate(self.ranks):  # both halves again, one pair of axes for each mode
            found = jnp.take(found, _places(rank), 2 * k)
        count, size = len(self.ranks), math.prod(self.ranks)
        order = [2 * k + half for half in (0, 1) for k in range(count)]
        return found.transpose(order).reshape(size, size)


def _places(rank: int) -> np.ndarray:
    """Where each entry of a symmetric matrix is among those of its lower half."""
    found = np.zeros((rank, rank), int)
    below = np.tril_indices(rank)
    found[below] = found.T[below] = np.arange(len(below[0]))
    return found


def _halves(matrices: Any) -> Any:
    """The lower halves of symmetric matrices, row by row."""
    return jnp.concatenate([matrices[:, i, : i + 1] for i in range(matrices.shape[-1])], -1)


def _folded(x: Any, axis: int, rank: int) -> Any:
    """What two axes of a symmetric matrix are summed with, as one axis of its lower half."""
    shape = (*x.shape[:axis], rank * rank, *x.shape[axis + 2 :])
    onto = np.zeros((rank * rank, rank * (rank + 1) // 2))
    onto[np.arange(rank * rank), _places(rank).reshape(-1)] = 1.0
    return jnp.moveaxis(
        jnp.tensordot(x.reshape(shape), jnp.asarray(onto, x.dtype), (axis, 0)), -1, axis
    )


def products(vectors: Sequence[Any], like: Any) -> Any:
    """The products of all choices of one number from each vector, `(N, Π R)`, the last fastest.

    >>> import jax.numpy as jnp
    >>> from inference.tensors.forms import products
    >>> x = jnp.array([[1.0, 2.0]])
    >>> products([x, jnp.array([[3.0, 5.0]])], x).tolist()
    [[3.0, 5.0, 6.0, 10.0]]
    """
    found = jnp.ones((*like.shape[:1], 1), like.dtype)
    for vector in vectors:
        found = (found[:, :, None] * vector[:, None, :]).reshape(vector.shape[0], -1)
    return found
