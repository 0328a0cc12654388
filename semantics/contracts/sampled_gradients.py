"""Gradient estimators that cannot be integrated: the mean of many draws, by e-values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors, seed
from ppl.randomness import checked_key

from ..evidence.e_values import combine
from ..evidence.finite_variance import finite_variance_effect, finite_variance_mean
from ..evidence.ledger import stages
from ..report import Verdict

_BATCH = 200


def check_gradient_sampled(
    estimator: Callable[..., Any],
    gradient: Callable[..., Any] | Any,
    args: tuple,
    key: jax.Array,
    *,
    deviation: float,
    alpha: float = 1e-8,
    sizes: Sequence[int] = (200, 2000, 20000),
) -> Verdict:
    """E[estimator(*args)] = gradient, in every coordinate, as far as draws tell.

    A false alarm has probability at most `alpha`, over all stages and coordinates, if no
    coordinate of the estimator (less that of `gradient`, if it is random, too) has a standard
    deviation above `deviation`; no more is supposed of the estimator's law. `check_gradient`, which
    is exact, is to be preferred wherever the draws are few.

    Args:
      estimator: a random program.
      gradient: what its mean should be, a tree of numbers; or a random program of that mean, a
        trusted estimator.
      args: the arguments of both.
      key: one PRNG key. Another key is another look: its alpha adds to the first's.
      deviation: a bound of the standard deviation of each coordinate.
      sizes: draws at each stage; a clear error stops at the first.

    `error` and `threshold` are log e and log 1/alpha, `n` the number of draws. A mean that is off
    by `effect` is seen, but for one case in a hundred, where the deviation is at its bound.

    Raises:
      InvalidArgument: `deviation` is not above 0.
      InvalidKey: `key` is not one PRNG key.

    Source: Wang and Ramdas (SPA 2023), see `semantics.evidence.finite_variance`.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, expectation, reinforce
    >>> from semantics import check_gradient_sampled
    >>> def square(m):
    ...     return draw(dist.Normal(m, 1.0), reinforce()) ** 2
    >>> right = jax.grad(expectation(square))
    >>> check = lambda f, g: check_gradient_sampled(f, g, (0.5,), jax.random.key(0), deviation=6.0)
    >>> bool(check(right, 1.0)), bool(check(lambda m: 1.5 * right(m), 1.0))
    (True, False)
    """
    key = checked_key(key)
    if isinstance(deviation, bool) or not isinstance(deviation, (int, float)) or not deviation > 0:
        raise errors.InvalidArgument(
            "A bound of the standard deviation is due.",
            where=errors.caller(),
            given=f"deviation={deviation!r}",
            expected="a number above 0 that no coordinate's standard deviation exceeds",
            fix="deviation=10.0; a larger bound asks for more draws",
        )

    def difference(*args: Any) -> jax.Array:
        made = _flat(estimator(*args))
        return made - (_flat(gradient(*args)) if callable(gradient) else _flat(gradient))

    one = jax.jit(jax.vmap(lambda key: seed(difference)(key, *args)))

    def sample(stage: int, size: int) -> np.ndarray:
        keys = jax.random.split(jax.random.fold_in(key, stage), (-(-size // _BATCH), _BATCH))
        return np.concatenate([np.asarray(one(some)) for some in keys])[:size]

    found = stages(sample, partial(_log_e, deviation), alpha, sizes, witness=_witness)
    coordinates = jax.eval_shape(one, jax.random.split(key, 1)).shape[1]
    return Verdict(
        "gradient", not found.rejected, "e-value", found.log_e, math.log(1 / alpha), found.n,
        effect=finite_variance_effect(sum(sizes), alpha / coordinates, deviation),
        witness=found.witness or "",
    )  # fmt: skip


def _flat(tree: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, float)) for leaf in jax.tree.leaves(tree)])


def _log_e(deviation: float, differences: np.ndarray) -> float:
    if not np.isfinite(differences).all():
        return math.inf
    return float(combine(finite_variance_mean(differences.T, 0.0, deviation)))


def _witness(differences: np.ndarray) -> str:
    mean = differences.mean(0)
    i = int(np.argmax(np.abs(mean)))
    return f"coordinate {i}: the mean of {len(differences)} differences is {mean[i]:.4g}"
