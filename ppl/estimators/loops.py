"""Loops stay loops: scores of the iterations before are summed on the way.

What an iteration depends on of those before has the sum of their scores; of what is read row
by row, the score of the row. After the loop the scores of all iterations are stacked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .blocks import Results, Scope, State, results
from .flow import Known, Symbol
from .lanes import Lane, Value, filled, rows_first, rows_inside
from .nodes import Graph, LoopNode
from .scores import Score, rows_of, with_array


@partial(jax.tree_util.register_dataclass, data_fields=["numbers", "parts", "past"], meta_fields=[])
@dataclass(frozen=True)
class _Carry:
    """What one iteration hands to the next: numbers, parts, summed scores."""

    numbers: list[Value | None]
    parts: list[Any]
    past: dict[Symbol, Score]


def loop(node: LoopNode, state: State, scope: Scope) -> None:
    """Run a loop, and make known what it leaves."""
    turn = _Turn(node, state, scope)
    carry = turn.settled()

    def step(carry: _Carry, row: Any) -> tuple[_Carry, Results]:
        new, out = turn(carry, row)
        return _cast(new, carry), out

    how = {"length": node.length, "reverse": node.reverse, "unroll": node.unroll}
    last, stacked = lax.scan(step, carry, turn.rows, **how)
    _after(node, last, stacked, state, scope)


def _after(node: LoopNode, last: _Carry, out: Results, state: State, scope: Scope) -> None:
    numbers = [None if v is None else rows_inside(v.array, v.lanes) for v in out.numbers]
    scores = {
        symbol: replace(score, array=rows_inside(score.array.array, score.array.lanes))
        for symbol, score in out.scores.items()
        if score.own is None
    }
    controls = {draw: jnp.sum(amount, 0) for draw, amount in out.controls.items()}
    found = Results([*last.numbers, *numbers], [*last.parts, *out.parts], scores, controls)
    found.take(node.outputs, state, scope)


@dataclass
class _Turn:
    """One iteration, `turn(carry, row)`, and what it is called with."""

    node: LoopNode
    state: State
    scope: Scope
    rows: Any = field(init=False)

    def __post_init__(self) -> None:
        node, plan = self.node, self.state.plan
        first, carries = node.constants, node.carries
        inside, outside = node.body.inputs, node.inputs
        self.fixed = self.state.hand(inside[:first], outside[:first])
        split = first + carries
        self.wants = [
            (a or c, b or d)
            for (a, b), (c, d) in zip(
                plan.wants(inside[first:split]), plan.wants(node.outputs[:carries]), strict=True
            )
        ]
        self.puts_out = plan.wants(node.outputs[carries:])
        self.read, parts = self.state.hand(inside[split:], outside[split:])
        used = symbols(node.body, plan.known)
        here = node.number
        self.bases = sorted(
            {Symbol(s.draw, s.steps[:-1]) for s in used if s.steps[-1:] == (("past", here),)},
            key=lambda s: (s.draw, str(s.steps)),
        )
        sliced = {s for s in {*used, *self.bases} if s.steps and s.steps[-1][:2] == ("slice", here)}
        self.slices = {}
        for symbol in sorted(sliced, key=lambda s: (s.draw, str(s.steps))):
            _, _, axis, relation = symbol.steps[-1]
            score = self.scope.score(Symbol(symbol.draw, symbol.steps[:-1]))
            self.slices[symbol] = score, rows_of(score, axis, relation)
        self.rows = (
            [None if v is None else rows_first(v) for v in self.read],
            parts,
            [arrays for _, arrays in self.slices.values()],
        )

    def start(self, lanes: list[tuple[Lane, ...]], past: dict[Symbol, Score]) -> _Carry:
        """The first carry, numbers with these lanes, scores summed over nothing."""
        first = self.node.inputs[self.node.constants :]
        numbers, parts = [], []
        for slot, ls, (number, part) in zip(first, lanes, self.wants, strict=False):
            value = self.state.number(slot) if number else None
            numbers.append(None if value is None else filled(_array(value), ls))
            parts.append(jnp.asarray(self.state.part(slot)) if part else None)
        zeros = {
            base: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), score)
            for base, score in past.items()
        }
        return _Carry(numbers, parts, zeros)

    def settled(self) -> _Carry:
        """The first carry, with the lanes that carries have after any number of iterations."""
        slots = self.node.inputs[self.node.constants :][: self.node.carries]
        lanes = [
            self.state.numbers[slot].lanes if number else ()
            for slot, (number, _) in zip(slots, self.wants, strict=True)
        ]
        past = {base: Score(Value(jnp.zeros(()))) for base in self.bases}
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.rows)
        while True:
            carry = self.start(lanes, past)
            new, _ = jax.eval_shape(self.__call__, carry, like)
            grown = [
                () if v is None else tuple(sorted({*ls, *v.lanes}))
                for ls, v in zip(lanes, new.numbers, strict=True)
            ]
            if grown == lanes and _shapes(new.past) == _shapes(past):
                return carry
            lanes, past = grown, new.past

    def __call__(self, carry: _Carry, row: Any) -> tuple[_Carry, Results]:
        node, inner, here = self.node, Scope(self.scope), self.node.number
        numbers, parts, slices = row
        for (symbol, (score, _)), arrays in zip(self.slices.items(), slices, strict=True):
            inner.scores[symbol] = with_array(score, *arrays)
        for base, score in carry.past.items():
            inner.scores[base.past(here)] = score
        given = set(inner.scores)
        read = [
            None if v is None else Value(array, v.lanes)
            for v, array in zip(self.read, numbers, strict=True)
        ]
        found = self.state.plan.run(
            node.body,
            [*self.fixed[0], *carry.numbers, *read],
            [*self.fixed[1], *carry.parts, *parts],
            inner,
            self.state.plan,
        )
        made = results(found, node.body.outputs, [*self.wants, *self.puts_out], inner)
        past = {}
        for base, score in carry.past.items():
            more = made.scores[base] if base in made.scores else inner.score(base)
            log = None if more.log is None else _added(score.log, more.log)
            past[base] = replace(more, array=_added(score.array, more.array), log=log)
        born = {symbol: score for symbol, score in made.scores.items() if symbol not in given}
        n = node.carries
        return (
            _Carry(made.numbers[:n], made.parts[:n], past),
            Results(made.numbers[n:], made.parts[n:], born, made.controls),
        )


def _cast(new: _Carry, old: _Carry) -> _Carry:
    """The new carry with the lanes and dtypes of the old one."""
    numbers = [
        None if value is None or like is None else filled(value, like.lanes)
        for value, like in zip(new.numbers, old.numbers, strict=True)
    ]
    return jax.tree.map(
        lambda x, like: lax.convert_element_type(x, like.dtype),
        replace(new, numbers=numbers),
        old,
    )


def _added(total: Value | None, more: Value) -> Value:
    """A sum, for all outcomes that either depends on."""
    if total is None:
        return more
    lanes = tuple(sorted({*total.lanes, *more.lanes}))
    return Value(filled(total, lanes).array + filled(more, lanes).array, lanes)


def _array(value: Value) -> Value:
    return Value(jnp.asarray(value.array), value.lanes)


def _shapes(past: dict[Symbol, Score]) -> dict[Symbol, tuple]:
    return {base: (s.array.lanes, s.array.array.shape) for base, s in past.items()}


def symbols(graph: Graph, known: Known) -> set[Symbol]:
    """All symbols in the flows of a graph's own slots."""
    slots = [*graph.inputs, *(slot for node in graph.nodes for slot in node.outputs)]
    return {symbol for slot in slots for symbol in known[slot]}
