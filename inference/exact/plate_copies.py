"""Copies of a program side by side: one program under `vmap`.

A choice in each copy is one lane with a plate. The lanes that all copies have in common stay
lanes of all that a copy computes, and nothing in a copy sums over them. So a copy needs none of
their weights, and tells nothing to the next one: its tables are functions of them, and those of
all copies multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppl.program import Map

from .several import Alike, Several, Unsaid
from .tables import Couples, Lane, Plate, Table, lanes_of, log_weights, spelled


@dataclass(frozen=True, eq=False)
class Copies:
    """The copies of a program, and the part of a law that they read.

    Attributes:
      plate: the axis of the copies.
      args: of all copies, some of which are several.
      own: tables that have a row for each copy.
      common: the other tables.
      rest: what of the law the copies do not read.
    """

    step: Map
    plate: Plate
    args: list
    own: list[Table]
    common: list[Table]
    rest: Any

    @staticmethod
    def of(sums: Any, step: Map, args: list, law: Any) -> Copies:
        """Raises `Couples` where a copy reads several elements of the plate."""
        mine, rest = sums.reach(law, args)
        plate = _plate_of(sums, step, args)
        for value, axis in zip(args, step.in_axes, strict=True):
            if isinstance(value, Several) and dict(value.axes).get(plate, axis) != axis:
                raise Couples(next(lane for lane in value.lanes if plate in lane.plates))
        own = [table for table in mine.tables if plate in table.plates]
        common = [table for table in mine.tables if plate not in table.plates]
        return Copies(step, plate, args, own, common, rest)

    @property
    def lanes(self) -> list[Lane]:
        """The lanes that the copies have in common."""
        read = [lane for v in self.args if isinstance(v, Several) for lane in v.lanes]
        lanes = dict.fromkeys([*lanes_of([*self.common, *self.own]), *read])
        return [lane for lane in lanes if self.plate not in lane.plates]

    @property
    def inner(self) -> dict[Lane, Lane]:
        """The lanes that one copy reads, with what they are of all copies."""
        own = [lane for lane in lanes_of(self.own) if self.plate in lane.plates]
        return {_inner(lane, self.plate): lane for lane in own} | {n: n for n in self.lanes}

    def around(self, outside: frozenset) -> frozenset:
        """What is read outside of one copy."""
        return frozenset(self.lanes) | {_inner(lane, self.plate) for lane in outside}

    def rows(self) -> list[tuple[Any, int | None, Any]]:
        """For each argument an array, the axis of the copies in it, and what a row is like."""
        return [_row(v, axis, self.plate)
                for v, axis in zip(self.args, self.step.in_axes, strict=True)]  # fmt: skip

    def tables(self) -> list[Table]:
        """The tables that have a row for each copy, these in front."""
        return [_front(table, self.plate) for table in self.own]

    def outer(self, x: Any, like: Any) -> Any:
        """The values of all copies, stacked, of which one is like this."""
        return like if isinstance(like, Unsaid) else _outer(x, like, self.plate, self.inner)

    def together(self, tables: list[Table]) -> list[Table]:
        """The tables of all copies, stacked; those of what is common, or of nothing, multiply."""
        return [_behind(table, self.plate, self.inner) for table in tables]


def given_row(like: Any, x: Any) -> Any:
    """A row of an argument."""
    return replace(like, at=x) if isinstance(like, Several) else x if like is None else like


def likes(outs: list) -> list:
    """What outputs are like, without their arrays."""
    return [replace(v, at=None) if isinstance(v, Several) else v if isinstance(v, Unsaid) else None
            for v in outs]  # fmt: skip


def arrays(outs: list) -> list:
    """The arrays of outputs; none for those that nothing may use."""
    return [None if isinstance(v, Unsaid) else v.at if isinstance(v, Several) else v for v in outs]


def side_by_side(
    sums: Any, copies: Copies, law: Any, inputs: Any, outside: frozenset, run: Callable
) -> tuple[list, Any]:
    """The outputs of the copies, and the law after them."""
    step, rows, around = copies.step, copies.rows(), copies.around(outside)
    zero = jnp.zeros_like(law.evidence)
    static: list = []

    def one(values: list, tables: list[Table], sub: Any) -> tuple[list, list[Table], Any]:
        given = [given_row(like, x) for (*_, like), x in zip(rows, values, strict=True)]
        # what is common has no weights here: those that it has are counted once, outside
        even = [Table((n,), n.plates, jnp.zeros([n.size, *(p.size for p in n.plates)]))
                for n in copies.lanes]  # fmt: skip
        before = replace(law, tables=[*even, *tables], evidence=zero)
        outs, after = run(step.body, given, before, sums, sub, around)
        after = sums.forget(after, outs, around)
        left = [table for table in after.tables if not any(table is each for each in even)]
        static[:] = likes(outs)
        return arrays(outs), left, after.evidence

    axes = ([axis for _, axis, _ in rows], 0, 0)
    every = jax.vmap(one, axes, axis_size=step.size, axis_name=step.axis_name)
    found, left, evidence = every([x for x, *_ in rows], copies.tables(), inputs)
    outs = [copies.outer(x, like) for x, like in zip(found, static, strict=True)]
    tables = copies.together(left)
    told = sum((log_weights(table) for table in tables if not table.lanes), jnp.sum(evidence))
    kept = [*copies.rest.tables, *copies.common, *(table for table in tables if table.lanes)]
    return outs, replace(law, tables=kept, evidence=law.evidence + told)


def _plate_of(sums: Any, step: Map, args: list) -> Plate:
    """The plate that the mapped axis of the arguments is, or one of its own."""
    found = dict.fromkeys(
        plate
        for value, axis in zip(args, step.in_axes, strict=True)
        if isinstance(value, Several)
        for plate, place in value.axes
        if place == axis
    )
    if len(found) > 1:
        raise Alike(*list(found)[:2])
    plate = Plate(step.name, step.size)
    return next(iter(found), sums.alike.get(plate, plate))


def _inner(lane: Lane, plate: Plate) -> Lane:
    return lane._replace(plates=tuple(p for p in lane.plates if p != plate))


def _row(value: Any, axis: int | None, plate: Plate) -> tuple[Any, int | None, Any]:
    """An argument as an array, the axis of the copies in it, and what a row is like."""
    if isinstance(value, Unsaid):
        return None, None, value
    if not isinstance(value, Several):
        return value, axis, None
    if axis is None:
        return value.at, None, replace(value, at=None)
    lanes = tuple(_inner(lane, plate) for lane in value.lanes)
    axes = tuple((p, a - (a > axis)) for p, a in value.axes if p != plate)
    return value.at, len(value.lanes) + axis, Several(None, lanes, axes)  # type: ignore[arg-type]


def _outer(x: Any, like: Any, plate: Plate, inner: dict[Lane, Lane]) -> Any:
    """A value of all copies, whose axis in front is the plate."""
    if like is None:
        return x
    lanes = tuple(_with(lane, plate, inner) for lane in like.lanes)
    axes = tuple((p, a + 1) for p, a in like.axes)
    if any(plate in lane.plates for lane in lanes):
        axes = ((plate, 0), *axes)
    return Several(jnp.moveaxis(x, 0, len(lanes)), lanes, axes)


def _with(lane: Lane, plate: Plate, inner: dict[Lane, Lane]) -> Lane:
    """A lane of each copy; one copy is no plate: which axis of a value it was, nothing knows."""
    if plate.size == 1 and lane not in inner:
        return lane
    return inner.get(lane, lane._replace(plates=(plate, *lane.plates)))


def _front(table: Table, plate: Plate) -> Table:
    """A table with the axis of a plate in front, and without the plate."""
    at = len(table.lanes) + table.plates.index(plate)
    lanes = tuple(_inner(lane, plate) for lane in table.lanes)
    plates = tuple(p for p in table.plates if p != plate)
    logs, chances = (
        x if x is None else jnp.moveaxis(x, at, 0) for x in (table.logs, table.chances)
    )
    return Table(lanes, plates, logs, chances, table.of and _inner(table.of, plate))


def _behind(table: Table, plate: Plate, inner: dict[Lane, Lane]) -> Table:
    """A table of all copies, with the plate if it is of lanes that have it."""
    lanes = tuple(_with(lane, plate, inner) for lane in table.lanes)
    of = table.of and _with(table.of, plate, inner)
    if not any(plate in lane.plates for lane in lanes):
        table = spelled(table)
        logs = None if table.logs is None else jnp.sum(table.logs, 0)
        chances = None if table.chances is None else jnp.prod(table.chances, 0)
        return Table(lanes, table.plates, logs, chances, of)
    n = len(lanes)
    logs, chances = (x if x is None else jnp.moveaxis(x, 0, n) for x in (table.logs, table.chances))
    return Table(lanes, (plate, *table.plates), logs, chances, of)
