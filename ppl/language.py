"""The words of a model: `sample`, `factor`, `observe`."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import distributions, errors
from .addresses import as_path
from .arguments import is_array
from .border import arrived, at, fitted
from .effects import call_p, factor_p, sample_p
from .masks import leading
from .randomness import bind_parameters
from .supports import support_name


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
      ShapeError, DtypeError, SupportError: `log_weight` is no scalar, no real number, or NaN.
      OutsideModel: not inside a `@gen` function.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import factor, gen, integrate, sample
    >>> @gen
    ... def model():
    ...     x = sample("x", dist.Bernoulli(0.5))
    ...     factor(jnp.where(x == 1, jnp.log(3.0), 0.0))
    >>> mass = integrate(lambda: jnp.exp(model.generate({})[1]))()
    >>> print(f"{mass:.4f}")  # (3 + 1) / 2
    2.0000
    """
    at = errors.caller()
    known = not isinstance(log_weight, jax.core.Tracer)
    if known and not (is_array(log_weight) and jnp.isrealobj(log_weight)):
        raise errors.DtypeError(
            "factor takes a real log weight.",
            where=at,
            given=f"{type(log_weight).__name__} {log_weight!r}",
            expected="a number, or an array of shape ()",
            fix="give the log of the weight: factor(jnp.log(weight))",
        )
    if jnp.shape(log_weight) != ():
        raise errors.ShapeError(
            "factor takes a scalar log weight.",
            where=at,
            given=f"shape {jnp.shape(log_weight)}",
            expected="shape ()",
            fix="sum it: factor(log_weight.sum())",
        )
    if known and np.isnan(np.asarray(log_weight)):
        raise errors.SupportError(
            "The log weight of factor is not a number.",
            where=at,
            given="NaN",
            expected="a number, or -jnp.inf for a weight of zero",
            fix="correct the computation of the log weight",
        )
    factor_p.bind(jnp.asarray(log_weight, float), source=at)


def observe(distribution: Any, value: Any) -> None:
    """Condition in place: the program's measure times the density at `value`.

    Raises:
      ShapeError: `value` has not the shape of the distribution's values.
      SupportError: `value` is known and outside the support, or not a number.
      InvalidDistribution: `distribution` is none, or has an invalid parameter.
      OutsideModel: not inside a `@gen` function.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import gen, integrate, observe, sample
    >>> @gen
    ... def model():
    ...     x = sample("x", dist.Bernoulli(0.5))
    ...     observe(dist.Bernoulli(jnp.where(x == 1, 0.75, 0.25)), 1)
    >>> evidence = integrate(lambda: jnp.exp(model.generate({})[1]))()
    >>> print(f"{evidence:.4f}")
    0.5000
    """
    place = errors.caller()
    _, params = bind_parameters(distribution, place, "observe")
    given, value = value, arrived(value)
    if value is None:
        raise errors.DtypeError(
            "An observed value is no array.",
            where=place,
            given=f"{type(given).__name__}: {given!r}",
            expected=f"an array of {params['dtype']}{list(params['shape'])}",
            fix="give a number or an array",
        )
    if jnp.shape(value) != params["shape"]:
        raise errors.ShapeError(
            "An observed value has another shape than its distribution.",
            where=place,
            given=f"shape {jnp.shape(value)}",
            expected=f"shape {params['shape']}",
            fix="reshape the value, or .expand()/.to_event() the distribution",
        )
    if not isinstance(value, (jax.Array, jax.core.Tracer)):
        value = fitted(value, params["dtype"], "observe has", (place,))
    check_support(distribution, value, "observe", (place,))
    log_weight = distributions.log_density(distribution, jnp.asarray(value))
    factor_p.bind(jnp.asarray(log_weight.sum(), float), source=place)


def check_support(d: Any, value: Any, name: str, where: tuple[str, ...], mask: Any = None) -> None:
    """Raise `SupportError` for a known value that is no number or off the support.

    Only what `mask`, if not None, keeps is checked (`ppl.masks`).
    """
    if isinstance(value, jax.core.Tracer) or not np.size(value):
        return
    d = distributions.elementwise(d)
    event = len(d.event_shape)
    with jax.ensure_compile_time_eval():
        array = np.asarray(value)
        if mask is not None and np.ndim(mask) > array.ndim - event:  # of parts of vectors
            array, mask = np.where(mask, array, 0), None
        if np.issubdtype(array.dtype, np.floating):
            # numbers below the least normal one are zeros where the density is computed
            array = np.where(np.abs(array) < np.finfo(array.dtype).tiny, 0, array)
            nan = np.isnan(array)
            if event:
                nan = nan.any(tuple(range(-event, 0)))
            count = int((nan if mask is None else nan & leading(mask, nan.ndim)).sum())
            if count:
                raise errors.SupportError(
                    f"The value of {name} is not a number.",
                    where=where,
                    given=f"NaN{at(nan if mask is None else nan & mask)}",
                    expected="numbers",
                    fix="mark missing data: Masked(value, mask) with mask false where "
                    "it is missing",
                )
        try:
            ok = np.asarray(d.support(array))
        except Exception:  # a support whose bounds are still traced cannot be tested here
            return
    bad: Any = np.asarray(~ok if mask is None else ~ok & leading(mask, ok.ndim))
    if bad.any():
        shown = array[bad] if bad.shape == array.shape[: bad.ndim] else array
        raise errors.SupportError(
            f"The value of {name} is outside the support of its distribution.",
            where=where,
            given=f"{shown[0] if shown.ndim else shown}{at(bad if np.ndim(value) else bad.any())}",
            expected=support_name(d.support),
            fix=_advice(d.support, shown),
        )


def _advice(support: Any, values: np.ndarray) -> str:
    """What to do about values off a support; those at an open end are usually roundings."""
    for end in ("lower_bound", "upper_bound"):
        bound = getattr(support, end, None)
        if isinstance(bound, (int, float)) and values.size and np.all(values == bound):
            return (
                f"the support is open at {bound:g}: a value there has density zero. If it was "
                "rounded, add half the last digit; if it means nothing happened, model that apart "
                "(dist.ZeroInflatedDistribution, dist.HurdleDistribution, or a Bernoulli)"
            )
    return "check the data and the distribution's parameters"
