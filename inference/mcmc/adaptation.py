"""Step size and mass matrix, found during warm-up: the windows of Stan.

The step size follows the acceptance probability by dual averaging (Nesterov 2009; Hoffman
and Gelman 2014, section 3.2), the inverse mass matrix is the covariance of the positions in
windows of growing length (Stan reference manual, "HMC algorithm parameters"), both by
numpyro's functions; it is `shrunk` in a way of ours. In short windows, where positions have
not spread yet, it is `by_slopes`. After `n` steps nothing changes any more: the parameters are
frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc_util import build_adaptation_schedule, dual_averaging, welford_covariance

from ..kernel import State, Stats, Tuning
from .first_metric import FirstMetric
from .metric import Metric, by_slopes, shrunk

# Fewer positions than so, or than five a coordinate, are too few for a covariance; and a
# warm-up of fewer steps is too short to begin without one.
FEW = 150


class _Found(NamedTuple):
    """The state of a warm-up."""

    time: jax.Array
    updated: jax.Array  # in the windows: the positions count, and at an end they are used
    ends: jax.Array
    averaging: tuple
    covariance: tuple
    slopes: tuple  # the variances of the gradients
    metric: Metric


def windows(
    position: Callable[[State], jax.Array],
    metric: Metric,
    target_accept: float | None,
    adapt_mass: bool = True,
    gradient: Callable[[State], jax.Array] | None = None,
    first: FirstMetric | None = None,
) -> Tuning:
    """The tuning of a kernel with a `Metric` as parameters and `accept` in its statistics.

    Args:
      position: the flat unconstrained vector of a state.
      metric: where to start.
      target_accept: the average acceptance probability to reach; None keeps the step size,
        and needs no `accept`.
      adapt_mass: whether the inverse mass matrix changes.
      gradient: of a state, of the log density or the potential; where there is none, all
        windows count positions alone.
      first: the metric of the first step, from the state there; None for `metric`.
    """
    start: Any
    covariance: Any
    variances: Any
    start, learn = dual_averaging()
    none, add, covariance = welford_covariance(diagonal=metric.inverse_mass.ndim == 1)
    none_yet, add_slope, variances = welford_covariance(diagonal=True)
    size = metric.inverse_mass.shape[-1]
    few = min(5 * size, FEW) if gradient is not None else 0

    def init(state: State, n: int) -> _Found:
        # of a warm-up of no steps `update` is traced, though never run
        inside, ends = np.zeros(max(n, 1), bool), np.zeros(max(n, 1), bool)
        for begin, last in build_adaptation_schedule(n)[1:-1] if n else []:
            inside[begin : last + 1] = adapt_mass
            ends[last] = adapt_mass
        dtype = metric.inverse_mass.dtype
        begun = metric if first is None else first(state, metric, n < FEW)
        step_size = jnp.asarray(begun.step_size, dtype)
        # towards ten times the size, as Stan does; few steps would not come back from there
        bold = 1 if first is not None and n < FEW else 10
        return _Found(
            time=jnp.zeros((), int),
            updated=jnp.asarray(inside),
            ends=jnp.asarray(ends),
            averaging=_typed(start(jnp.log(bold * step_size)), dtype),
            covariance=_typed(none(size), dtype),
            slopes=_typed(none_yet(size), dtype),
            metric=Metric(step_size, begun.inverse_mass),
        )

    def update(found: _Found, state: State, stats: Stats) -> _Found:
        dtype = metric.inverse_mass.dtype
        averaging, step_size = found.averaging, found.metric.step_size
        if target_accept is not None:
            averaging = _typed(learn(target_accept - stats["accept"], averaging), dtype)
            step_size = _positive(jnp.exp(averaging[0]))
        inside, at_end = found.updated[found.time], found.ends[found.time]
        z = position(state)
        added = _typed(add(z, found.covariance), dtype)
        kept = jax.tree.map(lambda a, b: jnp.where(inside, a, b), added, found.covariance)
        slopes = found.slopes
        if gradient is not None:
            added = _typed(add_slope(gradient(state), slopes), dtype)
            slopes = jax.tree.map(lambda a, b: jnp.where(inside, a, b), added, slopes)

        def renewed(_: None) -> tuple:
            matrix, n, before = covariance(kept)[0], kept[2], found.metric.inverse_mass
            inverse_mass = shrunk(matrix, n, before)
            if few:
                early = by_slopes(matrix, variances(slopes)[0], before)
                inverse_mass = jnp.where(n < few, early, inverse_mass)
            begun = start(jnp.log(10.0) + jnp.log(step_size))
            return _typed((begun, none(size), none_yet(size)), dtype), inverse_mass

        def same(_: None) -> tuple:
            return (averaging, kept, slopes), found.metric.inverse_mass

        (averaging, kept, slopes), inverse_mass = jax.lax.cond(at_end, renewed, same, None)
        return found._replace(
            time=found.time + 1,
            averaging=averaging,
            covariance=kept,
            slopes=slopes,
            metric=Metric(step_size, inverse_mass),
        )

    def freeze(found: _Found) -> Metric:
        averaged = _positive(jnp.exp(found.averaging[1]))
        # a warm-up of no steps leaves everything as it was
        step_size = jnp.where(found.averaging[3] > 0, averaged, found.metric.step_size)
        return Metric(step_size, found.metric.inverse_mass)

    def schedule(n: int) -> dict[str, Any]:
        return {"windows": np.array(build_adaptation_schedule(n) if n else []).reshape(-1, 2)}

    return Tuning(init, lambda found: found.metric, update, freeze, schedule)


def _positive(step_size: jax.Array) -> jax.Array:
    finfo = jnp.finfo(step_size.dtype)
    return jnp.clip(step_size, finfo.tiny, finfo.max)


def _typed(tree: Any, dtype: Any) -> Any:
    """The floats of numpyro's states in the dtype of the positions."""
    arrays = jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, arrays
    )
