"""Trajectories are exactly invariant on their orbits: the library's trees, and what is not one."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import hmc, nuts
from inference.mcmc.tree import grow_by_draws
from inference.mcmc.turning import Point
from ppl import Target, draw, errors, gen, law, sample
from semantics import check_kernel_quadrature, check_orbit
from tests.mutants.trees import STARTS, Trees, check_tree

# -- trees -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trees_of_depth_four_are_exact():
    """Fifteen steps, 2**15 paths from each point, in windows where they stop early or do not."""
    verdict = check_tree(Trees, 4, step=0.35, starts=STARTS[4:6]).require()
    assert verdict.n == 2 * 16 * 2**15


def ring(points: int, turns: tuple[int, ...]):
    """A closed orbit of leapfrog steps: a harmonic oscillator for each of `turns`, which goes
    round so often in that many steps of one. Its stiffnesses, positions and momenta."""
    # a step is (z, r) -> A (z, r) with trace 2 - k, 2 cos(angle) of a rotation, k the stiffness
    angle = 2 * np.pi * np.array(turns) / points
    stiffness = 2 - 2 * np.cos(angle)
    # what is kept is z^2 k (1 - k / 4) + r^2
    phase = angle * np.arange(points)[:, None] + 0.3 + np.arange(len(turns))
    return stiffness, np.cos(phase) / np.sqrt(stiffness * (1 - stiffness / 4)), -np.sin(phase)


@pytest.mark.slow
@pytest.mark.parametrize("turns", [(1,), (1, 2)], ids=["one dimension", "two dimensions"])
def test_on_a_closed_orbit_all_of_the_law_is_seen(turns):
    """Directions are drawn, too. Eleven points, and trees of up to eight of them, which turn
    back on some of their ways: none of the law is left out, whatever the test functions."""
    stiffness, z, r = ring(11, turns)

    def potential(z):
        return jnp.sum(stiffness * z**2) / 2

    def move(state):
        z, r = state
        start = Point(z, r, stiffness * z)
        masses = jnp.ones(len(turns))
        tree = grow_by_draws(potential, start, potential(z), masses, 1.0, 3)
        return tree.chosen.z, tree.depth

    def position(state):
        return move(state)[0]

    log_weights = -np.sum(stiffness * z**2 + r**2, 1) / 2
    assert np.ptp(log_weights) > 0.02  # the steps do not keep the energy
    check_orbit(position, (z, r), log_weights, results=z).require()
    depths = law(lambda: move((jnp.asarray(z[0]), jnp.asarray(r[0])))[1])().values
    assert len(depths) > 1


# -- kernels, with their momenta -------------------------------------------------------------------


@gen
def curved():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(jnp.exp(x), 1.0))


@gen
def plane():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("z", dist.Normal(0.3 * jnp.sin(x), 0.9))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, target, how",
    [
        (
            lambda t: nuts(t, step_size=0.5, max_depth=1, unroll=True),
            Target(curved, (), {"y": 1.2}),
            {"nodes": (600, 900)},
        ),
        (
            lambda t: hmc(t, steps=2, step_size=0.4),
            Target(plane),
            {"nodes": (30, 40), "bounds": (-6, 6)},
        ),
        (
            lambda t: nuts(t, step_size=0.4, max_depth=1, unroll=True),
            Target(plane),
            {"nodes": (30, 40), "bounds": (-6, 6)},
        ),
    ],
    ids=["nuts, one dimension", "hmc, two dimensions", "nuts, two dimensions"],
)
def test_invariant_by_quadrature_over_position_and_momentum(make, target, how):
    """To 1e-6. Of trees that may turn back densities have jumps, which grids do not resolve."""
    assert check_kernel_quadrature(make, target, **how).require().error <= 1e-6


def test_an_unrolled_kernel_is_of_few_doublings():
    with pytest.raises(errors.InvalidArgument, match="max_depth"):
        nuts(Target(curved, (), {"y": 1.2}), unroll=True)


# -- the check itself ------------------------------------------------------------------------------


def metropolis(i):
    """On the integers, with weights exp(-|i| / 2)."""
    j = i + 1 - 2 * draw(dist.Bernoulli(0.5))
    ratio = jnp.minimum(1.0, jnp.exp((jnp.abs(i) - jnp.abs(j)) / 2))
    return jnp.where(draw(dist.Bernoulli(ratio)) == 1, j, i)


def test_of_a_piece_of_an_orbit_the_inner_points_are_checked():
    """Its ends are reached from outside, too; and steps must not lead off the piece."""
    line = jnp.arange(-4, 5)
    inside = {"states": line[1:-1], "log_weights": -np.abs(line[1:-1]) / 2}
    lost = check_orbit(metropolis, **inside)
    assert not lost and "leads to no point" in lost.witness

    def stays(i):  # what leaves the piece comes from its last points only
        return jnp.clip(metropolis(i), -4, 4)

    piece = {"states": line, "log_weights": -np.abs(line) / 2}
    check_orbit(stays, **piece, inner=slice(1, -1)).require()
    skewed = {**piece, "log_weights": -np.abs(line - 1) / 2}
    wrong = check_orbit(stays, **skewed, inner=slice(1, -1))
    assert not wrong and wrong.witness.startswith("point ")


@pytest.mark.parametrize(
    "states, log_weights, what",
    [
        (jnp.arange(3.0), np.zeros(4), "one weight"),
        (jnp.array([0.0, 1.0, 1.0]), np.zeros(3), "can't be told apart"),
        (jnp.array([0.0, 1.0, np.nan]), np.zeros(3), "no number"),
        (jnp.arange(3.0), np.array([0.0, np.inf, 0.0]), "no number"),
    ],
)
def test_orbits_that_are_none(states, log_weights, what):
    with pytest.raises(errors.InvalidArgument, match=what):
        check_orbit(lambda x: x, states, log_weights)


def test_a_point_without_weight_is_one():
    """What has weight must not go there, and what has none may go anywhere."""

    def to_first(x):
        return jnp.zeros_like(x)

    assert check_orbit(to_first, jnp.arange(2.0), np.array([0.0, -np.inf]))
    assert not check_orbit(to_first, jnp.arange(2.0), np.array([-np.inf, 0.0]))
