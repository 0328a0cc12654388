"""Values that each read one value of a long Gaussian choice, through code that keeps them so.

A process at n times has n values, and an array made of them has a matrix of n columns. Where each
of its elements is a number times one of them plus a number, two numbers and a place say the same:
code that only selects, moves, multiplies by what is known and adds it keeps that form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl.estimators.nodes import Graph, Operation, graph_of

from .linear import Bent, Block, Linear, Picked

# what each element of the result is an element of an operand, or the same for each array
_WORDS = (
    "broadcast_in_dim concatenate copy copy_p dynamic_slice dynamic_update_slice expand_dims "
    "gather pad reshape rev select_n slice split squeeze stack transpose unstack",
    "add add_any convert_element_type div mul neg sub",
)
_MOVES, _ARITHMETIC = (frozenset(words.split()) for words in _WORDS)
_PLACES = {"dynamic_slice": 1, "gather": 1, "dynamic_update_slice": 2}
"""How many of the first operands are moved; what is behind says where."""


def through(f: Callable, avals: Sequence[Any], args: list) -> list | None:
    """The outputs of `f`, of which some inputs are picked; None if `f` does not keep them so.

    >>> import jax, jax.numpy as jnp
    >>> from inference.exact.linear import Block, Picked
    >>> from inference.exact.picked import through
    >>> z = Picked(jnp.zeros(3), jnp.ones(3), jnp.arange(3), Block(("z",), 3))
    >>> f = lambda z: [2.0 * z[jnp.array([2, 0])] + 1.0]
    >>> (y,) = through(f, [z.at], [z])
    >>> y.at.tolist(), y.by.tolist(), y.rows.tolist()
    ([1.0, 1.0], [2.0, 2.0], [2, 0])
    >>> through(lambda z: [jnp.sum(z)], [z.at], [z]) is None
    True
    """
    if any(isinstance(value, (Bent, Linear)) for value in args):
        return None
    graph = graph_of(jax.make_jaxpr(f)(*avals))
    env = {**graph.constants, **dict(zip(graph.inputs, args, strict=True))}
    for node in graph.nodes:
        given = [env[slot] for slot in node.inputs]
        outs = _of(node, given, graph)
        if outs is None:
            return None
        env.update(zip(node.outputs, outs, strict=True))
    return [env[slot] for slot in graph.outputs]


def keeps(f: Callable, avals: Sequence[Any], args: list) -> bool:
    """Whether `f` keeps what is picked so."""
    known: list[bool] = []

    def look(*arrays: Any) -> int:
        known.append(through(f, avals, list(arrays)) is not None)
        return 0

    jax.eval_shape(look, *args)
    return known[0]


def _of(node: Any, given: list, graph: Graph) -> list | None:
    blocks = {v.block for v in given if isinstance(v, Picked)}
    if not isinstance(node, Operation):
        return None
    if not blocks:
        return node.evaluate(*given)
    if len(blocks) > 1:
        return None
    (block,) = blocks
    which = [i for i, v in enumerate(given) if isinstance(v, Picked)]
    if node.name in _MOVES:
        moved = _PLACES.get(node.name, len(given))
        first = 1 if node.name == "select_n" else 0
        if which[0] < first or which[-1] >= moved:
            return None
        return _moved(node, given, range(first, moved), block)
    return _computed(node, given, which, block, graph)


def _moved(node: Operation, given: list, moved: range, block: Block) -> list:
    """The same move of what is picked, of its numbers and of its places."""

    def of(part: Callable, otherwise: Callable) -> list:
        return node.evaluate(*[
            v if i not in moved else part(v) if isinstance(v, Picked) else otherwise(v)
            for i, v in enumerate(given)
        ])  # fmt: skip

    at = of(lambda v: v.at, lambda v: v)
    by = of(lambda v: v.by, jnp.zeros_like)
    rows = of(lambda v: v.rows, lambda v: jnp.zeros(jnp.shape(v), int))
    if node.name == "gather":  # what is out of bounds reads nothing
        by = [jnp.where(row < 0, 0.0, x).astype(x.dtype) for x, row in zip(by, rows, strict=True)]
        rows = [jnp.maximum(row, 0) for row in rows]
    return [Picked(*parts, block) for parts in zip(at, by, rows, strict=True)]


def _computed(
    node: Operation, given: list, which: list[int], block: Block, graph: Graph
) -> list | None:
    """Arithmetic with one operand that is picked."""
    if node.name not in _ARITHMETIC or len(which) > 1 or (node.name == "div" and which[0] == 1):
        return None
    i = which[0]
    picked = given[i]
    others = [v for j, v in enumerate(given) if j != i]
    shape = graph.avals[node.outputs[0]].shape
    at = [v.at if j == i else v for j, v in enumerate(given)]
    sign = -1 if (node.name == "neg" or (node.name == "sub" and i == 1)) else 1
    rows = jnp.broadcast_to(picked.rows, shape)
    if node.name == "mul":
        by = picked.by * others[0]
    elif node.name == "div":
        by = picked.by / others[0]
    elif node.name == "convert_element_type":
        kind = graph.avals[node.outputs[0]].dtype
        if not jnp.issubdtype(kind, jnp.inexact):
            return None
        by = lax.convert_element_type(picked.by, kind)
    else:
        by = jnp.broadcast_to(sign * picked.by, shape)
    return [Picked(node.evaluate(*at)[0], by, rows, block)]
