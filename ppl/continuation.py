"""A continuation-passing interpreter for random programs.

`run(program, operands, handle, finish)` evaluates a program; at each step that
draws it calls `handle(step, args, k)`, where `k(outputs)` is the rest of the
program. What `handle` returns is the result: summing `k` over the outcomes of a
draw is exact integration (`ppl.integrate`), and calling it once on a value that
carries a derivative is an unbiased estimate of an expectation's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .program import DRAW, Program, Step

Continuation = Callable[[list], Any]
Handler = Callable[[Step, list, Continuation], Any]


def run(
    program: Program, operands: Sequence[Any], handle: Handler, finish: Callable[[list], Any]
) -> Any:
    """Evaluate `program`; steps that draw get their continuation."""
    env: dict[int, Any] = dict(program.constants)
    env.update(zip(program.inputs, operands, strict=True))

    def go(i: int, env: dict[int, Any]) -> Any:
        env = dict(env)
        for at in range(i, len(program.steps)):
            step = program.steps[at]
            args = [env[slot] for slot in step.inputs]
            if DRAW not in step.effects:
                env.update(zip(step.outputs, step.evaluate(*args), strict=True))
                continue

            def rest(outs: list, step: Step = step, at: int = at) -> Any:
                return go(at + 1, {**env, **dict(zip(step.outputs, outs, strict=True))})

            return handle(step, args, rest)
        return finish([env[slot] for slot in program.outputs])

    return go(0, env)
