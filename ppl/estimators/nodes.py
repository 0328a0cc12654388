"""The operations of a random program as a graph, one node for each.

Estimators of derivatives need more than the steps of `ppl.program`: which operation reads
which value, inside stretches of plain code too. So calls that only group operations (`jit`)
are spliced in, and what is left is single operations, draws, and the constructs that hold
graphs of their own. Slots are numbered once for all graphs of a program.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from .. import distributions, errors
from ..keys import sizes
from ..program import Spec
from ..staging import evaluator, first_draw, literal, scan_arity, spec_of

_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call"})
_REMAT = frozenset({"checkpoint", "remat", "remat2"})


@dataclass(frozen=True, eq=False)
class Node:
    """Reads slots `inputs`, writes slots `outputs`."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Operation(Node):
    """Code without randomness: a primitive of JAX by its `name`."""

    name: str = ""
    params: dict = field(default_factory=dict, repr=False)
    evaluate: Callable[..., list] = field(default=list, repr=False)


@dataclass(frozen=True, eq=False)
class DrawNode(Node):
    """A draw; `number` is its place in the order of the program."""

    spec: Spec = None  # type: ignore[assignment]
    source: str = ""
    address: tuple[str, ...] = ()
    number: int = 0

    @property
    def place(self) -> str:
        return self.source if self.source.startswith('"') else f"draw at {self.source}"


@dataclass(frozen=True, eq=False)
class LoopNode(Node):
    """`lax.scan`: inputs are constants, carries, then what each iteration reads."""

    body: Graph = None  # type: ignore[assignment]
    constants: int = 0
    carries: int = 0
    length: int = 0
    reverse: bool = False
    unroll: Any = 1
    number: int = 0


@dataclass(frozen=True, eq=False)
class BranchNode(Node):
    """`lax.switch`: the first input is the index."""

    branches: tuple[Graph, ...] = ()


@dataclass(frozen=True, eq=False)
class RematNode(Node):
    """`jax.checkpoint`."""

    body: Graph = None  # type: ignore[assignment]
    policy: Any = None
    prevent_cse: bool = True


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in order; `constants` fill slots before the inputs do."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    constants: dict[int, Any] = field(repr=False)
    avals: dict[int, Any] = field(repr=False)

    def draws(self) -> Iterator[DrawNode]:
        """All draws, at any depth, in the order of the program."""
        for node in self.nodes:
            if isinstance(node, DrawNode):
                yield node
            for body in graphs_of(node):
                yield from body.draws()


def levels(node: DrawNode) -> int:
    """How many axes of a value come from `vmap`s around the draw."""
    return len(node.spec.levels)


def elements(node: DrawNode) -> tuple[int, ...]:
    """The shape of the independent elements of a value: its first axes."""
    inner = distributions.elementwise(node.spec.tree.unflatten(list(node.spec.leaves)))
    return sizes(node.spec) + tuple(inner.batch_shape)


def graphs_of(node: Node) -> tuple[Graph, ...]:
    """The graphs inside a node."""
    if isinstance(node, BranchNode):
        return node.branches
    if isinstance(node, (LoopNode, RematNode)):
        return (node.body,)
    return ()


def graph_of(closed: Any, unrolled: frozenset[int] = frozenset()) -> Graph:
    """The graph of a closed jaxpr; loops whose numbers are in `unrolled` are written out."""
    return _Builder(unrolled).graph(closed)


class _Builder:
    def __init__(self, unrolled: frozenset[int]):
        self.unrolled = unrolled
        self.slots = itertools.count()
        self.draws = itertools.count()
        self.loops = itertools.count()
        self.avals: dict[int, Any] = {}

    def slot(self, aval: Any) -> int:
        number = next(self.slots)
        self.avals[number] = aval
        return number

    def graph(self, closed: Any) -> Graph:
        jaxpr = getattr(closed, "jaxpr", closed)
        inputs = tuple(self.slot(v.aval) for v in jaxpr.invars)
        nodes: list[Node] = []
        constants: dict[int, Any] = {}
        outputs = self.splice(closed, inputs, nodes, constants)
        return Graph(inputs, tuple(outputs), tuple(nodes), constants, self.avals)

    def splice(
        self, closed: Any, inputs: Sequence[int], nodes: list[Node], constants: dict[int, Any]
    ) -> list[int]:
        """Append the operations of `closed`, reading `inputs`; returns its output slots."""
        jaxpr, values = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
        scope: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))

        def constant(value: Any, aval: Any) -> int:
            number = self.slot(aval)
            constants[number] = value
            return number

        def read(atom: Any) -> int:
            return constant(literal(atom), atom.aval) if hasattr(atom, "val") else scope[atom]

        for var, value in zip(jaxpr.constvars, values, strict=True):
            scope[var] = constant(value, var.aval)
        for eqn in jaxpr.eqns:
            given = tuple(read(atom) for atom in eqn.invars)
            made = self.equation(eqn, given, nodes, constants)
            scope.update(zip(eqn.outvars, made, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(
        self, eqn: Any, given: tuple[int, ...], nodes: list[Node], constants: dict[int, Any]
    ) -> Sequence[int]:
        name, p = eqn.primitive.name, eqn.params
        if name in _CALLS:
            inner = p["jaxpr"] if "jaxpr" in p else p["call_jaxpr"]
            return self.splice(inner, given, nodes, constants)
        if name == "scan":
            return self.loop(p, given, nodes, constants)
        outputs = tuple(self.slot(v.aval) for v in eqn.outvars)
        nodes.append(self.node(eqn, given, outputs))
        return outputs

    def node(self, eqn: Any, given: tuple[int, ...], outputs: tuple[int, ...]) -> Node:
        name, p = eqn.primitive.name, eqn.params
        if name == "draw":
            source, address = p["source"], p.get("address", ())
            return DrawNode(given, outputs, spec_of(eqn), source, address, next(self.draws))
        if name == "cond":
            return BranchNode(given, outputs, tuple(self.graph(b) for b in p["branches"]))
        if name in _REMAT:
            return RematNode(given, outputs, self.graph(p["jaxpr"]), p["policy"], p["prevent_cse"])
        inside = first_draw(eqn)
        if inside is not None:
            raise refusal(name, inside)
        return Operation(given, outputs, name, p, evaluator(eqn))

    def loop(
        self, p: dict, given: tuple[int, ...], nodes: list[Node], constants: dict[int, Any]
    ) -> Sequence[int]:
        first, carries = scan_arity(p)
        number, length = next(self.loops), p["length"]
        if number in self.unrolled:
            return self.written_out(p, given, first, carries, nodes, constants)
        body = self.graph(p["jaxpr"])
        made = [self.avals[slot] for slot in body.outputs]
        stacked = [jax.core.ShapedArray((length, *a.shape), a.dtype) for a in made[carries:]]
        outputs = tuple(self.slot(aval) for aval in [*made[:carries], *stacked])
        how = {"reverse": p["reverse"], "unroll": p["unroll"], "number": number}
        nodes.append(LoopNode(given, outputs, body, first, carries, length, **how))
        return outputs

    def written_out(
        self,
        p: dict,
        given: tuple[int, ...],
        first: int,
        carries: int,
        nodes: list[Node],
        constants: dict[int, Any],
    ) -> Sequence[int]:
        """The iterations of a loop one after the other."""
        fixed, carry, xs = given[:first], given[first : first + carries], given[first + carries :]
        turns = range(p["length"])
        rows: dict[int, Sequence[int]] = {}
        for t in reversed(turns) if p["reverse"] else turns:
            read = []
            for x in xs:
                aval = self.avals[x]
                read.append(self.slot(jax.core.ShapedArray(aval.shape[1:], aval.dtype)))
                nodes.append(Operation((x,), (read[-1],), "row", {}, partial(_row, t)))
            made = self.splice(p["jaxpr"], (*fixed, *carry, *read), nodes, constants)
            carry, rows[t] = tuple(made[:carries]), made[carries:]
        stacks = []
        for column in zip(*(rows[t] for t in turns), strict=True):
            aval = self.avals[column[0]]
            stacks.append(self.slot(jax.core.ShapedArray((len(column), *aval.shape), aval.dtype)))
            nodes.append(Operation(tuple(column), (stacks[-1],), "rows", {}, _rows))
        return [*carry, *stacks]


def _row(t: int, x: Any) -> list:
    return [x[t]]


def _rows(*xs: Any) -> list:
    return [jnp.stack([jnp.asarray(x) for x in xs])]


def refusal(name: str, source: str) -> errors.UnsupportedControlFlow:
    return errors.UnsupportedControlFlow(
        f"A draw inside `{name}`, through which no derivative of an expectation is estimated.",
        where=source,
        expected="vmap, scan, a static fori_loop, map, cond, switch, jit, checkpoint",
        fix="use lax.scan or a fori_loop of static length with a flag that says which steps "
        "count; or move the draw out of it and pass the value in",
    )
