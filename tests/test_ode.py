"""The example of differential equations: its model is its reference's, and what the main shows."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

pytest.importorskip("diffrax")
from examples.ode import PELTS, log_density, moments, populations, solved, target

THETA, START = np.array([0.55, 0.028, 0.8, 0.024]), np.array([34.0, 5.9])
SIGMA = np.array([0.25, 0.3])


def slope(_, z):
    return (THETA[0] - THETA[1] * z[1]) * z[0], (THETA[3] * z[0] - THETA[2]) * z[1]


def test_both_solvers_follow_the_equations():
    """Against scipy's of order 8 at 1e-10: 20 years at 1e-5 a step, and h^4 of 1/50."""
    years = np.arange(float(len(PELTS)))
    exact = integrate.solve_ivp(
        slope, (0, years[-1]), START, "DOP853", years, rtol=1e-10, atol=1e-10
    ).y.T
    ours = solved(jnp.asarray(THETA), jnp.asarray(START), len(PELTS))
    theirs = populations(THETA[:, None], START[:, None])[0]
    np.testing.assert_allclose(ours, exact, rtol=1e-3)
    np.testing.assert_allclose(theirs, exact, rtol=1e-6)


@pytest.mark.slow
def test_the_model_is_the_references():
    """Both densities differ by one constant everywhere, the Jacobian of logarithms included."""
    density = jax.jit(target().log_density)
    apart = []
    for k in range(4):
        x = np.concatenate([THETA, START, SIGMA]) * np.exp(0.05 * np.sin(k * np.arange(1.0, 9.0)))
        ours = density({"theta": x[:4], "z_init": x[4:6], "sigma": x[6:]})
        apart.append(float(ours) + np.log(x).sum() - log_density(np.log(x)[None])[0])
    # residuals of the logarithms, of size 1 / sigma, times the error of the solver
    np.testing.assert_allclose(apart, apart[0], atol=2e-2)


def test_weighted_moments_are_those_of_the_weights():
    rows = np.stack([np.full(8, value) for value in (0.0, 3.0)])
    mean, sd, error, _ = moments(rows, np.array([0.75, 0.25]))["theta[1]"]
    assert (mean, sd) == (0.75, pytest.approx(np.sqrt(27 / 16), rel=1e-14))
    assert error == pytest.approx(np.hypot(0.75 * 0.75, 0.25 * 2.25), rel=1e-14)


@pytest.mark.slow
def test_the_example_exits_0():
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "examples.ode"]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 divergences" in run.stdout and "; met" in run.stdout
