"""The update of one element of a loop: only its neighbourhood is computed.

In a Markov loop the carry after a few steps depends on the choices of those steps
alone: with the choices given, the matrix that says which carry depends on which is
nilpotent, of some index h. Then the carry at step t follows from the h steps before
it, and a new value at t reaches the h steps after it. So a window of 2h + 1 steps
gives the change of the log density, whatever the length of the loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import lax

from .addresses import At, flatten, nest
from .change import body_outputs
from .execute import Given
from .program import DRAW, FACTOR, Loop, Map, Path, Program
from .walk import construct, walk


def _horizon(step: Loop) -> int | None:
    """The index h at which carries stop depending on earlier ones, given the choices."""
    n, first = step.carries, step.constants
    reach = []
    for j in range(n):
        here = [i == first + j for i in range(len(step.body.inputs))]
        reach.append(body_outputs(step.body, here, lambda path: False)[:n])
    alive, h = [True] * n, 0
    while any(alive):
        if h > n:
            return None
        alive = [any(alive[j] and reach[j][i] for j in range(n)) for i in range(n)]
        h += 1
    return h


def update_element(run, trace, given: dict[Path, Any], old: dict[Path, Given]) -> Any:
    """`update` when the constraint is elements of one loop, if a window suffices; or None."""
    if not given or not all(isinstance(value, At) for value in given.values()):
        return None
    program: Program = run.staged.program
    steps = [s for s in program.steps if s.paths & set(given)]
    same_arguments = all(
        a is b for a, b in zip(run.operands, trace.arguments.leaves, strict=False)
    ) and len(run.operands) == len(trace.arguments.leaves)
    first, *others = [value.index for value in given.values()]
    if len(steps) != 1 or not same_arguments or any(i is not first for i in others):
        return None
    (step,) = steps
    if not isinstance(step, (Loop, Map)) or step.effects & {DRAW, FACTOR}:
        return None
    if run.conditional & step.paths or not set(given) <= step.paths:
        return None
    used = {slot for s in program.steps for slot in s.inputs} | set(program.outputs)
    if used & set(step.outputs):
        return None
    length = step.length if isinstance(step, Loop) else step.size
    h = _horizon(step) if isinstance(step, Loop) else 0
    if h is None or 2 * h + 1 > length or (isinstance(step, Loop) and step.reverse):
        return None
    return _windowed(run, trace, given, old, step, first, h, length)


def _windowed(run, trace, given, old, step, index, h: int, length: int) -> Any:
    width = 2 * h + 1
    start = jnp.clip(index - h, 0, length - width)
    position = start + jnp.arange(width)
    counts = (position >= index) & (position <= index + h)

    def near(leaf):
        return lax.dynamic_slice_in_dim(leaf, start, width)

    operands = _operands(run, step, old)
    loop, reads = _shortened(step, near, operands, width)
    before = {path: near(old[path].value) for path in step.paths}
    at = index - start
    after = {
        path: values.at[at].set(given[path].value) if path in given else values
        for path, values in before.items()
    }

    def log_density(values):
        inputs = {path: Given(value, counts=counts) for path, value in values.items()}
        return construct(loop, reads, run.rule(sums=("weight",)), inputs)[2]["weight"]

    difference = log_density(after) - log_density(before)
    inside = (index >= 0) & (index < length)
    weight = jnp.where(inside, difference, -jnp.inf)
    choices = flatten(trace.choices)
    discarded = {path: At(index, choices[path][index]) for path in given}
    for path, value in given.items():
        choices[path] = choices[path].at[index].set(value.value)
    changed = replace(
        trace,
        choices=nest({path: choices[path] for path in run.sites}),
        score=trace.score + jnp.where(inside, difference, 0.0),
    )
    return changed, weight, nest(discarded)


def _operands(run, step, old: dict[Path, Given]) -> list:
    """The values that the loop reads, computed from the old choices."""
    program = run.staged.program
    before = program.steps[: list(program.steps).index(step)]
    prefix = replace(program, outputs=step.inputs, steps=before)
    values = {path: Given(given.value) for path, given in old.items()}
    return walk(prefix, run.operands, run.rule(sums=()), values)[0]


def _shortened(step, near, operands: list, width: int) -> tuple[Any, list]:
    """The loop over the window, and what it reads."""
    if isinstance(step, Map):
        mine = [near(o) if axis == 0 else o for o, axis in zip(operands, step.in_axes, strict=True)]
        return replace(step, size=width), mine
    split = step.constants + step.carries
    return replace(step, length=width), [*operands[:split], *(near(o) for o in operands[split:])]
