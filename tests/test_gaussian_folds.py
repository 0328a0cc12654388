"""The law of a Gaussian process on a line: density, gradient, draws and predictions, as dense.

Over 400 lines, since three ways to fold are held to one dense law.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference.gaussian import lanes
from inference.gaussian.chain import Chain
from inference.gaussian.evidence import evidence, smooth
from inference.gaussian.lanes import WAYS
from inference.gaussian.matern import Matern12, Matern32
from inference.gaussian.oscillator import SHO
from inference.gaussian.paths import root
from inference.gaussian.periodic import Cosine
from inference.gaussian.prediction import predict
from inference.gaussian.process import gp
from inference.gaussian.trends import Constant, Linear, Wiener
from ppl import PPLError, Target, gen, sample, seed

pytestmark = pytest.mark.slow

KERNELS = {
    "one": Matern12(1.3),
    "two": Matern32(1.3, 0.8),
    "five": Wiener(0.5, level=1.0) + 0.5 * SHO(2.0, 0.5) * Matern32(1.3),
}
# unsorted, two times repeated: one thrice, once without noise
TIMES = np.array([0.3, 2.0, 1.0, 1.0, 5.0, 0.3, 1.0, 2.2, 0.0])
VALUES = np.array([0.1, 0.4, -0.3, -0.2, 0.6, 0.2, 0.1, 0.9, -1.0])
NOISE = np.array([0.1, 0.2, 0.3, 0.0, 0.1, 0.2, 0.4, 0.0, 0.5])
SEEN = np.array([True, True, True, True, False, True, True, True, False])
each_way = pytest.mark.parametrize("along", WAYS)
each_kernel = pytest.mark.parametrize("name", KERNELS)


def by_fold(along):
    def density(kernel, noise, mean, values, present=None):
        process = gp(kernel, TIMES, mean=mean, noise=noise, present=present, along=along)
        return process.log_prob(values)

    return density


def by_matrix(kernel, noise, mean, values, seen=None):
    """The same by a dense multivariate normal, of what is seen."""
    seen = np.arange(TIMES.size) if seen is None else np.flatnonzero(seen)
    covariance = (kernel.covariance(TIMES[:, None], TIMES) + jnp.diag(noise))[np.ix_(seen, seen)]
    return dist.MultivariateNormal(mean[seen], covariance).log_prob(values[seen])


MEAN = np.linspace(-0.3, 0.4, TIMES.size)


@pytest.fixture(scope="module")
def dense():
    """Values and gradients by a dense matrix, each compiled once."""
    both = jax.jit(jax.value_and_grad(by_matrix, (0, 1, 2, 3)))
    return {name: both(kernel, NOISE, MEAN, VALUES) for name, kernel in KERNELS.items()}


@each_way
@each_kernel
def test_density_and_gradient_are_those_of_a_dense_normal(name, along, dense):
    """In hyperparameters, noise, mean and values: 1e-10 and 1e-8, with repeats, unsorted."""
    both = jax.jit(jax.value_and_grad(by_fold(along), (0, 1, 2, 3)))
    found, right = both(KERNELS[name], NOISE, MEAN, VALUES), dense[name]
    np.testing.assert_allclose(found[0], right[0], rtol=0, atol=1e-10)
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(right[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_eagerly_as_compiled():
    """Unsorted and repeated times (gpjax 1.0.0: -8.343 eagerly, for -3.278 under jit)."""
    density = by_fold(None)
    args = (KERNELS["one"], NOISE, MEAN, VALUES)
    np.testing.assert_allclose(density(*args), jax.jit(density)(*args), rtol=1e-14)


@each_way
def test_what_is_missing_is_left_out(along):
    """As if it had never been listed, whatever its value; with finite gradients."""
    values = np.where(SEEN, VALUES, np.nan)
    args = (KERNELS["two"], NOISE, MEAN)
    right = by_matrix(*args, VALUES, SEEN)

    def density(*args):
        return by_fold(along)(*args, present=SEEN)

    found, slopes = jax.jit(jax.value_and_grad(density, (0, 1, 2, 3)))(*args, values)
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-10)
    slopes_of = jax.grad(lambda *a: by_matrix(*a, SEEN), (0, 1, 2, 3))(*args, VALUES)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(slopes_of), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@each_way
def test_exact_values_of_a_process_that_they_determine(along):
    """Two values of a wave, without noise, fix it: blocks cannot know that of an unknown state."""
    process = gp(
        Cosine(2.3), TIMES[[0, 1, 2, 4]], noise=np.array([0.0, 0.1, 0.0, 0.2]), along=along
    )
    right = dist.MultivariateNormal(0.0, process.covariance_matrix).log_prob(VALUES[:4])
    np.testing.assert_allclose(process.log_prob(VALUES[:4]), right, rtol=0, atol=1e-10)


def test_derivatives_in_the_times_are_finite_and_right():
    """At different times by a dense normal; at equal ones they are finite, from the right."""
    times = np.array([0.3, 2.0, 1.0, 4.0])

    def fold(times):
        return gp(Matern32(1.3), times, noise=0.3).log_prob(VALUES[:4])

    def matrix(times):
        gaps = jnp.sqrt(3) * jnp.abs(times[:, None] - times + jnp.eye(4)) / 1.3
        covariance = jnp.where(jnp.eye(4) > 0, 1.3, (1 + gaps) * jnp.exp(-gaps))
        return dist.MultivariateNormal(0.0, covariance).log_prob(VALUES[:4])

    np.testing.assert_allclose(jax.grad(fold)(times), jax.grad(matrix)(times), atol=1e-10)
    equal = jax.grad(fold)(np.zeros(4))
    np.testing.assert_allclose(equal, np.zeros(4), atol=1e-12)  # k'(0) = 0


def test_order_insertion_and_scale_change_nothing():
    density = jax.jit(lambda k, t, y, r, p: gp(k, t, noise=r, present=p).log_prob(y))
    kernel, here = KERNELS["two"], np.ones(9, bool)
    right = density(kernel, TIMES, VALUES, NOISE, here)
    some = np.random.default_rng(0).permutation(9)
    permuted = density(kernel, TIMES[some], VALUES[some], NOISE[some], here)
    np.testing.assert_allclose(permuted, right, rtol=0, atol=1e-12)
    scaled = density(Matern32(2.6, 0.8), 2 * TIMES, VALUES, NOISE, here)
    np.testing.assert_allclose(scaled, right, rtol=0, atol=1e-12)
    more = [np.append(x, new) for x, new in ((TIMES, 1.4), (VALUES, 9.0), (NOISE, 0.0))]
    inserted = density(kernel, *more, np.append(here, False))
    np.testing.assert_allclose(inserted, right, rtol=0, atol=1e-12)


def test_two_values_at_a_time_are_their_mean_and_difference():
    """y1, y2 with noise r1, r2: one value with noise 1 / (1/r1 + 1/r2), and N(y1 - y2; r1 + r2)."""
    k, (y1, y2), (r1, r2) = KERNELS["two"], (0.4, -0.3), (0.2, 0.5)
    split = gp(k, np.array([0.0, 1.0, 1.0]), noise=np.array([0.1, r1, r2]))
    r = 1 / (1 / r1 + 1 / r2)
    joined = gp(k, np.array([0.0, 1.0]), noise=np.array([0.1, r]))
    mean = r * (y1 / r1 + y2 / r2)
    right = joined.log_prob(np.array([0.7, mean]))
    right += dist.Normal(0.0, np.sqrt(r1 + r2)).log_prob(y1 - y2)
    np.testing.assert_allclose(split.log_prob(np.array([0.7, y1, y2])), right, atol=1e-12)


@each_way
def test_a_value_told_twice_without_noise(along):
    """It counts once if it is the same; else it is impossible, and no gradient is NaN."""
    times, once = np.array([1.0, 0.0, 1.0]), np.array([0.4, -0.2, 0.4])
    both = jax.jit(jax.value_and_grad(lambda k, y: gp(k, times, along=along).log_prob(y)))
    right = gp(KERNELS["two"], times[:2]).log_prob(once[:2])
    np.testing.assert_allclose(both(KERNELS["two"], once)[0], right, atol=1e-12)
    value, slope = both(KERNELS["two"], np.array([0.4, -0.2, 0.5]))
    assert value == -np.inf
    assert not any(np.isnan(x) for x in jax.tree.leaves(slope))


@each_way
def test_what_is_impossible_has_no_evidence(along):
    """-inf, from that step on: dynamax 1.0.3 gives 0.0 and -1.0, cuthbert 0.1.1 NaN later."""
    both = jax.jit(
        jax.value_and_grad(lambda r, y: gp(Matern12(1.0), TIMES, noise=r, along=along).log_prob(y))
    )
    for bad in (np.inf, -np.inf, np.nan):
        value, slope = both(0.1, np.where(np.arange(9) == 2, bad, VALUES))
        assert value == -np.inf and np.isfinite(slope)
    # a state that is known and stays: 1 is certain, and 2 cannot be
    still = np.zeros((3, 1, 1))
    chain = Chain(*(np.ones(1), still[0], still + 1, still, np.ones(1), np.zeros(3), np.ones(3)))
    assert evidence(chain, jnp.ones(3), along) == 0
    assert evidence(chain, jnp.array([1.0, 2.0, 1.0]), along) == -np.inf


@each_way
def test_a_chain_starts_before_its_first_step(along):
    """n values have n transitions, and entry t leads into value t; a smoother by hand, too."""
    a, q, r = np.array([0.5, 2.0]), np.array([1.0, 0.25]), np.array([0.1, 0.2])
    matrices = [x[:, None, None] for x in (a, q)]
    chain = Chain(np.array([3.0]), np.array([[4.0]]), *matrices, np.ones(1), r, np.ones(2))
    mean = np.array([1.5, 3.0])
    first = 0.25 * 4 + 1  # of x1
    covariance = np.array([[first, 2 * first], [2 * first, 4 * first + 0.25]])
    y = np.array([1.0, 2.5])
    right = dist.MultivariateNormal(mean, covariance + np.diag(r)).log_prob(y)
    np.testing.assert_allclose(evidence(chain, jnp.asarray(y), along), right, rtol=1e-12)
    gain = covariance @ np.linalg.inv(covariance + np.diag(r))
    means, covariances = smooth(chain, jnp.asarray(y), along)
    np.testing.assert_allclose(means[:, 0], mean + gain @ (y - mean), rtol=1e-12)
    right = np.diag(covariance - gain @ covariance)
    np.testing.assert_allclose(covariances[:, 0, 0], right, rtol=1e-12)


def moving_chain(seed, n, d):
    """A chain with everything different from step to step, and two values missing."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, d, d))
    start = rng.normal(size=(d, d))
    present = (np.arange(n) % 5 != 2).astype(float)
    return Chain(rng.normal(size=d), start @ start.T, rng.normal(size=(n, d, d)) / d**0.5,
                 noise @ noise.transpose(0, 2, 1) / 3, rng.normal(size=d),
                 rng.uniform(0.1, 1.0, n), present), rng.normal(size=n)  # fmt: skip


@pytest.mark.parametrize("d", [2, 3])
def test_all_ways_are_the_same_number(d, monkeypatch):
    """Of a chain that is not homogeneous, in value and each gradient, to 1e-9: the steps are more
    than the blocks or a piece, and no multiple of them."""
    monkeypatch.setattr(lanes, "BLOCKS", 3)
    monkeypatch.setattr(lanes, "PIECE", 4)
    chain, values = moving_chain(d, 10, d)
    found = {
        along: jax.jit(jax.value_and_grad(lambda c, y, a=along: evidence(c, y, a), (0, 1)))(
            chain, values
        )
        for along in WAYS
    }
    for along in WAYS[1:]:
        for a, b in zip(*(jax.tree.leaves(found[x]) for x in (along, "scan")), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_score_is_the_derivative_of_the_scan():
    """Central differences of fourth order along one direction of all parts: an error of 1e-9."""
    chain, values = moving_chain(5, 6, 3)
    rng = np.random.default_rng(1)
    turn = jax.tree.map(lambda x: rng.normal(size=np.shape(x)), (chain, values))
    mirrored = [turn[0].covariance, turn[0].noise]
    for each in mirrored:
        each[:] = (each + np.swapaxes(each, -1, -2)) / 2
    turn[0].present[:] = 0

    def moved(h):
        return evidence(*jax.tree.map(lambda x, v: x + h * v, (chain, values), turn))

    h = 1e-3
    f = [moved(k * h) for k in (-2, -1, 1, 2)]
    right = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h)
    forward = jax.jvp(evidence, (chain, values), turn)[1]
    slopes = jax.grad(evidence, (0, 1))(chain, values)
    reverse = sum(np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (slopes, turn)), strict=True))
    np.testing.assert_allclose([forward, reverse], [right] * 2, rtol=1e-7)


def test_second_derivatives():
    """They differentiate the pass back: of variances and values, as of a dense normal."""

    def hessian(f):
        return jax.jit(jax.hessian(lambda x: f(KERNELS["two"], x[0] + NOISE, MEAN, VALUES * x[1])))

    at = np.array([0.1, 1.0])
    np.testing.assert_allclose(hessian(by_fold("scan"))(at), hessian(by_matrix)(at), rtol=1e-8)


@each_kernel
def test_draws_have_the_covariance(name):
    """A draw is a linear map of normals, whose matrix times itself is the covariance."""
    process = gp(KERNELS[name], TIMES, mean=MEAN, noise=NOISE)
    zeros = jnp.zeros((9, process.kernel.dimension)), jnp.zeros(9)
    by = jax.jit(jax.jacobian(process.from_normals, (0, 1)))(*zeros)
    factor = np.concatenate([x.reshape(9, -1) for x in by], 1)
    right = np.asarray(process.covariance_matrix)
    np.testing.assert_allclose(factor @ factor.T, right, atol=1e-10)
    np.testing.assert_array_equal(process.from_normals(*zeros), MEAN)


def test_draws_at_a_repeat_are_the_same_to_the_last_bit():
    f = gp(KERNELS["two"], TIMES).sample(jax.random.key(0), (3,))
    for one, other in ((0, 5), (2, 3), (3, 6)):
        np.testing.assert_array_equal(f[:, one], f[:, other])


def test_a_root_of_what_is_singular_has_a_derivative():
    line = np.array([2.0, 1.0, 0.5])
    for covariance in (np.outer(line, line), np.zeros((3, 3)), np.diag([1.0, 0.0, 2.0])):
        factor = root(jnp.asarray(covariance))
        np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-14)
        assert np.all(np.isfinite(jax.jacobian(root)(jnp.asarray(covariance))))


NEW = np.array([0.7, 1.0, 9.0, 0.1])


@pytest.fixture(scope="module")
def ahead():
    process = gp(KERNELS["two"], TIMES, mean=0.3, noise=NOISE, present=SEEN)
    return predict(process, np.where(SEEN, VALUES, np.nan), NEW)


def conditioned():
    """By dense matrices: what is not seen is left out."""
    kernel, seen = KERNELS["two"], np.flatnonzero(SEEN)
    cross = np.asarray(kernel.covariance(NEW[:, None], TIMES[seen]))
    old = np.asarray(kernel.covariance(TIMES[seen, None], TIMES[seen])) + np.diag(NOISE[seen])
    gain = cross @ np.linalg.inv(old)
    covariance = np.asarray(kernel.covariance(NEW[:, None], NEW)) - gain @ cross.T
    return 0.3 + gain @ (VALUES[seen] - 0.3), covariance


def test_a_prediction_is_the_conditional_law(ahead):
    mean, covariance = conditioned()
    np.testing.assert_allclose(ahead.mean, mean, atol=1e-10)
    np.testing.assert_allclose(ahead.covariance_matrix, covariance, atol=1e-10)
    np.testing.assert_allclose(ahead.variance, np.diag(covariance), atol=1e-10)
    noisy = [0, 2, 3]  # the time 1.0 was observed without noise, and has no density
    process = ahead.process
    law = dist.MultivariateNormal(mean[noisy], covariance[np.ix_(noisy, noisy)])
    f = np.array([0.4, -0.1, 0.8])
    found = predict(process, VALUES, NEW[noisy]).log_prob(f)
    np.testing.assert_allclose(found, law.log_prob(f), rtol=0, atol=1e-9)


def test_a_drawn_prediction_is_joint(ahead):
    """The covariance of draws, exactly, between different new times too."""
    shapes = (TIMES.size + NEW.size, 2), (TIMES.size,)
    zeros = [jnp.zeros(shape) for shape in shapes]
    mean, by = ahead.from_normals(*zeros), jax.jit(jax.jacobian(ahead.from_normals, (0, 1)))(*zeros)
    factor = np.concatenate([x.reshape(NEW.size, -1) for x in by], 1)
    right = conditioned()
    np.testing.assert_allclose(mean, right[0], atol=1e-10)
    np.testing.assert_allclose(factor @ factor.T, right[1], atol=1e-10)
    assert ahead.sample(jax.random.key(0))[1] == pytest.approx(VALUES[3], abs=1e-12)


@gen
def regression(times, y_noise):
    scale = sample("scale", dist.LogNormal(0.0, 1.0))
    f = sample("f", gp(Matern32(scale), times))
    sample("g", gp(Matern12(scale), times, noise=y_noise))
    return f


def test_a_process_in_a_model():
    """Its score is that of its parts, and a posterior has its gradient."""
    times, f = TIMES[[0, 1, 2, 4]], np.array([0.1, 0.4, -0.3, 0.2])
    choices = {"scale": 1.3, "f": f, "g": f + 1}
    score, value = seed(regression.assess)(jax.random.key(0), choices, times, 0.3)
    np.testing.assert_array_equal(value, f)
    right = dist.LogNormal(0.0, 1.0).log_prob(1.3)
    right += gp(Matern32(1.3), times).log_prob(f)
    right += gp(Matern12(1.3), times, noise=0.3).log_prob(f + 1)
    np.testing.assert_allclose(score, right, rtol=1e-12)
    trace = seed(regression.simulate)(jax.random.key(1), times, 0.3)
    again, _ = seed(regression.assess)(jax.random.key(2), trace.choices, times, 0.3)
    np.testing.assert_allclose(trace.score, again, rtol=1e-9)


def test_a_posterior_over_hyperparameters():
    """The model conditioned on the process has the gradient of its density."""
    times, f = TIMES[[0, 1, 2, 4]], np.array([0.1, 0.4, -0.3, 0.2])
    target = Target(regression, (times, 0.3), {"f": f, "g": f + 1})

    def density(scale):
        right = dist.LogNormal(0.0, 1.0).log_prob(scale) + gp(Matern32(scale), times).log_prob(f)
        return right + gp(Matern12(scale), times, noise=0.3).log_prob(f + 1)

    found = jax.value_and_grad(lambda scale: target.log_density({"scale": scale}))(1.3)
    right = jax.value_and_grad(density)(1.3)
    np.testing.assert_allclose(found, right, rtol=1e-10)


def test_other_data_of_one_shape_compile_nothing():
    traced = []

    @jax.jit
    def density(kernel, times, values, noise):
        traced.append(1)
        return gp(kernel, times, noise=noise).log_prob(values)

    density(Matern32(1.0), np.arange(5.0), VALUES[:5], 0.1)
    density(Matern32(2.0), TIMES[:5], VALUES[4:], 0.2)
    assert len(traced) == 1


def test_many_values_and_many_kernels():
    values = np.stack([VALUES, 2 * VALUES, 0 * VALUES]).reshape(3, 1, 9)
    process = gp(KERNELS["one"], TIMES, noise=0.2)
    right = [[process.log_prob(row[0])] for row in values]
    np.testing.assert_allclose(process.log_prob(values), right, rtol=1e-12)
    scales = jnp.array([0.5, 1.0])
    many = jax.vmap(lambda s: gp(Matern12(s), TIMES, noise=0.2).log_prob(VALUES))(scales)
    each = [gp(Matern12(s), TIMES, noise=0.2).log_prob(VALUES) for s in (0.5, 1.0)]
    np.testing.assert_allclose(many, each, rtol=1e-12)


def test_gaps_in_time_count():
    """(dynestyx 0.7.1 ignores them in discrete time.)"""
    near, far = (gp(Matern12(1.0), np.array([0.0, gap])) for gap in (0.1, 10.0))
    values = np.ones(2)
    rho = np.exp(-0.1)
    right = -np.log(2 * np.pi) - 0.5 * np.log(1 - rho**2) - 1 / (1 + rho)
    np.testing.assert_allclose(near.log_prob(values), right, rtol=1e-12)
    np.testing.assert_allclose(far.log_prob(values), -np.log(2 * np.pi) - 1, atol=1e-4)


ONE, TWO = Matern12(1.0), np.arange(2.0)
WRONG = {
    "kernel": (lambda: gp(1.0, TWO), "the law of a process on a line"),
    "a distribution": (lambda: gp(dist.Normal(), TWO), "the law of a process on a line"),
    "stacked": (lambda: gp(jax.vmap(Matern12)(jnp.ones(2)), TWO), "one number each"),
    "no times": (lambda: gp(ONE, np.zeros(0)), "real numbers: one number for each time"),
    "a matrix": (lambda: gp(ONE, np.ones((2, 2))), "real numbers: one number for each time"),
    "words": (lambda: gp(ONE, ["a"]), "real numbers: one number for each time"),
    "infinite": (lambda: gp(ONE, np.array([0.0, np.inf])), "finite numbers"),
    "noise": (lambda: gp(ONE, TWO, noise=-1.0), "finite numbers, 0 or more"),
    "noises": (lambda: gp(ONE, TWO, noise=np.ones(3)), "real numbers: a number, or shape (2,)"),
    "mean": (lambda: gp(ONE, TWO, mean=np.ones(3)), "real numbers: a number, or shape (2,)"),
    "present": (lambda: gp(ONE, TWO, present=np.ones(2)), "bools of shape (2,)"),
    "along": (lambda: gp(ONE, TWO, along="loop"), '"scan" or "blocks" or "tree" or "roots"'),
    "value": (lambda: gp(ONE, TWO).log_prob(np.ones(3)), "shape (2,)"),
    "no density": (
        lambda: gp(Constant() + Linear(), np.arange(3.0)).log_prob(np.ones(3)),
        "at most 2, which is how many values are free",
    ),
    "predict": (lambda: predict(ONE, TWO, TWO), "the law of the values"),
    "values": (lambda: predict(gp(ONE, TWO), np.ones(3), TWO), "real numbers: shape (2,)"),
    "objects": (lambda: gp(ONE, TWO, mean=[None, 1.0]), "real numbers: a number, or shape (2,)"),
    "no number": (
        lambda: predict(gp(ONE, TWO), np.array([0.0, np.nan]), TWO),
        "finite numbers where values are present",
    ),
    "mean ahead": (
        lambda: predict(gp(ONE, TWO, mean=TWO), TWO, TWO),
        "the mean of f at the new times",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name):
    make, expected = WRONG[name]
    with pytest.raises(PPLError) as told:
        make()
    assert told.value.expected == expected
    assert "test_gaussian_folds.py" in told.value.where[0]


@pytest.mark.slow
@pytest.mark.parametrize("along", ["scan", "blocks"])
def test_single_precision_at_a_hundred_thousand_values(along):
    """Value to 1e-5 of itself, gradient to 1e-3, against double precision: times of gaps down
    to 1e-6 scales, rounded to single precision before both."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 1e4, 100_000)).astype(np.float32)
    values = (np.sin(times) + 0.5 * rng.normal(size=times.size)).astype(np.float32)

    @jax.jit
    def both(parameters, times, values):
        def density(p):
            return gp(Matern32(p[0], p[1]), times, noise=p[2], along=along).log_prob(values)

        return jax.value_and_grad(density)(parameters)

    parameters = np.array([1.5, 0.8, 0.3])
    single = both(parameters.astype(np.float32), times, values)
    double = both(parameters, times.astype(float), values.astype(float))
    assert single[0].dtype == np.float32
    np.testing.assert_allclose(single[0], double[0], rtol=1e-5)
    scale = np.abs(double[1]).max()
    np.testing.assert_allclose(single[1], double[1], rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("along", ["scan", "blocks", "tree", "roots"])
def test_no_numbers_go_in_and_none_come_out(along):
    """A hyperparameter that is no number makes an evidence that is none, not one of zero."""
    times = jnp.arange(5.0)

    @jax.jit
    def density(scale, sigma, noise):
        process = gp(Matern32(scale, sigma), times, noise=noise, along=along)
        return process.log_prob(jnp.ones(5))

    assert np.isfinite(density(1.0, 1.0, 0.1))
    for at in ((jnp.nan, 1.0, 0.1), (1.0, jnp.nan, 0.1), (1.0, 1.0, jnp.nan)):
        assert np.isnan(density(*at))
