"""The evidence of a stationary autoregression seen with noise, by a Kalman filter."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from semantics import Verdict
from semantics.generated.closed_forms import linear_gaussian_posterior

from .registry import Entry, Kind

SLOPE, STEP, NOISE = 0.8, 0.5, 0.3
DATA = np.array([0.9, -0.4, 0.2, 1.1])


def log_evidence(wrong: str = "") -> float:
    """log p(y) for x_t = slope x_{t-1} + step e_t from its stationary law (Kalman 1960)."""
    stationary = STEP**2 / (1 - SLOPE**2)
    mean, variance = 0.0, STEP**2 if wrong == "no stationary prior" else stationary
    total = jnp.zeros(())
    for t, y in enumerate(DATA):
        if t:
            mean, variance = SLOPE * mean, SLOPE**2 * variance + STEP**2
        spread = variance + (0.0 if wrong == "noise left out" else NOISE**2)
        total = total + dist.Normal(mean, jnp.sqrt(spread)).log_prob(y)
        gain = variance / (variance + NOISE**2)
        mean, variance = mean + gain * (y - mean), (1 - gain) * variance
        if wrong == "variance not updated":
            variance = variance / (1 - gain)
    return float(total)


def check_evidence(wrong: str) -> Verdict:
    """The log evidence is that of the joint normal law of the data.

    Departures of 1e-12 are seen: a dozen operations on numbers of size 1 to 10.
    """
    n = len(DATA)
    gaps = np.abs(np.arange(n)[:, None] - np.arange(n))
    cov = STEP**2 / (1 - SLOPE**2) * SLOPE**gaps
    *_, exact = linear_gaussian_posterior(np.zeros(n), cov, np.eye(n), NOISE**2 * np.eye(n), DATA)
    error = abs(log_evidence(wrong) - exact)
    return Verdict("log evidence", error <= 1e-12, "identity", error, 1e-12, n)


def _entry(kind: Kind, wrong: str, says: str) -> Entry:
    check = partial(check_evidence, wrong)
    name = wrong or "correct"
    return Entry("Kalman filter", name, says, check, kind, "linear_gaussian_posterior")


ENTRIES = (
    _entry("correct", "", "from the stationary law"),
    _entry("mutant", "no stationary prior", "the first state has the variance of one step"),
    _entry("mutant", "noise left out", "the predicted datum without its noise"),
    _entry("mutant", "variance not updated", "the variance is not reduced by the datum"),
)
