"""Gradient estimators are unbiased: E[estimate] = gradient of E[objective], exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors, integrate, paths

from ..compiling import UNFUSED
from ..report import Verdict, joined
from .proper import EXACT

UNRESOLVED = 1e-3
"""Relative quadrature error beyond which a comparison says too little to pass."""


def check_gradient(
    estimator: Callable[..., Any],
    objective: Callable[..., Any],
    args: tuple | list[tuple],
    *,
    nodes: tuple[int, int] | None = None,
    rule: str = "gauss",
    bounds: tuple[float, float] = (-8.0, 8.0),
) -> Verdict:
    """E[estimator(*args)] = d/d args E[objective(*args)], in every coordinate.

    The left side is the sum over the estimator's own paths; the right side is `jax.grad` of
    the sum over the objective's. Finite draws are summed exactly, continuous ones by
    quadrature with two numbers of nodes; the threshold is then the differences between the
    two, of either side, and the probability that the nodes miss. A threshold above 1e-3 fails.

    The verdict's `variance` is that of one estimate, summed over coordinates, at the worst point.

    The right side is only as good as that derivative, so nodes that would cross a jump of the
    objective are an error: an objective that jumps needs `rule="trapezoid"`, whose nodes stay,
    and many nodes (values and derivatives are right to the order of the spacing).

    Args:
      estimator: a random program whose result has the structure of `args`; for a single
        argument, of that argument (as `jax.grad` has it).
      objective: a random program with a scalar result. Its draws may depend on `args`.
      args: a tuple of trees of float arrays, or a list of such points. One point can be a
        stationary one by accident: give several.
      nodes, rule, bounds: for continuous draws, as for `integrate`; two numbers of nodes.

    Raises:
      CannotIntegrate: a draw has infinitely many outcomes and there are no `nodes`.
      GradientThroughDraw: the objective jumps where the rule's nodes move with `args`.
      InvalidArgument: there are no points, or not two numbers of nodes.

    Source: Mohamed et al., Monte Carlo gradient estimation in machine learning (JMLR 2020);
    Lew et al., ADEV (POPL 2023), where this is correctness.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw
    >>> from semantics import check_gradient
    >>> price = jnp.array([1.0, 5.0])
    >>> def objective(p):
    ...     return price[draw(dist.Bernoulli(p))]
    >>> def score_function(p):
    ...     x = draw(dist.Bernoulli(p))
    ...     return price[x] * jax.grad(lambda q: dist.Bernoulli(q).log_prob(x))(p)
    >>> points = [(0.25,), (0.5,)]
    >>> bool(check_gradient(score_function, objective, points))
    True
    >>> print(check_gradient(lambda p: -score_function(p), objective, points))
    gradient: FAILED (exact, error 2 of at most 1e-12, n = 4, variance 85.3)
    at (0.25,): E[estimate] = -4, gradient 4
    """
    points = args if isinstance(args, list) else [args]
    if not points or not all(isinstance(point, tuple) and point for point in points):
        raise errors.InvalidArgument(
            "A gradient needs arguments.",
            where=errors.caller(),
            given=repr(args),
            expected="a tuple of arguments, or a list of such tuples",
            fix="wrap the argument: check_gradient(estimator, objective, (0.5,))",
        )
    if nodes is not None and not (isinstance(nodes, tuple) and len(set(nodes)) == 2):
        raise errors.InvalidArgument(
            "A quadrature's error is the difference between two numbers of nodes.",
            where=errors.caller(),
            given=repr(nodes),
            expected="a tuple of two different numbers",
            fix="check_gradient(..., nodes=(16, 24))",
        )
    if nodes is None:
        sides = (partial(_sides, estimator, objective, None, rule, bounds),)
    else:
        sides = tuple(partial(_sides, estimator, objective, n, rule, bounds) for n in nodes)
    n = _paths(estimator, nodes, rule, bounds, points[0])
    found = [_at(sides, jax.tree.map(jnp.asarray, point), point) for point in points]
    spread = [verdict.variance for verdict in found if verdict.variance is not None]
    whole = joined("gradient", found)
    return replace(whole, n=n * len(points), variance=max(spread, default=None))


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), compiler_options=UNFUSED)
def _sides(
    estimator: Any, objective: Any, nodes: int | None, rule: str, bounds: Any, args: tuple
) -> tuple[Any, Any, jax.Array, jax.Array]:
    """The expectation of the estimator, the gradient of that of the objective, the largest share
    of either's probability that the nodes miss, and the estimator's variance."""
    exactly = partial(integrate, nodes=nodes, rule=rule, bounds=bounds)
    which = tuple(range(len(args))) if len(args) > 1 else 0
    one = jnp.ones(())

    def moments(*args: Any) -> tuple[Any, Any, Any]:
        found = estimator(*args)
        return found, jax.tree.map(lambda x: jnp.asarray(x) ** 2, found), one

    estimate, squared, of_estimator = exactly(moments)(*args)
    spread = jax.tree.map(lambda first, second: jnp.sum(second - first**2), estimate, squared)
    variance = jnp.sum(jnp.stack(jax.tree.leaves(spread)))
    gradient, of_objective = jax.grad(
        lambda *args: exactly(lambda *args: (objective(*args), one))(*args), which, has_aux=True
    )(*args)
    lost = jnp.maximum(jnp.abs(of_estimator - 1), jnp.abs(of_objective - 1))
    return estimate, gradient, lost, variance


def _paths(estimator: Any, nodes: Any, rule: str, bounds: Any, point: tuple) -> int:
    most = None if nodes is None else max(nodes)
    found = jax.eval_shape(paths(estimator, nodes=most, rule=rule, bounds=bounds), *point)
    return found[1].shape[0]


def _at(sides: tuple, args: tuple, shown: tuple) -> Verdict:
    """The comparison at one point; the last of `sides` is the finest."""
    pairs = [side(args) for side in sides]
    estimate, gradient, lost, variance = pairs[-1]
    made, wanted = (jax.tree.map(np.shape, tree) for tree in (estimate, gradient))
    if made != wanted:
        witness = f"the estimate has the shapes {made}, its arguments {wanted}"
        return Verdict("gradient", False, "exact", np.inf, EXACT, 1, witness=witness)
    ours, theirs = _flat(estimate), _flat(gradient)
    scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
    method, threshold = "exact", EXACT
    if len(pairs) > 1:
        coarse, coarse_gradient, *_ = pairs[0]
        gaps = np.abs(np.r_[ours - _flat(coarse), theirs - _flat(coarse_gradient)])
        method, threshold = "quadrature", EXACT + float(gaps.max() + lost) / scale
    departures = np.abs(ours - theirs) / scale
    i = int(np.argmax(np.where(np.isnan(departures), np.inf, departures)))
    error = float(departures[i])
    resolved = threshold <= UNRESOLVED
    passed = error <= threshold and resolved
    witness = ""
    if not passed:
        name = jax.tree.leaves(
            jax.tree.map_with_path(
                lambda path, leaf: [jax.tree_util.keystr(path)] * np.size(leaf), gradient
            )
        )[i]
        witness = f"at {shown}: E[estimate{name}] = {ours[i]:.6g}, gradient {theirs[i]:.6g}"
        if not resolved:
            remedy = "other bounds" if float(lost) > UNRESOLVED else "more nodes"
            witness = f"at {shown}: not resolved by the quadrature; give {remedy}"
    return Verdict(
        "gradient", passed, method, error, threshold, 1, effect=threshold, witness=witness,
        variance=max(float(variance), 0.0),
    )  # fmt: skip


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(tree)])
