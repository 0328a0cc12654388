"""Values that are several: one for each outcome of the finite choices that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl.estimators.flow import NOW, Flow, Known, Symbol, flows_through
from ppl.estimators.nodes import graph_of

from .tables import Couples, Lane, Plate, Table, check_size, plates_of, shrunk, spelled


@partial(jax.tree_util.register_dataclass, data_fields=["at"], meta_fields=["lanes", "axes"])
@dataclass(frozen=True, eq=False)
class Several:
    """A value for each outcome of some lanes.

    Attributes:
      at: the values; the axes of the lanes are in front.
      lanes: whose outcomes they are of.
      axes: for each plate of the lanes, which axis of the value it is: an element of the value
        depends on the elements of the same places alone.
    """

    at: jax.Array
    lanes: tuple[Lane, ...]
    axes: tuple[tuple[Plate, int], ...] = ()


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["why"])
@dataclass(frozen=True, eq=False)
class Unsaid:
    """A value that depends on what is summed out in a way that nothing may use; `why` says so."""

    why: str


class Alike(Exception):
    """Two plates turn out to be the same."""

    def __init__(self, one: Plate, other: Plate):
        self.pair = one, other


def is_symbol(value: Any) -> bool:
    return isinstance(value, (Several, Unsaid))


_UNSAID = Symbol(-1)


def through(f: Callable, avals: Sequence[Any], args: Sequence[Any]) -> list:
    """The outputs of `f`, a list, at arguments of which some are several.

    Raises:
      Couples: an element of an output depends on several elements of a lane.
      Alike: elements of two plates meet one by one.
    """
    lanes = tuple(dict.fromkeys(lane for a in args if isinstance(a, Several) for lane in a.lanes))
    numbers = {lane: i for i, lane in enumerate(lanes)}
    flows = _flows(f, avals, [_flow_of(value, numbers) for value in args])
    outs: list = [None] * len(flows)
    groups: dict[tuple[Lane, ...], list[int]] = {}
    for i, flow in enumerate(flows):
        if _UNSAID in flow:
            outs[i] = Unsaid(next(a.why for a in args if isinstance(a, Unsaid)))
            continue
        own = tuple(lane for lane in lanes if Symbol(numbers[lane]) in flow)
        groups.setdefault(own, []).append(i)
    bare = [jnp.zeros(a.shape, a.dtype) if isinstance(v, Unsaid) else v
            for v, a in zip(args, avals, strict=True)]  # fmt: skip
    for own, places in groups.items():
        check_size(own)
        found = _over(f, bare, own)
        for i in places:
            axes = _axes_of(flows[i], own, numbers)
            outs[i] = Several(found[i], own, axes) if own else found[i]
    return outs


def _flow_of(value: Any, numbers: dict[Lane, int]) -> Flow:
    if isinstance(value, Unsaid):
        return {_UNSAID: frozenset()}
    if not isinstance(value, Several):
        return {}
    axes = dict(value.axes)
    return {
        Symbol(numbers[lane]): frozenset((axes[p], j, NOW) for j, p in enumerate(lane.plates))
        for lane in value.lanes
    }


def _flows(f: Callable, avals: Sequence[Any], given: list[Flow]) -> list[Flow]:
    graph = graph_of(jax.make_jaxpr(f)(*avals))
    return flows_through(graph, given, frozenset(), Known({}))


def _axes_of(flow: Flow, own: tuple[Lane, ...], numbers: dict[Lane, int]) -> tuple:
    """Which axis each plate is."""
    found: dict[Plate, int] = {}
    for lane in own:
        pairs = {j: axis for axis, j, how in sorted(flow[Symbol(numbers[lane])]) if how == NOW}
        for j, plate in enumerate(lane.plates):
            if j not in pairs or found.get(plate, pairs[j]) != pairs[j]:
                raise Couples(lane)
            found[plate] = pairs[j]
    at: dict[int, Plate] = {}
    for plate, axis in found.items():
        if axis in at:
            raise Alike(at[axis], plate)
        at[axis] = plate
    return tuple(found.items())


def _over(f: Callable, args: Sequence[Any], lanes: Sequence[Lane]) -> list:
    """`f` at all outcomes of lanes; of other lanes, which do not matter, at the first."""
    some = [_in_order(value, lanes) if isinstance(value, Several) else value for value in args]
    for lane in reversed(lanes):  # the last is innermost
        places = tuple(0 if isinstance(v, Several) and lane in v.lanes else None for v in some)
        f = jax.vmap(f, places, axis_size=lane.size)
    return f(*(value.at if isinstance(value, Several) else value for value in some))


def _in_order(value: Several, lanes: Sequence[Lane]) -> Several:
    """A value with these lanes alone, in this order."""
    kept = [lane for lane in lanes if lane in value.lanes]
    others = [lane for lane in value.lanes if lane not in kept]
    axes = [value.lanes.index(lane) for lane in (*others, *kept)]
    at = jnp.transpose(value.at, (*axes, *range(len(axes), value.at.ndim)))
    return Several(at[(0,) * len(others)], tuple(kept), value.axes)


def table_of(logs: Any, chances: Any = None, of: Lane | None = None) -> Table:
    """The table of log weights that are several, or of chances; elements are multiplied."""
    one = logs if logs is not None else chances
    axes = dict(one.axes)
    plates = plates_of(one.lanes)
    front = len(one.lanes)
    rest = [i for i in range(one.at.ndim - front) if i not in axes.values()]
    order = (*range(front), *(front + axes[p] for p in plates), *(front + i for i in rest))

    def turned(value: Several | None) -> jax.Array | None:
        return None if value is None else jnp.transpose(value.at, order)

    first, second = turned(logs), turned(chances)
    behind = tuple(range(front + len(plates), front + len(plates) + len(rest)))
    if behind:
        every = spelled(Table(one.lanes, plates, first, second))
        first = None if every.logs is None else jnp.sum(every.logs, behind)
        second = None if every.chances is None else jnp.prod(every.chances, behind)
    return shrunk(Table(one.lanes, plates, first, second, of))
