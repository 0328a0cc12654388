"""The part of a program that a change touches.

`cut` takes what changes (operands, addresses) and returns the program with only
the choices and factors whose density can differ, and the code they need: a choice
that is not touched, and whose distribution does not depend on one that is, keeps
its value and its score, so nothing of it is computed. `update` and `regenerate`
walk the cut program before and after, and add the difference to the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

from .program import (
    CHOICE,
    DRAW,
    Branch,
    Choice,
    Custom,
    Draw,
    Factor,
    Loop,
    Map,
    Path,
    Program,
    Pure,
    Remat,
    Step,
    bodies,
)

Touched = Callable[[Path], bool]


@dataclass(frozen=True)
class Cut:
    """A cut program: what remains, which outputs change, and what it costs.

    `outputs` are positions of the original outputs that the cut program puts out;
    `cost` is the number of scalar densities it evaluates.
    """

    program: Program
    outputs: tuple[int, ...]
    cost: int


def cut(program: Program, changed: frozenset[int], touched: Touched) -> Cut:
    """The part of `program` that changes with the inputs at positions `changed`.

    Args:
      touched: which choices get a new value.
    """
    slots = frozenset(program.inputs[i] for i in changed)
    differs = _spread(program, slots, touched)
    outputs = tuple(i for i, slot in enumerate(program.outputs) if slot in differs)
    small, _ = _prune(program, differs, touched, outputs)
    return Cut(small, outputs, cost(small))


def cost(program: Program) -> int:
    """How many scalar densities a program evaluates."""
    total = 0
    for step in program.steps:
        if isinstance(step, Choice) and step.scored:
            total += max(1, prod(step.spec.shape))
        elif isinstance(step, Loop):
            total += (step.length if step.first is None else step.first) * cost(step.body)
        elif isinstance(step, Map):
            total += step.size * cost(step.body)
        elif isinstance(step, Branch):
            total += sum(cost(b) for b in step.branches)
        elif isinstance(step, (Remat, Custom)):
            total += cost(step.body)
    return total


def depends_on_draws(program: Program, selected: Touched) -> list[Step]:
    """The steps with a selected choice whose density may depend on an anonymous draw.

    Conservative: a selected choice inside a construct counts whenever the construct
    draws, reads a draw, or is conditional on something.
    """
    differs = _spread(program, frozenset(), lambda path: False)
    found = []
    for step in program.steps:
        if any(selected(path) for path in step.paths if CHOICE in step.effects):
            reads = any(slot in differs for slot in step.inputs)
            if reads or DRAW in step.effects or isinstance(step, Branch):
                found.append(step)
    return found


# -- what differs ---------------------------------------------------------------------


def _spread(program: Program, slots: frozenset[int], touched: Touched) -> frozenset[int]:
    """The slots whose value can differ, given the inputs that do."""
    differs = set(slots)
    for step in program.steps:
        here = [slot in differs for slot in step.inputs]
        outs = _outputs(step, here, touched)
        differs.update(slot for slot, d in zip(step.outputs, outs, strict=True) if d)
    return frozenset(differs)


def _outputs(step: Step, here: list[bool], touched: Touched) -> list[bool]:
    """Which outputs of a step differ."""
    if isinstance(step, Pure):
        return [any(here[i] for i in read) for read in step.reads]
    if isinstance(step, Choice):
        return [touched(step.path)]
    if isinstance(step, (Factor, Draw)):
        return [True] * len(step.outputs)
    if isinstance(step, Branch):
        if here[0]:
            return [True] * len(step.outputs)
        found = [body_outputs(b, here[1:], touched) for b in step.branches]
        return [any(column) for column in zip(*found, strict=True)]
    if isinstance(step, Loop):
        outs = body_outputs(step.body, _loop_inputs(step, here, touched), touched)
        if _forgets(step, here, touched) is not None:
            outs[: step.carries] = [False] * step.carries
        return outs
    if isinstance(step, (Map, Remat, Custom)):
        return body_outputs(step.body, here, touched)
    return [True] * len(step.outputs)


def body_outputs(body: Program, here: list[bool], touched: Touched) -> list[bool]:
    slots = frozenset(s for s, d in zip(body.inputs, here, strict=True) if d)
    differs = _spread(body, slots, touched)
    return [slot in differs for slot in body.outputs]


def _loop_inputs(step: Loop, here: list[bool], touched: Touched) -> list[bool]:
    """Which inputs of a loop's body differ in some iteration."""
    now = list(here)
    while True:
        outs = body_outputs(step.body, now, touched)
        more = list(now)
        for i in range(step.carries):
            more[step.constants + i] = now[step.constants + i] or outs[i]
        if more == now:
            return now
        now = more


# -- what a loop remembers ------------------------------------------------------------


@lru_cache(maxsize=1024)
def counters(step: Loop) -> dict[int, Any]:
    """The carries that a constant is added to in every step, and that constant."""
    made = {slot: (s, o) for s in step.body.steps for o, slot in enumerate(s.outputs)}
    found = {}
    for position in range(step.carries):
        pure, output = made.get(step.body.outputs[position], (None, 0))
        if isinstance(pure, Pure) and output in pure.counter:
            read, increment = pure.counter[output]
            if pure.inputs[read] == step.body.inputs[step.constants + position]:
                found[position] = increment
    return found


def horizon(step: Loop, alive: list[bool]) -> int | None:
    """After how many steps the carries that are `alive` are forgotten; None if never.

    With the choices given, the matrix that says which carry depends on which is then
    nilpotent on these.
    """
    n, first = step.carries, step.constants
    reach = []
    for j in range(n):
        here = [i == first + j for i in range(len(step.body.inputs))]
        reach.append(body_outputs(step.body, here, lambda path: False)[:n])
    h = 0
    while any(alive):
        if h > n:
            return None
        alive = [any(alive[j] and reach[j][i] for j in range(n)) for i in range(n)]
        h += 1
    return h


def _forgets(step: Loop, here: list[bool], touched: Touched) -> int | None:
    """The number of steps that differ, if the loop only starts from another carry, which
    it forgets before its end."""
    split = step.constants + step.carries
    elsewhere = here[: step.constants] + here[split:]
    if step.reverse or any(elsewhere) or any(touched(path) for path in step.paths):
        return None
    if _presence_varies(step.body):
        return None
    h = horizon(step, here[step.constants : split])
    return h if h is not None and h < step.length else None


def _presence_varies(program: Program) -> bool:
    """Whether some branch makes choices that another does not."""
    for step in program.steps:
        if isinstance(step, Branch) and len({branch.paths for branch in step.branches}) > 1:
            return True
        if any(_presence_varies(body) for body in bodies(step)):
            return True
    return False


# -- what is needed ----------------------------------------------------------------------


def _prune(
    program: Program, differs: frozenset[int], touched: Touched, outputs: tuple[int, ...]
) -> tuple[Program, frozenset[int]]:
    """The program with only what differs and what that needs; and the inputs it reads."""
    live = {program.outputs[i] for i in outputs}
    steps: list[Step] = []
    for step in reversed(program.steps):
        here = [slot in differs for slot in step.inputs]
        wanted = tuple(slot in live for slot in step.outputs)
        small = _step(step, here, touched, wanted)
        if small is not None:
            live.update(small.inputs)
            steps.append(small)
    made = replace(
        program,
        outputs=tuple(program.outputs[i] for i in outputs),
        steps=tuple(reversed(steps)),
    )
    return made, frozenset(live)


def _step(step: Step, here: list[bool], touched: Touched, wanted: tuple[bool, ...]) -> Step | None:
    if isinstance(step, Pure):
        assert step.narrow is not None
        return step.narrow(wanted) if any(wanted) else None
    if isinstance(step, Choice):
        if touched(step.path) or any(here):
            return step
        return replace(step, inputs=(), scored=False) if any(wanted) else None
    if isinstance(step, Factor):
        return step if any(here) else None
    if isinstance(step, Loop):
        return _loop(step, here, touched, wanted)
    if isinstance(step, (Map, Remat, Custom)):
        return _region(step, here, touched, wanted)
    if isinstance(step, Branch) and not here[0]:
        return _branch(step, here, touched, wanted)
    return step


def _positions(flags: Any) -> tuple[int, ...]:
    return tuple(i for i, flag in enumerate(flags) if flag)


def _cut_body(body: Program, here: list[bool], touched: Touched, outputs: tuple[int, ...]) -> Any:
    slots = frozenset(s for s, d in zip(body.inputs, here, strict=True) if d)
    small, live = _prune(body, _spread(body, slots, touched), touched, outputs)
    return small, tuple(slot in live for slot in body.inputs)


def _with_inputs(body: Program, reads: tuple[bool, ...]) -> Program:
    return replace(body, inputs=tuple(s for s, r in zip(body.inputs, reads, strict=True) if r))


def _pick(items: tuple[int, ...], flags: Any) -> tuple[int, ...]:
    return tuple(item for item, flag in zip(items, flags, strict=True) if flag)


def _region(step: Any, here: list[bool], touched: Touched, wanted: tuple[bool, ...]) -> Step | None:
    body, reads = _cut_body(step.body, here, touched, _positions(wanted))
    if not body.steps and not any(wanted):
        return None
    more: dict[str, Any] = {}
    if isinstance(step, Map):
        more["in_axes"] = tuple(a for a, r in zip(step.in_axes, reads, strict=True) if r)
    return replace(
        step,
        inputs=_pick(step.inputs, reads),
        outputs=_pick(step.outputs, wanted),
        body=_with_inputs(body, reads),
        paths=body.paths,
        **more,
    )


def _branch(
    step: Branch, here: list[bool], touched: Touched, wanted: tuple[bool, ...]
) -> Step | None:
    cuts = [_cut_body(b, here[1:], touched, _positions(wanted)) for b in step.branches]
    if not any(wanted) and not any(body.steps for body, _ in cuts):
        return None
    reads = tuple(any(column) for column in zip(*(r for _, r in cuts), strict=True))
    branches = tuple(_with_inputs(body, reads) for body, _ in cuts)
    return replace(
        step,
        inputs=(step.inputs[0], *_pick(step.inputs[1:], reads)),
        outputs=_pick(step.outputs, wanted),
        branches=branches,
        paths=frozenset().union(*(b.paths for b in branches)),
    )


def _loop(step: Loop, here: list[bool], touched: Touched, wanted: tuple[bool, ...]) -> Step | None:
    now = _loop_inputs(step, here, touched)
    needed = list(wanted)
    while True:  # a carry that the body reads must be put out again
        body, reads = _cut_body(step.body, now, touched, _positions(needed))
        more = [
            need or (i < step.carries and reads[step.constants + i])
            for i, need in enumerate(needed)
        ]
        if more == needed:
            break
        needed = more
    if not body.steps and not any(wanted):
        return None
    first = None if any(wanted) else _forgets(step, here, touched)
    carried = [needed[i] for i in range(step.carries)]
    split = step.constants + step.carries
    reads = (*reads[: step.constants], *carried, *reads[split:])
    return replace(
        step,
        inputs=_pick(step.inputs, reads),
        outputs=_pick(step.outputs, needed),
        body=_with_inputs(body, reads),
        constants=sum(reads[: step.constants]),
        carries=sum(carried),
        paths=body.paths,
        first=first,
    )
