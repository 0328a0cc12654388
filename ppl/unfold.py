"""A growing sequence: `unfold` and its extension by one step in constant time.

The steps up to a fixed capacity are there from the start, so that shapes never change;
those past the live length make no choices (value 0, log density 0, not present).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from . import errors
from .addresses import flatten, nest
from .arguments import Arguments
from .generative import GenerativeFunction, Trace
from .language import inline


@partial(jax.tree_util.register_dataclass, data_fields=["model"], meta_fields=["capacity"])
@dataclass(frozen=True, eq=False)
class _Unfold:
    """Run the first `length` steps of `model`."""

    model: GenerativeFunction
    capacity: int

    def __call__(self, length: Any, init: Any, xs: Any = None) -> Any:
        def step(carry, tx):
            t, x = tx
            call = self.model(carry, x)
            out = self.model.staged(call.arguments)[0]
            _, blank = out.rebuild([jnp.zeros(a.shape, a.dtype) for a in out.jaxpr.out_avals])

            def live(carry, x):
                return inline(self.model(carry, x))

            return lax.cond(t < length, live, lambda carry, _: (carry, blank), carry, x)

        return lax.scan(step, init, (jnp.arange(self.capacity), xs))


def unfold(model: GenerativeFunction, capacity: int) -> GenerativeFunction:
    """`(length, init, xs=None) -> (carry, ys)`: the first `length` of `capacity` steps.

    `model(carry, x) -> (carry, y)` is one step; `length` may be traced. Choices and `ys`
    are stacked to `capacity`; past `length` they are 0 and absent. `extend` adds a step.

    Raises:
      InvalidArgument: `capacity` is no positive int.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import gen, sample, seed, unfold
    >>> @gen
    ... def step(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     return z, z
    >>> trace = seed(unfold(step, 4).simulate)(jax.random.key(0), 2, 0.0)
    >>> trace.present["z"].tolist()
    [True, True, False, False]
    """
    if not isinstance(capacity, int) or capacity < 1:
        raise errors.InvalidArgument(
            "The capacity of an unfold is the number of steps it can grow to.",
            where=errors.caller(),
            given=repr(capacity),
            expected="a positive int, known before the program runs",
            fix="unfold(step, 100)",
        )
    return GenerativeFunction(_Unfold(model, capacity), name=f"unfold({model.name}, {capacity})")


def extend(trace: Trace, constraints: Mapping[str, Any] | None = None) -> tuple[Trace, jax.Array]:
    """`(t, w)` with E[e^w delta_t] = p(dt; length + 1) / p(trace; length), restricted to t
    that extend `trace` and the constraints of the new step.

    One step of the model is run, whatever the length: `trace` is of an `unfold`, and
    `constraints` are those of one step. Unconstrained choices are made by the model. At
    full capacity the weight is -inf, and the trace stays as it is.

    Raises:
      InvalidArgument: `trace` is not of an `unfold`, or is known to be full.
      AddressNotFound, ShapeError, DtypeError, SupportError: as for `generate`.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import extend, gen, sample, seed, unfold
    >>> step = gen(lambda z, _: (sample("z", dist.Normal(z, 1.0)),) * 2)
    >>> trace = seed(unfold(step, 4).simulate)(jax.random.key(0), 0, 0.0)
    >>> trace, log_weight = extend(trace, {"z": 0.5})
    >>> trace["z"].tolist(), f"{log_weight:.4f}"
    ([0.5, 0.0, 0.0, 0.0], '-1.0439')
    """
    fn = trace.model.fn if isinstance(trace, Trace) else None
    if not isinstance(fn, _Unfold):
        raise errors.InvalidArgument(
            "Only the trace of an unfold can be extended.",
            where=errors.caller(),
            given=f"a trace of {trace.model.name}" if fn is not None else type(trace).__name__,
            expected="a trace of unfold(step, capacity), not nested in another model",
            fix="trace = seed(unfold(step, capacity).simulate)(key, length, init, xs)",
        )
    length, init, xs = _call(*trace.args, **trace.arguments.kwargs)
    if not isinstance(length, jax.core.Tracer) and int(length) >= fn.capacity:
        raise errors.InvalidArgument(
            f"The trace of {trace.model.name} is full.",
            where=errors.caller(),
            given=f"length {int(length)}",
            expected=f"a length below the capacity of {fn.capacity}",
            fix="give unfold a larger capacity",
        )
    carry, ys = trace.retval
    x = jax.tree.map(lambda leaf: leaf[length], xs)
    new, log_weight = fn.model.generate(constraints or {}, carry, x)
    fits = length < fn.capacity

    def write(leaf, value):
        return leaf.at[length].set(value, mode="drop")

    here = flatten(new.present)
    present = {p: write(f, here.get(p, True)) for p, f in flatten(trace.present).items()}
    made = flatten(new.choices)
    choices = {p: write(v, made[p]) for p, v in flatten(trace.choices).items()}
    carry = jax.tree.map(lambda a, b: jnp.where(fits, b, a), carry, new.retval[0])
    grown = replace(
        trace,
        arguments=Arguments.of((length + jnp.asarray(fits, jnp.result_type(length)), init, xs), {}),
        choices=nest(choices),
        score=trace.score + jnp.where(fits, new.score, 0.0),
        retval=(carry, jax.tree.map(write, ys, new.retval[1])),
        present=nest(present),
    )
    return grown, jnp.where(fits, log_weight, -jnp.inf)


def _call(length: Any, init: Any, xs: Any = None) -> tuple[Any, Any, Any]:
    return length, init, xs
