"""A program of small arrays, run on each of their entries.

Side by side, many small matrices are stacks, whose products are calls of a routine between
copies, and whose sums read memory for each operation. By entries they are vectors, of which a
compiler makes one loop. What is known to be zero or one, as of a unit vector, costs nothing.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl.estimators.nodes import BranchNode, Graph, Operation, graph_of

MOST = 16
"""Of numbers in an array that is taken apart."""


class ByEntries:
    """`f`, on numbers of arrays; what it gives are object arrays of scalars, if they are small.

    A scalar that is known is one of NumPy's.

    >>> import jax, jax.numpy as jnp
    >>> from inference.exact.by_entries import ByEntries
    >>> f = ByEntries(lambda x: [x @ jnp.eye(2), 0 * x], jnp.ones((2, 2)))
    >>> [float(each) for each in f(jnp.array([[1.0, 2.0], [3.0, 4.0]]))[0].ravel()]
    [1.0, 2.0, 3.0, 4.0]
    >>> [float(each) for each in f(jnp.ones((2, 2)))[1].ravel()]
    [0.0, 0.0, 0.0, 0.0]
    >>> "dot_general" in str(jax.make_jaxpr(lambda x: f(x)[0].tolist())(jnp.eye(2)))
    False
    """

    def __init__(self, f: Callable[..., list], *args: Any):
        self.graph = graph_of(jax.make_jaxpr(f)(*args))
        self.able = _is_plain(self.graph)

    def __call__(self, *args: Any) -> list:
        return _run(self.graph, [apart(x) for x in args])


def apart(x: Any) -> Any:
    """An array by its entries, if it is small."""
    if np.size(x) > MOST or (
        isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    ):
        return x
    found = np.empty(np.shape(x), object)
    known = isinstance(x, np.ndarray | np.generic | int | float)
    x = np.asarray(x, jnp.result_type(x)) if known else x
    for index in np.ndindex(found.shape):
        found[index] = x[index]
    return found


def together(x: Any, dtype: Any) -> jax.Array:
    """The array of these entries."""
    if not isinstance(x, np.ndarray):
        return x
    if all(map(is_known, x.ravel())):
        return jnp.asarray(x.astype(dtype))
    flat = jnp.stack([jnp.asarray(each, dtype) for each in x.ravel()])
    return flat.reshape(x.shape)


def is_known(entry: Any) -> bool:
    return isinstance(entry, np.generic)


def _is_plain(graph: Graph) -> bool:
    """Whether all is operations, and branches of them."""
    return all(
        isinstance(node, Operation)
        or (isinstance(node, BranchNode) and all(map(_is_plain, node.branches)))
        for node in graph.nodes
    )


def _run(graph: Graph, args: Sequence[Any]) -> list:
    env = {slot: apart(x) for slot, x in graph.constants.items()}
    env.update(zip(graph.inputs, args, strict=True))
    for node in graph.nodes:
        given = [env[slot] for slot in node.inputs]
        if isinstance(node, BranchNode):
            outs = _branch(node, given, graph)
        else:
            assert isinstance(node, Operation)
            outs = _operation(node, given, graph)
        env.update(zip(node.outputs, outs, strict=True))
    return [env[slot] for slot in graph.outputs]


def _branch(node: BranchNode, given: list, graph: Graph) -> list:
    """Of entries, and giving entries: they are not put together on the way."""
    sizes = [np.size(x) if isinstance(x, np.ndarray) else None for x in given]
    kinds = [graph.avals[slot].dtype for slot in node.inputs]
    flat: list[Any] = []
    for x, kind in zip(given, kinds, strict=True):
        flat += [jnp.asarray(e, kind) for e in x.ravel()] if isinstance(x, np.ndarray) else [x]

    def run(branch: Graph) -> Callable:
        def inner(*entries: Any) -> list:
            rest, args = iter(entries), []
            for x, size in zip(given[1:], sizes[1:], strict=True):
                args.append(next(rest) if size is None else _like(x, rest))
            outs: list[Any] = []
            for x, slot in zip(_run(branch, args), branch.outputs, strict=True):
                kind = branch.avals[slot].dtype
                each = x.ravel() if isinstance(x, np.ndarray) else [x]
                outs += [jnp.asarray(e, kind) for e in each]
            return outs

        return inner

    index, *rest = flat
    found = iter(lax.switch(index, [run(branch) for branch in node.branches], *rest))
    avals = [graph.avals[slot] for slot in node.outputs]
    return [_like(np.empty(a.shape, object), found) if a.size <= MOST else next(found)
            for a in avals]  # fmt: skip


def _like(x: np.ndarray, entries: Any) -> np.ndarray:
    found = np.empty(x.shape, object)
    for index in np.ndindex(x.shape):
        found[index] = next(entries)
    return found


def _operation(node: Operation, given: list, graph: Graph) -> list:
    avals = [graph.avals[slot] for slot in node.inputs]
    apart_ = all(isinstance(x, np.ndarray) for x in given)
    out = graph.avals[node.outputs[0]]
    if apart_ and len(node.outputs) == 1 and out.size <= MOST:
        made = None
        if node.name in _EACH:
            made = _each(node, given, out)
        elif node.name in _MOVED:
            made = _MOVED[node.name](node.params, *given)
        elif node.name in _SUMMED:
            made = _SUMMED[node.name](node.params, *given)
        elif node.name == "iota":
            axis = node.params["dimension"]
            shape = [-1 if i == axis else 1 for i in range(len(out.shape))]
            rows = np.arange(out.shape[axis], dtype=out.dtype).reshape(shape)
            made = apart(np.broadcast_to(rows, out.shape))
        if made is not None:
            assert made.shape == out.shape, node.name
            return [made]
    joined = [together(x, a.dtype) for x, a in zip(given, avals, strict=True)]
    return [apart(x) for x in node.evaluate(*joined)]


# -- entry by entry ------------------------------------------------------------------------------

_KNOWN: dict[str, Callable] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "neg": operator.neg,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "and": np.bitwise_and, "or": np.bitwise_or,
    "convert_element_type": lambda x: x,
    "select_n": lambda which, *cases: cases[int(which)],
}  # fmt: skip
"""What is computed at once of known numbers: of others with them, only what costs nothing."""

_EACH = frozenset({
    *_KNOWN, "div", "max", "min", "exp", "exp2", "log", "log1p", "expm1", "sqrt", "rsqrt",
    "cbrt", "pow", "integer_pow", "square", "sin", "cos", "tan", "sinh", "cosh", "tanh",
    "asin", "acos", "atan", "atan2", "abs", "sign", "not", "logistic", "erf", "erfc", "lgamma",
    "is_finite", "stop_gradient", "copy", "floor", "ceil", "round", "nextafter",
})  # fmt: skip


def _each(node: Operation, given: list, out: Any) -> np.ndarray:
    shaped = np.broadcast_arrays(*given) if len(given) > 1 else given
    found = np.empty(out.shape, object)
    for index in np.ndindex(out.shape):
        found[index] = _one(node, [x[index] for x in shaped], out.dtype)
    return found


def _one(node: Operation, entries: list, dtype: Any) -> Any:
    if node.name in _KNOWN and all(map(is_known, entries)):
        return np.asarray(_KNOWN[node.name](*entries), dtype)[()]
    if node.name == "select_n" and is_known(entries[0]):
        return entries[1 + int(entries[0])]
    if node.name in ("add", "mul"):
        kept = (_sum if node.name == "add" else _product)(*entries)
        if kept is not None:
            return kept
    if node.name == "sub" and _is(entries[1], 0):
        return entries[0]
    return node.evaluate(*entries)[0]


def _is(entry: Any, number: float) -> bool:
    return is_known(entry) and entry == number


def _sum(a: Any, b: Any) -> Any:
    """The sum, if it needs no operation."""
    return b if _is(a, 0) else a if _is(b, 0) else None


def _product(a: Any, b: Any) -> Any:
    for this, other in ((a, b), (b, a)):
        if _is(this, 0) or _is(other, 1):
            return this
    return None


def _dotted(pairs: list[tuple[Any, Any]], dtype: Any) -> Any:
    total: Any = dtype.type(0)
    for a, b in pairs:
        term = _product(a, b)
        total = _added(total, a * b if term is None else term)
    return total


def _added(a: Any, b: Any) -> Any:
    kept = _sum(a, b)
    return a + b if kept is None else kept


# -- sums ------------------------------------------------------------------------------------------


def _dot(params: dict, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    (left, right), (batch, _) = params["dimension_numbers"]
    if batch:
        return None
    rest = [i for i in range(a.ndim) if i not in left]
    a = a.transpose(*rest, *left).reshape(*(a.shape[i] for i in rest), -1)
    rest = [i for i in range(b.ndim) if i not in right]
    b = b.transpose(*rest, *right).reshape(*(b.shape[i] for i in rest), -1)
    found = np.empty((*a.shape[:-1], *b.shape[:-1]), object)
    kind = np.dtype(jnp.result_type(*a.ravel()[:1], *b.ravel()[:1]))
    for i, j in itertools.product(np.ndindex(a.shape[:-1]), np.ndindex(b.shape[:-1])):
        found[(*i, *j)] = _dotted(list(zip(a[i], b[j], strict=True)), kind)
    return found


def _summed(params: dict, x: np.ndarray) -> np.ndarray | None:
    axes = params["axes"]
    rest = [i for i in range(x.ndim) if i not in axes]
    rows = x.transpose(*rest, *axes).reshape(*(x.shape[i] for i in rest), -1)
    if not rows.shape[-1]:
        return None
    found = np.empty(rows.shape[:-1], object)
    for index in np.ndindex(found.shape):
        total, *terms = rows[index]
        for term in terms:
            total = _added(total, term)
        found[index] = total
    return found


_SUMMED = {"dot_general": _dot, "reduce_sum": _summed}

# -- moved -----------------------------------------------------------------------------------------


def _broadcast(params: dict, x: np.ndarray, *dynamic: Any) -> np.ndarray:
    shape, where = params["shape"], params["broadcast_dimensions"]
    own = [1] * len(shape)
    for axis, n in zip(where, x.shape, strict=True):
        own[axis] = n
    return np.broadcast_to(x.reshape(own), shape)


def _slice(params: dict, x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*each) for each in ends)]


def _dynamic_slice(params: dict, x: np.ndarray, *starts: np.ndarray) -> np.ndarray | None:
    places = [start[()] for start in starts]
    if not all(map(is_known, places)):
        return None
    sizes = params["slice_sizes"]
    first = [
        int(np.clip(p, 0, n - size)) for p, n, size in zip(places, x.shape, sizes, strict=True)
    ]
    return x[tuple(slice(p, p + size) for p, size in zip(first, sizes, strict=True))]


_MOVED: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, x: (
        x.reshape(params["new_sizes"]) if not params.get("dimensions") else None
    ),
    "squeeze": lambda params, x: x.squeeze(params["dimensions"]),
    "expand_dims": lambda params, x: np.expand_dims(x, params["dimensions"]),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
}
