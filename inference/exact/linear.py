"""Values that are affine in Gaussian choices which are summed out, and their joint law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl.affine import AFFINE, CONSTANT, Order


class Block(NamedTuple):
    """The standard normals of one choice, or the deviation of a loop's state from its mean."""

    name: tuple
    size: int


@partial(jax.tree_util.register_dataclass, data_fields=["at", "by"], meta_fields=["blocks"])
@dataclass(frozen=True, eq=False)
class Linear:
    """The value `at + by e`; `by` has the axis of e, the blocks one after another, behind."""

    at: jax.Array
    by: jax.Array
    blocks: tuple[Block, ...]


@partial(jax.tree_util.register_dataclass, data_fields=["at"], meta_fields=["why"])
@dataclass(frozen=True, eq=False)
class Bent:
    """A value that depends on e in another way, which nothing may use."""

    at: Any
    why: str


@partial(
    jax.tree_util.register_dataclass, data_fields=["at", "by", "rows"], meta_fields=["block"]
)
@dataclass(frozen=True, eq=False)
class Picked:
    """The value `at + by * e[rows]`, element by element, for e the values of one choice."""

    at: jax.Array
    by: jax.Array
    rows: jax.Array
    block: Block


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["mean", "covariance", "evidence", "simulated", "processes"],
    meta_fields=["blocks"],
)
@dataclass(frozen=True, eq=False)
class GaussianLaw:
    """e ~ N(mean, covariance), given what was made so far.

    Attributes:
      evidence: the log density of what was given so far.
      simulated: values of e drawn from the prior; then `mean` is how much what was given moves
        the mean of e, less how much what was simulated in its place would.
      processes: long choices that are independent of e and of each other: `Process`.
    """

    blocks: tuple[Block, ...]
    mean: jax.Array
    covariance: jax.Array
    evidence: Any = 0.0
    simulated: Any = None
    processes: tuple[Any, ...] = ()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Tilt:
    """A factor exp(slope z + (z - centre)' bend (z - centre) / 2) of a summed choice z, flat."""

    slope: jax.Array
    bend: Any = None
    centre: Any = None


def size_of(blocks: Sequence[Block]) -> int:
    return sum(block.size for block in blocks)


def spread(by: jax.Array, blocks: Sequence[Block], all_: Sequence[Block]) -> jax.Array:
    """`by` with columns for all blocks, zeros for those that it has not."""
    if tuple(blocks) == tuple(all_):
        return by
    ends, at = {}, 0
    for block in blocks:
        ends[block] = by[..., at : at + block.size]
        at += block.size
    zeros = lambda n: jnp.zeros((*by.shape[:-1], n), by.dtype)  # noqa: E731
    parts = [ends[b] if b in ends else zeros(b.size) for b in all_]
    return jnp.concatenate(parts, -1) if parts else zeros(0)


def is_symbol(value: Any) -> bool:
    return isinstance(value, (Linear, Bent, Picked))


def at_of(value: Any) -> Any:
    return value.at if is_symbol(value) else value


def order_of(value: Any) -> Order:
    if isinstance(value, Bent):
        return Order(2, value.why)
    return AFFINE if is_symbol(value) else CONSTANT


def places(blocks: Sequence[Block], own: Sequence[Block]) -> jax.Array:
    """Where the numbers of some blocks are among those of all."""
    starts, at = {}, 0
    for block in blocks:
        starts[block] = at
        at += block.size
    found = [i for block in own for i in range(starts[block], starts[block] + block.size)]
    return jnp.asarray(found, int)
