"""The Bayesian neural network: its curve and density by hand, and the mirror images it has."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from long import LONG
from numpy.testing import assert_allclose
from scipy import stats

from examples.bnn import DURATION, PRIOR_SD, SIZE, UNITS, WAITS, curve, whole

NUMBERS = PRIOR_SD * np.random.default_rng(0).normal(size=SIZE)
TARGET = whole(jnp.asarray(DURATION), jnp.asarray(WAITS))


def by_hand(duration):
    slope, place, out = NUMBERS[:-1].reshape(3, UNITS)
    units = [
        o * np.tanh(s * (duration - 3.5) + p) for s, p, o in zip(slope, place, out, strict=True)
    ]
    return NUMBERS[-1] + sum(units)


def test_the_density_is_of_normals_around_the_curve():
    expected = [
        stats.norm.logpdf(NUMBERS, 0.0, PRIOR_SD),
        stats.norm.logpdf(np.log(0.4), -1.0, 1.0),
        stats.norm.logpdf(WAITS, by_hand(DURATION), 0.4),
    ]
    found = TARGET.log_density({"numbers": NUMBERS, "log_noise": np.log(0.4)})
    assert_allclose(found, sum(np.sum(x) for x in expected), rtol=1e-12)
    assert_allclose(curve(NUMBERS, 2.5), by_hand(2.5), rtol=1e-12)


def test_mirror_images_have_the_curve_and_the_density():
    """Units in another order; and one whose three numbers change signs."""
    units = NUMBERS[:-1].reshape(3, UNITS)[:, [3, 0, 4, 1, 2]]
    units = units * np.array([1, 1, -1, 1, 1])
    mirrored = np.r_[units.ravel(), NUMBERS[-1]]
    assert abs(mirrored - NUMBERS).max() > 1.0
    assert_allclose(curve(mirrored, DURATION), by_hand(DURATION), rtol=1e-12)
    here, there = ({"numbers": x, "log_noise": -1.0} for x in (NUMBERS, mirrored))
    assert_allclose(TARGET.log_density(there), TARGET.log_density(here), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="takes minutes: GIRY_LONG=1")
def test_the_example_exits_0():
    """The largest difference was 0.5 minutes, and the chains' standard error is 0.03."""
    command = [sys.executable, "-m", "examples.bnn"]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
