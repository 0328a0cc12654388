"""Moves along a trajectory are invariant, exactly: the weights of an orbit's points stay.

Given the momentum, a trajectory method (Hamiltonian Monte Carlo, the no-U-turn sampler, a slice
along a flow) goes to one of the points that a flow joins, by finitely many decisions. If the flow
keeps volume, as leapfrog steps do, the method leaves a density invariant if and only if it leaves
the density's values on each orbit invariant: sum_i w_i P(i -> j) = w_j. That is a finite sum, in
any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from ppl import errors, paths

from ..report import Verdict

SAME = 1e-6
"""Results this near to a point, in units of the largest coordinate, are that point."""


def check_orbit(
    move: Callable[[Any], Any],
    states: Any,
    log_weights: ArrayLike,
    *,
    results: Any = None,
    inner: slice = slice(None),
    tolerance: float | None = None,
) -> Verdict:
    """sum_i w_i P(move(x_i) = x_j) = w_j, for the points x_i of an orbit, over all paths.

    Of an orbit without an end, give a piece, and as `inner` the part of it that no point outside
    of the piece can reach.

    Args:
      move: from a state to where it goes, a random program whose draws have finitely many
        outcomes. The momentum is part of the state, and is not drawn.
      states: points of the orbit; a pytree whose arrays have them along the first axis. It may
        also hold what else `move` takes of each, directions on a tape, say.
      log_weights: log densities of the points, of shape (n,), up to a constant. That of a
        position and a momentum is minus the energy.
      results: what `move` gives for each point, where that is not the state itself: its position,
        say. No two may be equal.
      inner: which points are checked; all of them if left out.
      tolerance: of departures, relative to the sum of the weights; if left out, 1e-12 where
        probabilities are computed in 64 bits, and 1e-5 in 32.

    Returns:
      A verdict; `error` is the largest departure, `n` the number of paths. It fails, too, where
      a path leads to no point of the orbit.

    Raises:
      CannotIntegrate: a draw has not finitely many outcomes.
      InvalidArgument: two results can't be told apart, or the number of weights is another than
        that of points.

    Source: Neal, MCMC using Hamiltonian dynamics (2011), section 3.2; for trees, Hoffman and
    Gelman, The No-U-turn sampler (JMLR 2014), section 3.1.1, conditions C.1 to C.4.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw
    >>> from semantics import check_orbit
    >>> log_weights = jnp.array([0.0, -0.5, -0.3, -2.0])  # of four points in a ring
    >>> def barker(i):
    ...     j = (i + 1 - 2 * draw(dist.Bernoulli(0.5))) % 4
    ...     share = 1 / (1 + jnp.exp(log_weights[i] - log_weights[j]))
    ...     return jnp.where(draw(dist.Bernoulli(share)) == 1, j, i)
    >>> bool(check_orbit(barker, jnp.arange(4), log_weights))
    True
    >>> print(check_orbit(lambda i: (i + 1) % 4, jnp.arange(4), log_weights).witness)
    point 0 has a share of 0.403 before the move, and 0.0545 after it
    """
    log_w = np.asarray(log_weights, float)
    at = _rows(states if results is None else results)
    _check(at, log_w)
    found, masses = jax.jit(jax.vmap(paths(move)))(states)
    if tolerance is None:
        tolerance = 1e-12 if masses.dtype == np.float64 else 1e-5
    share = np.exp(log_w - log_w.max())
    share /= share.sum()
    n, count = masses.shape
    ends = _rows(jax.tree.map(lambda x: x.reshape(n * count, *x.shape[2:]), found))
    mass = np.asarray(masses).reshape(-1)
    to, off = _nearest(ends, at)
    lost = (mass > 0) & ~(off <= SAME * np.abs(at).max())
    if lost.any():
        k = int(np.argmax(lost))
        witness = f"from point {k // count} a path of probability {mass[k]:.3g} leads to no point"
        error = float(mass[lost].max())
        return Verdict(
            "orbit", False, "exact", error, tolerance, n * count, effect=tolerance, witness=witness
        )
    arrived = np.bincount(to, np.repeat(share, count) * mass, minlength=n)
    departure = np.abs(arrived - share)[inner]
    worst = np.arange(n)[inner][int(np.argmax(departure))]
    error = float(departure.max())
    witness = (
        f"point {worst} has a share of {share[worst]:.3g} before the move, "
        f"and {arrived[worst]:.3g} after it"
    )
    passed = error <= tolerance
    return Verdict(
        "orbit", passed, "exact", error, tolerance, n * count, effect=tolerance,
        witness="" if passed else witness,
    )  # fmt: skip


def _rows(tree: Any) -> np.ndarray:
    """All numbers of each point."""
    leaves = [np.asarray(x, float) for x in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], 1)


def _nearest(ends: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point that each result is nearest to, and how far that is."""
    to, off = np.zeros(len(ends), int), np.full(len(ends), np.inf)
    for i, point in enumerate(at):
        distance = np.abs(ends - point).max(1)
        nearer = distance < off
        to[nearer], off[nearer] = i, distance[nearer]
    return to, off


def _check(at: np.ndarray, log_w: np.ndarray) -> None:
    """Raise unless each point has a weight, and a result that no other one has."""
    if log_w.shape != at.shape[:1]:
        raise errors.InvalidArgument(
            "Each point of an orbit has one weight.", where=errors.caller(),
            given=f"log weights of shape {log_w.shape} of {len(at)} points",
            expected=f"shape ({len(at)},)", fix="give the log density at each point",
        )  # fmt: skip
    if not np.isfinite(at).all() or not log_w.max() < np.inf:
        raise errors.InvalidArgument(
            "A point of the orbit, or its weight, is no number.", where=errors.caller(),
            given=f"points up to {np.abs(at).max()}, log weights up to {log_w.max()}",
            expected="finite coordinates, and log weights below infinity",
            fix="take smaller steps of the flow",
        )  # fmt: skip
    gap = np.abs(at[:, None] - at[None]).max(-1) + np.diag(np.full(len(at), np.inf))
    i, j = np.unravel_index(np.argmin(gap), gap.shape)
    if not gap[i, j] > 2 * SAME * np.abs(at).max():
        raise errors.InvalidArgument(
            "Two points of the orbit can't be told apart by their results.", where=errors.caller(),
            given=f"points {i} and {j}, {gap[i, j]:.2g} apart",
            expected=f"points at least {2 * SAME * np.abs(at).max():.2g} apart",
            fix="begin the orbit elsewhere, or return more: the momentum, say",
        )  # fmt: skip
