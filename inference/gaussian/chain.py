"""A chain of Gaussian states, each observed through one number; and as a loop reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .entries import FEW, entries, lower


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chain:
    """x_t = A_t x_{t-1} + w_t, w_t ~ N(0, Q_t); y_t = h x_t + v_t, v_t ~ N(0, R_t).

    The state that is given is the one *before* the first step: n observations have n
    transitions, and entry t of each array leads into observation t. A start *at* the first
    observation is a first transition that is the identity, with no noise.

    Attributes:
      mean, covariance: of the state before the first step, `(d,)` and `(d, d)`.
      transition, noise: A and Q, `(n, d, d)`.
      observation: h, `(d,)`.
      variance: R, `(n,)`; zero where a value is observed exactly.
      present: 1 where there is an observation and 0 where it is left out, `(n,)`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.chain import Chain
    >>> from inference.gaussian.evidence import evidence
    >>> one = jnp.ones((1, 1, 1))
    >>> walk = Chain(jnp.zeros(1), jnp.eye(1), one, one, jnp.ones(1), jnp.ones(1), jnp.ones(1))
    >>> round(float(evidence(walk, jnp.zeros(1))), 4)  # log N(0; 0, 1 + 1 + 1)
    -1.4682
    """

    mean: jax.Array
    covariance: jax.Array
    transition: jax.Array
    noise: jax.Array
    observation: jax.Array
    variance: jax.Array
    present: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Steps:
    """The same with times behind, where vectors are contiguous: A and Q `(d, d, n)`, and y."""

    mean: jax.Array
    covariance: jax.Array
    transition: jax.Array
    noise: jax.Array
    observation: jax.Array
    variance: jax.Array
    present: jax.Array
    values: jax.Array

    @property
    def dimension(self) -> int:
        return self.mean.shape[0]

    @property
    def count(self) -> int:
        return self.values.shape[0]

    def sees(self, sides: int) -> Any:
        """h by its entries, for what has that many axes behind."""
        h = self.observation
        return entries(h if h.shape[0] <= FEW else h.reshape(-1, *[1] * sides), 1)

    def rows(self) -> tuple[jax.Array, ...]:
        """What each step reads: A, the lower half of Q, R, y, and whether y is there."""
        half = lower(self.noise)
        return self.transition, half, self.variance, self.values, self.present


def steps_of(chain: Chain, values: jax.Array) -> Steps:
    """The steps of a chain that is observed at these values, all in the dtype of the values."""
    cast = lambda x: jnp.asarray(x, values.dtype)  # noqa: E731
    behind = lambda x: jnp.moveaxis(cast(x), 0, -1)  # noqa: E731
    return Steps(cast(chain.mean), cast(chain.covariance), behind(chain.transition),
                 behind(chain.noise), cast(chain.observation), cast(chain.variance),
                 cast(chain.present), values)  # fmt: skip
