"""The law that message passing finds, as a generative function; and the same model by NUTS."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from inference import tensors
from inference.gaussian import Exchangeable, Matern12, Matern32
from inference.tensors.factors import Factors
from inference.tensors.sites import Sites
from ppl import Target, seed

EXACT = 1e-8
TIMES = np.array([0.0, 0.3, 1.1, 1.5])
SCALES, SIGMAS = np.array([0.7, 1.4]), np.array([1.2, 0.8])
EACH = [Matern32(scale, sigma) for scale, sigma in zip(SCALES, SIGMAS, strict=True)]
STACKED = jax.tree.map(lambda *leaves: jnp.array(leaves), *EACH)


def dense(precision, linear):
    """Mean, covariance and log mass of the functions `(p n,)` given sites, by dense matrices."""
    n, p = linear.shape
    prior = np.zeros((p * n, p * n))
    for r in range(p):
        at = TIMES[:, None], TIMES
        prior[r * n : (r + 1) * n, r * n : (r + 1) * n] = Matern32(SCALES[r], SIGMAS[r]).covariance(
            *at
        )
    curve = np.zeros((p, n, p, n))
    curve[:, np.arange(n), :, np.arange(n)] = precision
    curve, pull = curve.reshape(p * n, p * n), linear.T.reshape(-1)
    covariance = np.linalg.inv(np.linalg.inv(prior) + curve)
    mass = pull @ covariance @ pull / 2 - np.linalg.slogdet(np.eye(p * n) + prior @ curve)[1] / 2
    return covariance @ pull, covariance, mass


def some_sites(rank):
    """Sites whose precision has that rank at each coordinate, and none at the last."""
    rng = np.random.default_rng(5)
    half = rng.normal(size=(4, 2, rank))
    half[-1] = 0.0
    precision = half @ np.swapaxes(half, 1, 2)
    return precision, np.einsum("npr,nr->np", half, rng.normal(size=(4, rank)))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 1])
def test_functions_given_sites_are_those_by_dense_matrices(rank):
    precision, linear = some_sites(rank)
    mean, covariance, _ = dense(precision, linear)
    law = Factors(STACKED, jnp.asarray(TIMES), Sites(jnp.asarray(precision), jnp.asarray(linear)))
    np.testing.assert_allclose(law.mean.reshape(-1), mean, atol=EXACT)
    np.testing.assert_allclose(law.variance.reshape(-1), np.diag(covariance), atol=EXACT)
    value = np.random.default_rng(1).normal(size=8)
    exact = stats.multivariate_normal(mean, covariance).logpdf(value)
    np.testing.assert_allclose(law.log_prob(value.reshape(2, 4)), exact, rtol=EXACT)
    # 3,000 joint draws, whitened: squares sum to a chi-square number of 24,000 degrees, which is
    # outside of 7 standard errors once in 4e11 tests
    draws = np.asarray(law.sample(jax.random.key(0), (3000,))).reshape(3000, 8) - mean
    white = np.linalg.solve(np.linalg.cholesky(covariance), draws.T)
    assert abs(np.sum(white**2) - 24_000) < 7 * np.sqrt(2 * 24_000)
    cross = white @ white.T / 3000 - np.eye(8)
    assert np.abs(cross).max() < 7 * np.sqrt(2 / 3000)


N = 30
RNG = np.random.default_rng(2)
COLUMNS = {"a": RNG.uniform(0, 2, N).round(1), "b": RNG.uniform(0, 3, N).round(1)}
ROWS = tensors.entries(COLUMNS)
Y = jnp.asarray(np.sin(3 * COLUMNS["a"]) * COLUMNS["b"] + 0.1 * RNG.normal(size=N))
KERNELS = {"a": Matern12(0.8), "b": Matern12(1.5)}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["cp", "tucker"])
def test_the_mean_log_weight_of_its_draws_is_the_bound(form):
    """E_q[log p - log q], of 4,000 draws, within 7 standard errors: a false alarm in 3e11."""
    model = (
        tensors.cp(1, KERNELS, effects=True) if form == "cp" else tensors.tucker((2, 1), KERNELS)
    )
    target = Target(model, (ROWS,), {"y": Y})
    found = tensors.message_passing(jax.random.key(0), target, learn=False, sweeps=20, starts=1)

    @jax.jit
    @jax.vmap
    def weight(key):
        trace = seed(found.law.simulate)(key)
        log = found.model.assess({**trace.choices, "y": Y}, ROWS)[0]
        return log - trace.score

    logs = np.asarray(weight(jax.random.split(jax.random.key(1), 4000)))
    assert abs(logs.mean() - found.bound) < 7 * logs.std() / np.sqrt(4000)
    # and the evidence is not below the bound: the mean of weights, by Jensen's inequality
    assert np.log(np.mean(np.exp(logs - logs.max()))) + logs.max() >= logs.mean()


@pytest.mark.slow
def test_counts_of_a_categorical_and_a_continuous_mode():
    """Planted rates are found, and intervals of draws hold what was held out.

    The log rate's error is at most .25 in the mean: a count of rate 5 tells its log to .45, and
    about eight entries share each pair of functions.
    """
    rng = np.random.default_rng(4)
    day, place = rng.uniform(0, 10, 600).round(1), rng.integers(0, 6, 600)
    effect = np.array([-0.6, -0.3, 0.0, 0.2, 0.4, 0.6])
    log_rate = 1.5 + effect[place] + 0.5 * np.sin(day) * (1 + 0.5 * effect[place])
    counts = rng.poisson(np.exp(log_rate))
    rows = tensors.entries({"day": day, "place": place})
    model = tensors.cp(
        1,
        {"day": Matern32(2.0), "place": Exchangeable(0.5)},
        noise=tensors.Likelihood(lambda eta: dist.Poisson(jnp.exp(eta))),
        effects=True,
    )
    target = Target(model, (rows,), {"y": jnp.asarray(counts)})
    found = tensors.message_passing(jax.random.key(0), target, sweeps=100)
    predicted = found.predict(rows)
    assert np.mean(np.abs(np.asarray(predicted.predictor) - log_rate)) < 0.25
    low, high = predicted.interval(0.9)
    inside = np.mean((counts >= np.asarray(low)) & (counts <= np.asarray(high)))
    assert 0.88 < inside < 0.99  # of whole numbers, an interval has more than its mass


QUIET, LOUD = 0.1, 0.8
STATIONS = np.repeat([3, 5], 300)  # two instruments, side by side
HOURS = np.tile(np.linspace(0, 3, 300), 2)
NOISY = np.sin(HOURS) + np.where(STATIONS == 5, QUIET, LOUD) * np.random.default_rng(2).normal(
    size=600
)
BY_STATION = tensors.cp(
    1, {"hour": Matern32(1.0), "station": Exchangeable()}, noise=tensors.NormalNoise(by="station")
)


@pytest.fixture(scope="module")
def by_station():
    rows = tensors.entries({"hour": HOURS, "station": STATIONS})
    target = Target(BY_STATION, (rows,), {"y": jnp.asarray(NOISY)})
    return tensors.message_passing(jax.random.key(0), target, starts=1)


@pytest.mark.slow
def test_each_coordinate_of_a_mode_may_have_a_noise_of_its_own(by_station):
    """A standard deviation from 300 entries is known to 1/sqrt(600), 4 %: seven of these."""
    sd = np.asarray(by_station.beliefs.precision.mean) ** -0.5
    np.testing.assert_allclose(sd, [LOUD, QUIET], rtol=7 / 600**0.5)
    new = tensors.entries({"hour": [1.0, 1.0], "station": [3, 5]})
    spread = np.sqrt(np.asarray(by_station.predict(new).variance))
    np.testing.assert_allclose(spread, [LOUD, QUIET], rtol=7 / 600**0.5)
    # the law found is one of the model's choices, and has a precision for each, too
    draws = by_station.draws(jax.random.key(1), 50)
    assert draws["precision"].shape == (1, 50, 2)
    entries = np.asarray(by_station.draw_entries(jax.random.key(2), new, 4000))
    np.testing.assert_allclose(entries.std(0), spread, rtol=7 / 8000**0.5)
    # a station that was never seen has the noise of the prior, which was learned
    unseen = by_station.predict(tensors.entries({"hour": [1.0], "station": [4]}))
    noise = by_station.tensor.noise
    np.testing.assert_allclose(unseen.precision.mean, [noise.shape / noise.rate])
    assert 1 / LOUD**2 < unseen.precision.mean < 1 / QUIET**2
    np.testing.assert_allclose(by_station.predict(new).variance, spread**2)


@pytest.mark.slow
def test_chunks_of_other_stations_leave_the_noise_of_earlier_ones(by_station):
    first = STATIONS == 5
    second = ~first  # the later chunk's coordinate comes before

    def rows(which):
        return tensors.entries({"hour": HOURS[which], "station": STATIONS[which]})

    target = Target(BY_STATION, (rows(first),), {"y": jnp.asarray(NOISY[first])})
    found = tensors.message_passing(jax.random.key(0), target, starts=1)
    more = tensors.more_entries(found, rows(second), NOISY[second], learn=False)
    for old, now in zip(found.told.noise, more.chunks[0].told.noise, strict=True):
        np.testing.assert_array_equal(now, [0.0, old[0]])
    again = tensors.revisit(more.forget(), learn=False)
    sd = np.asarray(again.beliefs.precision.mean) ** -0.5
    np.testing.assert_allclose(sd, [LOUD, QUIET], rtol=7 / 600**0.5)


def test_a_mode_has_a_precision_for_each_coordinate_in_the_model():
    rows = tensors.entries({"hour": [0.0, 1.0, 1.0], "station": [5, 3, 5]})
    seen = {"y": jnp.array([0.5, -0.2, 0.1])}
    model = BY_STATION
    latent = seed(model.simulate)(jax.random.key(0), rows).choices
    precision = jnp.array([2.0, 50.0])  # of stations 3 and 5
    choices = {**latent, "precision": precision, **seen}
    score, _ = model.assess(choices, rows)
    swapped, _ = model.assess({**choices, "precision": precision[::-1]}, rows)
    predictor = np.asarray(latent["hour"] * 1.0)[0][[0, 1, 1]]
    predictor = predictor * np.asarray(latent["station"])[0][[1, 0, 1]]
    expected = sum(
        stats.norm(m, p**-0.5).logpdf(y) - stats.norm(m, q**-0.5).logpdf(y)
        for m, y, p, q in zip(
            predictor, seen["y"], [50.0, 2.0, 50.0], [2.0, 50.0, 2.0], strict=True
        )
    )
    np.testing.assert_allclose(score - swapped, expected, rtol=EXACT)
