"""The hierarchical example: its exact posterior is that of its model, and what the main shows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from examples.growth import DISTANCE, SEX, YEARS, exact, log_marginal, noise_ratio, target

LEVEL_SD, RATE_SD, NOISE = 1.8, 0.2, np.array([1.6, 0.7])


def test_the_marginal_density_is_the_normal_law_of_each_sex():
    """All distances of a sex are jointly normal: shared level and rate, own ones, and noise."""
    expected = 0.0
    design = np.stack([np.ones(4), YEARS], 1)
    for sex in (0, 1):
        n = int((sex == SEX).sum())
        within = design @ np.diag([LEVEL_SD**2, RATE_SD**2]) @ design.T
        shared = design @ np.diag([5.0**2, 1.0]) @ design.T
        noise = NOISE[sex] ** 2 * np.eye(4 * n)
        covariance = np.kron(np.eye(n), within) + np.kron(np.ones((n, n)), shared) + noise
        mean = np.full(4 * n, 24.0)
        expected += stats.multivariate_normal.logpdf(DISTANCE[sex == SEX].ravel(), mean, covariance)
    found, *_ = log_marginal(NOISE, LEVEL_SD, RATE_SD)
    # 108 coordinates, a covariance of condition below 1e4
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("noises", [1, 2])
def test_the_model_is_that_of_the_exact_posterior(noises):
    rng = np.random.default_rng(0)
    level, rate, z = np.array([25.0, 22.5]), np.array([0.8, 0.5]), rng.normal(size=len(SEX))
    own = level[SEX] + rng.normal(size=len(SEX))
    latents = {
        "level": level,
        "rate": rate,
        "level_sd": LEVEL_SD,
        "rate_sd": RATE_SD,
        "noise": NOISE[:noises],
        "own_level": own,
        "z": z,
    }
    line = own[:, None] + (rate[SEX] + RATE_SD * z)[:, None] * YEARS
    expected = [
        stats.norm.logpdf(level, 24.0, 5.0),
        stats.norm.logpdf(rate),
        stats.halfnorm.logpdf(LEVEL_SD, scale=3.0),
        stats.halfnorm.logpdf(RATE_SD, scale=0.5),
        stats.halfnorm.logpdf(NOISE[:noises], scale=2.0),
        stats.norm.logpdf(own, level[SEX], LEVEL_SD),
        stats.norm.logpdf(z),
        stats.norm.logpdf(DISTANCE, line, NOISE[SEX % noises][:, None]),
    ]
    density = float(target(noises).log_density(latents))
    assert density == pytest.approx(sum(np.sum(x) for x in expected), rel=1e-12)


def test_the_quadrature_has_converged():
    few, many = exact(1, 40), exact(1, 48)
    for name, (mean, sd) in many.items():
        assert few[name] == pytest.approx((mean, sd), abs=1e-6 * sd)


def test_scatter_around_lines_has_no_part_of_the_lines():
    """A residual that no line explains, twice as large for boys; lines change nothing."""
    rng = np.random.default_rng(0)
    lines = rng.normal(size=(len(SEX), 1)) + rng.normal(size=(len(SEX), 1)) * YEARS
    bend = np.array([1.0, -1.0, -1.0, 1.0])  # orthogonal to every line
    distance = lines + np.where(SEX == 0, 2.0, 1.0)[:, None] * bend
    assert noise_ratio(distance) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.slow
def test_the_example_exits_0():
    """Its 30 distances pass 4 standard errors with probability 2e-3; the keys are fixed."""
    command = [sys.executable, "-m", "examples.growth"]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
