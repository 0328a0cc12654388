"""What an estimate needs of each value: the number itself, or the part of a sum with its scores.

Followed back from the results. Through a linear operation a result's part comes from the
operands' parts; where an operation is not linear a part begins, a *term*, which is made of
numbers. So a number that only goes into a sum is computed once, with its scores, and what
nobody reads is not computed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .flow import Flow, Known
from .linear import is_linear
from .nodes import BranchNode, Graph, LoopNode, Node, Operation, RematNode, graphs_of


@dataclass(frozen=True)
class Needs:
    """Slots whose number is needed, and slots whose part with its scores is.

    `sums` are slots whose parts are made from the parts of others.
    """

    number: set[int] = field(default_factory=set)
    part: set[int] = field(default_factory=set)
    sums: set[int] = field(default_factory=set)


def needs_of(graph: Graph, known: Known) -> Needs:
    """What the results of a program need."""
    needs = Needs()
    _find_sums(graph, known, needs)
    for slot in graph.outputs:
        (needs.part if known[slot] else needs.number).add(slot)
    _back(graph, known, needs)
    return needs


def passes(node: Node, graph: Graph, known: Known, needs: Needs) -> bool:
    """Whether the parts of the node's results are made from its operands' parts."""
    random = [bool(known[slot]) for slot in node.inputs]
    if isinstance(node, Operation):
        slots = (*node.inputs, *node.outputs)
        linear = is_linear(node, random, [graph.avals[slot].dtype for slot in slots])
        return linear and not _begins_late(node, graph, known, needs)
    if isinstance(node, BranchNode):
        return not random[0]
    return isinstance(node, (LoopNode, RematNode))


def _begins_late(node: Operation, graph: Graph, known: Known, needs: Needs) -> bool:
    """Whether a term may as well begin at the result: no operand depends on less than it.

    Then fewer and smaller terms are better; but not where the operation is more than a sum,
    which would be done for all outcomes of a choice.
    """
    if node.name not in _LATE:
        return False
    own = [_credit(known[slot]) for slot in node.outputs]
    for slot in node.inputs[node.name == "select_n" :]:
        if known[slot]:
            if slot in needs.sums or any(_credit(known[slot]) != credit for credit in own):
                return False
        elif node.name not in _SCALED and known.fills.get(slot) not in _NO_MATTER:
            return False
    sizes = [graph.avals[slot].size for slot in node.inputs if known[slot]]
    return all(graph.avals[slot].size <= max(sizes) for slot in node.outputs)


_SCALED = frozenset({"mul", "div", "neg", "reduce_sum", "reshape", "squeeze", "transpose"})
_LATE = _SCALED | {"add", "add_any", "sub", "select_n"}
_NO_MATTER = (0.0, float("inf"), -float("inf"))
"""A number that takes the place of a term: its mean is known, or there is none."""


def _find_sums(graph: Graph, known: Known, needs: Needs) -> None:
    """Find the slots whose parts are made from those of others."""
    needs.sums.update(slot for slot in graph.inputs if known[slot])
    for node in graph.nodes:
        for body in graphs_of(node):
            _find_sums(body, known, needs)
        if any(known[slot] for slot in node.outputs) and passes(node, graph, known, needs):
            needs.sums.update(node.outputs)


def _credit(flow: Flow) -> dict:
    """What a term with this flow is multiplied by."""
    return {s: frozenset((element, how) for _, element, how in pairs) for s, pairs in flow.items()}


def _back(graph: Graph, known: Known, needs: Needs) -> None:
    for node in reversed(graph.nodes):
        number = [slot in needs.number for slot in node.outputs]
        part = [slot in needs.part for slot in node.outputs]
        if not any(number) and not any(part):
            continue
        if isinstance(node, LoopNode):
            _of_loop(node, number, part, known, needs)
        elif isinstance(node, RematNode):
            _of_body(node.body, node.inputs, number, part, known, needs)
        elif isinstance(node, BranchNode):
            needs.number.add(node.inputs[0])
            through = passes(node, graph, known, needs)
            for branch in node.branches:
                whole = number if through else [a or b for a, b in zip(number, part, strict=True)]
                parts = part if through else [False] * len(part)
                _of_body(branch, node.inputs[1:], whole, parts, known, needs)
        elif any(part) and passes(node, graph, known, needs):
            for slot in node.inputs:
                (needs.part if known[slot] else needs.number).add(slot)
            if any(number):
                needs.number.update(node.inputs)
        else:
            needs.number.update(node.inputs)


def _want(body: Graph, number: Sequence[bool], part: Sequence[bool], known: Known, needs: Needs):
    """Hand what is needed of a body's results to the body."""
    for slot, whole, some in zip(body.outputs, number, part, strict=True):
        if whole or (some and not known[slot]):
            needs.number.add(slot)
        if some and known[slot]:
            needs.part.add(slot)
    _back(body, known, needs)


def _of_body(
    body: Graph,
    operands: Sequence[int],
    number: Sequence[bool],
    part: Sequence[bool],
    known: Known,
    needs: Needs,
) -> None:
    _want(body, number, part, known, needs)
    _hand_out(body.inputs, operands, needs)


def _hand_out(inside: Sequence[int], outside: Sequence[int], needs: Needs) -> None:
    for inner, outer in zip(inside, outside, strict=True):
        if inner in needs.number:
            needs.number.add(outer)
        if inner in needs.part:
            needs.part.add(outer)


def _of_loop(
    node: LoopNode, number: list[bool], part: list[bool], known: Known, needs: Needs
) -> None:
    first, carries = node.constants, node.carries
    number, part = list(number), list(part)
    while True:
        _want(node.body, number, part, known, needs)
        before = list(number), list(part)
        for i, slot in enumerate(node.body.inputs[first : first + carries]):
            number[i] = number[i] or slot in needs.number
            part[i] = part[i] or slot in needs.part
        if (number, part) == before:
            break
    _hand_out(node.body.inputs, node.inputs, needs)
    for i, slot in enumerate(node.inputs[first : first + carries]):
        if number[i]:
            needs.number.add(slot)
        if part[i]:
            (needs.part if known[slot] else needs.number).add(slot)
