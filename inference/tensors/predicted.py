"""What is predicted of entries: a mixture of the noise over what is believed of the predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import logsumexp

from ppl import errors
from ppl.quadrature import gauss

from ..validation.settings import check_number
from .noise import Noise, Precision

NODES = 32
"""Of the predictor's law, which is taken as normal with its mean and variance."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Predicted:
    """The law of each of N entries by itself: see `Factorization.predict`.

    Attributes:
      predictor, uncertainty: mean and standard deviation of the predictor, `(N,)`, without noise.

    >>> import jax.numpy as jnp
    >>> from inference.tensors.noise import NormalNoise, Precision
    >>> from inference.tensors.predicted import Predicted
    >>> sure = Precision(jnp.array(5e7), jnp.array(5e7))
    >>> found = Predicted(jnp.zeros(1), jnp.zeros(1), NormalNoise(), sure)
    >>> found.variance.round(3).tolist(), found.quantile(0.975).round(3).tolist()
    ([1.0], [1.96])
    """

    predictor: jax.Array
    uncertainty: jax.Array
    noise: Noise
    precision: Precision | None

    def _at_nodes(self) -> tuple[dist.Distribution, jax.Array]:
        """The noise at each node `(NODES, N)`, and the nodes' weights."""
        x, w = (jnp.asarray(each, self.predictor.dtype) for each in gauss("normal", NODES))
        predictor = self.predictor + self.uncertainty * x[:, None]
        return self.noise.predicted(predictor, self.precision), w  # type: ignore[arg-type]

    @property
    def mean(self) -> jax.Array:
        law, w = self._at_nodes()
        return w @ jnp.broadcast_to(law.mean, (NODES, *self.predictor.shape))

    @property
    def variance(self) -> jax.Array:
        """Of an entry, noise and all; infinite where the noise has none."""
        law, w = self._at_nodes()
        shape = (NODES, *self.predictor.shape)
        mean, variance = (jnp.broadcast_to(x, shape) for x in (law.mean, law.variance))
        return w @ (variance + mean**2) - (w @ mean) ** 2

    def log_prob(self, y: Any) -> jax.Array:
        """The log density (or probability) of each entry, `(N,)`."""
        law, w = self._at_nodes()
        return logsumexp(law.log_prob(jnp.asarray(y)), b=w[:, None], axis=0)

    def cdf(self, y: Any) -> jax.Array:
        """The probability that an entry is not above y."""
        law, w = self._at_nodes()
        at = jnp.asarray(y, self.predictor.dtype)
        try:
            return w @ law.cdf(jnp.floor(at) if _discrete(law) else at)
        except NotImplementedError as error:
            raise errors.InvalidArgument(
                "The noise has no distribution function.", where=errors.caller(),
                given=f"a {type(law).__name__} distribution", expected="one with a `cdf`",
                fix="quantiles of draws: found.draw_entries(key, rows, n)",
            ) from error  # fmt: skip

    def quantile(self, p: float) -> jax.Array:
        """The number that an entry is not above with probability p, to about six digits.

        Raises:
          InvalidArgument: p is not between 0 and 1, or the noise has no distribution function.
        """
        check_number("p", p, above=0, below=1, fix=0.5)
        return _quantile(self, jnp.asarray(p, self.predictor.dtype))

    def interval(self, mass: float) -> tuple[jax.Array, jax.Array]:
        """The ends between which an entry is with probability `mass`, as often below as above."""
        check_number("mass", mass, above=0, below=1, fix=0.9)
        return self.quantile((1 - mass) / 2), self.quantile((1 + mass) / 2)


@jax.jit
def _quantile(law: Predicted, p: jax.Array) -> jax.Array:
    """By Newton's steps, and by halves where they leave the interval that holds the number."""
    center = jnp.where(jnp.isfinite(law.mean), law.mean, law.predictor)
    start = 1 + jnp.abs(center) + law.uncertainty

    def wider(ends: tuple) -> tuple:
        low, high, below, above, width = ends
        low, high = jnp.where(below, low - width, low), jnp.where(above, high + width, high)
        return low, high, law.cdf(low) > p, law.cdf(high) < p, 2 * width

    everywhere = jnp.ones(center.shape, bool)
    low, high, *_ = lax.while_loop(
        lambda ends: jnp.any(ends[2] | ends[3]),
        wider,
        (center, center, everywhere, everywhere, start),
    )
    discrete = _discrete(law._at_nodes()[0])

    def nearer(state: tuple) -> tuple:
        low, high, x, _, count = state
        more = law.cdf(x) - p
        low, high = jnp.where(more < 0, x, low), jnp.where(more < 0, high, x)
        halved = (low + high) / 2
        new = halved if discrete else x - more * jnp.exp(-law.log_prob(x))
        inside = (new > low) & (new < high)
        new = jnp.where(inside, new, halved)
        return low, high, new, jnp.abs(new - x) / start, count + 1

    def far(state: tuple) -> jax.Array:
        return jnp.any(state[3] > 1e-7) & (state[4] < 60)

    first = (low + high) / 2
    state = low, high, first, jnp.ones_like(first), 0
    low, _, found, *_ = lax.while_loop(far, nearer, state)
    return jnp.ceil(low) if discrete else found


def _discrete(law: dist.Distribution) -> bool:
    return bool(getattr(law.support, "is_discrete", False))
