"""The score of a chain, by one pass back: no derivative of a loop is taken.

Let r be the derivative of the log evidence in a state's predicted mean, and let N be minus the
second one. They are carried backwards (de Jong 1989), and give the derivative in all else at
once: (r r' - N) / 2 in a noise Q, and so on (Koopman & Shephard 1992). They also smooth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .chain import Steps
from .entries import contract, entries, joined, mirrored, packed, size, times, unpacked
from .filter import blocks_of, cut, gain_of, uncut


@dataclass(frozen=True)
class Seen:
    """What a filter saw, by entries, with times behind.

    Attributes:
      mean, covariance: m and P, of each state before its observation.
      along, precision: P h, and 1 / S or 0.
      spread, error: S, and the innovation e = y - h m.
    """

    mean: Any
    covariance: Any
    along: Any
    precision: Any
    spread: Any
    error: Any


def seen(steps: Steps, mean: jax.Array, covariance: jax.Array) -> Seen:
    """All innovations at once."""
    h, m, p = steps.sees(1), entries(mean, 1), entries(covariance, 2)
    along, spread, precision = gain_of(p, h, steps.variance, steps.present)
    return Seen(m, p, along, precision, spread, steps.values - contract("i,i->", h, m))


def backwards(steps: Steps, found: Seen, along: str) -> tuple[Any, Any, jax.Array]:
    """A' r and A' N A of the *next* step, at each step, by entries; and, packed, of the first.

    At the last step they are zero.
    """
    d, blocks = steps.dimension, blocks_of(along, steps.count)
    h = steps.sees(0 if blocks == 1 else 1)
    gain = joined(times(found.along, found.precision))
    parts = steps.transition, gain, found.precision, found.precision * found.error
    rows, dtype = cut(parts, blocks), gain.dtype

    def read(row: tuple) -> tuple:
        return entries(row[0], 2), entries(row[1], 1), *row[2:]

    def step(carry: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
        move, gain, precision, pull = read(row)
        r, n = _observed(*unpacked(carry, d), h, gain, precision, pull)
        half = contract("ji,jk->ik", move, n)
        back = packed(contract("ji,j->i", move, r), mirrored(contract("ij,jk->ik", half, move)))
        return back, carry

    last = jnp.zeros(d + size(d), dtype)
    if blocks == 1:
        first, kept = lax.scan(step, last, rows, reverse=True)
        return *unpacked(kept.T, d), first

    def whole(carry: jax.Array, row: tuple) -> tuple[jax.Array, None]:
        move, gain, _, _ = read(row)
        pass_on = entries(carry[: d * d].reshape(d, d, -1), 2)
        less = contract("i,j->ij", h, contract("i,ij->j", gain, pass_on))
        pass_on = joined(contract("ji,jk->ik", move, pass_on - less)).reshape(d * d, -1)
        return jnp.concatenate([pass_on, step(carry[d * d :], row)[0]]), None

    eye = jnp.eye(d, dtype=dtype).reshape(-1, 1)
    nothing = jnp.concatenate([jnp.broadcast_to(eye, (d * d, blocks)),
                               jnp.zeros((last.size, blocks), dtype)])  # fmt: skip
    each, _ = lax.scan(whole, nothing, rows, reverse=True)
    r, n = unpacked(each[d * d :], d)
    ahead = lambda x: jnp.moveaxis(joined(x), -1, 0)  # noqa: E731
    each_block = (each[: d * d].T.reshape(blocks, d, d), ahead(r), ahead(n))
    _, r, n = lax.associative_scan(_composed, each_block, reverse=True)
    after = packed(entries(r.T, 1), entries(jnp.moveaxis(n, 0, -1), 2))
    starts = jnp.concatenate([after[:, 1:], last[:, None]], -1)
    first, kept = lax.scan(step, starts, rows, reverse=True)
    return *unpacked(uncut(kept, steps.count), d), first[:, 0]


def _observed(r: Any, n: Any, h: Any, gain: Any, precision: Any, pull: Any) -> tuple[Any, Any]:
    """r and N before an observation, from those after it."""
    weighed = contract("ij,j->i", n, gain)
    pull = pull - contract("i,i->", gain, r)
    push = precision + contract("i,i->", gain, weighed)
    cross = contract("i,j->ij", h, weighed)
    other = contract("i,j->ij", weighed, h)
    return r + times(h, pull), n - cross - other + times(contract("i,j->ij", h, h), push)


def _composed(later: tuple, earlier: tuple) -> tuple:
    """Back through one block and then through the one before it."""
    (g, c, d), (g2, c2, d2) = later, earlier
    turned = jnp.swapaxes(g2, -1, -2)
    return g2 @ g, (g2 @ c[..., None])[..., 0] + c2, g2 @ d @ turned + d2


def score(steps: Steps, found: Seen, along: str) -> Steps:
    """The derivative of the log evidence in each part of the steps.

    That in a variance R is (u² - D) / 2, that in a value -u, for u = e / S - K' A' r and
    D = 1 / S + K' A' N A K; what is `present` has none.
    """
    h = steps.sees(1)
    after, curve, first = backwards(steps, found, along)
    gain = times(found.along, found.precision)
    weighed = contract("ij,j->i", curve, gain)
    pull = found.precision * found.error - contract("i,i->", gain, after)
    push = found.precision + contract("i,i->", gain, weighed)
    r, n = _observed(after, curve, h, gain, found.precision, found.precision * found.error)
    square = contract("i,j->ij", r, r) - n

    # the states before each step, given what was seen until then
    drop = times(contract("i,j->ij", found.along, found.along), found.precision)
    mean = joined(found.mean + times(gain, found.error))
    covariance = joined(found.covariance - drop)
    before = entries(jnp.concatenate([steps.mean[:, None], mean[:, :-1]], -1), 1)
    spread = jnp.concatenate([steps.covariance[..., None], covariance[..., :-1]], -1)
    moved = contract("ij,jk->ik", entries(steps.transition, 2), entries(spread, 2))
    move = contract("i,j->ij", r, before) + contract("ij,jk->ik", square, moved)

    smooth = found.mean + contract("ij,j->i", found.covariance, r)
    seen_by = gain - contract("ij,j->i", entries(covariance, 2), weighed)
    start, curve0 = unpacked(first, steps.dimension)
    return Steps(
        mean=joined(start),
        covariance=joined(contract("i,j->ij", start, start) - curve0) / 2,
        transition=joined(move),
        noise=joined(square) / 2,
        observation=(joined(times(smooth, pull)) - joined(seen_by)).sum(-1),
        variance=(pull**2 - push) / 2,
        present=jnp.zeros_like(steps.present),
        values=-pull,
    )


def smoothed(steps: Steps, found: Seen, along: str) -> tuple[jax.Array, jax.Array]:
    """The mean `(d, n)` and covariance `(d, d, n)` of each state, given all observations.

    They are m + P r and P - P N P: no covariance is inverted.
    """
    h = steps.sees(1)
    after, curve, _ = backwards(steps, found, along)
    gain = times(found.along, found.precision)
    r, n = _observed(after, curve, h, gain, found.precision, found.precision * found.error)
    p = found.covariance
    drop = contract("ij,jk->ik", contract("ij,jk->ik", p, n), p)
    return joined(found.mean + contract("ij,j->i", p, r)), joined(p - drop)
