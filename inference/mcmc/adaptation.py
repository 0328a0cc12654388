"""Step size and mass matrix, found during warm-up: the windows of Stan.

The step size follows the acceptance probability by dual averaging (Nesterov 2009; Hoffman
and Gelman 2014, section 3.2), the inverse mass matrix is the covariance of the positions in
windows of growing length (Stan reference manual, "HMC algorithm parameters"), both by
numpyro's functions; it is `shrunk` in a way of ours. In short windows, where positions have
not spread yet, it is `by_slopes`; so there are windows before Stan's first one, in which a chain
comes from its start: there trajectories are longest. After the last one the step size settles,
from where it was. After `n` steps nothing changes any more: the parameters are frozen.
"""

from __future__ import annotations

import itertools
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

# Windows by slopes end after so many steps, and where Stan's windows begin. Of nine posteriors
# most of a warm-up's gradients were in its first hundred steps, a third to a half.
EARLY = (10, 30)

# `gamma` of dual averaging after the last window, twice that of before: the step size jumps about
# half as much, and as acceptance falls faster than it rises, its average is nearer to the target
# (.81 to .87 for .8 on four posteriors, where it was .87 to .93).
SETTLING = 0.1


class _Found(NamedTuple):
    """The state of a warm-up."""

    time: jax.Array
    updated: jax.Array  # in the windows: the positions count, and at an end they are used
    ends: jax.Array
    early: jax.Array  # and there by slopes, of however many positions
    late: jax.Array  # after the last window, where the step size settles
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
    _, settle = dual_averaging(gamma=SETTLING)
    none, add, covariance = welford_covariance(diagonal=metric.inverse_mass.ndim == 1)
    none_yet, add_slope, variances = welford_covariance(diagonal=True)
    size = metric.inverse_mass.shape[-1]
    few = min(5 * size, FEW) if gradient is not None else 0

    def phases(n: int) -> list[tuple[int, int]]:
        """First and last step of each window, and of what is before and after them all."""
        if n == 0:
            return []
        first, *others = ((int(begin), int(last)) for begin, last in build_adaptation_schedule(n))
        if gradient is None or n < FEW:
            return [first, *others]
        ends = [-1, *(end - 1 for end in EARLY if end <= first[1]), first[1]]
        early = [(before + 1, end) for before, end in itertools.pairwise(ends)]
        return [(0, -1), *early, *others]

    def init(state: State, n: int) -> _Found:
        # of a warm-up of no steps `update` is traced, though never run
        inside, ends, early, late = np.zeros((4, max(n, 1)), bool)
        for begin, last in phases(n)[1:-1]:
            inside[begin : last + 1] = adapt_mass
            ends[last] = adapt_mass
            early[last] = n >= FEW and begin <= EARLY[-1]
            late[:] = n >= FEW and np.arange(n) > last
        dtype = metric.inverse_mass.dtype
        begun = metric if first is None else first(state, metric, n < FEW)
        step_size = jnp.asarray(begun.step_size, dtype)
        # towards ten times the size, as Stan does; few steps would not come back from there
        bold = 1 if first is not None and n < FEW else 10
        return _Found(
            time=jnp.zeros((), int),
            updated=jnp.asarray(inside),
            ends=jnp.asarray(ends),
            early=jnp.asarray(early),
            late=jnp.asarray(late),
            averaging=_typed(start(jnp.log(bold * step_size)), dtype),
            covariance=_typed(none(size), dtype),
            slopes=_typed(none_yet(size), dtype),
            metric=Metric(step_size, begun.inverse_mass),
        )

    def update(found: _Found, state: State, stats: Stats) -> _Found:
        dtype = metric.inverse_mass.dtype
        averaging, step_size = found.averaging, found.metric.step_size
        if target_accept is not None:
            off, late = target_accept - stats["accept"], found.late[found.time]
            fast, slow = (_typed(how(off, averaging), dtype) for how in (learn, settle))
            averaging = jax.tree.map(lambda a, b: jnp.where(late, b, a), fast, slow)
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
                slow = (n < few) | found.early[found.time]
                inverse_mass = jnp.where(slow, early, inverse_mass)
            again = jnp.log(10.0) + jnp.log(step_size)
            # the last metric differs little from the one before it
            last = found.late[jnp.minimum(found.time + 1, len(found.late) - 1)]
            begun = start(jnp.where(last, averaging[1], again))
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
        return {"windows": np.array(phases(n), int).reshape(-1, 2)}

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
