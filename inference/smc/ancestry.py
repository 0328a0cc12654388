"""The errors of one run of a particle filter, from the ancestors of its particles.

Two particles that descend from different particles of the first step have never met. Under
multinomial resampling such pairs are a sample of two independent runs: with k resamplings

    (n / (n - 1))^(k + 1)  sum over i, j of unlike ancestors  e^(w_i + w_j) f(x_i) f(x_j) / n^2

is on average the square of the integral of f (Lee and Whiteley 2018). It stays so if whether to
resample depends on the particles, and with a lookahead: a resampling keeps the average given
what came before, whichever way that is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl import errors
from ppl.arguments import is_array

from ..validation.objects import check_callable
from ..validation.settings import check_count
from ..weighted import normalized
from .filtering import Ancestry, Filtered, Path, check_filtered


def log_evidence_error(found: Filtered | jax.Array) -> jax.Array:
    """Standard error of the log evidence, from one run.

    Of a particle filter with multinomial resampling: the root of its `relative_variance`. Or of
    the log of the mean of n independent weights: particles that were never resampled, or the
    log evidences of independent runs, whose log mean weight is the `log_evidence` of them all.
    By the delta method, so for errors below one.

    Infinite if n is 1, all weights are zero, or all particles descend from one: nothing is
    known of the error then. NaN if a weight is, or if the estimate of the variance, which is
    unbiased, is negative.
    Take more particles, or the evidences of several runs.

    Args:
      found: what `particle_filter` gives, or log weights of shape (n,).

    Raises:
      InvalidArgument: the filter resampled by another scheme than `multinomial`.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import log_evidence, log_evidence_error, multinomial, particle_filter
    >>> from ppl import gen, sample, seed
    >>> print(f"{log_evidence_error(jnp.log(jnp.array([1.0, 2.0, 3.0]))):.4f}")  # 1 / sqrt(3) / 2
    0.2887
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0])}
    >>> run = seed(lambda: particle_filter(walk, 0.0, ys, 1000, scheme=multinomial))
    >>> found = run(jax.random.key(0))
    >>> exact = dist.MultivariateNormal(jnp.zeros(2), jnp.array([[2.0, 1.0], [1.0, 3.0]]))
    >>> distance = log_evidence(found.particles) - exact.log_prob(ys["y"])
    >>> bool(abs(distance) < 5 * log_evidence_error(found))
    True
    """
    if isinstance(found, Filtered):
        log_weights, ancestry = found.particles.log_weight, _known(found)
    else:
        if not is_array(found):
            check_filtered(found)
        log_weights = jnp.asarray(found)
        if log_weights.ndim != 1 or not jnp.issubdtype(log_weights.dtype, jnp.floating):
            check_filtered(found)
        ancestry = Ancestry(jnp.arange(len(log_weights)), jnp.zeros((), int))
    variance = _variance(normalized(log_weights), ancestry)
    # of independent particles it is no less than zero, but for rounding
    variance = jnp.where(ancestry.resamplings == 0, jnp.maximum(variance, 0.0), variance)
    untold = (jnp.max(log_weights) == -jnp.inf) | (ancestry.eves == ancestry.eves[0]).all()
    return jnp.where(untold, jnp.inf, jnp.sqrt(variance)) + _no_number(log_weights)


def relative_variance(
    filtered: Filtered, f: Callable[[Any], jax.Array] = lambda state: jnp.ones(())
) -> jax.Array:
    """V with E[Z^2 V] = Var[Z mean f], Z being the evidence that the filter estimates.

    Z mean f = mean_i e^(w_i) f(x_i) is the estimate of the integral of f over the last states;
    with f = 1, by default, it is the evidence. As n grows n V tends to the asymptotic variance;
    for f less its filter mean, to that of the filter mean. V may be negative; it is NaN if n is
    1 or a weight is NaN; and if all particles descend from one it is the square of the mean of
    f, which tells nothing.

    Args:
      filtered: what `particle_filter(..., scheme=multinomial)` gives, with any threshold,
        proposal or lookahead. Memory and time are O(n).
      f: from a state to an array, whose elements each have their V.

    Raises:
      InvalidArgument: another scheme. Its offspring depend on each other in other ways, and
        most of them vary less than the formula says.

    Source: Lee and Whiteley, Variance estimation in the particle filter (Biometrika 2018),
    theorem 1, for resampling at every step.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import log_evidence, multinomial, particle_filter, relative_variance
    >>> from ppl import gen, integrate, sample
    >>> @gen
    ... def weather(rain, _):
    ...     rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, 0.75, 0.25)))
    ...     sample("wet", dist.Bernoulli(jnp.where(rain == 1, 1.0, 0.5)))
    ...     return rain, None
    >>> def moments():
    ...     found = particle_filter(
    ...         weather, 1, {"wet": jnp.ones(2, int)}, 2, scheme=multinomial, threshold=1.0
    ...     )
    ...     z = jnp.exp(log_evidence(found.particles))
    ...     return jnp.stack([z, z**2, z**2 * relative_variance(found)])
    >>> mean, square, estimate = integrate(moments)()
    >>> print(f"{square - mean**2:.4f} {estimate:.4f}")  # the variance, and the average of V Z^2
    0.0496 0.0496
    """
    ancestry = _known(filtered)
    check_callable("f", f, "a function from a state to an array", "f=lambda state: state")
    weights = normalized(filtered.particles.log_weight)
    values = jax.vmap(f)(filtered.particles.value)
    return _variance(_by(weights, values), ancestry) + _no_number(filtered.particles.log_weight)


def filter_error(filtered: Filtered, f: Callable[[Any], jax.Array], lag: int = 20) -> jax.Array:
    """Standard errors of the filter means of f after each step, from one run.

    The particles of a step are grouped by their ancestors `lag` steps before, whose
    contributions to the mean are taken as independent. Over the whole past few ancestors are
    left, so that nothing can be told; what is older than the lag is left out, which makes the
    errors too small by what a filter remembers of it. Compare two lags. Infinite at a step at
    which all weights are zero, NaN where one is NaN.

    Args:
      filtered: what `particle_filter(..., scheme=multinomial, history=True)` gives.
      f: from a state to an array.
      lag: in steps, 0 or more.

    Returns:
      Shape (T, ...), of each element of f.

    Raises:
      InvalidArgument: another scheme, no history, or a negative lag.

    Source: Olsson and Douc, Numerically stable online estimation of variance in particle
    filters (Bernoulli 2019); for the whole past, Chan and Lai (Annals of Statistics 2013).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import filter_error, multinomial, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0])}
    >>> run = seed(
    ...     lambda: particle_filter(walk, 0.0, ys, 1000, scheme=multinomial, history=True)
    ... )
    >>> found = run(jax.random.key(0))
    >>> last = (jnp.exp(found.particles.log_weight) * found.particles.value).sum()
    >>> last = last / jnp.exp(found.particles.log_weight).sum()
    >>> exact = 0.2 * 0.5 + 0.6 * 1.0  # by Kalman's filter
    >>> bool(abs(last - exact) < 5 * filter_error(found, lambda z: z)[-1])
    True
    """
    _known(filtered)
    check_callable("f", f, "a function from a state to an array", "f=lambda state: state")
    path = filtered.path
    if path is None:
        raise errors.InvalidArgument(
            "The filter did not keep its particles.", where=errors.caller(),
            given="a filter with history=False", expected="all particles",
            fix="particle_filter(..., scheme=multinomial, history=True)",
        )  # fmt: skip
    check_count("lag", lag, least=0)
    roots = _roots(path, lag)

    def error(log_weights: jax.Array, states: Any, root: jax.Array) -> jax.Array:
        weights, values = normalized(log_weights), jax.vmap(f)(states)
        parts = _by(weights, values - _by(weights, values).sum(0))
        found = jnp.sqrt((_sums(parts, root) ** 2).sum(0)) + _no_number(log_weights)
        return jnp.where(jnp.max(log_weights) == -jnp.inf, jnp.inf, found)

    return jax.vmap(error)(path.log_weight, path.states, roots)


def _no_number(log_weights: jax.Array) -> jax.Array:
    """NaN if one of them is, else zero."""
    return jnp.where(jnp.isnan(log_weights).any(), jnp.nan, 0.0).astype(log_weights.dtype)


def _variance(parts: jax.Array, ancestry: Ancestry) -> jax.Array:
    """The square of the sum of the parts, less the weighted sum over pairs of unlike ancestors.

    Written without the difference of two numbers near 1.
    """
    n = parts.shape[0]
    if n == 1:  # there is no pair
        return jnp.full(parts.shape[1:], jnp.nan, parts.dtype)
    generations = (ancestry.resamplings + 1).astype(parts.dtype)
    excess = jnp.expm1(generations * jnp.log1p(jnp.asarray(1 / (n - 1), parts.dtype)))
    alike = (_sums(parts, ancestry.eves) ** 2).sum(0)
    return (1 + excess) * alike - excess * parts.sum(0) ** 2


def _sums(parts: jax.Array, ancestors: jax.Array) -> jax.Array:
    """The sum of the parts of each ancestor."""
    return jax.ops.segment_sum(parts, ancestors, num_segments=parts.shape[0])


def _by(weights: jax.Array, values: jax.Array) -> jax.Array:
    return weights.reshape(-1, *[1] * (values.ndim - 1)) * values


def _roots(path: Path, lag: int) -> jax.Array:
    """Shape (T, n): the ancestors `lag` steps before each step, or those of the first step."""
    steps, n = path.log_weight.shape
    rows = jnp.arange(steps)

    def earlier(back: jax.Array, slots: jax.Array) -> jax.Array:
        """From the ancestors `back` steps before to those one step more."""
        at = rows - back
        before = jnp.take_along_axis(path.ancestors[jnp.maximum(at, 0)], slots, 1)
        return jnp.where((at > 0)[:, None], before, slots)

    slots = jnp.broadcast_to(jnp.arange(n, dtype=path.ancestors.dtype), (steps, n))
    return lax.fori_loop(0, min(lag, steps), earlier, slots)


def _known(filtered: Filtered) -> Ancestry:
    check_filtered(filtered)
    if filtered.ancestry is None:
        raise errors.InvalidArgument(
            "The error of one run is known for independent ancestors.", where=errors.caller(),
            given="a filter that resamples by another scheme", expected="multinomial resampling",
            fix="particle_filter(..., scheme=multinomial); or log_evidence_error of the log "
            "evidences of several runs",
        )  # fmt: skip
    return filtered.ancestry
