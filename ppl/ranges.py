"""Ranges of values, read off code before it runs, by interval arithmetic.

An end is *reached* if values can lie there with positive probability: those of a constant and
of `max(x, 0)` are, those of a support are not. Operations that are not listed give the whole
line, so that a range is never too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np
from numpyro.distributions import constraints


class End(NamedTuple):
    """One end of a range, and whether values reach it."""

    at: float
    reached: bool = False


class Range(NamedTuple):
    """All numbers between two ends.

    >>> from ppl.ranges import LINE, of_operation
    >>> of_operation("logistic", {}, [LINE])
    Range(low=End(at=0.0, reached=False), high=End(at=1.0, reached=False))
    """

    low: End = End(-math.inf)
    high: End = End(math.inf)


LINE = Range()

_SAMES = (
    "broadcast_in_dim reshape squeeze expand_dims transpose rev slice copy copy_p "
    "convert_element_type stop_gradient reduce_max reduce_min reduce_precision cummax cummin "
    "dynamic_slice split"
)
_SAME = frozenset(_SAMES.split())


def of_value(value: Any) -> Range:
    """The range of a known value; of a traced one, the line."""
    number = isinstance(value, (bool, int, float)) or hasattr(value, "__array__")
    if isinstance(value, jax.core.Tracer) or not number:
        return LINE
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):  # a key, say
        return LINE
    if array.size == 0 or np.isnan(array).any():
        return LINE
    return Range(End(float(array.min()), True), End(float(array.max()), True))


def of_support(support: Any) -> Range:
    """The range of a support whose ends are known; a density gives the ends no mass."""
    if isinstance(support, constraints.independent):
        return of_support(support.base_constraint)
    low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return Range(End(of_value(low).low.at), End(of_value(high).high.at))


def hull(ranges: Sequence[Range]) -> Range:
    """The smallest range around all of them."""
    return Range(_least([r.low for r in ranges]), _greatest([r.high for r in ranges]))


def decided(a: Range, b: Range) -> bool:
    """Whether comparisons of `a` and `b` have one answer for all values (but for a null set)."""

    def before(high: End, low: End) -> bool:
        return high.at < low.at or (high.at == low.at and not (high.reached and low.reached))

    return before(a.high, b.low) or before(b.high, a.low)


def of_operation(name: str, params: dict, given: Sequence[Range]) -> Range:
    """The range of an operation's results, where its operands are in the ranges `given`."""
    if name in _SAME and given:
        return given[0]
    if name == "max":
        a, b = given
        return Range(_greatest([a.low, b.low]), _greatest([a.high, b.high]))
    if name == "min":
        a, b = given
        return Range(_least([a.low, b.low]), _least([a.high, b.high]))
    if name == "concatenate":
        return hull(given)
    if name in ("add", "add_any"):
        return _sum(*given)
    if name == "weak":  # zero, with a derivative
        return of_value(0.0)
    if name == "neg":
        return _negative(given[0])
    if name == "sub":
        return _sum(given[0], _negative(given[1]))
    if name == "mul":
        return _product(*given)
    if name == "div" and (given[1].low.at >= 0 or given[1].high.at <= 0):
        return _product(given[0], _inverse(given[1]))
    even = name == "square" or (name == "integer_pow" and params["y"] > 0 == params["y"] % 2)
    if even or name == "abs":
        return Range(End(0.0, _has_zero(given[0])))
    if name == "reduce_sum" and given[0].low.at >= 0:
        return Range(End(0.0, given[0].low.reached))
    function = _MONOTONE.get(name)
    if function is None:
        return LINE
    with np.errstate(all="ignore"):
        low, high = (End(float(function(end.at)), end.reached) for end in given[0])
    return _proper(low, high)


def _least(ends: Sequence[End]) -> End:
    at = min(end.at for end in ends)
    return End(at, any(end.reached for end in ends if end.at == at))


def _greatest(ends: Sequence[End]) -> End:
    at = max(end.at for end in ends)
    return End(at, any(end.reached for end in ends if end.at == at))


def _proper(low: End, high: End) -> Range:
    return LINE if math.isnan(low.at) or math.isnan(high.at) else Range(low, high)


def _negative(r: Range) -> Range:
    return Range(End(-r.high.at, r.high.reached), End(-r.low.at, r.low.reached))


def _sum(a: Range, b: Range) -> Range:
    low, high = (End(x.at + y.at, x.reached and y.reached) for x, y in zip(a, b, strict=True))
    return _proper(low, high)


def _product(a: Range, b: Range) -> Range:
    corners = [
        End(x.at * y.at if x.at and y.at else 0.0, x.reached and y.reached) for x in a for y in b
    ]
    zero = _has_zero(a) or _has_zero(b)  # reached, whatever the other factor is
    low, high = _least(corners), _greatest(corners)
    if zero:
        low = End(0.0, True) if low.at == 0 else low
        high = End(0.0, True) if high.at == 0 else high
    return _proper(low, high)


def _inverse(r: Range) -> Range:
    sign = 1.0 if r.low.at >= 0 else -1.0
    low, high = (End(1 / e.at if e.at else sign * math.inf, e.reached) for e in (r.high, r.low))
    return _proper(low, high)


def _has_zero(r: Range) -> bool:
    """Whether values can be zero with positive probability, as far as the ends say."""
    return any(end.at == 0 and end.reached for end in r) or r.low.at < 0 < r.high.at


_MONOTONE: dict[str, Callable[[float], Any]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": lambda x: np.log(max(x, 0.0)),
    "log1p": lambda x: np.log1p(max(x, -1.0)),
    "sqrt": lambda x: np.sqrt(max(x, 0.0)),
    "tanh": np.tanh,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "erf": math.erf,
}
