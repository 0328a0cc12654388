"""The score of a chain, by one pass back: no derivative of a loop is taken.

Let r be the derivative of the log evidence in a state's predicted mean, and let N be minus the
second one. They are carried backwards (de Jong 1989), and give the derivative in all else at
once: (r r' - N) / 2 in a noise Q, and so on (Koopman & Shephard 1992). They also smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .chain import Steps
from .elimination import eliminated
from .entries import contract, entries, joined, mirrored, packed, size, unpacked
from .filter import moved
from .lanes import Lanes


@dataclass(frozen=True)
class Seen:
    """What a filter saw, by entries, with times behind.

    Attributes:
      before, spread: mean and covariance of the state before each step, given the past.
      mean, covariance: m and P, of each state before its observation.
      observation: H, `(p, d)`.
      along, precision, gain: P H', S^-1 and P H' S^-1, of what is present and not certain.
      shift: S^-1 e, for the innovation e = y - H m.
      log_density: of all that is present; -inf if something differs from what was certain.
    """

    before: Any
    spread: Any
    mean: Any
    covariance: Any
    observation: Any
    along: Any
    precision: Any
    gain: Any
    shift: Any
    log_density: jax.Array


def seen(steps: Steps, kept: jax.Array) -> Seen:
    """All innovations at once, from the law of the state before each step, packed, `(k, n)`."""
    before, spread = _states(steps, kept)
    move, noise = (steps.by_entry(x, 2) for x in (steps.transition, steps.noise))
    offset = None if steps.offset is None else steps.by_entry(steps.offset, 1)
    m, p = moved(before, spread, move, noise, offset)
    h = steps.by_entry(steps.observation, 2)
    y = steps.by_entry(steps.values, 1)
    along = contract("ij,pj->ip", p, h)
    due = contract("pi,iq->pq", h, along) + _full(steps)
    inverse, pivots, shares = eliminated(due, steps.present)
    error = y - contract("pi,i->p", h, m)
    alone = joined(contract("pq,q->p", inverse, error))

    # numbers that are certain, up to the rounding of the sums they are made of
    size_of = contract("pi,i->p", abs(h), abs(m)) + abs(y)
    rounding = 4 * (steps.dimension + steps.width) * jnp.finfo(alone.dtype).eps
    least = rounding * joined(contract("pq,q->p", abs(inverse), size_of))
    wrong = (steps.present > 0) & (shares == 0) & (abs(alone) > least)
    logs = jnp.log(jnp.where(shares > 0, 2 * math.pi * pivots, 1.0)) + shares * alone**2
    log_density = jnp.where(jnp.any(wrong), -jnp.inf, -0.5 * jnp.sum(logs))

    weighed = contract("pq,p->pq", inverse, steps.by_entry(shares, 1))
    precision = contract("pq,pr->qr", weighed, inverse)
    gain = contract("ip,pq->iq", along, precision)
    shift = contract("pq,p->q", weighed, steps.by_entry(alone, 1))
    return Seen(before, spread, m, p, h, along, precision, gain, shift, log_density)


def _full(steps: Steps) -> Any:
    """R as a matrix `(p, p)`, by entries."""
    r = steps.by_entry(steps.variance, steps.variance.ndim - 1)
    if steps.variance.ndim == 3:
        return r
    if isinstance(r, np.ndarray):
        found = np.zeros((len(r), len(r)), object)
        for i, each in enumerate(r):
            found[i, i] = each
        return found
    return r[:, None] * jnp.eye(len(r), dtype=r.dtype)[..., None]


def backwards(steps: Steps, found: Seen) -> tuple[jax.Array, jax.Array]:
    """What leads back through each step, as two arrays for a loop: G `(d, d, n)`; v and W packed.

    r of the step is v + G' r of the next, and N is W + G' N G, for G = (I - K H) A: what an
    observation says, and the transition before it, are one map.
    """
    move = steps.by_entry(steps.transition, 2)
    sees = contract("pi,ij->pj", found.observation, move)
    pull = contract("pi,p->i", sees, found.shift)
    push = contract("iq,qj->ij", contract("pi,pq->iq", sees, found.precision), sees)
    past = joined(move - contract("ip,pj->ij", found.gain, sees))
    few = isinstance(push, np.ndarray)
    return past, packed(pull, push if few else entries(push, 2))


def back(carry: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
    """One step back: r and N of the step from those of the next, packed; which it keeps."""
    past, told = row
    d = past.shape[0]
    past = entries(past, 2)
    r, n = unpacked(carry, d)
    half = contract("ji,jk->ik", past, n)
    before = packed(contract("ji,j->i", past, r), mirrored(contract("ij,jk->ik", half, past)))
    return told + before, carry


def ends(
    step_rows: Callable[[Any], tuple], pieces: Any, d: int, dtype: Any, lanes: Lanes
) -> jax.Array:
    """r and N after each lane, packed, `(k, lanes)`; with one lane, `(k,)`.

    At the end they are zero.

    Args:
      step_rows: `backwards` of a piece, as a loop reads it.
    """
    width = d + size(d)
    if lanes.lanes == 1:
        return jnp.zeros(width, dtype)

    def through(carry: jax.Array, row: tuple) -> tuple[jax.Array, None]:
        pass_on = entries(carry[: d * d].reshape(d, d, -1), 2)
        pass_on = joined(contract("ji,jk->ik", entries(row[0], 2), pass_on)).reshape(d * d, -1)
        return jnp.concatenate([pass_on, back(carry[d * d :], row)[0]]), None

    def piece(carry: jax.Array, rows: Any) -> tuple[jax.Array, None]:
        return lax.scan(through, carry, step_rows(rows), reverse=True)[0], None

    eye = jnp.broadcast_to(jnp.eye(d, dtype=dtype).reshape(-1, 1), (d * d, lanes.lanes))
    nothing = jnp.concatenate([eye, jnp.zeros((width, lanes.lanes), dtype)])
    each, _ = lax.scan(piece, nothing, pieces, reverse=True)
    ahead = lambda x: jnp.moveaxis(joined(x), -1, 0)  # noqa: E731
    r, n = (ahead(x) for x in unpacked(each[d * d :], d))
    passes = each[: d * d].T.reshape(lanes.lanes, d, d)
    if lanes.pieces * lanes.depth == 1:
        _, r, n = lax.associative_scan(_composed, (passes, r, n), reverse=True)
        r, n = (jnp.concatenate([x[1:], jnp.zeros_like(x[:1])]) for x in (r, n))
    else:  # few lanes, from right to left

        def onward(later: tuple, lane: tuple) -> tuple[tuple, tuple]:
            return _composed((lane[0], *later), lane)[1:], later

        nothing = jnp.zeros_like(r[0]), jnp.zeros_like(n[0])
        _, (r, n) = lax.scan(onward, nothing, (passes, r, n), reverse=True)
    return packed(entries(r.T, 1), entries(jnp.moveaxis(n, 0, -1), 2))


def _composed(later: tuple, earlier: tuple) -> tuple:
    """Back through one lane and then through the one before it."""
    (g, c, d), (g2, c2, d2) = later, earlier
    turned = jnp.swapaxes(g2, -1, -2)
    return g2 @ g, (g2 @ c[..., None])[..., 0] + c2, g2 @ d @ turned + d2


def _states(steps: Steps, kept: jax.Array) -> tuple[Any, Any]:
    """A vector and a matrix for each step, by entries, of what a loop kept."""
    vector, matrix = (joined(part) for part in unpacked(kept, steps.dimension))
    return steps.by_entry(vector, 1), steps.by_entry(matrix, 2)


def score(steps: Steps, found: Seen, kept: jax.Array) -> Steps:
    """The derivative of the log evidence in each part of the steps.

    For u = S^-1 e - K' r and D = S^-1 + K' N K, of r and N after an observation, that in R is
    (u u' - D) / 2, and that in a value -u. What is `present` has none.

    Args:
      kept: r and N after each step, packed, `(k, n)`.
    """
    p, gain = found.covariance, found.gain
    r, n, pull, push, weighed = _observed(found, *_states(steps, kept))
    square = contract("i,j->ij", r, r) - n
    half = contract("ij,jk->ik", steps.by_entry(steps.transition, 2), found.spread)
    turn = contract("i,j->ij", r, found.before) + contract("ij,jk->ik", square, half)

    filtered = p - contract("ip,jp->ij", gain, found.along)
    smooth = found.mean + contract("ij,j->i", p, r)
    seen_by = gain - contract("ij,jp->ip", filtered, weighed)
    by_row = joined(contract("p,i->pi", pull, smooth) - contract("ip->pi", seen_by))
    always = steps.observation.shape[-1] == 1
    noise = joined(contract("p,q->pq", pull, pull) - push) / 2
    if steps.variance.ndim == 2:
        noise = jnp.stack([noise[i, i] for i in range(steps.width)])
    return Steps(
        transition=joined(turn),
        noise=joined(square) / 2,
        observation=by_row.sum(-1, keepdims=True) if always else by_row,
        variance=noise,
        present=jnp.zeros_like(steps.present),
        values=-joined(pull),
        offset=None if steps.offset is None else joined(r),
    )


def smoothed(steps: Steps, found: Seen, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean `(d, n)` and covariance `(d, d, n)` of each state, given all observations.

    They are m + P r and P - P N P, for the r and N before an observation: no covariance is
    inverted.
    """
    r, n, *_ = _observed(found, *_states(steps, kept))
    p = found.covariance
    drop = contract("ij,jk->ik", contract("ij,jk->ik", p, n), p)
    return joined(found.mean + contract("ij,j->i", p, r)), joined(p - drop)


def _observed(found: Seen, after: Any, curve: Any) -> tuple[Any, ...]:
    """r and N before an observation, from those after it; and u, D and N K (see `score`)."""
    h, gain = found.observation, found.gain
    weighed = contract("ij,jp->ip", curve, gain)
    pull = found.shift - contract("ip,i->p", gain, after)
    push = found.precision + contract("ip,iq->pq", gain, weighed)
    cross = contract("pi,jp->ij", h, weighed)
    back = contract("iq,qj->ij", contract("pi,pq->iq", h, push), h)
    r = after + contract("pi,p->i", h, pull)
    return r, curve - cross - contract("ij->ji", cross) + back, pull, push, weighed
