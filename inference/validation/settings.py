"""Settings are checked where they are given: a number out of range is told before anything runs.

What is traced cannot be looked at, and passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import errors


def check_count(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise `InvalidArgument` unless `value` is an int from `least` to `most`, known at once.

    >>> from inference.validation.settings import check_count
    >>> check_count("n", 3)
    >>> try:
    ...     check_count("n", 2.5)
    ... except ValueError as error:
    ...     print(error.what, error.expected)
    n is not a number of that kind. an int, 1 or more
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and value >= least and (most is None or value <= most):
        return
    known = ", known before the program runs" if isinstance(value, jax.core.Tracer) else ""
    limit = f"{least} or more" if most is None else f"from {least} to {most}"
    usual = max(least, 100) if most is None else min(max(least, 10), most)
    raise errors.InvalidArgument(
        f"{name} is not a number of that kind.", where=errors.caller(),
        given=f"{name}={shown(value)}",
        expected=f"an int, {limit}{known}", fix=f"{name}={usual}",
    )  # fmt: skip


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    least: float | None = None,
    most: float | None = None,
    fix: float,
) -> None:
    """Raise `InvalidArgument` unless `value` is one finite number in an interval.

    It must be so in the type of floats in use, too: 1e-300 is no positive number in single
    precision.

    Args:
      above, below: ends that do not belong to the interval.
      least, most: ends that do.
      fix: a usual value.

    >>> from inference.validation.settings import check_number
    >>> check_number("threshold", 0.5, least=0, most=1, fix=0.5)
    >>> try:
    ...     check_number("target_accept", 95.0, above=0, below=1, fix=0.8)
    ... except ValueError as error:
    ...     print(error.given, error.expected)
    target_accept=95.0 0 < target_accept < 1
    """
    if isinstance(value, jax.core.Tracer) and value.shape == () and value.dtype.kind in "fiu":
        return
    low, high = above if least is None else least, below if most is None else most
    if _is_number(value):
        x = _float(value)
        at_low = x > low or (least is not None and x == low)
        at_high = x < high or (most is not None and x == high)
        if math.isfinite(x) and at_low and at_high:
            return
    left = f"{low:g} {'<' if least is None else '<='} " if math.isfinite(low) else ""
    right = f" {'<' if most is None else '<='} {high:g}" if math.isfinite(high) else ""
    kind = "" if left and right else ", finite"
    raise errors.InvalidArgument(
        f"{name} is not a number of that kind.", where=errors.caller(),
        given=f"{name}={shown(value)}",
        expected=(f"{left}{name}{right}" if left or right else "a number") + kind,
        fix=f"{name}={fix:g}",
    )  # fmt: skip


def check_flag(name: str, value: Any) -> None:
    """Raise `InvalidArgument` unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise errors.InvalidArgument(
            f"{name} is neither True nor False.", where=errors.caller(), given=shown(value),
            expected="True or False", fix=f"{name}=True",
        )  # fmt: skip


def check_option(name: str, value: Any, options: Sequence[str]) -> None:
    """Raise `InvalidArgument` unless `value` is one of the `options`."""
    if not isinstance(value, str) or value not in options:
        raise errors.InvalidArgument(
            f"{name} is none of its choices.", where=errors.caller(),
            given=f"{name}={shown(value)}",
            expected=" or ".join(f'"{each}"' for each in options), fix=f'{name}="{options[0]}"',
        )  # fmt: skip


def as_numbers(value: Any) -> np.ndarray:
    """An array of floats; an empty one of what has no numbers, which no check takes.

    >>> from inference.validation.settings import as_numbers
    >>> as_numbers([0, 1]).tolist(), as_numbers("a").tolist(), as_numbers([1, None]).tolist()
    ([0.0, 1.0], [], [])
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # of rows of several lengths, or of foreign things
        return np.zeros(0)
    return array.astype(float) if array.dtype.kind in "fiu" else np.zeros(0)


def shown(value: Any) -> str:
    """What was given, in few words.

    >>> import jax.numpy as jnp
    >>> from inference.validation.settings import shown
    >>> shown(jnp.ones(3)), shown("a"), shown(-1.0)
    ('Array of shape (3,)', "'a'", '-1.0')
    """
    if isinstance(value, jax.core.Tracer):
        return f"a traced value of shape {value.shape}"
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"{_kind(value)} of shape {value.shape}" if value.ndim else str(value)
    text = repr(value) if type(value).__repr__ is not object.__repr__ else _kind(value)
    return text if len(text) <= 80 else f"{_kind(value)}: {text[:60]}..."


def _kind(value: Any) -> str:
    name = value.__name__ if isinstance(value, type) else type(value).__name__
    return "Array" if isinstance(value, jax.Array) else name


def _is_number(value: Any) -> bool:
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return value.shape == () and value.dtype.kind in "fiu"
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _float(value: Any) -> float:
    """The number in the type of floats in use."""
    with np.errstate(all="ignore"):
        try:
            return float(np.asarray(float(value)).astype(jnp.result_type(float)))
        except OverflowError:  # an int larger than any float
            return math.inf
