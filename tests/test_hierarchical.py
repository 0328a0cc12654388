"""The hierarchy of days: its exact posterior is that of its model, and its guide's formula too."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from long import LONG
from numpy.testing import assert_allclose
from scipy import stats

from examples.hierarchical import (
    HAZE,
    MEASURED,
    OTHERS,
    STATIONS,
    day_guide,
    exact,
    log_marginal,
    start,
    whole,
)
from ppl import vmap

BETWEEN, WITHIN = 0.7, 0.3
MEAN, PLACE = 3.8, np.linspace(-0.2, 0.3, OTHERS)
SOME = MEASURED.sum(1).argsort()[[0, 200, 700, 1400]]  # days of few and of all stations


def test_the_marginal_density_is_a_normal_law():
    """Of what was measured on four days, all together: what they share, a day's own, the rest."""
    haze, measured = HAZE[SOME], MEASURED[SOME]
    days, stations = len(haze), len(STATIONS)
    shared = np.ones((stations, stations)) + np.diag(np.r_[0.0, np.full(OTHERS, 0.25)])
    own = BETWEEN**2 * np.kron(np.eye(days), np.ones((stations, stations)))
    covariance = np.kron(np.ones((days, days)), shared) + own + WITHIN**2 * np.eye(days * stations)
    kept = measured.ravel()
    expected = stats.multivariate_normal.logpdf(
        haze.ravel()[kept], np.full(kept.sum(), 4.0), covariance[kept][:, kept]
    )
    found, mean, of_mean = log_marginal(haze, measured, np.array(BETWEEN), np.array(WITHIN))
    assert_allclose(found, expected, rtol=1e-10)  # some 40 coordinates, a condition below 1e4
    # regression on what was measured: the law of the mean and the places given it
    prior = np.diag(np.r_[1.0, np.full(OTHERS, 0.25)])
    design = np.eye(stations)
    design[:, 0] = 1.0
    across = (np.kron(np.ones((days, 1)), design) @ prior)[kept]
    gain = np.linalg.solve(covariance[kept][:, kept], across).T
    assert_allclose(mean, np.r_[4.0, np.zeros(OTHERS)] + gain @ (haze.ravel()[kept] - 4.0))
    assert_allclose(of_mean, prior - gain @ across, atol=1e-12)


def latents(level):
    logs = {"log_between": np.log(BETWEEN), "log_within": np.log(WITHIN)}
    return {"mean": MEAN, "place": PLACE, **logs, "day": {"level": level}}


def test_the_model_is_that_of_the_exact_posterior():
    haze, measured = HAZE[SOME], MEASURED[SOME]
    level = np.random.default_rng(0).normal(4.0, 1.0, len(haze))
    line = level[:, None] + np.r_[0.0, PLACE]
    expected = [
        stats.norm.logpdf(MEAN, 4.0, 1.0),
        stats.norm.logpdf(PLACE, 0.0, 0.5),
        stats.norm.logpdf(np.log([BETWEEN, WITHIN])),
        stats.norm.logpdf(level, MEAN, BETWEEN),
        stats.norm.logpdf(haze, line, WITHIN)[measured],
    ]
    density = whole(jnp.asarray(haze), jnp.asarray(measured)).log_density(latents(level))
    assert_allclose(density, sum(np.sum(x) for x in expected), rtol=1e-12)


def test_the_formula_of_the_guide_has_the_exact_law_of_full_days():
    """Given all else, log p - log q does not depend on the level of a day of all stations.

    With n stations and r = within^2 / between^2, the share is n / (n + r), and the standard
    deviation within / sqrt(n + r).
    """
    full = np.flatnonzero(MEASURED.all(1))[:3]
    haze, measured = jnp.asarray(HAZE[full]), jnp.asarray(MEASURED[full])
    n, r = len(STATIONS), (WITHIN / BETWEEN) ** 2
    share, log_sd = np.array([np.log(n / r), 1.0]), np.array([-np.log(n + r) / 2, -0.5])
    p = {**start(), "share": share, "log_sd": log_sd}
    days = vmap(day_guide, (None, None, None, None, 0, 0))
    target, found = whole(haze, measured), []
    for level in np.random.default_rng(1).normal(4.0, 1.0, (4, 3)):
        args = (p, MEAN, jnp.asarray(PLACE), WITHIN, haze, measured)
        log_q, _ = days.assess({"level": jnp.asarray(level)}, *args)
        found.append(float(target.log_density(latents(level)) - log_q))
    assert_allclose(found, found[0], rtol=1e-10)  # of densities below 1e4


def test_the_quadrature_has_converged():
    (few, less), (many, more) = exact(HAZE, MEASURED, 30), exact(HAZE, MEASURED, 40)
    assert less == pytest.approx(more, abs=1e-7)
    for name, (mean, sd) in many.items():
        assert few[name] == pytest.approx((mean, sd), abs=1e-6 * sd)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="takes minutes: GIRY_LONG=1")
def test_the_example_exits_0():
    """Its 28 distances of the chains pass 4 standard errors with probability 2e-3; keys are fixed.

    The means and standard deviations of the fit were within 0.05 and 5 %.
    """
    command = [sys.executable, "-m", "examples.hierarchical"]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
