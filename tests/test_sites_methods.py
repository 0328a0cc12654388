"""Laplace, power EP and conjugate VI: what they find is what dense matrices find.

Methods stop where a site would move by 1e-11 of a marginal's standard deviation, which at rates
of 1/2 or better leaves 1e-10; quadratures with 64 nodes are good to 1e-9 for the smooth
likelihoods here, the dense ones to 1e-9, too (differences of the sixth order). So numbers are
compared to 1e-7, and differences of the dense evidence over 1e-3 to 1e-5.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.optimize
import scipy.special

from inference.gaussian.matern import Matern32
from inference.gaussian.process import gp
from inference.sites import conjugate_vi, laplace, power_ep
from inference.sites.approximation import _approximated
from inference.sites.fold import Folded, Sites
from inference.sites.power_ep import _PowerEP
from ppl import PPLError, Target, factor, gen, sample
from tests import dense_sites

pytestmark = pytest.mark.slow

TIMES = np.array([1.1, 0.0, 2.3, 0.4, 4.0, 2.9])
INDEX = np.array([3, 0, 0, 5, 1, 2, 4, 4])  # two at inputs 0 and 4
LEVEL = np.linspace(-0.3, 0.6, 6)
METHODS = {
    "laplace": laplace,
    "power_ep": power_ep,
    "half": partial(power_ep, power=0.5),
    "conjugate_vi": conjugate_vi,
}
each_method = pytest.mark.parametrize("method", METHODS)


def process(scale, sigma=1.2):
    return gp(Matern32(scale, sigma), TIMES, mean=LEVEL)


@gen
def counts(scale, sigma=1.2):
    f = sample("f", process(scale, sigma))
    sample("y", dist.Poisson(jnp.exp(f[INDEX])))


@gen
def coins(scale, sigma=1.2):
    f = sample("f", process(scale, sigma))
    sample("y", dist.Bernoulli(logits=f[INDEX]))


@gen
def outliers(scale, sigma=1.2):
    f = sample("f", process(scale, sigma))
    sample("y", dist.StudentT(4.0, f[INDEX], 0.7))


MODELS = {
    "counts": (counts, np.array([1, 3, 2, 0, 4, 1, 0, 2])),
    "coins": (coins, np.array([1, 1, 1, 0, 1, 0, 0, 1])),
    "outliers": (outliers, np.array([0.3, 3.1, 2.5, -4.5, 0.1, 0.4, -0.6, 0.2])),
}
LOGS = {
    "counts": lambda y, f: y * f - np.exp(f) - scipy.special.gammaln(y + 1),
    "coins": lambda y, f: -np.logaddexp(0, np.where(y == 1, -f, f)),
    "outliers": lambda y, f: -2.5 * np.log1p(((y - f) / 0.7) ** 2 / 4)
    + scipy.special.gammaln(2.5) - scipy.special.gammaln(2.0) - 0.5 * np.log(4 * np.pi * 0.49),
}  # fmt: skip
DENSE = {
    "laplace": dense_sites.laplace,
    "power_ep": partial(dense_sites.power_ep, power=1.0),
    "half": partial(dense_sites.power_ep, power=0.5),
    "conjugate_vi": dense_sites.variational,
}


def settings(method, name):
    tight = {"tolerance": 1e-11, "most": 1000}
    if method == "laplace":
        return tight
    return {**tight, "nodes": 200 if name == "outliers" else 64}


def found(method, name, *args, **more):
    model, y = MODELS[name]
    target = Target(model, args or (1.3,), {"y": y})
    return METHODS[method](target, "f", **{**settings(method, name), **more})


@cache
def settled(method, name):
    return found(method, name)


def by_matrix(method, name, scale=1.3, sigma=1.2):
    covariance = np.array(process(scale, sigma).covariance_matrix)

    def log(f):
        each = LOGS[name](MODELS[name][1][:, None], f[INDEX])
        return np.stack([each[i == INDEX].sum(0) for i in range(TIMES.size)])

    return DENSE[method](log, covariance, LEVEL)


@pytest.mark.parametrize("name", MODELS)
@each_method
def test_what_is_found_is_what_dense_matrices_find(method, name):
    """Evidence, means and variances; data gathered, unsorted, two at some inputs.

    The outliers' curvatures have both signs. The evidence of Laplace without its log determinant,
    and EP that takes no site out of its marginal, differ in the first digit.
    """
    approximation = settled(method, name)
    evidence, mean, variance = by_matrix(method, name)
    assert approximation.status.converged and approximation.status.skipped == 0
    np.testing.assert_allclose(approximation.mean, mean, rtol=0, atol=1e-7)
    np.testing.assert_allclose(approximation.variance, variance, rtol=0, atol=1e-7)
    np.testing.assert_allclose(approximation.log_evidence, evidence, rtol=0, atol=1e-7)
    if name == "outliers" and method != "half":
        assert np.any(approximation.sites.precision < 0)


@each_method
def test_the_gradient_is_that_of_the_dense_evidence(method):
    """In scale and sigma of the kernel: differences over 2e-3 are good to 1e-6 of their size."""
    evidence = lambda a, b: found(method, "counts", a, b).log_evidence  # noqa: E731
    slopes = jax.grad(evidence, (0, 1))(1.3, 1.2)
    h = 1e-3
    right = [
        (by_matrix(method, "counts", 1.3 + a, 1.2 + b)[0]
         - by_matrix(method, "counts", 1.3 - a, 1.2 - b)[0]) / (2 * h)
        for a, b in ((h, 0.0), (0.0, h))
    ]  # fmt: skip
    np.testing.assert_allclose(slopes, right, rtol=0, atol=1e-5)


@gen
def normal(scale, noise, level):
    f = sample("f", gp(Matern32(scale), TIMES, mean=level))
    sample("y", dist.Normal(f[INDEX], noise))


REALS = np.array([0.3, 0.1, 2.5, -1.5, 0.1, 0.4, -0.6, 0.2])


def exact(scale, noise, level):
    covariance = gp(Matern32(scale), TIMES).covariance_matrix[np.ix_(INDEX, INDEX)]
    covariance = covariance + noise**2 * jnp.eye(INDEX.size)
    return dist.MultivariateNormal(level[INDEX], covariance).log_prob(REALS)


@pytest.mark.parametrize("damping", [1.0, 0.3])
@each_method
def test_gaussian_data_are_exact_after_one_sweep(method, damping):
    """Of large noise, and of one sd in a hundred, with gradients: rounding, relative to the
    squares of data in units of noise (1e4 times 1e-16), and the nodes' own (1e-13)."""

    def evidence(*args):
        approximation = METHODS[method](
            Target(normal, args, {"y": REALS}), "f", damping=damping, most=1
        )
        return approximation.log_evidence, approximation.status

    for noise in (0.5, 0.01):
        args = 1.3, noise, jnp.asarray(LEVEL)
        (value, status), slopes = jax.value_and_grad(evidence, (0, 1, 2), has_aux=True)(*args)
        right, due = jax.value_and_grad(exact, (0, 1, 2))(*args)
        assert status.converged and status.iterations == 1
        np.testing.assert_allclose(value, right, rtol=1e-12)
        for a, b in zip(slopes, due, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8 * float(jnp.max(jnp.abs(due[1]))))


@each_method
def test_what_is_found_does_not_depend_on_damping(method):
    whole, part = settled(method, "counts"), found(method, "counts", damping=0.4)
    assert part.status.iterations > whole.status.iterations
    np.testing.assert_allclose(part.mean, whole.mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(part.sites.precision, whole.sites.precision, rtol=0, atol=1e-8)
    np.testing.assert_allclose(part.log_evidence, whole.log_evidence, rtol=0, atol=1e-9)


def test_power_to_zero_is_the_variational_fixed_point():
    """What differs is of first order in the power: 1e-4 of what it is at 1e-2 at 1e-6."""
    right = settled("conjugate_vi", "counts")
    of = partial(found, "power_ep", "counts")
    some, little = (of(power=power).mean - right.mean for power in (1e-2, 1e-6))
    assert np.max(np.abs(some)) > 1e-7
    np.testing.assert_allclose(little, 0.0, atol=2e-4 * np.max(np.abs(some)) + 1e-8)


def test_a_site_without_a_cavity_stays_and_is_counted():
    """Of three, the second is more precise than its marginal, which others would need to widen."""
    sites = Sites(jnp.array([0.5, 2.0, -0.5]), jnp.array([0.1, 0.2, 0.3]))
    folded = Folded(*map(jnp.asarray, (0.0, np.zeros(3), np.ones(3), np.zeros(3), True)))
    moved, left = _PowerEP(1.0, 20).better(lambda f: -jnp.exp(f), sites, folded)
    assert left.tolist() == [False, True, False]
    assert moved.precision[1] == 2.0 and moved.linear[1] == 0.2
    assert moved.precision[0] != 0.5


def test_too_few_sweeps_are_told():
    model, y = MODELS["counts"]
    status = laplace(Target(model, (1.3,), {"y": y}), "f", most=1).status
    assert not status.converged and status.iterations == 1 and status.change > 0.01


@pytest.mark.parametrize("method", ["power_ep", "conjugate_vi"])
def test_sites_that_go_astray_have_no_evidence(method):
    """A prior as wide as e^50 counts: the evidence is that of Laplace's law, or no number."""
    times, counts = jnp.arange(5.0), jnp.array([1, 0, 2, 0, 1])

    @gen
    def model(size):
        f = sample("f", gp(Matern32(1.0, size), times))
        sample("y", dist.Poisson(jnp.exp(f)))

    for size in (1.0, 20.0, 50.0):
        target = Target(model, (size,), {"y": counts})
        found = METHODS[method](target, "f", **settings(method, "counts"))
        near = laplace(target, "f").log_evidence
        told = np.isnan(found.log_evidence) or abs(found.log_evidence - near) < 3.0
        assert told, (size, found.log_evidence, near)
        assert size > 1.0 or found.status.converged


@each_method
def test_other_data_and_hyperparameters_compile_nothing(method):
    model, y = MODELS["counts"]
    settled(method, "counts")
    before = _approximated._cache_size()
    target = Target(model, (0.7,), {"y": y[::-1].copy()})
    METHODS[method](target, "f", **settings(method, "counts"))
    METHODS[method](target, "f", **settings(method, "counts"), damping=0.7)
    assert _approximated._cache_size() == before


def test_hyperparameters_by_the_evidence():
    """Its largest value, by optax, is where that of the dense evidence is (to 1e-4: a slope of
    1e-5, over a curvature of about 1)."""
    model, y = MODELS["counts"]

    def loss(log):
        scale, sigma = jnp.exp(log)
        prior = jnp.sum(log**2) / 2
        target = Target(model, (scale, sigma), {"y": y})
        return prior - power_ep(target, "f", **settings("power_ep", "counts")).log_evidence

    solver = optax.lbfgs()
    both = optax.value_and_grad_from_state(loss)

    @jax.jit
    def step(log, state):
        value, slope = both(log, state=state)
        move, state = solver.update(slope, state, log, value=value, grad=slope, value_fn=loss)
        return optax.apply_updates(log, move), state

    log = jnp.zeros(2)
    state = solver.init(log)
    for _ in range(12):
        log, state = step(log, state)

    def dense(log):
        return np.sum(log**2) / 2 - by_matrix("power_ep", "counts", *np.exp(log))[0]

    right = scipy.optimize.minimize(dense, np.zeros(2), tol=1e-7).x
    np.testing.assert_allclose(log, right, rtol=0, atol=1e-4)
    assert np.max(np.abs(right)) > 0.1


@gen
def with_prior():
    f = sample("f", process(sample("scale", dist.LogNormal(0.0, 1.0)), 1.2))
    sample("y", dist.Poisson(jnp.exp(f[INDEX])))


@pytest.mark.parametrize("method", ["laplace", "power_ep"])
def test_a_hyperparameter_that_is_observed(method):
    """What does not depend on the process is part of the evidence, with its derivative."""
    y = MODELS["counts"][1]

    def joint(scale):
        target = Target(with_prior, (), {"y": y, "scale": scale})
        return METHODS[method](target, "f", **settings(method, "counts")).log_evidence

    evidence = lambda s: found(method, "counts", s).log_evidence  # noqa: E731
    right = lambda s: evidence(s) + dist.LogNormal(0.0, 1.0).log_prob(s)  # noqa: E731
    one, other = (jax.value_and_grad(f)(jnp.array(1.3)) for f in (joint, right))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_the_evidence_in_a_model():
    """As a factor: what kernels of hyperparameters see, with its gradient."""
    model, y = MODELS["counts"]
    evidence = lambda s: laplace(Target(model, (s,), {"y": y}), "f").log_evidence  # noqa: E731

    @gen
    def outer():
        factor(evidence(sample("scale", dist.LogNormal(0.0, 1.0))))

    z = {"scale": jnp.array(0.2)}
    value, slope = jax.value_and_grad(Target(outer).potential)(z)
    right = lambda z: 0.5 * z**2 + 0.5 * jnp.log(2 * jnp.pi) - evidence(jnp.exp(z))  # noqa: E731
    due, due_slope = jax.value_and_grad(right)(0.2)
    np.testing.assert_allclose([value, slope["scale"]], [due, due_slope], rtol=1e-9)


def test_derivatives_that_are_not_there():
    """A second one, and that of a law: each a named error, and no number."""
    model, y = MODELS["counts"]
    of = lambda s: laplace(Target(model, (s,), {"y": y}), "f")  # noqa: E731
    with pytest.raises(PPLError, match="first derivative only"):
        jax.grad(jax.grad(lambda s: of(s).log_evidence))(1.3)
    with pytest.raises(PPLError, match="no derivative"):
        jax.grad(lambda s: of(s).law.assess({"f": jnp.zeros(6)})[0])(1.3)
