"""The log evidence of a chain, whose derivative is a pass back instead of that of a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .chain import Chain, Course, Steps, course_of, given
from .entries import joined, unpacked
from .filter import Make, passed
from .lanes import Lanes, lanes_of
from .score import Seen, back, backwards, ends, score, seen, smoothed


def evidence(chain: Chain, values: jax.Array, along: str = "scan") -> jax.Array:
    """log p(y_1, ..., y_n), of those that are present.

    It is -inf where an observation is impossible: infinite, or different from what is certain.
    Derivatives of first order, forward and reverse, are made from one pass back; those of
    higher order differentiate that pass, by JAX's own rules.

    Args:
      values: y, `(n,)`, or `(n, p)` if p numbers are seen at a time; any number where none is.
      along: "scan" goes through the steps, "blocks" through some blocks of them side by side,
        "tree" through all at once, in a depth of log n; the number is the same. The last two
        need exact values to vary given the state before them: H Q H' + R > 0. "roots" is a scan
        that carries roots of covariances, for tiny noise: it costs some microseconds a step.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.chain import Chain
    >>> from inference.gaussian.evidence import evidence
    >>> still = jnp.zeros((1, 1, 1))
    >>> noise = lambda r: Chain(jnp.zeros(1), still[0], still, still, jnp.ones(1), r, jnp.ones(1))
    >>> round(float(evidence(noise(jnp.array([4.0])), jnp.array([2.0]))), 4)  # log N(2; 0, 4)
    -2.1121
    """
    values = jnp.asarray(values, jnp.result_type(values, 0.0))
    course = course_of(chain, jnp.where(jnp.isfinite(values), values, 0.0))
    possible = jnp.isfinite(values) | (chain.present <= 0)
    return jnp.where(jnp.all(possible), of_course(given, along, course), -jnp.inf)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def of_course(make: Make, along: str, course: Course) -> jax.Array:
    """The same of steps that are made as they are gone through, by pieces: none is kept."""
    lanes = lanes_of(along, course.count)

    def told(steps: Steps, kept: jax.Array) -> jax.Array:
        return seen(steps, lanes.piece(kept)).log_density

    return jnp.sum(passed(make, course, jax.tree.map(lanes.cut, course.rows), lanes, told))


def prepared(make: Make, along: str, course: Course) -> tuple[Lanes, Any, jax.Array]:
    """The order of the steps, their rows with the laws before them, and r and N at the ends."""
    lanes = lanes_of(along, course.count)
    rows = jax.tree.map(lanes.cut, course.rows)
    pieces = rows, passed(make, course, rows, lanes, lambda _, kept: kept)

    def through(piece: tuple) -> tuple:
        steps = make(course.shared, piece[0])
        return as_read(steps, seen(steps, lanes.piece(piece[1])), lanes)

    d, dtype = course.mean.shape[0], course.mean.dtype
    return lanes, pieces, ends(through, pieces, d, dtype, lanes)


def as_read(steps: Steps, found: Seen, lanes: Lanes) -> tuple:
    return tuple(lanes.rows(each) for each in backwards(steps, found))


@partial(of_course.defjvp, symbolic_zeros=True)
def _derivative(make: Make, along: str, primals: tuple, tangents: tuple) -> tuple:
    (course,), (turns,) = primals, tangents
    lanes, pieces, end = prepared(make, along, course)
    shared, rows_of = _varying(make, course, turns)

    def piece(carry: tuple, each: tuple) -> tuple[tuple, Any]:
        end, total, slope = carry
        rows, kept = each
        steps, pull = rows_of(rows)
        found = seen(steps, lanes.piece(kept))
        end, after = lax.scan(back, end, as_read(steps, found, lanes), reverse=True)
        more, by_row = pull(score(steps, found, lanes.piece(after)))
        slope = jax.tree.map(jnp.add, slope, more)
        return (end, total + found.log_density, slope), by_row

    start = end, jnp.zeros((), end.dtype), [jnp.zeros_like(leaf) for leaf in shared]
    (first, total, slope), by_row = lax.scan(piece, start, pieces, reverse=True)
    r, n = first_of(first, course, lanes)
    slopes = [r, (r[:, None] * r - n) / 2, *slope, *(lanes.uncut(each) for each in by_row)]
    turned = jnp.zeros((), end.dtype)
    moves = [turns.mean, turns.covariance, *_turning((turns.shared, turns.rows))]
    for slope, move in zip(slopes, moves, strict=True):
        if not isinstance(move, SymbolicZero):
            turned = turned + jnp.sum(slope * move)
    return total, turned


def _turning(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if not isinstance(leaf, SymbolicZero)]


def _varying(make: Make, course: Course, turns: Course) -> tuple[list, Callable[[Any], tuple]]:
    """What is shared and has a direction; and the steps of a piece, with the pull of a slope.

    It pulls back to what has a direction alone: the rest is not differentiated.
    """
    constant, tree = jax.tree.flatten(course.shared)
    turn = [not isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(turns.shared)]
    turn_rows = [not isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(turns.rows)]
    some = lambda leaves, which: [x for x, yes in zip(leaves, which, strict=True) if yes]  # noqa: E731

    def whole(leaves: list, which: list, given: list) -> list:
        new = iter(given)
        return [next(new) if yes else x for x, yes in zip(leaves, which, strict=True)]

    def steps_of(rows: Any) -> tuple:
        leaves, tree_of_rows = jax.tree.flatten(rows)

        def made(shared: list, own: list) -> Steps:
            every, each = whole(constant, turn, shared), whole(leaves, turn_rows, own)
            return make(jax.tree.unflatten(tree, every), jax.tree.unflatten(tree_of_rows, each))

        return jax.vjp(made, some(constant, turn), some(leaves, turn_rows))

    return some(constant, turn), steps_of


def first_of(first: jax.Array, course: Course, lanes: Lanes) -> tuple[jax.Array, jax.Array]:
    """r and N of the state before the first step."""
    d = course.mean.shape[0]
    r, n = unpacked(first if lanes.lanes == 1 else first[:, 0], d)
    return joined(r), joined(n)


def states(chain: Chain, values: jax.Array, along: str) -> tuple[jax.Array, jax.Array]:
    """The mean `(d, n + 1)` and covariance `(d, d, n + 1)` of each state, given what is present.

    The first is that before the first step.
    """
    values = jnp.asarray(values, jnp.result_type(values, 0.0))
    course = course_of(chain, jnp.where(chain.present > 0, values, 0.0))
    lanes, pieces, end = prepared(given, along, course)

    def piece(end: jax.Array, each: tuple) -> tuple[jax.Array, tuple]:
        steps = given(course.shared, each[0])
        found = seen(steps, lanes.piece(each[1]))
        end, after = lax.scan(back, end, as_read(steps, found, lanes), reverse=True)
        return end, smoothed(steps, found, lanes.piece(after))

    first, found = lax.scan(piece, end, pieces, reverse=True)
    mean, covariance = (lanes.uncut(each) for each in found)
    (r, n), p = first_of(first, course, lanes), course.covariance
    mean = jnp.concatenate([(course.mean + p @ r)[:, None], mean], -1)
    return mean, jnp.concatenate([(p - p @ n @ p)[..., None], covariance], -1)


def smooth(chain: Chain, values: jax.Array, along: str = "scan") -> tuple[jax.Array, jax.Array]:
    """The mean `(n, d)` and covariance `(n, d, d)` of each state, given all that is present.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.chain import Chain
    >>> from inference.gaussian.evidence import smooth
    >>> one = jnp.ones((1, 1, 1))
    >>> walk = Chain(jnp.zeros(1), jnp.eye(1), one, one, jnp.ones(1), jnp.ones(1), jnp.ones(1))
    >>> mean, covariance = smooth(walk, jnp.array([3.0]))
    >>> round(float(mean[0, 0]), 4), round(float(covariance[0, 0, 0]), 4)  # 2/3 of 3; 2 - 4/3
    (2.0, 0.6667)
    """
    mean, covariance = states(chain, values, along)
    return jnp.moveaxis(mean[:, 1:], -1, 0), jnp.moveaxis(covariance[..., 1:], -1, 0)
