"""Supports and parameters of distributions: in words, and checked where they are known."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from . import errors


def support_name(support: Any) -> str:
    """A support in words, with its bounds when they are plain numbers."""
    if isinstance(support, constraints.independent):
        return support_name(support.base_constraint)
    name = type(support).__name__.strip("_")
    name = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
    bounds = [getattr(support, b, None) for b in ("lower_bound", "upper_bound")]
    shown = [f"{b:g}" for b in bounds if isinstance(b, (int, float))]
    return f"{name}({', '.join(shown)})" if shown else name


def check_parameters(d: Any, where: str, name: str) -> None:
    """Raise `InvalidDistribution` for parameters that are known and invalid."""
    for inner in ("base_dist", "_base_dist"):
        if isinstance(getattr(d, inner, None), dist.Distribution):
            check_parameters(getattr(d, inner), where, name)
    for parameter, constraint in d.arg_constraints.items():
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
            ok = np.all(np.asarray(constraint(np.asarray(value))))
        if not ok:
            raise errors.InvalidDistribution(
                f"{type(d).__name__} has an invalid parameter `{parameter}`.",
                where=f"{name} at {where}",
                given=f"{parameter} = {value}",
                expected=support_name(constraint),
                fix=_remedy(constraint),
            )


def _remedy(constraint: Any) -> str:
    name = support_name(constraint)
    if "simplex" in name:
        return "divide the weights by their sum, or give logits"
    if "unit_interval" in name:
        return "give a probability, for instance by jax.nn.sigmoid"
    return "constrain it, for instance with jnp.exp or jax.nn.softplus for a scale"
