"""What a filter asks of its step model `(state, x) -> (state, y)` and of its series.

What the steps are is known from shapes, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, Masked, Trace, errors
from ppl.addresses import flatten, nest
from ppl.arguments import is_array
from ppl.border import arrived
from ppl.sites import check_values

from ..validation.settings import shown


def check_series(observations: Mapping[str, Any], others: Any, what: str, fix: str) -> None:
    """All series are arrays with the same number of rows, one or more."""
    check_inputs(others, what)
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(others)}
    for path, value in flatten(observations).items():
        parts = (value.value, value.mask) if isinstance(value, Masked) else (value,)
        for part in map(arrived, parts):
            if part is None:
                raise errors.DtypeError(
                    f"The series of {errors.show(path)} is no array.", where=errors.caller(),
                    given=f"{type(value).__name__}: {value!r}",
                    expected="an array of T rows", fix=fix,
                )  # fmt: skip
            lengths.add(np.shape(part)[:1])
    if len(lengths) != 1 or lengths & {(), (0,)}:
        given = f"first axes of {sorted(lengths)}" if lengths else "no observations"
        raise errors.InvalidArgument(
            f"{what} needs series of one length.", where=errors.caller(), given=given,
            expected="T rows in each array, one or more", fix=fix,
        )  # fmt: skip


def check_inputs(inputs: Any, what: str) -> None:
    """The inputs of the steps are arrays."""
    for leaf in jax.tree.leaves(inputs):
        if arrived(leaf) is None:
            raise errors.DtypeError(
                f"{what} got inputs that are no arrays.", where=errors.caller(),
                given=shown(leaf), expected="arrays of T rows", fix="leave them out",
            )  # fmt: skip


def check_rows(
    model: GenerativeFunction, state: Any, xs: Any, observations: Mapping[str, Any]
) -> dict[str, Any]:
    """The series with a step axis in front, each row looked at as an observation is.

    Raises:
      AddressNotFound, ShapeError, DtypeError, SupportError: a row does not fit the step.
    """
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], xs)
    if not flatten(observations):  # of a filter whose steps score by themselves
        return dict(observations)
    some = next(iter(flatten(observations).values()))
    rows = np.shape(arrived(some.value if isinstance(some, Masked) else some))[0]
    sites = {
        path: replace(site, axes=(("step", rows), *site.axes))
        for path, site in model.sites(state, x).items()
    }
    return nest(check_values(sites, observations, "The series", (model.name,)))


def check_model(model: Any) -> None:
    """A step model is a generative function."""
    if not isinstance(model, GenerativeFunction):
        raise errors.InvalidArgument(
            "The steps of a filter are those of a generative function.", where=errors.caller(),
            given=type(model).__name__, expected="a generative function (state, x) -> (state, y)",
            fix="make it with @gen",
        )  # fmt: skip


def check_state(state: Any) -> None:
    """A state is of numbers alone."""
    for leaf in jax.tree.leaves(state):
        keys = jnp.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key)
        if keys or not is_array(leaf):
            raise errors.InvalidArgument(
                "The state before the first step is not of numbers.", where=errors.caller(),
                given=shown(leaf), expected="an array, or a pytree of arrays",
                fix="start from a state like those that the step returns",
            )  # fmt: skip


def next_state(trace: Trace) -> Any:
    """The state that a step leads to.

    Raises:
      InvalidArgument: the step returns no pair.
    """
    check_pair(trace.retval, trace.model)
    return trace.retval[0]


def check_pair(result: Any, model: GenerativeFunction) -> None:
    """Raise unless a step returns a state, and something beside it."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise errors.InvalidArgument(
            "A step returns the next state, and something beside it.",
            where=(errors.defined(model.fn), errors.caller()),
            given=f"a result of {model.name} that is no pair",
            expected="(state, y)",
            fix="return state, None",
        )


def check_structure(after: Any, before: Any, model: GenerativeFunction) -> None:
    """Raise unless the next state is a tree like the state."""
    new, old = jax.tree.structure(after), jax.tree.structure(before)
    if new != old:
        raise errors.InvalidArgument(
            "The next state has another structure than the state.",
            where=(errors.defined(model.fn), errors.caller()),
            given=str(new), expected=str(old), fix="return a state like the given one",
        )  # fmt: skip


def check_states(after: Any, before: Any, model: GenerativeFunction) -> None:
    """Raise unless the next particles are like the particles, which may be of narrower dtypes."""
    check_structure(after, before, model)
    where = (errors.defined(model.fn), errors.caller())
    rows = zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in rows:
        name = f"state{jax.tree_util.keystr(path)}"
        if old.shape != new.shape:
            raise errors.ShapeError(
                f"The next {name} has another shape than the one before.", where=where,
                given=f"shape {new.shape[1:]}", expected=f"shape {old.shape[1:]}",
                fix="start from a state of the shape that the step returns",
            )  # fmt: skip
        if jnp.issubdtype(old.dtype, jnp.inexact) and not jnp.issubdtype(new.dtype, jnp.inexact):
            raise errors.DtypeError(
                f"The next {name} has a dtype that cannot hold the one before.", where=where,
                given=str(new.dtype), expected=str(old.dtype),
                fix="start from a state of the dtype that the step returns",
            )  # fmt: skip
