"""Sites that are moved until they are those that a method would choose: one fold a sweep.

A sweep folds the process with some sites, and asks the method for better ones, given the
marginals. A step towards them is taken back, and halved, where it leads to no law or far down;
steps get longer and shorter as they lead up or down. What stays where it is, is so whatever the
steps were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from .fold import Folded, Sites, Walk, fold
from .terms import Terms

_CLIMBS = 16

_GROWN, _SHRUNK = 1.5, 0.6
"""By what the next step is longer after one that led up, and shorter after one that led down."""

GROWTH = math.log(1.5)
"""By how much, in logs, what would still move may grow in a sweep: there is nothing to climb."""


def less_change(change: jax.Array) -> jax.Array:
    """The merit of sites by how little would move, of which `GROWTH` is the slack."""
    return -jnp.log(jnp.maximum(change, jnp.finfo(change.dtype).tiny))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Status:
    """How far sites have settled.

    Attributes:
      converged: whether `change` is below the tolerance, and no site was skipped.
      iterations: how many times the process was folded.
      change: by how much the method would still move a site, at most: its slope at the mean, in
        units of one standard deviation of the marginal, and its precision, in those of the
        marginal's.
      skipped: how many sites the method could not move in the last sweep, since the process
        without them had no law there.

    >>> from inference.sites.iterate import Status
    >>> Status(True, 4, 1e-9, 0).converged
    True
    """

    converged: Any
    iterations: Any
    change: Any
    skipped: Any


class Method(Protocol):
    """How sites are chosen; hashable. A step is taken back where the merit falls by more than
    its slack."""

    def better(self, terms: Terms, sites: Sites, folded: Folded) -> tuple[Sites, jax.Array]:
        """Better sites; and which were left as they are, `(n,)`."""
        ...

    def merit(self, terms: Terms, sites: Sites, folded: Folded, change: jax.Array) -> jax.Array:
        """What does not fall on the way, or little."""
        ...

    def slack(self, merit: jax.Array) -> jax.Array:
        """By how much it may."""
        ...

    def settled(self, terms: Terms, sites: Sites, folded: Folded) -> Sites:
        """The sites of the law, at the end."""
        ...

    def evidence(self, terms: Terms, walk: Walk, sites: Sites, folded: Folded) -> jax.Array:
        """The log evidence, whose first derivative in the terms and the walk is its own, too."""
        ...


class _State(NamedTuple):
    here: Sites
    wanted: Sites
    rate: jax.Array
    merit: jax.Array
    change: jax.Array
    skipped: jax.Array
    count: jax.Array


def iterated(
    method: Method, terms: Terms, walk: Walk, start: Sites, damping: Any, tolerance: Any, most: Any
) -> tuple[Sites, Status]:
    """The sites at which a method stays, and whether it did.

    Args:
      start: the first sites, if there is a law with them.
      damping: the largest step, of the way to what the method wants: 1 is all of it.
    """
    number = lambda x: jnp.asarray(x, walk.level.dtype)  # noqa: E731
    none = jax.tree.map(jnp.zeros_like, start)

    def on(state: _State) -> jax.Array:
        return (state.change > tolerance) & (state.count < most)

    def sweep(state: _State) -> _State:
        sites = jax.tree.map(lambda a, b: a + state.rate * (b - a), state.here, state.wanted)
        folded = fold(walk, sites)
        better, left = method.better(terms, sites, folded)
        change = _change(sites, better, folded)
        merit = method.merit(terms, sites, folded, change)
        fine = folded.valid & jnp.isfinite(change) & jnp.isfinite(merit)
        fine &= merit >= state.merit - method.slack(state.merit)
        count = state.count + 1
        rate = state.rate * jnp.where(merit >= state.merit, _GROWN, _SHRUNK)
        rate = jnp.minimum(number(damping), rate)
        moved = _State(sites, better, rate, merit, change, jnp.sum(left), count)
        stayed = state._replace(rate=state.rate / 2, count=count)
        return jax.tree.map(lambda a, b: jnp.where(fine, a, b), moved, stayed)

    first = _State(none, start, number(1.0), number(-jnp.inf), number(jnp.inf), jnp.array(0),
                   jnp.array(0))  # fmt: skip
    last = lax.while_loop(on, sweep, first)
    settled = (last.change <= tolerance) & (last.skipped == 0)
    status = Status(settled, last.count, last.change, last.skipped)
    return last.here, status


def _change(sites: Sites, better: Sites, folded: Folded) -> jax.Array:
    sd = jnp.sqrt(folded.variance)
    turn = better.precision - sites.precision
    slope = better.linear - sites.linear - turn * folded.mean
    return jnp.maximum(jnp.max(jnp.abs(slope) * sd), jnp.max(jnp.abs(turn) * sd**2))


def started(terms: Terms, mean: jax.Array, variance: jax.Array) -> Sites:
    """Sites at the mode of each value given its own data alone; exact for data that are Gaussian.

    Args:
      mean, variance: of each value before its data.
    """
    variance = jnp.maximum(variance, jnp.finfo(variance.dtype).tiny)

    def height(f: jax.Array) -> jax.Array:
        return terms(f) - (f - mean) ** 2 / (2 * variance)

    def climb(state: tuple, _: Any) -> tuple[tuple, None]:
        f, best, rate = state
        slope = terms.slopes(f) - (f - mean) / variance
        there = f + rate * slope / (1 / variance + jnp.maximum(-terms.curves(f), 0.0))
        new = height(there)
        up = new >= best
        rate = jnp.where(up, jnp.minimum(2 * rate, 1.0), rate / 4)
        return (jnp.where(up, there, f), jnp.where(up, new, best), rate), None

    first = mean, height(mean), jnp.ones_like(mean)
    (f, _, _), _ = lax.scan(climb, first, None, length=_CLIMBS)
    return expanded(terms, f, positive=True)


def expanded(terms: Terms, f: jax.Array, positive: bool) -> Sites:
    """Sites with the slope and curvature that the terms have at f.

    Args:
      positive: whether a precision that would be negative is zero.
    """
    curve = -terms.curves(f)
    curve = jnp.maximum(curve, 0.0) if positive else curve
    slope = terms.slopes(f)
    if positive:
        known = jnp.isfinite(curve) & jnp.isfinite(slope)
        curve, slope = jnp.where(known, curve, 0.0), jnp.where(known, slope, 0.0)
    return Sites(curve, curve * f + slope)
