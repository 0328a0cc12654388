"""The same filter with roots of covariances, which keep half as many digits more.

P = L L'. A transition makes [A L, root Q] of L, which is made triangular (QR), and a number that
is seen makes L (I - a φ φ'), for φ = L' h and a = 1 / (S + sqrt(R S)): a reflection (Potter 1963).
Nothing is subtracted from a covariance, so that what is left of one is right even if it is 1e-12
of what was there. It costs some microseconds a step, for a call of a library in each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .chain import Course, Steps
from .elimination import whitened
from .entries import entries, packed
from .lanes import Lanes
from .paths import root


def passed_by_roots(
    make: Callable[[Any, Any], Steps],
    course: Course,
    pieces: Any,
    lanes: Lanes,
    told: Callable[[Steps, jax.Array], Any],
) -> Any:
    """As `filter.passed`, of one lane.

    The loop has no derivative where a covariance is singular.
    """

    def piece(carry: tuple, rows: Any) -> tuple[tuple, Any]:
        steps = make(course.shared, rows)
        variance, h, values = whitened(
            steps.variance, steps.present, steps.observation, steps.values
        )
        h = jnp.broadcast_to(h, (*h.shape[:2], steps.count))
        noise = jnp.moveaxis(root(jnp.moveaxis(steps.noise, -1, 0)), 0, -1)
        parts = steps.transition, noise, steps.offset, h, variance, values, steps.present
        carry, kept = lax.scan(_step, carry, jax.tree.map(lanes.rows, parts))
        return carry, told(steps, kept)

    return lax.scan(piece, (course.mean, root(course.covariance)), pieces)[1]


def _step(carry: tuple, row: tuple) -> tuple[tuple, jax.Array]:
    mean, half = carry
    move, noise, offset, *seen = row
    kept = packed(entries(mean, 1), entries(half @ half.T, 2))
    mean = move @ mean if offset is None else move @ mean + offset
    half = jnp.linalg.qr(jnp.concatenate([move @ half, noise], 1).T, mode="r").T
    h, variance = seen[:2]
    rounding = 4 * (sum(h.shape) * jnp.finfo(mean.dtype).eps) ** 2
    least = rounding * (jnp.sum((h @ half) ** 2, 1) + variance)
    return lax.scan(_corrected, (mean, half), (*seen, least))[0], kept


def _corrected(state: tuple, seen: tuple) -> tuple[tuple, None]:
    mean, half = state
    h, variance, value, present, least = seen
    by = half.T @ h
    spread = by @ by + variance
    says = (present > 0) & (spread > least)  # what those before it make certain says nothing
    safe = jnp.where(says, spread, 1.0)
    along = half @ by
    shift = jnp.where(says, 1 / safe, 0.0) * (value - h @ mean)
    share = jnp.where(says, 1 / (safe + jnp.sqrt(variance * safe)), 0.0)
    return (mean + along * shift, half - share * jnp.outer(along, by)), None
