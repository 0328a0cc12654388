"""Step size and mass matrix, found during warm-up: the windows of Stan.

The step size follows the acceptance probability by dual averaging (Nesterov 2009; Hoffman
and Gelman 2014, section 3.2), the inverse mass matrix the positions in windows of growing length
(Stan reference manual, "HMC algorithm parameters"), both by numpyro's functions. Where there are
gradients it is found `by_slopes`, which needs no positions that have spread: so there are windows
before Stan's first one, in which a chain comes from its start, for there trajectories are longest.
But a diagonal one is of the variances alone, where positions are many: among correlations gradients
tell how narrow a density is, not how wide; and one of low rank begins with these. Without gradients
it is the covariance, `shrunk`. After the last window the step size settles, from where it was.
After `n` steps nothing changes any more: the parameters are frozen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc_util import build_adaptation_schedule, dual_averaging, welford_covariance

from ppl.lockstep import lockstep

from ..kernel import State, Stats, Tuning
from .by_slopes import ENOUGH, Rows, by_slopes, low_rank_by_slopes
from .first_metric import FirstMetric
from .low_rank import LowRank
from .metric import InverseMass, Metric, shrunk

# Fewer positions than so are too few for variances; and a warm-up of fewer steps is too short
# for windows of before Stan's, and to settle after them.
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
    late: jax.Array  # after the last window, where the step size settles
    averaging: tuple
    covariance: tuple
    slopes: tuple  # that of the gradients
    rows: Rows | None  # for a metric of low rank
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
    start, learn = dual_averaging()
    _, settle = dual_averaging(gamma=SETTLING)
    low_rank = isinstance(metric.inverse_mass, LowRank)
    dense = not isinstance(metric.inverse_mass, LowRank) and metric.inverse_mass.ndim == 2
    # not by its `deviations`: each operation outside of a program is compiled for itself
    first_leaf = jax.tree.leaves(metric.inverse_mass)[0]
    size, dtype = first_leaf.shape[-1], first_leaf.dtype
    none, add, covariance = welford_covariance(diagonal=not dense)

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
        inside, ends, late = np.zeros((3, max(n, 1)), bool)
        for begin, last in phases(n)[1:-1]:
            inside[begin : last + 1] = adapt_mass
            ends[last] = adapt_mass
            late[:] = n >= FEW and np.arange(n) > last
        begun = metric if first is None else first(state, metric, n < FEW)
        step_size = jnp.asarray(begun.step_size, dtype)
        # towards ten times the size, as Stan does; few steps would not come back from there
        bold = 1 if first is not None and n < FEW else 10
        return _Found(
            time=jnp.zeros((), int),
            updated=jnp.asarray(inside),
            ends=jnp.asarray(ends),
            late=jnp.asarray(late),
            averaging=_typed(start(jnp.log(bold * step_size)), dtype),
            covariance=_typed(none(size), dtype),
            slopes=_typed(none(size), dtype),
            rows=Rows.none(size, dtype) if low_rank else None,
            metric=Metric(step_size, begun.inverse_mass),
        )

    def mass(matrices: tuple, rows: Rows, before: Any) -> InverseMass:
        """The inverse mass at the end of a window."""
        positions, n = covariance(matrices[0])[0], matrices[0][2]
        if gradient is None:
            return shrunk(positions, n, before)
        slopes = covariance(matrices[1])[0]
        if low_rank:
            return low_rank_by_slopes(rows, n, diagonal(positions, slopes, n, before.variances))
        if not dense:
            return diagonal(positions, slopes, n, before)
        of = (jnp.diagonal(x) for x in (positions, slopes, before))
        few = n < FEW
        found = jnp.where(few, jnp.diag(by_slopes(*of)), shrunk(positions, n, before))
        return jnp.where(n >= ENOUGH * size, by_slopes(positions, slopes, before), found)

    def diagonal(variances: jax.Array, slopes: jax.Array, n: Any, before: jax.Array) -> jax.Array:
        few = by_slopes(variances, slopes, before)
        return jnp.where(n < FEW, few, shrunk(variances, n, before))

    def renewed(mapped: tuple, shared: list, at_end: jax.Array, *own: Any) -> Any:
        """Of chains, most of which are nowhere near the end of a window."""
        found = jax.lax.cond(at_end.any(), lambda: jax.vmap(mass)(*own), lambda: own[-1])
        return jax.tree.map(
            lambda new, old: jnp.where(at_end.reshape(-1, *[1] * (old.ndim - 1)), new, old),
            found,
            own[-1],
        )

    def update(found: _Found, state: State, stats: Stats) -> _Found:
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
            added = _typed(add(gradient(state), slopes), dtype)
            slopes = jax.tree.map(lambda a, b: jnp.where(inside, a, b), added, slopes)
        rows = found.rows
        if gradient is not None and rows is not None:
            # outside of a window a row is written that nothing reads
            rows = rows.with_row(found.covariance[2], z, gradient(state))

        # the last metric differs little from the one before it
        last = found.late[jnp.minimum(found.time + 1, len(found.late) - 1)]
        again = jnp.where(last, averaging[1], jnp.log(10.0) + jnp.log(step_size))
        anew = _typed((start(again), none(size), none(size)), dtype)
        averaging, empty, flat = jax.tree.map(
            lambda a, b: jnp.where(at_end, a, b), anew, (averaging, kept, slopes)
        )
        matrices = (kept, slopes) if gradient is not None else (kept,)
        before = found.metric.inverse_mass
        inverse_mass = lockstep(renewed, [], (at_end, matrices, rows, before))
        return found._replace(
            time=found.time + 1,
            averaging=averaging,
            covariance=empty,
            slopes=flat,
            rows=rows,
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
