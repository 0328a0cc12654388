"""The Kalman filter, folded along time: in one lane, in some side by side, or as a tree.

All give the law of the state before each step. A lane of steps is itself a step: a transition,
what it adds, and what its observations say of the state before it. It is found by the same
filter from an unknown state, and lanes are composed by a rule that is associative (Särkkä &
García-Fernández 2021). A tree has as many lanes as there are steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .chain import Course, Steps
from .elimination import whitened
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
from .lanes import Lanes
from .roots import passed_by_roots

UNROLLED = 4
"""Up to how many numbers, seen at once, a step is written out."""

Make = Callable[[Any, Any], Steps]
"""Steps, from what is shared and a piece of the rows."""


def passed(
    make: Make, course: Course, pieces: Any, lanes: Lanes, told: Callable[[Steps, jax.Array], Any]
) -> Any:
    """What is told of each piece, by its steps and the law of the state before each of them.

    That law is given what is seen earlier: mean and covariance packed, as loops write them,
    `(depth, k)`, and behind it the lanes.

    Args:
      pieces: the rows, cut.
    """
    if lanes.roots:
        return passed_by_roots(make, course, pieces, lanes, told)
    d = course.mean.shape[0]
    start = packed(entries(course.mean, 1), entries(course.covariance, 2))
    if lanes.lanes > 1:
        start = _starts(make, course, pieces, lanes, start)

    def piece(carry: jax.Array, rows: Any) -> tuple[jax.Array, Any]:
        steps = make(course.shared, rows)
        read, rows = as_read(steps, lanes)

        def step(carry: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
            move, noise, offset, seen = read(row)
            state = moved(*unpacked(carry, d), move, noise, offset)
            return packed(*_through(_corrected, state, seen)), carry

        carry, kept = lax.scan(step, carry, rows)
        return carry, told(steps, kept)

    return lax.scan(piece, start, pieces)[1]


def as_read(steps: Steps, lanes: Lanes) -> tuple[Callable[[tuple], tuple], tuple]:
    """How a loop reads A, Q, b, and the rows of what is seen there; and what it reads.

    Noise is made independent, so that numbers are seen one after another.
    """
    variance, h, values = whitened(steps.variance, steps.present, steps.observation, steps.values)
    d, always = steps.dimension, None
    if h.shape[-1] == 1 != steps.count:
        always = h[..., 0] if lanes.lanes == 1 else h
        h = None
    rows = steps.transition, lower(steps.noise), variance, values, steps.present, steps.offset, h

    def read(row: tuple) -> tuple:
        move, half, variance, value, present, offset, here = row
        by = always if here is None else here
        offset = None if offset is None else entries(offset, 1)
        return entries(move, 2), symmetric(half, d), offset, (by, variance, value, present)

    return read, jax.tree.map(lanes.rows, rows)


def moved(mean: Any, covariance: Any, move: Any, noise: Any, offset: Any) -> tuple[Any, Any]:
    """Mean and covariance after a transition."""
    half = contract("ij,jk->ik", move, covariance)
    mean = contract("ij,j->i", move, mean)
    covariance = mirrored(contract("ij,kj->ik", half, move) + noise)
    return mean if offset is None else mean + offset, covariance


def _through(one: Callable[..., tuple], state: tuple, seen: tuple) -> tuple:
    """A state after each of the numbers that are seen at once: of many, by a loop of their own."""
    if len(seen[0]) <= UNROLLED:
        for h, *rest in zip(*seen, strict=True):
            state = one(*state, entries(h, 1), *rest)
        return state
    ranks = [np.ndim(part) for part in state]
    again = lambda state: [entries(x, rank) for x, rank in zip(state, ranks, strict=True)]  # noqa: E731

    def step(state: tuple, row: tuple) -> tuple[tuple, None]:
        found = one(*again(state), entries(row[0], 1), *row[1:])
        return tuple(joined(part) for part in found), None

    return tuple(again(lax.scan(step, tuple(joined(part) for part in state), seen)[0]))


def _told(covariance: Any, h: Any, variance: Any, present: Any) -> tuple[Any, Any]:
    """P h, and 1 / S for the predicted variance S of a number; 0 where it says nothing.

    Nothing is said by what is missing, and by what was certain already.
    """
    along = contract("ij,j->i", covariance, h)
    spread = contract("i,i->", h, along) + variance
    says = (present > 0) & (spread > 0)
    return along, jnp.where(says, 1 / jnp.where(says, spread, 1.0), 0.0)


def _corrected(mean, covariance, h, variance, value, present) -> tuple[Any, Any]:
    along, precision = _told(covariance, h, variance, present)
    shift = precision * (value - contract("i,i->", h, mean))
    drop = times(contract("i,j->ij", along, along), precision)
    return mean + times(along, shift), covariance - drop


def _corrected_unknown(
    from_before, mean, covariance, said, weight, h, variance, value, present
) -> tuple[Any, ...]:
    """The same of a state that is `from_before` times an unknown one and a known rest.

    `said` and `weight` are what has been seen of the unknown one: its precision, and times mean.
    """
    along, precision = _told(covariance, h, variance, present)
    sees = contract("i,ij->j", h, from_before)
    shift = precision * (value - contract("i,i->", h, mean))
    return (
        from_before - times(contract("i,j->ij", along, sees), precision),
        mean + times(along, shift),
        covariance - times(contract("i,j->ij", along, along), precision),
        said + times(sees, shift),
        weight + times(contract("i,j->ij", sees, sees), precision),
    )


def _starts(make: Make, course: Course, pieces: Any, lanes: Lanes, start: jax.Array) -> jax.Array:
    """The law of the state before each lane, packed, `(k, lanes)`."""
    d, count, dtype = course.mean.shape[0], lanes.lanes, start.dtype
    width = d + size(d)

    def piece(carry: jax.Array, rows: Any) -> tuple[jax.Array, None]:
        read, rows = as_read(make(course.shared, rows), lanes)

        def step(carry: jax.Array, row: tuple) -> tuple[jax.Array, None]:
            from_before = entries(carry[: d * d].reshape(d, d, -1), 2)
            said = unpacked(carry[d * d + width :], d)
            move, noise, offset, seen = read(row)
            state = moved(*unpacked(carry[d * d : d * d + width], d), move, noise, offset)
            state = contract("ij,jk->ik", move, from_before), *state, *said
            from_before, mean, covariance, *said = _through(_corrected_unknown, state, seen)
            parts = joined(from_before).reshape(d * d, -1), packed(mean, covariance)
            return jnp.concatenate([*parts, packed(*said)]), None

        return lax.scan(step, carry, rows)[0], None

    first = jnp.zeros((d * d + 2 * width, count), dtype)  # the first lane has a known start
    first = first.at[: d * d, 1:].set(jnp.eye(d, dtype=dtype).reshape(-1, 1))
    first = first.at[d * d : d * d + width, 0].set(start)
    whole, _ = lax.scan(piece, first, pieces)

    ahead = lambda x: jnp.moveaxis(joined(x), -1, 0)  # noqa: E731
    mean, covariance = (ahead(x) for x in unpacked(whole[d * d : d * d + width], d))
    said, weight = (ahead(x) for x in unpacked(whole[d * d + width :], d))
    each = whole[: d * d].T.reshape(count, d, d), mean, covariance, said, weight
    if lanes.pieces * lanes.depth == 1:
        found = lax.associative_scan(_composed, each)
        after = jnp.concatenate([found[1].T, lower(jnp.moveaxis(found[2], 0, -1))])
        return jnp.concatenate([start[:, None], after[:, :-1]], -1)

    def onward(state: tuple, lane: tuple) -> tuple[tuple, tuple]:
        return _after(state, lane)[:2], state

    _, before = lax.scan(onward, (course.mean, course.covariance), each)
    return jnp.concatenate([before[0].T, lower(jnp.moveaxis(before[1], 0, -1))])


def _after(state: tuple, lane: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The law of a state after a lane, and what the lane makes of the state (eq. 15).

    Matrices have their axes behind, for `solve`.
    """
    (b, c), (a2, b2, c2, eta2, j2) = state, lane
    both = jnp.eye(c.shape[-1], dtype=c.dtype) + c @ j2
    pulled = _turned(_solved(_turned(both), _turned(a2)))  # a2 (I + c j2)^-1
    c3 = pulled @ c @ _turned(a2) + c2
    return _on(pulled, b + _on(c, eta2)) + b2, (c3 + _turned(c3)) / 2, pulled


def _composed(first: tuple, then: tuple) -> tuple:
    """One lane after another: A, b, C of what comes out, η, J of what is said of before."""
    a, b, c, eta, j = first
    _, _, _, eta2, j2 = then
    mean, covariance, pulled = _after((b, c), then)
    both = jnp.eye(c.shape[-1], dtype=c.dtype) + j2 @ c
    back = _solved(both, jnp.concatenate([(eta2 - _on(j2, b))[..., None], j2 @ a], -1))
    j3 = _turned(a) @ back[..., 1:] + j
    return (
        pulled @ a,
        mean,
        covariance,
        _on(_turned(a), back[..., 0]) + eta,
        (j3 + _turned(j3)) / 2,
    )


def _turned(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


def _on(x: jax.Array, vector: jax.Array) -> jax.Array:
    return (x @ vector[..., None])[..., 0]


def _solved(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """matrix^-1 right, without a call of a library where there is one row."""
    return right / matrix if matrix.shape[-1] == 1 else jnp.linalg.solve(matrix, right)
