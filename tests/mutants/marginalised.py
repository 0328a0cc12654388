"""Filters that sum a Gaussian part out, and what can be wrong with their beliefs and weights.

A mixture Kalman filter (Chen and Liu 2000): regimes are sampled, and each particle carries the
mean and variance of the rest given its regimes. What it must have is the measure of the
regimes' paths, each with the density of the data under the joint normal law that the path
gives them, computed here from that law at once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import Weighted, genealogy, multinomial, particle_filter, rao_blackwell, resample
from inference import spawn as copies
from ppl import Target, draw, gen, sample
from semantics import check_proper

from .registry import family

MOVES = jnp.array([[0.7, 0.3], [0.4, 0.6]])
SLOPE, STEP, NOISE = jnp.array([0.9, -0.5]), jnp.array([0.3, 1.2]), jnp.array([0.4, 0.9])
DATA = jnp.array([0.8, -1.1])
START = 0.2


@gen
def regimes():
    """The regimes' paths, and the data given one, all at once."""

    def step(k, _):
        k = sample("k", dist.Categorical(MOVES[k]))
        return k, k

    _, path = jax.lax.scan(step, 0, None, length=len(DATA))
    mean, cov = jnp.full((), START), jnp.zeros((0, 0))
    means, last = [], jnp.zeros(0)
    for k in path:  # the law of z, a step longer each time
        mean, last = SLOPE[k] * mean, SLOPE[k] * last
        var = SLOPE[k] ** 2 * (cov[-1, -1] if means else 0.0) + STEP[k] ** 2
        cov = jnp.block([[cov, last[:, None]], [last[None], var[None, None]]])
        means, last = [*means, mean], cov[:, -1]
    noise = jnp.diag(NOISE[path] ** 2)
    sample("y", dist.MultivariateNormal(jnp.stack(means), cov + noise))


TARGET = Target(regimes, (), {"y": DATA})


def mixture_kalman(target: Target, wrong: str = "", n: int = 3) -> Callable[[Weighted], Weighted]:
    """The filter, from the unit measure to the regimes' paths; resampled before each step."""

    def step(weighted: Weighted) -> Weighted:
        s = copies(n)(weighted)
        paths = jnp.zeros((n, len(DATA)), int)
        mean, var = jnp.full(n, START), jnp.zeros(n)
        for t, y in enumerate(DATA):
            if t:
                moved = resample(Weighted((paths, mean, var), s.log_weight), multinomial)
                s = Weighted((), moved.log_weight)
                kept = mean, var
                paths, mean, var = moved.value
                if wrong == "beliefs stay in their slots":
                    mean, var = kept
            before = paths[:, t - 1] if t else jnp.zeros(n, int)
            k = draw(dist.Categorical(MOVES[before]))
            paths = paths.at[:, t].set(k)
            k = before if wrong == "regime of the step before" else k
            mean, var = SLOPE[k] * mean, SLOPE[k] ** 2 * var + STEP[k] ** 2
            if wrong == "no noise of the step":
                var = var - STEP[k] ** 2
            total = var + NOISE[k] ** 2
            if wrong == "plug-in":
                total = NOISE[k] ** 2
            gain = var / total
            new = mean + gain * (y - mean), (1 - gain) * var
            at = new[0] if wrong == "weighed after the datum" else mean
            amount = dist.Normal(at, jnp.sqrt(total)).log_prob(y)
            if wrong == "variance for scale":
                amount = dist.Normal(at, total).log_prob(y)
            s = Weighted((), s.log_weight + amount)
            mean, var = new
            if wrong == "variance not updated":
                var = var / (1 - gain)
            if wrong == "mean not updated":
                mean = mean - gain * (y - mean) / (1 - gain)
        return Weighted({"k": paths}, s.log_weight)

    return step


def library(target: Target, wrong: str = "") -> Callable[[Weighted], Weighted]:
    """The same by `inference.rao_blackwell`."""

    @gen
    def switching(state, _):
        z, k = state
        k = sample("k", dist.Categorical(MOVES[k]))
        z = sample("z", dist.Normal(SLOPE[k] * z, STEP[k]))
        sample("y", dist.Normal(z, NOISE[k]))
        return (z, k), None

    marginal, start = rao_blackwell(switching, "z", (START, 0))

    def step(weighted: Weighted) -> Weighted:
        observed = {"y": target.observations["y"]}
        found = particle_filter(
            marginal, start, observed, 3, scheme=multinomial, threshold=1.0, history=True
        )
        paths = genealogy(found)
        return Weighted({"k": paths.value["k"]}, weighted.log_weight + paths.log_weight)

    return step


_entry = family("Rao-Blackwellised filter", check_proper, mixture_kalman, TARGET)
_library = family("Rao-Blackwellised filter", check_proper, library, TARGET)

ENTRIES = (
    _entry("correct", "", "three particles, multinomial"),
    _library("correct", "library", "inference.rao_blackwell in a particle filter"),
    _entry("mutant", "beliefs stay in their slots", "regimes are resampled, beliefs are not"),
    _entry("mutant", "regime of the step before", "the belief moves by the regime before"),
    _entry("mutant", "no noise of the step", "the variance does not grow by the step's noise"),
    _entry("mutant", "plug-in", "weighed by the density at the mean of the state"),
    _entry("mutant", "weighed after the datum", "weighed by the mean after the datum"),
    _entry("mutant", "variance for scale", "the predictive variance for its scale"),
    _entry("mutant", "variance not updated", "the variance is not reduced by the datum"),
    _entry("mutant", "mean not updated", "the mean is not moved by the datum"),
)
