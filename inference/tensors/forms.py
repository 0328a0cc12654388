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
        return math.prod(ranks) ** 2 // min(ranks) ** 2

    def partial(self, k: int, vectors: Sequence[Any], core: Any) -> Any:
        mean = jnp.moveaxis(core[0].reshape(self.ranks), k, -1).reshape(-1, self.ranks[k])
        return products([v for j, v in enumerate(vectors) if j != k], vectors[k]) @ mean

    def square(self, k: int, matrices: Sequence[Any], core: Any) -> Any:
        rank, count = self.ranks[k], len(self.ranks)
        second = jnp.moveaxis(core[1].reshape(*self.ranks, *self.ranks), (k, count + k), (-2, -1))
        others = [r for j, r in enumerate(self.ranks) if j != k]
        # each pair of axes of a mode side by side, as in the product of its matrices
        pairs = [axis + half * len(others) for axis in range(len(others)) for half in (0, 1)]
        second = second.transpose(*pairs, -2, -1).reshape(-1, rank * rank)
        flat = [m.reshape(*m.shape[:1], -1) for m in matrices]
        found = products([m for j, m in enumerate(flat) if j != k], flat[k]) @ second
        return found.reshape(-1, rank, rank)

    def outer(self, vectors: Sequence[Any]) -> Any:
        """What the core is multiplied with, `(N, S)`."""
        return products(vectors, vectors[0])

    def outer_square(self, matrices: Sequence[Any], weight: Any) -> Any:
        """The mean square of that, weighed and summed over entries, `(S, S)`."""
        flat = [m.reshape(*m.shape[:1], -1) for m in matrices]
        half = products(flat[:-1], flat[-1]) * weight[:, None]
        found = half.T @ flat[-1]
        count = len(self.ranks)
        sides = [r for rank in self.ranks for r in (rank, rank)]
        order = [2 * k + half for half in (0, 1) for k in range(count)]
        size = math.prod(self.ranks)
        return found.reshape(sides).transpose(order).reshape(size, size)


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
