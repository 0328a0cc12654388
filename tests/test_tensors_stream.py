"""Functional tensors on the host: chunks of entries, checkpoints, Ctrl-C, pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference import tensors, to_datatree
from inference.gaussian import Exchangeable, Matern12
from inference.tensors import stages, stream
from ppl import Target
from ppl.errors import CheckpointError, NonFiniteStep

RNG = np.random.default_rng(9)
N = 60
COLUMNS = {"a": RNG.uniform(0, 2, N).round(1), "b": RNG.integers(0, 4, N)}
Y = np.sin(3 * COLUMNS["a"]) * (COLUMNS["b"] - 1.4) + 0.1 * RNG.normal(size=N)
GRID = {name: np.unique(column) for name, column in COLUMNS.items()}
MODEL = tensors.cp(1, {"a": Matern12(0.8), "b": Exchangeable()})
KEY = jax.random.key(0)


def rows_of(which):
    return tensors.entries({k: v[which] for k, v in COLUMNS.items()}, coordinates=GRID)


def target_of(which=slice(None)):
    return Target(MODEL, (rows_of(which),), {"y": jnp.asarray(Y[which])})


def fit(target, **settings):
    how = {"learn": False, "sweeps": 60, "starts": 1, "tolerance": 0.0} | settings
    return tensors.message_passing(KEY, target, **how)


@pytest.fixture(scope="module")
def whole():
    return fit(target_of(), sweeps=1000)


@pytest.mark.slow
def test_chunks_that_are_looked_at_again_are_all_entries_at_once(whole):
    found = fit(target_of(slice(0, 20)))
    for start in (20, 40):
        which = slice(start, start + 20)
        found = tensors.more_entries(found, rows_of(which), Y[which], learn=False)
    once = found.predict(rows_of(slice(None))).predictor
    exact = np.asarray(whole.predict(rows_of(slice(None))).predictor)
    again = tensors.revisit(found, sweeps=1000, learn=False, tolerance=0.0)
    assert len(found.chunks) == 3 and len(again.chunks) == 1
    settled = again.predict(rows_of(slice(None))).predictor
    np.testing.assert_allclose(settled, exact, atol=1e-4)
    # before that, sites that were found of fewer entries were off
    assert np.max(np.abs(once - exact)) > 1e-2
    np.testing.assert_allclose(
        again.beliefs.precision.mean, whole.beliefs.precision.mean, rtol=1e-3
    )
    np.testing.assert_allclose(again.bound, whole.bound, atol=1e-3)
    assert again.target.args[0].count == N


@pytest.mark.slow
def test_what_is_forgotten_still_tells(whole):
    found = fit(target_of(slice(0, 40)))
    more = tensors.more_entries(found, rows_of(slice(40, N)), Y[40:], learn=False)
    less = more.forget()
    assert len(less.chunks) == 1 and less.rows.count == 20
    one, other = (each.predict(rows_of(slice(None))) for each in (more, less))
    np.testing.assert_array_equal(one.predictor, other.predictor)
    settled = tensors.revisit(less, sweeps=30, learn=False)
    assert len(settled.chunks) == 1


@pytest.mark.slow
def test_a_trial_of_components_that_fails_leaves_the_rest_as_it_is(monkeypatch):
    """Three components of one: two are off, are begun again with a key, and their sweeps fail."""
    target = Target(THREE, (rows_of(slice(0, 40)),), {"y": jnp.asarray(Y[:40])})
    found = fit(target, learn=True, sweeps=100)
    assert (found.relevance() < 1e-6).any()
    more = (rows_of(slice(40, N)), Y[40:])
    exact = tensors.more_entries(found, *more)
    swept, runs = stream._again, []

    def fails(begin, how):
        runs.append(begin)
        if len(runs) == 2:
            raise NonFiniteStep("a trial", where="here", given="nan", expected="a number", fix="-")
        return swept(begin, how)

    monkeypatch.setattr(stream, "_again", fails)
    again = tensors.more_entries(found, *more, key=KEY)
    assert len(runs) == 2
    np.testing.assert_array_equal(again.bounds, exact.bounds)


@pytest.mark.slow
def test_new_coordinates_join_the_old_ones():
    found = fit(target_of(slice(0, 40)))
    columns = {"a": np.array([0.05, 7.0]), "b": np.array([9, 0])}
    more = tensors.more_entries(found, tensors.entries(columns), [0.3, -0.2], learn=False)
    assert more.rows.sizes == (found.rows.sizes[0] + 2, found.rows.sizes[1] + 1)
    mean, sd = more.functions("b", [9.0])
    assert mean.shape == sd.shape == (1, 1)


class Stop:
    """`sweep_and_learn`, which is interrupted at one of its calls."""

    def __init__(self, at):
        self.left, self.sweep = at, stages.sweep_and_learn

    def __call__(self, *args):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.sweep(*args)


THREE = tensors.cp(3, {"a": Matern12(0.8), "b": Exchangeable()})
TWICE = Y + 2 * np.cos(4 * COLUMNS["a"]) * (COLUMNS["b"] == 2)
"""Of two components: two starts take 40 sweeps, a climb that is soon content 10, and each that
is taken out 20."""


@pytest.mark.parametrize(
    "at", [33, 66, *(pytest.param(at, marks=pytest.mark.slow) for at in (13, 47, 85))]
)
def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(at, tmp_path, monkeypatch):
    """Interrupted in either start, in the climb, and as components are taken out."""
    target = Target(THREE, (rows_of(slice(None)),), {"y": jnp.asarray(TWICE)})
    how = {"learn": True, "sweeps": 25, "starts": 2, "tolerance": 0.05}
    exact = fit(target, **how)
    assert exact.status.startswith("converged") and int(exact.status.split()[2]) > 85
    with monkeypatch.context() as patch:
        patch.setattr(stages, "sweep_and_learn", Stop(at))
        if at < 40:  # no start has won yet
            with pytest.raises(KeyboardInterrupt):
                fit(target, **how, checkpoint=tmp_path / "run")
        else:
            found = fit(target, **how, checkpoint=tmp_path / "run")
            assert found.status == f"interrupted after {at} sweeps" and not found
            np.testing.assert_array_equal(found.bounds, exact.bounds[: found.bounds.size])
    again = fit(target, **how, checkpoint=tmp_path / "run")
    assert again.status == exact.status
    np.testing.assert_array_equal(again.bounds, exact.bounds)
    for a, b in zip(jax.tree.leaves(again.beliefs), jax.tree.leaves(exact.beliefs), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match="another run"):
        fit(target, **how | {"sweeps": 26}, checkpoint=tmp_path / "run")


def test_an_interrupt_before_the_first_sweep_is_one(monkeypatch):
    monkeypatch.setattr(stages, "sweep_and_learn", Stop(0))
    with pytest.raises(KeyboardInterrupt):
        fit(target_of())


def test_a_bound_that_is_no_number_is_told_with_the_sweeps_before():
    """Entries near the largest float: their squares are infinite."""
    target = Target(MODEL, (rows_of(slice(None)),), {"y": jnp.asarray(Y) * 1e200})
    with pytest.raises(NonFiniteStep, match="bound"):
        fit(target)


def test_the_verdict_says_whether_it_has_converged(whole):
    assert not fit(target_of(), sweeps=5) and whole.bounds.shape == (1000,)
    short = fit(target_of(), sweeps=5)
    (said,) = short.advice
    assert said.startswith("not converged after 5 sweeps; the last 5 bounds move by")
    found = fit(target_of(), tolerance=1e-4)
    assert found.advice == ()
    assert found and found.status.startswith("converged after")
    gain = (found.bounds[-1] - found.bounds[-11]) / 10 / N
    assert 0 <= gain < 1e-4


@pytest.mark.slow
def test_draws_and_pictures(whole):
    draws = whole.draws(KEY, 50)
    assert draws["a"].shape == (1, 50, 1, len(GRID["a"]))
    tree = to_datatree(draws)
    assert set(tree["posterior"].data_vars) == {"a", "b", "precision"}
    figure = tensors.plot_functions(whole)
    assert [ax.get_title() for ax in figure.axes] == ["a 1", "b 1"]
    figure = tensors.plot_predictions(whole, rows_of(slice(0, 20)), Y[:20])
    share = figure.axes[1].lines[0].get_ydata()
    assert (np.diff(share) >= 0).all() and share[-1] == 1.0
