"""Pictures of particles: they show the numbers of the run, and say what they leave out."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Weighted,
    annealed,
    genealogy,
    multinomial,
    particle_filter,
    plot_ancestry,
    plot_ess,
    plot_weights,
    random_walk,
    run_particles,
    unit,
)
from inference.results.particle_plots import _SEGMENTS
from ppl import Target, errors, gen, sample, seed


@gen
def walk(z, _):
    z = sample("z", dist.Normal(z, 1.0))
    sample("pair", dist.Normal(z, 1.0).expand([2]))
    sample("y", dist.Normal(z, 1.0))
    return z, None


YS = {"y": jnp.sin(jnp.arange(12.0)).at[7].set(25.0)}


def filtering(n=40):
    return lambda: particle_filter(walk, 0.0, YS, n, history=True, scheme=multinomial)


@pytest.fixture(scope="module")
def run():
    return run_particles(jax.random.key(0), filtering(), observations=YS)


def test_the_effective_number_and_the_gains_are_those_of_the_history(run):
    top, bottom = plot_ess(run).axes
    line, floor, few = top.lines
    assert (line.get_ydata() == run.history.ess).all()
    assert set(floor.get_ydata()) == {2.0}
    assert few.get_xdata().tolist() == np.flatnonzero(run.history.ess < 2.0).tolist()
    assert 7 in few.get_xdata()
    total = np.cumsum(bottom.lines[0].get_ydata())
    np.testing.assert_allclose(total, run.history.log_evidence, rtol=1e-12)
    # of what the filter gave, the same picture
    again = plot_ess(run.result, floor=0.5).axes[0]
    assert (again.lines[0].get_ydata() == line.get_ydata()).all()
    assert set(again.lines[1].get_ydata()) == {20.0}


def test_the_curve_of_weights():
    found = plot_weights(Weighted((), jnp.log(jnp.array([4.0, 0.0, 1.0, 5.0]))))
    curve, even = found.axes[0].lines
    np.testing.assert_allclose(curve.get_ydata(), [0.0, 0.0, 0.1, 0.5, 1.0], atol=1e-15)
    assert list(even.get_ydata()) == [0, 1]
    # 10^2 / (16 + 1 + 25)
    assert found.axes[0].get_title() == "2.381 of 4 particles count"
    dead = plot_weights(Weighted((), jnp.full(3, -jnp.inf)))
    assert dead.axes[0].get_title() == "all weights are zero"


def test_dark_lines_are_the_genealogy(run):
    figure = plot_ancestry(run, "z")
    top, bottom = figure.axes
    everyone, dark = (c.get_segments() for c in top.collections)
    paths = np.asarray(genealogy(run.result).value["z"])
    assert len(everyone) == 40 * 11
    steps = [(t, a, b) for path in paths for t, (a, b) in enumerate(itertools.pairwise(path))]
    drawn = [(int(s[0, 0]), s[0, 1], s[1, 1]) for s in dark]
    assert sorted(drawn) == sorted(set(steps))
    left = [len(np.unique(paths[:, t])) for t in range(12)]
    assert bottom.lines[0].get_ydata().tolist() == left and left[0] < left[-1] == 40


def test_where_all_weights_are_zero_no_particle_has_descendants():
    none = seed(lambda: particle_filter(bounded, 0.0, YS, 5, history=True))(jax.random.key(0))
    _, bottom = plot_ancestry(none, "z").axes
    assert bottom.lines[0].get_ydata().tolist() == [0] * 12


@gen
def bounded(z, _):
    z = sample("z", dist.Normal(z, 1.0))
    sample("y", dist.Uniform(z + 100.0, z + 101.0))
    return z, None


def test_of_many_particles_those_with_descendants_are_drawn_and_it_says_so():
    n = _SEGMENTS // 12 + 1
    found = seed(filtering(n))(jax.random.key(0))
    top, _ = plot_ancestry(found, "z").axes
    assert len(top.collections) == 1
    assert top.get_title() == f"z: of {n} particles, those with descendants at the end"


@gen
def normal():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 0.5))


def test_what_is_not_there_is_named(run):
    step = annealed(Target(normal, (), {"y": 2.0}), 50, random_walk, 4)
    particles = seed(lambda: step(unit()))(jax.random.key(0))
    for call, kind, says in (
        (lambda: plot_ess(particles), errors.InvalidArgument, "no history to draw"),
        (lambda: plot_weights(3.0), errors.InvalidArgument, "no particles to draw"),
        (lambda: plot_weights(unit()), errors.InvalidArgument, "no particle axis"),
        (lambda: plot_ancestry(particles, "z"), errors.InvalidArgument, "no kept particles"),
        (lambda: plot_ancestry(run, "zz"), errors.AddressNotFound, '"z"'),
        (lambda: plot_ancestry(run, "pair"), errors.ShapeError, "one number is drawn"),
    ):
        with pytest.raises(kind, match=says) as found:
            call()
        assert "test_particle_plots.py" in str(found.value)
        assert len(str(found.value).splitlines()) <= 12


def test_without_matplotlib_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(errors.MissingPackage, match=r"pip install 'giry\[plots\]'"):
        plot_weights(run)
