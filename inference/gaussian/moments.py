"""Moments of a decay over the unit interval, to full relative precision at any rate."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp


def decay_moments(rate: jax.Array, most: int) -> jax.Array:
    """m_n = ∫_0^1 v^n exp(-rate v) dv for n = 0, ..., most, on a last axis.

    Each is positive and right to a few units of its last place, from rate 0 on: noise over a
    gap is made of them, and nothing cancels as the gap goes to zero. The derivative is that of
    the integral, -m_{n+1}, and as precise.

    Args:
      rate: zero or more, of any shape.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.moments import decay_moments
    >>> [round(float(m), 4) for m in decay_moments(jnp.array(0.0), 3)]  # 1 / (n + 1)
    [1.0, 0.5, 0.3333, 0.25]
    """
    return jnp.stack(each_moment(rate, most), -1)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def each_moment(rate: jax.Array, most: int) -> tuple[jax.Array, ...]:
    """The same, each by itself: one array of them would be taken apart again."""
    edge = most / 2 + 1
    # no minimum, whose derivative at a tie is half of each: a scan that is differentiated
    # backwards and then forwards forgets the rule below, and differentiates this code
    # (findings/jax_scan_forgets_custom_jvp.sh)
    below = rate <= edge
    decay, slow, fast = jnp.exp(-rate), jnp.where(below, rate, edge), jnp.where(below, edge, rate)
    # a series for the last one; each before it is a sum of two positive numbers
    terms, coefficients = 1.0, [1 / (most + 1)]
    for k in range(1, 200):
        terms *= edge / (most + 1 + k)
        if terms < 1e-17:
            break
        coefficients.append(coefficients[-1] / (most + 1 + k))
    series = jnp.zeros_like(slow)
    for coefficient in reversed(coefficients):
        series = series * slow + coefficient
    down = [decay * series]
    for n in reversed(range(most)):
        down.append((decay + slow * down[-1]) / (n + 1))
    # and at fast rates, the other way: little is taken from much
    up = [(1 - decay) / fast]
    for n in range(most):
        up.append(((n + 1) * up[-1] - decay) / fast)
    return tuple(jnp.where(below, a, b) for a, b in zip(down[::-1], up, strict=True))


@each_moment.defjvp
def _derivative(most: int, primals: tuple, tangents: tuple) -> tuple:
    (rate,), (turn,) = primals, tangents
    found = each_moment(rate, most + 1)
    return found[:-1], tuple(-moment * turn for moment in found[1:])


def hyperbolic(square: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cosh(r) and sinh(r) / r of r² = `square`, which may be negative, within [-1, 1].

    Both are whole functions of the square, so their derivatives at zero are no 0/0.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.moments import hyperbolic
    >>> even, odd = jax.jacfwd(hyperbolic)(jnp.array(0.0))
    >>> round(float(even), 4), round(float(odd), 4)  # 1/2 and 1/6
    (0.5, 0.1667)
    """
    even, odd = jnp.zeros_like(square), jnp.zeros_like(square)
    for k in reversed(range(11)):
        even = even * square + 1 / math.factorial(2 * k)
        odd = odd * square + 1 / math.factorial(2 * k + 1)
    return even, odd
