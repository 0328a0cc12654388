"""Processes that repeat: a cosine exactly, and the periodic kernel by its Fourier series."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import i0e

from ..validation.settings import check_count
from .hyperparameters import as_float, check_parameters, record
from .kernel import Kernel, Product, check_kernel


@record
class Cosine(Kernel):
    """k(s, t) = sigma² cos(2π (s - t) / scale): one wave of unknown phase and amplitude.

    Raises:
      InvalidArgument: a hyperparameter is not positive.

    >>> from inference.gaussian.periodic import Cosine
    >>> round(float(Cosine(scale=6.0).covariance(0.0, 1.0)), 6)
    0.5
    """

    scale: Any
    sigma: Any = 1.0

    def _check(self) -> None:
        check_parameters(self, scale=self.scale)
        check_parameters(self, 0.0, sigma=self.sigma)

    @property
    def dimension(self) -> int:
        return 2

    @property
    def rank(self) -> int | None:
        return 2

    def transition(self, dt: Any) -> jax.Array:
        return _turn(2 * math.pi * as_float(dt) / self.scale)

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return jnp.zeros((*jnp.shape(dt), 2, 2), as_float(dt).dtype)

    def start(self, at: Any) -> jax.Array:
        return jnp.asarray(self.sigma) ** 2 * jnp.eye(2)

    def observation(self) -> jax.Array:
        return jnp.eye(2)[0]

    def error(self) -> Any:
        return 0.0


def _turn(angle: jax.Array) -> jax.Array:
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([c, s], -1), jnp.stack([-s, c], -1)], -2)


@record
class Periodic(Kernel):
    """k(s, t) ≈ sigma² exp(-gamma sin²(π (s - t) / scale)), by its Fourier series to an order.

    The coefficients are exp(-gamma/2) I_j(gamma/2), twice that from j = 1 on, and all positive:
    what is left out is largest at s = t, and `error` is that (Solin & Särkkä 2014).

    Args:
      scale: the period.
      order: the highest frequency, in periods; the state has 1 + 2 order numbers.

    Raises:
      InvalidArgument: a hyperparameter is not positive; order is no int, 1 or more.

    >>> from inference.gaussian.periodic import Periodic
    >>> k = Periodic(scale=2.0, gamma=1.0, order=5)
    >>> round(float(k.covariance(0.0, 1.0)), 4)  # exp(-1)
    0.3679
    >>> float(k.error()) < 1e-6
    True
    """

    scale: Any
    gamma: Any = 1.0
    sigma: Any = 1.0
    order: int = field(default=7, metadata={"static": True})

    def _check(self) -> None:
        check_count("order", self.order, 1, 50)
        check_parameters(self, scale=self.scale, gamma=self.gamma)
        check_parameters(self, 0.0, sigma=self.sigma)

    @property
    def dimension(self) -> int:
        return 1 + 2 * self.order

    @property
    def rank(self) -> int | None:
        return self.dimension

    def transition(self, dt: Any) -> jax.Array:
        angle = 2 * math.pi * as_float(dt) / self.scale
        blocks = jnp.zeros((*jnp.shape(angle), self.dimension, self.dimension), angle.dtype)
        blocks = blocks.at[..., 0, 0].set(1.0)
        for j in range(1, self.order + 1):
            here = slice(2 * j - 1, 2 * j + 1)
            blocks = blocks.at[..., here, here].set(_turn(j * angle))
        return blocks

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return jnp.zeros((*jnp.shape(dt), self.dimension, self.dimension), as_float(dt).dtype)

    def start(self, at: Any) -> jax.Array:
        weights = _bessel(jnp.asarray(self.gamma) / 2, self.order)
        each = [weights[0], *(2 * w for w in weights[1:] for _ in range(2))]
        return jnp.asarray(self.sigma) ** 2 * jnp.diag(jnp.stack(each))

    def observation(self) -> jax.Array:
        return jnp.zeros(self.dimension).at[jnp.array([0, *range(1, self.dimension, 2)])].set(1.0)

    def error(self) -> Any:
        """The sum of the coefficients that are left out, times sigma²."""
        more = _bessel(jnp.asarray(self.gamma) / 2, self.order + _BEYOND)
        return jnp.asarray(self.sigma) ** 2 * 2 * sum(more[self.order + 1 :])


_BEYOND = 30


def _bessel(x: jax.Array, order: int) -> list[jax.Array]:
    """exp(-x) I_j(x) for j = 0, ..., order: by ratios, from far above down (Gautschi 1967)."""
    ratio, ratios = jnp.zeros_like(as_float(x)), []
    for j in reversed(range(1, order + _BEYOND + 1)):
        ratio = x / (2 * j + x * ratio)
        ratios.append(ratio)
    values = [i0e(as_float(x))]
    for ratio in ratios[::-1][:order]:
        values.append(values[-1] * ratio)
    return values


def quasi_periodic(decay: Kernel, period: Any, gamma: Any = 1.0, order: int = 7) -> Kernel:
    """k(s, t) ≈ decay(s, t) exp(-gamma sin²(π (s - t) / period)): a period that drifts.

    Args:
      decay: how fast one period forgets another; the state has its dimension times
        1 + 2 order numbers.
      period, gamma, order: as in `Periodic`.

    Raises:
      InvalidArgument: as `Periodic`, or the decay is no kernel.

    >>> import math
    >>> from inference.gaussian.matern import Matern32
    >>> from inference.gaussian.periodic import quasi_periodic
    >>> k = quasi_periodic(Matern32(scale=3**0.5), period=1.0)
    >>> round(float(k.covariance(0.0, 1.0)), 4) == round(2 * math.exp(-1), 4)
    True
    """
    check_kernel(decay)
    return Product(decay, Periodic(period, gamma, order=order))
