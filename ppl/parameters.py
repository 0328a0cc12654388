"""Parameters that follow from the arguments, looked at before anything runs.

A scale that is an argument is traced while the model is staged, so that its sign is known
only here: where the arguments are known, whatever follows from them alone is computed, in
loops for all iterations at once, and each parameter is held to its constraint.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import errors
from .excluded_branches import Known, Lazy, is_known
from .program import Branch, Choice, Custom, Factor, Loop, Map, Path, Program, Remat
from .supports import check_parameters

_seen: weakref.WeakKeyDictionary[Program, tuple] = weakref.WeakKeyDictionary()


def check_arguments(
    program: Program, operands: Sequence[Any], values: Mapping[Path, Any] | None = None
) -> None:
    """Hold the parameters that follow from known arguments (and `values`) to their constraints.

    What was looked at the last time is not looked at again, what follows from the program's
    constants only once.

    Raises:
      InvalidDistribution: a parameter is outside its constraint.
      SupportError: a factor is not a number.
    """
    values = {path: value for path, value in (values or {}).items() if is_known(value)}
    known = [x if is_known(x) else None for x in operands]
    last = _seen.get(program)
    if not values and last is not None and _all_the_same(known, last):
        return
    inputs: list[Known | None] = [None if x is None else (x, frozenset()) for x in known]
    with jax.ensure_compile_time_eval():
        found = _parameters(program, inputs, values)
        for step, leaves in found:
            _check(step, leaves)
    _seen[program] = tuple(known)


def _all_the_same(known: Sequence[Any], last: tuple) -> bool:
    """Whether nothing is known that was not looked at the last time; constants once."""
    return all(x is None or x is y for x, y in zip(known, last, strict=True))


def _check(step: Choice | Factor, leaves: list) -> None:
    leaves = [None if leaf is None else np.asarray(leaf) for leaf in leaves]
    if isinstance(step, Factor):
        if np.isnan(leaves[0]).any():
            raise errors.SupportError(
                "A log weight follows from the arguments and is not a number.",
                where=(f"factor/observe at {step.source}", errors.caller()),
                given="NaN",
                expected="a number, or -jnp.inf for a weight of zero",
                fix="correct the arguments, or the computation of the log weight",
            )
        return
    filled = [
        spec if leaf is None else leaf for leaf, spec in zip(leaves, step.spec.leaves, strict=True)
    ]
    alike = [np.shape(leaf) for leaf in filled] == [spec.shape for spec in step.spec.leaves]
    d = step.spec.tree.unflatten(filled)
    name = f"sample({errors.show(step.path)}, ...)"
    check_parameters(d, step.source, name, order=alike, caller=errors.caller())


Found = list[tuple[Choice | Factor, list]]


def _parameters(
    program: Program, inputs: Sequence[Known | None], values: Mapping[Path, Any]
) -> Found:
    """The choices and factors, each with its operands, None where they are not known."""
    env = Lazy(program, inputs, values)
    found: Found = []
    for step in program.steps:
        if isinstance(step, (Choice, Factor)):
            operands = [env[slot] for slot in step.inputs]
            leaves = [None if each is None else each[0] for each in operands]
            if any(leaf is not None for leaf in leaves):
                found.append((step, leaves))
        elif isinstance(step, (Remat, Custom)) and step.effects:
            found += _parameters(step.body, [env[i] for i in step.inputs], values)
        elif isinstance(step, Branch):
            index = env[step.inputs[0]]
            if index is not None and not isinstance(index[0], jax.core.Tracer):
                taken = min(max(int(np.asarray(index[0])), 0), len(step.branches) - 1)
                rest = [env[i] for i in step.inputs[1:]]
                found += _parameters(step.branches[taken], rest, values)
        elif isinstance(step, (Loop, Map)):
            found += _of_loop(step, [env[i] for i in step.inputs])
    return found


def _of_loop(step: Loop | Map, operands: list[Known | None]) -> Found:
    """The same in a loop, its iterations stacked; what a carry decides is not known."""
    if isinstance(step, Map):
        axes = list(step.in_axes)
    else:
        split = step.constants + step.carries
        axes = [None] * split + [0] * (len(operands) - split)
        operands = [
            None if step.constants <= i < split else each for i, each in enumerate(operands)
        ]
    known = [each is not None for each in operands]
    if not any(known):
        return []
    steps: list[Choice | Factor] = []

    def run(given: list) -> list:
        rest = iter(given)
        inputs = [(next(rest), frozenset()) if here else None for here in known]
        found = _parameters(step.body, inputs, {})
        steps[:] = [each for each, _ in found]
        return [
            [None if leaf is None else jnp.asarray(leaf) for leaf in leaves] for _, leaves in found
        ]

    given = [each[0] for each in operands if each is not None]
    axes = [axis for axis, here in zip(axes, known, strict=True) if here]
    if all(axis is None for axis in axes):
        stacked = run(given)
    else:
        stacked = jax.vmap(run, (axes,))(given)
    return list(zip(steps, stacked, strict=True))
