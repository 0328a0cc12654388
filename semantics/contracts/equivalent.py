"""Random programs have the same law; keyed functions are functions of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import paths

from ..compiling import QUICK
from ..measures.denote import merged
from ..report import Verdict
from .proper import EXACT

SAME = 1e-12
"""Floats of results closer than this, relatively above one, are taken for the same value."""


def check_equivalent(f: Callable[..., Any], g: Callable[..., Any], *args: Any) -> Verdict:
    """The law of f(*args) is the law of g(*args), value by value, exactly.

    Args:
      f, g: random programs with finitely many paths and results of one structure (any trees
        of arrays). How they draw does not matter. Floats are compared up to rounding.
      args: of both.

    Raises:
      CannotIntegrate: a draw has not finitely many outcomes.

    >>> import numpyro.distributions as dist
    >>> from ppl import draw
    >>> from semantics import check_equivalent
    >>> coin = lambda p: draw(dist.Bernoulli(p))
    >>> both = lambda p: coin(p) * coin(p)
    >>> bool(check_equivalent(both, lambda p: coin(p * p), 0.5))
    True
    >>> print(check_equivalent(both, coin, 0.5))
    equivalent: FAILED (exact, error 0.25 of at most 1e-12, n = 6)
    at 0: probability 0.75 against 0.5
    """
    (ours, left), (theirs, right) = _possible(f, args), _possible(g, args)
    tree, other = jax.tree.structure(ours), jax.tree.structure(theirs)
    shapes = [[np.shape(leaf)[1:] for leaf in jax.tree.leaves(each)] for each in (ours, theirs)]
    n = len(left) + len(right)
    if tree != other or shapes[0] != shapes[1]:
        what = f"results of structure {tree} and shapes {shapes[0]} against {other}, {shapes[1]}"
        return Verdict("equivalent", False, "exact", 1.0, EXACT, n, EXACT, witness=what)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    leaves = tuple(_snapped(np.concatenate(pair)) for pair in pairs)
    mu = merged(tuple(leaf[: len(left)] for leaf in leaves), left)
    nu = merged(tuple(leaf[len(left) :] for leaf in leaves), right)
    gaps = {v: abs(float(mu[v]) - float(nu[v])) for v in (*mu.support, *nu.support)}
    value = max(gaps, key=gaps.__getitem__)
    passed = gaps[value] <= EXACT
    witness = ""
    if not passed:
        shown = jax.tree.unflatten(tree, value)
        witness = f"at {shown}: probability {float(mu[value]):.6g} against {float(nu[value]):.6g}"
    return Verdict("equivalent", passed, "exact", gaps[value], EXACT, n, EXACT, witness=witness)


def _possible(f: Callable[..., Any], args: tuple) -> tuple[Any, np.ndarray]:
    """The results on the paths that have mass, and their masses."""
    results, masses = _enumerated(f, *args)
    kept = np.asarray(masses) > 0
    return jax.tree.map(lambda leaf: np.asarray(leaf)[kept], results), np.asarray(masses)[kept]


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _enumerated(f: Callable[..., Any], *args: Any) -> tuple[Any, jax.Array]:
    return paths(f)(*args)


def _snapped(values: np.ndarray) -> np.ndarray:
    """Floats with those that differ by rounding alone replaced by the least of them."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    levels, which = np.unique(values, return_inverse=True)
    apart = np.diff(levels) > SAME * np.maximum(1.0, np.abs(levels[1:]))
    starts = np.r_[True, apart | np.isinf(levels[1:])]
    return levels[np.flatnonzero(starts)][np.cumsum(starts) - 1][which].reshape(values.shape)


def check_pure(f: Callable[..., Any], key: Any, *args: Any, jit: bool = True) -> Verdict:
    """f(key, *args) is the same, to the bit, whatever was called before.

    It is called twice, with another key, and again; then twice under `jax.jit`, traced anew
    each time. What differs depends on a state that is no argument: a counter, a stale cache,
    a step size that still adapts. (A state that never changes after its first use cannot be
    told from a constant.)

    Args:
      f: any function of a key and more, of this or another library; of a random program,
        `seed` of it. A `seed` stages its program once, and remembers: of kernels between traces
        `check_pure_kernel` sees more.
      key: a PRNG key.
      jit: False for functions that cannot be compiled.

    The error is the largest share of the numbers of a result that differ.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, seed
    >>> from semantics import check_pure
    >>> step = seed(lambda x: x + draw(dist.Normal(0.0, 1.0)))
    >>> bool(check_pure(step, jax.random.key(0), 1.0))
    True
    >>> scale = [1.0]
    >>> def adapting(key, x):
    ...     scale[0] *= 0.9
    ...     return x + scale[0] * jax.random.normal(key)
    >>> print(check_pure(adapting, jax.random.key(0), 1.0))
    pure: FAILED (identity, error 1 of at most 1e-12, n = 6)
    the second call differs from the first
    """
    other = jax.random.fold_in(key, 1)
    traced = lambda *call: jax.jit(lambda *inner: f(*inner))(*call)  # noqa: E731
    first = f(key, *args)
    comparisons = [
        ("the second call differs from the first", lambda: (first, f(key, *args))),
        (
            "the call after one with another key differs",
            lambda: (first, _last(f, other, key, args)),
        ),
    ]
    if jit:
        what = "two compilations of the call differ"
        comparisons.append((what, lambda: (traced(key, *args), traced(key, *args))))
    calls = 6 if jit else 4
    for what, pair in comparisons:
        try:
            share = _share(*pair())
        except jax.errors.UnexpectedTracerError:
            share, what = 1.0, "a traced value was kept from an earlier call"
        if share > 0:
            return Verdict("pure", False, "identity", share, EXACT, calls, witness=what)
    return Verdict("pure", True, "identity", 0.0, EXACT, calls)


def _last(f: Callable[..., Any], other: Any, key: Any, args: tuple) -> Any:
    f(other, *args)
    return f(key, *args)


def _share(a: Any, b: Any) -> float:
    """The share of the numbers of two results whose bits differ."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return 1.0
    differing, total = 0, 0
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        left, right = _numbers(left), _numbers(right)
        if (left.shape, left.dtype) != (right.shape, right.dtype):
            return 1.0
        total += max(1, left.size)
        differing += int((_bytes(left) != _bytes(right)).any(-1).sum())
    return differing / total if total else 0.0


def _bytes(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1).view(np.uint8).reshape(values.size, values.itemsize)


def _numbers(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)
