"""Discrepancies between samplers, and score matching: closed forms, and sums by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference.vi.discrepancies import energy_distance, mmd
from inference.vi.score_matching import score_matching
from ppl import PPLError, draw, expectation, gen, integrate, reinforce, sample, seed
from ppl.errors import InvalidArgument, ShapeError


def gaussian(a, b):
    return jnp.exp(-jnp.sum((a - b) ** 2) / 8)  # of scale 2


def overlap(shift, variance):
    """E of the kernel of a normal difference."""
    return jnp.sqrt(4 / (4 + variance)) * jnp.exp(-(shift**2) / (2 * (4 + variance)))


def test_the_discrepancy_of_two_normals():
    """In closed form. What 10 nodes change of what 8 nodes gave bounds the error of the 10."""

    def mean(theta):
        m, s = theta
        return 2 * overlap(m - 0.5, s**2 + 0.49) - overlap(0.0, 2 * s**2) - overlap(0.0, 0.98)

    objective = mmd(
        lambda theta: draw(dist.Normal(theta[0], theta[1])),
        lambda theta: draw(dist.Normal(0.5, 0.7)),
        gaussian,
    )
    theta = jnp.array([0.1, 0.9])
    found = [
        jax.jit(integrate(jax.value_and_grad(expectation(objective)), nodes=n))(theta)
        for n in (8, 10)
    ]
    right = jax.value_and_grad(mean)(theta)
    for i in (0, 1):
        change = np.max(np.abs(found[1][i] - found[0][i]))
        assert change < 1e-5
        assert_allclose(found[1][i], right[i], atol=change)
    assert right[0] < 0


SUPPORT = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]])
DATA = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [2.0, -1.0]])


@gen
def point(p):
    weights = jnp.stack([p, 1 - p, p * (1 - p)])
    k = sample("k", dist.Categorical(probs=weights / weights.sum()))
    return jnp.asarray(SUPPORT)[k]


def by_hand(kernel, p):
    """Minus the discrepancy of the point's law from the rows of the data."""
    weights = jnp.stack([p, 1 - p, p * (1 - p)])
    q = weights / weights.sum()
    table = np.array([[kernel(a, b) for b in DATA] for a in SUPPORT])
    own = np.array([[kernel(a, b) for b in SUPPORT] for a in SUPPORT])
    pairs = [kernel(a, b) for a, b in itertools.permutations(DATA, 2)]
    return 2 * q @ table.mean(1) - q @ own @ q - np.mean(pairs)


KERNELS = {
    "mmd": (mmd(point, DATA, gaussian), lambda a, b: np.exp(-np.sum((a - b) ** 2) / 8)),
    "energy": (energy_distance(point, DATA), lambda a, b: -np.linalg.norm(a - b)),
    "three": (energy_distance(point, DATA, 3), lambda a, b: -np.linalg.norm(a - b)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_of_a_generative_function_from_data(name):
    """Value and two derivatives, by the score function; exactly, whatever the number of draws."""
    objective, kernel = KERNELS[name]
    estimate = expectation(objective, {"k": reinforce()})
    p = jnp.asarray(0.3)

    def derivatives(f, p):
        return f(p), *jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))

    found = jax.jit(integrate(lambda p: derivatives(estimate, p)))(p)
    right = jax.jit(lambda p: derivatives(lambda p: by_hand(kernel, p), p))(p)
    assert_allclose(found, right, rtol=1e-11)


def test_equal_values_have_a_slope_that_is_a_number():
    """Two points that coincide: the distance has no slope there, and counts for none."""
    objective = energy_distance(lambda m: jnp.stack([m, m]), np.array([[1.0, 1.0], [1.0, 3.0]]))
    slope = jax.grad(lambda m: seed(objective)(jax.random.key(0), m))(1.0)
    # minus 2 times the mean of the slopes of |x - y|: 0, and that of sqrt((m-1)^2 + (m-3)^2)
    assert_allclose(slope, 1.0, rtol=1e-12)


Y = np.array([[0.3, -1.2], [1.5, 0.4], [-0.7, 0.9]])


def quartic(y, theta):
    return -theta[0] * y[0] ** 4 / 4 - theta[1] * y[0] * y[1] - y[1] ** 2


def loss_by_hand(theta):
    a, b = Y.T
    first = -theta[0] * a**3 - theta[1] * b
    second = -theta[1] * a - 2 * b
    return np.mean(-3 * theta[0] * a**2 - 2 + (first**2 + second**2) / 2)


def test_score_matching():
    """By hand, and with slices the mean over all signs."""
    theta = jnp.array([0.6, 0.4])
    whole = jax.value_and_grad(integrate(score_matching(quartic)))(theta, Y)
    assert_allclose(whole[0], -loss_by_hand(np.asarray(theta)), rtol=1e-12)
    step = np.eye(2) * 1e-6
    numeric = [
        (loss_by_hand(np.asarray(theta) - h) - loss_by_hand(np.asarray(theta) + h)) / 2e-6
        for h in step
    ]
    assert_allclose(whole[1], numeric, rtol=1e-7)  # differences of a quadratic are its slope
    sliced = score_matching(quartic, slices=1)
    found = jax.jit(integrate(jax.value_and_grad(expectation(sliced))))(theta, Y)
    assert_allclose(found[0], whole[0], rtol=1e-12)
    assert_allclose(found[1], whole[1], rtol=1e-11)
    # one direction is not the trace: the mixed second derivative has a sign
    draws = jax.vmap(lambda key: seed(sliced)(key, theta, Y))(
        jax.random.split(jax.random.key(0), 9)
    )
    assert np.ptp(draws) > 0.1


@pytest.mark.parametrize(
    "run, kind, words",
    [
        (lambda: mmd(point, DATA, None), InvalidArgument, "kernel is no function"),
        (lambda: mmd(point, DATA[0, 0], gaussian), InvalidArgument, "second"),
        (lambda: energy_distance(point, DATA[:1]), InvalidArgument, "no values to be"),
        (lambda: energy_distance(point, DATA, 1), InvalidArgument, "2 or more"),
        (
            lambda: energy_distance(dist.Normal(0.0, 1.0), DATA),
            InvalidArgument,
            "first is no random",
        ),
        (lambda: energy_distance(point, DATA[:, :1]), ShapeError, "different sizes"),
        (lambda: score_matching(None), InvalidArgument, "log_density"),
        (lambda: score_matching(quartic, slices=0), InvalidArgument, "slices"),
        (lambda: score_matching(quartic), InvalidArgument, "the data"),
    ],
)
def test_what_is_wrong_is_told(run, kind, words):
    with pytest.raises(PPLError) as caught:
        seed(run())(jax.random.key(0), 0.4)
    assert type(caught.value) is kind and words in str(caught.value), str(caught.value)
