"""Sums over entries: what they say of a mode, of the core, and what is believed of each of them.

Entries go through in blocks, so that no more is held at once than a block of products; what
stays is of the size of the coordinates, or a few numbers an entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .model import Tensor
from .sites import Sites

ROOM = 2**19
"""How many numbers a block of products has, about."""


def over_blocks(
    tensor: Tensor, of: Callable[..., Any], start: Any, index: Any, *columns: Any
) -> tuple[Any, Any]:
    """`of(total, index, *columns)` gives the next total, and something of each entry.

    Rows that fill the last block have weight zero: they are the first entry, with columns of 0.
    """
    count = index.shape[0]
    size = max(64, min(count, ROOM // tensor.form.width(tensor.ranks)))
    blocks = -(-count // size)
    size = -(-count // blocks)

    def cut(x: Any) -> Any:
        x = jnp.pad(x, [(0, blocks * size - count)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, size, *x.shape[1:])

    total, each = lax.scan(
        lambda total, rows: of(total, *rows), start, jax.tree.map(cut, (index, *columns))
    )
    return total, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], each)


def _gathered(means: Any, seconds: Any, index: Any) -> tuple[list, list]:
    at = [m[index[:, k]] for k, m in enumerate(means)]
    return at, [s[index[:, k]] for k, s in enumerate(seconds)]


class Others:
    """What a mode's functions are multiplied with in each entry of a block, on average.

    Attributes:
      partial, square: of what components are multiplied with, mean and mean square.
    """

    def __init__(self, tensor: Tensor, means: Any, seconds: Any, core: Any, level: Any):
        self.tensor, self.core, self.level = tensor, core, level
        self.means, self.seconds = means, seconds
        self.vectors = [m[:, :rank] for m, rank in zip(means, tensor.ranks, strict=True)]
        pairs = zip(seconds, tensor.ranks, strict=True)
        self.matrices = [s[:, :rank, :rank] for s, rank in pairs]

    def partial(self, k: int) -> Any:
        return self.tensor.form.partial(k, self.vectors, self.core)

    def square(self, k: int) -> Any:
        return self.tensor.form.square(k, self.matrices, self.core)

    def with_effect(self, of: Callable[[list], Any], j: int) -> Any:
        """`of` the vectors, with the mean of the effect of mode j times its components for j."""
        vectors = list(self.vectors)
        vectors[j] = self.seconds[j][:, -1, : self.tensor.ranks[j]]
        return of(vectors)

    def effects(self, but: int | None = None) -> Any:
        """The sum of the mean effects, and the level."""
        each = [m[:, -1] for j, m in enumerate(self.means) if j != but]
        return self.level[0] + sum(each)


def of_mode(
    tensor: Tensor, k: int, means: Any, seconds: Any, core: Any, level: Any, index: Any,
    weight: Any, pull: Any,
) -> Sites:  # fmt: skip
    """The sites of mode k: what entries say of its functions, at each coordinate."""

    def block(total: Any, index: Any, weight: Any, pull: Any) -> tuple[Any, None]:
        others = Others(tensor, *_gathered(means, seconds, index), core, level)
        partial, square = others.partial(k), others.square(k)
        linear = pull[:, None] * partial
        if tensor.effects:
            shift = level[0] * partial
            for j in range(len(means)):
                if j != k:
                    shift = shift + others.with_effect(
                        lambda vectors: tensor.form.partial(k, vectors, core), j
                    )
            alone = pull - weight * others.effects(but=k)
            linear = jnp.concatenate([linear - weight[:, None] * shift, alone[:, None]], 1)
            beside = jnp.concatenate([partial, jnp.ones_like(partial[:, :1])], 1)
            square = jnp.concatenate([square, partial[:, None, :]], 1)
            square = jnp.concatenate([square, beside[:, :, None]], 2)
        at = index[:, k]
        precision = total.precision.at[at].add(weight[:, None, None] * square)
        return Sites(precision, total.linear.at[at].add(linear)), None

    nothing = Sites(jnp.zeros_like(seconds[k]), jnp.zeros_like(means[k]))
    return over_blocks(tensor, block, nothing, index, weight, pull)[0]


def of_core(
    tensor: Tensor, means: Any, seconds: Any, core: Any, level: Any, index: Any, weight: Any,
    pull: Any,
) -> Sites:  # fmt: skip
    """The site of a core: what entries say of its numbers, at one coordinate."""
    form: Any = tensor.form

    def block(total: Any, index: Any, weight: Any, pull: Any) -> tuple[Any, None]:
        others = Others(tensor, *_gathered(means, seconds, index), core, level)
        linear = pull @ form.outer(others.vectors)
        if tensor.effects:
            linear = linear - weight @ (level[0] * form.outer(others.vectors))
            for j in range(len(means)):
                linear = linear - weight @ others.with_effect(form.outer, j)
        precision = form.outer_square(others.matrices, weight)
        return Sites(total.precision + precision, total.linear + linear), None

    size = core[0].shape[0]
    nothing = Sites(jnp.zeros((size, size), pull.dtype), jnp.zeros(size, pull.dtype))
    return over_blocks(tensor, block, nothing, index, weight, pull)[0]


def of_predictor(
    tensor: Tensor, means: Any, seconds: Any, core: Any, level: Any, index: Any
) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of the predictor of each entry."""

    def block(total: None, index: Any) -> tuple[None, tuple]:
        others = Others(tensor, *_gathered(means, seconds, index), core, level)
        product = jnp.sum(others.partial(0) * others.vectors[0], -1)
        square = jnp.sum(others.square(0) * others.matrices[0], (-2, -1))
        mean, variance = product, square - product**2
        if tensor.effects:
            mean = mean + others.effects()
            variance = variance + level[1]
            for j, (m, s) in enumerate(zip(others.means, others.seconds, strict=True)):
                beside = s[:, -1] - m[:, -1:] * m  # covariances of the effect
                with_parts = jnp.sum(others.partial(j) * beside[:, :-1], -1)
                variance = variance + beside[:, -1] + 2 * with_parts
        return None, (mean, jnp.maximum(variance, 0.0))

    return over_blocks(tensor, block, None, index)[1]
