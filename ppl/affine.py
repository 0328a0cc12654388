"""How code depends on some of its inputs: not at all, affinely, or otherwise.

Read off the code's jaxpr by the names of its operations, before anything runs. Operations
that are not listed count as curved, so that the answer "affine" is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .staging import scan_arity


class Order(NamedTuple):
    """0: constant, 1: affine, 2: neither is known; `why` names the operation that bends it.

    >>> from ppl.affine import Order
    >>> max(Order(1), Order(2, "exp")).why
    'exp'
    """

    degree: int
    why: str = ""


CONSTANT, AFFINE = Order(0), Order(1)

# affine in all operands together
_ADDITIVE = (
    "add add_any broadcast_in_dim concatenate copy copy_p cumsum expand_dims neg pad reduce_sum "
    "reshape rev slice split squeeze stack sub transpose unstack"
)
_LINEAR = frozenset(_ADDITIVE.split())
# affine in the operands at these positions, the others constant
_LINEAR_IN = {
    "div": (0,),
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "gather": (0,),
    "scatter": (0, 2),
    "scatter-add": (0, 2),
    "scatter_add": (0, 2),
    "triangular_solve": (1,),
}
_BILINEAR = frozenset({"mul", "dot_general"})
_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"})


def orders(f: Callable, avals: Sequence[Any], given: Sequence[Order]) -> list[Order]:
    """How the outputs of `f(*avals)`, a list, depend on what its inputs depend on as `given`.

    >>> import jax, jax.numpy as jnp
    >>> from ppl.affine import AFFINE, CONSTANT, orders
    >>> one = jax.ShapeDtypeStruct((), "float32")
    >>> f = lambda a, z: [a * z + 1.0, jnp.where(a > 0, z, 2 * a), a**2, z * z, jnp.floor(z)]
    >>> [order.degree for order in orders(f, [one, one], [CONSTANT, AFFINE])]
    [1, 1, 0, 2, 2]
    """
    return of_jaxpr(jax.make_jaxpr(f)(*avals), given)


def of_jaxpr(jaxpr: Any, given: Sequence[Order]) -> list[Order]:
    """As `orders`, of a jaxpr (closed or not)."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known: dict[Any, Order] = dict.fromkeys(jaxpr.constvars, CONSTANT)
    known.update(zip(jaxpr.invars, given, strict=True))

    def read(atom: Any) -> Order:
        return CONSTANT if hasattr(atom, "val") else known[atom]  # a literal has a value

    for eqn in jaxpr.eqns:
        known.update(zip(eqn.outvars, _outputs(eqn, [read(a) for a in eqn.invars]), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(eqn: Any, given: list[Order]) -> list[Order]:
    """How the outputs of one operation depend."""
    name, p = eqn.primitive.name, eqn.params
    worst = max(given, default=CONSTANT)
    if worst.degree != 1:  # constant, or bent before
        return [worst] * len(eqn.outvars)
    if name in _CALLS:
        return of_jaxpr(p["jaxpr"] if "jaxpr" in p else p["call_jaxpr"], given)
    if name == "cond" and not given[0].degree:
        each = [of_jaxpr(branch, given[1:]) for branch in p["branches"]]
        return [max(same) for same in zip(*each, strict=True)]
    if name == "scan":
        return _scan(p, given)
    return [AFFINE if _is_affine(eqn, name, given) else Order(2, name)] * len(eqn.outvars)


def _is_affine(eqn: Any, name: str, given: list[Order]) -> bool:
    depends = [i for i, order in enumerate(given) if order.degree]
    if name in _BILINEAR:
        return len(depends) == 1
    if name == "select_n":
        return 0 not in depends
    if name == "custom_linear_solve":  # linear in the right-hand side
        return min(depends) >= sum(eqn.params["const_lengths"])
    if name == "convert_element_type":
        return bool(jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact))
    return name in _LINEAR or set(depends) <= set(_LINEAR_IN.get(name, ()))


def _scan(p: dict, given: list[Order]) -> list[Order]:
    first, carries = scan_arity(p)
    second = first + carries
    constants, carry, xs = given[:first], given[first:second], given[second:]
    while True:
        outs = of_jaxpr(p["jaxpr"], [*constants, *carry, *xs])
        grown = [max(a, b) for a, b in zip(carry, outs[: len(carry)], strict=True)]
        if grown == carry:
            return outs
        carry = grown
