"""The stochastically driven harmonic oscillator, at any damping and through the critical one.

With x = omega dt, a = x / (2 quality) and z = a² - x², the state (f, f' / omega) moves by
exp(-a) times entries made of cosh(sqrt z) and sinh(sqrt z) / sqrt z. Both are functions of z,
smooth through z = 0: so are the kernel and its derivatives through quality 1/2.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from .hyperparameters import as_float, check_parameters, record
from .kernel import Kernel
from .moments import decay_moments, hyperbolic


@record
class SHO(Kernel):
    """The law of f'' + (omega / quality) f' + omega² f = white noise, with variance sigma².

    Quality above 1/2 oscillates with a decay, below it only decays, and at 1/2 the kernel is
    sigma² (1 + x) exp(-x), x = omega |s - t|, with finite derivatives (tinygp 0.3.1 has
    derivative 0 there). Named as in celerite (Foreman-Mackey et al. 2017, eq. 20).

    Raises:
      InvalidArgument: a hyperparameter is not positive.

    >>> import jax
    >>> from inference.gaussian.oscillator import SHO
    >>> k = lambda quality: SHO(omega=1.0, quality=quality).covariance(0.0, 2.0)
    >>> round(float(k(0.5)), 6)  # 3 exp(-2)
    0.406006
    >>> round(float(jax.grad(k)(0.5)), 4)  # -(2/3) 2³ exp(-2)
    -0.7218
    """

    omega: Any
    quality: Any
    sigma: Any = 1.0

    def _check(self) -> None:
        check_parameters(self, omega=self.omega, quality=self.quality)
        check_parameters(self, 0.0, sigma=self.sigma)

    @property
    def dimension(self) -> int:
        return 2

    @property
    def rank(self) -> int | None:
        return None

    def transition(self, dt: Any) -> jax.Array:
        x = as_float(dt) * self.omega
        a, even, odd = _damped(x, self.quality)
        return _matrix(even + a * odd, x * odd, -x * odd, even - a * odd)

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        x = as_float(dt) * self.omega
        a, even, odd = _damped(x, self.quality)
        z = a**2 - x**2
        first = decay_moments(2 * a, 0)[..., 0]
        # f alone, ∝ dt³: by a series about critical damping, and in closed form off it
        near = jnp.clip(z, -1.0, 1.0)
        moments = decay_moments(2 * a, 20)
        series = jnp.zeros_like(z)
        for k in reversed(range(1, 11)):
            factor = 2.0 ** (2 * k - 1) / math.factorial(2 * k)
            series = series * near + factor * moments[..., 2 * k]
        root = jnp.sqrt(jnp.maximum(z, 1.0))
        slow = jnp.where(z > 1.0, x**2 / (a + root), 1.0)  # a - root
        over = decay_moments(2 * slow, 0) - 2 * first[..., None] + decay_moments(2 * (a + root), 0)
        over = over[..., 0] / (4 * root**2)
        closed = jnp.where(z > 1.0, x**2 * over, (first - odd * (even + a * odd)) / 2)
        value = 4 * a * jnp.where(jnp.abs(z) <= 1.0, x**2 * series, closed)
        cross = 2 * a * x * odd**2
        speed = 2 * a * (first + odd * (even - a * odd))
        return jnp.asarray(self.sigma) ** 2 * _matrix(value, cross, cross, speed)

    def start(self, at: Any) -> jax.Array:
        return jnp.asarray(self.sigma) ** 2 * jnp.eye(2)

    def observation(self) -> jax.Array:
        return jnp.eye(2)[0]

    def error(self) -> Any:
        return 0.0


def _damped(x: jax.Array, quality: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """a, exp(-a) cosh(sqrt z) and exp(-a) sinh(sqrt z) / sqrt z."""
    a = x / (2 * quality)
    z = a**2 - x**2
    even, odd = hyperbolic(jnp.clip(z, -1.0, 1.0))
    root = jnp.sqrt(jnp.maximum(z, 1.0))  # overdamped: a - root, without a difference
    slow, fast = jnp.exp(-jnp.where(z > 1.0, x**2 / (a + root), 1.0)), jnp.exp(-(a + root))
    angle = jnp.sqrt(jnp.maximum(-z, 1.0))
    decay = jnp.exp(-a)
    near = jnp.abs(z) <= 1.0
    cosine = jnp.where(z > 1.0, (slow + fast) / 2, decay * jnp.cos(angle))
    sine = jnp.where(z > 1.0, (slow - fast) / (2 * root), decay * jnp.sin(angle) / angle)
    return a, jnp.where(near, decay * even, cosine), jnp.where(near, decay * odd, sine)


def _matrix(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    return jnp.stack([jnp.stack([a, b], -1), jnp.stack([c, d], -1)], -2)
