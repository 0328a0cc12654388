"""Results in chunks: the same bits as at once, on the host or in a file; and peaks of memory."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray

from inference import Draws, log_likelihood, posterior_predictive, prior_predictive
from inference.results import each_draw
from ppl import Target, errors, gen, sample
from ppl.addresses import flatten

KEY = jax.random.key(3)
ROOT = Path(__file__).parent.parent


@gen
def mixed(x):
    """Products of matrices, counts, flags and a nested address."""
    w = sample("w", dist.Normal(jnp.zeros(3), 1.0))
    sample("y", dist.Normal(x @ w, 1.0))
    sample("sub", inner(w))
    sample("flag", dist.Bernoulli(0.5))


@gen
def inner(w):
    sample("count", dist.Poisson(jnp.exp(w)))


RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(7, 3))
TARGET = Target(
    mixed, (X,), {"y": np.zeros(7), "sub": {"count": np.array([0, 1, 2])}, "flag": 1},
    dims={"y": ("row",), "sub": {"count": ("what",)}}, coords={"row": list("abcdefg")},
)  # fmt: skip
DRAWS = Draws({"w": RANDOM.normal(size=(3, 7, 3))}, target=TARGET)
MAKES = {
    "posterior_predictive": lambda **more: posterior_predictive(KEY, DRAWS, **more),
    "log_likelihood": lambda **more: log_likelihood(DRAWS, **more),
    "prior": lambda **more: prior_predictive(KEY, TARGET, 21, **more),
}


def same(one, other):
    one, other = flatten(one), flatten(other)
    assert one.keys() == other.keys()
    for path, x in one.items():
        assert x.dtype == other[path].dtype and x.tobytes() == other[path].tobytes(), path


@pytest.mark.parametrize("group", MAKES)
def test_chunks_have_the_bits_of_one_and_go_to_a_file(group, monkeypatch, tmp_path):
    """21 draws in chunks of 5 and of 4, the last of which goes over draws that were made."""
    whole = MAKES[group]()
    seen = []
    programs = each_draw._programs
    monkeypatch.setattr(each_draw, "_CHUNK_BYTES", 1)

    def counted(*args):
        batches, one = programs(*args)
        return (lambda data, rows: seen.append(len(rows[0])) or batches(data, rows)), one

    monkeypatch.setattr(each_draw, "_programs", counted)
    same(MAKES[group](batch=5), whole)
    assert seen == [5] * 5
    path = MAKES[group](batch=4, to=tmp_path / "made.nc")
    assert path == tmp_path / "made.nc" and [p.name for p in tmp_path.iterdir()] == ["made.nc"]
    with xarray.open_dataset(path, group=group, engine="h5netcdf") as made:
        found = {tuple(name.split(".")): made[name].values for name in made.data_vars}
        same({".".join(p): x for p, x in found.items()},
             {".".join(p): x for p, x in flatten(whole).items()})  # fmt: skip
        assert made["y"].dims == ("chain", "draw", "row")
        assert made["row"].values.tolist() == list("abcdefg")
        assert made["sub.count"].dims == ("chain", "draw", "what")


def test_forecasts_go_to_a_file_too_and_faults_leave_none(tmp_path):
    @gen(static_argnames="n")
    def walk(n):
        s = sample("s", dist.HalfNormal(1.0))
        jax.lax.scan(lambda z, _: (sample("y", dist.Normal(z, s)), None), 0.0, None, length=n)

    target = Target(walk, (2,), {"y": jnp.array([6.0, 8.0])})
    draws = Draws({"s": np.full((2, 3), 0.5)}, target=target)
    whole = posterior_predictive(KEY, draws, args=(4,))["y"]
    path = posterior_predictive(KEY, draws, args=(4,), to=str(tmp_path / "ahead.nc"))
    with xarray.open_dataset(path, group="posterior_predictive", engine="h5netcdf") as made:
        assert list(made.data_vars) == ["y"] and (made["y"].values == whole).all()
        assert (made["y"].values[..., :2] == [6.0, 8.0]).all()
    path.unlink()
    for to in ("ahead.csv", tmp_path / "nowhere" / "a.nc", 3):
        with pytest.raises(errors.InvalidArgument, match="netCDF"):
            posterior_predictive(KEY, draws, to=to)
    with pytest.raises(errors.ShapeError):
        posterior_predictive(KEY, draws, args=(1,), past="kept", to=tmp_path / "ahead.nc")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_peaks_are_little_more_than_the_results():
    """4,000 x 10,000 in single precision are 153 MiB; once more of them would be too much.

    Beside the result are chunks of 8 MiB, their batches, and what the allocator keeps: less than
    64 MiB, at five times the size too; a run has a buffer of 64 MiB on the device besides.
    """
    command = [sys.executable, "-m", "benchmarks.memory", "--quick", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = {row["name"].split(",")[0]: row for row in map(json.loads, run.stdout.splitlines())}
    beside = {name: rows[name]["ours"] - rows[name]["theirs"] for name in rows}
    assert beside["predictions"] < 64 and beside["likelihoods"] < 64, rows
    assert beside["run"] < 128, rows
    assert rows["to file"]["ours"] < 64, rows
    assert rows["nuts on a plate of 30000"]["ratio"] < 12, rows
