"""What values of a program are made from, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from ppl.program import Branch, Choice, Path, Program, Pure, Remat


def aval_of(program: Program, slot: int) -> Any:
    """The shape and dtype of a value."""
    aval = program.avals[slot]
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def reads_of(
    program: Program, given: Sequence[frozenset], summed: frozenset[Path]
) -> list[frozenset]:
    """What the outputs of a program are made from, of its inputs' labels and summed choices."""
    nothing: frozenset = frozenset()
    env = dict.fromkeys(program.constants, nothing)
    env.update(zip(program.inputs, given, strict=True))
    for step in program.steps:
        args = [env[i] for i in step.inputs]
        if isinstance(step, Pure):
            outs = [nothing.union(*(args[i] for i in reads)) for reads in step.reads]
        elif isinstance(step, Choice):
            outs = [frozenset({step.path}) & summed]
        elif isinstance(step, Branch) and not args[0]:
            each = [reads_of(branch, args[1:], summed) for branch in step.branches]
            outs = [nothing.union(*same) for same in zip(*each, strict=True)]
        elif isinstance(step, Remat):
            outs = reads_of(step.body, args, summed)
        else:
            outs = [nothing.union(*args, step.paths & summed)] * len(step.outputs)
        env.update(zip(step.outputs, outs, strict=True))
    return [env[i] for i in program.outputs]
