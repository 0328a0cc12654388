"""The evidence of a course, its score and all its states, by one pass there and one back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .chain import Course
from .evidence import as_read, first_of, prepared
from .filter import Make
from .score import back, score, seen, smoothed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AtOnce:
    """What a pass there and back tells of a course.

    Attributes:
      evidence: log p of all that is seen.
      mean, covariance: of each state, `(d, n)` and `(d, d, n)`, given all that is seen.
      slope: the derivative of the evidence in the covariance before the first step, and in what
        the steps share.
    """

    evidence: jax.Array
    mean: jax.Array
    covariance: jax.Array
    slope: tuple[jax.Array, Any]


def at_once(make: Make, course: Course, along: str = "scan") -> AtOnce:
    """The evidence with its derivative, and the states: for the price of the derivative alone.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.at_once import at_once
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.ordered import by_kernel, ordered
    >>> process = ordered(Matern12(1.0), jnp.array([0.0, 1.0]), jnp.ones(2), jnp.ones(2))
    >>> found = at_once(by_kernel, process.course(jnp.array([1.0, 0.0])))
    >>> K = jnp.array([[1.0, jnp.exp(-1.0)], [jnp.exp(-1.0), 1.0]])
    >>> bool(jnp.allclose(found.mean[0], K @ jnp.linalg.solve(K + jnp.eye(2), jnp.eye(2)[0])))
    True
    """
    lanes, pieces, end = prepared(make, along, course)

    def piece(carry: tuple, each: tuple) -> tuple[tuple, Any]:
        end, total, slope = carry
        rows, kept = each
        steps, pull = jax.vjp(lambda shared: make(shared, rows), course.shared)
        found = seen(steps, lanes.piece(kept))
        end, after = lax.scan(back, end, as_read(steps, found, lanes), reverse=True)
        after = lanes.piece(after)
        slope = jax.tree.map(jnp.add, slope, pull(score(steps, found, after))[0])
        return (end, total + found.log_density, slope), smoothed(steps, found, after)

    nothing = jax.tree.map(jnp.zeros_like, course.shared)
    start = end, jnp.zeros((), end.dtype), nothing
    (first, total, slope), states = lax.scan(piece, start, pieces, reverse=True)
    r, n = first_of(first, course, lanes)
    mean, covariance = (lanes.uncut(each) for each in states)
    return AtOnce(total, mean, covariance, ((r[:, None] * r - n) / 2, slope))
