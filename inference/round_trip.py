"""The round trip of an involution, checked while a compiled program runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors


def came_back(
    before: Any,
    after: Any,
    log_ratio: jax.Array,
    involution: Callable,
    what: str = "The involution of a move is not its own inverse.",
    fix: str = "return the u that brings the move back; semantics.check_move shows a point",
) -> jax.Array:
    """`log_ratio`, and an error of the host's where `after` is another point than `before`.

    Of continuous coordinates half of the digits must be right, relative above one; others
    must be equal. Points of ratio zero may go anywhere, since no chain comes to them.

    Raises:
      InvalidArgument: raised on the host, so that JAX gives its message in an error of its own.

    >>> import jax, jax.numpy as jnp
    >>> from inference.round_trip import came_back
    >>> one, two = ({"x": jnp.array(1)}, {}), ({"x": jnp.array(2)}, {})
    >>> float(came_back(one, one, jnp.array(0.5), lambda x, u: (x, u)))
    0.5
    """
    found = [_apart(*pair) for pair in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    found = jnp.stack([*found, jnp.zeros(())])  # there may be no coordinates
    apart = jnp.where(log_ratio > -jnp.inf, found, 0.0)
    names = [
        f"{('latents', 'u')[part.idx]}{jax.tree_util.keystr(tuple(rest))}"
        for (part, *rest), _ in jax.tree.leaves_with_path(before)
    ]
    like = jax.ShapeDtypeStruct(log_ratio.shape, log_ratio.dtype)
    judge = partial(_judge, what, fix, names, errors.defined(involution))
    return jax.pure_callback(judge, like, apart, log_ratio, vmap_method="broadcast_all")


def _apart(a: Any, b: Any) -> jax.Array:
    """The largest departure of two arrays, as a multiple of what is allowed."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return jnp.where(jnp.all(a == b), 0.0, jnp.inf)
    allowed = jnp.sqrt(jnp.finfo(a.dtype).eps) * jnp.maximum(1.0, jnp.abs(a))
    gap = jnp.where(a == b, 0.0, jnp.abs(a - b) / allowed)
    return jnp.max(jnp.where(jnp.isnan(gap), jnp.inf, gap), initial=0.0)


def _judge(
    what: str, fix: str, names: list[str], where: str, apart: Any, log_ratio: Any
) -> np.ndarray:
    worst = np.asarray(apart).reshape(-1, len(names) + 1).max(0)
    i = int(worst.argmax())
    if worst[i] > 1:
        raise errors.InvalidArgument(
            what,
            where=f"{names[i]} at {where}",
            given=f"there and back, {names[i]} is off by {worst[i]:.3g} times the most allowed"
            if np.isfinite(worst[i])
            else f"there and back, {names[i]} is another value",
            expected="the same latents and u again",
            fix=fix,
        )
    return np.asarray(log_ratio)
