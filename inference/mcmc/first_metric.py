"""The metric of the first step of a run, from where it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .metric import Metric

FirstMetric = Callable[[Any, Metric, bool], Metric]
"""From a state, the metric that would be used, and whether little or no warm-up follows."""

_MOST = 60
"""So many times a step size is doubled or halved."""


def first_step_size(log_ratio: Callable[[jax.Array], jax.Array], start: jax.Array) -> jax.Array:
    """`start`, doubled or halved: the largest of these with a log acceptance above log(1/2).

    Hoffman and Gelman (2014), algorithm 4, without its last doubling, which a run that warms up
    would take back. Where all or none is so (a flat density), `start`.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.first_metric import first_step_size
    >>> [first_step_size(lambda h: -((h / s) ** 2), jnp.array(1.0)).item() for s in (0.01, 1, 100)]
    [0.0078125, 0.5, 64.0]
    """
    level = -math.log(2.0)

    def fine(step: jax.Array) -> jax.Array:
        return log_ratio(step) > level  # what is no number is not

    grows = fine(start)

    def on(carry: tuple) -> jax.Array:
        _, now, tries = carry
        return (now == grows) & (tries < _MOST)

    def further(carry: tuple) -> tuple:
        step, _, tries = carry
        step = jnp.where(grows, 2 * step, step / 2)
        return step, fine(step), tries + 1

    step, now, _ = jax.lax.while_loop(on, further, (start, grows, jnp.zeros((), int)))
    last = jnp.where(grows, step / 2, step)
    return jnp.where(now == grows, start, last)


def scales_by_slopes(
    gradient: Callable[[jax.Array], jax.Array], z: jax.Array, slope: jax.Array
) -> jax.Array:
    """Variances of the coordinates, by how much the gradient changes from z to a point beside it.

    Of a normal density with independent coordinates they are exact, wherever z is. 1 where the
    gradient does not change, or is not finite.

    Args:
      slope: the gradient at z.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.first_metric import scales_by_slopes
    >>> variances = jnp.array([1e-6, 1.0, 1e6])
    >>> gradient = lambda z: (z - 50.0) / variances
    >>> found = scales_by_slopes(gradient, jnp.ones(3), gradient(jnp.ones(3)))
    >>> (found / variances).round(2).tolist()
    [1.0, 1.0, 1.0]
    """
    beside = z + 2.0**-8 * signs(z) * jnp.maximum(jnp.abs(z), 1.0)
    found = jnp.abs(beside - z) / jnp.abs(gradient(beside) - slope)
    return jnp.where(jnp.isfinite(found) & (found > 0), found, jnp.ones((), z.dtype))


def signs(z: jax.Array) -> jax.Array:
    """A direction with no coordinate left out: 1, -1, 1, ..."""
    return jnp.where(jnp.arange(len(z)) % 2 == 0, 1, -1).astype(z.dtype)
