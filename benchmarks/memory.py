"""Peaks of memory: large predictions, likelihoods and runs, against their results.

    python -m benchmarks.memory [--quick] [--json]

Each is made in a process of its own, which first makes a small one of the same kind. What it then
takes more at its peak (`ru_maxrss`), beside what it holds at that time, is compared with the bytes
of the result. With a file (`to=`) nothing of the result is in memory, and the peak is compared with
it all the same. A plate is run at 10,000 and at 100,000 elements: ten times the peak is linear.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from inference import (
    Draws,
    log_likelihood,
    nuts,
    posterior_predictive,
    random_walk,
    sample_posterior,
)
from ppl import Target, gen, sample

from .measure import Figure
from .report import report

KEY = jax.random.key(0)
MIB = 2.0**20


@gen
def line(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(slope * x, 1.0))


@gen(static_argnames="n")
def plate(n):
    mu = sample("mu", dist.Normal(0.0, 1.0))

    def one(y):
        z = sample("z", dist.Normal(mu, 1.0))
        sample("y", dist.Normal(z, 1.0))

    jax.vmap(one)(jnp.zeros(n))


def lines(draws: int, elements: int) -> Draws:
    target = Target(line, (jnp.linspace(0.0, 1.0, elements),), {"y": jnp.zeros(elements)})
    slope = np.random.default_rng(0).normal(size=(4, draws // 4)).astype(np.float32)
    return Draws({"slope": slope}, target=target)


def predictions(draws: int, elements: int) -> int:
    return posterior_predictive(KEY, lines(draws, elements))["y"].nbytes


def likelihoods(draws: int, elements: int) -> int:
    return log_likelihood(lines(draws, elements))["y"].nbytes


def to_file(draws: int, elements: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = posterior_predictive(KEY, lines(draws, elements), to=f"{folder}/new.nc")
        return Path(path).stat().st_size


def run(draws: int, elements: int) -> int:
    flat = gen(lambda: sample("x", dist.Normal(jnp.zeros(elements), 1.0)))
    target = Target(flat)
    kernel = random_walk(target)
    found = sample_posterior(KEY, target, kernel, draws=draws // 4, warmup=0, progress=False)
    return sum(x.nbytes for x in (found["x"], *found.stats.values()))


def plates(draws: int, elements: int) -> int:
    target = Target(plate, (elements,), {"y": jnp.zeros(elements)})
    kernel = nuts(target, max_depth=3)
    found = sample_posterior(KEY, target, kernel, draws=draws, warmup=10, chains=1, progress=False)
    return found["z"].nbytes


KINDS: dict[str, Callable[[int, int], int]] = {
    f.__name__: f for f in (predictions, likelihoods, to_file, run, plates)
}


def child(kind: str, draws: int, elements: int) -> None:
    """Print the bytes of the result, and what its making took at the peak, as JSON."""
    KINDS[kind](40, 50)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * os.sysconf("SC_PAGE_SIZE")
    size = KINDS[kind](draws, elements)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"result": size, "peak": peak - before}))


def peak(kind: str, draws: int, elements: int) -> tuple[float, float]:
    """MiB of the result, and of the peak, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory",
        "--child",
        kind,
        str(draws),
        str(elements),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(made.stdout.splitlines()[-1])
    return found["result"] / MIB, found["peak"] / MIB


def results(quick: bool) -> Iterator[Figure]:
    draws, elements = (4_000, 10_000) if quick else (4_000, 50_000)
    goal = None if quick else 1.1
    for kind in ("predictions", "likelihoods", "run", "to_file"):
        result, most = peak(kind, draws, elements)
        name = f"{kind.replace('_', ' ')}, {draws} x {elements}"
        against = "the file" if kind == "to_file" else "the result"
        yield Figure(
            name, against, "MiB at the peak", most, result, None if kind == "run" else goal
        )


def linear(quick: bool) -> Iterator[Figure]:
    few, many = (3_000, 30_000) if quick else (10_000, 100_000)
    (_, small), (_, large) = (peak("plates", 100, n) for n in (few, many))
    yield Figure(f"nuts on a plate of {many}", f"of {few}", "MiB at the peak", large, small, 12.0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--child", nargs=3)
    known, rest = parser.parse_known_args(argv)
    if known.child:
        kind, draws, elements = known.child
        return child(kind, int(draws), int(elements))
    return report("benchmarks.memory", __doc__, {"results": results, "linear": linear}, rest)


if __name__ == "__main__":
    main()
