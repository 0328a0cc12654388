"""Copies of a program one after another, in a loop whose state is the law of what is common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from .plate_copies import Copies, arrays, given_row, likes
from .tables import Reduce, Table, connected, lanes_of, log_weights, without


def one_by_one(
    sums: Any, copies: Copies, law: Any, inputs: Any, outside: frozenset, run: Callable
) -> tuple[list, Any]:
    """The outputs of the copies, and the law after them.

    Only for choices that are made again. Where a loop in each copy makes two of them in turn, the
    law of each is given what the other was before, so neither is one choice of the array of all
    copies. And a choice in a branch is there or not in each copy, as no array is. So one copy
    makes all its choices, these tell of what is common, and the next copy is made given that.
    """
    step, around, common = copies.step, copies.around(outside), frozenset(copies.lanes)
    rows = copies.rows()
    first = replace(law, tables=copies.common)
    form = sums.form(first, [], [], common, (*step.name, "copies"))
    static: list = []

    def one(packed: Any, row: tuple) -> tuple[Any, tuple]:
        values, tables, sub = row
        _, before = sums.unpack(packed, form)
        before = replace(before, tables=[*before.tables, *tables])
        each = iter(values)
        given = [given_row(like, x if axis is None else next(each)) for x, axis, like in rows]
        outs, after = run(step.body, given, before, sums, sub, around)
        after = sums.forget(after, outs, around)
        shared, own = _apart(after.tables, common, sums.reduce)
        static[:] = likes(outs)
        return sums.pack(replace(after, tables=shared), [], form), (arrays(outs), own)

    mapped = [jnp.moveaxis(x, axis, 0) for x, axis, _ in rows if axis is not None]
    packed, (found, own) = jax.lax.scan(
        one, sums.pack(first, [], form), (mapped, copies.tables(), inputs), length=step.size
    )
    _, after = sums.unpack(packed, form)
    outs = [copies.outer(x, like) for x, like in zip(found, static, strict=True)]
    after = replace(after, tables=[*after.tables, *copies.together(own)])
    return outs, sums.both(after, copies.rest)


def _apart(
    tables: list[Table], common: frozenset, reduce: Reduce
) -> tuple[list[Table], list[Table]]:
    """The law of what copies have in common, and that of a copy's own given it."""
    shared = [table for table in tables if common.issuperset(table.lanes)]
    mine = [table for table in tables if not common.issuperset(table.lanes)]
    own = []
    while mine:
        block, mine = connected(mine, [n for n in mine[0].lanes if n not in common])
        lanes = [lane for lane in lanes_of(block) if lane not in common]
        message = without([replace(table, of=None) for table in block], lanes, reduce)
        shared += message
        own += [*block, *(_divisor(table) for table in message if table.lanes)]
    return shared, own


def _divisor(table: Table) -> Table:
    """One over a table; one where it is zero, as all is that it divides."""
    logs = log_weights(table)
    some = jnp.isfinite(logs)
    return replace(table, logs=jnp.where(some, -jnp.where(some, logs, 0.0), 0.0), chances=None)
