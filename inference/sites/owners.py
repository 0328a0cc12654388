"""Which one element of an array each number that code makes of it depends on.

Read off the code's jaxpr: a copy, a gather or a product with a constant keeps the owners of its
operand, and two owners make a number mixed. Operations without a rule mix everything, so that
an owner is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl.estimators.axes import ELEMENTWISE
from ppl.staging import scan_arity

NONE, MIXED = -1, -2
"""Of a number that depends on no element, and of one that depends on more than one."""

_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_WORDS = (
    "jit pjit closed_call core_call checkpoint remat remat2 custom_jvp_call custom_vjp_call",
    "broadcast_in_dim concatenate copy copy_p dynamic_slice dynamic_update_slice expand_dims "
    "gather pad reshape rev scatter slice split squeeze stack transpose unstack",
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin",
)
_CALLED, _MOVES, _REDUCES = (frozenset(words.split()) for words in _WORDS)
_PLACES = {
    "gather": slice(1, 2),
    "scatter": slice(1, 2),
    "dynamic_slice": slice(1, None),
    "dynamic_update_slice": slice(2, None),
}
"""Which operands are positions."""


@dataclass(frozen=True)
class Owned:
    """A value that depends on the array.

    Attributes:
      owners: for each of its numbers the owner, or NONE, or MIXED.
      why: the operation that mixed some.
    """

    owners: Any
    why: str = ""


def owners(f: Callable, n: int, dtype: Any) -> list[Owned]:
    """The owners of the numbers of f(x), a list of arrays, for x of shape (n,).

    >>> import jax.numpy as jnp
    >>> from inference.sites.owners import owners
    >>> index = jnp.array([2, 0, 0])
    >>> made = owners(lambda x: [2 * jnp.exp(x[index]), x + x[::-1], jnp.ones(2)], 3, float)
    >>> [each.owners.tolist() for each in made]
    [[2, 0, 0], [-2, 1, -2], [-1, -1]]
    """
    closed = jax.make_jaxpr(f)(jax.ShapeDtypeStruct((n,), jnp.dtype(dtype)))
    outs = _through(closed.jaxpr, closed.consts, [Owned(np.arange(n))])
    shapes = [atom.aval.shape for atom in closed.jaxpr.outvars]
    return [
        out if isinstance(out, Owned) else Owned(np.full(shape, NONE))
        for out, shape in zip(outs, shapes, strict=True)
    ]


def _through(jaxpr: Any, constants: Sequence[Any], args: Sequence[Any]) -> list:
    known = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else known[atom]  # a literal has a value

    for eqn in jaxpr.eqns:
        outs = _outputs(eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(eqn: Any, args: list) -> list:
    """The outputs of one operation: values, or their owners where they depend on the array."""
    name, p = eqn.primitive.name, eqn.params
    if not any(isinstance(arg, Owned) for arg in args):
        return _bound(eqn, args, eqn.primitive.get_bind_params(p))
    why = next((arg.why for arg in args if isinstance(arg, Owned) and arg.why), "")
    if name in _CALLED:
        closed = next(p[key] for key in _CALLS if key in p)
        return _through(getattr(closed, "jaxpr", closed), getattr(closed, "consts", ()), args)
    shapes = [out.aval.shape for out in eqn.outvars]
    if name in ELEMENTWISE:
        found, clash = _joined([_of(arg) for arg in args], shapes[0])
        return [Owned(found, why or (name if clash else ""))] * len(shapes)
    if name in _REDUCES:
        found, clash = _reduced(_of(args[0]), p["axes"])
        return [Owned(found, why or (name if clash else ""))]
    places = range(len(args))[_PLACES.get(name, slice(0))]
    if name in _MOVES and not any(isinstance(args[i], Owned) for i in places):
        return [Owned(out, why) for out in _moved(eqn, args, places)]
    if name == "cond":
        return _branches(p["branches"], args, shapes, why)
    if name == "scan":
        found = _loop(p, args, why)
        if found is not None:
            return found
    return [Owned(np.full(shape, MIXED), why or name) for shape in shapes]


def _bound(eqn: Any, args: list, params: dict) -> list:
    out = eqn.primitive.bind(*args, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _of(arg: Any) -> Any:
    return arg.owners if isinstance(arg, Owned) else np.full(np.shape(arg), NONE)


def _own(*arrays: Any) -> Any:
    """numpy for what is known, so that it stays known while something is traced."""
    return np if all(isinstance(x, np.ndarray | np.generic) for x in arrays) else jnp


def _joined(each: list, shape: tuple[int, ...]) -> tuple[Any, bool]:
    """The owners of what is made of several, and whether it is not known that none clash."""
    np_ = _own(*each)
    found, clash = np_.broadcast_to(each[0], shape), False
    for other in each[1:]:
        other = np_.broadcast_to(other, shape)
        mixed = (found >= 0) & (other >= 0) & (found != other)
        worst = np_.minimum(found, other) == MIXED
        clash = clash or np_ is jnp or bool(mixed.any())
        found = np_.where(mixed | worst, MIXED, np_.maximum(found, other))
    return found, clash


def _reduced(owners: Any, axes: tuple[int, ...]) -> tuple[Any, bool]:
    np_ = _own(owners)
    if any(owners.shape[axis] == 0 for axis in axes):
        kept = [size for i, size in enumerate(owners.shape) if i not in axes]
        return np.full(kept, NONE), False
    top = np_.max(owners, axes, keepdims=True)
    mixed = np_.any((owners == MIXED) | ((owners >= 0) & (owners != top)), axes)
    return np_.where(mixed, MIXED, np_.squeeze(top, axes)), np_ is jnp or bool(mixed.any())


def _moved(eqn: Any, args: list, places: range) -> list:
    """What copies numbers copies owners: the same operation, on them."""
    moving = [x if i in places else jnp.asarray(_of(x), jnp.int32) for i, x in enumerate(args)]
    fills = {"fill_value": NONE} if eqn.primitive.name == "gather" else {}
    outs = _bound(eqn, moving, {**eqn.params, **fills})
    return [out if isinstance(out, jax.core.Tracer) else np.asarray(out) for out in outs]


def _branches(branches: Sequence[Any], args: list, shapes: list, why: str) -> list:
    """What some branch makes of its operands, joined with what chooses between them."""
    index, rest = args[0], args[1:]
    each = [_through(branch.jaxpr, branch.consts, rest) for branch in branches]
    outs = []
    for shape, *same in zip(shapes, *each, strict=True):
        if not isinstance(index, Owned) and not any(isinstance(x, Owned) for x in same):
            number = jnp.clip(index, 0, len(branches) - 1).astype(int)
            outs.append(lax.select_n(number, *map(jnp.asarray, same)))
            continue
        why = why or next((x.why for x in same if isinstance(x, Owned) and x.why), "")
        found, clash = _joined([_of(index), *map(_of, same)], shape)
        outs.append(Owned(found, why or ("cond" if clash else "")))
    return outs


def _loop(p: dict, args: list, why: str) -> list | None:
    """Through a scan that carries nothing of the array; None of one that does."""
    first, carries = scan_arity(p)
    constants, carry, xs = args[:first], args[first : first + carries], args[first + carries :]
    if any(isinstance(x, Owned) for x in carry):
        return None
    closed, reasons = p["jaxpr"], []

    def step(carry: list, rows: list) -> tuple[list, list]:
        given = [Owned(row, x.why) if isinstance(x, Owned) else row
                 for row, x in zip(rows, xs, strict=True)]  # fmt: skip
        outs = _through(closed.jaxpr, closed.consts, [*constants, *carry, *given])
        reasons[:] = [out.why if isinstance(out, Owned) else None for out in outs]
        plain = [jnp.asarray(out.owners if isinstance(out, Owned) else out) for out in outs]
        return plain[:carries], plain[carries:]

    rows = [jnp.asarray(_of(x) if isinstance(x, Owned) else x) for x in xs]
    jax.eval_shape(step, list(carry), [row[0] for row in rows])
    if any(reason is not None for reason in reasons[:carries]):
        return None
    last, ys = lax.scan(
        step, [jnp.asarray(x) for x in carry], rows, length=p["length"], reverse=p["reverse"]
    )
    return [
        out if reason is None else Owned(out, reason or why)
        for out, reason in zip([*last, *ys], reasons, strict=True)
    ]
