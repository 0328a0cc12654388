"""The Kalman filter, folded along time: in one scan, in blocks side by side, or as a tree.

All give the law of each state before its own observation. A block of steps is itself a step: a
transition, what it adds, and what its observations say of the state before it. It is found by
the same filter from an unknown state, and blocks are composed by a rule that is associative
(Särkkä & García-Fernández 2021). A tree is as many blocks as there are steps.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .chain import Steps
from .entries import (
    contract,
    entries,
    joined,
    lower,
    mirrored,
    packed,
    size,
    symmetric,
    times,
    unpacked,
)

BLOCKS = 32
"""How many blocks are gone through side by side, whatever the number of steps."""

WAYS = ("scan", "blocks", "tree")


def blocks_of(along: str, n: int) -> int:
    """Into how many blocks n steps are cut."""
    return {"scan": 1, "blocks": min(BLOCKS, n), "tree": n}[along]


def predicted(steps: Steps, along: str) -> tuple[jax.Array, jax.Array]:
    """The mean `(d, n)` and covariance `(d, d, n)` of each state, given what precedes it."""
    d, blocks = steps.dimension, blocks_of(along, steps.count)
    start = packed(entries(steps.mean, 1), entries(steps.covariance, 2))
    rows = cut(steps.rows(), blocks)
    h = steps.sees(0 if blocks == 1 else 1)
    starts = start if blocks == 1 else _starts(rows, start, h, d)

    def step(carry: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
        move, noise, seen = _read(row, d)
        before = _moved(*unpacked(carry, d), move, noise)
        return packed(*_corrected(*before, h, *seen)), packed(*before)

    _, found = lax.scan(step, starts, rows)
    mean, covariance = unpacked(uncut(found, steps.count), d)
    return joined(mean), joined(covariance)


def cut(rows: tuple[jax.Array, ...], blocks: int) -> tuple[jax.Array, ...]:
    """Arrays `(..., n)` as `(steps, ..., blocks)`, or `(n, ...)` of one block.

    What is added at the end is zero: it moves on nothing, and says nothing.
    """

    def one(part: jax.Array) -> jax.Array:
        if blocks == 1:
            return jnp.moveaxis(part, -1, 0)
        length = -(-part.shape[-1] // blocks)
        spare = [(0, 0)] * (part.ndim - 1) + [(0, length * blocks - part.shape[-1])]
        cuts = jnp.pad(part, spare).reshape(*part.shape[:-1], blocks, length)
        return jnp.moveaxis(cuts, -1, 0)

    return tuple(one(part) for part in rows)


def uncut(found: jax.Array, n: int) -> jax.Array:
    """The first n of `(steps, k, blocks)`, or of `(n, k)`, as `(k, n)`."""
    if found.ndim == 2:
        return found.T
    return jnp.moveaxis(found, 0, -1).reshape(found.shape[1], -1)[:, :n]


def _read(row: tuple, d: int) -> tuple[Any, Any, tuple]:
    """A, Q, and R, y and whether y is there, of one step."""
    return entries(row[0], 2), symmetric(row[1], d), row[2:]


def _moved(mean: Any, covariance: Any, move: Any, noise: Any) -> tuple[Any, Any]:
    half = contract("ij,jk->ik", move, covariance)
    return contract("ij,j->i", move, mean), mirrored(contract("ij,kj->ik", half, move) + noise)


def gain_of(covariance: Any, h: Any, variance: Any, present: Any) -> tuple[Any, Any, Any]:
    """P h, the predicted variance S of an observation, and 1 / S, or 0 where it says nothing.

    Nothing is said by what is missing, and by what was certain already.
    """
    along = contract("ij,j->i", covariance, h)
    spread = contract("i,i->", h, along) + variance
    says = (present > 0) & (spread > 0)
    return along, spread, jnp.where(says, 1 / jnp.where(says, spread, 1.0), 0.0)


def _corrected(mean, covariance, h, variance, value, present) -> tuple[Any, Any]:
    along, _, precision = gain_of(covariance, h, variance, present)
    shift = precision * (value - contract("i,i->", h, mean))
    drop = times(contract("i,j->ij", along, along), precision)
    return mean + times(along, shift), covariance - drop


def _starts(rows: tuple, start: jax.Array, h: Any, d: int) -> jax.Array:
    """The law of the state before each block, packed, `(k, blocks)`."""
    blocks, dtype = rows[0].shape[-1], start.dtype
    width = d + size(d)

    def step(carry: jax.Array, row: tuple) -> tuple[jax.Array, None]:
        from_before = entries(carry[: d * d].reshape(d, d, -1), 2)
        said, weight = unpacked(carry[d * d + width :], d)
        move, noise, (variance, value, present) = _read(row, d)
        mean, covariance = _moved(*unpacked(carry[d * d : d * d + width], d), move, noise)
        from_before = contract("ij,jk->ik", move, from_before)
        along, _, precision = gain_of(covariance, h, variance, present)
        sees = contract("i,ij->j", h, from_before)
        shift = precision * (value - contract("i,i->", h, mean))
        parts = [
            joined(from_before - times(contract("i,j->ij", along, sees), precision)).reshape(
                d * d, -1
            ),
            packed(mean + times(along, shift),
                   covariance - times(contract("i,j->ij", along, along), precision)),
            packed(said + times(sees, shift),
                   weight + times(contract("i,j->ij", sees, sees), precision)),
        ]  # fmt: skip
        return jnp.concatenate(parts), None

    zeros = jnp.zeros((d * d + 2 * width, blocks), dtype)
    first = zeros.at[: d * d, 1:].set(jnp.eye(d, dtype=dtype).reshape(-1, 1))
    first = first.at[d * d : d * d + width, 0].set(start)
    whole, _ = lax.scan(step, first, rows)

    mean, covariance = unpacked(whole[d * d : d * d + width], d)
    said, weight = unpacked(whole[d * d + width :], d)
    ahead = lambda x: jnp.moveaxis(joined(x), -1, 0)  # noqa: E731
    each = (whole[: d * d].T.reshape(blocks, d, d), ahead(mean), ahead(covariance), ahead(said),
            ahead(weight))  # fmt: skip
    found = lax.associative_scan(_composed, each)
    after = jnp.concatenate([found[1].T, lower(jnp.moveaxis(found[2], 0, -1))])
    return jnp.concatenate([start[:, None], after[:, :-1]], -1)


def _composed(first: tuple, then: tuple) -> tuple:
    """One block after another (eq. 15): A, b, C of what comes out, η, J of what is said of before.

    Matrices have their axes behind, for `solve`.
    """
    a, b, c, eta, j = first
    a2, b2, c2, eta2, j2 = then
    d = a.shape[-1]
    turned = lambda x: jnp.swapaxes(x, -1, -2)  # noqa: E731
    on = lambda x, v: (x @ v[..., None])[..., 0]  # noqa: E731
    both = jnp.eye(d, dtype=a.dtype) + c @ j2
    pulled = turned(_solved(turned(both), turned(a2)))  # a2 (I + c j2)^-1
    back = _solved(turned(both), jnp.concatenate([(eta2 - on(j2, b))[..., None], j2 @ a], -1))
    c3 = pulled @ c @ turned(a2) + c2
    j3 = turned(a) @ back[..., 1:] + j
    return (
        pulled @ a,
        on(pulled, b + on(c, eta2)) + b2,
        (c3 + turned(c3)) / 2,
        on(turned(a), back[..., 0]) + eta,
        (j3 + turned(j3)) / 2,
    )


def _solved(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """matrix^-1 right, without a call of a library where there is one row."""
    return right / matrix if matrix.shape[-1] == 1 else jnp.linalg.solve(matrix, right)
