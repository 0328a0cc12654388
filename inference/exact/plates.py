"""Independent copies of a program, some of whose finite choices are summed out.

Copies that have nothing in common are one program under `vmap`, and their choices are lanes with
a plate. Copies that depend on a choice outside are gone through one after the other, since each
tells something of it to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ppl.program import Map

from .refused import refused
from .several import Several, Unsaid
from .tables import Lane, Plate, Table, connected, lanes_of, log_weights, without


def each(
    sums: Any,
    step: Map,
    args: list,
    law: Any,
    inputs: Any,
    outside: frozenset,
    run: Callable,
) -> tuple[list, Any]:
    """The outputs of the copies, and the law after them."""
    if any(isinstance(value, Unsaid) for value in args):
        raise refused(step, sums, "a vmap of what a loop puts out")
    mine, rest = sums.reach(law, args)
    symbols = [value for value in args if isinstance(value, Several)]
    plate = _plate_of(step, args)
    shared = [lane for lane in lanes_of(mine.tables) if plate not in lane.plates]
    if shared or any(plate not in dict(value.axes) for value in symbols):
        return _one_by_one(sums, step, args, law, inputs, outside, run)
    mapped = [_row_of(v, plate) if isinstance(v, Several) else v for v in args]
    places = [0 if isinstance(v, Several) else axis
              for v, axis in zip(mapped, step.in_axes, strict=True)]  # fmt: skip
    inner = {_inner(lane, plate): lane for lane in lanes_of(mine.tables)}
    static: list = []
    tables = [_front(table, plate) for table in mine.tables]

    def one(arrays: list, tables: list, sub: Any) -> tuple[list, list, Any]:
        given = [
            replace(value, at=x) if isinstance(value, Several) else x
            for value, x in zip(mapped, arrays, strict=True)
        ]
        before = replace(law, tables=tables, evidence=jnp.zeros_like(law.evidence))
        around = frozenset(_inner(lane, plate) for lane in outside)
        outs, after = run(step.body, given, before, sums, sub, around)
        after = sums.forget(after, outs, around)
        static[:] = [[v if isinstance(v, Unsaid) else _bare(v) for v in outs], after.tables]
        plain = [v.at if isinstance(v, Several) else v for v in outs if not isinstance(v, Unsaid)]
        return plain, after.tables, after.evidence

    arrays = [v.at if isinstance(v, Several) else v for v in mapped]
    copies = jax.vmap(one, (places, 0, 0), axis_size=step.size, axis_name=step.axis_name)
    plain, found, evidence = copies(arrays, tables, inputs)
    outs_of, _ = static
    values = iter(plain)
    outs = [v if isinstance(v, Unsaid) else _outer(next(values), v, plate, inner) for v in outs_of]
    left = [_behind(table, plate, inner) for table in found]
    scalars = [table for table in left if not table.lanes]
    total = jnp.sum(evidence) + sum(jnp.sum(log_weights(t)) for t in scalars)
    kept = [*rest.tables, *(table for table in left if table.lanes)]
    return outs, replace(law, tables=kept, evidence=law.evidence + total)


def _bare(value: Any) -> Any:
    return replace(value, at=None) if isinstance(value, Several) else None


def _plate_of(step: Map, args: list) -> Plate:
    """The plate that the mapped axis of the arguments is, or one of its own."""
    for value, axis in zip(args, step.in_axes, strict=True):
        if isinstance(value, Several) and axis is not None:
            for plate, place in value.axes:
                if place == axis:
                    return plate
    return Plate(step.name, step.size)


def _inner(lane: Lane, plate: Plate) -> Lane:
    return lane._replace(plates=tuple(p for p in lane.plates if p != plate))


def _row_of(value: Several, plate: Plate) -> Several:
    """A value with the axis of a plate in front of all, and without the plate."""
    places = dict(value.axes)
    axis = places.pop(plate)
    at = jnp.moveaxis(value.at, len(value.lanes) + axis, 0)
    axes = tuple((p, a - (a > axis)) for p, a in places.items())
    return Several(at, tuple(_inner(lane, plate) for lane in value.lanes), axes)


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
    """A table of all copies, with the plate."""
    if not table.lanes:
        return table
    lanes = tuple(_with(lane, plate, inner) for lane in table.lanes)
    if not any(plate in lane.plates for lane in lanes):
        logs, chances = (x if x is None else x[0] for x in (table.logs, table.chances))
        return replace(table, lanes=lanes, logs=logs, chances=chances)
    n = len(lanes)
    logs, chances = (x if x is None else jnp.moveaxis(x, 0, n) for x in (table.logs, table.chances))
    of = table.of and _with(table.of, plate, inner)
    return Table(lanes, (plate, *table.plates), logs, chances, of)


def _one_by_one(
    sums: Any,
    step: Map,
    args: list,
    law: Any,
    inputs: Any,
    outside: frozenset,
    run: Callable,
) -> tuple[list, Any]:
    """The copies in a loop, whose state is the law of what they have in common."""
    mine, rest = sums.reach(law, args)
    plate = _plate_of(step, args)
    local = [table for table in mine.tables if plate in table.plates]
    common = frozenset(lane for lane in lanes_of(mine.tables) if plate not in lane.plates)
    inner = {_inner(lane, plate): lane for lane in lanes_of(local) if plate in lane.plates}
    inner.update({lane: lane for lane in common})
    rows = [_mapped(v, axis, plate) for v, axis in zip(args, step.in_axes, strict=True)]
    first = replace(mine, tables=[table for table in mine.tables if plate not in table.plates])
    form = sums.form(first, [], [], common, (*step.name, "copies"))
    around = common | frozenset(_inner(lane, plate) for lane in outside)
    static: list = []

    def one(packed: Any, row: tuple) -> tuple[Any, tuple]:
        arrays, tables, sub = row
        _, before = sums.unpack(packed, form)
        before = replace(before, tables=[*before.tables, *tables])
        given = [_at(v, x) for v, x in zip(rows, arrays, strict=True)]
        outs, after = run(step.body, given, before, sums, sub, around)
        after = sums.forget(after, outs, around)
        shared, own = _apart(after.tables, common, sums.reduce)
        static[:] = [[v if isinstance(v, Unsaid) else _bare(v) for v in outs]]
        plain = [v.at if isinstance(v, Several) else v for v in outs if not isinstance(v, Unsaid)]
        return sums.pack(replace(after, tables=shared), [], form), (plain, own)

    mapped = [v[0] if isinstance(v, tuple) else None for v in rows]
    tables = [_front(table, plate) for table in local]
    packed, (plain, own) = jax.lax.scan(
        one, sums.pack(first, [], form), (mapped, tables, inputs), length=step.size
    )
    _, after = sums.unpack(packed, form)
    values = iter(plain)
    outs = [v if isinstance(v, Unsaid) else _outer(next(values), v, plate, inner)
            for v in static[0]]  # fmt: skip
    left = [_behind(table, plate, inner) for table in own]
    return outs, sums.both(replace(after, tables=[*after.tables, *left]), rest)


def _mapped(value: Any, axis: int | None, plate: Plate) -> Any:
    """An argument of all copies: as it is, or with its rows in front and what a row is like."""
    if axis is None:
        return value
    if not isinstance(value, Several):
        return jnp.moveaxis(value, axis, 0), None
    if dict(value.axes).get(plate) == axis:
        row = _row_of(value, plate)
    else:
        at = jnp.moveaxis(value.at, len(value.lanes) + axis, 0)
        row = Several(at, value.lanes, tuple((p, a - (a > axis)) for p, a in value.axes))
    return row.at, replace(row, at=None)


def _at(value: Any, x: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    return x if value[1] is None else replace(value[1], at=x)


def _apart(tables: list[Table], common: frozenset, reduce: Any) -> tuple[list[Table], list[Table]]:
    """The law of what copies have in common, and that of a copy's own given it."""
    shared = [table for table in tables if common.issuperset(table.lanes)]
    mine = [table for table in tables if not common.issuperset(table.lanes)]
    own = []
    while mine:
        block, mine = connected(mine, [n for n in mine[0].lanes if n not in common])
        lanes = [lane for lane in lanes_of(block) if lane not in common]
        message = without([replace(table, of=None) for table in block], lanes, reduce)
        shared += message
        own += [
            *block,
            *(replace(t, logs=-log_weights(t), chances=None) for t in message if t.lanes),
        ]
    return shared, own
