"""A process with Gaussian sites: mass, marginals, density and draws, as by dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import by_importance, unit
from inference.gaussian.matern import Matern12, Matern32
from inference.gaussian.process import gp
from inference.gaussian.trends import Constant, Wiener
from inference.sites import conjugate_vi, laplace, power_ep
from inference.sites.fold import Sites, fold, log_mass, walk_of
from inference.sites.law import SiteLaw
from ppl import Target, gen, sample, seed
from tests.dense_sites import with_sites

pytestmark = pytest.mark.slow

TIMES = np.array([0.3, 2.0, 1.0, 5.0, 0.31, 1.4, 0.0])
TWICE = np.array([0.3, 2.0, 1.0, 5.0, 1.0, 0.3, 0.0])
LEVEL = np.linspace(-1.0, 1.0, 7)
PRECISION = np.array([1.3, 0.0, 2.0, -0.2, 0.4, 50.0, 3.0])  # none, and of the wrong sign, too
LINEAR = np.array([0.5, 1.0, -2.0, 0.3, 0.0, 20.0, -1.0])
KERNELS = {
    "one": Matern12(1.3, 0.7),
    "two": Matern32(1.3, 0.8),
    "four": Matern32(1.0) + Wiener(0.5, level=1.0) * Matern12(2.0) + Constant(0.3),
}
each_kernel = pytest.mark.parametrize("name", KERNELS)


def dense(kernel, level, precision, linear, times=TIMES):
    """log mass by determinants."""
    covariance = kernel.covariance(times[:, None], times)
    ratio = jnp.eye(times.size) + precision[:, None] * covariance
    pull = linear - precision * level
    mass = pull @ covariance @ jnp.linalg.solve(ratio, pull) - jnp.linalg.slogdet(ratio)[1]
    return mass / 2 + jnp.sum((linear - 0.5 * precision * level) * level)


@pytest.mark.parametrize("times", [TIMES, TWICE], ids=["apart", "twice"])
@each_kernel
def test_a_fold_is_the_dense_law(name, times):
    """Values and gradients, at unsorted times, repeated ones, and sites that are no data.

    Numbers are of size 1 to 100, from matrices with condition numbers below 1e3.
    """
    kernel, args = KERNELS[name], (LEVEL, PRECISION, LINEAR)
    walk = walk_of(gp(kernel, times, mean=LEVEL))
    found = fold(walk, Sites(PRECISION, LINEAR))
    mass, mean, covariance = with_sites(np.asarray(kernel.covariance(times[:, None], times)), *args)
    assert found.valid
    np.testing.assert_allclose(found.log_mass, mass, rtol=1e-11)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.variance, np.diag(covariance), rtol=0, atol=1e-11)

    def folded(kernel, level, precision, linear):
        walk = walk_of(gp(kernel, times, mean=level))
        return log_mass(walk, Sites(precision, linear))

    slopes = jax.grad(folded, (0, 1, 2, 3))(kernel, *map(jnp.asarray, args))
    due = jax.grad(dense, (0, 1, 2, 3))(kernel, *map(jnp.asarray, args), times)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(due), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_sites_with_no_law_are_told():
    """One site takes more precision than the process has."""
    walk = walk_of(gp(Matern12(1.0), TIMES))
    wrong = Sites(np.where(np.arange(7) == 2, -1.5, 0.1), LINEAR)
    assert not fold(walk, wrong).valid and np.isnan(log_mass(walk, wrong))
    assert fold(walk, Sites(np.where(np.arange(7) == 2, -0.5, 0.1), LINEAR)).valid


@each_kernel
def test_density_and_draws_are_of_the_dense_law(name):
    """Draws are an affine map of normals, whose mean and covariance are compared exactly.

    The density, where it is -5e4, is a sum of squares times up to the precision of a law whose
    covariance has a condition number of 1e4: 1e-11 of it.
    """
    kernel = KERNELS[name]
    law = SiteLaw(gp(kernel, TIMES, mean=LEVEL), Sites(PRECISION, LINEAR))
    plain = np.asarray(kernel.covariance(TIMES[:, None], TIMES))
    _, mean, covariance = with_sites(plain, LEVEL, PRECISION, LINEAR)
    f = np.linspace(0.4, -0.3, 7)
    right = dist.MultivariateNormal(mean, (covariance + covariance.T) / 2).log_prob(f)
    np.testing.assert_allclose(law.log_prob(f), right, rtol=1e-10)
    np.testing.assert_allclose(law.log_prob(np.stack([f, f + 1]))[0], right, rtol=1e-10)
    zeros = jnp.zeros((8, kernel.dimension))
    by = jax.jacobian(law.from_normals)(zeros).reshape(7, -1)
    np.testing.assert_allclose(law.from_normals(zeros), mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(by @ by.T, covariance, rtol=0, atol=1e-10)
    assert law.sample(jax.random.key(0), (3, 2)).shape == (3, 2, 7)


def test_draws_at_equal_times_are_equal():
    law = SiteLaw(gp(Matern32(1.0), TWICE), Sites(PRECISION, LINEAR))
    f = law.sample(jax.random.key(1))
    np.testing.assert_allclose([f[4], f[5]], [f[2], f[0]], rtol=0, atol=1e-12)
    assert np.isfinite(law.log_prob(f.at[4].set(f[2]).at[5].set(f[0])))


@gen
def inner():
    return sample("f", gp(Matern32(1.3), TIMES, mean=LEVEL))


@gen
def counts():
    f = sample("part", inner())
    sample("y", dist.Poisson(jnp.exp(f)))


TARGET = Target(counts, (), {"y": np.array([0, 2, 3, 1, 0, 0, 1])})


@pytest.mark.parametrize("method", [laplace, power_ep, conjugate_vi])
def test_the_law_is_a_proposal_at_the_address_of_the_model(method):
    """Its weights are the ratio of the densities, to rounding, draw by draw."""
    law = method(TARGET, ("part", "f")).law
    trace = seed(law.simulate)(jax.random.key(0))
    f = trace["part", "f"]
    np.testing.assert_allclose(law.assess(trace.choices)[0], trace.score, rtol=1e-12)
    drawn = seed(lambda: by_importance(3, law)(TARGET)(unit()))(jax.random.key(2))
    for i in range(3):
        f = drawn.value["part", "f"][i]
        density = TARGET.log_density({"part": {"f": f}})
        right = density - law.assess({"part": {"f": f}})[0]
        np.testing.assert_allclose(drawn.log_weight[i], right, rtol=0, atol=1e-9)
