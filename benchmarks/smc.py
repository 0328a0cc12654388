"""Particle filters and resampling against hand-written JAX and peers.

    python -m benchmarks.smc [--quick] [--json]

A linear-Gaussian state-space model of T = 1000 steps; systematic resampling when the
effective number of particles is below n / 2, in every program. The hand-written filter is one
`lax.scan` over (states, log weights) with the densities written out. The package
`particles`, if it is installed, runs NumPy on one core. What each computes is checked first:
log evidence against Kalman's, to what n particles can know.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from inference import log_evidence, particle_filter, systematic
from inference.schemes import cumulated_offspring
from ppl import gen, sample, seed

from .measure import Figure, medians

PHI, Q, R = 0.95, 0.3, 0.5
KEY = jax.random.key(0)
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


def ours(n: int) -> Callable:
    return seed(lambda ys: log_evidence(particle_filter(linear, 0.0, {"y": ys}, n).particles))


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


def of_particles(ys: np.ndarray, n: int) -> Callable[[], float] | None:
    """The bootstrap filter of the package `particles`, or None where it is not installed."""
    try:
        import particles
        from particles import distributions as laws
        from particles import state_space_models as models
    except ImportError:
        return None

    class Linear(models.StateSpaceModel):
        def PX0(self):
            return laws.Normal(scale=Q)

        def PX(self, t, xp):
            return laws.Normal(loc=PHI * xp, scale=Q)

        def PY(self, t, xp, x):
            return laws.Normal(loc=x, scale=R)

    def run() -> float:
        feynman_kac = models.Bootstrap(ssm=Linear(), data=ys)
        filtering = particles.SMC(fk=feynman_kac, N=n, resampling="systematic", ESSrmin=0.5)
        filtering.run()
        return float(filtering.logLt)

    return run


def filters(steps: int, sizes: tuple[int, ...]) -> Iterator[Figure]:
    ys = series(steps)
    exact, given = kalman(ys), jnp.asarray(ys, jnp.float32)
    for n in sizes:
        mine, hand = jax.jit(ours(n)), jax.jit(by_hand(n))
        # the log evidence of T steps has a variance of about T / n
        for run in (mine, hand):
            assert abs(float(run(KEY, given)) - exact) < 6 * math.sqrt(steps / n) + 1e-3 * steps
        a, b = medians(partial(mine, KEY, given), partial(hand, KEY, given), seconds=6.0)
        name = f"bootstrap filter, {steps} steps, {n} particles"
        yield Figure(name, "hand-written JAX", "ms", 1e3 * a, 1e3 * b, 1.05)
        peer = of_particles(ys, n)
        if peer is not None and n <= 10_000:
            start = time.perf_counter()
            peer()
            yield Figure(name, "particles", "ms", 1e3 * a, 1e3 * (time.perf_counter() - start), 1.0)


def resampling(n: int) -> Iterator[Figure]:
    """One resampling, as a ratio to one pass of `cumsum` over the weights."""
    weights = jax.nn.softmax(jax.random.normal(KEY, (n,), jnp.float32))
    pick, pass_ = jax.jit(seed(systematic)), jax.jit(jnp.cumsum)
    offspring = jax.jit(cumulated_offspring)
    a, b, c = medians(
        lambda: pick(KEY, weights), lambda: pass_(weights), lambda: offspring(weights), seconds=3.0
    )
    yield Figure(f"systematic resampling of {n}", "cumsum", "ms", 1e3 * a, 1e3 * b)
    yield Figure(f"cumulated offspring of {n}", "cumsum", "ms", 1e3 * c, 1e3 * b)


def figures(quick: bool) -> Iterator[Figure]:
    yield from filters(100 if quick else 1000, (1000,) if quick else (1000, 10_000, 100_000))
    yield from resampling(10_000 if quick else 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="smaller, for a look")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    for figure in figures(options.quick):
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
