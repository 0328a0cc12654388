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
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from examples.posteriordb import FOLDER, REFERENCE, compare, met, target
from inference import Draws, read_posteriordb
from ppl import errors

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
    data = read_posteriordb(FOLDER, name).data
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


# -- reading -------------------------------------------------------------------------------------


CHAINS = [
    {"mu": [c + 0.5, c + 1.5], "L[1,1]": [1, 2], "L[2,1]": [3 * c, 4], "L[1,2]": [0, 0],
     "L[2,2]": [5, 6 + c]}
    for c in range(3)
]  # fmt: skip
FILES = {
    "posteriors/toy-model": {"data_name": "toy", "reference_posterior_name": "toy-model"},
    "posteriors/bare": {"data_name": "toy", "reference_posterior_name": None},
    "data/data/toy": {"N": 2, "x": [[1, 2], [3, 4.5]], "y": [1, 0], "ragged": [[1], [2, 3]]},
    "reference_posteriors/draws/draws/toy-model": CHAINS,
}


def written(folder, files, zipped):
    """A copy of posteriordb, with its files in archives or as they are."""
    for place, content in files.items():
        path = folder / f"{place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        if zipped and not place.startswith("posteriors"):
            with zipfile.ZipFile(f"{path}.zip", "w") as archive:
                archive.writestr(path.name, text)
        else:
            path.write_text(text)


@pytest.mark.parametrize("zipped", [True, False])
def test_data_and_reference_draws_are_read(tmp_path, zipped):
    written(tmp_path / "posterior_database", FILES, zipped)
    found = read_posteriordb(tmp_path, "toy-model")
    assert found.data["N"] == 2 and found.data["x"].tolist() == [[1.0, 2.0], [3.0, 4.5]]
    assert found.data["y"].dtype.kind == "i" and found.data["ragged"] == [[1], [2, 3]]
    assert found.draws["mu"].tolist() == [[0.5, 1.5], [1.5, 2.5], [2.5, 3.5]]
    assert found.draws["L"].shape == (3, 2, 2, 2)
    assert found.draws["L"][2, 1].tolist() == [[2.0, 0.0], [4.0, 8.0]]
    assert found.draws["L"][1, 0].tolist() == [[1.0, 0.0], [3.0, 5.0]]  # L[2,1] of chain 1, first


WRONG = {
    "unknown": ("toy-modle", {}, 'did you mean "toy-model"'),
    "no data": ("toy-model", {"data/data/toy": "{"}, "The data of toy-model cannot be read"),
    "no draws": ("bare", {}, "has no reference draws"),
    "in part": (
        "toy-model",
        {"reference_posteriors/draws/draws/toy-model": [{"L[1]": [1.0], "L[3]": [2.0]}]},
        "L has not all of its elements",
    ),
    "unequal": (
        "toy-model",
        {"reference_posteriors/draws/draws/toy-model": [{"mu": [1.0]}, {"mu": [1.0, 2.0]}]},
        "as many numbers in each chain",
    ),
    "other names": (
        "toy-model",
        {"reference_posteriors/draws/draws/toy-model": [{"mu": [1.0]}, {"nu": [1.0]}]},
        "no chains that have the same names",
    ),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("name", "files", "told"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_is_told(tmp_path, zipped, name, files, told):
    written(tmp_path, {**FILES, **files}, zipped)
    with pytest.raises(errors.InvalidArgument) as found:
        _ = read_posteriordb(tmp_path, name).draws
    assert told in str(found.value) and "fix:" in str(found.value)


def test_a_folder_that_is_none_is_told(tmp_path):
    for folder, name in ((tmp_path / "nowhere", "toy"), (3, "toy"), (tmp_path, 3)):
        with pytest.raises(errors.InvalidArgument):
            read_posteriordb(folder, name)
