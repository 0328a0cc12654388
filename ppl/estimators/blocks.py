"""What is known while a graph runs: numbers and parts of slots, scores of draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .cases import Numbers
from .flow import Known, Symbol
from .lanes import Value
from .needs import Needs
from .nodes import DrawNode, Graph
from .scores import Score
from .thin import widened


@dataclass(frozen=True)
class Plan:
    """What is known before a graph runs: flows, needs, shapes, the maker of each draw's value.

    With `parted`, other worlds than the one that happens are followed without derivative.
    """

    known: Known
    needs: Needs
    avals: dict[int, Any]
    parted: bool
    make: Callable[[DrawNode, list[Value], Scope], Value]
    run: Callable[[Graph, Sequence[Any], Sequence[Any], Scope, Plan], State]

    def wants(self, slots: Sequence[int]) -> list[tuple[bool, bool]]:
        """Of each slot, whether the number is needed, and whether the part is."""
        return [(slot in self.needs.number, slot in self.needs.part) for slot in slots]


@dataclass
class Scope:
    """Scores, controls and choices of one block; `outer` is the block around it.

    Attributes:
      controls: for each draw the sum of its controls, terms of mean zero whatever the law.
      drawn: the values of the choices that were made, by address.
      products: what terms have been multiplied by, for those that depend on the same choices.
      mark: a number that depends on all that the program is a function of, in the outermost scope.
    """

    outer: Scope | None = None
    scores: dict[Symbol, Score] = field(default_factory=dict)
    controls: dict[int, Any] = field(default_factory=dict)
    drawn: dict[tuple[str, ...], Value] = field(default_factory=dict)
    products: dict[tuple, Any] = field(default_factory=dict)
    mark: Any = 0.0

    @property
    def whole(self) -> Any:
        """The mark of the outermost scope."""
        return self.mark if self.outer is None else self.outer.whole

    def score(self, symbol: Symbol) -> Score:
        if symbol in self.scores:
            return self.scores[symbol]
        assert self.outer is not None, symbol
        return self.outer.score(symbol)

    def control(self, draw: int, amount: Any) -> None:
        self.controls[draw] = self.controls[draw] + amount if draw in self.controls else amount

    def before(self) -> dict[tuple[str, ...], Value]:
        """The values of the choices made so far, here and around."""
        return {**(self.outer.before() if self.outer else {}), **self.drawn}


@dataclass
class State:
    """What has been computed in one block: numbers by slot, and parts by slot."""

    plan: Plan
    numbers: Numbers
    parts: dict[int, Any]

    def number(self, slot: int) -> Value:
        """The number of a slot, with all of its axes whole (`ppl.estimators.thin`)."""
        return widened(self.numbers[slot], self.plan.avals[slot])

    def part(self, slot: int) -> Any:
        """The part of a slot; of one without randomness, its number."""
        if self.plan.known[slot] and slot in self.parts:
            return self.parts[slot]
        return self.number(slot).array

    def hand(self, inside: Sequence[int], outside: Sequence[int]) -> tuple[list, list]:
        """The numbers and the parts that a body needs of what it reads; None for the others."""
        wants = self.plan.wants(inside)
        numbers = [
            self.number(slot) if number else None
            for slot, (number, _) in zip(outside, wants, strict=True)
        ]
        parts = [
            jnp.asarray(self.part(slot)) if part else None
            for slot, (_, part) in zip(outside, wants, strict=True)
        ]
        return numbers, parts


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["numbers", "parts", "scores", "controls"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Results:
    """What a body hands out: numbers and parts of its outputs, scores, controls."""

    numbers: list[Value | None]
    parts: list[Any]
    scores: dict[Symbol, Score]
    controls: dict[int, Any]

    def take(self, slots: Sequence[int], state: State, scope: Scope) -> None:
        """Make them known outside."""
        for slot, number, part in zip(slots, self.numbers, self.parts, strict=True):
            if number is not None:
                state.numbers[slot] = number
            if part is not None:
                state.parts[slot] = part
        scope.scores.update(self.scores)
        for draw, amount in self.controls.items():
            scope.control(draw, amount)


def results(
    state: State, slots: Sequence[int], wants: Sequence[tuple[bool, bool]], scope: Scope
) -> Results:
    """The results of a body that has run."""
    numbers: list[Value | None] = []
    parts: list[Any] = []
    for slot, (number, part) in zip(slots, wants, strict=True):
        value = state.number(slot) if number else None
        numbers.append(None if value is None else Value(jnp.asarray(value.array), value.lanes))
        parts.append(jnp.asarray(state.part(slot)) if part else None)
    return Results(numbers, parts, dict(scope.scores), dict(scope.controls))
