"""What a warm-up finds: metrics of positions and gradients, in windows, and a step size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.mcmc.adaptation import windows
from inference.mcmc.by_slopes import ENOUGH, by_slopes
from inference.mcmc.metric import Metric, shrunk, unit_metric


def normal(d, seed, condition):
    """A covariance, of scales far apart; `condition` is its condition number but for these."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    covariance = (axes * np.geomspace(1, 1 / condition, d)) @ axes.T
    scales = 10.0 ** rng.uniform(-4, 4, d)
    return covariance * np.outer(scales, scales)


def deviation(found, covariance):
    """The largest |log| of an eigenvalue of one in units of the other: 0 where they are equal."""
    factor = np.linalg.cholesky(covariance)
    half = np.linalg.solve(factor, np.linalg.solve(factor, np.asarray(found)).T)
    return np.abs(np.log(np.linalg.eigvalsh(half))).max()


@pytest.mark.parametrize("d, condition", [(2, 10.0), (5, 1e4), (20, 1e6)])
def test_a_dense_metric_is_the_covariance_of_a_normal_density_from_any_positions(d, condition):
    """That have not spread, are few, and lie far from the bulk."""
    covariance = normal(d, d, condition)
    rng = np.random.default_rng(0)
    z = 1e-2 * np.sqrt(np.diag(covariance)) * (rng.normal(size=(2 * d, d)) + 30)
    slopes = np.linalg.solve(covariance, z.T).T
    both = np.cov(z.T), np.cov(slopes.T)
    found = by_slopes(*map(jnp.asarray, both), jnp.eye(d))
    # 10 d eps of the diagonals is added, by which neither grows by more than these factors; the
    # mean of the two grows by their mean (it is monotone), and twice that is left for rounding
    grown = [np.abs(np.linalg.eigvals(np.linalg.solve(x, np.diag(np.diag(x))))).max() for x in both]
    assert deviation(found, covariance) < 10 * d * np.finfo(float).eps * sum(grown)


def test_a_dense_metric_makes_covariances_of_positions_and_gradients_equal():
    """A (covariance of gradients) A is that of positions: of any density, and in any units."""
    rng = np.random.default_rng(1)
    z = rng.standard_t(3.0, size=(50, 4)) @ rng.normal(size=(4, 4))
    slopes = np.tanh(z) @ rng.normal(size=(4, 4))
    of_z, of_slopes = np.cov(z.T), np.cov(slopes.T)
    found = np.asarray(by_slopes(jnp.asarray(of_z), jnp.asarray(of_slopes), jnp.eye(4)))
    # share of the diagonals: 10 d eps = 1e-14, times the conditions of both
    np.testing.assert_allclose(found @ of_slopes @ found, of_z, rtol=0, atol=1e-9)
    units = np.outer(*[np.array([1e-6, 1.0, 30.0, 1e5])] * 2)
    scaled = by_slopes(jnp.asarray(of_z * units), jnp.asarray(of_slopes / units), jnp.eye(4))
    np.testing.assert_allclose(scaled, found * units, rtol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_metric_is_one_whatever_the_positions(dtype):
    """None that vary, one, two on a line, gradients that do not change or are no numbers."""
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(10, 3)), dtype)
    still = z.at[:, 1].set(2.0)
    line = jnp.outer(jnp.arange(10, dtype=dtype), jnp.ones(3, dtype))
    huge = z * jnp.finfo(dtype).max ** 0.6
    several = (z, still, line, 0 * z, jnp.nan * z, huge)
    for positions in several:
        for slopes in several:
            with np.errstate(all="ignore"):
                of = [jnp.cov(each.T, ddof=1) for each in (positions, slopes)]
            found = by_slopes(*of, 7.0 * jnp.eye(3, dtype=dtype))
            assert found.dtype == dtype
            assert jnp.isfinite(found).all() and jnp.isfinite(jnp.linalg.cholesky(found)).all()
    alone = by_slopes(jnp.zeros((3, 3), dtype), jnp.eye(3, dtype=dtype), 7.0 * jnp.eye(3))
    np.testing.assert_array_equal(alone, 7.0 * np.eye(3))


def test_windows_are_dense_from_twice_as_many_positions_as_coordinates():
    """Of chains together, each of a density of its own, as of one after another."""
    d = 10
    rng = np.random.default_rng(3)
    covariances = np.stack([normal(d, seed, 100.0) for seed in (5, 6)])
    precisions = jnp.asarray(np.linalg.inv(covariances))
    z = jnp.asarray(rng.normal(size=(75, 2, d)) * np.sqrt(np.diagonal(covariances, 0, 1, 2)))
    start = unit_metric(0.1, d, float, True)

    def chain(precision, z):
        tuning = windows(lambda s: s, start, None, gradient=lambda state: precision @ state)

        def step(found, each):
            found = tuning.update(found, each, {})
            return found, found.metric.inverse_mass

        return jax.lax.scan(step, tuning.init(z[0], 200), z)[1]

    together = jax.jit(jax.vmap(chain, (0, 1)))(precisions, z)
    for i, covariance in enumerate(covariances):
        alone = chain(precisions[i], z[:, i])
        # two orders of summation; eigenvectors of nearly equal eigenvalues
        np.testing.assert_allclose(together[i], alone, rtol=1e-6, atol=1e-6 * alone.max())
        of_ten, of_twenty = np.asarray(alone[28]), np.asarray(alone[29])
        assert ENOUGH * d == 20
        np.testing.assert_array_equal(of_ten, np.diag(np.diag(of_ten)))
        assert deviation(of_twenty, covariance) < 1e-6 < 1 < deviation(of_ten, covariance)


def test_a_dense_metric_of_many_coordinates_is_a_covariance():
    """Of 200 positions of 120 coordinates, which are too few to have slopes of all directions."""
    d, begin, end = 120, 250, 449
    z = jnp.asarray(np.random.default_rng(0).normal(size=(450, d)))
    start = unit_metric(0.1, d, float, True)
    tuning = windows(lambda s: s, start, None, gradient=lambda state: 2.0 * state)
    assert [begin, end] in tuning.schedule(1000)["windows"].tolist()

    def step(found, each):
        return tuning.update(found, each, {}), None

    found = jax.jit(lambda: jax.lax.scan(step, tuning.init(z[0], 1000), z)[0])()
    expected = shrunk(jnp.cov(z[begin:].T), jnp.array(end + 1 - begin), jnp.eye(d))
    # covariances by updates, and at once: of 200 terms, in numbers near 1
    np.testing.assert_allclose(found.metric.inverse_mass, expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_slices_warm_up_to_the_variances_and_keep_their_width():
    """The variances of the positions in Stan's window from 15 to 89 of 100."""
    z = np.random.default_rng(0).normal(size=(100, 2)) * [1.0, 5.0]
    tuning = windows(lambda state: state, Metric(2.5, jnp.ones(2)), None)
    found = tuning.init(None, 100)
    for each_z in z:
        found = tuning.update(found, jnp.asarray(each_z), {})
    metric = tuning.freeze(found)
    np.testing.assert_allclose(metric.inverse_mass, z[15:90].var(0, ddof=1), rtol=1e-12)
    assert metric.step_size == 2.5


def test_short_windows_go_by_gradients():
    """Positions that have hardly moved, of a normal density of very unlike scales."""
    variances = np.array([1e-8, 1e6])
    z = 1e-3 * np.random.default_rng(0).normal(size=(20, 2)) * np.sqrt(variances)
    for dense in (False, True):
        start = unit_metric(0.1, 2, float, dense)
        tuning = windows(lambda state: state, start, None, gradient=lambda state: state / variances)
        found = tuning.init(None, 20)._replace(updated=jnp.arange(20) < 9, ends=jnp.arange(20) == 8)
        for each_z in z:
            found = tuning.update(found, jnp.asarray(each_z), {})
        inverse_mass = tuning.freeze(found).inverse_mass
        variances_found = jnp.diagonal(inverse_mass) if dense else inverse_mass
        np.testing.assert_allclose(variances_found, variances, rtol=1e-12)
        if dense:  # nine positions are enough for two coordinates
            assert abs(inverse_mass[0, 1]) < 1e-12 * np.sqrt(variances.prod())


def test_many_positions_are_enough_for_variances():
    """A diagonal metric: in windows of up to 100 by slopes, in those of 200 and 500 not."""
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    precision = np.linalg.inv(covariance)
    rng = np.random.default_rng(0)
    z = rng.multivariate_normal(np.zeros(2), covariance, size=1000)
    start = unit_metric(0.1, 2, float, False)
    tuning = windows(lambda s: s, start, None, gradient=lambda state: precision @ state)

    def step(found, each):
        found = tuning.update(found, each, {})
        return found, found.metric.inverse_mass

    metrics = jax.lax.scan(step, tuning.init(jnp.asarray(z[0]), 1000), jnp.asarray(z))[1]
    ends = [int(end) for _, end in tuning.schedule(1000)["windows"][1:-1]]
    assert ends == [9, 29, 74, 99, 149, 249, 449, 949]
    for end, (begin, _) in zip(ends, tuning.schedule(1000)["windows"][1:-1], strict=True):
        inside = z[begin : end + 1]
        ratio = (
            inside.var(0, ddof=1)
            if len(inside) >= 150
            else np.sqrt(inside.var(0, ddof=1) / (inside @ precision).var(0, ddof=1))
        )
        np.testing.assert_allclose(metrics[end], ratio, rtol=1e-10)


@pytest.mark.parametrize("variances", [[1e6], [1e-8, 1e6, 1.0]])
def test_a_metric_by_gradients_is_there_after_ten_steps(variances):
    """On the way to the bulk, of a normal density: exact from any positions; then in windows."""
    variances = np.array(variances)
    d = len(variances)
    z = (5 + 1e-3 * np.random.default_rng(0).normal(size=(75, d))) * np.sqrt(variances)
    start = unit_metric(0.1, d, float, True)
    tuning = windows(lambda state: state, start, None, gradient=lambda state: state / variances)
    assert tuning.schedule(200)["windows"][:5].tolist() == [
        [0, -1], [0, 9], [10, 29], [30, 74], [75, 99]
    ]  # fmt: skip
    found, metrics = tuning.init(None, 200), []
    for each_z in z:
        found = tuning.update(found, jnp.asarray(each_z), {})
        metrics.append(np.diagonal(found.metric.inverse_mass))
    np.testing.assert_array_equal(metrics[8], np.ones(d))
    for end in (9, 29, 74):
        np.testing.assert_allclose(metrics[end], variances, rtol=1e-9)  # z / 1e-3 is rounded


@pytest.mark.slow
def test_after_the_last_window_the_step_size_settles_where_it_was():
    """An acceptance that falls with the step size, with no chance in it."""
    tuning = windows(lambda state: state, Metric(1.0, jnp.ones(1)), 0.8)
    found, seen = tuning.init(jnp.zeros(1), 200), []
    for z in np.random.default_rng(0).normal(size=200):
        seen.append(float(found.metric.step_size))
        found = tuning.update(found, jnp.asarray([z]), {"accept": jnp.exp(-seen[-1])})
    phases = tuning.schedule(200)["windows"]
    before, last = phases[-3, 1], phases[-1, 0]
    # at the end of an earlier window it begins again at ten times the size, at the last not
    assert seen[before + 2] > 5 * seen[before]
    assert max(seen[last : last + 5]) < 2 * seen[last - 1]
    np.testing.assert_allclose(tuning.freeze(found).step_size, -np.log(0.8), rtol=0.01)


def test_a_covariance_is_shrunk_whatever_the_units():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3))
    covariance, units, n = np.cov(z.T), np.array([1e-6, 1.0, 1e4]), jnp.array(40)
    found = shrunk(jnp.asarray(covariance), n, jnp.eye(3))
    scaled = shrunk(jnp.asarray(np.outer(units, units) * covariance), n, jnp.eye(3))
    np.testing.assert_allclose(scaled, np.outer(units, units) * found, rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(found), np.diagonal(covariance), rtol=1e-12)


def test_a_covariance_of_few_positions_is_no_plane():
    """Of two points on a line; and a coordinate that stayed keeps the mass it had."""
    line = jnp.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    found = shrunk(line, jnp.array(5), 7.0 * jnp.eye(3))
    rounding = 10 * 3 * np.finfo(float).eps
    off = 2.0 * (1 - 0.25 - rounding)  # (5 / (5 + 5))^2
    np.testing.assert_allclose(found, [[1, off, 0], [off, 4, 0], [0, 0, 7]], rtol=1e-12)
    alone = shrunk(jnp.zeros((2, 2)), jnp.array(5), 7.0 * jnp.eye(2))
    np.testing.assert_allclose(alone, 7.0 * np.eye(2), rtol=1e-12)
