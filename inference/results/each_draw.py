"""A function of each draw, in chunks that go to the host, compiled once for all data of one shape.

A chunk is as many draws as have results of a few megabytes. What is computed lies on the device
for one chunk alone; on the host there is the result, and nothing beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target
from ppl.addresses import flatten, nest
from ppl.arguments import Arguments

from ..validation.settings import check_count
from .draws import Draws, check_some
from .effort import effort

_BATCH_ELEMENTS = 2**19
_CHUNK_BYTES = 2**23

Make = Callable[[Target, tuple], Callable[..., Any]]
"""Makes `f(latents)`, or `f(key, latents)`, of a target and arguments. One that is no closure is
compiled once for all targets and arguments of equal shapes."""

Room = Callable[[tuple, tuple[int, ...], Any], Any]
"""Makes room for the rows of one result, by where it is, their shape and dtype: what rows can be
assigned to, as an array."""


def over_draws(
    make: Make, target: Target, args: tuple, draws: Draws, elements: int, batch: int | None,
    keys: jax.Array | None = None, room: Room | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What is made, of each draw: (chains, draws, ...) on the host, in the model's order."""
    found = flatten(each_draw(make, target, args, draws, elements, batch, keys, room))
    return nest({path: found[path] for path in target.sites if path in found})


def each_draw(
    make: Make, target: Target | None, args: tuple, draws: Draws, elements: int, batch: int | None,
    keys: Any = None, room: Room | None = None,
) -> Any:  # fmt: skip
    """What is made, of each draw: any pytree, as (chains, draws, ...)."""
    check_some(draws)
    n = math.prod(draws.shape)
    latents = jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), draws.choices)
    given = (latents,) if keys is None else (keys, latents)
    found = mapped(make, target, args, given, elements, batch, room)
    whole = lambda x: x.reshape(*draws.shape, *x.shape[1:])  # noqa: E731
    return jax.tree.map(lambda x: whole(x) if isinstance(x, np.ndarray) else x, found)


def mapped(
    make: Make, target: Target | None, args: tuple, given: tuple, elements: int, batch: int | None,
    room: Room | None = None,
) -> Any:  # fmt: skip
    """What is made, over the leading axis: in batches of a bounded number of elements.

    Args:
      room: where the rows go, instead of arrays on the host.
    """
    n = len(jax.tree.leaves(given)[0])
    if batch is not None:
        check_count("batch", batch)
    size = max(1, min(n, _BATCH_ELEMENTS // max(1, elements)) if batch is None else batch)
    fixed = frozenset() if target is None else target.model.fixed
    data, tree = jax.tree.flatten((target, Arguments.of(args, {}, fixed)))
    rows, impls = _on_host(given)
    # what is of no target is a closure, which would be kept with all that it holds
    compiled = _programs if target is not None else _programs.__wrapped__
    batches, one = compiled(make, tree, impls, size)
    places, shapes = jax.tree.flatten_with_path(one.eval_shape(data, [x[0] for x in rows]))
    out = [
        (np.empty if room is None else _at(room, place))((n, *s.shape), s.dtype)
        for place, s in places
    ]
    filled = [i for i, (_, s) in enumerate(places) if s.size]
    # whole batches; the last chunk is a whole one too, and makes some rows again, to the same bits
    width = sum(s.size * s.dtype.itemsize for _, s in places)
    chunk = min(n, max(size, _CHUNK_BYTES // max(1, width) // size * size))
    for start in range(0, n, chunk):
        start = min(start, n - chunk)
        block = batches(data, [x[start : start + chunk] for x in rows])
        for i, piece in zip(filled, block, strict=True):
            out[i][start : start + chunk] = np.asarray(piece)
    return jax.tree.unflatten(shapes, out)


def _at(room: Room, place: tuple) -> Callable[[tuple[int, ...], Any], Any]:
    """Room for the result at a place of a pytree."""
    return lambda shape, dtype: room(place, shape, dtype)


def _on_host(given: tuple) -> tuple[list[np.ndarray], tuple]:
    """Arrays of what is given on the host, keys as their data; and what makes it again."""
    leaves, tree = jax.tree.flatten(given)
    keys = [
        isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves
    ]
    impls = tuple(str(jax.random.key_impl(x)) if k else None
                  for x, k in zip(leaves, keys, strict=True))  # fmt: skip
    rows = [np.asarray(jax.random.key_data(x) if k else x)
            for x, k in zip(leaves, keys, strict=True)]  # fmt: skip
    return rows, (tree, impls)


@lru_cache(maxsize=32)
def _programs(make: Make, tree: Any, given_as: tuple, size: int) -> tuple[Any, Any]:
    """Of data and rows of what is given: all results that have numbers; and one result."""
    given_tree, impls = given_as

    def each(data: list, row: list) -> Any:
        target, arguments = jax.tree.unflatten(tree, data)
        leaves = [
            x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for x, impl in zip(row, impls, strict=True)
        ]
        return make(target, arguments.args)(*jax.tree.unflatten(given_tree, leaves))

    # `lax.map` can neither cut nor join arrays of no numbers: it gets indices, and puts none out
    def batches(data: list, rows: list) -> list:
        def some(i: Any) -> list:
            return [x for x in jax.tree.leaves(each(data, [x[i] for x in rows])) if x.size]

        return jax.lax.map(some, jnp.arange(len(rows[0])), batch_size=size)

    return jax.jit(batches, compiler_options=effort(2)), jax.jit(each)
