"""Gaussian sites for data that are not Gaussian, and what can be wrong with them.

What they must be exact for: Laplace's method for data that are Gaussian, and expectation
propagation also for one datum of any law (Minka 2001; Rasmussen and Williams 2006, 3.4 and 3.6).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from inference.gaussian import Matern32, gp
from inference.sites import conjugate_vi, laplace, power_ep
from ppl import Target, draw, gen, integrate, sample
from semantics import Verdict
from semantics.generated.closed_forms import linear_gaussian_posterior

from .registry import Entry, Kind

TIMES = np.array([0.0, 0.3, 1.1, 1.5])
VALUES = np.array([0.4, 1.3, -0.2, 0.8])
NOISE, COUNT, NODES = 0.5, 3, 200
KERNEL = Matern32(0.9, 1.2)
EXACT = 1e-10
"""Of evidences of size 10, by some hundred operations; the sums of one count are right to 1e-12."""


@gen
def measured():
    f = sample("f", gp(KERNEL, TIMES))
    sample("y", dist.Normal(f, NOISE))


@gen
def counted():
    f = sample("f", gp(KERNEL, np.zeros(1)))
    sample("y", dist.Poisson(jnp.exp(f)))


MEASURED = Target(measured, (), {"y": VALUES})
COUNTED = Target(counted, (), {"y": np.array([COUNT])})


def measured_at_mode(wrong: str = "") -> float:
    """Laplace's evidence by dense matrices."""
    covariance = np.asarray(KERNEL.covariance(TIMES[:, None], TIMES))
    ratio = np.eye(len(TIMES)) + covariance / NOISE**2
    mode = covariance @ np.linalg.solve(ratio, VALUES) / NOISE**2
    height = np.sum(dist.Normal(mode, NOISE).log_prob(VALUES))
    height -= 0.5 * mode @ np.linalg.solve(covariance, mode)
    return height if wrong else height - 0.5 * np.linalg.slogdet(ratio)[1]


def _mass(mean: Any, variance: Any, linear: Any, precision: Any) -> Any:
    """log E exp(linear f - precision f² / 2), for a normal f."""
    ratio = 1 + precision * variance
    square = (linear**2 * variance + 2 * linear * mean - precision * mean**2) / ratio
    return 0.5 * (square - np.log(ratio))


def _tilted(mean: Any, variance: Any) -> tuple[Any, Any, Any]:
    """log E p(count given f), and mean and variance of f given the count, for a normal f."""

    def moments() -> Any:
        f = draw(dist.Normal(mean, jnp.sqrt(variance)))
        return jnp.exp(dist.Poisson(jnp.exp(f)).log_prob(COUNT)) * jnp.array([1.0, f, f**2])

    total, first, second = np.asarray(integrate(moments, nodes=NODES)())
    return np.log(total), first / total, second / total - (first / total) ** 2


PRIOR = 0.0, 1.2**2


def counted_by_moments(wrong: str = "") -> Any:
    """Expectation propagation with one site: evidence, mean and variance."""
    linear = precision = 0.0
    mean, variance = PRIOR
    for _ in range(1 if not wrong else 40):
        rest = 1 / variance - precision, mean / variance - linear
        cavity = (mean, variance) if wrong else (rest[1] / rest[0], 1 / rest[0])
        total, moved, left = _tilted(*cavity)
        linear = moved / left - cavity[0] / cavity[1]
        precision = 1 / left - 1 / cavity[1]
        variance = 1 / (1 / PRIOR[1] + precision)
        mean = variance * linear
    log = total - _mass(*cavity, linear, precision) + _mass(*PRIOR, linear, precision)
    return np.array([log, mean, variance])


def _library(method: Callable) -> Any:
    found = method(COUNTED, "f", nodes=NODES)
    return np.array([found.log_evidence, found.mean[0], found.variance[0]])


def check_measured(found: Callable[[], Any]) -> Verdict:
    covariance = KERNEL.covariance(TIMES[:, None], TIMES)
    n = len(TIMES)
    args = np.zeros(n), covariance, np.eye(n), NOISE**2 * np.eye(n), VALUES
    error = abs(float(found()) - linear_gaussian_posterior(*args)[2])
    return Verdict("log evidence", error <= EXACT, "identity", error, EXACT, n)


def check_counted(found: Callable[[], Any]) -> Verdict:
    error = float(np.max(np.abs(found() - np.array(_tilted(*PRIOR)))))
    return Verdict("evidence and moments", error <= EXACT, "quadrature", error, EXACT, NODES)


def _measured(kind: Kind, name: str, says: str, found: Callable) -> Entry:
    check = partial(check_measured, found)
    return Entry("sites, Gaussian data", name, says, check, kind, "linear_gaussian_posterior")


def _counted(kind: Kind, name: str, says: str, found: Callable) -> Entry:
    return Entry("sites, one count", name, says, partial(check_counted, found), kind, "integrate")


def _evidence(method: Callable) -> Any:
    return method(MEASURED, "f").log_evidence


ENTRIES = (
    _measured("correct", "laplace", "by `laplace`", partial(_evidence, laplace)),
    _measured("correct", "power_ep", "by `power_ep`", partial(_evidence, power_ep)),
    _measured("correct", "conjugate_vi", "by `conjugate_vi`", partial(_evidence, conjugate_vi)),
    _measured("equivalent", "by hand", "Laplace's method by dense matrices", measured_at_mode),
    _measured("mutant", "log det", "Laplace's method without the log determinant",
              partial(measured_at_mode, "log det")),
    _counted("correct", "power_ep", "by `power_ep`", partial(_library, power_ep)),
    _counted("equivalent", "by hand", "the site of moments given the rest", counted_by_moments),
    _counted("mutant", "cavity", "moments with the site itself not taken out",
             partial(counted_by_moments, "cavity")),
)  # fmt: skip
