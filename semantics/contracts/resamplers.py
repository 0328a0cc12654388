"""Resampling schemes are unbiased, exactly, and stay so at the ends of their uniforms.

A scheme maps normalised weights w of shape (n,) to n ancestors. Resampling keeps the
measure for every w iff particle i has n w_i offspring on average. For weights that are
multiples of 1/m the numbers of offspring are constant between multiples of 1/K of each
uniform, with K = m lcm(1, ..., n):

- multinomial: u against cumulated weights, multiples of 1/m;
- systematic and stratified: (j + u)/n against them, so u against multiples of 1/m;
- residual: what remains of n w_i are R < n parts of 1/m, normalised by R, so that u is
  against multiples of 1/(m R), and R divides lcm(1, ..., n).

Then the midpoint rule with K nodes for each uniform is the exact expectation.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl import at_boundary, errors, paths

from ..compiling import QUICK
from ..report import Verdict, joined
from .proper import EXACT

Scheme = Callable[[jax.Array], jax.Array]

BOUNDARIES = ("zero", "smallest", "one")


def check_resampler(scheme: Scheme, sizes: Sequence[int] = (1, 2, 3)) -> list[Verdict]:
    """E[number of offspring of i] = n w_i, exactly; ancestors exist and have weight.

    Weights are all vectors of n small integers with sums n and 2n + 1, normalised (so zeros
    in every place, ties, asymmetry), and for the last verdict extreme ones.

    Args:
      scheme: normalised weights, of shape (n,), to n ancestors: a random program whose draws
        have finitely many outcomes or are uniform.
      sizes: numbers of particles. A scheme with n uniforms has (n (2n + 1) lcm(1, ..., n))^n
        paths, so 3 is as far as it goes; with one uniform, 10 is fine.

    Returns:
      Four verdicts. "unbiased"; "alive": there are n ancestors, in range and of positive
      weight, on every path; "boundaries": so there are where every uniform is 0, the smallest
      positive number, or one less an ulp; "extreme weights": so there are at weights near 0
      and 1, on paths and boundaries. Errors are the largest bias, and the share of paths. A
      scheme with a draw that comes from no uniform is not taken to boundaries.

    Raises:
      CannotIntegrate: a draw has infinitely many values that are no function of a uniform.

    Source: Douc, Cappé and Moulines, Comparison of resampling schemes for particle
    filtering (2005), section 2 (the condition of unbiasedness).

    >>> import jax.numpy as jnp
    >>> from inference import systematic
    >>> from semantics import check_resampler
    >>> [verdict.passed for verdict in check_resampler(systematic)]
    [True, True, True, True]
    >>> greedy = lambda w: jnp.full(w.shape, jnp.argmax(w))
    >>> print(check_resampler(greedy)[0])
    unbiased: FAILED (exact, error 1 of at most 1e-12, n = 57)
    at weights [0.5, 0.5]: mean offspring [2, 0], expected [1, 1]
    """
    rows = [_of_size(scheme, n) for n in sizes]
    return [joined(found[0].check, found) for found in zip(*rows, strict=True)]


def _of_size(scheme: Scheme, n: int) -> list[Verdict]:
    few, many, extreme = _multiples(n, n), _multiples(n, 2 * n + 1), _extreme(n)
    both = _every(scheme, _nodes(n, n), np.concatenate([few, extreme]))
    every = _every(scheme, _nodes(n, 2 * n + 1), many)
    ends = _ends(scheme, np.concatenate([few, many, extreme]))
    plain = [_rows(both, slice(len(few))), every]
    at_ends = [_rows(run, slice(len(few) + len(many))) for run in ends]
    extremes = [_rows(run, slice(-len(extreme), None)) for run in (both, *ends)]
    unseen = Verdict("boundaries", True, "exact", 0.0, EXACT, 0)
    return [
        joined("unbiased", map(_unbiased, plain)),
        joined("alive", map(_alive, plain)),
        joined("boundaries", list(map(_alive, at_ends)) or [unseen]),
        joined("extreme weights", map(_alive, extremes)),
    ]


# -- weights -------------------------------------------------------------------------------------


def _multiples(n: int, total: int) -> np.ndarray:
    """All normalised vectors of n integers that sum to `total`, in order."""
    bars = itertools.combinations(range(total + n - 1), n - 1)
    edges = np.array([(-1, *bar, total + n - 1) for bar in bars])
    return (np.diff(edges, axis=1) - 1) / total


def _extreme(n: int) -> np.ndarray:
    """Nearly all of the weight in one place, and next to nothing in another, in all places."""
    most = 1 - 1e-16  # the float below one
    rows = [(1e-300, 1.0), (5e-324, 1.0), (1e-16, most), (1e-300, 5e-324, most), (0.0, 1e-16, most)]
    padded = [row + (0.0,) * (n - len(row)) for row in rows if len(row) <= n] or [(1.0,)]
    return np.array(sorted({tuple(np.roll(row, i)) for row in padded for i in range(n)}))


def _nodes(n: int, total: int) -> int:
    return total * math.lcm(*range(1, n + 1))


# -- running the scheme ----------------------------------------------------------------------


class _Run(NamedTuple):
    """For every vector of weights: the mean number of offspring, the share of paths where
    not n ancestors of positive weight are chosen, such ancestors, and the number of paths."""

    weights: np.ndarray
    mean: np.ndarray
    bad: np.ndarray
    example: np.ndarray
    paths: int
    where: str = ""


def _rows(run: _Run, which: slice) -> _Run:
    """The run for some of the vectors of weights."""
    parts = (run.weights[which], run.mean[which], run.bad[which], run.example[which])
    return _Run(*parts, run.paths, run.where)


def _every(scheme: Scheme, nodes: int, weights: np.ndarray) -> _Run:
    # what is positive is decided here: compiled code may take subnormal numbers for zero
    mean, bad, example, count = _reduced(scheme, nodes, weights, weights > 0)
    return _Run(weights, np.asarray(mean), np.asarray(bad), np.asarray(example), int(count[0]))


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _reduced(scheme: Scheme, nodes: int, weights: Any, positive: Any) -> Any:
    def one(given: Any) -> Any:
        w, alive = given
        ancestors, masses = paths(scheme, nodes=nodes, rule="midpoint")(w)
        counts, bad = _counted(ancestors, alive)
        worst = jnp.argmax(bad * masses)
        return masses @ counts, masses @ bad, ancestors[worst], masses.shape[0]

    return jax.lax.map(one, (jnp.asarray(weights), positive))


def _ends(scheme: Scheme, weights: np.ndarray) -> list[_Run]:
    """The runs with every uniform at an end of its range; none if a draw has no uniform."""
    try:
        found = _ended(scheme, weights, weights > 0)
    except errors.CannotIntegrate:
        return []
    return [
        _Run(weights, np.asarray(mean), np.asarray(bad), np.asarray(example), 1, f", all u {where}")
        for where, (mean, bad, example) in zip(BOUNDARIES, found, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _ended(scheme: Scheme, weights: Any, positive: Any) -> Any:
    def one(given: Any) -> Any:
        w, alive = given

        def at(where: str) -> Any:
            ancestors = at_boundary(scheme, where)(w)
            counts, bad = _counted(ancestors[None], alive)
            return counts[0], bad[0], ancestors

        return tuple(at(where) for where in BOUNDARIES)

    return jax.lax.map(one, (jnp.asarray(weights), positive))


def _counted(ancestors: Any, alive: Any) -> tuple[Any, Any]:
    """Offspring of each particle on each path, and whether the ancestors are not as they must."""
    n = alive.shape[0]
    of_each = ancestors.reshape(len(ancestors), -1)
    counts = (of_each[:, :, None] == jnp.arange(n)).sum(1)
    if ancestors.shape[1:] != (n,) or not jnp.issubdtype(ancestors.dtype, jnp.integer):
        return counts, jnp.ones(len(ancestors))
    return counts, 1.0 * ((counts @ (1 * alive)) != n)


# -- judging -----------------------------------------------------------------------------------


def _unbiased(run: _Run) -> Verdict:
    weights = run.weights
    expected = weights.shape[1] * weights
    gaps = np.abs(run.mean - expected).max(1)
    i = int(gaps.argmax())
    # adding up N terms one by one may cost N units of rounding of their sum, n
    most = EXACT + run.paths * weights.shape[1] * 2.0**-53
    passed, n = bool(gaps[i] <= most), run.paths * len(weights)
    what = f"at weights {_shown(weights[i])}: mean offspring {_shown(run.mean[i])}"
    witness = "" if passed else f"{what}, expected {_shown(expected[i])}"
    return Verdict("unbiased", passed, "exact", float(gaps[i]), most, n, most, witness=witness)


def _alive(run: _Run) -> Verdict:
    weights = run.weights
    i = int(run.bad.argmax())
    share = float(run.bad[i])
    passed, n = share <= EXACT, run.paths * len(weights)
    what = f"at weights {_shown(weights[i])}{run.where}: ancestors {run.example[i].tolist()}"
    witness = "" if passed else what
    return Verdict("alive", passed, "exact", share, EXACT, n, EXACT, witness=witness)


def _shown(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
