"""The update of one element of a loop: only its neighbourhood is computed.

In a Markov loop the carry after a few steps depends on the choices of those steps
alone: it is forgotten after h steps (`ppl.change.horizon`). Then the carry at step t
follows from the h steps before it, and a new value at t reaches the h steps after it.
So a window of 2h + 1 steps gives the change of the log density, and one of the last h
steps what the loop hands on, whatever the length of the loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jax import lax

from .addresses import At, flatten, nest
from .arguments import Arguments
from .change import Cut, counters, cut, horizon
from .execute import Given
from .masks import leading
from .program import DRAW, FACTOR, Loop, Map, Path, Program
from .walk import construct, walk


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the update of one element computes: a window of the loop, and what follows it."""

    step: Any
    length: int
    h: int
    hands_on: bool  # whether something after the loop depends on its last carry
    following: Cut


def update_element(run, trace, given: dict[Path, Any], old: dict[Path, Given]) -> Any:
    """`update` when the constraint is elements of one loop, if a window suffices; or None."""
    if not given or not all(isinstance(value, At) for value in given.values()):
        return None
    before = trace.model._prepare((trace.arguments,), {})
    unchanged = before.staged is run.staged and all(
        a is b for a, b in zip(run.operands, before.operands, strict=True)
    )
    first, *others = [value.index for value in given.values()]
    if not unchanged or any(i is not first for i in others):
        return None
    plan = _plan(run, given)
    return None if plan is None else _windowed(run, trace, given, old, plan, first)


def _plan(run, given: dict[Path, Any]) -> _Plan | None:
    """How a window suffices, if it does."""
    program: Program = run.staged.program
    steps = [s for s in program.steps if s.paths & set(given)]
    if len(steps) != 1 or not set(given) <= steps[0].paths or DRAW in program.effects:
        return None
    (step,) = steps
    if not isinstance(step, (Loop, Map)) or FACTOR in step.effects:
        return None
    if run.conditional & step.paths or (isinstance(step, Loop) and step.reverse):
        return None
    length, h = (step.length, _memory(step)) if isinstance(step, Loop) else (step.size, 0)
    if h is None or 2 * h + 1 > length:
        return None
    carries = step.carries if isinstance(step, Loop) else 0
    used = {slot for s in program.steps for slot in s.inputs}
    if used & set(step.outputs[carries:]):  # the whole history is read again
        return None
    follow = _following(program, step, carries)
    if run.conditional & follow.program.paths:
        return None
    hands_on = bool(follow.program.steps or follow.outputs)
    return _Plan(step, length, h, hands_on, follow)


def _memory(step: Loop) -> int | None:
    """After how many steps the whole carry, but for its counters, is forgotten."""
    alive = [position not in counters(step) for position in range(step.carries)]
    return horizon(step, alive)


def _following(program: Program, step: Any, carries: int) -> Cut:
    """What comes after the loop and depends on its last carry."""
    rest = replace(
        program,
        inputs=(*program.inputs, *step.outputs),
        steps=tuple(s for s in program.steps if s is not step),
    )
    known = counters(step) if isinstance(step, Loop) else {}
    last = [len(program.inputs) + j for j in range(carries) if j not in known]
    return cut(rest, frozenset(last), lambda path: False)


def _windowed(run, trace, given, old, plan: _Plan, index) -> Any:
    step, length, h = plan.step, plan.length, plan.h
    operands = _operands(run, step, old)
    inside = (index >= 0) & (index < length)

    def values(start, width):
        """The choices of a stretch of the loop, after and before the change."""
        position = start + jnp.arange(width)
        slices = {
            path: lax.dynamic_slice_in_dim(old[path].value, start, width) for path in step.paths
        }
        changed = dict(slices)
        for path, at in given.items():
            here = leading(position == index, slices[path].ndim)
            changed[path] = jnp.where(here, at.value, slices[path])
        return position, changed, slices

    def stretch(start, width, choices, counts=None):
        loop, reads = _shortened(step, operands, start, width)
        inputs = {
            path: Given(value, counts=_each(counts, run.sites[path], value))
            for path, value in choices.items()
        }
        outs, _, sums = construct(loop, reads, run.rule(sums=("weight",)), inputs)
        return outs, sums["weight"]

    width = 2 * h + 1
    start = jnp.clip(index - h, 0, length - width)
    position, after, before = values(start, width)
    counts = (position >= index) & (position <= index + h)
    outs, new = stretch(start, width, after, counts)
    difference = new - stretch(start, width, before, counts)[1]

    leaves = list(Arguments.of((trace.retval,), {}).leaves)
    _write_history(run, step, outs, leaves, start, position >= index)
    if plan.hands_on:
        tail = length - h
        _, after, before = values(tail, h)
        ends = [_last(step, operands, stretch(tail, h, c)[0], length) for c in (after, before)]
        more, news = _follow(run, plan, ends, old)
        difference = difference + more
        for at, value in zip(plan.following.outputs, news, strict=True):
            leaves[at] = jnp.where(inside, value, leaves[at])

    choices = flatten(trace.choices)
    discarded = {path: At(index, choices[path][index]) for path in given}
    for path, value in given.items():
        choices[path] = choices[path].at[index].set(value.value)
    changed = replace(
        trace,
        choices=nest({path: choices[path] for path in run.sites}),
        score=trace.score + jnp.where(inside, difference, 0.0),
        retval=run.staged.rebuild(leaves),
    )
    return changed, jnp.where(inside, difference, -jnp.inf), nest(discarded)


def _each(counts: Any, site: Any, value: Any) -> Any:
    """The flags of a stretch's steps, for every copy of a choice in the loops inside them."""
    if counts is None:
        return None
    axes = jnp.shape(value)[: len(site.axes)]
    return jnp.broadcast_to(leading(counts, len(axes)), axes)


def _write_history(run, step, outs: list, leaves: list, start, reached) -> None:
    """Write what the window puts out a step into the leaves of the return value."""
    carries = step.carries if isinstance(step, Loop) else 0
    made = dict(zip(step.outputs[carries:], outs[carries:], strict=True))
    for at, slot in enumerate(run.staged.program.outputs):
        if slot in made:
            window = made[slot]
            width = window.shape[0]
            was = lax.dynamic_slice_in_dim(leaves[at], start, width)
            mixed = jnp.where(leading(reached, window.ndim), window, was)
            leaves[at] = lax.dynamic_update_slice_in_dim(leaves[at], mixed, start, 0)


def _last(step: Loop, operands: list, outs: list, length: int) -> list:
    """The carry after the whole loop, from that after its last stretch."""
    last = list(outs[: step.carries])
    for position, increment in counters(step).items():
        last[position] = _counted(operands[step.constants + position], length, increment)
    return last


def _counted(init: Any, steps: Any, increment: Any) -> Any:
    """A counter after some steps, in its own dtype."""
    return init + jnp.asarray(steps * increment, jnp.result_type(init))


def _follow(run, plan: _Plan, ends: list, old: dict[Path, Given]) -> tuple[Any, list]:
    """The change of log density after the loop, and the outputs that change."""
    program = plan.following.program
    inputs = {path: Given(old[path].value) for path in program.paths}
    history = [None] * (len(plan.step.outputs) - plan.step.carries)
    found = []
    for carry in ends:
        operands = [*run.operands, *carry, *history]
        outs, _, sums = walk(program, operands, run.rule(sums=("weight",)), inputs)
        found.append((outs, sums.get("weight", 0.0)))
    (outs, after), (_, before) = found
    return after - before, outs


def _operands(run, step, old: dict[Path, Given]) -> list:
    """The values that the loop reads, computed from the old choices."""
    program = run.staged.program
    before = program.steps[: list(program.steps).index(step)]
    prefix = replace(program, outputs=step.inputs, steps=before)
    values = {path: Given(given.value) for path, given in old.items()}
    return walk(prefix, run.operands, run.rule(sums=()), values)[0]


def _shortened(step, operands: list, start, width: int) -> tuple[Any, list]:
    """The loop over a stretch of `width` steps from `start`, and what it reads."""

    def near(leaf):
        return lax.dynamic_slice_in_dim(leaf, start, width)

    if isinstance(step, Map):
        mine = [near(o) if axis == 0 else o for o, axis in zip(operands, step.in_axes, strict=True)]
        return replace(step, size=width), mine
    split = step.constants + step.carries
    init = list(operands[step.constants : split])
    for position, increment in counters(step).items():
        init[position] = _counted(init[position], start, increment)
    reads = [*operands[: step.constants], *init, *(near(o) for o in operands[split:])]
    # so few steps are faster written out than looped over
    return replace(step, length=width, unroll=width if width <= 8 else step.unroll), reads
