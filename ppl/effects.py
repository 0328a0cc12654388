"""The primitives of the two languages, and how JAX's transformations treat them.

`draw_p` is anonymous randomness, `sample_p` an addressed choice, `call_p` a call
of a generative function, `factor_p` a score, `map_p` a vectorised region that
contains choices, `guard_p` an identity whose derivative is an error. None of
them is ever run: interpreters over a staged program give them their meaning, so
their evaluation and lowering rules are errors that say what was forgotten.

Three facts of JAX carry this file, and `tests/test_jax_contract.py` names them:

* a rule in `fancy_primitive_batchers` is called also when no operand is batched,
  so `vmap` over n makes n independent choices;
* an equation with an effect is never removed, so a choice whose value nobody
  uses stays in the program. The effect is a subclass of the one that
  `jax.debug.callback` has, which every control-flow construct admits.

* the rules of partial evaluation decide what leaves a loop and what `checkpoint` computes
  twice, so a draw is made once, in its place.

Batching a `cond` or `scan` that contains choices through JAX's own rule would
turn branches into selects (both branches would be scored) and put the mapped
axis inside the scanned one. So these constructs become one `map_p` region
instead, and the layout of choices follows the nesting of the program.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.core
import jax.extend.core.primitives as jax_primitives
import jax.numpy as jnp
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir, partial_eval

from . import errors

(_callback_effect,) = jax.make_jaxpr(lambda: jax.debug.callback(lambda: None))().effects


class ChoiceEffect(type(_callback_effect)):
    """Keeps an equation in the program although nobody uses its result."""

    def __eq__(self, other):
        return type(self) is type(other)

    def __hash__(self):
        return hash(ChoiceEffect)

    def __str__(self):
        return "Choice"


_KEPT = {ChoiceEffect()}
_NOT_MAPPED = None

draw_p = Primitive("draw")
sample_p = Primitive("sample")
call_p = Primitive("call_model")
factor_p = Primitive("factor")
map_p = Primitive("map_choices")
guard_p = Primitive("guard")
for _p in (sample_p, call_p, factor_p, map_p):
    _p.multiple_results = True

RANDOM = frozenset({draw_p})
CHOICES = frozenset({sample_p, call_p, factor_p, map_p})
EFFECTS = RANDOM | CHOICES


def _names(value: Any):
    values = value if isinstance(value, (tuple, list)) else (value,)
    for each in values:
        inner = getattr(each, "jaxpr", each)
        if hasattr(inner, "eqns"):
            yield inner


def subprograms(params: dict) -> list:
    """The jaxprs among the parameters of an equation."""
    return [inner for value in params.values() for inner in _names(value)]


def effects_of(jaxpr) -> frozenset:
    """The primitives of this file that occur in `jaxpr`, at any depth."""
    found: set = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive in EFFECTS:
            found.add(eqn.primitive)
        for inner in subprograms(eqn.params):
            found |= effects_of(inner)
    return frozenset(found)


def first_address(jaxprs: list) -> tuple[str, ...] | None:
    """The address of the first choice in `jaxprs`, at any depth."""
    for jaxpr in jaxprs:
        for eqn in jaxpr.eqns:
            found = eqn.params.get("address") if eqn.primitive in CHOICES else None
            found = found or first_address(subprograms(eqn.params))
            if found:
                return found
    return None


# -- abstract evaluation ------------------------------------------------------


def _draw_abstract(*_, shape, dtype, levels, **__):
    sizes = tuple(size for size, _ in reversed(levels))
    return jax.core.ShapedArray(sizes + shape, dtype)


def _sample_abstract(*_, shape, dtype, **__):
    return [jax.core.ShapedArray(shape, dtype)], _KEPT


def _call_abstract(*_, jaxpr, **__):
    return list(jaxpr.out_avals), _KEPT


def _factor_abstract(*_, **__):
    return [], _KEPT


def _map_abstract(*_, jaxpr, size, **__):
    grow = [jax.core.ShapedArray((size, *a.shape), a.dtype) for a in jaxpr.out_avals]
    return grow, _KEPT


draw_p.def_abstract_eval(_draw_abstract)
sample_p.def_effectful_abstract_eval(_sample_abstract)
call_p.def_effectful_abstract_eval(_call_abstract)
factor_p.def_effectful_abstract_eval(_factor_abstract)
map_p.def_effectful_abstract_eval(_map_abstract)
guard_p.def_abstract_eval(lambda x, **_: jax.core.ShapedArray(x.shape, x.dtype))
guard_p.def_impl(lambda x, **_: x)


# -- running without an interpreter: errors ----------------------------------


def _unseeded(*_, source="<unknown>", **__):
    raise errors.MissingSeed(
        "A random program was run without randomness.",
        where=source if source.startswith('"') else f"draw at {source}",
        given="a call of the program itself (or jax.jit of it)",
        expected="seed(program)(key, *args)",
        fix="wrap the program: seed(f)(jax.random.key(0), *args); "
        "for a model, seed(model.simulate)(key, *args)",
    )


def _outside(*_, source="<unknown>", **params):
    name = params.get("address") or first_address(subprograms(params))
    what = f"sample({errors.show(name)}, ...)" if name else "factor/observe"
    raise errors.OutsideModel(
        f"{what} ran outside a generative function.",
        where=source,
        given="a plain call",
        expected="a function decorated with @gen, run through one of its methods",
        fix="decorate the function with @gen and call e.g. "
        "seed(model.simulate)(key, *args); for randomness without an address use draw()",
    )


draw_p.def_impl(_unseeded)
mlir.register_lowering(draw_p, lambda ctx, *_, **params: _unseeded(**params))
for _p in (sample_p, call_p, factor_p, map_p):
    _p.def_impl(_outside)
    mlir.register_lowering(_p, lambda ctx, *_, **params: _outside(**params))
mlir.register_lowering(guard_p, mlir.lower_fun(lambda x, **_: x, multiple_results=False))


# -- differentiation: errors --------------------------------------------------


def _no_gradient(primals, tangents, *, source="<unknown>", reason=None, **params):
    address = params.get("address")
    at = f"{errors.show(address)} at {source}" if address else source
    raise errors.GradientThroughDraw(
        reason or "A derivative was taken through a random draw.",
        where=at,
        given="jax.grad (or jvp, vjp, linearize) of code that is still random here",
        expected="randomness resolved first, or an estimator chosen for its gradient",
        fix="jax.grad(expectation(f)), an unbiased estimate; jax.grad(integrate(f)), exactly; or "
        "stop_gradient the distribution's parameters if the bias is intended"
        if reason == DISCRETE
        else "differentiate outside: jax.grad(lambda x: seed(f)(key, x)), "
        "or stop_gradient the distribution's parameters if the bias is intended",
    )


for _p in (draw_p, sample_p, call_p, factor_p, map_p, guard_p):
    ad.primitive_jvps[_p] = _no_gradient

DISCRETE = (
    "A derivative was taken through a discrete draw: "
    "JAX would return 0, which is not the derivative of the expectation."
)
CUSTOM = (
    "A derivative was taken through a function with a custom derivative rule that "
    "makes choices: the rule does not say how the choices vary."
)


def guard(x, source: str, reason: str = DISCRETE):
    """`x`, with an error in place of its derivative; floats only."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x
    return guard_p.bind(jnp.asarray(x), source=source, reason=reason)


# -- partial evaluation: a draw is made once, where it stands ---------------------
#
# JAX moves what depends on nothing that varies out of a loop, and computes again on the way
# back what `checkpoint` has not kept: of a draw, that would be one value for all iterations,
# and another value than the one that was differentiated.


def _stays_in_its_loop(trace, *tracers, **params):
    there = [trace.instantiate_const(tracer) for tracer in tracers]
    return trace.default_process_primitive(draw_p, there, params)


def _is_kept(saveable, unknown, instantiated, eqn):
    del saveable, unknown, instantiated
    return eqn, None, [False], [False], []


partial_eval.custom_partial_eval_rules[draw_p] = _stays_in_its_loop
partial_eval.partial_eval_jaxpr_custom_rules[draw_p] = _is_kept


# -- batching -------------------------------------------------------------------


def _to_front(values, dims):
    moved = [
        value if dim is _NOT_MAPPED else jnp.moveaxis(value, dim, 0)
        for value, dim in zip(values, dims, strict=True)
    ]
    return moved, tuple(None if dim is _NOT_MAPPED else 0 for dim in dims)


def _batch_draw(axis, values, dims, *, levels, **params):
    moved, in_axes = _to_front(values, dims)
    out = draw_p.bind(*moved, levels=(*levels, (axis.size, in_axes)), **params)
    return out, 0


def _shape_of(value, dim):
    shape = jnp.shape(value)
    rest = shape if dim is _NOT_MAPPED else shape[:dim] + shape[dim + 1 :]
    return jax.ShapeDtypeStruct(rest, jnp.result_type(value))


def _batch_region(primitive, axis, values, dims, **params):
    """`vmap` of one equation with choices is one `map_p` region around it."""

    def single(*operands):
        outs = primitive.bind(*operands, **primitive.get_bind_params(params))
        return outs if primitive.multiple_results else [outs]

    avals = [_shape_of(value, dim) for value, dim in zip(values, dims, strict=True)]
    jaxpr = jax.make_jaxpr(single)(*avals)
    moved, in_axes = _to_front(values, dims)
    outs = map_p.bind(
        *moved,
        jaxpr=jaxpr,
        in_axes=in_axes,
        size=axis.size,
        axis_name=axis.name,
        source=params.get("source", "<unknown>"),
    )
    return outs, [0] * len(outs)


def _batch_guard(values, dims, **params):
    return guard_p.bind(*values, **params), dims[0]


batching.fancy_primitive_batchers[draw_p] = _batch_draw
for _p in (sample_p, call_p, factor_p, map_p):
    batching.fancy_primitive_batchers[_p] = partial(_batch_region, _p)
batching.primitive_batchers[guard_p] = _batch_guard


def _keep_structure(primitive):
    """Batch `primitive` as a region when it contains choices, as JAX does otherwise."""
    original = batching.fancy_primitive_batchers[primitive]

    def rule(axis, values, dims, **params):
        if any(effects_of(inner) & CHOICES for inner in subprograms(params)):
            return _batch_region(primitive, axis, values, dims, **params)
        return original(axis, values, dims, **params)

    batching.fancy_primitive_batchers[primitive] = rule


for _p in (jax_primitives.cond_p, jax_primitives.scan_p, jax_primitives.remat_p):
    _keep_structure(_p)

as_function = jaxpr_as_fun


# -- numbers that carry a derivative of something else ----------------------------
#
# Primitives, since JAX (0.10.2) forgets the rules of `custom_jvp` functions in a `scan` that is
# differentiated in reverse: the second derivative is then that of the function's own code.

box_p = Primitive("box")
weak_p = Primitive("weak")


def box(score):
    """One, with the derivatives of exp(score - what score is).

    >>> import jax
    >>> from ppl.effects import box
    >>> f = lambda t: 3.0 * box(t**2)
    >>> float(f(2.0)), float(jax.grad(f)(2.0)), float(jax.grad(jax.grad(f))(2.0))
    (3.0, 12.0, 54.0)
    """
    return box_p.bind(jnp.asarray(score, jnp.result_type(score, float)))


def weak(amount, parameter):
    """Zero, whose derivative with respect to `parameter` is `amount`.

    >>> import jax
    >>> from ppl.effects import weak
    >>> f = lambda t: weak(t**2, t)
    >>> float(f(2.0)), float(jax.grad(f)(2.0)), float(jax.grad(jax.grad(f))(2.0))
    (0.0, 4.0, 4.0)
    """
    dtype = jnp.result_type(amount, parameter, float)
    amount, parameter = jnp.broadcast_arrays(amount, parameter)
    return weak_p.bind(amount.astype(dtype), parameter.astype(dtype))


def _box_jvp(primals, tangents):
    (score,), (change,) = primals, tangents
    one = box_p.bind(score)
    if type(change) is ad.Zero:
        return one, ad.zeros_like_aval(jax.typeof(one))
    return one, one * change


def _weak_jvp(primals, tangents):
    amount, parameter = primals
    zero, change = weak_p.bind(amount, parameter), tangents[1]
    if type(change) is ad.Zero:
        return zero, ad.zeros_like_aval(jax.typeof(zero))
    return zero, amount * change


def _batch_each(primitive, values, dims, **params):
    size = next(v.shape[d] for v, d in zip(values, dims, strict=True) if d is not _NOT_MAPPED)
    moved = [
        jnp.broadcast_to(value, (size, *value.shape))
        if dim is _NOT_MAPPED
        else jnp.moveaxis(value, dim, 0)
        for value, dim in zip(values, dims, strict=True)
    ]
    return primitive.bind(*moved, **params), 0


for _p, _jvp, _value in ((box_p, _box_jvp, jnp.ones_like), (weak_p, _weak_jvp, jnp.zeros_like)):
    _p.def_abstract_eval(lambda x, *_: jax.core.ShapedArray(x.shape, x.dtype))
    _p.def_impl(lambda x, *_, value=_value: value(x))
    mlir.register_lowering(
        _p, mlir.lower_fun(lambda x, *_, value=_value: value(x), multiple_results=False)
    )
    ad.primitive_jvps[_p] = _jvp
    batching.primitive_batchers[_p] = partial(_batch_each, _p)
