"""The example of three particle algorithms: its model, its reference, and what the main shows."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from long import LONG
from scipy import stats

from examples.volatility import (
    DATA,
    RETURNS,
    interweaved,
    of_repetitions,
    target,
)
from examples.volatility_grid import exact, log_likelihood
from inference.move import log_det_of

MU, PHI, VARIANCE = -0.7, 0.97, 0.02


def path():
    rng = np.random.default_rng(0)
    return MU + 0.5 * rng.normal(size=len(RETURNS)).cumsum() / len(RETURNS) ** 0.5


def test_the_model_is_that_of_the_paper():
    """Its joint density by scipy: a stationary start, Gaussian steps, returns of variance e^h."""
    h = path()
    mean = MU + PHI * (h[:-1] - MU)
    expected = [
        stats.norm.logpdf(MU, 0.0, 1.0),
        stats.beta.logpdf((PHI + 1) / 2, 20.0, 1.5) - np.log(2),
        stats.invgamma.logpdf(VARIANCE, 2.5, scale=0.025),
        stats.norm.logpdf(h[0], MU, (VARIANCE / (1 - PHI**2)) ** 0.5),
        stats.norm.logpdf(h[1:], mean, VARIANCE**0.5),
        stats.norm.logpdf(RETURNS, 0.0, np.exp(h / 2)),
    ]
    latents = {"mu": MU, "phi": PHI, "variance": VARIANCE, "h": h}
    density = float(target.log_density(latents))
    assert density == pytest.approx(sum(np.sum(x) for x in expected), rel=1e-12)


def test_the_data_are_two_years_of_working_days():
    days = np.array(DATA["date"], "datetime64[D]")
    assert len(days) == len(DATA["dollars"]) == len(RETURNS) + 1 == 512
    assert (np.diff(days) > np.timedelta64(0, "D")).all() and np.is_busday(days).all()
    assert abs(RETURNS.mean()) < 1e-14


def test_without_memory_the_likelihood_is_a_product():
    """phi = 0: each return has its own h, integrated by Gauss and Hermite's rule."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    sigma = 0.4
    densities = stats.norm.pdf(RETURNS[:, None], 0.0, np.exp((MU + sigma * x) / 2))
    expected = np.log(densities @ w / w.sum()).sum()
    found = float(jax.jit(log_likelihood)(RETURNS, MU, 0.0, sigma))
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("at", [(-0.7, 0.98, 0.13), (-0.2, 0.998, 0.05), (-1.0, 0.95, 0.3)])
def test_the_grid_of_the_path_has_converged(at):
    few = float(jax.jit(log_likelihood)(RETURNS, *at))
    many = float(log_likelihood(RETURNS, *at, low=-7.0, high=6.0, states=600))
    assert few == pytest.approx(many, rel=1e-9)


@pytest.mark.slow
def test_the_grid_of_the_parameters_has_converged():
    """Fewer nodes move means and standard deviations by less than 1e-2 standard deviations.

    The example's Monte Carlo errors are about 3e-2 of them, or more.
    """
    (few, log_few), (many, log_many) = exact(RETURNS, (17, 15, 9)), exact(RETURNS)
    assert log_few == pytest.approx(log_many, abs=1e-2)
    for name, (mean, sd) in many.items():
        assert few[name] == pytest.approx((mean, sd), abs=1e-2 * sd)


def test_the_move_of_the_path_has_the_jacobian_that_it_says():
    move = interweaved()
    x = {"mu": MU, "phi": PHI, "variance": VARIANCE, "h": path()}
    x, u = jax.tree.map(jnp.asarray, (x, {"by": np.array([0.1, -0.2])}))
    by_jax = log_det_of(replace(move, log_det=None), x, u)
    assert float(log_det_of(move, x, u)) == pytest.approx(float(by_jax), rel=1e-12)
    for there, here in zip(jax.tree.leaves(move.involution(*move.involution(x, u))),
                           jax.tree.leaves((x, u)), strict=True):  # fmt: skip
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-14)


def test_of_even_weights_repetitions_are_averaged():
    """The errors are those of the means over repetitions; of sd, a half of those of its square."""
    rng = np.random.default_rng(1)
    x = {name: rng.gamma(2.0, size=(5, 7)) for name in ("mu", "phi", "variance")}
    (mean, error), (sd, of_sd) = of_repetitions(x, np.full((5, 7), -900.0))["mu"]
    rows = x["mu"].mean(1)
    squares = ((x["mu"] - rows.mean()) ** 2).mean(1)
    assert mean == pytest.approx(rows.mean(), rel=1e-12)
    assert error == pytest.approx(rows.std(ddof=1) / 5**0.5, rel=1e-12)
    assert sd == pytest.approx(squares.mean() ** 0.5, rel=1e-12)
    assert of_sd == pytest.approx(squares.std(ddof=1) / 5**0.5 / (2 * sd), rel=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="takes minutes: GIRY_LONG=1")
def test_the_example_exits_0():
    """Its 38 distances pass 4 standard errors with probability 2.4e-3; the keys are fixed."""
    command = [sys.executable, "-m", "examples.volatility"]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
