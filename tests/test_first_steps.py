"""The first step of a run: a size that it bears, and masses where no warm-up would find them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import hmc, mala, nuts, random_walk, sample_posterior
from inference.mcmc.first_metric import first_step_size, scales_by_slopes
from ppl import Target, gen, sample, seed

KEY = jax.random.key(3)
SCALES = np.array([1e-3, 1.0, 1e3])


@gen
def apart():
    sample("x", dist.Normal(jnp.array([0.002, 5.0, -2000.0]), jnp.asarray(SCALES)))


APART = Target(apart)
KERNELS = {
    "nuts": lambda **how: nuts(APART, **how),
    "hmc": lambda **how: hmc(APART, steps=3, **how),
    "mala": lambda **how: mala(APART, **how),
    "random_walk": lambda **how: random_walk(APART, **how),
}


def first(kernel, n, x=(1.0, -1.0, 0.5)):
    state = kernel.enter(seed(APART.generate)(KEY, {"x": jnp.array(x)})[0])
    return state, kernel.tuning.parameters(kernel.tuning.init(state, n))


@pytest.mark.parametrize("name", ["nuts", "hmc", "mala"])
@pytest.mark.parametrize("dense", [True, False])
def test_masses_of_independent_normals_are_exact_from_any_start(name, dense):
    _, metric = first(KERNELS[name](dense=dense), 0)
    exact = np.diag(SCALES**2) if dense else SCALES**2
    # differences of gradients lose as many digits as the start is scales away, 1e3 of 1e-3
    np.testing.assert_allclose(metric.inverse_mass, exact, rtol=1e-6)


@pytest.mark.parametrize("n", [0, 10, 1000])
def test_one_leapfrog_step_of_the_first_size_crosses_one_half(n):
    """By Hoffman and Gelman: accepted above 1/2 at h, and not at 2h."""
    state, metric = first(KERNELS["hmc"](), n)
    variances = SCALES**2
    mean = np.array([0.002, 5.0, -2000.0])

    def ratio(h):
        mass = np.diagonal(metric.inverse_mass)
        r = np.array([1.0, -1.0, 1.0]) / np.sqrt(mass)
        slope = lambda z: (z - mean) / variances  # noqa: E731
        energy = lambda z, r: ((z - mean) ** 2 / variances).sum() / 2 + (mass * r**2).sum() / 2  # noqa: E731
        half = r - h / 2 * slope(state.z)
        z = state.z + h * mass * half
        return energy(state.z, r) - energy(z, half - h / 2 * slope(z))

    h = float(metric.step_size)
    level = -np.log(2.0)
    assert ratio(h) > level > ratio(2 * h)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("warmup", [0, 5])
def test_chains_of_scales_far_apart_move(name, warmup):
    draws = sample_posterior(
        KEY, APART, KERNELS[name](), draws=30, warmup=warmup, chains=2, progress=False
    )
    assert (np.ptp(draws["x"], axis=1) > 0).all()


def test_a_step_size_that_is_given_is_used_as_it_is():
    for make in KERNELS.values():
        kernel = make(step_size=0.25)
        _, metric = first(kernel, 0)
        assert metric.step_size == 0.25
        assert (metric.inverse_mass == kernel.parameters.inverse_mass).all()


def test_flat_and_broken_densities_keep_the_start():
    start = jnp.array(0.1)
    assert first_step_size(lambda h: 0.0 * h, start) == start
    assert first_step_size(lambda h: h * jnp.nan, start) == start
    flat = scales_by_slopes(lambda z: jnp.zeros(2), jnp.ones(2), jnp.zeros(2))
    assert flat.tolist() == [1.0, 1.0]
