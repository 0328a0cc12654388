"""Draws and weights of many particles, beside JAX's own samplers and hand-written densities.

    python -m benchmarks.importance [--quick] [--json]

Gammas and what is made of them: as many draws as JAX's sampler of the same law makes, each of a
parameter of its own. Importance sampling: particles from the prior with the log weight of the
data, written by hand with one density an array. Least time of interleaved repeats, in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import importance, unit
from ppl import Target, draw, gen, sample, seed

from .measure import Figure, best
from .report import report

JAX, HAND = "jax.random", "hand-written JAX"
KEY = jax.random.key(0)
GOAL, DRAWS_GOAL = 1.1, 0.6


def samplers(quick: bool) -> Iterator[Figure]:
    n = 10_000 if quick else 100_000
    a, b = jnp.linspace(0.1, 20.0, n), jnp.linspace(5.0, 0.2, n)
    shares = jnp.stack([a, b, a + b], axis=-1)
    laws: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "gamma": (dist.Gamma(a), lambda key: jax.random.gamma(key, a)),
        "beta": (dist.Beta(a, b), lambda key: jax.random.beta(key, a, b)),
        "Student's t": (dist.StudentT(a), lambda key: jax.random.t(key, a)),
        "Dirichlet of 3": (dist.Dirichlet(shares), lambda key: jax.random.dirichlet(key, shares)),
    }
    for name, (law, theirs) in laws.items():
        one, other = jax.jit(seed(lambda law=law: draw(law))), jax.jit(theirs)
        seconds = best(lambda f=one: f(KEY), lambda f=other: f(KEY))
        yield Figure(f"{n} of a {name}", JAX, "ms", *(1e3 * s for s in seconds), DRAWS_GOAL)


@gen
def coin(flips):
    share = sample("share", dist.Beta(2.0, 2.0))
    with_share = dist.Bernoulli(probs=jnp.full(flips.shape, share))
    sample("flips", with_share)


@gen
def line(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    noise = sample("noise", dist.HalfNormal(1.0))
    sample("y", dist.Normal(slope * x, noise))


def coin_by_hand(flips: Any, n: int) -> Callable[[Any], Any]:
    heads, tails = jnp.sum(flips), jnp.sum(1 - flips)

    def weights(key):
        share = jax.random.beta(key, 2.0, 2.0, (n,))
        return share, heads * jnp.log(share) + tails * jnp.log1p(-share)

    return weights


def line_by_hand(x: Any, y: Any, n: int) -> Callable[[Any], Any]:
    half_log_tau = 0.5 * math.log(2 * math.pi)

    def one(slope, noise):
        z = (y - slope * x) / noise
        return jnp.sum(-0.5 * z * z - jnp.log(noise) - half_log_tau)

    def weights(key):
        first, second = jax.random.split(key)
        slope = jax.random.normal(first, (n,))
        noise = jnp.abs(jax.random.normal(second, (n,)))
        return (slope, noise), jax.vmap(one)(slope, noise)

    return weights


def weights(quick: bool) -> Iterator[Figure]:
    n = 10_000 if quick else 100_000
    flips = jnp.arange(50) % 3 == 0
    x = jnp.linspace(-1.0, 1.0, 1000)
    y = 0.5 * x + 0.3 * jnp.sin(37.0 * x)
    cases = {
        "50 flips": (Target(coin, (flips,), {"flips": flips * 1}), coin_by_hand(flips, n)),
        "regression, 1000 rows": (Target(line, (x,), {"y": y}), line_by_hand(x, y, n)),
    }
    for name, (target, hand) in cases.items():

        def ours(t=target):
            weighted = importance(t, n)(unit())
            return [weighted.value[path] for path in t.latents], weighted.log_weight

        one, other = jax.jit(seed(ours)), jax.jit(hand)
        seconds = best(lambda f=one: f(KEY), lambda f=other: f(KEY))
        yield Figure(f"{n} particles, {name}", HAND, "ms", *(1e3 * s for s in seconds), GOAL)


if __name__ == "__main__":
    report("benchmarks.importance", __doc__, {"samplers": samplers, "weights": weights})
