"""Which choices are there: what a change of some can make, or make absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ppl.change import body_outputs
from ppl.program import Branch, Loop, Path, Program, bodies
from ppl.sites import sites


def presence_varies(
    program: Program, touched: Callable[[Path], bool], here: list[bool] | None = None
) -> frozenset[Path]:
    """The choices that a change of the `touched` ones can make, or make absent.

    `here` tells which inputs of the program differ.
    """
    flags = [False] * len(program.inputs) if here is None else here
    found: set[Path] = set()
    for step in program.steps:
        if not bodies(step) or not step.paths:
            continue
        inputs = body_outputs(replace(program, outputs=step.inputs), flags, touched)
        if isinstance(step, Branch):
            if inputs[0]:
                each = [sites(branch) for branch in step.branches]
                made = set().union(*each)  # choices: draws have no presence
                found |= {p for p in made if not all(p in s and not s[p].conditional for s in each)}
            inputs = inputs[1:]
        elif isinstance(step, Loop):
            inputs = _carried(step, inputs, touched)
        for body in bodies(step):
            found |= presence_varies(body, touched, inputs)
    return frozenset(found)


def _carried(step: Loop, inputs: list[bool], touched: Callable[[Path], bool]) -> list[bool]:
    """Which inputs of a loop's body differ in some iteration."""
    while True:
        outs = body_outputs(step.body, inputs, touched)
        more = list(inputs)
        for i in range(step.carries):
            more[step.constants + i] |= outs[i]
        if more == inputs:
            return inputs
        inputs = more
