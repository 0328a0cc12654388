"""The example of counts with a process: its reference is exact, and what the main shows."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from examples.coal import COUNTS, MEAN, TIMES, approximated, given, grid, quantiles, weighted
from inference import sites


def covariance(scale, size):
    apart = np.sqrt(3) * np.abs(TIMES[:, None] - TIMES) / scale
    return size**2 * (1 + apart) * np.exp(-apart)


def test_weights_are_the_model_over_the_law_of_the_draws():
    """log p(counts, rates) - log q(rates); q is normal, at the mode and with the curvature there.

    The mode is found from the slope of the model, which is zero where the reference draws around.
    """
    matrix = covariance(25.0, 0.8)
    inverse = np.linalg.inv(matrix)
    mode = np.full(len(TIMES), MEAN)
    for _ in range(12):
        slope = COUNTS - np.exp(mode) - inverse @ (mode - MEAN)
        mode = mode + np.linalg.solve(inverse + np.diag(np.exp(mode)), slope)
    rows, log_weight = weighted(np.random.default_rng(0), 25.0, 0.8, 5)
    law = stats.multivariate_normal(mode, np.linalg.inv(inverse + np.diag(np.exp(mode))))
    prior = stats.multivariate_normal(np.full(len(TIMES), MEAN), matrix)
    log_p = prior.logpdf(rows) + stats.poisson.logpmf(COUNTS, np.exp(rows)).sum(1)
    # the inverse has a condition of 1e6, and log densities a size of 1e2
    assert_allclose(log_weight, log_p - law.logpdf(rows), rtol=0, atol=1e-6)


def test_the_model_is_that_of_the_reference():
    log_rate = MEAN + 0.4 * np.sin(TIMES / 20)
    found = jax.jit(given(25.0, 0.8).log_density)({"log_rate": log_rate})
    prior = stats.multivariate_normal(np.full(len(TIMES), MEAN), covariance(25.0, 0.8))
    expected = prior.logpdf(log_rate) + stats.poisson.logpmf(COUNTS, np.exp(log_rate)).sum()
    assert float(found) == pytest.approx(expected, abs=1e-6)  # of the matrix, as above


def test_the_grid_has_the_moments_of_the_prior():
    """The mass of the normal and the half-normal law in the box."""
    scale, size, weight = grid(40)
    box = stats.norm.cdf((np.log([np.exp(1.6), np.exp(4.8)]) - 3) / 0.5)
    half = stats.halfnorm.cdf([0.1, 2.6])
    inside = stats.truncnorm((1.6 - 3) / 0.5, (4.8 - 3) / 0.5, 3, 0.5)
    assert box[1] - box[0] > 0.997 and half[1] - half[0] > 0.9
    assert weight @ np.log(scale) == pytest.approx(inside.mean(), abs=1e-12)
    assert weight @ size == pytest.approx(stats.truncnorm(0.1, 2.6).mean(), abs=1e-12)


@pytest.mark.slow
def test_the_grid_has_converged():
    """With 10 nodes for each, means of scale and size are those of 14, to .01 deviations."""
    means = []
    for nodes in (10, 14):
        scale, size, prior = grid(nodes)
        evidence = approximated(sites.laplace, scale, size)[2]
        weights = np.asarray(prior * np.exp(evidence - np.max(evidence)))
        means.append([weights @ scale / weights.sum(), weights @ size / weights.sum()])
    sd = np.array([9.6, 0.29])
    assert_allclose(means[0] / sd, means[1] / sd, rtol=0, atol=0.01)


def test_quantiles_of_a_mixture():
    weights, means, variances = np.array([[0.25, 0.75], [0.0, 3.0], [1.0, 4.0]])
    q = quantiles(0.3, weights, means[:, None], variances[:, None])
    assert 0.25 * stats.norm.cdf(q) + 0.75 * stats.norm.cdf(q, 3, 2) == pytest.approx(0.3, abs=1e-9)


@pytest.mark.slow
def test_the_example_exits_0(tmp_path):
    """Nothing in it is random: the reference has a fixed seed."""
    path = tmp_path / "coal.png"
    command = [sys.executable, "-m", "examples.coal", "--figure", str(path)]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
