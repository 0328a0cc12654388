"""Score-function gradients of finite objectives, and the terms that they lose.

For x ~ q(theta), d E[f(theta, x)] = E[(f - b) d log q + d f], if the baseline b does not
depend on x (Mohamed et al. 2020, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.lax import stop_gradient

from ppl import draw
from semantics.contracts.gradients import check_gradient

from .registry import Entry, Kind

PRICE = jnp.array([1.0, 4.0, -2.0])
POINTS = [(jnp.array([0.3, -0.2, 0.5]),), (jnp.array([-0.7, 0.1, 0.4]),)]
N = 3


def cost(theta: jax.Array, x: jax.Array) -> jax.Array:
    return PRICE[x] * jnp.exp(0.3 * theta[0]) + theta[1] ** 2


def log_q(theta: jax.Array, x: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(theta)[x]


def choose(theta: jax.Array, n: int) -> jax.Array:
    return draw(dist.CategoricalProbs(jax.nn.softmax(theta)).expand([n]))


def objective(theta: jax.Array) -> jax.Array:
    return cost(theta, choose(theta, 1)[0])


def score_function(theta: jax.Array, wrong: str = "") -> jax.Array:
    """From N draws, each with the mean cost of the others as its baseline."""
    x = choose(theta, N)
    costs = cost(theta, x)
    baseline = (costs.sum() - costs) / (N - 1)
    if wrong == "leave-in":
        baseline = jnp.full(N, costs.mean())
    if wrong == "constant":
        baseline = jnp.full(N, 1.5)

    def surrogate(theta: jax.Array) -> jax.Array:
        now = cost(theta, x)
        gap = now - stop_gradient(baseline)
        if wrong != "stop-gradient":
            gap = stop_gradient(gap)
        return (gap * log_q(theta, x) + (0.0 if wrong == "pathwise" else now)).mean()

    return jax.grad(surrogate)(theta)


def log_weights(theta: jax.Array, x: jax.Array) -> jax.Array:
    return theta[2] * PRICE[x]


def resampled_objective(theta: jax.Array) -> jax.Array:
    """The cost of one of N particles, chosen by weight."""
    x = choose(theta, N)
    probabilities = jax.nn.softmax(log_weights(theta, x))
    return cost(theta, x[draw(dist.CategoricalProbs(probabilities))])


def through_resampling(theta: jax.Array, wrong: str = "") -> jax.Array:
    """With the score of the particles, and of the ancestor."""
    x = choose(theta, N)
    ancestor = draw(dist.CategoricalProbs(jax.nn.softmax(log_weights(theta, x))))

    def surrogate(theta: jax.Array) -> jax.Array:
        now = cost(theta, x[ancestor])
        of_ancestor = jax.nn.log_softmax(log_weights(theta, x))[ancestor]
        score = log_q(theta, x).sum() + (0.0 if wrong == "resampling" else of_ancestor)
        return stop_gradient(now) * score + now

    return jax.grad(surrogate)(theta)


def _entry(
    kind: Kind, wrong: str, says: str, estimator: Callable = score_function, name: str = ""
) -> Entry:
    value = objective if estimator is score_function else resampled_objective
    check = partial(check_gradient, partial(estimator, wrong=wrong), value, POINTS)
    return Entry("gradients", name or wrong or "correct", says, check, kind)


ENTRIES = (
    _entry("correct", "", "leave-one-out baseline"),
    _entry("correct", "", "through resampling", through_resampling, "resampling, correct"),
    _entry("equivalent", "constant", "a constant baseline"),
    _entry("mutant", "leave-in", "leave-in baseline: the mean over all draws, its own too"),
    _entry("mutant", "stop-gradient", "no stop-gradient: the cost is differentiated in the score"),
    _entry("mutant", "pathwise", "the pathwise term is dropped"),
    _entry(
        "mutant", "resampling", "the score of the resampled ancestor ignored", through_resampling
    ),
)
