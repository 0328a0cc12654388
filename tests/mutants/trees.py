"""Trees of the no-U-turn sampler with one thing wrong, on windows of orbits.

A window has 2**DEPTH points of an orbit. From each of them one sequence of directions leads to the
whole of it; so the law of the next point, given those directions, keeps the weights of the window,
whether the trees stop before or not.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from inference.mcmc.tree import Trees, grow_by_draws
from inference.mcmc.turning import Point
from semantics import Verdict, check_orbit

from .registry import Entry, Kind

INVERSE_MASS = jnp.array([[1.0, 0.3], [0.3, 0.5]])
STARTS = (
    ((1.2, -0.4), (0.5, 1.1)),
    ((-0.3, 0.8), (1.5, -0.2)),
    ((0.1, 2.0), (-0.6, -0.9)),
    ((-1.6, 0.9), (-0.3, 0.4)),
    ((0.1, -0.1), (0.6, 0.1)),
    ((-0.5, 0.4), (1.3, 0.9)),
    ((-0.7, -1.3), (-0.6, 0.0)),
    ((0.4, 0.0), (-2.3, -0.2)),
)
STEP = 0.6


def potential(z: jax.Array) -> jax.Array:
    """Curved, so that trajectories have many shapes."""
    return 0.5 * z[0] ** 2 + (z[1] - 0.5 * z[0] ** 2) ** 2


def energy(z: jax.Array, r: jax.Array) -> jax.Array:
    return potential(z) + 0.5 * r @ INVERSE_MASS @ r


def orbit(z: Any, r: Any, points: int, step: float) -> tuple[jax.Array, jax.Array]:
    """Positions and momenta of leapfrog steps, the first one at (z, r)."""
    force = jax.grad(lambda z: -potential(z))

    def leapfrog(state: tuple, _: None) -> tuple:
        z, r = state
        middle = r + step / 2 * force(z)
        there = z + step * INVERSE_MASS @ middle
        return (there, middle + step / 2 * force(there)), state

    return lax.scan(leapfrog, (jnp.asarray(z), jnp.asarray(r)), None, points)[1]


def check_tree(
    trees: type[Trees], depth: int = 3, step: float = STEP, starts: tuple = STARTS
) -> Verdict:
    """`check_orbit` of a tree, given the directions that lead from each point to its window."""
    parts = [orbit(z, r, 2**depth, step) for z, r in starts]
    z, r = (jnp.concatenate(each) for each in zip(*parts, strict=True))
    place = jnp.arange(2**depth)[:, None] >> jnp.arange(depth)
    signs = jnp.tile(1.0 - 2.0 * (place & 1), (len(starts), 1))

    def move(state: tuple) -> jax.Array:
        z, r, signs = state
        value, slope = jax.value_and_grad(potential)(z)
        start = Point(z, r, slope)
        grown = grow_by_draws(potential, start, value, INVERSE_MASS, step, depth, signs, trees)
        return grown.chosen.z

    return check_orbit(move, (z, r, signs), -jax.vmap(energy)(z, r), results=z)


class WrongEnd(Trees):
    """Whether the whole turns back is asked of the end that is nearer to the half."""

    def joined(self, depth: Any, middle: Any, whole: Any, half: Any) -> Any:
        depth_after, leaf, joined, empty = super().joined(depth, middle, whole, half)
        swapped = whole._replace(left=whole.right, right=whole.left)
        wrong = super().joined(depth, middle, swapped, half)[3].going
        return depth_after, leaf, joined, empty._replace(going=wrong)


class OnlyTaken(Trees):
    """A half counts in the weight of the whole only if it is taken."""

    def joined(self, depth: Any, middle: Any, whole: Any, half: Any) -> Any:
        depth_after, leaf, joined, empty = super().joined(depth, middle, whole, half)
        taken = jnp.any(joined.chosen.z != whole.chosen.z, -1)
        weight = jnp.where(taken, joined.log_weight, whole.log_weight)
        return depth_after, leaf, joined._replace(log_weight=weight), empty


class LightStart(Trees):
    """The first point weighs .95 of what it should."""

    def stepped(self, energy: Any, state: Any) -> Any:
        if state.depth == 0:
            light = state.whole.log_weight + jnp.log(0.95)
            state = state._replace(whole=state.whole._replace(log_weight=light))
        return super().stepped(energy, state)


class OffByOne(Trees):
    """A subtree of two points is taken to begin one before its first."""

    def looked_back(self, rows: Any, leaf: Any, before: Any, end: Any, sign: Any) -> Any:
        leaf = jnp.asarray(leaf)
        first = lax.population_count(leaf >> 1)
        early = rows.at[first, 0].set(rows[first, 2])
        ends = leaf & 1 == 1
        kept, turned = super().looked_back(jnp.where(ends, early, rows), leaf, before, end, sign)
        return jnp.where(ends, rows, kept), turned


def _tree(kind: Kind, name: str, says: str, trees: type[Trees]) -> Entry:
    return Entry("trees", name, says, partial(check_tree, trees), kind, "check_orbit")


ENTRIES = (
    _tree("correct", "library", "the library's", Trees),
    _tree("mutant", "wrong end", "the turning test at the end that is nearer", WrongEnd),
    _tree("mutant", "only taken", "a half's weight counts only when it is taken", OnlyTaken),
    _tree("mutant", "first point", "the first point weighs .95", LightStart),
    _tree("mutant", "off by one", "a subtree begins one point too early", OffByOne),
)
