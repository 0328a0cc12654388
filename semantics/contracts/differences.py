"""The Jacobian of a move by finite differences, to compare with the one that JAX takes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from inference.move import Move


def slopes(move: Move, x: dict, u: dict) -> jax.Array:
    """df over all continuous coordinates by central differences, for steps that shrink by 4."""
    leaves, tree = jax.tree.flatten((x, u))
    places = [i for i, leaf in enumerate(leaves) if continuous(leaf)]
    if not places:
        return jnp.zeros((3, 0, 0))
    z, unravel = ravel_pytree([leaves[i] for i in places])

    def f(z: jax.Array) -> jax.Array:
        full = list(leaves)
        for i, leaf in zip(places, unravel(z), strict=True):
            full[i] = leaf
        outs = jax.tree.leaves(move.involution(*jax.tree.unflatten(tree, full)))
        return jnp.concatenate([jnp.ravel(outs[i]) for i in places])

    def at_step(h: jax.Array) -> jax.Array:
        steps = jnp.diag(h * jnp.maximum(1.0, jnp.abs(z)))
        return jax.vmap(lambda e: (f(z + e) - f(z - e)) / (2 * e.sum()))(steps)

    return jax.vmap(at_step)(4.0 ** -jnp.arange(3, 13))


def extrapolated(slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log |det df| at each point from the slopes for several steps, and its error.

    Each two steps are extrapolated (Richardson), and the value is taken where successive
    ones agree best: larger steps are off by curvature, smaller ones by rounding.
    """
    log_dets = np.linalg.slogdet((16 * slopes[:, 1:] - slopes[:, :-1]) / 15)[1]
    gaps = difference(log_dets[:, 1:], log_dets[:, :-1])
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    best, points = gaps.argmin(1), np.arange(len(gaps))
    return log_dets[points, best + 1], gaps[points, best]


def continuous(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|, zero where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, np.abs(a - b))
