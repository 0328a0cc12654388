"""What entries are, given the predictor: normal, Student-t, or of any distribution.

Inference sees an entry as a normal one with a weight w and a pull: exp(pull η - w η² / 2) of its
predictor η. For normal noise that is exact, and for Student-t noise it is so given the variance
of each entry, which is summed out. For other distributions it is the normal factor whose slope
and curvature agree with those of the log density, on average over a normal law of η.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import digamma, gammaln

from ppl.quadrature import gauss

NODES = 20
"""Of the averages over a predictor."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Precision:
    """A gamma law of the precision 1 / σ² of the noise; or of several, independent of each other.

    >>> from inference.tensors.noise import Precision
    >>> Precision(6.0, 2.0).mean
    3.0
    """

    shape: Any
    rate: Any

    @property
    def mean(self) -> Any:
        return self.shape / self.rate

    @property
    def mean_log(self) -> Any:
        return digamma(self.shape) - jnp.log(self.rate)

    def divergence(self, prior: Precision) -> Any:
        """From a prior, in nats."""
        found = prior.shape * (jnp.log(self.rate) - jnp.log(prior.rate))
        found = found + gammaln(prior.shape) - gammaln(self.shape)
        found = found + (self.shape - prior.shape) * digamma(self.shape)
        return found + (prior.rate - self.rate) * self.mean


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormalNoise:
    """Entries are normal about the predictor, with a precision that has a gamma prior.

    Attributes:
      shape, rate: of the prior of 1 / σ².
      by: the name of a mode, each coordinate of which has a precision of its own: instruments,
        places or people that differ in how exact they are. A fit learns `shape` and `rate`, then,
        so that what few entries say is pooled. None, and all entries share one precision.

    >>> from inference.tensors import NormalNoise
    >>> NormalNoise().law(0.0, 4.0).variance
    Array(0.25, dtype=float64, weak_type=True)
    """

    shape: Any = 1.0
    rate: Any = 0.01
    by: str | None = field(default=None, metadata={"static": True})

    moves = False  # whether weights differ with the predictor, from mode to mode

    @property
    def prior(self) -> Precision:
        return Precision(self.shape, self.rate)

    @property
    def learned(self) -> dict[str, Any]:
        """What a fit learns, all positive."""
        return _pooled(self)

    def with_learned(self, learned: dict[str, Any]) -> NormalNoise:
        return replace(self, **learned)

    def law(self, predictor: Any, precision: Any) -> dist.Distribution:
        return dist.Normal(predictor, jnp.asarray(precision) ** -0.5)

    def predicted(self, predictor: Any, precision: Precision) -> dist.Distribution:
        """The law of an entry given its predictor, with the precision summed out."""
        scale = (precision.rate / precision.shape) ** 0.5
        return dist.StudentT(2 * precision.shape, predictor, scale)

    def seen_as(self, y: Any, mean: Any, variance: Any, precision: Precision) -> tuple[Any, Any]:
        """The weight and the pull of each entry, whose precisions these are."""
        weight = jnp.full_like(y, 1.0) * precision.mean
        return weight, weight * y

    def told(self, y: Any, mean: Any, variance: Any, precision: Precision) -> tuple[Any, Any]:
        """What each entry adds to shape and rate of its precision's law."""
        return jnp.full_like(y, 0.5), ((y - mean) ** 2 + variance) / 2

    def expected(self, y: Any, mean: Any, variance: Any, precision: Precision) -> Any:
        """The mean log density of all entries, or its bound."""
        square = precision.mean * ((y - mean) ** 2 + variance)
        return jnp.sum(precision.mean_log - jnp.log(2 * jnp.pi) - square) / 2


def _pooled(noise: NormalNoise | StudentTNoise) -> dict[str, Any]:
    return {} if noise.by is None else {"shape": noise.shape, "rate": noise.rate}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StudentTNoise:
    """Entries are Student-t about the predictor: some are far off, and say little.

    Attributes:
      df: degrees of freedom, which a fit learns.
      shape, rate: of the prior of 1 / σ², for the scale σ.
      by: as for `NormalNoise`.

    >>> from inference.tensors import StudentTNoise
    >>> StudentTNoise(df=3.0).law(0.0, 4.0).variance  # 1/4 · 3 / (3 - 2)
    Array(0.75, dtype=float64, weak_type=True)
    """

    df: Any = 4.0
    shape: Any = 1.0
    rate: Any = 0.01
    by: str | None = field(default=None, metadata={"static": True})

    moves = False

    @property
    def prior(self) -> Precision:
        return Precision(self.shape, self.rate)

    @property
    def learned(self) -> dict[str, Any]:
        return {"df": self.df, **_pooled(self)}

    def with_learned(self, learned: dict[str, Any]) -> StudentTNoise:
        return replace(self, **learned)

    def law(self, predictor: Any, precision: Any) -> dist.Distribution:
        return dist.StudentT(self.df, predictor, jnp.asarray(precision) ** -0.5)

    def predicted(self, predictor: Any, precision: Precision) -> dist.Distribution:
        """The law of an entry given its predictor, at the mean precision."""
        return self.law(predictor, precision.mean)

    def seen_as(self, y: Any, mean: Any, variance: Any, precision: Precision) -> tuple[Any, Any]:
        weight = precision.mean * self._share(y, mean, variance, precision)
        return weight, weight * y

    def told(self, y: Any, mean: Any, variance: Any, precision: Precision) -> tuple[Any, Any]:
        share = self._share(y, mean, variance, precision)
        return jnp.full_like(y, 0.5), share * ((y - mean) ** 2 + variance) / 2

    def expected(self, y: Any, mean: Any, variance: Any, precision: Precision) -> Any:
        half = self.df / 2
        square = precision.mean * ((y - mean) ** 2 + variance)
        each = gammaln(half + 0.5) - gammaln(half) + half * jnp.log(half)
        each = each + (precision.mean_log - jnp.log(2 * jnp.pi)) / 2
        return jnp.sum(each - (half + 0.5) * jnp.log(half + square / 2))

    def _share(self, y: Any, mean: Any, variance: Any, precision: Precision) -> Any:
        """The mean of what the precision of each entry is multiplied with."""
        square = precision.mean * ((y - mean) ** 2 + variance)
        return (self.df + 1) / (self.df + square)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Likelihood:
    """Entries have any distribution of the predictor: counts, classes, positive numbers.

    Where the log density is not concave in the predictor, its curvature counts as none.

    Attributes:
      of: a function of predictors `(N,)`, and of the parameters by name, that makes one
        distribution for each.
      parameters: positive numbers, which a fit learns.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.tensors import Likelihood
    >>> counts = Likelihood(lambda eta: dist.Poisson(jnp.exp(eta)))
    >>> float(counts.law(jnp.zeros(()), None).mean)
    1.0
    """

    of: Callable[..., dist.Distribution] = field(metadata={"static": True})
    parameters: dict[str, Any] = field(default_factory=dict)

    moves = True
    by = None

    @property
    def learned(self) -> dict[str, Any]:
        return dict(self.parameters)

    def with_learned(self, learned: dict[str, Any]) -> Likelihood:
        return Likelihood(self.of, learned)

    def law(self, predictor: Any, precision: Any) -> dist.Distribution:
        return self.of(predictor, **self.parameters)

    def predicted(self, predictor: Any, precision: Any) -> dist.Distribution:
        return self.law(predictor, None)

    def seen_as(self, y: Any, mean: Any, variance: Any, precision: Any) -> tuple[Any, Any]:
        slope = jax.grad(lambda eta: jnp.sum(self._log(y, eta)))

        def both(eta: Any) -> tuple[Any, Any]:
            return jax.jvp(slope, (eta,), (jnp.ones_like(eta),))

        first, second = self._average(both, mean, variance)
        weight = jnp.maximum(-second, 0.0)
        return weight, weight * mean + first

    def expected(self, y: Any, mean: Any, variance: Any, precision: Any) -> Any:
        return jnp.sum(self._average(lambda eta: self._log(y, eta), mean, variance))

    def _log(self, y: Any, eta: Any) -> Any:
        return self.law(eta, None).log_prob(y)

    def _average(self, of: Callable, mean: Any, variance: Any) -> Any:
        """The mean of a function of predictors that are normal, by quadrature."""
        x, w = (jnp.asarray(each, mean.dtype) for each in gauss("normal", NODES))
        sd = jnp.sqrt(variance)

        def step(total: Any, node: tuple) -> tuple[Any, None]:
            found = of(mean + sd * node[0])
            return jax.tree.map(lambda t, f: t + node[1] * f, total, found), None

        shapes = jax.eval_shape(of, mean)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return lax.scan(step, nothing, (x, w))[0]


Noise = NormalNoise | StudentTNoise | Likelihood
