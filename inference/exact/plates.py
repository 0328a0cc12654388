"""Independent copies of a program, some of whose finite choices are summed out.

Copies run side by side, as one program under `vmap`: in each of them what all have in common is
a lane of what is computed, and the tables of all copies multiply. Where choices are made again,
copies that have something in common depend on each other, and each choice is one choice of the
array of all copies. What cannot be made so is gone through one copy after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppl.program import Map

from . import plate_choices
from .plate_copies import Copies, side_by_side
from .plate_loops import one_by_one
from .plate_parts import parts_of, scores


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
    copies = Copies.of(sums, step, args, law)
    if sums.given or not copies.lanes or not scores(step, sums.places):
        return side_by_side(sums, copies, law, inputs, outside, run)
    parts = parts_of(step, sums.places)
    if len(parts.steps) > 1:
        return run(parts, args, law, sums, inputs, outside)
    plan = plate_choices.planned(sums, step, run)
    if plan is None:
        return one_by_one(sums, copies, law, inputs, outside, run)
    return plate_choices.made(plan, args, law, inputs, outside)
