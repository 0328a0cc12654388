"""What the known values decide before anything runs: which branches they exclude.

A constraint of a choice in a branch that other constraints (or the arguments)
exclude has density zero whatever else happens. Only what a branch's index needs
is evaluated, and only where it follows from known values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.core
import numpy as np

from . import errors
from .addresses import At, Masked
from .program import Branch, Choice, Custom, Path, Program, Pure, Remat, Step
from .sites import Site

Known = tuple[Any, frozenset[Path]]
"""A value, and the choices that it follows from."""


def check_branches(
    program: Program,
    operands: Sequence[Any],
    sites: Mapping[Path, Site],
    given: Mapping[Path, Any],
    what: str,
    filler: bool = False,
) -> None:
    """Raise `ExcludedBranch` for a constraint that known values exclude.

    `given` has the constraints that demand their choice (partial and traced ones
    are passed over); with `filler`, zeros demand nothing.
    """
    values = {path: value for path, value in given.items() if is_known(value)}
    demanded = {
        path
        for path, value in given.items()
        if sites[path].conditional
        and not isinstance(value, (Masked, At))
        and not (filler and (path not in values or not np.any(np.asarray(value))))
    }
    if not demanded:
        return
    with jax.ensure_compile_time_eval():
        inputs = [(x, frozenset()) if is_known(x) else None for x in operands]
        found = _excluded(program, inputs, values, demanded)
    if found is None:
        return
    path, deciding, index = found
    causes = [f"{errors.show(p)} at {sites[p].source}" for p in sorted(deciding)]
    because = ", ".join(f"{errors.show(p)} = {_short(values[p])}" for p in sorted(deciding))
    raise errors.ExcludedBranch(
        f"{what} gives {errors.show(path)}, which other values exclude.",
        where=(f"{errors.show(path)} at {sites[path].source}", *causes[:2], errors.caller()),
        given=f"{errors.show(path)}, and {because or 'arguments'} that select branch {index}",
        expected=f"values under which {errors.show(path)} is chosen",
        fix=f"leave out {errors.show(path)}"
        + (f", or change {errors.show(min(deciding))}" if deciding else ""),
    )


def _short(value: Any) -> str:
    return str(np.asarray(value)) if np.size(value) <= 4 else f"array{list(np.shape(value))}"


def is_known(value: Any) -> bool:
    """Whether a value is whole, and not traced."""
    return not isinstance(value, (Masked, At, jax.core.Tracer))


class Lazy:
    """The slots of a program whose values follow from known ones, computed on demand."""

    def __init__(self, program: Program, inputs: Sequence[Known | None], values: Mapping):
        self.values = values
        self.found: dict[int, Known | None] = {
            slot: (value, frozenset()) if is_known(value) else None
            for slot, value in program.constants.items()
        }
        self.found.update(zip(program.inputs, inputs, strict=True))
        self.made = {
            slot: (step, i) for step in program.steps for i, slot in enumerate(step.outputs)
        }

    def __getitem__(self, slot: int) -> Known | None:
        if slot not in self.found:
            self.found[slot] = self._compute(*self.made[slot])
        return self.found[slot]

    def _compute(self, step: Step, i: int) -> Known | None:
        if isinstance(step, Choice):
            value = self.values.get(step.path)
            return None if value is None else (value, frozenset({step.path}))
        if not isinstance(step, Pure):
            return None
        small = _only(step, i)
        inputs = [self[slot] for slot in small.inputs]
        known = [each for each in inputs if each is not None]
        if len(known) < len(inputs):
            return None
        (value,) = small.evaluate(*(value for value, _ in known))
        return value, frozenset().union(*(paths for _, paths in known))


@lru_cache(maxsize=1024)
def _only(step: Pure, i: int) -> Pure:
    """The part of a step that output `i` needs."""
    assert step.narrow is not None
    return step.narrow(tuple(j == i for j in range(len(step.outputs))))


def _excluded(
    program: Program,
    inputs: Sequence[Known | None],
    values: Mapping[Path, Any],
    demanded: set[Path],
) -> tuple[Path, frozenset[Path], int] | None:
    """The first demanded choice in a branch not taken: `(path, what decided, branch taken)`."""
    env = Lazy(program, inputs, values)
    for step in program.steps:
        if not step.paths & demanded:
            continue
        if isinstance(step, (Remat, Custom)):
            found = _excluded(step.body, [env[i] for i in step.inputs], values, demanded)
        elif isinstance(step, Branch):
            index = env[step.inputs[0]]
            if index is None:
                continue
            taken = min(max(int(np.asarray(index[0])), 0), len(step.branches) - 1)
            branch = step.branches[taken]
            missing = (step.paths & demanded) - branch.paths
            if missing:
                return min(missing), index[1], taken
            found = _excluded(branch, [env[i] for i in step.inputs[1:]], values, demanded)
        else:  # in a loop, other iterations may take other branches
            continue
        if found is not None:
            return found
    return None
