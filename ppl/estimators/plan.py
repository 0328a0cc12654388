"""What is decided before an estimate runs: strategies, loops to write out, worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from .. import errors
from .blocks import Plan, Scope
from .evaluate import run
from .flow import NOW, Known, Symbol, flows_of
from .lanes import Value
from .loops import symbols
from .needs import Needs, needs_of, passes
from .nodes import DrawNode, Graph, LoopNode, elements, graph_of, graphs_of
from .scores import credited
from .strategies import Site, Strategy

MOST_TURNS = 64
"""Loops of more iterations are not written out."""


def estimate(jaxpr: Any, leaves: Sequence[Any], strategy: Callable[[DrawNode], Strategy]) -> list:
    """The results of a random program, with derivatives that are estimates of the mean's."""
    prepared = prepare(jaxpr, strategy)
    graph, plan = prepared.graph, prepared.plan
    scope = Scope(mark=_mark([*leaves, *graph.constants.values()]) if plan.parted else 0.0)
    values = [Value(leaf) for leaf in leaves]
    state = run(graph, values, [None] * len(values), scope, plan)
    return [_controlled(slot, state.part(slot), scope, plan) for slot in graph.outputs]


def _mark(inputs: Sequence[Any]) -> Any:
    """A number that moves with each of some arrays, for derivatives to be found by."""
    moving = [x for x in inputs if isinstance(x, jax.core.Tracer) and jnp.size(x)]
    found = [jnp.ravel(x)[0] for x in moving if jnp.issubdtype(x.dtype, jnp.inexact)]
    return sum(found) if found else 0.0


def _controlled(slot: int, result: Any, scope: Scope, plan: Plan) -> Any:
    """A result and the controls of the choices that it depends on."""
    draws = {symbol.draw for symbol in plan.known[slot]}
    for draw, amount in scope.controls.items():
        if draw in draws:
            result = result + amount
    return result


@dataclass(frozen=True)
class Prepared:
    """A graph, and how it runs."""

    graph: Graph
    plan: Plan


def prepare(jaxpr: Any, strategy: Callable[[DrawNode], Strategy]) -> Prepared:
    """Decide what can be decided before a program runs."""
    unrolled: frozenset[int] = frozenset()
    while True:
        graph = graph_of(jaxpr, unrolled)
        chosen = {node.number: strategy(node) for node in graph.draws()}
        known = flows_of(graph, frozenset(n for n, s in chosen.items() if s.scored))
        needs = needs_of(graph, known)
        apart = _apart(graph, known, needs)
        more = _to_write_out(graph, known, needs, chosen, apart)
        if more <= unrolled:
            break
        unrolled |= more
    own, count, orders = {}, 1, set()
    for node in graph.draws():
        start, number = count, node.number
        count += chosen[number].worlds(node, apart.get(number, True))
        own[number] = range(start, count)
        if own[number]:
            orders.add(getattr(chosen[number], "order", None))
    parted = orders == {1}

    def make(node: DrawNode, parameters: list[Value], scope: Scope) -> Value:
        number = node.number
        rest = {s: p for s, p in known[node.outputs[0]].items() if s.draw != number}
        reached = frozenset(w for symbol in rest for w in own[symbol.draw])
        where = apart.get(number, True), own[number].start, count, parted, reached
        site = Site(node, parameters, *where, scope.before)
        made = chosen[number].make(site)
        if not own[number]:
            made = jax.tree.map(site.same_where_not_reached, made, is_leaf=_is_value)
        if made.score is not None:
            scope.scores[Symbol(number)] = made.score
        if made.control is not None:
            rank = len(elements(node))
            inside = {s: frozenset(q for q in p if q[0] < rank) for s, p in rest.items()}
            scope.control(number, credited(made.control, inside, scope, rank).sum())
        return made.value

    return Prepared(graph, Plan(known, needs, graph.avals, parted, make, run))


def _is_value(x: Any) -> bool:
    return isinstance(x, Value)


def _to_write_out(
    graph: Graph,
    known: Known,
    needs: Needs,
    chosen: dict[int, Strategy],
    apart: dict[int, bool],
    draws: dict[int, DrawNode] | None = None,
) -> frozenset[int]:
    """Loops out of whose iterations several values of a choice come side by side; and those that
    read row by row what has one probability for all of its rows together."""
    draws = {d.number: d for d in graph.draws()} if draws is None else draws
    found: set[int] = set()
    for node in graph.nodes:
        for body in graphs_of(node):
            found |= _to_write_out(body, known, needs, chosen, apart, draws)
        if isinstance(node, LoopNode):
            born = {d.number for d in node.body.draws() if chosen[d.number].several}
            leaving = [slot for slot in node.body.outputs if slot in needs.number]
            out = {s.draw for slot in leaving for s in known[slot] if s.draw in born}
            out |= {
                s.draw
                for s in symbols(node.body, known)
                if ("slice", node.number) in [step[:2] for step in s.steps]
                and getattr(chosen[s.draw], "together", False)
                and not apart.get(s.draw, True)
            }
            if out and node.length > MOST_TURNS:
                raise _too_long(node, draws[min(out)])
            if out:
                found.add(node.number)
    return frozenset(found)


def _too_long(node: LoopNode, draw: DrawNode) -> errors.NoStrategy:
    return errors.NoStrategy(
        "Several values of a choice, side by side, would go through the iterations of a long loop.",
        where=draw.place,
        given=f"{node.length} iterations, each of which depends on those before",
        expected=f"at most {MOST_TURNS}; or a strategy with one value, for which loops stay loops",
        fix="reinforce() for this choice, or reparam() if it is continuous",
    )


def _apart(graph: Graph, known: Known, needs: Needs) -> dict[int, bool]:
    """For each draw, whether all terms depend on its elements one by one."""
    shapes = dict(_shapes(graph, {}))
    found: dict[int, bool] = {}
    for slot, around in _terms(graph, known, needs, frozenset()):
        for symbol, pairs in known[slot].items():
            loops, inner = shapes[symbol.draw]
            # of a loop that is over, each iteration has a row
            shape = [length for loop, length in loops.items() if loop not in around] + list(inner)
            apart = True
            for step in symbol.steps:
                apart = apart and step[0] == "slice" and step[3] == NOW
                if step[0] == "slice":
                    shape.pop(step[2])
            here = {element for _, element, relation in pairs if relation == NOW}
            apart = apart and all(e in here for e, size in enumerate(shape) if size > 1)
            found[symbol.draw] = found.get(symbol.draw, True) and apart
    return found


def _shapes(
    graph: Graph, loops: dict[int, int]
) -> Iterator[tuple[int, tuple[dict[int, int], tuple[int, ...]]]]:
    """For each draw the lengths of the loops around it, and the shape of its elements."""
    for node in graph.nodes:
        if isinstance(node, DrawNode):
            yield node.number, (loops, elements(node))
        inside = {**loops, node.number: node.length} if isinstance(node, LoopNode) else loops
        for body in graphs_of(node):
            yield from _shapes(body, inside)


def _terms(
    graph: Graph, known: Known, needs: Needs, around: frozenset[int]
) -> Iterator[tuple[int, frozenset[int]]]:
    """The slots where terms begin, and the loops around each."""
    for node in graph.nodes:
        parts = [slot for slot in node.outputs if slot in needs.part]
        if parts and not passes(node, graph, known, needs):
            yield from ((slot, around) for slot in parts)
        inside = around | {node.number} if isinstance(node, LoopNode) else around
        for body in graphs_of(node):
            yield from _terms(body, known, needs, inside)
