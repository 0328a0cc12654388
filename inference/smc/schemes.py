"""Resampling schemes: normalised weights to ancestors, i with n weights[i] offspring on average.

All of them take O(n). Cumulated weights are kept as a whole number of offspring and a
fraction of one, so that single precision serves ten million particles: the sum of a million
weights in one float32 would be known to a sixteenth of an offspring.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ppl import draw, errors

from ..validation.settings import shown
from .prefix import prefixes


def multinomial(weights: jax.Array) -> jax.Array:
    """Ancestors drawn independently, each i with probability `weights[i]`.

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,).

    >>> import jax.numpy as jnp
    >>> from inference import multinomial
    >>> from ppl import integrate
    >>> weights = jnp.array([0.5, 0.25, 0.25])
    >>> copies = lambda: (multinomial(weights)[:, None] == jnp.arange(3)).sum(0)
    >>> integrate(copies)().round(4).tolist()  # on average n * weights
    [1.5, 0.75, 0.75]
    """
    check_weights(weights)
    n = weights.shape[0]
    if n <= _FEW:
        return draw(dist.CategoricalProbs(weights).expand([n]))
    # one uniform in single precision does not tell a million categories apart: first which
    # block, then which of the block
    size = 1 << ((n - 1).bit_length() + 1) // 2
    blocks = jnp.pad(weights, (0, -n % size)).reshape(-1, size)
    cumulated = jnp.cumsum(blocks, 1)
    block = draw(dist.CategoricalProbs(cumulated[:, -1]).expand([n]))
    u = draw(dist.Uniform(jnp.zeros((), weights.dtype), 1.0).expand([n]))
    return block * size + _search(cumulated, blocks, block, u)


_FEW = 1 << 14


def _search(cumulated: jax.Array, blocks: jax.Array, block: jax.Array, u: jax.Array) -> jax.Array:
    """The first entry in its block whose cumulated weight exceeds u times the block's."""
    size = cumulated.shape[1]
    point = u * cumulated[block, size - 1]
    low = jnp.zeros_like(block)
    for step in (1 << i for i in reversed(range(size.bit_length() - 1))):
        low = jnp.where(cumulated[block, low + step - 1] <= point, low + step, low)
    last = size - 1 - jnp.argmax(jnp.flip(blocks > 0, 1), 1)
    return jnp.minimum(low, last[block])


def systematic(weights: jax.Array) -> jax.Array:
    """Ancestors by one uniform: i gets floor or ceil of n weights[i] copies.

    The number of points u, 1 + u, ... below n times the cumulated weight is the
    cumulated number of offspring (Carpenter, Clifford and Fearnhead 1999).

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,), in order.

    >>> import jax.numpy as jnp
    >>> from inference import systematic
    >>> from ppl import replay
    >>> ancestors = lambda: systematic(jnp.array([0.5, 0.25, 0.2, 0.05]))
    >>> [replay(ancestors, {"#0": u})().tolist() for u in (0.1, 0.9)]
    [[0, 0, 1, 2], [0, 0, 1, 3]]
    """
    check_weights(weights)
    u = draw(dist.Uniform(jnp.zeros((), weights.dtype), 1.0))
    whole, part = cumulated_offspring(weights)
    return ancestors_of(weights, whole + (part > u))


def stratified(weights: jax.Array) -> jax.Array:
    """Ancestors by one uniform for each of n strata (Kitagawa 1996): points i + u_i.

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,), in order.

    >>> import jax.numpy as jnp
    >>> from inference import stratified
    >>> from ppl import replay
    >>> ancestors = lambda: stratified(jnp.array([0.5, 0.25, 0.25]))
    >>> replay(ancestors, {"#0": jnp.array([0.9, 0.6, 0.1])})().tolist()
    [0, 1, 1]
    """
    check_weights(weights)
    n = weights.shape[0]
    u = draw(dist.Uniform(jnp.zeros((), weights.dtype), 1.0).expand([n]))
    whole, part = cumulated_offspring(weights)
    return ancestors_of(weights, whole + (part > u.at[whole].get(mode="clip")))


def residual(weights: jax.Array) -> jax.Array:
    """floor(n weights[i]) copies, the others by what is left of it (Liu and Chen 1998).

    The others are independent of one another. At weights whose n-folds are whole numbers
    but for rounding (1e-6 in float32) nothing is left, and nothing is drawn.

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,): first the certain copies, in order.

    >>> import jax.numpy as jnp
    >>> from inference import residual
    >>> from ppl import law
    >>> found = law(lambda: residual(jnp.array([0.6, 0.3, 0.1, 0.0])))()
    >>> [(a.tolist(), round(m, 4)) for a, m in zip(found.values, found.masses.tolist())]
    [([0, 0, 1, 0], 0.4), ([0, 0, 1, 1], 0.2), ([0, 0, 1, 2], 0.4)]
    """
    check_weights(weights)
    n = weights.shape[0]
    expected = n * weights
    copies = jnp.floor(expected + 8 * jnp.finfo(weights.dtype).eps * jnp.maximum(expected, 1))
    left = jnp.maximum(expected - copies, 0)
    copies = copies.astype(int)
    ends = prefixes(jnp.add, 0, copies)
    slots = jnp.arange(n)
    total = left.sum()
    # where nothing is left the draws are made, and not used
    others = multinomial(jnp.where(total > 0, left / jnp.where(total > 0, total, 1), weights))
    return jnp.where(slots < ends[-1], _spread(ends, n), others)


def killing(weights: jax.Array) -> jax.Array:
    """Each particle stays with probability weights[i] / max(weights), else is drawn anew.

    Del Moral (2004, section 2.5.1). Most particles keep their slot where weights are even, so
    that little memory moves.

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,).

    >>> import jax.numpy as jnp
    >>> from inference import killing
    >>> from ppl import integrate
    >>> weights = jnp.array([0.5, 0.25, 0.25])
    >>> copies = lambda: (killing(weights)[:, None] == jnp.arange(3)).sum(0)
    >>> integrate(copies)().round(4).tolist()  # on average n * weights
    [1.5, 0.75, 0.75]
    """
    check_weights(weights)
    stays = draw(dist.BernoulliProbs(weights / jnp.max(weights))) == 1
    return jnp.where(stays, jnp.arange(weights.shape[0]), multinomial(weights))


def ssp(weights: jax.Array) -> jax.Array:
    """Srinivasan sampling: floor or ceil of n weights[i] copies, negatively associated.

    The fractions of n weights[i] are rounded two at a time: of a pair one becomes whole, and
    the other goes on (Gerber, Chopin and Whiteley 2019, algorithm 1). Its error goes to zero in
    any order of the particles, which is not known of systematic resampling. A loop over the
    particles, one after the other.

    Args:
      weights: normalised, of shape (n,).

    Returns:
      Indices of shape (n,), in order.

    >>> import jax, jax.numpy as jnp
    >>> from inference import ssp
    >>> from ppl import seed
    >>> seed(ssp)(jax.random.key(0), jnp.array([0.5, 0.25, 0.25, 0.0])).tolist()
    [0, 0, 1, 2]
    """
    check_weights(weights)
    n = weights.shape[0]
    expected = n * weights
    copies = jnp.floor(expected + 8 * jnp.finfo(weights.dtype).eps * jnp.maximum(expected, 1))
    parts = jnp.maximum(expected - copies, 0)
    copies = copies.astype(int)

    def pair(carry, x):
        """One more particle `j` beside the one that is not whole yet, `i`."""
        i, p, copies = carry
        j, q = x
        total = p + q
        below = total < 1
        # below one: all of it goes to one of them; else one of them becomes one. Of two that are
        # whole, one of positive weight takes what rounding leaves at the end
        share = jnp.where(below, p / jnp.where(total > 0, total, 1), (1 - q) / (2 - total))
        share = jnp.where(total > 0, share, weights[i] > 0)
        first = draw(dist.BernoulliProbs(share)) == 1
        done = jnp.where(below, jnp.where(first, j, i), jnp.where(first, i, j))
        goes_on = jnp.where(done == i, j, i)
        copies = copies.at[done].add(jnp.where(below, 0, 1))
        return (goes_on, jnp.where(below, total, total - 1), copies), None

    carry = jnp.zeros((), int), parts[0], copies
    if n > 1:
        carry, _ = lax.scan(pair, carry, (jnp.arange(1, n), parts[1:]))
    i, part, copies = carry
    copies = copies.at[i].add((part > 0.5).astype(copies.dtype))  # 0 or 1, but for rounding
    return ancestors_of(weights, prefixes(jnp.add, 0, copies))


def cumulated_offspring(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """n times the cumulated weights, as whole numbers and fractions in [0, 1)."""
    n = weights.shape[0]
    expected = n * weights
    whole = jnp.floor(expected)

    def add(a, b):
        part = a[1] + b[1]
        carry = part >= 1
        return a[0] + b[0] + carry, part - carry

    whole, part = whole.astype(int), expected - whole
    return prefixes(add, (0, 0.0), (whole, part))


def ancestors_of(weights: jax.Array, ends: jax.Array) -> jax.Array:
    """The ancestors of which `ends` are the cumulated numbers, made to be n in all.

    What rounding leaves over, or counts too much, is that of the last of positive weight.
    """
    n = weights.shape[0]
    last = jnp.max(jnp.where(weights > 0, jnp.arange(n), 0))
    ends = jnp.where(jnp.arange(n) >= last, n, jnp.minimum(ends, n))
    return _spread(ends, n)


def _spread(ends: jax.Array, n: int) -> jax.Array:
    """n slots, of which those before ends[i], and not before ends[i - 1], are i's."""
    starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
    slots = jnp.where(ends > starts, starts, n)
    # no two of one slot, but for those that have none, which share a slot beyond the last
    first = (
        jnp.zeros(n + 1, ends.dtype)
        .at[slots]
        .set(jnp.arange(n, dtype=ends.dtype), mode="promise_in_bounds")
    )
    return prefixes(jnp.maximum, 0, first[:n])


def check_weights(weights: Any) -> None:
    """Raise `InvalidArgument` unless `weights` is an array of n numbers."""
    known = isinstance(weights, (jax.Array, np.ndarray)) and weights.ndim == 1
    if not known or not jnp.issubdtype(weights.dtype, jnp.floating):
        raise errors.InvalidArgument(
            "Weights are an array of numbers, one for each particle.", where=errors.caller(),
            given=shown(weights), expected="normalised weights, of shape (n,)",
            fix="resample(weighted, scheme) normalises the weights, and calls the scheme",
        )  # fmt: skip
