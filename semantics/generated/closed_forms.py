"""Programs with continuous choices whose posterior and evidence have closed forms.

Each constructor takes small integers and returns a `ClosedForm`: the program as code, its
arguments and observations, and its posterior as a mixture of components, computed in
numpy from textbook formulas (Gelman et al., *Bayesian Data Analysis*, chapters 2 and 14).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import GenerativeFunction, Target

from .printing import IMPORTS, compiled


@dataclass(frozen=True)
class Component:
    """One component of a posterior: finitely many choices fixed, the rest continuous.

    Attributes:
      choices: the finite choices and their values.
      log_mass: the log of the mass of the component (with the observations).
      latents: the addresses of the continuous choices.
      posterior: their joint distribution, given the choices and the observations; a vector
        for more than one, None for none.
    """

    choices: tuple[tuple[str, int], ...]
    log_mass: float
    latents: tuple[str, ...]
    posterior: Any


@dataclass(frozen=True, repr=False)
class ClosedForm:
    """A program, and its exact posterior as a mixture of components.

    Attributes:
      source: code that defines `model`, static for one kind of program.
      numbers: its arguments, as nested tuples.
      observations: names and values of the observed choices, as nested tuples.
      components: the posterior, not normalised.

    >>> from semantics.generated.closed_forms import normal_normal
    >>> program = normal_normal(0, 1, 1, (1, 2, 3))
    >>> (only,) = program.components
    >>> print(f"{only.posterior.loc:.2f} {only.posterior.scale:.2f}")  # 6 / 4, 1 / sqrt(4)
    1.50 0.50
    """

    source: str
    numbers: tuple[Any, ...]
    observations: tuple[tuple[str, Any], ...]
    components: tuple[Component, ...]

    @property
    def model(self) -> GenerativeFunction:
        """The generative function; the same for all programs of one kind."""
        return compiled(self.source)

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments, as arrays of floats."""
        return tuple(jnp.asarray(number, float) for number in self.numbers)

    @property
    def observed(self) -> dict[str, Any]:
        """The observations as a choice map."""
        return {name: np.asarray(value) for name, value in self.observations}

    @property
    def target(self) -> Target:
        """The posterior as the library has it."""
        return Target(self.model, self.args, self.observed)

    @property
    def log_evidence(self) -> float:
        """The log of the mass of the posterior."""
        return float(np.logaddexp.reduce([component.log_mass for component in self.components]))

    def code(self) -> str:
        """Runnable code that defines the same `model` and `target`.

        >>> from semantics.generated.closed_forms import beta_bernoulli
        >>> print(beta_bernoulli(1, 2, (1, 0, 0)).code().split("sample", 1)[1])
        <BLANKLINE>
        <BLANKLINE>
        @gen
        def model(a, b):
            p = sample("p", dist.Beta(a, b))
            sample("y", dist.Bernoulli(p).expand([3]))
            return p
        <BLANKLINE>
        target = Target(model, (1.0, 2.0), {"y": jnp.array([1, 0, 0])})
        <BLANKLINE>
        """
        args = ", ".join(_number(np.asarray(number, float).tolist()) for number in self.numbers)
        seen = ", ".join(
            f'"{name}": jnp.array({np.asarray(value).tolist()})'
            for name, value in self.observations
        )
        return f"{IMPORTS}\n{self.source}\ntarget = Target(model, ({args}), {{{seen}}})\n"

    def __repr__(self) -> str:
        return f"\n{self.code()}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would print the fields


def _number(value: Any) -> str:
    return f"jnp.array({value})" if isinstance(value, list) else str(value)


def _floats(values: Sequence[int]) -> tuple[float, ...]:
    return tuple(map(float, values))


def linear_gaussian_posterior(
    mean: Any, cov: Any, design: Any, noise: Any, y: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of x given y = design x + noise, and log p(y), for normal x.

    Args:
      mean, cov: of x, shapes (d,) and (d, d).
      design: shape (n, d).
      noise: the covariance of the noise, shape (n, n).
      y: shape (n,).

    >>> from semantics.generated.closed_forms import linear_gaussian_posterior
    >>> m, v, log_evidence = linear_gaussian_posterior([0.0], [[1.0]], [[1.0]], [[1.0]], [2.0])
    >>> m.tolist(), v.tolist(), round(log_evidence, 4)  # N(2; 0, 2)
    ([1.0], [[0.5]], -2.2655)
    """
    mean, cov, design, y = (np.asarray(each, float) for each in (mean, cov, design, y))
    innovation = y - design @ mean
    spread = design @ cov @ design.T + np.asarray(noise, float)
    gain = np.linalg.solve(spread, design @ cov).T
    _, log_det = np.linalg.slogdet(2 * math.pi * spread)
    log_evidence = -0.5 * (innovation @ np.linalg.solve(spread, innovation) + log_det)
    return mean + gain @ innovation, cov - gain @ design @ cov, float(log_evidence)


# -- one latent ----------------------------------------------------------------------------

NORMAL = """\
@gen
def model(mean, scale, noise):
    mu = sample("mu", dist.Normal(mean, scale))
    sample("y", dist.Normal(mu, noise).expand([3]))
    return mu
"""

BETA = """\
@gen
def model(a, b):
    p = sample("p", dist.Beta(a, b))
    sample("y", dist.Bernoulli(p).expand([3]))
    return p
"""

GAMMA = """\
@gen
def model(a, b):
    rate = sample("rate", dist.Gamma(a, b))
    sample("y", dist.Poisson(rate).expand([3]))
    return rate
"""


def normal_normal(mean: int, scale: int, noise: int, ys: Sequence[int]) -> ClosedForm:
    """mu ~ N(mean, scale²), three data ~ N(mu, noise²).

    >>> from semantics.generated.closed_forms import normal_normal
    >>> print(f"{normal_normal(0, 1, 1, (0, 0, 0)).log_evidence:.4f}")  # -log(2π)·3/2 - log(4)/2
    -3.4500
    """
    ones, precision = np.ones((3, 1)), 1 / scale**2 + 3 / noise**2
    _, _, log = linear_gaussian_posterior([mean], [[scale**2]], ones, noise**2 * np.eye(3), ys)
    location = (mean / scale**2 + sum(ys) / noise**2) / precision
    posterior = dist.Normal(location, 1 / math.sqrt(precision))
    only = Component((), log, ("mu",), posterior)
    return ClosedForm(NORMAL, (mean, scale, noise), (("y", _floats(ys)),), (only,))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def beta_bernoulli(a: int, b: int, ys: Sequence[int]) -> ClosedForm:
    """p ~ Beta(a, b), three data ~ Bernoulli(p).

    >>> from semantics.generated.closed_forms import beta_bernoulli
    >>> print(f"{beta_bernoulli(1, 1, (1, 1, 0)).log_evidence:.4f}")  # log 1/12
    -2.4849
    """
    heads, tails = a + sum(ys), b + len(ys) - sum(ys)
    log = _log_beta(heads, tails) - _log_beta(a, b)
    only = Component((), log, ("p",), dist.Beta(float(heads), float(tails)))
    return ClosedForm(BETA, (a, b), (("y", tuple(ys)),), (only,))


def gamma_poisson(a: int, b: int, ys: Sequence[int]) -> ClosedForm:
    """rate ~ Gamma(a, b) (b the inverse scale), three data ~ Poisson(rate).

    >>> from semantics.generated.closed_forms import gamma_poisson
    >>> print(f"{gamma_poisson(1, 1, (0, 0, 0)).log_evidence:.4f}")  # log 1/4
    -1.3863
    """
    shape, rate = a + sum(ys), b + len(ys)
    log = a * math.log(b) - math.lgamma(a) + math.lgamma(shape) - shape * math.log(rate)
    log -= sum(math.lgamma(y + 1) for y in ys)
    only = Component((), log, ("rate",), dist.Gamma(float(shape), float(rate)))
    return ClosedForm(GAMMA, (a, b), (("y", tuple(ys)),), (only,))


# -- Gaussian vectors ----------------------------------------------------------------------

WALK = """\
@gen
def model(start, slope, step, noise):
    def move(x, _):
        x = sample("x", dist.Normal(slope * x, step))
        sample("y", dist.Normal(x, noise))
        return x, None

    return lax.scan(move, start, None, length=3)[0]
"""

REGRESSION = """\
@gen
def model(design, scales, noise):
    w = sample("w", dist.Normal(0.0, scales))
    sample("y", dist.Normal(design @ w, noise))
    return w
"""


def random_walk(start: int, slope: int, step: int, noise: int, ys: Sequence[int]) -> ClosedForm:
    """x_t ~ N(slope x_{t-1}, step²) for three steps, y_t ~ N(x_t, noise²).

    >>> from semantics.generated.closed_forms import random_walk
    >>> random_walk(1, 2, 1, 1, (0, 0, 0)).components[0].latents
    ('x',)
    """
    t = np.arange(3)
    mean = start * float(slope) ** (t + 1)
    effect = np.tril(float(slope) ** np.maximum(t[:, None] - t, 0)) * step
    m, v, log = linear_gaussian_posterior(
        mean, effect @ effect.T, np.eye(3), noise**2 * np.eye(3), ys
    )
    only = Component((), log, ("x",), dist.MultivariateNormal(m, v))
    return ClosedForm(WALK, (start, slope, step, noise), (("y", _floats(ys)),), (only,))


def linear_regression(
    design: Sequence[Sequence[int]], scales: Sequence[int], noise: int, ys: Sequence[int]
) -> ClosedForm:
    """w ~ N(0, diag(scales)²), y ~ N(design w, noise² I).

    >>> from semantics.generated.closed_forms import linear_regression
    >>> program = linear_regression(((1, 0), (0, 1), (0, 0)), (1, 1), 1, (2, 4, 0))
    >>> program.components[0].posterior.loc.tolist()
    [1.0, 2.0]
    """
    prior = np.diag(np.square(scales))
    m, v, log = linear_gaussian_posterior(
        np.zeros(len(scales)), prior, design, noise**2 * np.eye(3), ys
    )
    only = Component((), log, ("w",), dist.MultivariateNormal(m, v))
    return ClosedForm(REGRESSION, (design, scales, noise), (("y", _floats(ys)),), (only,))


# -- a changing dimension ------------------------------------------------------------------

BRANCHING = """\
@gen
def model(weights, mean, scale, noise):
    k = sample("k", dist.Categorical(weights / weights.sum()))

    def none():
        return jnp.asarray(0.0)

    def one():
        return sample("mu", dist.Normal(mean, scale))

    def two():
        return sample("mu", dist.Normal(mean, scale)) + sample("nu", dist.Normal(0.0, 2 * scale))

    level = lax.switch(k, [none, one, two])
    sample("y", dist.Normal(level, noise).expand([3]))
    return level
"""


def branching_normal(
    weights: Sequence[int], mean: int, scale: int, noise: int, ys: Sequence[int]
) -> ClosedForm:
    """k of three values decides whether there are no, one or two normal choices.

    The level is 0, mu, or mu + nu, with mu ~ N(mean, scale²) and nu ~ N(0, (2 scale)²);
    three data ~ N(level, noise²). A component for each k of positive weight.

    >>> from semantics.generated.closed_forms import branching_normal
    >>> program = branching_normal((1, 0, 3), 1, 1, 1, (2, 2, 2))
    >>> [component.choices for component in program.components]
    [(('k', 0),), (('k', 2),)]
    """
    latents = ("mu", "nu")
    prior_mean, prior = np.array([mean, 0.0]), np.diag([scale**2, 4 * scale**2])
    components = []
    for k in np.flatnonzero(weights).tolist():
        m, v, log = linear_gaussian_posterior(
            prior_mean[:k], prior[:k, :k], np.ones((3, k)), noise**2 * np.eye(3), ys
        )
        log += math.log(weights[k] / sum(weights))
        posterior = dist.MultivariateNormal(m, v) if k else None
        components.append(Component((("k", k),), log, latents[:k], posterior))
    numbers = (weights, mean, scale, noise)
    return ClosedForm(BRANCHING, numbers, (("y", _floats(ys)),), tuple(components))
