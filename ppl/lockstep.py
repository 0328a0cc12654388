"""Chains that run together: a program of many chains whose `vmap` is a program of more chains.

A loop that some chains leave sooner than others is batched by JAX with a select of all that
it carries, at each of its steps. A program written for many chains can do better, if `vmap`
gives it more chains instead of batching what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


def lockstep(program: Callable[..., Any], shared: list[jax.Array], own: tuple[Any, ...]) -> Any:
    """`program((False, ...), shared, *own)` for one chain, so that `vmap` adds chains to it.

    Args:
      program: `(mapped, shared, *own) -> results`, for chains along the first axis of `own`,
        of the results, and of those of `shared` that are `mapped` (a tuple of bools). It may
        close over nothing that is traced.
      shared: arrays; they stay as they are unless a `vmap` maps them.
      own: of one chain, without that axis.

    >>> import jax, jax.numpy as jnp
    >>> from ppl.lockstep import lockstep
    >>> def program(mapped, shared, x):
    ...     print(mapped, x.shape)
    ...     return x + shared[0]
    >>> one = lambda shift, x: lockstep(program, [shift], (x,))
    >>> jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(2.0), jnp.arange(3.0)).tolist()
    (False,) (1,)
    (False,) (3,)
    (True,) (6,)
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    own = jax.tree.map(lambda x: x[None], own)
    results = _many(program, (False,) * len(shared))(shared, *own)
    return jax.tree.map(lambda x: x[0], results)


def _many(program: Callable[..., Any], mapped: tuple[bool, ...]) -> Callable[..., Any]:
    @custom_vmap
    def many(shared: list, *own: Any) -> Any:
        return program(mapped, shared, *own)

    @many.def_vmap
    def rule(size: int, batched: list, shared: list, *own: Any) -> tuple[Any, Any]:
        chains = jax.tree.leaves(own)[0].shape[1 if jax.tree.leaves(batched[1:])[0] else 0]

        def merged(x: jax.Array, new: bool, old: bool) -> jax.Array:
            if not (new or old):
                return x
            x = x if new else jnp.broadcast_to(x, (size, *x.shape))
            if not old:
                x = jnp.broadcast_to(x[:, None], (size, chains, *x.shape[1:]))
            return x.reshape(size * chains, *x.shape[2:])

        inner = _many(program, tuple(map(max, batched[0], mapped)))
        shared = [merged(*each) for each in zip(shared, batched[0], mapped, strict=True)]
        results = inner(shared, *jax.tree.map(partial(merged, old=True), own, tuple(batched[1:])))
        results = jax.tree.map(lambda x: x.reshape(size, chains, *x.shape[1:]), results)
        return results, jax.tree.map(lambda x: True, results)

    return many
