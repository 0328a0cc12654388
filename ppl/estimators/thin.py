"""Values that are the same along an axis have one place there, so that equal things are made once.

An enumerated choice of n independent elements has the same outcomes in each of them. What is made
of the outcomes alone, a network of them, say, is then computed once for all elements, and not n
times. Such a *thin* axis has size one where the program has n; what cannot keep it makes it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .axes import ELEMENTWISE, pairs_of
from .lanes import Lane, Parted, Value, merged, over, spread, union
from .nodes import Operation

_FOLLOWS = ELEMENTWISE | {
    "dot_general", "transpose", "squeeze", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod",
    "concatenate", "stack",
}  # fmt: skip
"""Operations whose results have the shapes that those of the operands say."""

_PAIRS = "add sub mul div rem max min pow eq ne lt le gt ge and or xor"
_BROADCAST = frozenset(_PAIRS.split())
"""Operations of two operands, which may have size one along an axis or be scalars."""
_CALLS = frozenset({"custom_jvp_call", "custom_vjp_call", "jit", "pjit", "closed_call"})


def widened(value: Any, aval: Any) -> Any:
    """The value with all axes whole."""
    if isinstance(value, Parted):
        return Parted(widened(value.here, aval), widened(value.rest, aval))
    lanes, shape = len(value.lanes), tuple(aval.shape)
    array = value.array
    if jnp.shape(array)[lanes:] == shape:
        return value
    return Value(jnp.broadcast_to(array, (*jnp.shape(array)[:lanes], *shape)), value.lanes)


def applied(node: Operation, given: Sequence[Value], avals: dict[int, Any]) -> list[Value]:
    """The results of an operation, for all outcomes of the lanes of its operands."""
    lanes = union(given)
    if node.name in ELEMENTWISE:
        typed = [_typed(v, avals[slot]) for v, slot in zip(given, node.inputs, strict=True)]
        return [Value(node.evaluate(*_side_by_side(node.name, typed, lanes))[0], lanes)]
    operands, results = ([avals[slot] for slot in slots] for slots in (node.inputs, node.outputs))
    through = merged if node.name == "dot_general" else over
    outs = through(evaluated(node, operands, results), given, lanes)
    return [Value(out, lanes) for out in outs]


def _typed(value: Value, aval: Any) -> Value:
    """The value; of a number of Python, with the type that it has in the program."""
    if isinstance(value.array, bool | int | float | complex):
        return Value(np.asarray(value.array, aval.dtype))
    return value


def _side_by_side(name: str, given: Sequence[Value], lanes: tuple[Lane, ...]) -> list[Any]:
    """Operands of an elementwise operation with an axis for each lane in front, to broadcast."""
    rank = max(jnp.ndim(value.array) - len(value.lanes) for value in given)

    def spread_out(value: Value) -> Any:
        array, own = spread(value, lanes), jnp.ndim(value.array) - len(value.lanes)
        return jnp.expand_dims(array, range(len(lanes), len(lanes) + rank - own))

    if name in _BROADCAST or len(given) == 1:
        return [spread_out(value) if jnp.ndim(value.array) else value.array for value in given]
    arrays = [spread_out(value) for value in given]
    shape = jnp.broadcast_shapes(*map(jnp.shape, arrays))
    return [jnp.broadcast_to(x, shape) for x in arrays]


def evaluated(node: Operation, operands: Sequence[Any], results: Sequence[Any]) -> Callable:
    """`node.evaluate`, of operands that may be thin; `operands` and `results` have whole shapes."""

    def evaluate(*arrays: Any) -> list:
        if all(jnp.shape(x) == tuple(o.shape) for x, o in zip(arrays, operands, strict=True)):
            return node.evaluate(*arrays)
        kept = _kept(node, arrays, operands, results)
        if not kept:
            return node.evaluate(*_whole(arrays, operands, {}))
        pairs = pairs_of(node.name, node.params, operands, results)[0]
        thin = {i: {a for a, o in row.items() if o in kept} for i, row in enumerate(pairs)}
        shape = tuple(1 if o in kept else n for o, n in enumerate(results[0].shape))
        if node.name in _CALLS:
            (out,) = node.evaluate(*_whole(arrays, operands, {}))
            return [lax.slice(out, (0,) * len(shape), shape)]
        given = _whole(arrays, operands, thin)
        if node.name == "broadcast_in_dim":
            places = node.params["broadcast_dimensions"]
            return [lax.broadcast_in_dim(given[0], shape, places)]
        if node.name == "reshape":
            return [lax.reshape(given[0], shape)]
        return node.evaluate(*given)

    return evaluate


def _kept(
    node: Operation, arrays: Sequence[Any], operands: Sequence[Any], results: Sequence[Any]
) -> set[int]:
    """The axes of the one result along which it is the same."""
    known = node.name in _FOLLOWS or node.name in ("broadcast_in_dim", "reshape")
    if len(results) != 1 or not (known or (node.name in _CALLS and _by_element(node.params))):
        return set()
    if len(arrays) > 1 and node.name in ("broadcast_in_dim", "reshape"):
        return set()  # sizes that are operands
    found: dict[int, bool] = {}
    pairs = pairs_of(node.name, node.params, operands, results)[0]
    for x, operand, row in zip(arrays, operands, pairs, strict=True):
        for a, o in row.items():
            same = jnp.shape(x)[a] != operand.shape[a]
            found[o] = found.get(o, True) and same
    return {o for o, same in found.items() if same}


def _whole(arrays: Sequence[Any], operands: Sequence[Any], thin: dict[int, set[int]]) -> list[Any]:
    """The operands, thin along these axes only."""
    made = []
    for i, (x, operand) in enumerate(zip(arrays, operands, strict=True)):
        kept = thin.get(i, set())
        shape = tuple(1 if a in kept else n for a, n in enumerate(operand.shape))
        made.append(x if jnp.shape(x) == shape else jnp.broadcast_to(x, shape))
    return made


def _by_element(params: dict) -> bool:
    """Whether a called function does the same to each element: relu, softplus, ..."""
    closed = params["call_jaxpr"] if "call_jaxpr" in params else params.get("jaxpr")
    jaxpr = getattr(closed, "jaxpr", closed)
    if jaxpr is None or any(jnp.ndim(c) for c in getattr(closed, "consts", ())):
        return False
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in _CALLS:
            if not _by_element(eqn.params):
                return False
        elif name == "broadcast_in_dim":
            if eqn.invars[0].aval.shape != ():
                return False
        elif name not in ELEMENTWISE:
            return False
        if any(hasattr(atom, "val") and jnp.ndim(atom.val) for atom in eqn.invars):
            return False
    return True
