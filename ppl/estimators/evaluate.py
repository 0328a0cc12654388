"""Runs a graph, each draw by its strategy, and gives every term the scores of its choices.

Of a slot there can be the number, with the lanes of the choices that it depends on, and the
part, whose lanes are summed and whose terms have their scores (`ppl.estimators.needs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from .blocks import Plan, Scope, State, results
from .branches import branch
from .cases import Numbers
from .lanes import Value
from .loops import loop
from .needs import passes
from .nodes import BranchNode, DrawNode, Graph, LoopNode, Node, Operation, RematNode
from .scores import credited


def run(
    graph: Graph, numbers: Sequence[Value | None], parts: Sequence[Any], scope: Scope, plan: Plan
) -> State:
    """Evaluate `graph` on the numbers and the parts of its inputs (None where not needed)."""
    constants = {slot: Value(v) for slot, v in graph.constants.items()}
    state = State(plan, Numbers(plan.known, graph.avals, constants, plan.parted), {})
    for slot, number, part in zip(graph.inputs, numbers, parts, strict=True):
        if number is not None:
            state.numbers[slot] = number
        if part is not None:
            state.parts[slot] = part
    for node in graph.nodes:
        wants = plan.wants(node.outputs)
        if any(number or part for number, part in wants):
            _step(node, graph, wants, state, scope)
    return state


def _step(
    node: Node, graph: Graph, wants: Sequence[tuple[bool, bool]], state: State, scope: Scope
) -> None:
    plan = state.plan
    if isinstance(node, LoopNode):
        loop(node, state, scope)
        return
    if isinstance(node, RematNode):
        _remat(node, wants, state, scope)
        return
    part = any(part for _, part in wants)
    through = part and passes(node, graph, plan.known, plan.needs)
    if isinstance(node, BranchNode):
        branch(node, through, state, scope)
    elif isinstance(node, DrawNode):
        (made,) = node.outputs
        state.numbers[made] = plan.make(node, [state.number(slot) for slot in node.inputs], scope)
        if node.address:
            scope.drawn[node.address] = state.number(made)
    elif not through or any(number for number, _ in wants):
        assert isinstance(node, Operation)
        state.numbers.run(node)
    if part and not through:
        for slot in node.outputs:
            if slot in plan.needs.part:
                flow, rank = plan.known[slot], len(graph.avals[slot].shape)
                state.parts[slot] = credited(state.number(slot), flow, scope, rank)
    elif part and isinstance(node, Operation):
        outs = node.evaluate(*(state.part(slot) for slot in node.inputs))
        state.parts.update(zip(node.outputs, outs, strict=True))


def _remat(node: RematNode, wants: Sequence[tuple[bool, bool]], state: State, scope: Scope) -> None:
    def body(numbers: list, parts: list):
        inner = Scope(scope)
        found = run(node.body, numbers, parts, inner, state.plan)
        return results(found, node.body.outputs, wants, inner)

    again = jax.checkpoint(body, policy=node.policy, prevent_cse=node.prevent_cse)
    again(*state.hand(node.body.inputs, node.inputs)).take(node.outputs, state, scope)
