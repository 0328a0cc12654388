"""Laws of random programs: all results with their probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .integrate import enumerate_paths
from .quadrature import Quadrature, check_rule

MOST_LISTED = 1 << 23
"""More paths than this are not listed one by one: they would not fit into memory."""


def paths(
    f: Callable,
    *,
    nodes: int | None = None,
    rule: str = "gauss",
    bounds: tuple[float, float] = (-8.0, 8.0),
) -> Callable:
    """`paths(f)(*args)` is `(results, probabilities)` over all paths, stacked in front.

    The jittable form of `law`: equal results are not merged. With `nodes`, continuous
    draws take quadrature nodes as in `integrate`, and the probabilities are its weights.

    Raises:
      CannotIntegrate: a draw has not finitely many outcomes.

    >>> import numpyro.distributions as dist
    >>> from ppl import draw, paths
    >>> coin = lambda: draw(dist.Bernoulli(0.5))
    >>> results, probabilities = paths(lambda: coin() + coin())()
    >>> results.tolist(), probabilities.tolist()
    ([0, 1, 1, 2], [0.25, 0.25, 0.25, 0.25])
    """

    def stack(weights, results):
        inner, values = results
        w = weights.reshape(weights.shape + (1,) * (inner.ndim - 1))
        return w * inner, values

    check_rule(rule, nodes)
    quadrature = None if nodes is None else Quadrature(nodes, rule, bounds)

    @functools.wraps(f, updated=())
    def enumerated(*args, **kwargs):
        finish = lambda staged, outs: (jnp.ones(()), staged.rebuild([jnp.asarray(o) for o in outs]))  # noqa: E731
        weights, values = enumerate_paths(
            f, args, kwargs, quadrature, stack, finish, False, MOST_LISTED
        )
        axes = weights.ndim

        def flat(leaf):
            return leaf.reshape((weights.size, *leaf.shape[axes:]))

        return jax.tree.map(flat, values), weights.reshape(-1)

    return enumerated


class Law(NamedTuple):
    """A finite measure: the distinct values (stacked leaves) and the mass of each.

    >>> import numpyro.distributions as dist
    >>> from ppl import Law, draw, law
    >>> die = lambda: draw(dist.DiscreteUniform(1, 6))
    >>> total = law(lambda: die() + die())()
    >>> isinstance(total, Law), round(36 * total.mass(lambda value: value >= 10))
    (True, 6)
    """

    values: Any
    masses: np.ndarray

    def mass(self, predicate: Callable[[Any], bool]) -> float:
        """The mass of the values for which `predicate(value)` holds."""
        rows = [jax.tree.map(lambda leaf: leaf[i], self.values) for i in range(len(self.masses))]  # noqa: B023
        return float(sum(m for row, m in zip(rows, self.masses, strict=True) if predicate(row)))


def law(f: Callable) -> Callable:
    """`law(f)(*args)`: the distribution of `f`'s finite-valued result, exactly.

    Equal results are merged and results of mass zero left out; runs on concrete
    arguments (not under `jit`).

    Raises:
      CannotIntegrate: a draw has not finitely many outcomes, or there are too many paths.

    >>> import numpyro.distributions as dist
    >>> from ppl import draw, law
    >>> coin = lambda: draw(dist.Bernoulli(0.5))
    >>> heads = law(lambda: coin() + coin())()
    >>> heads.values.tolist(), heads.masses.tolist()
    ([0, 1, 2], [0.25, 0.5, 0.25])
    """

    @functools.wraps(f, updated=())
    def measured(*args, **kwargs):
        values, weights = jax.jit(lambda a, k: paths(f)(*a, **k))(args, kwargs)
        leaves, tree = jax.tree.flatten(values)
        weights = np.asarray(weights)
        kept = weights > 0
        columns = [np.asarray(leaf)[kept].reshape(kept.sum(), -1) for leaf in leaves]
        table = np.concatenate([np.zeros((kept.sum(), 1)), *columns], axis=1)
        _, first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)
        masses = np.bincount(which.reshape(-1), weights=weights[kept], minlength=len(first))
        distinct = [np.asarray(leaf)[kept][first] for leaf in leaves]
        return Law(jax.tree.unflatten(tree, distinct), masses)

    return measured
