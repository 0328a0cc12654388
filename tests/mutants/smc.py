"""Sequential Monte Carlo on hidden Markov programs, and what can be wrong with its weights.

A bootstrap filter: particles move by the transition table, are weighted by the emission
table, and are resampled before the next step (Gordon, Salmond and Smith 1993); resampling
leaves the mean weight to all (Del Moral 2004, section 2.4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import Weighted, log_evidence, multinomial, spawn, then
from inference.weighted import Step, normalized
from ppl import Target, draw
from semantics import check_proper, programs

from .cases import HIDDEN_MARKOV, positive
from .registry import Entry, Kind

FAR = 800.0  # exp(-800) is 0 in float64

Resampler = Callable[[Weighted, jax.Array], Weighted]
"""From particles, and the last increments of their log weights, to particles."""


def filtered(target: Target, resample: Resampler, n: int = 3, fraction: float = 2.0) -> Step:
    """The step from the unit measure to `target`.

    Resamples when the effective number of particles (Liu and Chen 1995) is below this
    fraction of n; so at 2, always.
    """
    transition, emission = target.args[0]["x"], target.args[0]["y"]
    seen = target.observations["y"]

    def extend(s: Weighted, t: int) -> tuple[Weighted, jax.Array]:
        before = s.value[:, t - 1] if t else jnp.zeros(n, int)
        x = draw(dist.CategoricalProbs(transition[before, t]))
        increment = jnp.log(emission[x, seen[t]])
        return Weighted(s.value.at[:, t].set(x), s.log_weight + increment), increment

    def step(weighted: Weighted) -> Weighted:
        empty = Weighted(jnp.zeros(len(seen), int), weighted.log_weight)
        s, increment = extend(spawn(n)(empty), 0)
        for t in range(1, len(seen)):
            effective = 1 / (normalized(s.log_weight) ** 2).sum()
            few = effective < fraction * n
            s = jax.tree.map(partial(jnp.where, few), resample(s, increment), s)
            s, increment = extend(s, t)
        return Weighted({"x": s.value}, s.log_weight)

    return step


def far_away(target: Target, resample: Resampler) -> Step:
    """The same from a mass of exp(-800): a proper step is linear in the incoming weight."""

    def scaled(by: float) -> Step:
        return lambda s: Weighted(s.value, s.log_weight + by)

    return then(scaled(-FAR), filtered(target, resample), scaled(FAR))


# -- ancestors ---------------------------------------------------------------------------


def _residual(copies: jax.Array, left: jax.Array) -> jax.Array:
    """So many certain copies of each, and the others drawn by the weights `left`."""
    n = len(copies)
    total = left.sum()
    left = jnp.where(total > 1e-9, left / jnp.where(total > 1e-9, total, 1.0), 1 / n)
    certain = jnp.searchsorted(jnp.cumsum(copies), jnp.arange(n), side="right")
    others = draw(dist.CategoricalProbs(left).expand([n]))
    return jnp.where(jnp.arange(n) < copies.sum(), certain, others)


def _copies(expected: jax.Array) -> jax.Array:
    return jnp.floor(expected + 1e-9).astype(int)  # n w_i may be a whole number, but for rounding


def residual(weights: jax.Array) -> jax.Array:
    """floor(n w_i) copies, the others by what is left of n w_i (Liu and Chen 1998)."""
    expected = len(weights) * weights
    return _residual(_copies(expected), jnp.maximum(expected - _copies(expected), 0.0))


def whole_residual(weights: jax.Array) -> jax.Array:
    """The others are drawn by the whole weights."""
    return _residual(_copies(len(weights) * weights), weights)


def unshifted(log_weights: jax.Array) -> jax.Array:
    """Normalised without a shift by the maximum."""
    weights = jnp.exp(log_weights)
    total = weights.sum()
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 1 / len(weights))


# -- resamplers --------------------------------------------------------------------------


def _chosen(s: Weighted, ancestors: jax.Array, log_weight: jax.Array) -> Weighted:
    return Weighted(s.value[ancestors], jnp.broadcast_to(log_weight, ancestors.shape))


def by_scheme(s: Weighted, _: jax.Array, scheme: Callable = multinomial) -> Weighted:
    return _chosen(s, scheme(normalized(s.log_weight)), log_evidence(s))


def in_reverse(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, multinomial(normalized(s.log_weight))[::-1], log_evidence(s))


def not_reset(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, multinomial(normalized(s.log_weight)), s.log_weight)


def resampled_weights(s: Weighted, _: jax.Array) -> Weighted:
    ancestors = multinomial(normalized(s.log_weight))
    return _chosen(s, ancestors, s.log_weight[ancestors])


def mass_forgotten(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, multinomial(normalized(s.log_weight)), jnp.zeros(()))


def values_stay(s: Weighted, _: jax.Array) -> Weighted:
    return Weighted(s.value, jnp.full_like(s.log_weight, log_evidence(s)))


def off_by_one(s: Weighted, _: jax.Array) -> Weighted:
    ancestors = multinomial(normalized(s.log_weight)) + 1
    return _chosen(s, ancestors % len(ancestors), log_evidence(s))


def permuted(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, multinomial(jnp.sort(normalized(s.log_weight))), log_evidence(s))


def increments_only(s: Weighted, increment: jax.Array) -> Weighted:
    mean = log_evidence(Weighted((), increment))
    return _chosen(s, multinomial(normalized(s.log_weight)), mean)


def mean_of_logs(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, multinomial(normalized(s.log_weight)), s.log_weight.mean())


def total_weight(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, multinomial(normalized(s.log_weight)), jax.nn.logsumexp(s.log_weight))


def unnormalised_residual(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, residual(jnp.exp(s.log_weight)), log_evidence(s))


def no_shift(s: Weighted, _: jax.Array) -> Weighted:
    return _chosen(s, multinomial(unshifted(s.log_weight)), log_evidence(s))


def mean_of_exponentials(s: Weighted, _: jax.Array) -> Weighted:
    mean = jnp.log(jnp.exp(s.log_weight).mean())
    return _chosen(s, multinomial(normalized(s.log_weight)), mean)


def zero_over_zero(s: Weighted, _: jax.Array) -> Weighted:
    weights = jnp.exp(s.log_weight)
    excess = jnp.log(weights.sum() / len(weights)) - s.log_weight.max()
    return _chosen(s, multinomial(normalized(s.log_weight)), excess + s.log_weight.max())


ALWAYS = partial(filtered, fraction=2.0)
POSITIVE = positive(HIDDEN_MARKOV)
WITH_ZEROS = programs.discrete(shapes=("scan",), rows="any")


def _entry(kind: Kind, name: str, says: str, make: Callable[[Target], Step], cases=POSITIVE):
    return Entry("SMC", name, says, partial(check_proper, make, cases), kind)


def _simple(kind: Kind, says: str, resample: Resampler, name: str = "") -> Entry:
    name = name or getattr(resample, "__name__", "").replace("_", " ")
    return _entry(kind, name, says, partial(filtered, resample=resample))


def _adaptive(kind: Kind, name: str, says: str, resample: Resampler) -> Entry:
    make = partial(filtered, resample=resample, n=2, fraction=0.9)
    return _entry(kind, name, says, make, programs.discrete(shapes=("scan",), rows="positive"))


ENTRIES = (
    _simple("correct", "multinomial resampling before each step", by_scheme, "correct"),
    _simple(
        "correct", "residual resampling", partial(by_scheme, scheme=residual), "residual, correct"
    ),
    _adaptive("correct", "adaptive, correct", "resampling at a low effective number", by_scheme),
    _entry(
        "correct", "far, correct", "from a mass of exp(-800)", partial(far_away, resample=by_scheme)
    ),
    _entry(
        "correct",
        "zeros, correct",
        "all weights may be zero",
        partial(filtered, resample=by_scheme, n=2),
        WITH_ZEROS,
    ),
    _simple("equivalent", "ancestors in reverse order", in_reverse),
    _simple("equivalent", "weights stay in place: ancestors are independent of slots", not_reset),
    _simple("mutant", "weights not reset but resampled with the values", resampled_weights),
    _simple("mutant", "weights reset to one: the mass is forgotten", mass_forgotten),
    _simple("mutant", "values not resampled, weights averaged", values_stay),
    _simple("mutant", "ancestors off by one", off_by_one),
    _simple("mutant", "weights sorted, values not", permuted),
    _simple("mutant", "evidence from the mean of the log weights", mean_of_logs),
    _simple("mutant", "evidence from the sum of the weights", total_weight),
    _simple("mutant", "residual resampling of weights not normalised", unnormalised_residual),
    _simple(
        "mutant",
        "residual resampling, the rest drawn by whole weights",
        partial(by_scheme, scheme=whole_residual),
        "residual of whole weights",
    ),
    _adaptive(
        "mutant",
        "increments only",
        "adaptive: evidence from the last increments, incoming weights ignored",
        increments_only,
    ),
    _entry(
        "mutant",
        "no shift",
        "weights normalised without a shift: all equal at exp(-800)",
        partial(far_away, resample=no_shift),
    ),
    _entry(
        "mutant",
        "mean of exponentials",
        "evidence without a shift: zero at exp(-800)",
        partial(far_away, resample=mean_of_exponentials),
    ),
    _entry(
        "mutant",
        "zero over zero",
        "NaN evidence when all weights are zero",
        partial(filtered, resample=zero_over_zero, n=2),
        WITH_ZEROS,
    ),
)
