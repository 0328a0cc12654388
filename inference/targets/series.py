"""The loop of a target's model that makes a series of latents, read off its staged program.

A `lax.scan` (or `ppl.scan`) whose steps hold the latents and all that depends on them is a
state-space model, whatever the rest of the model is: its carry is the state, and what it reads
from outside, parameters among them, is fixed given the rest of the trace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from ppl import GenerativeFunction, Selection, Target, errors
from ppl.change import cost, cut
from ppl.effects import factor_p, sample_p
from ppl.execute import Given
from ppl.program import CHOICE, DRAW, FACTOR, Choice, Factor, Loop, Path, Program, Step
from ppl.walk import Result, Rule, walk, zero

from .presence import presence_varies


@dataclass(frozen=True, eq=False)
class Series:
    """A series of latents: T steps of a `(state, x) -> (state, None)`.

    Attributes:
      target: the target.
      paths: the latents of the series, stacked along its T steps.
      given: all other choices of the steps.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.targets.series import Series
    >>> from ppl import Target, gen, sample, scan
    >>> @gen
    ... def step(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> model = gen(lambda: sample("walk", scan(step, 3)(0.0)))
    >>> series = Series.of(Target(model, (), {"walk": {"y": jnp.ones(3)}}), "walk")
    >>> series.paths, series.given
    ((('walk', 'z'),), (('walk', 'y'),))
    """

    target: Target
    paths: tuple[Path, ...]
    given: tuple[Path, ...]

    @staticmethod
    def of(target: Target, address: Selection | str | Path) -> Series:
        """The series that makes the latents at or below an address.

        Raises:
          AddressNotFound: there is no such choice.
          InvalidArgument: it is observed; its choices are not those of one `scan`; something
            outside of the `scan` depends on them; they decide which other choices there are;
            or the model draws without addresses.
        """
        chosen = target.selection(address)
        paths = tuple(path for path in target.latents if chosen(path))
        program = target.model._prepare(target.args, {}).staged.program
        loop = program.steps[_position(program, paths)]
        fault = _fault(program, paths, target)
        if fault is not None:
            given, expected, fix = fault
            first = paths[0]
            raise errors.InvalidArgument(
                f"The choices at {errors.show(first)} are not a series of states.",
                where=(f"{errors.show(first)} at {target.sites[first].source}", errors.caller()),
                given=given,
                expected=expected,
                fix=fix,
            )
        return Series(target, paths, tuple(p for p in target.sites if p in loop.paths - {*paths}))

    def call(self, arguments: Any, values: dict[Path, Any]) -> tuple[GenerativeFunction, Any, Any]:
        """The step model, the state before the first step, and the inputs of the steps, at
        these arguments of the model and values of all choices before."""
        run, at, loop = self._found(arguments)
        program = run.staged.program
        before = replace(program, outputs=loop.inputs, steps=program.steps[:at])
        old = {path: Given(values[path]) for path in before.paths}
        operands = walk(before, run.operands, run.rule(sums=()), old)[0]
        split = loop.constants + loop.carries
        constants, init, xs = (
            operands[: loop.constants],
            operands[loop.constants : split],
            operands[split:],
        )
        return GenerativeFunction(_OneStep(constants, loop), name="step"), init, self.in_order(xs)

    def log_rest(self, arguments: Any, values: dict[Path, Any]) -> jax.Array:
        """The log density of all that the model scores outside of the steps; the same for all
        values of the series."""
        run, at, loop = self._found(arguments)
        program = run.staged.program
        old = {path: Given(value) for path, value in values.items()}
        alone = replace(program, inputs=loop.inputs, outputs=loop.outputs, steps=(loop,))

        def unscored(*operands: Any) -> list:
            return walk(alone, operands, run.rule(sums=()), old)[0]

        instead = Step(loop.inputs, loop.outputs, unscored)
        steps = (*program.steps[:at], instead, *program.steps[at + 1 :])
        rest = replace(program, steps=steps)
        return zero() + walk(rest, run.operands, run.rule(sums=("weight",)), old)[2].get(
            "weight", 0.0
        )

    def _found(self, arguments: Any) -> tuple[Any, int, Loop]:
        run = self.target.model._prepare((arguments,), {})
        at = _position(run.staged.program, self.paths)
        loop = run.staged.program.steps[at]
        assert isinstance(loop, Loop)
        return run, at, loop

    def in_order(self, rows: Any) -> Any:
        """Rows from the order of the trace to that of time, and back."""
        program = self.target.model._prepare(self.target.args, {}).staged.program
        loop = program.steps[_position(program, self.paths)]
        assert isinstance(loop, Loop)
        return jax.tree.map(lambda leaf: leaf[::-1], rows) if loop.reverse else rows


@partial(jax.tree_util.register_dataclass, data_fields=["constants"], meta_fields=["loop"])
@dataclass(frozen=True, eq=False)
class _OneStep:
    """One iteration of a loop: `(state, x) -> (state, None)`, both lists of arrays."""

    constants: list
    loop: Loop

    def __call__(self, state: list, x: list) -> tuple[list, None]:
        outs = walk(self.loop.body, [*self.constants, *state, *x], Again(), {})[0]
        return outs[: self.loop.carries], None


class Again(Rule):
    """Make the choices and the factors of a program part of another."""

    handles = frozenset({CHOICE, FACTOR})

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            factor_p.bind(args[0], source=step.source)
            return [], {}, {}
        assert isinstance(step, Choice)
        return [again(step, args)], {}, {}


def again(step: Choice, args: list) -> jax.Array:
    """A choice of one program made in another, at the same address."""
    spec = step.spec
    (value,) = sample_p.bind(
        *args,
        tree=spec.tree,
        shape=spec.shape,
        dtype=spec.dtype,
        kind=spec.kind,
        support=spec.support,
        address=step.path,
        source=step.source,
    )
    return value


def _position(program: Program, paths: tuple[Path, ...]) -> int:
    """Which step of the program makes the first of the choices."""
    return next(i for i, step in enumerate(program.steps) if paths[0] in step.paths)


def _fault(
    program: Program, paths: tuple[Path, ...], target: Target
) -> tuple[str, str, str] | None:
    """Why choices are no series, what was expected, and what to do."""
    loop = program.steps[_position(program, paths)]
    outside = [path for path in paths if path not in loop.paths]
    if outside or not isinstance(loop, Loop):
        return (
            f"also {errors.show(outside[0])}" if outside else "choices that no scan makes",
            "choices made by one lax.scan (or ppl.scan) of the model, not inside other loops",
            'sample("states", scan(step)(init, xs)), and name "states"',
        )
    if DRAW in program.effects:
        return (
            "a model that draws without addresses, so that its density is only estimated",
            "a model all of whose randomness has addresses",
            "give the draws addresses",
        )
    for step in cut(program, frozenset(), lambda path: path in paths).program.steps:
        scored = FACTOR in step.effects or cost(replace(program, steps=(step,)))
        if paths[0] not in step.paths and scored:
            place = "; ".join(errors.show(p) for p in sorted(step.paths)) or "a factor"
            source = target.sites[min(step.paths)].source if step.paths else step.source
            return (
                f"outside of the scan, {place} at {source} depends on them",
                "all that depends on a state inside the step that makes it, or later steps",
                "observe the data in the step",
            )
    others = presence_varies(program, lambda path: path in paths) - {*paths}
    if others:
        return (
            f"a branch in which {errors.show(min(others))} is made or not, by their values",
            "choices that only change densities of others",
            "move the others along: name an address above all of them",
        )
    return None
