"""Steering: the measures of texts exactly, what beams do to them, and a diffusion on a grid."""

import itertools
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from budget import CHECKS
from scipy import stats

from examples import diffusion, steering
from examples.steering import REWARD, enumerated, keep_best, odds, passage, steered
from inference import multinomial, particle_gibbs, resample, then, when_ess_below
from ppl import integrate, seed
from semantics import check_kernel
from semantics.compiling import QUICK

EXACT = 1e-12  # relative, of sums of at most a million products of probabilities in float64
ROOT = Path(__file__).parent.parent


def measure_of_texts(n, steps, *args):
    """The mass of each text, in the order of `enumerated`, by integrating the algorithm."""

    def measure():
        s = steered(n, steps, *args)
        here = (s.value @ 3 ** jnp.arange(steps)[::-1])[:, None] == jnp.arange(3**steps)
        return (jnp.exp(s.log_weight)[:, None] * here).mean(0)

    return np.asarray(jax.jit(integrate(measure), compiler_options=QUICK)())


ALWAYS = partial(resample, scheme=multinomial)
FILTERS = {
    "alone": (1, 4, jnp.log, then()),
    "by r": (2, 3, jnp.log, when_ess_below(0.8, multinomial)),
    "by the odds": (3, 2, odds, ALWAYS),
}


@pytest.mark.parametrize("n, steps, potential, select", FILTERS.values(), ids=FILTERS)
def test_the_measure_of_steered_texts_is_exact(n, steps, potential, select):
    """So is its total, the mean of the estimated evidence."""
    weight = REWARD / (1 - REWARD) if potential is odds else REWARD
    _, expected = enumerated(steps, weight)
    found = measure_of_texts(n, steps, potential, select)
    np.testing.assert_allclose(found, expected, rtol=EXACT)


def test_a_beam_has_more_shortcuts_than_its_target_and_more_mass():
    texts, mass = enumerated(2, REWARD)
    found = measure_of_texts(4, 2, jnp.log, keep_best)
    cut = (texts == steering.SHORTCUT).any(1)
    assert found.sum() > mass.sum()
    assert found[cut].sum() / found.sum() > mass[cut].sum() / mass.sum()


def test_texts_as_a_target_are_those_of_the_filter():
    texts, mass = enumerated(3, REWARD)
    density = jax.vmap(lambda x: passage(3).log_density({"text": {"write": {"step": x}}}))
    np.testing.assert_allclose(np.exp(density(jnp.array(texts))), mass, rtol=EXACT)


def test_particle_gibbs_over_texts_keeps_the_target():
    kernel = partial(particle_gibbs, address="text", n=2, ancestor_sampling=False)
    check_kernel(kernel, passage(3)).require()


# -- diffusion -----------------------------------------------------------------------------------


def test_promises_telescope():
    """Without resampling nothing is left of them: each weight is that of the reward alone."""
    run = jax.jit(seed(lambda: diffusion.steered(5, then())), compiler_options=QUICK)
    s = run(jax.random.key(0))
    # 160 promises of at most 10 in size, by a denoiser of a few roundings
    np.testing.assert_allclose(s.log_weight, s.value, rtol=0, atol=1e-11)


def test_the_sampler_is_near_its_target():
    """The law of the end on grids, each 5.5 standard deviations wide or more.

    A step's standard deviation is at least one spacing h; sums are then integrals within
    2 exp(-2 pi^2), or 6e-9.
    """
    levels = diffusion.LEVELS
    x = np.linspace(-60.0, 60.0, 601)
    mass = stats.norm.pdf(x, 0.0, levels[0])
    step = jax.jit(jax.vmap(diffusion.moments, (0, None)))
    for pair in itertools.pairwise(levels):
        means, variances = map(np.asarray, step(jnp.array(x), pair))
        half = 5.0 + 5.5 * pair[1]
        x = np.linspace(-half, half, 601)
        assert np.sqrt(variances.min()) > x[1] - x[0]
        mass = np.exp(-((x[:, None] - means) ** 2) / (2 * variances)) @ (mass / np.sqrt(variances))
        mass = mass / mass.sum()
    tilted = mass * np.exp(x)
    evidence, mean = diffusion.target()
    # what the example leaves to the steps and to the last noise
    assert abs(tilted.sum() - evidence) < 0.02
    assert abs(tilted @ x / tilted.sum() - mean) < 0.02
    assert mean == pytest.approx(1.1882, abs=5e-5)


def test_the_best_of_two_is_the_larger():
    """E max of two normals (Clark 1961), for each pair of components."""
    expected = 0.0
    parts = list(zip(diffusion.SHARES, diffusion.MEANS, diffusion.SDS, strict=True))
    for p, m, s in parts:
        for q, k, r in parts:
            d = np.hypot(s, r)
            a = (m - k) / d
            larger = m * stats.norm.cdf(a) + k * stats.norm.cdf(-a) + d * stats.norm.pdf(a)
            expected += p * q * larger
    assert diffusion.best_of(2) == pytest.approx(expected, rel=1e-7)  # quad's own 1.5e-8, twice


# -- the mains -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steering", "diffusion"])
def test_the_examples_exit_0(name, tmp_path):
    """The e-values are in the budget; other bounds are of standard errors, with fixed keys."""
    assert CHECKS["evidence of steered texts"] == (7, steering.ALPHA)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"examples.{name}"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
