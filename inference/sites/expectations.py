"""The likelihood at the nodes of a quadrature over the marginals of a process."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ppl.quadrature import gauss

from .terms import Terms


def nodes_of(count: int, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights of Gauss-Hermite quadrature for a standard normal, `(count,)`."""
    x, w = gauss("normal", count)
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def at_nodes(
    terms: Terms, mean: jax.Array, variance: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The values of each f_i at the nodes, and the terms there: `(count, n)` both."""
    f = mean + jnp.sqrt(variance) * x[:, None]
    return f, jax.vmap(terms)(f)
