"""Draws of a process: a linear map of standard normals, one step after another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from .ordered import Ordered


def root(covariance: jax.Array) -> jax.Array:
    """L with L L' = covariance, lower triangular; a variance of zero makes a column of zeros.

    A variance that is rounding alone counts as zero, and the derivative is finite there.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.paths import root
    >>> root(jnp.array([[4.0, 2.0], [2.0, 1.0]])).tolist()
    [[2.0, 0.0], [1.0, 0.0]]
    """
    d = covariance.shape[-1]
    columns: list[jax.Array] = []
    least = d * jnp.finfo(covariance.dtype).eps
    for j in range(d):
        left = covariance[..., :, j]
        for column in columns:
            left = left - column * column[..., j : j + 1]
        pivot = left[..., j : j + 1]
        varies = pivot > least * covariance[..., j, j][..., None]
        scaled = left / jnp.sqrt(jnp.where(varies, pivot, 1.0))
        columns.append(jnp.where(varies & (jnp.arange(d) >= j), scaled, 0.0))
    return jnp.stack(columns, -1)


def path(process: Ordered, normals: jax.Array) -> jax.Array:
    """The process at its times, as they were given, from standard normals `(n, dimension)`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.ordered import ordered
    >>> from inference.gaussian.paths import path
    >>> times = jnp.array([1.0, 0.0, 1.0])
    >>> process = ordered(Matern12(1.0), times, jnp.zeros(3), jnp.ones(3))
    >>> f = path(process, jnp.ones((3, 1)))  # 1, then exp(-1) + sqrt(1 - exp(-2)), twice
    >>> f.round(4).tolist()
    [1.2978, 1.0, 1.2978]
    """
    chain = process.chain
    cast = lambda x: jnp.asarray(x, normals.dtype)  # noqa: E731
    start = root(cast(chain.covariance)) @ normals[0]
    moves = cast(chain.transition)
    kicks = jnp.einsum("nij,nj->ni", root(cast(chain.noise)), normals)

    def step(state: jax.Array, move: tuple) -> tuple[jax.Array, jax.Array]:
        state = move[0] @ state + move[1]
        return state, cast(chain.observation) @ state

    _, found = lax.scan(step, start, (moves, kicks))
    return process.undone(found)
