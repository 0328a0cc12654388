"""Values that are independent of each other: an effect for each of some categories."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .hyperparameters import as_float, check_parameters, record
from .kernel import Kernel


@record
class Exchangeable(Kernel):
    """k(s, t) = sigma² where s is t, and else 0: categories, whose numbers are only names.

    Raises:
      InvalidArgument: sigma is negative.

    >>> from inference.gaussian.exchangeable import Exchangeable
    >>> k = Exchangeable(sigma=2.0)
    >>> float(k.covariance(3.0, 3.0)), float(k.covariance(3.0, 4.0))
    (4.0, 0.0)
    """

    sigma: Any = 1.0

    def _check(self) -> None:
        check_parameters(self, 0.0, sigma=self.sigma)

    @property
    def dimension(self) -> int:
        return 1

    @property
    def rank(self) -> int | None:
        return None

    def transition(self, dt: Any) -> jax.Array:
        return _same(dt)

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return jnp.asarray(self.sigma) ** 2 * (1 - _same(dt))

    def start(self, at: Any) -> jax.Array:
        return jnp.asarray(self.sigma)[None, None] ** 2

    def observation(self) -> jax.Array:
        return jnp.ones(1)

    def error(self) -> Any:
        return 0.0


def _same(dt: Any) -> jax.Array:
    dt = as_float(dt)[..., None, None]
    return jnp.where(dt == 0, jnp.ones_like(dt), 0.0)
