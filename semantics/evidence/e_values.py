"""Evidence against a null hypothesis: e-values, which may be watched, averaged and multiplied.

An e-value is a statistic E >= 0 with E[E] <= 1 under the null, so P(E >= 1/a) <= a by Markov. An
*e-process* is one whose value at every stopping time is an e-value, so by Ville's inequality
P(E ever >= 1/a) <= a: one may look after each datum, stop early, or go on. Neither bound is an
approximation, whatever the sample size; the quantiles of asymptotic tests are wrong at the levels
that a suite of many checks needs. All values here are natural logarithms, in float64, and arrays
have the data on their last axis, with independent checks on leading ones.

Sources: Shafer and Vovk, Game-Theoretic Foundations for Probability and Finance (2019); Ramdas,
Grünwald, Vovk and Shafer, Game-theoretic statistics and safe anytime-valid inference (Statistical
Science 2023); Vovk and Wang, E-values: calibration, combination and applications (Annals of
Statistics 2021).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ppl import errors

Side = Literal["greater", "less", "both"]

# Both mixtures are fixed in advance: one that depended on n would be valid at that n only. The
# best bet lies within a factor of two of one of these, which keeps 8/9 of its rate of growth.
_CONCENTRATIONS = 4.0 ** np.arange(11)
_BETS = np.array([1.0, 15 / 16, 7 / 8, 3 / 4, *2.0 ** -np.arange(1, 13)])

_PILOT, _BINS = 64, 8
_IMPOSSIBLE = 1e-290  # 1 / probability and its products with counts stay finite above this


def combine(log_es: ArrayLike) -> np.ndarray:
    """The mean of e-values, which is an e-value whatever their dependence (last axis).

    The mean of e-processes in the same data is an e-process. No other symmetric rule is better
    under arbitrary dependence (Vovk and Wang 2021, section 3).

    >>> float(combine([0.0, -float("inf")]).round(4))
    -0.6931
    """
    values = _numbers("log e-values", log_es)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise _invalid(
            "The mean of no e-values.", f"shape {values.shape}",
            "at least one e-value on the last axis", "combine([log_e1, log_e2])",
        )  # fmt: skip
    peak = values.max(-1, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(peak[..., 0] + np.log(np.exp(values - peak).mean(-1)))


def multiply(log_es: ArrayLike) -> np.ndarray:
    """The product of e-values, which is an e-value if they are independent (last axis).

    Or if each is one given the data of those before it. A factor of +inf, which has probability
    zero under the null, decides, also against a factor of zero.

    >>> float(multiply([1.5, -0.5]))
    1.0
    """
    values = np.atleast_1d(_numbers("log e-values", log_es))
    certain = np.isposinf(values)
    total = np.where(certain, 0.0, values).sum(-1)
    return np.asarray(np.where(certain.any(-1), np.inf, total))


def multinomial(counts: ArrayLike, probabilities: ArrayLike) -> np.ndarray:
    """Log e-process: counts of categories against independent draws of known probabilities.

    The ratio of a Dirichlet mixture's probability of the data to the null's; the Dirichlets are
    centred on `probabilities`, with total concentration 1, 4, 16, ..., 4^10 equally weighted. Its
    expectation under the null is exactly 1 after any number of draws, sparse cells or not. A
    count in a cell of probability zero (below 1e-290) gives +inf.

    Args:
      counts: whole numbers, shape (..., cells).
      probabilities: shape (..., cells), summing to 1 within 1e-6; they are normalised.

    Raises `InvalidArgument` for negative or fractional counts and for what is no distribution.
    Source: Lindon and Malek, Anytime-valid inference for multinomial count data (NeurIPS 2022),
    with a mixture over concentrations.

    >>> multinomial([50, 50], [0.5, 0.5]) < 0 < multinomial([80, 20], [0.5, 0.5])
    np.True_
    >>> float(multinomial([9, 1], [1.0, 0.0]))
    inf
    """
    ratios, certain = _dirichlet_ratios(counts, probabilities)
    return np.asarray(np.where(certain, np.inf, combine(ratios)))


def bounded_mean(
    x: ArrayLike, mean: ArrayLike, low: ArrayLike, high: ArrayLike, side: Side = "both"
) -> np.ndarray:
    """Log e-process: E[x_i | x_1 ... x_(i-1)] = mean, for x_i between low and high.

    The wealth of a gambler who stakes the same fraction b of it on every x_i exceeding its mean,
    averaged over a grid of b, and over the opposite stakes too if the side is "both". Needs
    neither independence nor equal laws; invariant under permutations; adapts to the variance.

    Args:
      x: shape (..., n). `mean`, `low` and `high` broadcast against it.
      side: the alternative. With "greater" the null is that the mean is at most `mean`, with
        "less" at least.

    A null at an end of the range lets `x` have no other value, so that any other gives +inf.
    Raises `InvalidArgument` for values outside the range, since the null says nothing of them.
    Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (JRSS B
    2024), the hedged capital process, with a mixture of constant fractions.

    >>> float(bounded_mean([0.9] * 100, 0.5, 0.0, 1.0)) > 40
    True
    >>> float(bounded_mean([0.9] * 100, 0.5, 0.0, 1.0, side="less")) < 0
    True
    """
    x, mean, low, high = (
        _numbers(name, value)
        for name, value in (("x", x), ("mean", mean), ("low", low), ("high", high))
    )
    _check_null(mean, low, high, side)
    if not np.all((low <= x) & (x <= high)):
        raise _invalid(
            "A value lies outside the range.", f"from {x.min()} to {x.max()}",
            f"from {low} to {high}", "widen it, or clip the statistic and give the clipped mean",
        )  # fmt: skip
    with np.errstate(divide="ignore"):
        above = _ratio(np.log(x - low), np.log(mean - low))
        below = _ratio(np.log(high - x), np.log(high - mean))
    sides = {"greater": [above], "less": [below], "both": [above, below]}[side]
    return combine(np.stack([_wealth(each) for each in sides], -1))


def evidence_ratio(log_estimates: ArrayLike, log_truth: ArrayLike) -> np.ndarray:
    """Log e-process: estimates of a positive number, each with mean at most the truth.

    Against overestimation only: each e^(estimate - truth) is an e-value, on which a gambler stakes
    a fraction of the wealth, averaged over a grid of fractions. Underestimation of an unbounded
    estimate has no e-value, since a rare large one can hide what is missing; with a bound, use
    `bounded_mean`. For fixed n, `combine(log_estimates - log_truth)` is an e-value too.

    Args:
      log_estimates: shape (..., n), independent or each unbiased given those before it.
      log_truth: broadcasts against them. If it is -inf, an estimate above zero gives +inf.

    Source: Ramdas et al. (2023); the stakes are those of `bounded_mean`.

    >>> float(evidence_ratio([0.5] * 100, 0.0)) > 40
    True
    """
    estimates, truth = _numbers("estimates", log_estimates), _numbers("truth", log_truth)
    return _wealth(_ratio(estimates, truth))


def exchangeable(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Log e-process: (x_i, y_i) has the law of (y_i, x_i), as under a reversible kernel.

    With x from the stationary law and y = K(x), K is reversible iff the pair is exchangeable.
    Given the pair without its order, the order is a fair coin; coins are tested by `multinomial`.
    For each column, e-processes on the sign of y - x, and on the order of x and y in every
    unordered pair of categories, multiplied over those; averaged.

    Args:
      x, y: shape (n,) or (n, columns): statistics of the two states, such as each choice and the
        joint log density. Integers and booleans are categories as they are; floats are put in 8
        bins at the quantiles of the first 64 pairs, on which nothing is then staked.

    Raises `InvalidArgument` for unequal shapes and for NaN. Source: Saha and Ramdas, Testing
    exchangeability by pairwise betting (AISTATS 2024), whose coin is the first.

    >>> around = np.arange(300) % 3
    >>> float(exchangeable(around, (around + 1) % 3)) > 100
    True
    """
    x, y = _pairs(x, y)
    found = []
    for before, after in zip(x.T, y.T, strict=True):
        up, down = int((after > before).sum()), int((after < before).sum())
        found += [multinomial([up, down], [0.5, 0.5]), _orders(before, after)]
    return combine(np.stack(found))


def two_sample(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Log e-process: two samples of equal size are independent draws of the same law.

    Paired up in order, they are exchangeable, whatever the law; it sees place and shape. Arguments
    and errors as for `exchangeable`. Source: Turner, Ly and Grünwald, Generic e-variables for exact
    sequential k-sample tests (2024), with blocks of one datum a sample.

    >>> float(two_sample(np.arange(400) % 4, np.arange(400) % 5)) > 20
    True
    """
    return exchangeable(x, y)


def multinomial_effect(
    n: int, alpha: float, probabilities: ArrayLike, *, power: float = 0.99
) -> float:
    """The KL radius, in nats, outside which `multinomial` rejects n draws with this power.

    With k cells and concentration c, Laplace's approximation of the log e-value at empirical
    divergence K is n K n/(n+c) - (k-1)/2 log(1 + n/c) - log 11, and n K is about normal with mean
    n KL and variance 2 n KL under the alternative. The radius solves 'the power-quantile equals
    log 1/alpha' for the best c: about log(1/alpha) / n plus the mixture's cost. (That n K has a
    bias of (k-1)/2 is left out, on the safe side.) `inf` if no distribution is that far.

    >>> round(multinomial_effect(1000, 1e-6, [0.25] * 4), 4)
    0.0434
    """
    _check_plan(n, alpha, power)
    p = _distribution(probabilities)
    p = p[p > _IMPOSSIBLE]
    cost = -math.log(alpha) + math.log(len(_CONCENTRATIONS))
    cost = cost + (p.size - 1) / 2 * np.log1p(n / _CONCENTRATIONS)
    z = NormalDist().inv_cdf(power)
    root = z / math.sqrt(2) + np.sqrt(z**2 / 2 + cost * (n + _CONCENTRATIONS) / n)
    radius = float((root**2).min()) / n
    return radius if radius <= -math.log(p.min()) else math.inf


def mean_effect(
    n: int, alpha: float, mean: float, low: float, high: float, side: Side = "both",
    *, power: float = 0.99,
) -> float:  # fmt: skip
    """The shift of the mean from which on `bounded_mean` rejects n draws with this power.

    In the units of x. Computed for the law that is hardest to see: by concavity of the logarithm
    the wealth grows slowest, for a given mean, when x is always `low` or `high`. The log wealth of
    the best stake, less log of the number of stakes, is taken as normal. With "both", the larger
    of the shifts up and down; `inf` if no mean in the range is that far.

    >>> round(mean_effect(1000, 1e-6, 0.5, 0.0, 1.0), 3)
    0.132
    """
    _check_plan(n, alpha, power)
    _check_null(np.asarray(mean), np.asarray(low), np.asarray(high), side)
    share = (mean - low) / (high - low)
    nulls = {"greater": [share], "less": [1 - share], "both": [share, 1 - share]}[side]
    needed = -math.log(alpha) + math.log(len(nulls) * len(_BETS))
    z = NormalDist().inv_cdf(power)
    bets = _BETS[1:]  # the stake of everything is lost at the first `low`

    def seen(null: float, shift: float) -> bool:
        p = null + shift
        if null == 0:  # one value other than `low` is enough
            return (1 - p) ** n <= 1 - power
        win, loss = np.log1p(bets * (1 / null - 1)), np.log1p(-bets)
        growth, spread = p * win + (1 - p) * loss, math.sqrt(p * (1 - p)) * (win - loss)
        return bool((n * growth - z * math.sqrt(n) * spread).max() >= needed)

    def smallest(null: float) -> float:
        bottom, top = 0.0, 1 - null
        if not seen(null, top):
            return math.inf
        for _ in range(60):
            middle = (bottom + top) / 2
            bottom, top = (bottom, middle) if seen(null, middle) else (middle, top)
        return top

    # A null at the top of its range cannot move.
    return (high - low) * max((smallest(null) for null in nulls if null < 1), default=math.inf)


def _wealth(log_ratios: np.ndarray) -> np.ndarray:
    """Log of the mean over bets b of prod_i (1 - b + b r_i): an e-process if each E[r_i] <= 1."""
    with np.errstate(divide="ignore"):
        stakes = list(zip(np.log1p(-_BETS), np.log(_BETS), strict=True))
    logs = [multiply(np.logaddexp(kept, staked + log_ratios)) for kept, staked in stakes]
    return combine(np.stack(logs, -1))


def _ratio(log_x: np.ndarray, log_mean: np.ndarray) -> np.ndarray:
    """Log of x / mean, with 0 / 0 = 1: where the null leaves only x = 0, that is no evidence."""
    with np.errstate(invalid="ignore"):
        return np.where(log_x == log_mean, 0.0, log_x - log_mean)


def _dirichlet_ratios(counts: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios, shape (..., concentrations), and where a count is in an impossible cell.

    For Dirichlet(c p), with f(a, m) = log of prod_(j<m) (1 + j/a), the ratio is
    sum_i f(c p_i, m_i) - f(c, n), in which nothing large cancels.
    """
    m, p = _numbers("counts", counts), _distribution(probabilities)
    if not np.all((m >= 0) & (m == np.floor(m)) & np.isfinite(m)):
        raise _invalid("Counts are whole numbers.", m, "0, 1, 2, ...", "np.bincount(labels)")
    if m.ndim == 0 or m.shape[-1] != p.shape[-1]:
        raise _invalid(
            "Counts and probabilities have different cells.", f"counts of shape {m.shape}",
            f"{p.shape[-1]} cells", "np.bincount(labels, minlength=cells)",
        )  # fmt: skip
    possible = p > _IMPOSSIBLE
    certain = np.asarray(((m > 0) & ~possible).any(-1))
    m = np.where(possible, m, 0.0)[..., None]
    p = np.where(possible, p, 1.0)[..., None]
    cells = _log_rising(_CONCENTRATIONS * p, m).sum(-2)
    return cells - _log_rising(_CONCENTRATIONS, m.sum(-2)), certain


def _log_rising(a: np.ndarray, m: np.ndarray) -> np.ndarray:
    """log of prod_(j<m) (1 + j/a), which is log Gamma(a+m) - log Gamma(a) - m log a.

    From Stirling's series at a + 16, where its error is below 1e-14.
    """
    b = a + 16.0
    above = (b + m - 0.5) * np.log1p(m / b) - m + _stirling(b + m) - _stirling(b)
    return above + m * np.log1p(16.0 / a) - sum(np.log1p(m / (a + i)) for i in range(16))


def _stirling(z: np.ndarray) -> np.ndarray:
    w = 1 / z**2
    return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680))) / z


def _orders(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log e-process of the orders of x and y in each unordered pair of categories."""
    if not np.issubdtype(x.dtype, np.integer):
        x, y = _binned(x, y)
    differ = x != y
    x, y = x[differ], y[differ]
    pairs = np.stack([np.minimum(x, y), np.maximum(x, y)], -1)
    found, which = np.unique(pairs, axis=0, return_inverse=True)
    counts = np.zeros((len(found), 2))
    np.add.at(counts, (which, (x > y).astype(int)), 1)
    ratios, _ = _dirichlet_ratios(counts, [0.5, 0.5])
    # One concentration for all sees many slight defects, one for each pair sees a single large one.
    return combine(np.stack([combine(ratios.sum(0)), multiply(combine(ratios))]))


def _binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bins of the pairs after the pilot, at quantiles of the pilot: chosen before any bet."""
    pilot = np.concatenate([x[:_PILOT], y[:_PILOT]])
    levels = np.arange(1, _BINS) / _BINS
    edges = np.quantile(pilot, levels, method="inverted_cdf") if pilot.size else pilot
    return np.searchsorted(edges, x[_PILOT:]), np.searchsorted(edges, y[_PILOT:])


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape or x.ndim not in (1, 2):
        raise _invalid(
            "The two sides are no pairs.", f"shapes {x.shape} and {y.shape}",
            "both (n,) or both (n, columns)", "give as many of one as of the other",
        )  # fmt: skip
    kind = np.result_type(x, y)
    kind = float if np.issubdtype(kind, np.inexact) else np.int64
    for name, side in (("x", x), ("y", y)):
        _numbers(name, side)
    columns = (len(x), x.size // len(x) if len(x) else 1)
    return x.reshape(columns).astype(kind), y.reshape(columns).astype(kind)


def _distribution(probabilities: ArrayLike) -> np.ndarray:
    p = _numbers("probabilities", probabilities)
    if p.ndim == 0 or np.any(p < 0) or np.any(np.abs(p.sum(-1) - 1) > 1e-6):
        raise _invalid(
            "The probabilities are no distribution.", p,
            "non-negative numbers that sum to 1 on the last axis", "probabilities / their sum",
        )  # fmt: skip
    return p / p.sum(-1, keepdims=True)


def _check_null(mean: np.ndarray, low: np.ndarray, high: np.ndarray, side: str) -> None:
    if side not in ("greater", "less", "both"):
        raise _invalid("An unknown side.", side, '"greater", "less" or "both"', 'side="both"')
    if not np.all((low <= mean) & (mean <= high) & (low < high) & np.isfinite(high - low)):
        raise _invalid(
            "The mean lies outside the range.", f"mean {mean}, low {low}, high {high}",
            "low <= mean <= high", "give the range that the null allows, with low < high",
        )  # fmt: skip


def _check_plan(n: int, alpha: float, power: float) -> None:
    if not (n >= 1 and 0 < alpha < 1 and 0 < power < 1):
        raise _invalid(
            "No such test.", f"n {n}, level {alpha}, power {power}",
            "n >= 1, level and power strictly between 0 and 1", "n=1000, alpha=1e-6",
        )  # fmt: skip


def _numbers(name: str, value: ArrayLike) -> np.ndarray:
    array = np.asarray(value, float)
    if np.isnan(array).any():
        raise _invalid(
            f"NaN among the {name}.", f"{np.isnan(array).sum()} NaN", "numbers",
            "find where it comes from: NaN is no evidence either way",
        )  # fmt: skip
    return array


def _invalid(what: str, given: object, expected: str, fix: str) -> errors.InvalidArgument:
    where = errors.caller()
    return errors.InvalidArgument(what, where=where, given=given, expected=expected, fix=fix)
