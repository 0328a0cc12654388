"""Values that several outcomes of a choice have at once: lanes are axes in front of an array.

A choice whose outcomes are all computed, or some of them, makes a lane, and what depends on it
gets the lane's axis; what does not has none, and is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from .. import errors

WORLDS = 1 << 30
"""The number of the lane that all worlds share: it comes after those of single draws."""


MOST_COMBINATIONS = 1 << 16


@dataclass(frozen=True, order=True)
class Lane:
    """The outcomes of draw number `draw`, `size` of them."""

    draw: int
    size: int


@partial(jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=["lanes"])
@dataclass(frozen=True)
class Value:
    """An array with an axis in front for each of its lanes, in their order."""

    array: Any
    lanes: tuple[Lane, ...] = ()


@partial(jax.tree_util.register_dataclass, data_fields=["here", "rest"], meta_fields=[])
@dataclass(frozen=True)
class Parted:
    """A value in the world that happens, and in the others, where it has no derivative.

    It is used as a `Value`. `rest` has a lane of the other worlds, one fewer than there are.
    """

    here: Value
    rest: Value

    @property
    def lanes(self) -> tuple[Lane, ...]:
        *around, others = self.rest.lanes
        return (*around, Lane(WORLDS, others.size + 1))

    @property
    def array(self) -> Any:
        place = len(self.rest.lanes) - 1
        here = jnp.expand_dims(filled(self.here, self.rest.lanes[:-1]).array, place)
        return jnp.concatenate([here, self.rest.array], place)


def union(values: Sequence[Any]) -> tuple[Lane, ...]:
    """All lanes of some values, in order."""
    return tuple(sorted({lane for value in values for lane in value.lanes}))


def over(fn: Callable[..., Any], values: Sequence[Value], lanes: tuple[Lane, ...]) -> Any:
    """`fn` of the arrays for each outcome of `lanes`, whose axes the results have in front.

    Raises:
      CannotEnumerate: there are too many combinations of outcomes.
    """
    combinations = math.prod(lane.size for lane in lanes)
    if combinations > MOST_COMBINATIONS:
        raise errors.CannotEnumerate(
            "Choices one after the other have too many outcomes to compute side by side.",
            where=errors.caller(),
            given=" x ".join(str(lane.size) for lane in lanes) + f" = {combinations} combinations",
            expected=f"at most {MOST_COMBINATIONS}",
            fix="measure_valued() for these choices, whose worlds add up and do not multiply; or "
            "reinforce()",
        )
    for i in reversed(range(len(lanes))):
        axes = [0 if lanes[i] in value.lanes else None for value in values]
        fn = jax.vmap(fn, in_axes=axes, axis_size=lanes[i].size)
    return fn(*(value.array for value in values))


def merged(
    fn: Callable[..., Sequence], values: Sequence[Value], lanes: tuple[Lane, ...]
) -> list[Any]:
    """`over`, lanes side by side that the same values have as one axis: matrix products are then
    those of matrices."""
    kinds = [tuple(lane in value.lanes for value in values) for lane in lanes]
    groups = [[lanes[i] for i, _ in same] for _, same in groupby(enumerate(kinds), lambda x: x[1])]
    whole = [Lane(group[0].draw, math.prod(lane.size for lane in group)) for group in groups]
    given = []
    for value in values:
        mine = tuple(w for w, group in zip(whole, groups, strict=True) if group[0] in value.lanes)
        rest = jnp.shape(value.array)[len(value.lanes) :]
        given.append(Value(jnp.reshape(value.array, (*(w.size for w in mine), *rest)), mine))
    sizes = tuple(lane.size for lane in lanes)
    outs = over(fn, given, tuple(whole))
    return [jnp.reshape(out, sizes + jnp.shape(out)[len(whole) :]) for out in outs]


def along(fn: Callable[..., Any], *values: Value) -> Value:
    """`fn` of the arrays, one result, for each outcome of their lanes."""
    lanes = union(values)
    return Value(over(fn, values, lanes), lanes)


def spread(value: Value, lanes: tuple[Lane, ...]) -> Any:
    """The array with an axis for each of `lanes`: of their size, or one."""
    array = jnp.asarray(value.array)
    places = [lanes.index(lane) for lane in value.lanes]
    missing = [i for i in range(len(lanes)) if i not in places]
    return jnp.expand_dims(array, missing) if missing else array


def filled(value: Value, lanes: tuple[Lane, ...]) -> Value:
    """The same for all outcomes of `lanes` that it does not depend on."""
    if value.lanes == lanes:
        return value
    array = spread(value, lanes)
    sizes = tuple(lane.size for lane in lanes)
    return Value(jnp.broadcast_to(array, sizes + array.shape[len(lanes) :]), lanes)


def rows_first(value: Value) -> Any:
    """The array, its first axis behind the lanes now before them."""
    return jnp.moveaxis(value.array, len(value.lanes), 0)


def rows_inside(array: Any, lanes: tuple[Lane, ...]) -> Value:
    """The value of an array whose first axis belongs behind the lanes."""
    return Value(jnp.moveaxis(array, 0, len(lanes)), lanes)


def ordered(array: Any, lanes: Sequence[Lane]) -> Value:
    """The value of an array with the axes of these lanes in front, in any order."""
    order = sorted(range(len(lanes)), key=lambda i: lanes[i])
    rest = range(len(lanes), jnp.ndim(array))
    return Value(jnp.transpose(array, (*order, *rest)), tuple(lanes[i] for i in order))


def happening(value: Value) -> Value:
    """What a value is in the world that happens, the first."""
    if isinstance(value, Parted):
        return value.here
    if not value.lanes or value.lanes[-1].draw != WORLDS:
        return value
    place = len(value.lanes) - 1
    return Value(jax.lax.index_in_dim(value.array, 0, place, keepdims=False), value.lanes[:-1])


def others(value: Value) -> Value:
    """What a value is in the other worlds."""
    if isinstance(value, Parted):
        return value.rest
    if not value.lanes or value.lanes[-1].draw != WORLDS:
        return value
    place, worlds = len(value.lanes) - 1, value.lanes[-1].size
    rest = jax.lax.slice_in_dim(value.array, 1, worlds, axis=place)
    return Value(rest, (*value.lanes[:-1], Lane(WORLDS, worlds - 1)))


def elsewhere(value: Value) -> Value:
    """What a value is in the other worlds, without derivative."""
    found = others(value)
    if not jnp.issubdtype(jnp.result_type(found.array), jnp.inexact):
        return found
    return Value(jax.lax.stop_gradient(found.array), found.lanes)
