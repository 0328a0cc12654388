"""A function of each draw, in batches, compiled once for all data of one shape."""

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

_BATCH_ELEMENTS = 2**22

Make = Callable[[Target, tuple], Callable[..., Any]]
"""Makes `f(latents)`, or `f(key, latents)`, of a target and arguments. One that is no closure is
compiled once for all targets and arguments of equal shapes."""


def over_draws(
    make: Make,
    target: Target,
    args: tuple,
    draws: Draws,
    elements: int,
    batch: int | None,
    keys: jax.Array | None = None,
) -> dict[str, Any]:
    """What is made, of each draw: (chains, draws, ...) on the host, in the model's order."""
    found = flatten(each_draw(make, target, args, draws, elements, batch, keys))
    return nest({path: found[path] for path in target.sites if path in found})


def each_draw(
    make: Make, target: Target | None, args: tuple, draws: Draws, elements: int, batch: int | None,
    keys: Any = None,
) -> Any:  # fmt: skip
    """What is made, of each draw: any pytree, as (chains, draws, ...)."""
    check_some(draws)
    n = math.prod(draws.shape)
    latents = jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), draws.choices)
    given = (latents,) if keys is None else (keys, latents)
    found = mapped(make, target, args, given, elements, batch)
    return jax.tree.map(lambda x: np.asarray(x).reshape(*draws.shape, *x.shape[1:]), found)


def mapped(
    make: Make, target: Target | None, args: tuple, given: tuple, elements: int, batch: int | None
) -> Any:
    """What is made, over the leading axis: in batches of a bounded number of elements."""
    n = len(jax.tree.leaves(given)[0])
    if batch is not None:
        check_count("batch", batch)
    size = max(1, min(n, _BATCH_ELEMENTS // max(1, elements)) if batch is None else batch)
    fixed = frozenset() if target is None else target.model.fixed
    data, tree = jax.tree.flatten((target, Arguments.of(args, {}, fixed)))
    # what is of no target is a closure, which would be kept with all that it holds
    compiled = _programs if target is not None else _programs.__wrapped__
    batches, one = compiled(make, tree, n, size)
    rows = iter(batches(data, given))
    return jax.tree.map(
        lambda s: next(rows) if s.size else np.zeros((n, *s.shape), s.dtype),
        one.eval_shape(data, given, 0),
    )


@lru_cache(maxsize=32)
def _programs(make: Make, tree: Any, n: int, size: int) -> tuple[Any, Any]:
    """Of data and n rows of what is given: all results that have numbers; and one result."""

    def each(data: list, given: tuple, i: Any) -> Any:
        target, arguments = jax.tree.unflatten(tree, data)
        return make(target, arguments.args)(*jax.tree.map(lambda x: x[i], given))

    # `lax.map` can neither cut nor join arrays of no numbers: it gets indices, and puts none out
    def batches(data: list, given: tuple) -> list:
        some = lambda i: [x for x in jax.tree.leaves(each(data, given, i)) if x.size]  # noqa: E731
        return jax.lax.map(some, jnp.arange(n), batch_size=size)

    return jax.jit(batches, compiler_options=effort(2)), jax.jit(each)
