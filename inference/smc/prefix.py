"""Running totals of an associative operation, in a pass over memory where that is fastest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Fewer entries than so are not worth a loop.
_FEW = 256


def prefixes(combine: Callable[[Any, Any], Any], none: Any, xs: Any) -> Any:
    """x[0], x[0] + x[1], x[0] + x[1] + x[2], ...: as `jax.lax.associative_scan`, on arrays (n,).

    On a CPU the n entries are cut into some sqrt(n) runs that go side by side, an entry of each at
    a time, which takes a tenth of the time of a scan in log(n) rounds at ten thousand entries.

    Args:
      combine: associative, elementwise on arrays of any shape, or on pytrees of them.
      none: what changes nothing, `combine(none, x) = x`: scalars, of the dtypes of `xs`.
      xs: an array of shape (n,), or a pytree of them.

    >>> import jax.numpy as jnp
    >>> from inference.smc.prefix import prefixes
    >>> prefixes(jnp.maximum, 0, jnp.array([1, 3, 2, 5])).tolist()
    [1, 3, 3, 5]
    """
    n = jax.tree.leaves(xs)[0].shape[0]
    rounds = partial(lax.associative_scan, combine)
    if n <= _FEW:
        return rounds(xs)
    return lax.platform_dependent(xs, cpu=partial(_side_by_side, combine, none), default=rounds)


def _side_by_side(combine: Callable[[Any, Any], Any], none: Any, xs: Any) -> Any:
    n = jax.tree.leaves(xs)[0].shape[0]
    runs = 1 << (n - 1).bit_length() // 2
    length = -(-n // runs)

    def cut(x: jax.Array) -> jax.Array:
        return jnp.pad(x, (0, runs * length - n)).reshape(runs, length).T

    def one(total: Any, row: Any) -> tuple[Any, Any]:
        total = combine(total, row)
        return total, total

    start = jax.tree.map(lambda zero, x: jnp.full(runs, zero, x.dtype), none, xs)
    ends, within = lax.scan(one, start, jax.tree.map(cut, xs))
    through = lax.associative_scan(combine, ends)
    before = jax.tree.map(lambda s, t: jnp.concatenate([s[:1], t[:-1]]), start, through)
    whole = combine(jax.tree.map(lambda b, w: jnp.broadcast_to(b, w.shape), before, within), within)
    return jax.tree.map(lambda x: x.T.reshape(-1)[:n], whole)
