"""Where a trajectory turns back, asked of the subtrees that doubling makes.

Of the leaves left behind, one for each level is still needed, and is found by the bits of the
number of a leaf (Phan, Pradhan and Jankowiak 2019; Lao and Dillon 2019).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .decisions import branch


class Point(NamedTuple):
    """A point of phase space and the gradient of the potential there, each of shape (n,)."""

    z: jax.Array
    r: jax.Array
    gradient: jax.Array


def looked_back(
    rows: jax.Array, leaf: Any, before: jax.Array, end: Point, sign: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """With `end` where it begins a subtree; else whether a subtree that it ends turns back.

    A subtree of 2^k leaves ends at a leaf whose number has k ones or more at its end. It
    began with a leaf that lies in row `top` for k = 1, and a row lower for each k more.
    """
    even = leaf & 1 == 0
    leaf = jnp.asarray(leaf)
    top = lax.population_count(leaf >> 1)
    lowest = top - lax.population_count((~leaf & (leaf + 1)) - 1) + 1
    none = jnp.zeros(sign.shape, bool)

    def begun() -> tuple[jax.Array, jax.Array]:
        written = rows
        for k, x in enumerate((end.z, end.r, before)):
            written = lax.dynamic_update_slice(written, x[None, None], (top, k, 0, 0))
        return written, none

    def ended() -> tuple[jax.Array, jax.Array]:
        def more(state: tuple) -> jax.Array:
            return state[0] >= lowest

        def larger(state: tuple) -> tuple:
            i, back = state
            middle = _leaf(rows, i + 1, 2), _leaf(rows, i + 1, 0)
            now = turned(_leaf(rows, i, 0), _leaf(rows, i, 1), *middle, end, sign)
            return i - 1, back | now

        pair = _against(_leaf(rows, top, 0), _leaf(rows, top, 1), end, sign)
        return rows, lax.while_loop(more, larger, (top - 1, pair))[1]

    return branch(even, begun, ended)


def turned(
    z: jax.Array, r: jax.Array, before: jax.Array, after: jax.Array, end: Point, sign: jax.Array
) -> jax.Array:
    """Whether trajectories from (z, r) to `end` turn back; `before` and `after` their middle.

    Without the looks across the middle, a trajectory that closes a circle in one doubling
    goes on to `max_depth`.
    """
    across = _dot(after - z, r) * sign <= 0
    return across | (_dot(end.z - before, end.r) * sign <= 0) | _against(z, r, end, sign)


def _against(z: jax.Array, r: jax.Array, end: Point, sign: jax.Array) -> jax.Array:
    line = end.z - z
    return (_dot(line, r) * sign <= 0) | (_dot(line, end.r) * sign <= 0)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, -1)


def _leaf(rows: jax.Array, i: jax.Array, k: int) -> jax.Array:
    return lax.dynamic_slice(rows, (i, k, 0, 0), (1, 1, *rows.shape[2:]))[0, 0]
