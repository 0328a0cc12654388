"""Variance times cost of gradients, and how the variance falls with independent elements.

Variances are exact, sums over all paths of the estimator, or known to what 10^4 samples tell.
Costs are the FLOPs of the compiled gradient. The plain score function multiplies the whole bound
by the score of all choices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from inference import elbo
from ppl import (
    Target,
    draw,
    enumerate_,
    expectation,
    gen,
    integrate,
    reinforce,
    sample,
    seed,
)

from ..measure import Figure, flops

KEY = jax.random.key(0)
CHOICES, WIDE, PIXELS = 5, 256, 64
PLAIN = "plain score function"
PROTOTYPE = 98.0
"""What the goals are of: the plain score function's variance times cost."""


def problem() -> tuple[Target, Any, dict]:
    """A chain of binary choices that make an image, a guide, and the guide's parameters."""
    random = np.random.default_rng(0)
    code = jnp.asarray(random.normal(size=(CHOICES, WIDE)))
    pixels = jnp.asarray(random.normal(size=(WIDE, PIXELS)) / WIDE**0.5)
    x = jnp.asarray(random.random(PIXELS) < 0.5, int)

    @gen
    def model():
        z = jnp.stack([sample(f"z{t}", dist.Bernoulli(0.5)) for t in range(CHOICES)])
        sample("x", dist.Bernoulli(logits=jnp.tanh(z @ code) @ pixels).to_event(1))

    @gen
    def guide(p):
        z = jnp.zeros(())
        for t in range(CHOICES):
            z = sample(f"z{t}", dist.Bernoulli(logits=p["odds"][t] + p["after"] * z))

    start = {"odds": jnp.linspace(-0.5, 0.5, CHOICES), "after": jnp.ones(())}
    return Target(model, (), {"x": x}), guide, start


def plain(target: Target, guide: Any) -> Callable:
    """The gradient of the guide's log density times the whole bound, and of the bound itself."""

    def slope(p):
        choices = jax.lax.stop_gradient(guide.simulate(p).choices)

        def surrogate(p):
            score = guide.assess(choices, p)[0]
            value = target.log_density(choices) - score
            return jax.lax.stop_gradient(value) * score + value

        return jax.grad(surrogate)(p)

    return slope


def variance(slope: Callable, p: Any) -> float:
    """Of all components together, exactly."""

    def moments(p):
        gradient = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(slope(p))])
        return gradient, gradient**2

    mean, square = jax.jit(integrate(moments))(p)
    return float(jnp.sum(square - mean**2))


def of_chain() -> Iterator[Figure]:
    target, guide, p = problem()
    bound = elbo(target, guide)
    two, all_ = range(2), range(CHOICES)
    slopes = {
        "default": jax.grad(expectation(bound)),
        "two enumerated": jax.grad(expectation(bound, {f"z{t}": enumerate_() for t in two})),
        "score function": jax.grad(expectation(bound, {f"z{t}": reinforce() for t in all_})),
    }
    base = plain(target, guide)
    unit = variance(base, p) * flops(seed(base), KEY, p)
    goals = {"default": 4.1 / PROTOTYPE, "two enumerated": 6.2 / PROTOTYPE}
    for name, slope in slopes.items():
        found = variance(slope, p) * flops(seed(slope), KEY, p)
        title = f"five binary choices, {name}"
        yield Figure(title, PLAIN, "variance x FLOPs", found, unit, goals.get(name))


def of_elements(quick: bool) -> Iterator[Figure]:
    """The variance of the gradient of a mean over n elements, times n, beside that of one."""
    kinds = {
        "score function": lambda p, n: draw(dist.Bernoulli(p).expand([n]), reinforce()),
        "pathwise": lambda p, n: draw(dist.Normal(p, 1.0).expand([n])),
    }
    for kind, made in kinds.items():

        def slope(p, n, made=made):
            return jax.grad(expectation(lambda p: jnp.mean(jnp.sin(made(p, n)))))(p)

        nodes = {"nodes": 64} if kind == "pathwise" else {}
        first, second = integrate(lambda p: (slope(p, 1), slope(p, 1) ** 2), **nodes)(0.3)
        one = float(second - first**2)
        for n in (8, 64) if quick else (8, 64, 512):
            keys = jax.random.split(KEY, 10_000)
            estimate = seed(partial(slope, 0.3, n))
            values = jax.jit(jax.vmap(estimate))(keys)
            # a variance of 10^4 numbers that are nearly normal is known to 1.4 %
            found = n * float(np.var(np.asarray(values, float)))
            name = f"mean of {n} elements, {kind}"
            yield Figure(name, "one element", "variance x n", found, one, 1.06)


def figures(quick: bool, peers: bool) -> Iterator[Figure]:
    del peers
    with jax.enable_x64(True):
        yield from of_chain()
    yield from of_elements(quick)
