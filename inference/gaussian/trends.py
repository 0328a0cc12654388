"""Constants, lines, and integrals of white noise: kernels that have no scale of time."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import errors

from .hyperparameters import as_float, check_parameters, record
from .kernel import Kernel


@record
class Constant(Kernel):
    """k(s, t) = sigma²: one unknown number.

    Raises:
      InvalidArgument: sigma is negative.

    >>> from inference.gaussian.trends import Constant
    >>> round(float(Constant(3.0).covariance(0.0, 5.0)), 6)
    9.0
    """

    sigma: Any = 1.0

    def _check(self) -> None:
        check_parameters(self, 0.0, sigma=self.sigma)

    @property
    def dimension(self) -> int:
        return 1

    @property
    def rank(self) -> int | None:
        return 1

    def transition(self, dt: Any) -> jax.Array:
        return jnp.ones_like(as_float(dt))[..., None, None]

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return jnp.zeros_like(as_float(dt))[..., None, None]

    def start(self, at: Any) -> jax.Array:
        return jnp.asarray(self.sigma)[None, None] ** 2.0

    def observation(self) -> jax.Array:
        return jnp.ones(1)

    def error(self) -> Any:
        return 0.0


@record
class Linear(Kernel):
    """k(s, t) = sigma² (s - origin) (t - origin): a line of unknown slope through the origin.

    Raises:
      InvalidArgument: sigma is negative.

    >>> from inference.gaussian.trends import Linear
    >>> round(float(Linear(2.0, origin=1.0).covariance(2.0, 4.0)), 6)  # 4 · 1 · 3
    12.0
    """

    sigma: Any = 1.0
    origin: Any = 0.0

    def _check(self) -> None:
        check_parameters(self, 0.0, sigma=self.sigma)
        check_parameters(self, -math.inf, origin=self.origin)

    @property
    def dimension(self) -> int:
        return 2

    @property
    def rank(self) -> int | None:
        return 1

    def transition(self, dt: Any) -> jax.Array:
        return _drift(as_float(dt))

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return jnp.zeros((*jnp.shape(dt), 2, 2), as_float(dt).dtype)

    def start(self, at: Any) -> jax.Array:
        height = as_float(_time(self, at) - self.origin)
        ray = self.sigma * jnp.stack([height, jnp.ones_like(height)], -1)
        return ray[..., :, None] * ray[..., None, :]

    def observation(self) -> jax.Array:
        return jnp.eye(2)[0]

    def error(self) -> Any:
        return 0.0


@record
class Wiener(Kernel):
    """k(s, t) = sigma² (min(s, t) - origin) + level²: Brownian motion from an origin on.

    Args:
      level: the standard deviation of the process at its origin.

    Raises:
      InvalidArgument: a time is known to precede the origin; a scale is negative.

    >>> from inference.gaussian.trends import Wiener
    >>> round(float(Wiener(2.0).covariance(3.0, 5.0)), 6)  # 4 · 3
    12.0
    """

    sigma: Any = 1.0
    origin: Any = 0.0
    level: Any = 0.0

    def _check(self) -> None:
        check_parameters(self, 0.0, sigma=self.sigma, level=self.level)
        check_parameters(self, -math.inf, origin=self.origin)

    @property
    def dimension(self) -> int:
        return 1

    @property
    def rank(self) -> int | None:
        return None

    def transition(self, dt: Any) -> jax.Array:
        return jnp.ones_like(as_float(dt))[..., None, None]

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return self.sigma**2 * as_float(dt)[..., None, None]

    def start(self, at: Any) -> jax.Array:
        return self.noise(_since(self, at)) + jnp.asarray(self.level) ** 2.0

    def observation(self) -> jax.Array:
        return jnp.ones(1)

    def error(self) -> Any:
        return 0.0


@record
class IntegratedWiener(Kernel):
    """The integral of sigma times Brownian motion: k(s, t) = sigma² (m³ / 3 + m² |s - t| / 2).

    Here m = min(s, t) - origin. Given data, its mean is a cubic spline (Wahba 1978).

    Args:
      level, slope: the standard deviations of the process and its slope at the origin.

    Raises:
      InvalidArgument: a time is known to precede the origin; a scale is negative.

    >>> from inference.gaussian.trends import IntegratedWiener
    >>> round(float(IntegratedWiener(1.0).covariance(1.0, 2.0)), 6)  # 1/3 + 1/2
    0.833333
    """

    sigma: Any = 1.0
    origin: Any = 0.0
    level: Any = 0.0
    slope: Any = 0.0

    def _check(self) -> None:
        check_parameters(self, 0.0, sigma=self.sigma, level=self.level, slope=self.slope)
        check_parameters(self, -math.inf, origin=self.origin)

    @property
    def dimension(self) -> int:
        return 2

    @property
    def rank(self) -> int | None:
        return None

    def transition(self, dt: Any) -> jax.Array:
        return _drift(as_float(dt))

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        dt = as_float(dt)
        rows = [[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]]
        return self.sigma**2 * jnp.stack([jnp.stack(row, -1) for row in rows], -2)

    def start(self, at: Any) -> jax.Array:
        since = _since(self, at)
        move = self.transition(since)
        given = jnp.stack([jnp.asarray(self.level), jnp.asarray(self.slope)]) ** 2.0
        return self.noise(since) + (move * given) @ jnp.swapaxes(move, -1, -2)

    def observation(self) -> jax.Array:
        return jnp.eye(2)[0]

    def error(self) -> Any:
        return 0.0


def _drift(dt: jax.Array) -> jax.Array:
    one, zero = jnp.ones_like(dt), jnp.zeros_like(dt)
    return jnp.stack([jnp.stack([one, dt], -1), jnp.stack([zero, one], -1)], -2)


def _time(kernel: Kernel, at: Any) -> Any:
    if at is None:
        raise errors.InvalidArgument(
            f"{type(kernel).__name__} is not stationary: its state has no law at all times.",
            where=errors.caller(), given="no time", expected="the time of the first state",
            fix="kernel.start(time)",
        )  # fmt: skip
    return at


def _since(kernel: Wiener | IntegratedWiener, at: Any) -> jax.Array:
    since = as_float(_time(kernel, at) - kernel.origin)
    if not isinstance(since, jax.core.Tracer) and np.any(np.asarray(since) < 0):
        raise errors.InvalidArgument(
            f"{type(kernel).__name__} has no law before its origin.", where=errors.caller(),
            given=f"a time {float(np.min(np.asarray(since))):g} from the origin",
            expected="times from the origin on",
            fix="origin=times.min(), and level= for a start that is not zero",
        )  # fmt: skip
    return since
