"""Values that move with the parameters of their law although no formula makes them of noise.

If F is the distribution function and p the density, a value at which F stays what it is moves
with velocity -dF/dtheta / p. Values are drawn, and get this derivative.

Source: Figurnov, Mohamed and Mnih, Implicit reparameterization gradients (NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import digamma

from ..effects import weak


def moved_along(x: Any, velocity: Callable[..., Any], *parameters: Any) -> Any:
    """`x`, with first and second derivatives of a point that moves with the parameters.

    Args:
      x: the point, without derivative.
      velocity: `(x, *parameters)` to the derivatives with respect to the parameters.
    """

    def with_derivative(at: Any) -> Any:
        speeds = velocity(at, *parameters)
        return x + sum(weak(v, p) for v, p in zip(speeds, parameters, strict=True))

    # the velocity of the point where it has moved to
    return with_derivative(with_derivative(x))


def moving_gamma(a: Any, x: Any) -> Any:
    """`x`, a value of Gamma(a, 1), with its derivatives with respect to `a`."""
    return moved_along(x, lambda x, a: (_velocity(a, x),), a)


@jax.custom_jvp
def _velocity(a: Any, x: Any) -> Any:
    a, x = jnp.broadcast_arrays(a, x)
    return lax.random_gamma_grad(a, x)  # type: ignore[call-arg]


@_velocity.defjvp
def _velocity_jvp(primals, tangents):
    # JAX has no derivative of its own velocity: that of an integral is taken
    return _velocity(*primals), jax.jvp(integrated_velocity, primals, tangents)[1]


_STEPS = np.linspace(-4.2, 4.2, 121)
"""Places of the trapezoid rule for integrals over (0, inf), y = exp(pi/2 sinh(t))."""


_FAR = 600.0
"""exp of so much is a number still."""


def integrated_velocity(a: Any, x: Any) -> Any:
    """The same by quadrature, of which JAX knows all derivatives.

    -1/p(x) times the integral over (0, x) of (log t - digamma(a)) p(t), or 1/p(x) times that over
    (x, inf), whichever is short.

    >>> import jax, jax.numpy as jnp
    >>> from ppl.estimators.implicit import integrated_velocity
    >>> with jax.enable_x64(True):
    ...     a, x = jnp.array([2.5, 1.7])
    ...     bool(abs(integrated_velocity(a, x) - jax.lax.random_gamma_grad(a, x)) < 1e-10)
    True
    """
    a, x = (jnp.asarray(v)[..., None] for v in jnp.broadcast_arrays(a, x))
    y = np.exp(np.pi / 2 * np.sinh(_STEPS))
    weight = y * np.pi / 2 * np.cosh(_STEPS) * (_STEPS[1] - _STEPS[0])
    # integrands fall off at this rate; their derivatives do not depend on it
    rate = lax.stop_gradient(jnp.abs(a - x) + jnp.sqrt(jnp.minimum(a, x)) + a / (1 + a))
    y, weight = y / rate, weight / rate
    below = x < a

    def term(sign: int) -> Any:
        # t = x exp(-y) below x, and x exp(y) above it
        s = sign * jnp.minimum(y, _FAR)
        grows = jnp.where(below == (sign < 0), x * -jnp.expm1(s) + a * s, -y)
        return (jnp.log(x) + s - digamma(a)) * jnp.exp(grows) * weight

    left, right = jnp.sum(term(-1), -1), jnp.sum(term(1), -1)
    return x[..., 0] * jnp.where(below[..., 0], -left, right)


def at_level(
    x: Any, d: Any, level: Callable[[Any, Any], Any], log_density: Callable[[Any, Any], Any]
) -> Any:
    """`x`, a value of `d`, with first and second derivatives of a point at a constant level.

    `level(d, x)` is the distribution function, `log_density(d, x)` the log of its derivative.
    """

    def per_density(at: Any) -> Any:
        log = log_density(d, at)
        # where the density is no number any more, the level has no change either
        return jnp.exp(-jnp.maximum(log, jnp.log(jnp.finfo(log.dtype).tiny)))

    still = jax.tree.map(jax.lax.stop_gradient, d)
    move = -weak(per_density(x), level(d, x))
    # the level at half the way: in second derivatives the way counts twice
    half = x + move / 2
    change = level(d, half) - level(still, half)
    return x - weak(per_density(x + move), change)
