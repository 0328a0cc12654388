"""What programs denote, as exact measures: the bridge from `ppl` to the oracle.

A random program is enumerated by `ppl.paths`, the same code that runs; what is
compared with it comes from the oracle (`measures.measure`, `generated.finite`), or from
`assess` at each value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, integrate, law, paths
from ppl.addresses import flatten

from ..compiling import QUICK
from .measure import Measure

Choices = tuple[tuple[tuple[str, ...], Hashable], ...]


def denote(program: Callable[..., Any]) -> Callable[..., Measure]:
    """`denote(program)(*args)`: the law of a finite random program, as a `Measure`.

    Arrays become numbers or nested tuples; a dict, a sorted tuple of paths and values.

    Raises:
      CannotIntegrate: a draw has not finitely many outcomes.

    >>> import numpyro.distributions as dist
    >>> from ppl import draw
    >>> from semantics import denote
    >>> denote(lambda: draw(dist.Bernoulli(0.25)) * 2)()
    Measure({0: 0.75, 2: 0.25})
    """

    @functools.wraps(program, updated=())
    def measured(*args: Any, **kwargs: Any) -> Measure:
        found = law(program)(*args, **kwargs)
        values = hashable(found.values, len(found.masses))
        return Measure.of(zip(values, found.masses.tolist(), strict=True))

    return measured


def hashable(values: Any, n: int) -> list:
    """The n values stacked in a tree of arrays, each as something that can be hashed."""
    if isinstance(values, dict):
        columns = {path: hashable(leaf, n) for path, leaf in flatten(values).items()}
        names = sorted(columns)
        return [tuple((name, columns[name][i]) for name in names) for i in range(n)]
    if isinstance(values, (tuple, list)):
        columns = [hashable(leaf, n) for leaf in values]
        return [tuple(column[i] for column in columns) for i in range(n)]
    return [_tuples(row) for row in np.asarray(values).tolist()]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def merged(values: Any, masses: Any) -> Measure:
    """The measure with these masses on stacked values: equal values are added up.

    Merging is done in numpy, so that only the distinct values become Python objects.
    """
    masses = np.asarray(masses, float)
    first, which = _distinct(_rows(values, len(masses)))
    totals = np.zeros(len(first))
    np.add.at(totals, which, masses)
    distinct = jax.tree.map(lambda leaf: np.asarray(leaf)[first], values)
    return Measure.of(zip(hashable(distinct, len(first)), totals.tolist(), strict=True))


def _rows(values: Any, n: int) -> np.ndarray:
    """The n values stacked in a tree of arrays, one row of numbers for each."""
    columns = [np.asarray(leaf).reshape(n, -1) for leaf in jax.tree.leaves(values)]
    return np.concatenate(columns, 1) if columns else np.zeros((n, 0))


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the distinct rows, and for each row which of them it is."""
    if rows.shape[1] and np.issubdtype(rows.dtype, np.integer) and rows.min() >= 0:
        sizes = rows.max(0) + 1
        if np.prod(sizes.astype(float)) < 2**62:  # one integer for a row sorts much faster
            rows = np.asarray(np.ravel_multi_index(tuple(rows.T), tuple(sizes))).reshape(-1, 1)
    if rows.shape[1] == 0:
        return np.zeros(1, int), np.zeros(len(rows), int)
    if rows.shape[1] == 1:
        _, first, which = np.unique(rows[:, 0], return_index=True, return_inverse=True)
    else:
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, which.reshape(-1)


def target_measure(target: Target) -> Measure:
    """The measure of a target with finite latents: `assess` at each value they can take.

    The values come from the model's own `generate`, the masses from `log_density`, once for
    each distinct value; where the model draws without addresses, the mean of the estimates.

    Raises:
      CannotIntegrate: a latent has not finitely many values.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import Target, gen, sample
    >>> from semantics import target_measure
    >>> @gen
    ... def model():
    ...     a = sample("a", dist.Bernoulli(0.25))
    ...     sample("y", dist.Bernoulli(jnp.where(a == 1, 0.5, 0.0)))
    >>> measure = target_measure(Target(model, (), {"y": 1}))
    >>> measure.support, f"{measure.mass:.4f}"  # a = 0 cannot have made y = 1
    ((((('a',), 1),),), '0.1250')
    """
    latents, densities, possible = map(_numpy, _assessed(target))
    latents, densities = jax.tree.map(lambda leaf: leaf[possible], (latents, densities))
    # several paths may lead to one value: the draws of rows that are absent decide nothing
    first, _ = _distinct(_rows(latents, len(densities)))
    values = hashable(jax.tree.map(lambda leaf: leaf[first], latents), len(first))
    return Measure.of(zip(values, densities[first].tolist(), strict=True))


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


@functools.partial(jax.jit, compiler_options=QUICK)
def _assessed(target: Target) -> tuple[Any, jax.Array, jax.Array]:
    """The latents at the end of each path, their density, and whether the path is possible."""
    latents, masses = paths(lambda: target.choices(target.generate()[0]))()
    density = integrate(lambda latents: jnp.exp(target.log_density(latents)))
    return latents, jax.vmap(density)(latents), masses > 0
