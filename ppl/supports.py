"""Supports and parameters of distributions: in words, and checked where they are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.core
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from . import errors
from .border import at


def support_name(support: Any) -> str:
    """A support in words, with its bounds when they are plain numbers."""
    if isinstance(support, constraints.independent):
        return support_name(support.base_constraint)
    name = type(support).__name__.strip("_")
    name = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
    bounds = [getattr(support, b, None) for b in ("lower_bound", "upper_bound")]
    shown = [f"{b:g}" for b in bounds if isinstance(b, (int, float))]
    return f"{name}({', '.join(shown)})" if shown else name


def parts(d: Any) -> Iterator[Any]:
    """The distributions that `d` is made of directly."""
    for value in list(d.__dict__.values()):
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, dist.Distribution):
                yield part


def inner_distributions(d: Any) -> Iterator[Any]:
    """The distributions that `d` is made of, at any depth."""
    for part in parts(d):
        yield part
        yield from inner_distributions(part)


def constrained(d: Any) -> dict[str, Any]:
    """The parameters of a distribution and of those that it derives from, with constraints."""
    found: dict[str, Any] = {}
    for kind in reversed(type(d).__mro__):
        found.update(vars(kind).get("arg_constraints", {}))
    return found


def check_parameters(
    d: Any, where: str, name: str, order: bool = True, caller: str | None = None
) -> None:
    """Raise `InvalidDistribution` for parameters that are known and invalid.

    Args:
      order: whether `low` and `high` are compared too.
      caller: a second place for the error: where the arguments are given.
    """
    places = (f"{name} at {where}", *(() if caller is None else (caller,)))
    for inner in (*inner_distributions(d), d):
        if order:
            _check_order(inner, places)
        _check(inner, places)


def _check(d: Any, places: tuple[str, ...]) -> None:
    for parameter, constraint in constrained(d).items():
        value = d.__dict__.get(parameter)
        if (
            value is None
            or isinstance(value, jax.core.Tracer)
            or constraints.is_dependent(constraint)
        ):
            continue
        if not isinstance(value, (int, float, np.ndarray, np.generic, jax.Array)):
            continue
        with jax.ensure_compile_time_eval():
            ok = np.asarray(constraint(np.asarray(value)))
        if not np.all(ok):
            raise errors.InvalidDistribution(
                f"{type(d).__name__} has an invalid parameter `{parameter}`.",
                where=places,
                given=f"{parameter} = {_short(np.asarray(value), ok)}",
                expected=support_name(constraint),
                fix=_remedy(constraint),
            )


def _short(value: np.ndarray, ok: np.ndarray) -> str:
    """A parameter, or of a long one the first that is wrong, and where."""
    if value.size <= 6 or ok.shape != value.shape:
        return str(value)
    return f"{value[~ok][0]}{at(~ok)}"


def _check_order(d: Any, places: tuple[str, ...]) -> None:
    """`low` is below `high`, which numpyro's constraints do not say."""
    ends = [d.__dict__.get(end) for end in ("low", "high")]
    if any(end is None or isinstance(end, jax.core.Tracer) for end in ends):
        return
    low, high = (np.asarray(end) for end in ends)
    if low.dtype == object or high.dtype == object or np.broadcast(low, high).size == 0:
        return
    if not np.all(low <= high if d.support.is_discrete else low < high):
        raise errors.InvalidDistribution(
            f"{type(d).__name__} has no room between `low` and `high`.",
            where=places,
            given=f"low = {low}, high = {high}",
            expected="low < high",
            fix="exchange them, or check how they are computed",
        )


def _remedy(constraint: Any) -> str:
    name = support_name(constraint)
    if name.startswith("real"):
        return "correct what it is computed from: it is NaN or infinite"
    if "simplex" in name:
        return "divide the weights by their sum, or give logits"
    if "unit_interval" in name:
        return "give a probability, for instance by jax.nn.sigmoid"
    return "constrain it, for instance with jnp.exp or jax.nn.softplus for a scale"
