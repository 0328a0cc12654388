"""The example of a forecast: its process is that of its reference, and what the main shows."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from examples.co2 import (
    AFTER,
    BEFORE,
    KNOWN,
    MEAN,
    PPM,
    START,
    YEARS,
    Forecast,
    covariance,
    dense,
    inside,
    log_evidence,
    process,
)


def test_the_data_are_the_months_until_2001():
    assert len(PPM) == 526 and BEFORE.sum() == 406 and AFTER.sum() == 120
    assert np.isnan(PPM).sum() == (~KNOWN).sum() == 5
    assert_allclose(YEARS[[0, -1]], [2.5 / 12, 43 + 11.5 / 12], rtol=1e-15)
    # a year rises by what is known as the growth of the sixties and of the nineties
    yearly = np.nanmean(PPM[10:].reshape(43, 12), 1)
    assert 0.6 < np.diff(yearly)[1:10].mean() < 1.0 and 1.3 < np.diff(yearly)[-11:-1].mean() < 1.7


@pytest.mark.slow
def test_the_process_is_that_of_the_matrix():
    """But for the waves of the season beyond the sixth, of which there are 1e-7 ppm²."""
    law = process(START, YEARS[:40:3])
    expected = covariance(START, YEARS[:40:3], YEARS[:40:3]) + START["noise"] ** 2 * np.eye(14)
    left = START["season"] ** 2 * 2 * special.ive(np.arange(7, 30), START["shape"] / 2).sum()
    # and rounding, of variances of 1e3
    assert_allclose(law.covariance_matrix, expected, rtol=0, atol=left + 1e-12)


@pytest.mark.slow
def test_the_evidence_is_that_of_the_matrix():
    """Of 401 months, with those that are missing left out; the waves that are left out change it
    by their size over the noise's variance, 1e-7 / 0.04, for each month at most."""
    found = float(jax.jit(log_evidence)(START))
    assert found == pytest.approx(dense(START)[0].log_evidence, abs=401 * 1e-7 / 0.04)


def test_the_forecast_of_the_reference_is_the_conditional_law():
    """By the precision of all months together, of which the forecast's is a block."""
    forecast, joint = dense(START)
    old, new = YEARS[BEFORE][KNOWN], YEARS[AFTER]
    every = np.concatenate([old, new])
    whole = covariance(START, every, every) + START["noise"] ** 2 * np.eye(len(every))
    precision = np.linalg.inv(whole)
    here = precision[len(old) :, len(old) :]
    told = precision[len(old) :, : len(old)] @ (PPM[BEFORE][KNOWN] - MEAN)
    mean = MEAN - np.linalg.solve(here, told)
    # the matrix has a condition of 1e8: 1e3 of the trend for each of 500 months, over 0.04
    assert_allclose(joint, np.linalg.inv(here), rtol=0, atol=1e-7)
    assert_allclose(forecast.mean, mean, rtol=0, atol=1e-6)


def test_the_share_inside_of_a_band():
    forecast = Forecast(0.0, np.zeros(4), np.array([1.0, 1.0, 2.0, 2.0]))
    paths = np.array([[1.9, -2.0, 3.9, -4.0], [0.0, 0.0, 0.0, 0.0]])
    assert inside(paths, forecast).tolist() == [0.5, 1.0]


@pytest.mark.slow
def test_the_example_exits_0(tmp_path):
    """What came has a chi-square of 114 with 120 degrees of freedom, by the forecast's own law."""
    path = tmp_path / "co2.png"
    command = [sys.executable, "-m", "examples.co2", "--figure", str(path)]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
