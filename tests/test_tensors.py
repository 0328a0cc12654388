"""Functional tensors by message passing, against dense matrices and against laws that must hold."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tensors_by_hand import Dense, at_new

from inference import tensors
from inference.gaussian import Exchangeable, Matern12
from inference.tensors.beliefs import nothing_told
from inference.tensors.learning import first_run, started, sweep_and_learn
from inference.tensors.model import tensor_of
from inference.tensors.noise import Precision
from inference.tensors.sweep import swept as one_sweep
from ppl import Target

RNG = np.random.default_rng(7)
N = 40
COLUMNS = {
    "a": RNG.uniform(0, 2, N).round(1),
    "b": RNG.integers(0, 4, N),
    "c": RNG.uniform(0, 3, N).round(1),
}
ROWS = tensors.entries(COLUMNS)
Y = np.sin(3 * COLUMNS["a"]) * (COLUMNS["b"] - 1.5) + 0.5 * COLUMNS["c"] + 0.1 * RNG.normal(size=N)
KERNELS = {"a": Matern12(0.8, 1.1), "b": Exchangeable(0.9), "c": Matern12(1.5, 0.7)}
FORMS = {
    "cp": lambda effects: tensors.cp(2, KERNELS, effects=effects),
    "tucker": lambda effects: tensors.tucker((2, 1, 2), KERNELS, effects=effects),
    "cp, noise by b": lambda effects: tensors.cp(
        2, KERNELS, noise=tensors.NormalNoise(by="b"), effects=effects
    ),
}
RANKS = {"cp": (2, 2, 2), "tucker": (2, 1, 2), "cp, noise by b": (2, 2, 2)}
EXACT = 1e-8
"""Some sweeps of sums of 40 entries and inverses of matrices of condition 1e4: 1e-16 · 1e4 · 1e4
is lost at most."""


def matern12(scale, sigma):
    return lambda s, t: sigma**2 * np.exp(-np.abs(s - t) / scale)


COVARIANCES = {
    "a": matern12(0.8, 1.1),
    "b": lambda s, t: 0.81 * (s == t),
    "c": matern12(1.5, 0.7),
}


def target_of(form="cp", effects=True, rows=ROWS, y=Y):
    return Target(FORMS[form](effects), (rows,), {"y": jnp.asarray(y)})


def dense_of(form, effects, state, wrong="", damping=1.0):
    """The same start, for message passing by hand."""
    beliefs = state.beliefs
    widths = [rank + effects for rank in RANKS[form]]
    coordinates = dict(zip(ROWS.names, map(np.asarray, ROWS.coordinates), strict=True))
    covariances = [
        [COVARIANCES[name](at[:, None], at)] * p
        for (name, at), p in zip(coordinates.items(), widths, strict=True)
    ]
    core = beliefs.core
    return Dense(
        form.split(",")[0], RANKS[form], effects, covariances, np.asarray(ROWS.index), Y,
        [np.array(m) for m in beliefs.means], [np.array(s) for s in beliefs.seconds],
        None if core is None else np.array(core[0]), None if core is None else np.array(core[1]),
        np.atleast_1d(beliefs.precision.shape), np.atleast_1d(beliefs.precision.rate),
        by=1 if "by b" in form else None, wrong=wrong, damping=damping,
    )  # fmt: skip


def swept(form, effects, sweeps, damping=1.0, seed=0):
    """The library's run, sweep by sweep, and its start."""
    tensor = tensor_of(FORMS[form](effects))
    key = jax.random.fold_in(jax.random.key(seed), 0)  # of the first start
    state = started(key, tensor, ROWS, jnp.asarray(Y))
    run, held = first_run(tensor, state), nothing_told(tensor, ROWS.sizes)
    bounds = []
    for _ in range(sweeps):
        run = sweep_and_learn(run, ROWS, jnp.asarray(Y), held, damping, 0.0)
        bounds.append(float(run.state.bound))
    return state, run, bounds


@pytest.mark.parametrize(
    "form, effects, damping",
    [
        ("cp, noise by b", True, 0.4),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("cp", True, 0.4), ("cp", True, 1.0), ("cp", False, 1.0),
                         ("tucker", True, 1.0), ("tucker", False, 0.4))
        ),
    ],
)  # fmt: skip
def test_sweeps_are_those_by_dense_matrices(form, effects, damping):
    state, run, bounds = swept(form, effects, 6, damping)
    dense = dense_of(form, effects, state, damping=damping)
    for _ in range(6):
        dense.sweep()
    beliefs = run.state.beliefs
    for k in range(3):
        np.testing.assert_allclose(beliefs.means[k], dense.means[k], atol=EXACT)
        np.testing.assert_allclose(beliefs.seconds[k], dense.seconds[k], atol=EXACT)
    np.testing.assert_allclose(bounds, dense.bounds, atol=1e-6, rtol=0)
    np.testing.assert_allclose(beliefs.precision.mean, dense.shape / dense.rate, rtol=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", [tensors.NormalNoise(), tensors.StudentTNoise(), tensors.StudentTNoise(by="b")]
)
@pytest.mark.parametrize("form", ["cp", "tucker"])
def test_the_bound_never_falls(form, noise):
    make = tensors.cp if form == "cp" else tensors.tucker
    model = make(RANKS[form] if form == "tucker" else 2, KERNELS, noise=noise, effects=True)
    target = Target(model, (ROWS,), {"y": jnp.asarray(Y)})
    found = tensors.message_passing(
        jax.random.key(1), target, learn=False, sweeps=40, starts=1, tolerance=0.0
    )
    steps = np.diff(found.bounds)
    assert steps.min() > -1e-9 * abs(found.bound)
    assert steps.sum() > 1


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_slope_of_the_bound_is_that_of_differences(form):
    """At the sites that are best, the derivative in a hyperparameter with the sites held."""
    tensor = tensor_of(FORMS[form](True))
    y, held = jnp.asarray(Y), nothing_told(tensor, ROWS.sizes)
    _, run, _ = swept(form, True, 400)

    def of_scale(factor):
        (length, sigma), tree = jax.tree.flatten(tensor.kernels[0])
        kernel = jax.tree.unflatten(tree, [length * factor, sigma])
        return replace(tensor, kernels=(kernel, *tensor.kernels[1:]))

    def of_prior(factor):
        noise = tensor.noise
        return replace(tensor, noise=replace(noise, shape=noise.shape * factor))

    def settled(moved):
        state = run.state
        for _ in range(60):
            state = step(moved, state)[0]
        return float(state.bound), step(moved, state)[1]

    step = jax.jit(lambda tensor, state: one_sweep(tensor, ROWS, y, state, held, 1.0))
    small = 1e-3
    slopes = settled(tensor)[1]
    found = {of_scale: slopes.kernels[0].scale @ tensor.kernels[0].scale}
    if tensor.noise.by is not None:  # the prior of the precisions is learned, too
        found[of_prior] = slopes.noise["shape"] * tensor.noise.shape
    for moved, slope in found.items():
        bounds = [settled(moved(1 + by))[0] for by in (small, -small)]
        difference = (bounds[0] - bounds[1]) / (2 * small)
        # of bounds of size 50, right to 1e-9; its own error is 1e-6 of third derivatives
        np.testing.assert_allclose(slope, difference, rtol=1e-3, atol=1e-4)


def test_one_mode_of_rank_one_is_regression_by_a_process():
    x = np.linspace(0, 3, 12)
    y = np.sin(x) + 0.1
    sure = tensors.NormalNoise(shape=4e8, rate=1e8)  # a variance of 1/4
    model = tensors.cp(1, {"x": Matern12(1.0)}, noise=sure)
    target = Target(model, (tensors.entries({"x": x}),), {"y": jnp.asarray(y)})
    found = tensors.message_passing(jax.random.key(0), target, learn=False, sweeps=12, starts=1)
    covariance = np.exp(-np.abs(x[:, None] - x))
    whole = covariance + np.eye(12) / 4
    mean, sd = found.functions("x")
    # the precision is known to 5e-5, and the bound is less by its divergence, of 1e-6
    np.testing.assert_allclose(mean[0], covariance @ np.linalg.solve(whole, y), atol=1e-6)
    left = covariance - covariance @ np.linalg.solve(whole, covariance)
    np.testing.assert_allclose(sd[0] ** 2, np.diag(left), atol=1e-6)
    exact = stats.multivariate_normal(np.zeros(12), whole).logpdf(y)
    np.testing.assert_allclose(found.bound, exact, atol=1e-4)
    new = np.array([4.0, 0.4, -1.0])
    across = np.exp(-np.abs(new[:, None] - x))
    mean, sd = found.functions("x", new)
    np.testing.assert_allclose(mean[0], across @ np.linalg.solve(whole, y), atol=1e-6)
    left = 1 - np.einsum("mn,nm->m", across, np.linalg.solve(whole, across.T))
    np.testing.assert_allclose(sd[0] ** 2, left, atol=1e-6)


@pytest.mark.slow
def test_cp_is_tucker_with_a_superdiagonal_core():
    core = np.zeros((2, 2, 2))
    core[[0, 1], [0, 1], [0, 1]] = 1.0
    models = (
        tensors.cp(2, KERNELS, effects=True),
        tensors.tucker(2, KERNELS, core=core, effects=True),
    )
    found = [
        tensors.message_passing(
            jax.random.key(3),
            Target(model, (ROWS,), {"y": jnp.asarray(Y)}),
            learn=True,
            sweeps=15,
            starts=1,
            tolerance=0.0,
        )
        for model in models
    ]
    np.testing.assert_allclose(found[0].bounds, found[1].bounds, rtol=1e-9)
    one, other = (each.predict(ROWS) for each in found)
    np.testing.assert_allclose(one.predictor, other.predictor, atol=EXACT)
    np.testing.assert_allclose(one.uncertainty, other.uncertainty, atol=EXACT)


def at_rest(target, seed=0, sweeps=400):
    """Where message passing ends, to many digits."""
    return tensors.message_passing(
        jax.random.key(seed), target, learn=False, sweeps=sweeps, starts=1, tolerance=1e-13
    )


@pytest.mark.slow
def test_the_order_of_entries_and_empty_coordinates_change_nothing():
    whole = at_rest(target_of())
    order = RNG.permutation(N)
    shuffled = tensors.entries({name: column[order] for name, column in COLUMNS.items()})
    again = at_rest(target_of(rows=shuffled, y=Y[order]))
    np.testing.assert_allclose(again.bounds, whole.bounds, rtol=1e-9)

    state, _, bounds = swept("cp", True, 4)
    more = tensors.entries(COLUMNS, coordinates={"a": np.r_[COLUMNS["a"], -1.0, 0.55, 9.0]})
    places = np.searchsorted(more.coordinates[0], ROWS.coordinates[0])
    tensor = tensor_of(FORMS["cp"](True))
    wide = started(jax.random.key(0), tensor, more, jnp.asarray(Y))  # for its shapes
    # the same start, at the coordinates that have entries
    modes = list(wide.beliefs.modes)
    first = modes[0]
    modes[0] = replace(
        first,
        mean=first.mean.at[places].set(state.beliefs.means[0]),
        second=first.second.at[places].set(state.beliefs.seconds[0]),
    )
    modes[1:] = state.beliefs.modes[1:]
    wide = replace(wide, beliefs=replace(state.beliefs, modes=tuple(modes)))
    run = first_run(tensor, wide)
    found = []
    for _ in range(4):
        run = sweep_and_learn(run, more, jnp.asarray(Y), nothing_told(tensor, more.sizes), 1.0, 0.0)
        found.append(float(run.state.bound))
    np.testing.assert_allclose(found, bounds, rtol=1e-9)


@pytest.mark.slow
def test_the_order_of_modes_changes_nothing_at_rest():
    """Where it ends, up to what is left of the way: modes are updated in another order."""
    turned = {name: COLUMNS[name] for name in ("c", "a", "b")}
    model = tensors.cp(1, {name: KERNELS[name] for name in turned})
    other = Target(model, (tensors.entries(turned),), {"y": jnp.asarray(Y)})
    one = Target(tensors.cp(1, KERNELS), (ROWS,), {"y": jnp.asarray(Y)})
    bounds = [max(at_rest(t, seed).bound for seed in range(3)) for t in (one, other)]
    np.testing.assert_allclose(*bounds, rtol=1e-7)


@pytest.mark.slow
def test_predictions_are_by_the_kernels_at_new_coordinates():
    found = at_rest(target_of(), sweeps=30)
    state, _, _ = swept("cp", True, 0)
    dense = dense_of("cp", True, state)
    for _ in range(len(found.bounds)):
        dense.sweep()
    new = {
        "a": np.array([0.33, 5.0, -2.0]),
        "b": np.array([2, 9, 0]),
        "c": np.array([3.9, 1.0, 1.0]),
    }
    predicted = found.predict(tensors.entries(new))
    moments = [
        at_new(dense.laws[k], np.asarray(ROWS.coordinates[k]), np.asarray(new[name], float),
               COVARIANCES[name], 3)
        for k, name in enumerate(ROWS.names)
    ]  # fmt: skip
    dense.means, dense.seconds = ([m[i] for m in moments] for i in (0, 1))
    dense.index, dense.y = np.tile(np.arange(3)[:, None], 3), np.zeros(3)
    mean, second = dense._products()
    both = np.outer(dense.weights, dense.weights) + dense.spread
    np.testing.assert_allclose(predicted.predictor, mean @ dense.weights, atol=1e-6)
    variance = np.einsum("nst,st->n", second, both) - (mean @ dense.weights) ** 2
    np.testing.assert_allclose(predicted.uncertainty**2, variance, atol=1e-6)


@pytest.mark.slow
def test_draws_of_entries_have_the_moments_that_are_predicted():
    """Means within 7 standard errors, of 4,000 draws: a false alarm in 3e11 entries."""
    found = at_rest(target_of("tucker"), sweeps=30)
    rows = tensors.entries({"a": [0.33, 5.0], "b": [2, 9], "c": [3.9, 1.0]})
    draws = np.asarray(found.draw_entries(jax.random.key(5), rows, 4000))
    predicted = found.predict(rows)
    error = np.std(draws, axis=0) / np.sqrt(4000)
    assert (np.abs(draws.mean(0) - predicted.mean) < 7 * error).all()
    square = (draws - np.asarray(predicted.mean)) ** 2
    error = np.std(square, axis=0) / np.sqrt(4000)
    assert (np.abs(square.mean(0) - predicted.variance) < 7 * error).all()


@pytest.mark.slow
def test_quantiles_are_those_of_the_distribution_function():
    found = at_rest(target_of(), sweeps=30)
    predicted = found.predict(ROWS)
    for p in (0.05, 0.5, 0.9):
        np.testing.assert_allclose(predicted.cdf(predicted.quantile(p)), p, atol=1e-6)
    # a normal predictor and normal noise of known variance: a normal law
    sure = Precision(jnp.array(4e5), jnp.array(1e5))  # 8e5 degrees of freedom: 1e-6 off
    law = tensors.Predicted(jnp.array([1.0]), jnp.array([0.3]), tensors.NormalNoise(), sure)
    exact = stats.norm(1.0, np.hypot(0.3, 0.5))
    np.testing.assert_allclose(law.log_prob(0.4)[0], exact.logpdf(0.4), atol=1e-5)
    np.testing.assert_allclose(law.quantile(0.9), exact.ppf(0.9), atol=1e-5)
    np.testing.assert_allclose(law.variance, 0.34, atol=1e-5)
