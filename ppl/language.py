"""The words of a model: `sample`, `factor`, `observe`."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import distributions, errors
from .addresses import as_path
from .effects import call_p, factor_p, sample_p
from .randomness import bind_parameters


def sample(address: str | tuple[str, ...], source: Any) -> Any:
    """A choice at `address` from a distribution, or a call of a generative function.

    Args:
      address: a string; a tuple of strings is a path.
      source: a numpyro distribution, or `other_model(args)`, whose choices then
        lie below `address`.

    Returns:
      The value (an array), or the callee's return value.

    Raises:
      OutsideModel: not inside a `@gen` function.
      InvalidDistribution, InvalidAddress: bad arguments.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def model():
    ...     return sample("x", dist.Normal(0.0, 1.0))
    >>> trace = seed(model.simulate)(jax.random.key(0))
    >>> bool(trace["x"] == trace.retval)
    True
    """
    path, at = as_path(address), errors.caller()
    bind = getattr(source, "__bind_call__", None)
    if bind is not None:
        leaves, jaxpr, rebuild = bind()
        return rebuild(call_p.bind(*leaves, jaxpr=jaxpr, address=path, source=at))
    leaves, params = bind_parameters(source, at, f"sample({errors.show(path)}, ...)")
    return sample_p.bind(*leaves, **params, address=path, source=at)[0]


def inline(call: Any) -> Any:
    """The choices of `call` at the current address, with no prefix of their own."""
    leaves, jaxpr, rebuild = call.__bind_call__()
    return rebuild(call_p.bind(*leaves, jaxpr=jaxpr, address=(), source=errors.caller()))


def factor(log_weight: Any) -> None:
    """Multiply the measure of the program by exp(log_weight), a scalar.

    Raises:
      ShapeError: `log_weight` is no scalar.
      OutsideModel: not inside a `@gen` function.
    """
    at = errors.caller()
    if jnp.shape(log_weight) != ():
        raise errors.ShapeError(
            "factor takes a scalar log weight.",
            where=at,
            given=f"shape {jnp.shape(log_weight)}",
            expected="shape ()",
            fix="sum it: factor(log_weight.sum())",
        )
    factor_p.bind(jnp.asarray(log_weight, float), source=at)


def observe(distribution: Any, value: Any) -> None:
    """Condition in place: the program's measure times the density at `value`.

    Raises:
      ShapeError: `value` has not the shape of the distribution's values.
      SupportError: `value` is known and outside the support, or not a number.
    """
    at = errors.caller()
    _, params = bind_parameters(distribution, at, "observe")
    if jnp.shape(value) != params["shape"]:
        raise errors.ShapeError(
            "An observed value has another shape than its distribution.",
            where=at,
            given=f"shape {jnp.shape(value)}",
            expected=f"shape {params['shape']}",
            fix="reshape the value, or .expand()/.to_event() the distribution",
        )
    check_support(distribution, value, "observe", (at,))
    log_weight = distributions.log_density(distribution, jnp.asarray(value))
    factor_p.bind(jnp.asarray(log_weight.sum(), float), source=at)


def check_support(d: Any, value: Any, name: str, where: tuple[str, ...]) -> None:
    """Raise `SupportError` for a known value that is no number or off the support."""
    if isinstance(value, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():
        array = np.asarray(value)
        if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
            raise errors.SupportError(
                f"The value of {name} is not a number.",
                where=where,
                given=f"{int(np.isnan(array).sum())} NaN of {array.size} values",
                expected="numbers",
                fix="mark missing data: Masked(value, mask) with mask false where it is missing",
            )
        try:
            ok = np.asarray(d.support(array))
        except Exception:  # a support whose bounds are still traced cannot be tested here
            return
    if not ok.all():
        bad = array if ok.shape != array.shape else array[~ok]
        raise errors.SupportError(
            f"The value of {name} is outside the support of its distribution.",
            where=where,
            given=f"{np.ravel(bad)[0]} ({int((~ok).sum())} of {ok.size} outside)",
            expected=distributions.support_name(d.support),
            fix="check the data and the distribution's parameters",
        )
