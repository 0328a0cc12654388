"""A quick result where it is right, and a slow one elsewhere, in copies side by side too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


def guarded(slow: Callable) -> Callable:
    """`either(fine, quick, *args)`: `quick` if it is fine, and `slow(*args)` if it is not.

    What is slow is computed only if it is needed: in a `vmap`, where both sides of a `cond` would
    be computed always, if any of the copies needs it. All derivatives are those of the side that
    is taken.

    >>> import jax, jax.numpy as jnp
    >>> from inference.exact.guarded import guarded
    >>> either = guarded(jnp.log1p)
    >>> f = lambda x: either(x > 0.5, jnp.log(1 + x), x)
    >>> jax.vmap(f)(jnp.array([1e-9, 1.0])).round(4).tolist(), round(float(jax.grad(f)(1e-9)), 6)
    ([0.0, 0.6931], 1.0)
    """

    def chosen(fine: jax.Array, quick: Any, args: tuple) -> Any:
        """All have the axes of `fine` in front, which are copies."""

        def otherwise() -> Any:
            f = slow
            for _ in range(fine.ndim):
                f = jax.vmap(f)
            return jax.tree.map(lambda a, b: jnp.where(_like(fine, a), a, b), quick, f(*args))

        return lax.cond(jnp.all(fine), lambda: quick, otherwise)

    copied = custom_vmap(chosen)

    @copied.def_vmap
    def _in_copies(size: int, batched: Any, *given: Any) -> tuple[Any, Any]:
        def all_of(x: Any, has: bool) -> Any:
            return x if has else jnp.broadcast_to(x, (size, *jnp.shape(x)))

        found = copied(*jax.tree.map(all_of, given, tuple(batched)))
        return found, jax.tree.map(lambda _: True, found)

    @jax.custom_jvp
    def either(fine: jax.Array, quick: Any, args: tuple) -> Any:
        return copied(fine, quick, args)

    @either.defjvp
    def _derivative(primals: tuple, tangents: tuple) -> tuple:
        return jax.jvp(chosen, primals, tangents)

    return lambda fine, quick, *args: either(fine, quick, args)


def _like(fine: jax.Array, x: jax.Array) -> jax.Array:
    return fine.reshape(*fine.shape, *[1] * (x.ndim - fine.ndim))
