"""The log evidence of a chain, whose derivative is a pass back instead of that of a loop."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .chain import Chain, Steps, steps_of
from .filter import predicted
from .score import Seen, score, seen, smoothed


def evidence(chain: Chain, values: jax.Array, along: str = "scan") -> jax.Array:
    """log p(y_1, ..., y_n), of those that are present.

    It is -inf where an observation is impossible: infinite, or different from what is certain.
    Derivatives of first order, forward and reverse, are made from one pass back; those of
    higher order differentiate that pass, by JAX's own rules.

    Args:
      values: y, `(n,)`; what is not present may be any number.
      along: "scan" goes through the steps, "blocks" through some blocks of them side by side,
        "tree" through all at once, in a depth of log n; the number is the same. The last two
        need each exact value to vary given the state before it: h Q h' + R > 0.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.chain import Chain
    >>> from inference.gaussian.evidence import evidence
    >>> still = jnp.zeros((1, 1, 1))
    >>> noise = lambda r: Chain(jnp.zeros(1), still[0], still, still, jnp.ones(1), r, jnp.ones(1))
    >>> round(float(evidence(noise(jnp.array([4.0])), jnp.array([2.0]))), 4)  # log N(2; 0, 4)
    -2.1121
    """
    possible = jnp.isfinite(values) | (chain.present <= 0)
    steps = steps_of(chain, jnp.where(jnp.isfinite(values), values, 0.0))
    return jnp.where(jnp.all(possible), _evidence(along, steps), -jnp.inf)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _evidence(along: str, steps: Steps) -> jax.Array:
    return _log_density(steps, seen(steps, *predicted(steps, along)))


def _log_density(steps: Steps, found: Seen) -> jax.Array:
    says = found.precision > 0
    scale = jnp.where(says, found.spread, 1 / (2 * math.pi))
    logs = jnp.log(2 * math.pi * scale) + found.precision * found.error**2
    wrong = (steps.present > 0) & ~says & (found.error != 0)
    return jnp.where(jnp.any(wrong), -jnp.inf, -0.5 * jnp.sum(logs))


@partial(_evidence.defjvp, symbolic_zeros=True)
def _derivative(along: str, primals: tuple, tangents: tuple) -> tuple:
    (steps,), (turns,) = primals, tangents
    found = seen(steps, *predicted(steps, along))
    slopes, total = score(steps, found, along), jnp.zeros((), steps.values.dtype)
    for part in dataclasses.fields(steps):
        turn: Any = getattr(turns, part.name)
        if not isinstance(turn, SymbolicZero):
            total = total + jnp.sum(getattr(slopes, part.name) * turn)
    return _log_density(steps, found), total


def smooth(chain: Chain, values: jax.Array, along: str = "scan") -> tuple[jax.Array, jax.Array]:
    """The mean `(n, d)` and covariance `(n, d, d)` of each state, given all that is present.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.chain import Chain
    >>> from inference.gaussian.evidence import smooth
    >>> one = jnp.ones((1, 1, 1))
    >>> walk = Chain(jnp.zeros(1), jnp.eye(1), one, one, jnp.ones(1), jnp.ones(1), jnp.ones(1))
    >>> mean, covariance = smooth(walk, jnp.array([3.0]))
    >>> round(float(mean[0, 0]), 4), round(float(covariance[0, 0, 0]), 4)  # 2/3 of 3; 2 - 4/3
    (2.0, 0.6667)
    """
    steps = steps_of(chain, jnp.where(chain.present > 0, values, 0.0))
    found = smoothed(steps, seen(steps, *predicted(steps, along)), along)
    return jnp.moveaxis(found[0], -1, 0), jnp.moveaxis(found[1], -1, 0)
