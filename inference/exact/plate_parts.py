"""Copies of a program in parts: copies of one part after copies of another.

Copies of `first; second` side by side are copies of `first`, and then copies of `second`: each
copy goes on with what it had. So choices that are made again are made one after the other, each
in all copies at once, given those before it in all copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax

from ppl.program import FACTOR, Map, Path, Program, Remat, Step

from .reads import aval_of


def scores(step: Step, summed: frozenset[Path]) -> bool:
    """Whether a step makes or scores what is not summed out."""
    return bool(step.paths - summed) or FACTOR in step.effects


@lru_cache(maxsize=1024)
def parts_of(step: Map, summed: frozenset[Path]) -> Program:
    """The copies as a program, each of whose steps is copies of a part.

    A step that makes or scores what is not `summed` is a part alone; the others are as long as
    can be. Copies inside of the copies are in parts, too.
    """
    body = _flat(step.body, summed)
    groups: list[list[Step]] = []
    alone = True
    for each in body.steps:
        own = scores(each, summed)
        if own or alone:
            groups.append([])
        groups[-1].append(each)
        alone = own
    made = {slot for each in body.steps for slot in each.outputs}
    new = max(body.avals, default=-1) + 1
    # what is put out as it was given is put out by a part without steps
    given = {slot: new + i for i, slot in enumerate(dict.fromkeys(body.outputs))
             if slot not in made}  # fmt: skip
    parts = [_part(step, body, [], tuple(given), tuple(given.values()))] if given else []
    read = {*body.outputs}
    for group in reversed(groups):
        outs = tuple(slot for each in group for slot in each.outputs if slot in read)
        parts.append(_part(step, body, group, outs, outs))
        read |= {*parts[-1].inputs}
    axes = dict(zip(body.inputs, step.in_axes, strict=True))
    avals = {slot: _stacked(aval_of(body, slot), step.size, axes.get(slot, 0))
             for slot in (*body.inputs, *made)}  # fmt: skip
    avals |= {to: _stacked(aval_of(body, slot), step.size, 0) for slot, to in given.items()}
    outputs = tuple(given.get(slot, slot) for slot in body.outputs)
    return Program(body.inputs, outputs, tuple(reversed(parts)), {}, avals)


def _part(
    step: Map, body: Program, steps: Sequence[Step], outs: tuple[int, ...], to: tuple[int, ...]
) -> Map:
    """Copies of some steps of a body, which write what they put out to other slots."""
    made = {slot for each in steps for slot in each.outputs}
    read = dict.fromkeys([*(slot for each in steps for slot in each.inputs), *outs])
    inputs = tuple(slot for slot in read if slot not in made and slot not in body.constants)
    constants = {slot: body.constants[slot] for slot in read if slot in body.constants}
    small = replace(body, inputs=inputs, outputs=outs, steps=tuple(steps), constants=constants)
    axes = dict(zip(body.inputs, step.in_axes, strict=True))
    in_axes = tuple(axes.get(slot, 0) for slot in inputs)

    def evaluate(*args: Any) -> list:
        run = jax.vmap(_run(small), in_axes, axis_size=step.size, axis_name=step.axis_name)
        return run(*args)

    return replace(step, inputs=inputs, outputs=to, evaluate=evaluate, effects=small.effects,
                   paths=small.paths, body=small, in_axes=in_axes)  # fmt: skip


def _run(program: Program) -> Callable[..., list]:
    """The program as plain JAX code, its effects left in place."""

    def run(*args: Any) -> list:
        env: dict[int, Any] = dict(program.constants)
        env.update(zip(program.inputs, args, strict=True))
        for step in program.steps:
            outs = step.evaluate(*(env[slot] for slot in step.inputs))
            env.update(zip(step.outputs, outs, strict=True))
        return [env[slot] for slot in program.outputs]

    return run


def _stacked(aval: Any, size: int, axis: int | None) -> Any:
    if axis is None:
        return aval
    return jax.ShapeDtypeStruct((*aval.shape[:axis], size, *aval.shape[axis:]), aval.dtype)


def _flat(body: Program, summed: frozenset[Path]) -> Program:
    """A program in which the steps inside of `checkpoint`, and the parts of copies, are its own."""
    avals, constants = dict(body.avals), dict(body.constants)

    def flat(steps: Sequence[Step], names: dict[int, int]) -> list[Step]:
        found: list[Step] = []
        for each in steps:
            inputs = tuple(names.get(slot, slot) for slot in each.inputs)
            inner = _inside(each, summed)
            if inner is None:
                outputs = tuple(names.get(slot, slot) for slot in each.outputs)
                found.append(replace(each, inputs=inputs, outputs=outputs))
                continue
            own = dict(zip(inner.inputs, inputs, strict=True))
            for slot, aval in inner.avals.items():
                if slot not in own:
                    own[slot] = max(avals, default=-1) + 1
                    avals[own[slot]] = aval
            constants.update((own[slot], value) for slot, value in inner.constants.items())
            found += flat(inner.steps, own)
            names.update(zip(each.outputs, (own[slot] for slot in inner.outputs), strict=True))
        return found

    names: dict[int, int] = {}
    steps = flat(body.steps, names)
    outputs = tuple(names.get(slot, slot) for slot in body.outputs)
    return replace(body, outputs=outputs, steps=tuple(steps), constants=constants, avals=avals)


def _inside(step: Step, summed: frozenset[Path]) -> Program | None:
    """The program of a step that is gone through part by part, or None."""
    if not scores(step, summed):
        return None
    if isinstance(step, Remat):
        return step.body
    if not isinstance(step, Map):
        return None
    inner = parts_of(step, summed)
    return inner if sum(scores(each, summed) for each in inner.steps) > 1 else None
