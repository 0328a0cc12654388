"""What is asked of times, and of what is given for each of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import errors

from ..validation.settings import shown


def array_of(value: Any) -> Any:
    """`value` as an array, whose dtype may be anything; one of objects of what is none.

    >>> from inference.gaussian.inputs import array_of
    >>> array_of([1, 2]).shape, array_of(10**400).dtype.name, array_of(None).dtype.name
    ((2,), 'object', 'object')
    """
    if isinstance(value, (jax.Array, np.ndarray)):
        return value
    try:
        return np.asarray(value)
    except (ValueError, TypeError):  # of rows of several lengths, or of foreign things
        return np.asarray(None)


def check_times(times: Any) -> int:
    """How many times there are; raise `InvalidArgument` unless they are numbers `(n,)`."""
    array = array_of(times)
    if not _real(array) or array.ndim != 1 or array.size == 0:
        _refuse("times", times, "one number for each time", "times=jnp.array([0.0, 1.0])")
    _check_numbers("times", array, None)
    return array.shape[0]


def check_each(name: str, value: Any, count: int, least: float | None = None) -> None:
    """Raise `InvalidArgument` unless `value` is a finite number, or one for each time."""
    array = array_of(value)
    if not _real(array) or array.shape not in ((), (count,)):
        _refuse(name, value, f"a number, or shape ({count},)", f"{name}=1.0")
    _check_numbers(name, array, least)


def check_table(
    name: str, value: Any, *shapes: tuple[int, ...], kind: Any = None, least: float | None = None
) -> None:
    """Raise `InvalidArgument` unless `value` has one of those shapes, and is of real numbers.

    Args:
      kind: of another type than numbers, bools.
      least: what numbers must be finite, and not below.
    """
    array = array_of(value)
    right = _real(array) if kind is None else jnp.issubdtype(array.dtype, kind)
    if not right or array.shape not in shapes:
        what = "real numbers" if kind is None else "bools"
        raise errors.InvalidArgument(
            f"{name} is no array of that kind.", where=errors.caller(),
            given=f"{name}={shown(value)}",
            expected=f"{what} of shape {' or '.join(str(shape) for shape in shapes)}",
            fix=f"{name}=jnp.{'ones' if kind else 'zeros'}({shapes[-1]})",
        )  # fmt: skip
    if least is not None:
        _check_numbers(name, array, least)


def check_values(values: Any, count: int, present: Any) -> None:
    """Raise `InvalidArgument` unless there is a number for each time, finite where present."""
    array = array_of(values)
    if not _real(array) or array.shape != (count,):
        _refuse("values", values, f"shape ({count},)", "predict(process, values, new_times)")
    if isinstance(array, jax.core.Tracer) or isinstance(present, jax.core.Tracer):
        return
    wrong = ~np.isfinite(np.asarray(array)) & (True if present is None else np.asarray(present))
    if np.any(wrong):
        raise errors.InvalidArgument(
            "A value of a Gaussian process is no number.", where=errors.caller(),
            given=f"values[{int(np.argmax(wrong))}] = {np.asarray(array)[wrong][0]}",
            expected="finite numbers where values are present",
            fix="gp(kernel, times, present=jnp.isfinite(values))",
        )  # fmt: skip


def check_present(present: Any, count: int) -> None:
    """Raise `InvalidArgument` unless there is a bool for each time."""
    array = array_of(present)
    if not jnp.issubdtype(array.dtype, jnp.bool_) or array.shape != (count,):
        raise errors.InvalidArgument(
            "present says of each value whether it is there.", where=errors.caller(),
            given=f"present={shown(present)}", expected=f"bools of shape ({count},)",
            fix="present=jnp.isfinite(values)",
        )  # fmt: skip


def _real(array: Any) -> bool:
    return any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))


def _refuse(name: str, value: Any, due: str, fix: str) -> None:
    raise errors.InvalidArgument(
        f"{name} is no array of that kind.", where=errors.caller(),
        given=f"{name}={shown(value)}", expected=f"real numbers: {due}", fix=fix,
    )  # fmt: skip


def _check_numbers(name: str, array: Any, least: float | None) -> None:
    if isinstance(array, jax.core.Tracer):
        return
    numbers = np.asarray(array)
    wrong = ~np.isfinite(numbers)
    if least is not None:
        wrong |= numbers < least
    if np.any(wrong):
        limit = "" if least is None else f", {least:g} or more"
        raise errors.InvalidArgument(
            f"{name} has a number that is none of those.", where=errors.caller(),
            given=f"{name} has {numbers[wrong].flat[0]}", expected=f"finite numbers{limit}",
            fix=f"{name}=1.0" if name != "times" else "leave those times out",
        )  # fmt: skip
