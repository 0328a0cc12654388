"""Which choices each value of a program depends on, and by which of their elements.

A *symbol* stands for the score of one draw. Inside a loop it is that of the current iteration,
and its `past` that of the iterations before, summed; what a loop reads row by row of a draw
made outside is a `slice`. The *flow* of a value says for each symbol which axes of the value
are axes of the draw: element n of the value then depends on element n of the draw alone, or,
after a loop, on the elements up to the n-th.

Source: Schulman et al., Gradient estimation using stochastic computation graphs (NeurIPS 2015),
whose influence relation this is, refined by element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import distributions
from .axes import pairs_of
from .nodes import (
    BranchNode,
    DrawNode,
    Graph,
    LoopNode,
    Node,
    Operation,
    RematNode,
    elements,
    levels,
)

NOW, UP_TO, FROM = "now", "up to", "from"
"""Element n depends on element n, on those up to it, or on those from it on."""


@dataclass(frozen=True, order=True)
class Symbol:
    """The score of draw number `draw`; `steps` lead from it to what it is inside loops.

    A step is `("slice", loop, axis, relation)` or `("past", loop)`.
    """

    draw: int
    steps: tuple[tuple, ...] = ()

    def sliced(self, loop: int, axis: int, relation: str) -> Symbol:
        return Symbol(self.draw, (*self.steps, ("slice", loop, axis, relation)))

    def past(self, loop: int) -> Symbol:
        return Symbol(self.draw, (*self.steps, ("past", loop)))


Pair = tuple[int, int, str]
"""An axis of a value, the axis of the draw that it is, and how."""
Flow = Mapping[Symbol, frozenset[Pair]]
NOTHING: Flow = {}

_COPIES = frozenset({"broadcast_in_dim", "convert_element_type"})


def both(flows: Sequence[Flow]) -> Flow:
    """Of a value that is made of others: all symbols, by the elements that all agree on."""
    joined: dict[Symbol, frozenset[Pair]] = {}
    for flow in flows:
        for symbol, pairs in flow.items():
            joined[symbol] = _agreed(joined[symbol], pairs) if symbol in joined else pairs
    return _dominated(_whole(joined))


def _whole(flow: dict[Symbol, frozenset[Pair]]) -> dict[Symbol, frozenset[Pair]]:
    """With the whole of each draw that a loop reads in two ways, whose slices have elements in
    common: a row and the sum of those up to it, a row and a column."""
    ways: dict[tuple[Symbol, int], set[tuple]] = {}
    for symbol in flow:
        for i, step in enumerate(symbol.steps):
            if step[0] == "slice":
                ways.setdefault((Symbol(symbol.draw, symbol.steps[:i]), step[1]), set()).add(step)
    return flow | {symbol: frozenset() for (symbol, _), found in ways.items() if len(found) > 1}


def _agreed(one: frozenset[Pair], other: frozenset[Pair]) -> frozenset[Pair]:
    relations = {(axis, element): relation for axis, element, relation in other}
    found = []
    for axis, element, relation in one:
        its = relations.get((axis, element))
        if its is None or {its, relation} == {UP_TO, FROM}:
            continue
        found.append((axis, element, relation if its == NOW else its))
    return frozenset(found)


def _dominated(flow: dict[Symbol, frozenset[Pair]]) -> Flow:
    """Without the slices of a draw that the value depends on as a whole."""
    whole = {s for s in flow if any(s != t and t.steps[: len(s.steps)] == s.steps and
             t.draw == s.draw and t.steps[len(s.steps)][0] == "slice" for t in flow)}  # fmt: skip
    if not whole:
        return flow
    kept = {}
    for symbol, pairs in flow.items():
        under = [s for s in whole if s != symbol and s.draw == symbol.draw
                 and symbol.steps[: len(s.steps)] == s.steps
                 and symbol.steps[len(s.steps)][0] == "slice"]  # fmt: skip
        if not under:
            kept[symbol] = frozenset() if symbol in whole else pairs
    return kept


def moved(flow: Flow, axes: Mapping[int, int]) -> Flow:
    """The flow of a result one of whose operands has `flow`, its axes becoming `axes`."""
    return {
        symbol: frozenset((axes[a], e, r) for a, e, r in pairs if a in axes)
        for symbol, pairs in flow.items()
    }


@dataclass(frozen=True)
class Known:
    """What is known of the values of a program.

    Attributes:
      flows: of each slot that depends on a choice, how.
      fills: of slots that are one known number everywhere, the number.
    """

    flows: dict[int, Flow]
    fills: dict[int, float] = field(default_factory=dict)

    def __getitem__(self, slot: int) -> Flow:
        return self.flows.get(slot, NOTHING)


def flows_of(graph: Graph, sources: frozenset[int]) -> Known:
    """The flows of all slots; `sources` are the numbers of the draws that have symbols."""
    known = Known({})
    flows_through(graph, [NOTHING] * len(graph.inputs), sources, known)
    return known


def flows_through(
    graph: Graph, given: Sequence[Flow], sources: frozenset[int], known: Known
) -> list[Flow]:
    known.flows.update(zip(graph.inputs, given, strict=True))
    numbers = {slot: v for slot, v in graph.constants.items() if isinstance(v, float | int)}
    known.fills.update(numbers)
    for node in graph.nodes:
        outs = _of_node(node, [known[slot] for slot in node.inputs], graph, sources, known)
        known.flows.update(zip(node.outputs, outs, strict=True))
    return [known[slot] for slot in graph.outputs]


def _of_node(
    node: Node, given: list[Flow], graph: Graph, sources: frozenset[int], known: Known
) -> list[Flow]:
    if isinstance(node, Operation):
        if node.name in _COPIES and node.inputs[0] in known.fills:
            known.fills[node.outputs[0]] = known.fills[node.inputs[0]]
        if not any(given):
            return [NOTHING] * len(node.outputs)
        operands = [graph.avals[slot] for slot in node.inputs]
        results = [graph.avals[slot] for slot in node.outputs]
        rows = pairs_of(node.name, node.params, operands, results)
        return [both([moved(f, p) for f, p in zip(given, row, strict=True)]) for row in rows]
    if isinstance(node, DrawNode):
        return [_of_draw(node, given, graph, sources)]
    if isinstance(node, RematNode):
        return flows_through(node.body, given, sources, known)
    if isinstance(node, BranchNode):
        each = [flows_through(branch, given[1:], sources, known) for branch in node.branches]
        index = moved(given[0], {})
        return [both([index, *same]) for same in zip(*each, strict=True)]
    assert isinstance(node, LoopNode)
    return _of_loop(node, given, sources, known)


# -- draws ----------------------------------------------------------------------


def parameter_axes(node: DrawNode, i: int, rank: int) -> dict[int, int]:
    """The axes of the value that the axes of parameter `i`, an array of `rank`, become."""
    spec = node.spec
    outer = levels(node)
    axes, place = {}, 0
    for j, (_, mapped) in enumerate(reversed(spec.levels)):
        if mapped[i] is not None:
            axes[place] = j
            place += 1
    inside = len(elements(node)) - outer
    inner = rank - place
    last = _event_of(spec, i)
    if last is not None:
        for k in range(inner - last):
            at = inside - (inner - last) + k  # broadcasting aligns to the right
            if at >= 0:
                axes[place + k] = outer + at
    return axes


def _event_of(spec: Any, i: int) -> int | None:
    """How many last axes of a parameter are of one element's; None if it is not known."""
    if spec.kind in distributions.SCALAR_PARAMETERS:
        return 0
    if spec.kind in ("CategoricalProbs", "CategoricalLogits"):
        return 1
    return None


def _of_draw(node: DrawNode, given: list[Flow], graph: Graph, sources: frozenset[int]) -> Flow:
    shape = graph.avals[node.outputs[0]].shape
    flows = []
    for i, (flow, slot) in enumerate(zip(given, node.inputs, strict=True)):
        operand = graph.avals[slot].shape
        axes = parameter_axes(node, i, len(operand))
        flows.append(moved(flow, {a: o for a, o in axes.items() if operand[a] == shape[o] != 1}))
    if node.number in sources:
        own = frozenset((axis, axis, NOW) for axis in range(len(elements(node))))
        flows.append({Symbol(node.number): own})
    return both(flows)


# -- loops ------------------------------------------------------------------------


def into_loop(flow: Flow, loop: int) -> Flow:
    """The flow of one row of a value that a loop reads row by row."""
    found: dict[Symbol, frozenset[Pair]] = {}
    for symbol, pairs in flow.items():
        first = [(e, r) for a, e, r in pairs if a == 0]
        rest = [(a - 1, e, r) for a, e, r in pairs if a > 0]
        if first:
            ((element, relation),) = first
            symbol = symbol.sliced(loop, element, relation)
            rest = [(a, e - (e > element), r) for a, e, r in rest]
        found[symbol] = frozenset(rest)
    return found


def _is_of(symbol: Symbol, loop: int, born: frozenset[int]) -> bool:
    """Whether a symbol is of the current iteration of a loop."""
    if symbol.steps and symbol.steps[-1] == ("past", loop):
        return False
    return symbol.draw in born or any(s[0] == "slice" and s[1] == loop for s in symbol.steps)


def carried(flow: Flow, loop: int, born: frozenset[int]) -> Flow:
    """The flow at the start of an iteration of what has `flow` at the end of one."""
    pasts = [{(s.past(loop) if _is_of(s, loop, born) else s): pairs} for s, pairs in flow.items()]
    return both(pasts)


def out_of_loop(flow: Flow, loop: LoopNode, born: frozenset[int], stacked: bool) -> Flow:
    """The flow after a loop of a carry, or of what its iterations have put out."""
    parts = []
    for symbol, pairs in flow.items():
        past = bool(symbol.steps) and symbol.steps[-1] == ("past", loop.number)
        base = Symbol(symbol.draw, symbol.steps[:-1]) if past else symbol
        grown = 1 if stacked else 0
        if not (past or _is_of(symbol, loop.number, born)):
            parts.append({symbol: frozenset((a + grown, e, r) for a, e, r in pairs)})
            continue
        element, relation, outer = 0, NOW, base
        if base.steps and base.steps[-1][0] == "slice" and base.steps[-1][1] == loop.number:
            _, _, element, relation = base.steps[-1]
            outer = Symbol(base.draw, base.steps[:-1])
        rest = {(a + grown, e + (e >= element), r) for a, e, r in pairs}
        along = FROM if loop.reverse else UP_TO
        if stacked and not (past and relation not in (NOW, along)):
            rest.add((0, element, along if past else relation))
        parts.append({outer: frozenset(rest)})
    return both(parts)


def _of_loop(
    node: LoopNode, given: list[Flow], sources: frozenset[int], known: Known
) -> list[Flow]:
    split = node.constants + node.carries
    constants, carry = given[: node.constants], given[node.constants : split]
    rows = [into_loop(flow, node.number) for flow in given[split:]]
    born = frozenset(draw.number for draw in node.body.draws())
    while True:
        outs = flows_through(node.body, [*constants, *carry, *rows], sources, known)
        grown = [
            both([a, carried(b, node.number, born)])
            for a, b in zip(carry, outs[: node.carries], strict=True)
        ]
        if grown == carry:
            break
        carry = grown
    return [
        *(out_of_loop(flow, node, born, False) for flow in carry),
        *(out_of_loop(flow, node, born, True) for flow in outs[node.carries :]),
    ]
