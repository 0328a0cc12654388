"""Processes at several places: as one dense normal law."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference.gaussian.lanes import WAYS
from inference.gaussian.matern import Matern12, Matern32
from inference.gaussian.space import predict_places, space_time
from ppl import PPLError

pytestmark = pytest.mark.slow

M, N = 3, 40
RANDOM = np.random.default_rng(0)
TIMES = RANDOM.uniform(0, 12, N)
PLACES = np.array([[1.0, 0.6, 0.1], [0.6, 2.0, -0.3], [0.1, -0.3, 0.5]])
VALUES = RANDOM.normal(size=(N, M))
NOISE = RANDOM.uniform(0.1, 0.5, (N, M))
MEAN = RANDOM.normal(size=(N, M))
SEEN = RANDOM.uniform(size=(N, M)) < 0.8
NEW = np.array([3.3, 14.0, -1.0])
KERNEL = Matern32(1.3, 0.8)
each_way = pytest.mark.parametrize("along", WAYS)


def by_fold(kernel, places, noise, mean, values, present=None, along="scan"):
    law = space_time(kernel, places, TIMES, mean=mean, noise=noise, present=present, along=along)
    return law.log_prob(values)


def covariance(kernel, places, times):
    """k(s, t) C, time after time."""
    return jnp.kron(kernel.covariance(times[:, None], times), places)


def by_matrix(kernel, places, noise, mean, values, present=None):
    seen = np.arange(N * M) if present is None else np.flatnonzero(present)
    dense = covariance(kernel, places, TIMES) + jnp.diag(noise.reshape(-1))
    law = dist.MultivariateNormal(mean.reshape(-1)[seen], dense[np.ix_(seen, seen)])
    return law.log_prob(values.reshape(-1)[seen])


@each_way
@pytest.mark.parametrize("present", [None, SEEN], ids=["whole", "missing"])
def test_three_places_at_forty_times_are_dense(present, along):
    """Unsorted; value to 1e-10, and gradients to 1e-8: in kernel, places, noise, mean, values."""
    args = KERNEL, PLACES, NOISE, MEAN, VALUES

    def slopes(density):
        return jax.jit(jax.value_and_grad(density, range(5)))(*args)

    found = slopes(lambda *a: by_fold(*a, present=present, along=along))
    right = slopes(lambda *a: by_matrix(*a, present=present))
    np.testing.assert_allclose(found[0], right[0], rtol=1e-12, atol=1e-10)
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(right[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@each_way
def test_without_noise(along):
    few = np.arange(5)
    law = space_time(KERNEL, PLACES, TIMES[few], along=along)
    right = dist.MultivariateNormal(0.0, covariance(KERNEL, PLACES, TIMES[few]))
    np.testing.assert_allclose(
        law.log_prob(VALUES[few]), right.log_prob(VALUES[few].reshape(-1)), rtol=1e-10
    )


def test_moments_are_those_of_the_dense_law():
    law = space_time(KERNEL, PLACES, TIMES, mean=MEAN, noise=NOISE)
    dense = covariance(KERNEL, PLACES, TIMES) + np.diag(NOISE.reshape(-1))
    np.testing.assert_allclose(law.covariance_matrix, dense, rtol=1e-13)
    np.testing.assert_allclose(law.variance.reshape(-1), np.diag(dense), rtol=1e-13)
    np.testing.assert_array_equal(law.mean, MEAN)


def test_draws_have_the_covariance():
    """4000 draws of 6 numbers: products have a standard error of at most sqrt(2 v v' / 4000), and
    six of them are passed once in 1e8 runs, for each of 21 products."""
    times = np.array([1.0, 0.0])
    law = space_time(Matern12(1.0), PLACES, times, mean=MEAN[:2], noise=NOISE[:2])
    draws = law.sample(jax.random.key(0), (4000,)).reshape(4000, -1) - MEAN[:2].reshape(-1)
    right = np.asarray(law.covariance_matrix)
    error = np.sqrt(2 * np.outer(np.diag(right), np.diag(right)) / 4000)
    assert np.all(np.abs(draws.T @ draws / 4000 - right) < 6 * error)


@pytest.fixture(scope="module")
def ahead():
    law = space_time(KERNEL, PLACES, TIMES, mean=0.3, noise=NOISE, present=SEEN)
    return predict_places(law, np.where(SEEN, VALUES, np.nan), NEW)


def conditioned():
    times = np.concatenate([TIMES, NEW])
    whole = np.asarray(covariance(KERNEL, PLACES, times))
    seen, new = np.flatnonzero(SEEN), N * M + np.arange(NEW.size * M)
    old = whole[np.ix_(seen, seen)] + np.diag(NOISE.reshape(-1)[seen])
    gain = np.linalg.solve(old, whole[np.ix_(seen, new)]).T
    mean = 0.3 + gain @ (VALUES.reshape(-1)[seen] - 0.3)
    return mean, whole[np.ix_(new, new)] - gain @ whole[np.ix_(seen, new)]


def test_a_prediction_is_the_conditional_law(ahead):
    mean, dense = conditioned()
    np.testing.assert_allclose(ahead.mean.reshape(-1), mean, atol=1e-10)
    np.testing.assert_allclose(ahead.variance.reshape(-1), np.diag(dense), atol=1e-10)
    f = VALUES[:3] + 0.1
    right = dist.MultivariateNormal(mean, dense).log_prob(f.reshape(-1))
    np.testing.assert_allclose(ahead.log_prob(f), right, rtol=0, atol=1e-9)


def test_a_drawn_prediction_is_joint(ahead):
    """The covariance of draws, exactly, between times and places."""
    zeros = jnp.zeros((N + NEW.size + 1, 2 * M)), jnp.zeros((N + NEW.size, M))
    by = jax.jit(jax.jacobian(ahead.from_normals, (0, 1)))(*zeros)
    factor = np.concatenate([x.reshape(NEW.size * M, -1) for x in by], 1)
    mean, dense = conditioned()
    np.testing.assert_allclose(ahead.from_normals(*zeros).reshape(-1), mean, atol=1e-10)
    np.testing.assert_allclose(factor @ factor.T, dense, atol=1e-10)


def test_a_new_place_is_one_of_which_nothing_is_present():
    """Its mean given the others is that of the dense law."""
    nothing = np.ones((N, M), bool)
    nothing[:, 2] = False
    law = space_time(KERNEL, PLACES, TIMES, noise=0.2, present=nothing)
    found = predict_places(law, VALUES, NEW).mean[:, 2]
    gains = np.asarray(KERNEL.covariance(NEW[:, None], TIMES))
    old = np.asarray(covariance(KERNEL, PLACES[:2, :2], TIMES)) + 0.2 * np.eye(2 * N)
    cross = np.kron(gains, PLACES[2:, :2])
    right = cross @ np.linalg.solve(old, VALUES[:, :2].reshape(-1))
    np.testing.assert_allclose(found, right, atol=1e-10)


ONE, TWO = Matern12(1.0), np.arange(2.0)
WRONG = {
    "places": (lambda: space_time(ONE, np.ones((2, 3)), TWO), "real numbers of shape (2, 2)"),
    "mean": (
        lambda: space_time(ONE, np.eye(3), TWO, mean=np.ones(2)),
        "real numbers of shape () or (3,) or (2, 3)",
    ),
    "noise": (lambda: space_time(ONE, np.eye(3), TWO, noise=-1.0), "finite numbers, 0 or more"),
    "present": (lambda: space_time(ONE, np.eye(3), TWO, present=TWO), "bools of shape (2, 3)"),
    "repeated": (lambda: space_time(ONE, np.eye(2), np.zeros(2)), "different times, or noise"),
    "value": (lambda: space_time(ONE, np.eye(3), TWO).log_prob(np.ones((3, 2))), "shape (2, 3)"),
    "mean ahead": (
        lambda: predict_places(
            space_time(ONE, np.eye(1), TWO, mean=np.ones((2, 1))), np.ones((2, 1)), TWO + 3
        ),
        "the mean of f at the new times",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name):
    make, expected = WRONG[name]
    with pytest.raises(PPLError) as told:
        make()
    assert told.value.expected == expected
    assert "test_gaussian_space.py" in told.value.where[0]
