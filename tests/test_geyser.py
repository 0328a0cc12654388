"""The example of Gibbs and Hamiltonian moves: two models of one law, and what the main shows."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from examples.geyser import KIND, WAITING, given_parameters, reference, target
from inference.targets.plates import Plate

PARAMETERS = {"long": 0.6, "mean": 55.0, "longer": 25.0, "spread": np.array([6.0, 5.5])}


@pytest.mark.parametrize("kinds", [jnp.zeros_like, lambda w: w > 70, lambda w: w % 2])
def test_the_reference_sums_the_kinds_out(kinds):
    """p(minutes, parameters) = p(minutes, parameters, kinds) / p(kinds | minutes, parameters).

    Whatever the kinds. Both sides are sums of 272 terms, of a size below 1e4 together.
    """
    kinds = kinds(WAITING).astype(int)
    joint = target.log_density({**PARAMETERS, "wait": {"kind": kinds}})
    given = stats.bernoulli.logpmf(kinds, given_parameters(PARAMETERS)).sum()
    assert float(reference.log_density(PARAMETERS)) == pytest.approx(float(joint - given), rel=1e-9)


def test_all_kinds_are_drawn_at_once():
    assert Plate.of(target, KIND).size == len(WAITING)


@pytest.mark.slow
def test_the_example_exits_0():
    """Its 16 distances pass 4 standard errors with probability 1e-3; the keys are fixed."""
    command = [sys.executable, "-m", "examples.geyser"]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
