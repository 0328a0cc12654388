"""Resampling: a step that fixes the measure and evens out the weights."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ppl import errors

from ..validation.objects import check_callable
from ..validation.settings import check_number
from ..weighted import Step, Weighted, check_log_weights, check_weighted, log_evidence, normalized
from .schemes import systematic

Scheme = Callable[[jax.Array], jax.Array]
"""Normalised weights, of shape (n,), to n ancestors."""


def effective_sample_size(log_weights: jax.Array) -> jax.Array:
    """1 / sum of the squared normalised weights (Liu and Chen 1995): from 1 to n.

    0 when all weights are zero, since no particle counts; NaN when one of them is.

    >>> import jax.numpy as jnp
    >>> from inference import effective_sample_size
    >>> print(f"{effective_sample_size(jnp.log(jnp.array([0.5, 0.5, 0.0]))):.4f}")
    2.0000
    """
    check_log_weights(log_weights)
    top = jnp.max(log_weights)
    # of the same numbers as the evidence, so that they are exponentiated once
    weights = jnp.exp(log_weights - jnp.where(jnp.isfinite(top), top, 0.0))
    squares = (weights**2).sum()
    return jnp.where(squares == 0, 0.0, weights.sum() ** 2 / jnp.where(squares == 0, 1, squares))


def resample(weighted: Weighted, scheme: Scheme = systematic) -> Weighted:
    """Particles drawn by weight, all with the mean weight; <<.>> stays the same.

    Proper for every scheme in which i has on average n * weights[i] offspring. Takes a
    `Weighted` of n particles and returns n.

    Args:
      scheme: normalised weights, of shape (n,), to ancestors; by default `systematic`.

    Raises:
      InvalidArgument: the scheme is no function from n weights to n indices.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, multinomial, resample
    >>> from ppl import integrate
    >>> s = Weighted(jnp.array([10.0, 20.0]), jnp.log(jnp.array([1.0, 3.0])))
    >>> def mean():
    ...     r = resample(s, multinomial)
    ...     return (jnp.exp(r.log_weight) * r.value).mean()
    >>> print(f"{integrate(mean)():.2f}")  # (1 * 10 + 3 * 20) / 2, as before
    35.00
    """
    check_weighted(weighted)
    weights = normalized(weighted.log_weight)
    if weights.shape[0] == 1:  # the one particle stays, and nothing is drawn
        jax.eval_shape(lambda: _ancestors(scheme, weights))
        return weighted
    ancestors = _ancestors(scheme, weights)
    value = jax.tree.map(lambda x: x[ancestors], weighted.value)
    return Weighted(value, jnp.full_like(weighted.log_weight, log_evidence(weighted)))


def _ancestors(scheme: Scheme, weights: jax.Array) -> jax.Array:
    """What a scheme makes of weights: as many indices."""
    check_scheme(scheme)
    ancestors = jnp.asarray(scheme(weights))
    given = f"ancestors of shape {ancestors.shape} and dtype {ancestors.dtype}"
    if ancestors.shape != weights.shape or not jnp.issubdtype(ancestors.dtype, jnp.integer):
        raise errors.InvalidArgument(
            "A resampling scheme is a function from n weights to n ancestors.",
            where=errors.caller(), given=given, expected=f"indices of shape {weights.shape}",
            fix="scheme=systematic, of inference",
        )  # fmt: skip
    return ancestors


def when_ess_below(fraction: float, scheme: Scheme = systematic) -> Step:
    """`resample`, if the effective number of particles is below this fraction of n.

    Proper, since whether to resample depends on what came before alone. Weights that are
    not reset stay with their particles, and in the evidence.

    Raises:
      InvalidArgument: the fraction is not between 0 and 1.

    >>> import jax, jax.numpy as jnp
    >>> from inference import Weighted, when_ess_below
    >>> from ppl import seed
    >>> even = Weighted(jnp.array([10.0, 20.0]), jnp.log(jnp.array([1.0, 1.5])))
    >>> step = when_ess_below(0.5)
    >>> seed(step)(jax.random.key(0), even).log_weight.round(4).tolist()
    [0.0, 0.4055]
    """
    check_scheme(scheme)
    return when_few(fraction, lambda s: resample(s, scheme))


def check_resampling(threshold: float, scheme: Scheme) -> None:
    """Raise `InvalidArgument` unless particles can be resampled by this threshold and scheme."""
    check_number("threshold", threshold, least=0, most=1, fix=0.5)
    check_scheme(scheme)


def check_scheme(scheme: Scheme) -> None:
    """Raise `InvalidArgument` unless `scheme` may be one."""
    check_callable(
        "scheme", scheme, "a function from n weights to n ancestors", "scheme=systematic"
    )


def when_few(fraction: float, step: Step) -> Step:
    """`step`, if the effective number of particles is below this fraction of n.

    Raises:
      InvalidArgument: the fraction is not between 0 and 1.
    """
    check_number("fraction", fraction, least=0, most=1, fix=0.5)

    def chosen(weighted: Weighted) -> Weighted:
        if weighted.log_weight.shape[0] == 1:  # which is never few
            return weighted
        # even weights are n particles, however they are rounded
        even = weighted.log_weight.shape[0] * (1 - 64 * jnp.finfo(weighted.log_weight.dtype).eps)
        few = effective_sample_size(weighted.log_weight) < fraction * even
        return lax.cond(few, step, lambda s: s, weighted)

    return chosen
