"""E-values have expectation at most one, exactly, at every stopping time; budgets, stages, ledger.

Expectations are sums over all data of small cases, so no assertion but that of the A/A test is
statistical. Sums of at most 1e5 terms of log e-values whose error is below 1e-13 (few hundred
operations on numbers below 100) are compared at 1e-11 or better. The file exceeds 400 lines since
the same few enumerations serve the e-values and all that is built on them.
"""

import itertools
import json
import math
import os

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import binom, chi2
from scipy.stats import multinomial as multinomial_law

from ppl import errors
from semantics.evidence.e_values import (
    Side,
    bounded_mean,
    combine,
    evidence_ratio,
    exchangeable,
    mean_effect,
    multinomial,
    multinomial_effect,
    multiply,
    two_sample,
)
from semantics.evidence.finite_variance import finite_variance_effect, finite_variance_mean
from semantics.evidence.ledger import Budget, Evidence, Ledger, stages

MIRRORED: dict[Side, Side] = {"greater": "less", "less": "greater", "both": "both"}
SIGNS: dict[Side, int] = {"greater": 1, "less": -1}
THREE = np.array([0.0, 0.3, 1.0])
WEIGHTS = np.array([0.4, 0.3, 0.3])
MEAN = float(THREE @ WEIGHTS)
RATIOS = np.array([0.0, 0.5, 4.0])
RATIO_WEIGHTS = np.array([0.4, 0.4, 0.2])
assert RATIOS @ RATIO_WEIGHTS == 1


def compositions(n, cells):
    """All count vectors of n in so many cells."""
    bars = itertools.combinations(range(n + cells - 1), cells - 1)
    edges = np.array([(-1, *bar, n + cells - 1) for bar in bars])
    return np.diff(edges, axis=1) - 1


def indices(outcomes, length):
    """All sequences, in lexicographic order, so that a prefix's successors are adjacent."""
    grid = np.meshgrid(*[np.arange(outcomes)] * length, indexing="ij")
    return np.stack(grid, -1).reshape(-1, length) if length else np.zeros((1, 0), int)


def tally(sequences, cells):
    return (sequences[..., None] == np.arange(cells)).sum(-2)


def sequence(counts):
    """One sequence of outcomes for each row of counts; the order does not matter."""
    return np.stack([np.repeat(np.arange(len(row)), row) for row in counts])


def log_ratios(sequences):
    with np.errstate(divide="ignore"):
        return np.log(RATIOS)[sequences]


# name: (log e-value of sequences of outcomes, probabilities of the outcomes under the null)
PROCESSES = {
    "multinomial": (lambda s: multinomial(tally(s, 3), [0.6, 0.35, 0.05]), [0.6, 0.35, 0.05]),
    "fair coin": (lambda s: multinomial(tally(s, 2), [0.5, 0.5]), [0.5, 0.5]),
    "both": (lambda s: bounded_mean(THREE[s], MEAN, 0.0, 1.0), WEIGHTS),
    "greater": (lambda s: bounded_mean(THREE[s], MEAN, 0.0, 1.0, "greater"), WEIGHTS),
    "less": (lambda s: bounded_mean(THREE[s], MEAN, 0.0, 1.0, "less"), WEIGHTS),
    "wide range": (lambda s: bounded_mean(THREE[s], MEAN, -3.0, 40.0), WEIGHTS),
    "ratio": (lambda s: evidence_ratio(log_ratios(s), 0.0), RATIO_WEIGHTS),
}
# Nulls in the interior of a one-sided hypothesis.
BELOW = {
    "greater": (lambda s: bounded_mean(THREE[s], MEAN + 0.05, 0.0, 1.0, "greater"), WEIGHTS),
    "less": (lambda s: bounded_mean(THREE[s], MEAN - 0.05, 0.0, 1.0, "less"), WEIGHTS),
    "ratio": (lambda s: evidence_ratio(log_ratios(s), 0.1), RATIO_WEIGHTS),
}


def stopped(process, p, horizon):
    """The largest E[e] of any stopping time up to the horizon, by backward induction."""
    value = np.exp(process(indices(len(p), horizon)))
    for length in reversed(range(horizon)):
        going_on = value.reshape(-1, len(p)) @ np.asarray(p)
        value = np.maximum(np.exp(process(indices(len(p), length))), going_on)
    return float(value[0])


@pytest.mark.parametrize("name", PROCESSES)
def test_no_stopping_time_gains_under_the_null(name):
    process, p = PROCESSES[name]
    assert stopped(process, p, 8) == pytest.approx(1.0, abs=1e-11)


@pytest.mark.parametrize("name", BELOW)
def test_a_null_in_the_interior_loses(name):
    """Stopping before the first bet is best, and every bet loses in expectation."""
    process, p = BELOW[name]
    assert stopped(process, p, 8) == pytest.approx(1.0, abs=1e-11)
    sequences = indices(3, 8)
    expectation = np.asarray(p)[sequences].prod(1) @ np.exp(process(sequences))
    assert expectation < 0.99


def test_stopping_gains_where_the_statistic_is_no_e_process():
    """The mean of the ratios is an e-value at each fixed n only, and the induction sees it."""

    def mean_ratio(s):
        return combine(log_ratios(s)) if s.shape[-1] else np.zeros(1)

    fixed = RATIO_WEIGHTS[indices(3, 6)].prod(1) @ np.exp(mean_ratio(indices(3, 6)))
    assert fixed == pytest.approx(1.0, abs=1e-12)
    assert stopped(mean_ratio, RATIO_WEIGHTS, 6) > 1.2


@pytest.mark.parametrize("name", PROCESSES)
def test_ever_reaching_a_level_is_as_rare_as_ville_says(name):
    process, p = PROCESSES[name]
    sequences = indices(len(p), 8)
    logs = [process(sequences[:, :length]) for length in range(9)]
    highest = np.exp(np.max(np.stack(logs), 0))
    mass = np.asarray(p)[sequences].prod(1)
    assert highest.max() > 1.1  # else nothing is tested
    for level in (1.01, 1.1, 1.5, 2.0, 5.0):
        assert mass[highest >= level].sum() <= 1 / level


@pytest.mark.parametrize(
    "p", [[0.3, 0.7], [0.25] * 4, [0.5, 0.49, 0.01], [1 - 2e-9, 1e-9, 1e-9], [0.4, 0.0, 0.6]]
)
@pytest.mark.parametrize("n", [1, 7, 20])
def test_multinomial_is_a_ratio_of_probabilities(p, n):
    counts = compositions(n, len(p))
    mass = multinomial_law(n, p).pmf(counts)
    possible = mass > 0
    log_e = multinomial(counts, p)
    assert mass[possible] @ np.exp(log_e[possible]) == pytest.approx(1.0, abs=1e-12)
    assert np.isposinf(log_e[(counts[:, np.array(p) == 0] > 0).any(1)]).all()


def test_multinomial_agrees_with_the_gamma_functions():
    """Where they lose the fewest digits: 1e-9 of the largest log Gamma, at a = 4^10."""
    rng = np.random.default_rng(0)
    for scale in (3, 1e3, 1e6):
        p = rng.dirichlet(np.ones(5))
        m = np.floor(scale * rng.random(5))
        found = []
        for c in 4.0 ** np.arange(11):
            a = c * p
            up = (gammaln(a + m) - gammaln(a)).sum() - gammaln(c + m.sum()) + gammaln(c)
            found.append(up - m @ np.log(p))
        expected = np.logaddexp.reduce(found) - math.log(11)
        assert float(multinomial(m, p)) == pytest.approx(expected, abs=1e-7, rel=1e-9)


def test_one_cell_and_no_data_are_no_evidence():
    assert multinomial([17], [1.0]) == 0 == multinomial([0, 0, 0], [0.2, 0.3, 0.5])
    assert bounded_mean([], 0.5, 0.0, 1.0) == 0 == evidence_ratio([], 0.0)
    none = np.zeros((0, 2))
    assert exchangeable(none, none) == 0 == two_sample(none.astype(int), none.astype(int))
    assert two_sample([3, 1, 4], [3, 1, 4]) == 0


def test_order_and_labels_do_not_matter():
    rng = np.random.default_rng(1)
    x, again = rng.random(50), rng.permutation(50)
    for side, mirrored in MIRRORED.items():
        direct = bounded_mean(x, 0.3, 0.0, 1.0, side)
        assert bounded_mean(x[again], 0.3, 0.0, 1.0, side) == pytest.approx(float(direct))
        assert bounded_mean(-2 * x, -0.6, -2.0, 0.0, mirrored) == pytest.approx(float(direct))
    assert evidence_ratio(x[again], 0.2) == pytest.approx(float(evidence_ratio(x - 0.2, 0.0)))
    relabel = [2, 0, 3, 1]
    counts, p = np.array([5, 1, 7, 9]), np.array([0.1, 0.2, 0.3, 0.4])
    assert multinomial(counts[relabel], p[relabel]) == pytest.approx(float(multinomial(counts, p)))
    a, b = rng.integers(0, 3, (2, 50))
    assert exchangeable(a[again], b[again]) == pytest.approx(float(exchangeable(a, b)))
    assert exchangeable(b, a) == pytest.approx(float(exchangeable(a, b)))


def test_leading_axes_are_independent_checks():
    rng = np.random.default_rng(2)
    x, counts = rng.random((3, 20)), rng.multinomial(30, [0.2, 0.8], size=3)
    rows = [
        [float(f(row)) for row in data] == pytest.approx(list(f(data)))
        for f, data in (
            (lambda v: bounded_mean(v, 0.4, 0.0, 1.0), x),
            (lambda v: evidence_ratio(v, 0.5), x),
            (lambda v: multinomial(v, [0.5, 0.5]), counts),
        )
    ]
    assert rows == [True] * 3


SWAPS = np.array(list(itertools.product([False, True], repeat=8)))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("test", [exchangeable, two_sample])
def test_orders_of_fixed_pairs_are_fair_coins(test, columns):
    """The mean over all orders of eight unordered pairs is one: integers, one or two columns."""
    pairs = np.random.default_rng(3).integers(0, 3, (8, 2, columns))
    found = []
    for swap in SWAPS:
        x = np.where(swap[:, None], pairs[:, 0], pairs[:, 1])
        y = np.where(swap[:, None], pairs[:, 1], pairs[:, 0])
        found.append(float(test(x, y)))
    assert np.exp(found).mean() == pytest.approx(1.0, abs=1e-12)
    assert np.ptp(found) > 0.1


@pytest.mark.parametrize("kind", [int, float])
def test_every_next_pair_is_a_fair_bet(kind):
    """Before, at the end of, and after the pilot that chooses the bins, whatever came before."""
    rng = np.random.default_rng(4)
    x = 10 * rng.normal(size=(130, 2))
    y = 3 + 12 * rng.normal(size=(130, 2))
    x, y = (np.where(np.abs(v) > 25, np.inf, v) if kind is float else v.astype(int) for v in (x, y))
    moved = 0
    for n in (0, 1, 40, 63, 64, 65, 100, 128):
        before = np.exp(exchangeable(x[:n], y[:n]))
        order = np.exp(exchangeable(x[: n + 1], y[: n + 1]))
        flipped = np.exp(exchangeable(np.r_[x[:n], y[n : n + 1]], np.r_[y[:n], x[n : n + 1]]))
        assert (order + flipped) / 2 == pytest.approx(before, rel=1e-12)
        moved += abs(order - flipped) > 1e-3
    assert moved >= 4


def test_a_cycle_keeps_the_uniform_law_but_is_not_reversible():
    """Three states in a ring; the sign alone sees 1/3 against 2/3, the pairs see certainty."""
    x = np.arange(60) % 3
    reversible = np.where(np.arange(60) % 6 < 3, (x + 1) % 3, (x - 1) % 3)
    assert exchangeable(x, (x + 1) % 3) > 25
    # Every ordered pair of states ten times: no evidence, and the mixture costs at most log 11.
    assert -math.log(11) < exchangeable(x, reversible) < 0


def test_one_large_defect_and_many_slight_ones():
    """Unordered pairs of states 2i and 2i + 1, that many times in the one order and the other."""

    def ordered(counts):
        x = np.repeat(np.arange(len(counts) * 2), np.ravel(counts))
        return exchangeable(x, x ^ 1)

    assert ordered([[1, 1]] * 200) > -math.log(3)  # the sign's share of the average is kept
    # One coin that always falls the same way has 0.69 nats a toss, 41.6 in all; the sign of the
    # difference is only 2.8 standard deviations off.
    assert ordered([[1, 1]] * 200 + [[60, 0]]) > 20
    # 60 against 40 in either direction has 0.0201 nats a toss, 20 pairs 40; the signs cancel.
    assert ordered([[60, 40], [40, 60]] * 10) > 10


def test_two_samples_that_differ_in_place_and_in_shape():
    """Quantiles of the two laws in a shuffled order, so that frequencies are exactly theirs."""
    rng = np.random.default_rng(5)
    levels = (np.arange(2000) + 0.5) / 2000
    logit = np.log(levels / (1 - levels))
    x = rng.permutation(logit)
    for other in (logit + 1, 2 * logit, np.abs(logit)):
        assert two_sample(x, rng.permutation(other)) > 20
    assert two_sample(x, rng.permutation(logit)) < 3


def test_power_at_exact_frequencies():
    """Counts in proportion to the alternative; thresholds are those of a level of 1e-6."""
    level = -math.log(1e-6)
    assert multinomial([350, 150, 500], [0.25, 0.25, 0.5]) > level
    assert multinomial([250, 250, 500], [0.25, 0.25, 0.5]) < 0
    assert multinomial([996, 4], [1 - 1e-6, 1e-6]) > level
    x = np.repeat([0.0, 1.0], [350, 650])
    assert bounded_mean(x, 0.5, 0.0, 1.0) > level
    assert bounded_mean(x, 0.5, 0.0, 1.0, "greater") > level
    assert bounded_mean(x, 0.5, 0.0, 1.0, "less") < 0
    # The variance is used: values near one another show a small shift that coins would not.
    assert bounded_mean(np.full(100, 0.52), 0.5, 0.49, 0.53) > level
    assert evidence_ratio(np.log(np.repeat([0.5, 2.0], 250)), 0.0) > level
    assert evidence_ratio(np.log(np.repeat([0.5, 1.5], 250)), 0.0) < 0


def test_what_is_impossible_under_the_null_is_certain_evidence():
    assert multinomial([10**6, 1], [1.0, 0.0]) == math.inf
    assert multinomial([5, 0], [1.0, 0.0]) == 0
    assert bounded_mean([0.0, 0.0, 1e-9], 0.0, 0.0, 1.0) == math.inf
    assert bounded_mean([0.0, 0.0], 0.0, 0.0, 1.0) == pytest.approx(0, abs=1e-12)
    assert bounded_mean([1.0, 0.5], 1.0, 0.0, 1.0, "less") == math.inf
    assert bounded_mean([1.0, 0.5], 1.0, 0.0, 1.0, "greater") < 0
    assert evidence_ratio([-math.inf, -3.0], -math.inf) == math.inf
    assert evidence_ratio([-math.inf] * 2, -math.inf) == pytest.approx(0, abs=1e-12)


def test_extreme_logarithms_do_not_overflow():
    assert evidence_ratio([5000.0, -math.inf], 0.0) == pytest.approx(5000, abs=20)
    assert combine([1e4, 0.0]) == pytest.approx(1e4 - math.log(2))
    assert combine([-math.inf] * 3) == -math.inf == multiply([-math.inf, 800.0])
    assert combine([math.inf, -math.inf]) == math.inf == multiply([math.inf, -math.inf])
    assert multiply([]) == 0
    assert list(combine([[0.0, 0.0], [1.0, 1.0]])) == [0, 1]


def tilted(p, radius, up):
    """The coin at KL divergence `radius` from p, above or below it."""
    low, high = p, 1.0 if up else 0.0
    for _ in range(60):
        q = (low + high) / 2
        far = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)) >= radius
        low, high = (low, q) if far else (q, high)
    return low


@pytest.mark.parametrize("alpha", [1e-3, 1e-9])
@pytest.mark.parametrize("p", [0.5, 0.2])
@pytest.mark.parametrize("n", [300, 3000])
def test_smallest_effects_have_their_power(n, p, alpha):
    """Sums over all binomial counts. The normal approximations miss 0.99 by at most 0.01."""
    k = np.arange(n + 1)
    rejected = multinomial(np.stack([k, n - k], -1), [p, 1 - p]) >= -math.log(alpha)
    radius = multinomial_effect(n, alpha, [p, 1 - p])
    for up in (True, False):
        assert binom.pmf(k, n, tilted(p, radius, up))[rejected].sum() > 0.98
        assert binom.pmf(k, n, tilted(p, radius / 4, up))[rejected].sum() < 0.5
    if n == 3000:  # bounded_mean of all sequences by count is n^2 numbers
        return
    coins = (np.arange(n) < k[:, None]).astype(float)
    for side, sign in SIGNS.items():
        rejected = bounded_mean(coins, p, 0.0, 1.0, side) >= -math.log(alpha)
        shift = sign * mean_effect(n, alpha, p, 0.0, 1.0, side)
        assert binom.pmf(k, n, p + shift)[rejected].sum() > 0.98
        assert binom.pmf(k, n, p + shift / 2)[rejected].sum() < 0.5


@pytest.mark.parametrize("cells", [2, 4, 20])
def test_smallest_divergence_of_many_cells(cells):
    """At exact frequencies of that divergence the log e-value is beyond the level by the slack.

    The slack, for chance, is the 99 % quantile of a normal of variance 2 n KL, shrunk by n/(n+c)
    with c < n/2 for the best of the concentrations; one nat is left for the other ones.
    """
    n, alpha, p = 10_000, 1e-6, np.full(cells, 1 / cells)
    radius = multinomial_effect(n, alpha, p)
    signs = np.where(np.arange(cells) % 2, 1, -1)
    low, high = 0.0, 0.9
    for _ in range(60):
        s = (low + high) / 2
        far = ((1 + s) * math.log1p(s) + (1 - s) * math.log1p(-s)) / 2 >= radius
        low, high = (low, s) if far else (s, high)
    excess = multinomial(np.round(n * p * (1 + low * signs)), p) + math.log(alpha)
    slack = 2.326 * math.sqrt(2 * n * radius)
    assert slack / 1.5 - 1 < excess < slack + 1


def test_smallest_effects_at_the_ends():
    assert multinomial_effect(10, 1e-6, [0.5, 0.5]) == math.inf
    assert mean_effect(10, 1e-6, 0.5, 0.0, 1.0) == math.inf
    assert mean_effect(900, 1e-6, 5.0, 0.0, 10.0) == 10 * mean_effect(900, 1e-6, 0.5, 0.0, 1.0)
    # One non-zero value among n is enough: 1 - (1 - d)^n = 0.99.
    assert mean_effect(50, 1e-6, 0.0, 0.0, 1.0) == pytest.approx(1 - 0.01 ** (1 / 50))
    assert mean_effect(50, 1e-6, 1.0, 0.0, 1.0, "greater") == math.inf


def test_pearson_alarms_thousands_of_times_too_often():
    """Exact sums over all counts: a rare cell, 100 draws, nominal level 1e-6."""
    p, n, level = np.array([0.5, 0.4999, 0.0001]), 100, 1e-6
    counts = compositions(n, 3)
    mass = multinomial_law(n, p).pmf(counts)
    pearson = chi2.sf(((counts - n * p) ** 2 / (n * p)).sum(1), df=2)
    assert mass[pearson <= level].sum() > 5e3 * level
    assert mass[multinomial(counts, p) >= -math.log(level)].sum() <= level


def test_ten_thousand_null_checks_raise_no_alarm():
    """P(any alarm) <= 1e-7 by the budget; P(more than 100 of e >= 100) < 1e-9 by the sum below."""
    rng, log_100 = np.random.default_rng(6), math.log(100)
    p = np.array([0.6, 0.3, 0.09, 0.01])
    laws = [  # (counts of outcomes -> log e, probabilities of the outcomes, n, checks)
        (lambda c: multinomial(c, p), p, 20, 4000),
        (lambda c: bounded_mean(THREE[sequence(c)], MEAN, 0.0, 1.0), WEIGHTS, 30, 3000),
        (lambda c: evidence_ratio(log_ratios(sequence(c)), 0.0), RATIO_WEIGHTS, 30, 2000),
    ]
    log_es, expected = [], 0.0
    for log_e, q, n, checks in laws:
        every = compositions(n, len(q))
        mass = multinomial_law(n, q).pmf(every)
        exact = mass[log_e(every) >= log_100].sum()
        assert exact <= 0.01
        expected += checks * exact
        log_es += list(log_e(rng.multinomial(n, q, size=checks)))
    for _ in range(500):
        x, y = rng.normal(size=(2, 100))
        a, b = rng.integers(0, 3, size=(2, 50))
        log_es += [float(two_sample(x, y)), float(exchangeable(a, b))]
    expected += 1000 * 0.01  # by Markov
    assert len(log_es) == 10_000
    # Chernoff: for independent events, P(at least k) <= exp(k - m - k log(k/m)) for mean m < k.
    assert 101 - expected - 101 * math.log(101 / expected) < math.log(1e-9)
    assert np.sum(np.array(log_es) >= log_100) <= 100
    budget = Budget(1e-7)
    for check, log_e in enumerate(log_es):
        budget.register(f"check {check}")
        assert not budget.alarms(f"check {check}", log_e)
    assert budget.spent <= 1e-7


def test_budget_is_never_exceeded():
    budget = Budget(1e-3, shares={"exact": 0.25, "slow": 0.5})
    levels = [budget.register(f"c{k}") for k in range(5000)]
    assert levels[:3] == pytest.approx([2.5e-4 * 6 / math.pi**2 / k**2 for k in (1, 2, 3)])
    assert budget.register("exact") == 2.5e-4 and budget.level("exact") == 2.5e-4
    assert budget.register("slow") == 5e-4
    # The tail of the sum of 1/k^2 after 5000 terms is between 1/5001 and 1/5000.
    left = (1e-3 - budget.spent) / (2.5e-4 * 6 / math.pi**2)
    assert 1 / 5001 <= left <= 1 / 5000
    assert budget.alarms("exact", -math.log(2.5e-4)) and not budget.alarms("exact", 8.29)


@pytest.mark.parametrize(
    "spend",
    [
        lambda: Budget(shares={"a": 0.7, "b": 0.4}),
        lambda: Budget(shares={"a": -0.1}),
        lambda: Budget(shares={"a": math.nan}),
        lambda: Budget(0.0),
        lambda: Budget(shares={"a": 1.0}).register("b"),
        lambda: [budget.register("a") for budget in [Budget()] * 2],
        lambda: Budget().level("a"),
        lambda: Budget().alarms("a", 1e3),
    ],
)
def test_overspending_is_an_error(spend):
    with pytest.raises(errors.InvalidArgument, match=r"test_evidence\.py"):
        spend()


def values(stage, size):
    """The first rows of a fixed sequence 0.9, 0.9, 0.8, then halves; the stage picks up."""
    start = 100 * (2**stage - 1)
    return np.r_[np.full(300, 0.9), np.full(700, 0.5)][start : start + size]


def about_half(x):
    return bounded_mean(x, 0.5, 0.0, 1.0)


def test_stages_stop_at_the_first_look_that_rejects():
    """The looks are at 100, 300 and 700 rows, each on all rows so far."""
    seen = []

    def statistic(x):
        seen.append(len(x))
        return about_half(x)

    evidence = stages(values, statistic, 1e-30, (100, 200, 400), witness=lambda x: x.max())
    assert seen == [100, 300] and evidence.n == 300 and evidence.rejected
    assert evidence.log_e == about_half(np.full(300, 0.9)) and evidence.witness == 0.9


def test_stages_accept_at_the_last_look():
    evidence = stages(
        lambda stage, size: {"x": np.arange(size) % 2, "stage": np.full(size, stage)},
        lambda data: about_half(data["x"]) + 0 * np.diff(data["stage"]).min(),
        1e-6,
        (10, 20),
        effect=lambda n, alpha: mean_effect(n, alpha, 0.5, 0.0, 1.0),
        witness=lambda data: pytest.fail("no witness without a rejection"),
    )
    log_e = float(about_half(np.arange(30) % 2))
    expected = mean_effect(30, 1e-6, 0.5, 0.0, 1.0)
    assert evidence == Evidence(log_e, 30, 1e-6, expected, None) and not evidence.rejected


def test_stages_reject_a_true_null_as_rarely_as_stated():
    """Exactly: all sequences of 8 coins, looks at 4, 6 and 8, at a level that is reached."""
    alpha, rejections = 0.3, 0
    for coins in indices(2, 8):
        looks = iter(np.split(coins, [4, 6]))
        evidence = stages(lambda *_, looks=looks: next(looks), about_half, alpha, (4, 2, 2))
        rejections += evidence.rejected
    assert 0 < rejections / 2**8 <= alpha


@pytest.mark.parametrize(
    ("sample", "alpha", "sizes"),
    [
        (values, 1e-6, ()),
        (values, 1e-6, (10, 0)),
        (values, 0.0, (10,)),
        (values, math.nan, (10,)),
        (lambda stage, size: np.zeros(size + 1), 1e-6, (10,)),
        (lambda stage, size: (np.zeros(size), np.zeros(3)), 1e-6, (10,)),
        (lambda stage, size: 0.5, 1e-6, (1,)),
    ],
)
def test_stages_that_make_no_sense_are_errors(sample, alpha, sizes):
    with pytest.raises(errors.InvalidArgument, match=r"test_evidence\.py"):
        stages(sample, lambda data: 0.0, alpha, sizes)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: multinomial([1, -1], [0.5, 0.5]),
        lambda: multinomial([1, 0.5], [0.5, 0.5]),
        lambda: multinomial([1, 1], [0.5, 0.6]),
        lambda: multinomial([1, 1], [1.5, -0.5]),
        lambda: multinomial([1, 1, 1], [0.5, 0.5]),
        lambda: multinomial(3, [1.0]),
        lambda: multinomial([1, math.nan], [0.5, 0.5]),
        lambda: bounded_mean([0.5, 1.1], 0.5, 0.0, 1.0),
        lambda: bounded_mean([0.5, math.nan], 0.5, 0.0, 1.0),
        lambda: bounded_mean([0.5], 1.5, 0.0, 1.0),
        lambda: bounded_mean([0.5], 0.5, 0.0, math.inf),
        lambda: bounded_mean([0.5], 0.5, 0.5, 0.5),
        lambda: bounded_mean([0.5], 0.5, 0.0, 1.0, "upper"),  # pyright: ignore
        lambda: evidence_ratio([math.nan], 0.0),
        lambda: exchangeable([1, 2], [1, 2, 3]),
        lambda: exchangeable(np.zeros((2, 2, 2)), np.zeros((2, 2, 2))),
        lambda: two_sample([math.nan], [0.0]),
        lambda: combine([]),
        lambda: combine(1.0),
        lambda: combine([math.nan, 0.0]),
        lambda: multiply([math.nan]),
        lambda: multinomial_effect(10, 1e-6, [0.5, 0.6]),
        lambda: multinomial_effect(0, 1e-6, [0.5, 0.5]),
        lambda: multinomial_effect(10, 0.0, [0.5, 0.5]),
        lambda: mean_effect(10, 1.0, 0.5, 0.0, 1.0),
        lambda: mean_effect(10, 1e-6, 2.0, 0.0, 1.0),
    ],
)
def test_mistakes_are_errors_at_the_users_line(mistake):
    with pytest.raises(errors.InvalidArgument, match=r"test_evidence\.py"):
        mistake()


def test_ledger_multiplies_over_runs_and_restarts_on_a_change(tmp_path):
    path = tmp_path / "ledger.json"
    assert Ledger(path).log_e("resample", "one") == 0
    assert Ledger(path).add("resample", "one", 1.5, seed=1) == 1.5
    assert Ledger(path).add("resample", "one", -0.25, seed=2) == 1.25
    assert Ledger(path).add("move", "one", 4.0, seed=1) == 4.0
    assert Ledger(path).log_e("resample", "one") == 1.25
    assert Ledger(path).log_e("resample", "two") == 0
    assert Ledger(path).add("resample", "two", 0.5, seed=1) == 0.5
    assert Ledger(path).log_e("resample", "one") == 0
    assert Ledger(path).log_e("move", "one") == 4.0
    assert os.listdir(tmp_path) == ["ledger.json"]


def test_ledger_keeps_infinite_evidence_in_valid_json(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    assert ledger.add("lost", "one", -math.inf, seed=1) == -math.inf
    assert ledger.add("lost", "one", 50.0, seed=2) == -math.inf
    assert ledger.add("certain", "one", math.inf, seed=1) == math.inf
    assert ledger.add("certain", "one", -math.inf, seed=2) == math.inf
    # NaN and Infinity are not JSON; a strict reader must not meet them.
    json.loads(ledger.path.read_text(), parse_constant=pytest.fail)


def test_ledger_counts_a_seed_once(tmp_path):
    """A rare event at one fixed seed must not become certain evidence by repetition."""
    ledger = Ledger(tmp_path / "ledger.json")
    ledger.add("resample", "one", 5.0, seed=7)
    for seed in (7, "7"):
        with pytest.raises(errors.InvalidArgument, match="already counts this seed"):
            ledger.add("resample", "one", 5.0, seed=seed)
    with pytest.raises(errors.InvalidArgument, match="NaN"):
        ledger.add("resample", "one", math.nan, seed=8)
    assert ledger.log_e("resample", "one") == 5.0


def test_a_damaged_ledger_is_named_and_left_alone(tmp_path):
    path = tmp_path / "ledger.json"
    Ledger(path).add("resample", "one", 5.0, seed=1)
    whole = path.read_bytes()
    bad = [whole.replace(b"5.0", value) for value in (b'"five"', b'"nan"', b"null")]
    damaged = [whole[:cut] for cut in range(len(whole))]
    for text in (*damaged, *bad, b"[]", b'{"giry ledger 1": [1]}', b"\xff", whole + b"}"):
        path.write_bytes(text)
        with pytest.raises(errors.InvalidArgument, match=r"ledger\.json is no ledger"):
            Ledger(path)
        assert path.read_bytes() == text


def test_an_interrupted_write_leaves_the_old_ledger(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.json")
    ledger.add("resample", "one", 5.0, seed=1)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.add("resample", "one", 3.0, seed=2)
    assert ledger.log_e("resample", "one") == 5.0 and os.listdir(tmp_path) == ["ledger.json"]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_mean_of_bounded_deviation_is_no_evidence_against_itself(n):
    """Its expectation over all draws of a law with the largest deviation is at most one."""
    for p in (0.5, 0.9, 0.99):
        values = np.array([-np.sqrt((1 - p) / p), np.sqrt(p / (1 - p))])  # mean 0, deviation 1
        chances = np.array([p, 1 - p])
        draws = np.array(list(itertools.product(range(2), repeat=n)))
        log_es = finite_variance_mean(values[draws], 0.0, 1.0)
        mean = np.sum(chances[draws].prod(1) * np.exp(log_es))
        assert 0.9 < mean <= 1 + 1e-12


def test_the_shift_that_is_stated_is_seen():
    """In 99 of 100 cases: of 200, fewer than 190 have a probability of 4e-5."""
    n, alpha = 2000, 1e-8
    shift = finite_variance_effect(n, alpha, 1.0)
    x = np.random.default_rng(0).normal(size=(200, n)) + shift
    assert np.sum(finite_variance_mean(x, 0.0, 1.0) > -np.log(alpha)) >= 190
