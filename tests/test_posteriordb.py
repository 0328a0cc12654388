"""Real posteriors at default settings, beside the reference draws of posteriordb.

The bound is 4 combined standard errors, for the mean and the standard deviation of each of 22
scalars. Were the estimates normal with the standard errors that they state, a correct sampler
would fail with probability at most 44 * 6.4e-5 = 2.8e-3. The bound on R-hat is closer: `sigma`
of sblrc-blr has an effective size near 700 of 4000, where one key in five or so is above 1.01.
Keys are fixed: a run that passed fails again only if arithmetic or the sampler changed.
"""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from examples.posteriordb import FOLDER, REFERENCE, compare, met, target
from inference import Draws

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_example_exits_0():
    command = [sys.executable, "-m", "examples.posteriordb"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("; met") == len(REFERENCE)


def test_the_model_is_the_references():
    """With flat priors beta is Student-t around the least squares solution, exactly.

    The density of (beta, sigma) is that of the data alone. Integrating sigma out leaves
    nu = n - 3 degrees of freedom, so cov(beta) = RSS / (nu - 2) (X'X)^-1. The reference has
    4 scalars here; normal, they would fail with probability at most 4 * 6.4e-5 = 2.6e-4.
    """
    name = "earnings-logearn_height"
    data = json.loads((FOLDER / "earnings.json").read_text())
    x, y = np.array(data["height"], float), np.log(data["earn"])
    design = np.stack([np.ones_like(x), x], 1)
    beta, (rss,), _, _ = np.linalg.lstsq(design, y)
    density = target(name).log_density({"beta": jnp.asarray(beta), "sigma": 0.9})
    expected = stats.norm.logpdf(y, design @ beta, 0.9).sum()
    assert float(density) == pytest.approx(expected, rel=1e-12)  # a sum of 1192 terms of one sign
    sd = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * rss / (len(y) - 5))
    for i in range(2):
        reference = REFERENCE[name]["params"][f"beta[{i + 1}]"]
        assert abs(reference["mean"] - beta[i]) < 4 * reference["mcse_mean"]
        assert abs(reference["sd"] - sd[i]) < 4 * reference["mcse_sd"]


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.2, 1.0), (0.0, 1.2)])
def test_only_the_right_draws_meet_the_reference(shift, scale):
    """Normal draws of the reference's mean and sd do; 0.2 sd off or 1.2 times as wide do not.

    Both wrongs are 8 standard errors or more of 4000 independent draws. The false alarm of the
    right one is that of 6 normal values beyond 4.
    """
    name = "kidiq-kidscore_momhs"
    noise = np.random.default_rng(0).normal(shift, scale, (3, 4, 1000))
    of = REFERENCE[name]["params"]
    beta_1, beta_2, sigma = (
        p["mean"] + p["sd"] * z for p, z in zip(of.values(), noise, strict=True)
    )
    draws = Draws({"beta": np.stack([beta_1, beta_2], -1), "sigma": sigma})
    assert met(compare(name, draws)) == (shift == 0.0 and scale == 1.0)
