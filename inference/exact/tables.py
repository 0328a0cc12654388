"""Tables of log weights over the outcomes of finite choices, and how choices are summed out.

A *lane* is the outcomes of one summed choice. Where a choice has elements that nothing mixes,
its lane has *plates*: the outcomes of all elements are side by side, and a table has one row for
each element. So n elements cost n times one, not one to the n.

Source: Zhang and Poole, A simple approach to Bayesian network computations (1994), for variable
elimination; Obermeyer et al., Tensor variable elimination for plated factor graphs (ICML 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl import errors

MOST = 2**22
"""Tables with more entries are refused."""


class Plate(NamedTuple):
    """Elements that are alike: of a choice, along one of its axes, or of a `vmap`."""

    name: tuple
    size: int


class Lane(NamedTuple):
    """The outcomes of one choice, or of what a loop carries on.

    `source` is where the choice is made, for messages.
    """

    name: tuple
    size: int
    plates: tuple[Plate, ...] = ()
    source: str = ""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["logs", "chances"],
    meta_fields=["lanes", "plates", "of"],
)
@dataclass(frozen=True, eq=False)
class Table:
    """A function of the outcomes of lanes: exp(logs) times chances.

    Attributes:
      logs: log weights, an axis for each lane and then one for each plate; None for zeros.
      chances: weights, likewise, which may be zero and have derivatives there; None for ones.
      of: the lane whose law given the others this is, so that it adds up to one over it.
    """

    lanes: tuple[Lane, ...]
    plates: tuple[Plate, ...]
    logs: jax.Array | None
    chances: jax.Array | None = None
    of: Lane | None = None


def plates_of(lanes: Iterable[Lane]) -> tuple[Plate, ...]:
    """The plates of some lanes, each once."""
    return tuple(dict.fromkeys(plate for lane in lanes for plate in lane.plates))


Pair = tuple[jax.Array, jax.Array | None]
"""Log weights and factors of them."""
Reduce = Callable[[jax.Array, jax.Array | None, int], Pair]
"""Takes log weights, factors of them, and an axis, to what is left without the axis."""


def summed(logs: jax.Array, chances: jax.Array | None, axis: int) -> Pair:
    """The sum of chances * exp(logs), as log weights without derivative and factors with one.

    The factors are one, or zero where the sum is; so a derivative is right there, too, and goes
    on through sums of such sums.

    >>> import jax, jax.numpy as jnp
    >>> from inference.exact.tables import summed
    >>> never = lambda p: summed(jnp.zeros(2), p, 0)[1]
    >>> float(never(jnp.zeros(2))), jax.grad(never)(jnp.zeros(2)).tolist()
    (0.0, [1.0, 1.0])
    """
    total, top = _scaled(logs, chances, axis)
    scale = jax.lax.stop_gradient(jnp.where(total > 0, total, 1.0))
    return jnp.log(scale) + jnp.squeeze(top, axis), total / scale


def _scaled(logs: jax.Array, chances: jax.Array | None, axis: int) -> tuple[jax.Array, jax.Array]:
    """The sum over an axis less exp(top), and top, the largest that has a chance."""
    counted = logs if chances is None else jnp.where(chances > 0, logs, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(counted, axis, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    # an outcome without chance may be likelier by far: its ratio stays a number
    most = math.log(jnp.finfo(logs.dtype).max) - 1
    some = logs > -jnp.inf
    weights = jnp.where(some, jnp.exp(jnp.minimum(jnp.where(some, logs, 0.0) - top, most)), 0.0)
    return jnp.sum(weights if chances is None else weights * chances, axis), top


def log_sum(logs: jax.Array, chances: jax.Array | None, axis: int) -> jax.Array:
    """log of the sum of chances * exp(logs), with derivatives where all of it is zero, too.

    >>> import jax, jax.numpy as jnp
    >>> from inference.exact.tables import log_sum
    >>> never = jnp.array([-jnp.inf, -jnp.inf])
    >>> float(log_sum(never, None, 0)), jax.grad(lambda x: log_sum(x, None, 0))(never).tolist()
    (-inf, [0.0, 0.0])
    """
    total, top = _scaled(logs, chances, axis)
    found = jnp.log(jnp.where(total > 0, total, 1.0)) + jnp.squeeze(top, axis)
    return jnp.where(total > 0, found, -jnp.inf)


def _followed(logs: jax.Array, one: jax.Array, axis: int) -> jax.Array:
    """A zero whose derivative goes to the outcome that `one` marks alone."""
    safe = jnp.where(one & (logs > -jnp.inf), logs, 0.0)
    return jnp.sum(safe - jax.lax.stop_gradient(safe), axis)


def _marked(logs: jax.Array, axis: int) -> jax.Array:
    """Whether an outcome is the first of the largest ones."""
    at = jnp.expand_dims(jnp.argmax(logs, axis), axis)
    return at == jax.lax.broadcasted_iota(int, logs.shape, axis % logs.ndim)


def _whole(logs: jax.Array, chances: jax.Array | None) -> jax.Array:
    if chances is None:
        return logs
    return logs + jnp.where(chances > 0, jnp.log(jnp.where(chances > 0, chances, 1)), -jnp.inf)


def largest(logs: jax.Array, chances: jax.Array | None, axis: int) -> Pair:
    """The largest; its derivative marks the outcome that it is of, the first if there are more."""
    whole = jax.lax.stop_gradient(_whole(logs, chances))
    return jnp.max(whole, axis) + _followed(logs, _marked(whole, axis), axis), None


def drawn(gumbel: Callable[[tuple[int, ...], Any], jax.Array]) -> Reduce:
    """`summed`, whose derivative marks one outcome drawn by the weights, not the weights.

    Followed back through an elimination, these marks are one joint draw: the last choice is
    drawn from its law, the one before from its law given that, and so on.
    """

    def reduce(logs: jax.Array, chances: jax.Array | None, axis: int) -> Pair:
        whole = jax.lax.stop_gradient(_whole(logs, chances))
        noisy = whole + gumbel(whole.shape, whole.dtype)
        return log_sum(whole, None, axis) + _followed(logs, _marked(noisy, axis), axis), None

    return reduce


def joined(tables: Sequence[Table]) -> Table:
    """The product of tables."""
    lanes = tuple(dict.fromkeys(lane for table in tables for lane in table.lanes))
    check_size(lanes)
    plates = plates_of(lanes)
    parts = [_aligned(table, lanes, plates) for table in tables]
    logs = [logs for logs, _ in parts if logs is not None]
    chances = [chances for _, chances in parts if chances is not None]
    shape = tuple(axis.size for axis in (*lanes, *plates))
    whole = None if not logs else jnp.broadcast_to(sum(logs[1:], logs[0]), shape)
    return Table(lanes, plates, whole, jnp.broadcast_to(_product(chances), shape)
                 if chances else None)  # fmt: skip


def _product(factors: Sequence[jax.Array]) -> jax.Array:
    found = factors[0]
    for factor in factors[1:]:
        found = found * factor
    return found


def _aligned(table: Table, lanes: tuple, plates: tuple) -> tuple[Any, Any]:
    """The arrays of a table, with an axis for each of these lanes and plates."""

    def spread(x: Any) -> Any:
        return x if x is None else aligned(x, (*table.lanes, *table.plates), (*lanes, *plates))

    return spread(table.logs), spread(table.chances)


def log_weights(table: Table) -> jax.Array:
    """The log weights of a table, its chances taken in."""
    if table.chances is None:
        none = jnp.zeros([axis.size for axis in (*table.lanes, *table.plates)])
        return none if table.logs is None else table.logs
    some = table.chances > 0
    logs = jnp.where(some, jnp.log(jnp.where(some, table.chances, 1)), -jnp.inf)
    return logs if table.logs is None else logs + table.logs


def aligned(x: jax.Array, own: Sequence, names: Sequence) -> jax.Array:
    """`x`, whose first axes are `own`, with one for each of `names`, of size one if not its own."""
    order = [own.index(name) for name in names if name in own]
    rest = range(len(own), jnp.ndim(x))
    x = jnp.transpose(x, (*order, *rest))
    there = iter(x.shape)
    sizes = [next(there) if name in own else 1 for name in names]
    return x.reshape(*sizes, *there)


def check_size(lanes: Sequence[Lane]) -> None:
    """Raise where there are more outcomes together than can be held."""
    count = math.prod(axis.size for axis in (*lanes, *plates_of(lanes)))
    if count > MOST:
        first, *_, last = sorted(lanes, key=lambda lane: lane.size)[-2:] * 2
        places = [f"{errors.show(lane.name)} at {lane.source}" for lane in (last, first)]
        sizes = " x ".join(str(lane.size) for lane in lanes[:12])
        raise errors.CannotEnumerate(
            "Choices that are summed out depend on each other: too many outcomes together.",
            where=(*dict.fromkeys(places), errors.caller()),
            given=f"{count} outcomes of {len(lanes)} choices, "
            + sizes + (" ..." if len(lanes) > 12 else ""),
            expected=f"at most {MOST} at any time",
            fix="make a choice where it is first used, and observe what depends on it at once; or "
            "leave some of them to the particles or to a kernel",
        )  # fmt: skip


def eliminated(tables: Sequence[Table], lane: Lane, reduce: Reduce) -> list[Table]:
    """The tables without a lane, which is summed over."""
    mine = [table for table in tables if lane in table.lanes]
    rest = [table for table in tables if lane not in table.lanes]
    if len(mine) == 1 and mine[0].of == lane:
        return rest  # nothing depends on it: its probabilities add up to one
    if not mine:
        return rest
    whole = joined(mine)
    axis = whole.lanes.index(lane)
    logs = whole.logs
    if logs is None:
        assert whole.chances is not None
        logs = jnp.zeros_like(whole.chances)
    left = (*whole.lanes[:axis], *whole.lanes[axis + 1 :])
    return [*rest, shrunk(Table(left, whole.plates, *reduce(logs, whole.chances, axis)))]


def spelled(table: Table) -> Table:
    """The same, its chances one or zero: of many, a product is none that is too small to hold."""
    if table.chances is None:
        return table
    size = jax.lax.stop_gradient(jnp.where(table.chances > 0, table.chances, 1.0))
    logs = jnp.log(size) if table.logs is None else table.logs + jnp.log(size)
    return replace(table, logs=logs, chances=table.chances / size)


def shrunk(table: Table) -> Table:
    """A table without the plates that none of its lanes has: their elements multiply."""
    plates = plates_of(table.lanes)
    gone = [len(table.lanes) + i for i, p in enumerate(table.plates) if p not in plates]
    if not gone:
        return table
    kept = tuple(plate for plate in table.plates if plate in plates)
    table = spelled(table)
    logs = None if table.logs is None else jnp.sum(table.logs, tuple(gone))
    chances = None if table.chances is None else jnp.prod(table.chances, tuple(gone))
    return Table(table.lanes, kept, logs, chances)


def can_go(tables: Sequence[Table], lane: Lane) -> bool:
    """Whether a lane can be summed out element by element, before all others."""
    plates = set(lane.plates)
    mine = [table for table in tables if lane in table.lanes]
    return all(plates.issuperset(other.plates) for table in mine for other in table.lanes)


def _cost(tables: Sequence[Table], lane: Lane) -> int:
    lanes = {other for table in tables if lane in table.lanes for other in table.lanes}
    return math.prod(axis.size for axis in (*lanes, *plates_of(lanes)))


def without(tables: Sequence[Table], lanes: Iterable[Lane], reduce: Reduce) -> list[Table]:
    """The tables with these lanes summed out, the cheapest first, as far as they can be."""
    left, found = set(lanes), list(tables)
    while ready := [lane for lane in left if can_go(found, lane)]:
        lane = min(ready, key=lambda lane: (_cost(found, lane), lane.name))
        found = eliminated(found, lane, reduce)
        left.remove(lane)
    return found


def total(tables: Sequence[Table], reduce: Reduce) -> jax.Array:
    """log of the sum over all outcomes.

    Raises:
      CannotEnumerate: the elements of two plates depend on each other.
    """
    lanes = lanes_of(tables)
    found = without(tables, lanes, reduce)
    if stuck := lanes_of(found):
        refuse_plates(stuck)
    zero = jnp.zeros((), jnp.result_type(float))
    return sum(map(log_weights, found), zero)


class Couples(Exception):
    """Some elements of a lane turn out to be needed together."""

    def __init__(self, lane: Lane):
        self.lane = lane


def refuse_plates(lanes: Sequence[Lane]) -> None:
    """Raise where the elements of two lanes depend on each other, each on all others."""
    plated = sorted((n for n in lanes if n.plates), key=lambda n: elements(n) * math.log(n.size))
    if plated and elements(plated[0]) * math.log(plated[0].size) <= math.log(MOST):
        raise Couples(plated[0])
    first, second = (list(lanes) * 2)[:2]
    raise errors.CannotEnumerate(
        "Two summed choices of many elements depend on each other, each element on all others.",
        where=tuple(f"{errors.show(lane.name)} at {lane.source}" for lane in (first, second)),
        given=" and ".join(
            f"{elements(n)} elements of {errors.show(n.name)}" for n in (first, second)
        ),
        expected="elements that depend on those of the same place, or on single choices",
        fix="leave one of the two to a kernel, or to the particles",
    )


def elements(lane: Lane) -> int:
    """How many elements side by side a lane is of."""
    return math.prod(plate.size for plate in lane.plates)


def lanes_of(tables: Iterable[Table]) -> list[Lane]:
    """The lanes of tables, each once."""
    return list(dict.fromkeys(lane for table in tables for lane in table.lanes))


def connected(tables: Sequence[Table], lanes: Iterable[Lane]) -> tuple[list[Table], list[Table]]:
    """The tables that have to do with these lanes, and the others."""
    reached = set(lanes)
    while True:
        mine = [table for table in tables if reached.intersection(table.lanes)]
        grown = reached.union(lanes_of(mine))
        if grown == reached:
            return mine, [table for table in tables if not reached.intersection(table.lanes)]
        reached = grown
