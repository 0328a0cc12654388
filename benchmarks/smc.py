"""Particle filters and resampling against hand-written JAX and peers.

    python -m benchmarks.smc [--quick] [--json] [--particles PYTHON]

A linear-Gaussian state-space model of T = 1000 steps; systematic resampling when the
effective number of particles is below n / 2, in every program. The hand-written filter is one
`lax.scan` over (states, log weights) with the densities written out; BlackJAX has no filter but a
general step, which always resamples. The package `particles` runs NumPy on one core, in an
interpreter of its own. What each computes is checked first: log evidence against Kalman's, to
what n particles can know. Tempered sequential Monte Carlo is in `annealing`.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from blackjax.smc import base, resampling
from jax import lax

from inference import log_evidence, particle_filter, systematic
from inference.smc.schemes import cumulated_offspring
from ppl import gen, sample, seed

from . import annealing
from .measure import Figure, medians

PHI, Q, R = 0.95, 0.3, 0.5
KEY = jax.random.key(0)
HAND, BLACKJAX = "hand-written JAX", "BlackJAX"
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@gen
def linear(z, _):
    z = sample("z", dist.Normal(PHI * z, Q))
    sample("y", dist.Normal(z, R))
    return z, None


def series(steps: int) -> np.ndarray:
    random = np.random.default_rng(0)
    z, ys = 0.0, []
    for _ in range(steps):
        z = PHI * z + Q * random.normal()
        ys.append(z + R * random.normal())
    return np.array(ys)


def kalman(ys: np.ndarray) -> float:
    mean, variance, total = 0.0, 0.0, 0.0
    for y in ys:
        mean, variance = PHI * mean, PHI**2 * variance + Q**2
        seen = variance + R**2
        total -= 0.5 * ((y - mean) ** 2 / seen + math.log(2 * math.pi * seen))
        gain = variance / seen
        mean, variance = mean + gain * (y - mean), (1 - gain) * variance
    return total


def ours(n: int, threshold: float = 0.5) -> Callable:
    def run(ys: Any) -> Any:
        return log_evidence(
            particle_filter(linear, 0.0, {"y": ys}, n, threshold=threshold).particles
        )

    return seed(run)


def by_hand(n: int) -> Callable:
    """The same algorithm, written for this model."""

    def resampled(key: Any, z: Any, w: Any) -> Any:
        ends = jnp.clip(jnp.ceil(jnp.cumsum(w) * n - jax.random.uniform(key)), 0, n).astype(int)
        ends = ends.at[-1].set(n)
        starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
        slots = jnp.where(ends > starts, starts, n)
        first = jnp.zeros(n, ends.dtype).at[slots].max(jnp.arange(n), mode="drop")
        return z[lax.cummax(first)]

    def step(carry: Any, y: Any) -> Any:
        key, z, log_w, total = carry
        key, of_resampling, of_noise = jax.random.split(key, 3)
        w = jax.nn.softmax(log_w)
        few = 1 / (w**2).sum() < 0.5 * n
        z = lax.cond(few, lambda: resampled(of_resampling, z, w), lambda: z)
        log_w = jnp.where(few, 0.0, log_w)
        z = PHI * z + Q * jax.random.normal(of_noise, (n,))
        log_w = log_w - 0.5 * ((y - z) / R) ** 2 - (HALF_LOG_TAU + math.log(R))
        mean = jax.nn.logsumexp(log_w) - math.log(n)
        return (key, z, log_w - mean, total + mean), None

    def run(key: Any, ys: Any) -> Any:
        start = key, jnp.zeros(n), jnp.zeros(n), jnp.zeros(())
        return lax.scan(step, start, ys)[0][3]

    return run


def of_blackjax(n: int) -> Callable:
    """By the general step of BlackJAX, which resamples at every step."""

    def run(key: Any, ys: Any) -> Any:
        def step(state: Any, row: Any) -> Any:
            key, y = row

            def update(keys: Any, z: Any, _: Any) -> Any:
                return PHI * z + Q * jax.vmap(jax.random.normal)(keys), None

            def weigh(z: Any) -> Any:
                return -0.5 * ((y - z) / R) ** 2 - (HALF_LOG_TAU + math.log(R))

            state, info = base.step(key, state, update, weigh, resampling.systematic)
            return state, info.log_likelihood_increment

        start = base.init(jnp.zeros(n), {})
        return lax.scan(step, start, (jax.random.split(key, len(ys)), ys))[1].sum()

    return run


def of_particles(python: str, ys: np.ndarray, n: int) -> tuple[float, float]:
    """The log evidence and the seconds of the package `particles`, by its own interpreter."""
    script = Path(__file__).with_name("particles_filter.py")
    command = [python, str(script), str(n)]
    done = subprocess.run(command, input=json.dumps(ys.tolist()), text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout)
    return found["log_evidence"], found["seconds"]


def taken(run: Callable, *args: Any) -> float:
    """Bytes that a compiled program takes beside its arguments and its result."""
    memory: Any = jax.jit(run).lower(*args).compile().memory_analysis()
    return memory.temp_size_in_bytes


def filters(steps: int, sizes: tuple[int, ...], python: str | None) -> Iterator[Figure]:
    ys = series(steps)
    exact, given = kalman(ys), jnp.asarray(ys, jnp.float32)
    for n in sizes:
        programs = ours(n), by_hand(n), ours(n, threshold=1.0), of_blackjax(n)
        runs = [partial(jax.jit(program), KEY, given) for program in programs]
        # the log evidence of T steps has a variance of about T / n
        bound = 6 * math.sqrt(steps / n) + 1e-3 * steps
        for run in runs:
            assert abs(float(run()) - exact) < bound
        a, b, c, d = (1e3 * each for each in medians(*runs, seconds=20.0))
        name = f"bootstrap filter, {steps} steps, {n} particles"
        yield Figure(name, HAND, "ms", a, b, 1.05)
        yield Figure(f"{name}, always resampled", BLACKJAX, "ms", c, d, 1.0)
        if python is not None:
            found, seconds = of_particles(python, ys, n)
            assert abs(found - exact) < bound
            yield Figure(name, "particles", "ms", a, 1e3 * seconds, 1.0)
        memory = [taken(program, KEY, given) / n for program in programs[:2]]
        yield Figure(f"memory of a {name}", HAND, "bytes a particle", *memory)


def one_resampling(n: int) -> Iterator[Figure]:
    """One resampling, as a ratio to one pass of `cumsum` over the weights."""
    weights = jax.nn.softmax(jax.random.normal(KEY, (n,), jnp.float32))
    pick, pass_ = jax.jit(seed(systematic)), jax.jit(jnp.cumsum)
    offspring = jax.jit(cumulated_offspring)
    a, b, c = medians(
        lambda: pick(KEY, weights), lambda: pass_(weights), lambda: offspring(weights), seconds=3.0
    )
    yield Figure(f"systematic resampling of {n}", "cumsum", "ms", 1e3 * a, 1e3 * b)
    yield Figure(f"cumulated offspring of {n}", "cumsum", "ms", 1e3 * c, 1e3 * b)


def figures(quick: bool, python: str | None) -> Iterator[Figure]:
    sizes = (1000,) if quick else (1000, 10_000, 100_000)
    yield from filters(100 if quick else 1000, sizes, python)
    yield from annealing.figures(quick)
    yield from one_resampling(10_000 if quick else 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="smaller, for a look")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--particles", metavar="PYTHON", help="an interpreter that has `particles`")
    options = parser.parse_args()
    for figure in figures(options.quick, options.particles):
        if options.json:
            print(json.dumps(figure.row()), flush=True)
        else:
            ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
            print(
                f"{figure.name:55} {figure.against:18} {figure.unit:3} "
                f"{figure.ours:10.4g} {figure.theirs or math.nan:10.4g} {ratio}"
                + (f"  goal {figure.goal}" if figure.missed else "")
            )


if __name__ == "__main__":
    main()
