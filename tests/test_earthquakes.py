"""The example of a hidden Markov model: its reference, by all paths, and what the main shows."""

import itertools
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from examples.earthquakes import (
    COUNTS,
    YEARS,
    century,
    exact,
    forward_backward,
    quiet,
    stationary,
    viterbi,
)

RATES, MOVE = np.array([12.0, 22.0]), np.array([[0.9, 0.1], [0.25, 0.75]])
START = np.array([0.25, 0.1]) / 0.35  # p01 p(0) = p10 p(1)
FEW = np.array([10, 19, 16, 25])


def by_path():
    """All paths of four years, and their densities with the counts."""
    paths = np.array(list(itertools.product((0, 1), repeat=4)))
    p = START[paths[:, 0]] * MOVE[paths[:, :-1], paths[:, 1:]].prod(1)
    return paths, p * stats.poisson.pmf(FEW, RATES[paths]).prod(1)


def test_the_data_are_the_published_ones():
    assert len(COUNTS) == 107 and COUNTS.sum() == 2072 and YEARS[-1] == 2006
    assert COUNTS.max() == COUNTS[YEARS == 1943] == 41


def test_the_start_is_stationary():
    assert_allclose(stationary(MOVE), START, rtol=1e-14)


def test_the_model_is_that_of_the_book():
    states = np.arange(107) % 3 % 2
    score, _ = century.assess({"before": 1, "state": states, "earthquakes": COUNTS}, RATES, MOVE)
    walk = np.log(MOVE[np.append(1, states[:-1]), states]).sum()
    expected = np.log(START[1]) + walk + stats.poisson.logpmf(COUNTS, RATES[states]).sum()
    assert float(score) == pytest.approx(expected, rel=1e-12)


def test_forward_and_backward_are_sums_over_all_paths():
    log_p, busy, changes = forward_backward(FEW, 12.0, 10.0, 0.9, 0.75)
    paths, p = by_path()
    assert log_p == pytest.approx(np.log(p.sum()), rel=1e-13)
    assert_allclose(busy, p @ paths / p.sum(), rtol=1e-12)
    assert changes == pytest.approx(p @ np.abs(np.diff(paths)).sum(1) / p.sum(), rel=1e-12)


def test_the_likeliest_path_is_that_of_all_paths():
    """With the state before the first year, which is as likely as any."""
    found, density = viterbi(FEW, RATES, MOVE, START)
    paths, p = by_path()
    with_before = START[:, None] * MOVE[:, paths[:, 0]] * (p / START[paths[:, 0]])
    before, best = np.unravel_index(with_before.argmax(), with_before.shape)
    assert found == [before, *paths[best]]
    assert density == pytest.approx(np.log(with_before.max()), rel=1e-13)


@pytest.mark.slow
def test_the_summed_model_is_the_forward_algorithm():
    score = jax.jit(lambda rates, move: quiet.assess({"earthquakes": COUNTS}, rates, move)[0])
    expected = forward_backward(COUNTS, 12.0, 10.0, 0.9, 0.75)[0]
    assert float(score(RATES, MOVE)) == pytest.approx(expected, rel=1e-12)


def test_the_quadrature_has_converged():
    """To a tenth of the example's Monte Carlo errors, of .02 in rates and .2 in busy years."""
    (few, few_busy), (many, many_busy) = exact(16), exact(18)
    for name, tenth in {"calm": 2e-3, "busier": 3e-3, "stay[1]": 1e-4, "changes": 7e-3}.items():
        assert few[name] == pytest.approx(many[name], abs=tenth)
    assert_allclose(few_busy, many_busy, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_example_exits_0(tmp_path):
    """Its 113 distances pass 4 standard errors with probability 7e-3; the keys are fixed."""
    path = tmp_path / "earthquakes.png"
    command = [sys.executable, "-m", "examples.earthquakes", "--figure", str(path)]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
