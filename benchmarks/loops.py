"""Densities of series whose choices are in a loop, beside the same written by hand.

    python -m benchmarks.loops [--quick] [--json]

A GARCH(1, 1) and an ARMA(1, 1) model of posteriordb, with a choice in each step of `lax.scan`.
By hand the loop puts out variances or errors, and one normal density is taken of all of them.
Value and gradient, in 64 bits, least time of interleaved repeats; first calls by processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ppl import Target, gen, sample

from .measure import Figure, best
from .report import report

HAND = "hand-written JAX"
GOAL = 1.15


@gen(static_argnames=("length",))
def garch(first, length):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    base = sample("base", dist.HalfNormal(1.0))
    moved = sample("moved", dist.Uniform(0.0, 1.0))
    kept = sample("kept", dist.Uniform(0.0, 1.0))

    def step(variance, _):
        y = sample("y", dist.Normal(mu, jnp.sqrt(variance)))
        return base + moved * (y - mu) ** 2 + kept * variance, None

    lax.scan(step, first, None, length=length)


def garch_by_hand(v: dict, y: Any, first: Any) -> Any:
    def step(variance, y):
        return v["base"] + v["moved"] * (y - v["mu"]) ** 2 + v["kept"] * variance, variance

    variances = lax.scan(step, first, y)[1]
    prior = normal(v["mu"], 1.0) + jnp.log(2.0) + normal(v["base"], 1.0)
    return jnp.sum(normal(y - v["mu"], jnp.sqrt(variances))) + prior


@gen(static_argnames=("length",))
def arma(first, length):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    phi = sample("phi", dist.Normal(0.0, 1.0))
    theta = sample("theta", dist.Normal(0.0, 1.0))
    sigma = sample("sigma", dist.HalfNormal(1.0))

    def step(carry, _):
        before, error = carry
        expected = mu + phi * before + theta * error
        y = sample("y", dist.Normal(expected, sigma))
        return (y, y - expected), None

    lax.scan(step, (first, first), None, length=length)


def arma_by_hand(v: dict, y: Any, first: Any) -> Any:
    def step(carry, y):
        before, error = carry
        error = y - (v["mu"] + v["phi"] * before + v["theta"] * error)
        return (y, error), error

    errors = lax.scan(step, (first, first), y)[1]
    prior = sum(normal(v[name], 1.0) for name in ("mu", "phi", "theta", "sigma")) + jnp.log(2.0)
    return jnp.sum(normal(errors, v["sigma"])) + prior


def normal(x: Any, scale: Any) -> Any:
    return -0.5 * (x / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


MODELS: dict[str, tuple[Any, Callable, dict]] = {
    "GARCH": (garch, garch_by_hand, {"mu": 0.1, "base": 0.5, "moved": 0.2, "kept": 0.3}),
    "ARMA": (arma, arma_by_hand, {"mu": 0.1, "phi": 0.5, "theta": 0.2, "sigma": 1.1}),
}


def gradients(quick: bool) -> Iterator[Figure]:
    for name, (model, by_hand, at) in MODELS.items():
        values = {key: jnp.asarray(x) for key, x in at.items()}
        for length in (1000,) if quick else (200, 1000, 10_000):
            y = jnp.asarray(np.random.default_rng(0).normal(size=length))
            first = jnp.asarray(1.0)
            target = Target(model, (first, length), {"y": y})
            ours = jax.jit(jax.value_and_grad(target.log_density))
            hand = jax.jit(jax.value_and_grad(lambda v, y=y, f=by_hand: f(v, y, jnp.asarray(1.0))))
            spent = []
            for run in (ours, hand):
                start = time.process_time()
                jax.block_until_ready(run(values))
                spent.append(time.process_time() - start)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), ours(values), hand(values)
            )
            mine, theirs = best(lambda: ours(values), lambda: hand(values), repeats=60, seconds=4.0)  # noqa: B023
            title = f"{name}, {length} steps"
            yield Figure(f"{title}: gradient", HAND, "us", 1e6 * mine, 1e6 * theirs, GOAL)
            yield Figure(f"{title}: first call", HAND, "CPU s", *spent)


def main(argv: list[str] | None = None) -> None:
    jax.config.update("jax_enable_x64", True)
    report("benchmarks.loops", __doc__, {"gradients": gradients}, argv)


if __name__ == "__main__":
    main()
