"""A law of finitely many numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints


class Outcomes(dist.Distribution):
    """The law of a number that is one of `values`, with these probabilities.

    Attributes:
      values: shape (k,).
      probs: shape (..., k).

    >>> import jax.numpy as jnp
    >>> from inference.exact.outcomes import Outcomes
    >>> law = Outcomes(jnp.array([2, 5]), jnp.array([0.25, 0.75]))
    >>> float(law.mean), round(float(jnp.exp(law.log_prob(5))), 4)
    (4.25, 0.75)
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("values", "probs")
    has_enumerate_support = True

    def __init__(self, values: jax.Array, probs: jax.Array):
        self.values, self.probs = values, probs
        super().__init__(batch_shape=jnp.shape(probs)[:-1], event_shape=(), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.integer_interval(jnp.min(self.values), jnp.max(self.values))

    def log_prob(self, value: Any) -> jax.Array:
        here = jnp.asarray(value)[..., None] == self.values
        return jnp.log(jnp.sum(jnp.where(here, self.probs, 0.0), -1))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        return self.values[dist.CategoricalProbs(self.probs).sample(key, sample_shape)]

    def enumerate_support(self, expand: bool = True) -> jax.Array:
        shape = (len(self.values), *[1] * len(self.batch_shape))
        values = self.values.reshape(shape)
        return jnp.broadcast_to(values, (shape[0], *self.batch_shape)) if expand else values

    @property
    def mean(self) -> jax.Array:
        return jnp.sum(self.probs * self.values, -1)

    @property
    def variance(self) -> jax.Array:
        return jnp.sum(self.probs * (self.values - self.mean[..., None]) ** 2, -1)
