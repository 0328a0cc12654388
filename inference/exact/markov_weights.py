"""A chain of states by its weights themselves, each step scaled to add up to one.

A step is a product with a matrix, some ten times faster than a sum in logarithms, and as exact as
long as no weight of a path that counts is too small for a number: `Filtered.safe` says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Filtered(NamedTuple):
    """What a pass forward found.

    Attributes:
      first: what the start adds to the log mass.
      before: probabilities of the state before each step given what was seen till there,
        `(n + 1, k)`; the last ones are after all steps.
      predicted: likewise before what is seen at the step, `(n, k)`.
      moves: weights of pairs, `(k, k)` or `(n, k, k)`.
      top: the largest log weight of what is seen at each step, `(n,)`.
      seen: weights of what is seen, as parts of the largest, less their factors `shown`.
      weights: with them.
      sums: what each step's weights add up to.
    """

    first: jax.Array
    before: jax.Array
    predicted: jax.Array
    moves: jax.Array
    top: jax.Array
    seen: jax.Array
    weights: jax.Array
    sums: jax.Array

    def total(self) -> jax.Array:
        """The log mass."""
        return self.first + jnp.sum(jnp.log(self.sums) + self.top)

    def safe(self, chain: Any) -> jax.Array:
        """Whether every weight that is zero is so because a factor of it is.

        A product of three factors that are not below the cube root of the smallest number is a
        number: so if all factors are zero or not below it, nothing was lost.
        """
        least = jnp.finfo(self.sums.dtype).tiny ** (1 / 3)
        large = lambda x: jnp.all((x >= least) | (x == 0))  # noqa: E731
        kept = lambda x, logs: jnp.all((x >= least) | (logs == -jnp.inf))  # noqa: E731
        fine = large(self.before) & large(self.moves) & kept(self.seen, chain.seen)
        if chain.logs is not None:
            fine &= kept(jnp.exp(chain.logs), chain.logs)
        if chain.shown is not None:
            fine &= large(chain.shown) & large(self.weights)
        return fine & jnp.all(self.sums >= least) & (self.first > -jnp.inf)


def filtered(chain: Any) -> Filtered:
    """The pass forward of a `Markov` chain."""
    begun = jnp.exp(chain.start - _finite(jnp.max(chain.start)))
    begun = begun if chain.begun is None else begun * chain.begun
    whole = jnp.sum(begun)
    first = jnp.log(whole) + _finite(jnp.max(chain.start))
    moves = jnp.ones((begun.size,) * 2, begun.dtype) if chain.logs is None else jnp.exp(chain.logs)
    moves = moves if chain.chances is None else moves * chain.chances
    top = _finite(jnp.max(chain.seen, 1))
    seen = jnp.exp(chain.seen - top[:, None])
    weights = seen if chain.shown is None else seen * chain.shown
    own = moves if moves.ndim == 3 else None

    def step(state: jax.Array, row: tuple) -> tuple[jax.Array, tuple]:
        move, weight = row
        predicted = state @ (moves if move is None else move)
        after = predicted * weight
        total = jnp.sum(after)
        after = after / jnp.where(total > 0, total, 1.0)
        return after, (after, predicted, total)

    begin = begun / jnp.where(whole > 0, whole, 1.0)
    _, (after, predicted, sums) = lax.scan(step, begin, (own, weights))
    before = jnp.concatenate([begin[None], after])
    return Filtered(first, before, predicted, moves, top, seen, weights, sums)


def _finite(x: jax.Array) -> jax.Array:
    return jnp.where(x > -jnp.inf, x, 0.0)


class Slopes(NamedTuple):
    """Derivatives of the log mass by the weights' factors, all of which may be zero.

    Attributes:
      start: by those of the start, `(k,)`.
      seen: by those of what is seen, `(n, k)`.
      pairs: by those of pairs, added up over the steps if they are the same in all.
    """

    start: jax.Array
    seen: jax.Array
    pairs: jax.Array


def slopes(chain: Any, found: Filtered) -> tuple[Slopes, jax.Array]:
    """The derivatives, by a pass back; and whether no number of it was too large."""
    each = found.moves.ndim == 3

    def step(later: jax.Array, row: tuple) -> tuple[jax.Array, tuple]:
        move, weight, total = row
        then = weight * later / total
        return (found.moves if move is None else move) @ then, (later, then)

    rows = found.moves if each else None, found.weights, found.sums
    nothing = jnp.ones_like(found.before[0])
    first, (later, then) = lax.scan(step, nothing, rows, reverse=True)
    before = found.before[:-1]
    pairs = before[:, :, None] * then[:, None, :] if each else before.T @ then
    pairs = pairs if chain.logs is None else pairs * jnp.exp(chain.logs)
    seen = found.predicted * found.seen * later / found.sums[:, None]
    most = jnp.finfo(first.dtype).max ** (1 / 3)
    fine = jnp.all(later < most) & jnp.all(then < most) & jnp.all(first < most)
    return Slopes(jnp.exp(chain.start - found.first) * first, seen, pairs), fine
