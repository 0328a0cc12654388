"""The example of a functional tensor: its data, its references, and that its main is met."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from examples.air_quality import (
    COLUMNS,
    DAY,
    OUT,
    PM25,
    STATION,
    Y,
    better,
    by_day,
    by_day_and_station,
    held,
    of_scale,
    rows,
    standardised,
)


def test_the_data_are_those_of_the_paper():
    """Its table has 428 temperatures, 501 pressures and 1,461 days, and 13,572 rows to train on."""
    assert rows(~OUT).sizes == rows(OUT).sizes == (428, 501, 1461, 12)
    assert len(PM25) == 16965 and np.count_nonzero(~OUT) == 13572
    assert COLUMNS["temperature"].min() == -15.7 and COLUMNS["pressure"].max() == 1041.0


def test_the_means_are_those_of_the_training_rows():
    x = standardised(PM25)
    for at in (0, 5000, 16964):
        same = (DAY[at] == DAY) & ~OUT
        assert by_day(x)[at] == pytest.approx(x[same].mean(), rel=1e-12)
        own = (STATION[at] == STATION) & ~OUT
        more = (x - by_day(x))[own].mean()
        assert by_day_and_station(x)[at] == pytest.approx(x[same].mean() + more, rel=1e-12)


def test_a_density_is_multiplied_with_the_slope():
    """Of y in standardised PM2.5, by differences, whose error is that of a square: 1e-7."""
    log = np.log(PM25[~OUT])
    y = lambda z: (np.log(PM25.mean() + PM25.std() * z) - log.mean()) / log.std()  # noqa: E731
    z = standardised(PM25[OUT])
    assert_allclose(y(z), Y[OUT], rtol=0, atol=1e-12)
    slope = (y(z + 1e-5) - y(z - 1e-5)) / 2e-5
    assert_allclose(of_scale(), np.log(slope), rtol=0, atol=1e-4)


def test_intervals_are_as_often_below_as_above():
    below = (np.arange(1000) + 0.5) / 1000
    assert held(below, 0.5) == 0.5 and held(below, 0.9) == 0.9
    assert held(below / 2, 0.9) == 0.9  # between .05 and .95, of all below .5


def test_better_is_in_standard_errors():
    gain = np.array([1.0, 3.0])
    assert better(-gain, np.zeros(2)) == pytest.approx(2 / (1 / np.sqrt(2)))


@pytest.mark.slow
def test_the_example_exits_0(tmp_path):
    path = tmp_path / "air_quality.png"
    command = [sys.executable, "-m", "examples.air_quality", "--figure", str(path)]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
