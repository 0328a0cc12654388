"""A walk in which some values are symbols: functions of what is summed out of a program.

What a symbol is, how code acts on it, and what a choice made from one is, is said by an
algebra; there is one for Gaussian choices and one for finite ones. Choices that have nothing
to do with symbols are made again, so that a walk is part of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
from jax import lax

from ppl import errors
from ppl.effects import factor_p
from ppl.program import (
    CHOICE,
    FACTOR,
    Branch,
    Choice,
    Draw,
    Factor,
    Path,
    Program,
    Pure,
    Remat,
    Step,
)
from ppl.sites import Site
from ppl.walk import construct

from ..targets.series import Again, again


class Algebra(Protocol):
    """Symbols, and the law of what they are functions of.

    Attributes:
      places: where what is summed out is, by the address of its choice.
      sites: all choices of the program.
      way, expected: how a choice may depend on a symbol, for messages.
    """

    @property
    def places(self) -> Mapping[Path, Any]: ...

    @property
    def sites(self) -> Mapping[Path, Site]: ...

    @property
    def way(self) -> str: ...

    @property
    def expected(self) -> str: ...

    def is_symbol(self, value: Any) -> bool: ...

    def through(self, f: Callable, avals: Sequence[Any], args: list) -> list:
        """The outputs of `f`, a list, at arguments of which some are symbols."""
        ...

    def choice(self, step: Choice, args: list, law: Any) -> tuple[Any, Any]:
        """The value of a choice that is summed out, or made from symbols; and the law given it."""
        ...

    def factor(self, step: Factor, args: list, law: Any) -> Any:
        """Score by a symbol; the law after."""
        ...

    def kind_of(self, value: Any) -> Any: ...

    def kinds(self, program: Program, given: list) -> list:
        """The kinds of a program's outputs, of which the larger of two takes both."""
        ...

    def of_kind(self, value: Any, kind: Any, law: Any) -> Any: ...


def run(program: Program, operands: Sequence[Any], law: Any, algebra: Algebra) -> tuple[list, Any]:
    """The outputs of a program, and the law of what is summed out given all that it made."""
    env: dict[int, Any] = dict(program.constants)
    env.update(zip(program.inputs, operands, strict=True))
    for step in program.steps:
        args = [env[i] for i in step.inputs]
        symbols = any(map(algebra.is_symbol, args))
        if not symbols and not step.paths & algebra.places.keys():
            outs = _as_it_is(step, args)
        elif isinstance(step, Pure):
            avals = [aval_of(program, i) for i in step.inputs]
            outs = algebra.through(step.evaluate, avals, args)
        elif isinstance(step, Choice):
            value, law = algebra.choice(step, args, law)
            outs = [value]
        elif isinstance(step, Factor):
            outs, law = [], algebra.factor(step, args, law)
        elif isinstance(step, Branch):
            outs, law = _branch(step, args, law, algebra)
        elif isinstance(step, Remat):
            outs, law = run(step.body, args, law, algebra)
        else:
            raise refused(step, algebra)
        env.update(zip(step.outputs, outs, strict=True))
    return [env[i] for i in program.outputs], law


def aval_of(program: Program, slot: int) -> Any:
    aval = program.avals[slot]
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _as_it_is(step: Step, args: list) -> list:
    """A step that has nothing to do with symbols."""
    if isinstance(step, Choice):
        return [again(step, args)]
    if isinstance(step, Factor):
        factor_p.bind(args[0], source=step.source)
        return []
    random = step.effects & {CHOICE, FACTOR}
    return construct(step, args, Again(), {})[0] if random else step.evaluate(*args)


def _branch(step: Branch, args: list, law: Any, algebra: Algebra) -> tuple[list, Any]:
    index, operands = args[0], args[1:]
    if algebra.is_symbol(index):
        raise refused(step, algebra, "a choice between branches")
    given = [algebra.kind_of(value) for value in operands]
    each = [algebra.kinds(branch, given) for branch in step.branches]
    joint = [max(same) for same in zip(*each, strict=True)]

    def taken(branch: Program) -> Callable:
        def go(operands: list, law: Any) -> tuple[list, Any]:
            outs, law = run(branch, operands, law, algebra)
            return [algebra.of_kind(v, k, law) for v, k in zip(outs, joint, strict=True)], law

        return go

    return lax.switch(index, [taken(branch) for branch in step.branches], operands, law)


_NAMES = {Factor: "A factor", Draw: "A draw", Branch: "A branch"}


class Choices(Protocol):
    """Choices that are summed out, for messages: see `Algebra`."""

    @property
    def places(self) -> Iterable[Path]: ...

    @property
    def sites(self) -> Mapping[Path, Site]: ...

    @property
    def way(self) -> str: ...

    @property
    def expected(self) -> str: ...


def refused(step: Step, algebra: Choices, given: str = "") -> errors.InvalidArgument:
    """The error for a step that symbols cannot go through."""
    names = "; ".join(map(errors.show, sorted(algebra.places)))
    summed = frozenset(algebra.places)
    inside = sorted(step.paths & summed) or sorted(step.paths & algebra.sites.keys())
    path = step.path if isinstance(step, Choice) else inside[0] if inside else None
    first = min(summed)
    shown = f"{errors.show(path)} at {algebra.sites[path].source}" if path else step.source
    what = errors.show(path) if path else _NAMES.get(type(step), "A construct")
    fix = f"leave {names} to the particles, or let this depend on it so"
    if not isinstance(step, (Choice, Draw, Factor, Branch)):
        given = given or f"a {type(step).__name__.lower()}, with it inside or as input"
        fix = "make one choice of an array: dist.Normal(loc, scale) with a loc of shape (k,)"
    if isinstance(step, Factor):
        fix = "make data choices, and observe them by address, instead of observe or factor"
    return errors.InvalidArgument(
        f"{what} does not depend {algebra.way} on {names}, summed out.",
        where=(shown, f"{errors.show(first)} at {algebra.sites[first].source}", errors.caller()),
        given=given or "a score or parameter that depends on it",
        expected=algebra.expected,
        fix=fix,
    )
