"""What a run gives back: exact numbers, or arviz-stats' own, called directly."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats

from inference import Draws
from inference.results.checks import CHECKS, Diagnosed, judge
from inference.results.fixed import fixed_elements
from inference.results.verdict import Finding
from ppl import Target, errors, gen, sample
from tests.results import (
    GOOD,
    RANDOM,
    autoregressive,
)

KEY = jax.random.key(0)
AXES = {"chain_axis": 0, "draw_axis": 1}


# -- summaries ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, bool])
def test_summary_has_the_numbers_of_arviz_stats(dtype):
    x = autoregressive(4, 50, 3)
    x = x > 0 if dtype is bool else (2 * x).astype(dtype)
    summary = Draws({"sub": {"x": x}}).summary(prob=0.8)
    assert list(summary) == ["sub/x[1]", "sub/x[2]", "sub/x[3]"]
    for i, row in enumerate(summary.values()):
        each = x[..., i].astype(np.float64)
        expected = {
            "mean": each.mean(),
            "sd": each.std(ddof=1),
            "10%": np.quantile(each, 0.1),
            "90%": np.quantile(each, 0.9),
            "mcse_mean": array_stats.mcse(each, **AXES, method="mean"),
            "mcse_sd": array_stats.mcse((each - each.mean()) ** 2, **AXES, method="mean")
            / (2 * each.std(ddof=1)),
            "ess_bulk": array_stats.ess(each, **AXES, method="bulk"),
            "ess_tail": array_stats.ess(each, **AXES, method="tail", prob=(0.05, 0.95)),
        }
        with np.errstate(invalid="ignore"):  # a folded fair coin is constant
            expected["rhat"] = array_stats.rhat(each, **AXES, method="rank")
        assert row.pop("note") == ""
        assert list(row) == list(expected)
        np.testing.assert_allclose(list(row.values()), list(expected.values()), rtol=1e-10)


def test_alternating_chains_know_their_standard_deviation_no_better():
    """Signs that alternate make the mean certain, and the squares are what they were."""
    size = np.abs(autoregressive(4, 400))
    signs = (-1.0) ** np.arange(400)
    row = Draws({"x": size * signs}).summary()["x"]
    assert row["mcse_mean"] < row["sd"] / np.sqrt(1600)
    assert row["mcse_sd"] > array_stats.mcse(size * signs, **AXES, method="sd")


def test_what_is_degenerate_is_said_and_has_no_effective_sample_size():
    x = autoregressive(2, 20)
    bad, stuck = x.copy(), x.copy()
    bad[1, 3] = np.nan
    stuck[1] = 0.5
    infinite = np.where(x == x.max(), np.inf, x)
    rare = np.zeros((2, 20), int)
    rare[0, 3] = 1
    choices = {"still": x * 0 + 3, "bad": bad, "stuck": stuck, "inf": infinite, "rare": rare}
    summary = Draws(choices).summary()
    notes = {name: row["note"] for name, row in summary.items()}
    assert notes == {
        "still": "constant",
        "bad": "1 NaN",
        "stuck": "chain 2 constant",
        "inf": "1 infinite",
        "rare": "",  # one chain may well miss a rare event
    }
    still = summary["still"]
    assert (still["mean"], still["sd"], still["5%"], still["95%"]) == (3, 0, 3, 3)
    for name in ("still", "bad", "inf"):
        for column in ("mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "rhat"):
            assert np.isnan(summary[name][column])
    assert np.isnan(summary["bad"]["mean"]) and summary["inf"]["mean"] == np.inf
    assert summary["stuck"]["ess_bulk"] == array_stats.ess(stuck, **AXES)


def test_table_is_aligned_and_only_printing_abbreviates():
    x = np.tile(np.array([0.0, 1.0, 2.0, 3.0]), (2, 100))
    summary = Draws({"mu": x, "still": x * 0, "theta": np.repeat(x[..., None], 30, -1)}).summary()
    text = str(summary).removesuffix(str(summary.verdict))
    head, columns, first, second, *rest, more = text.splitlines()
    assert head == (
        "2 chains x 400 draws; 5% and 95% are the ends of the equal-tailed 90% interval"
    )
    assert columns.split("  ")[-1] == "R-hat"
    assert first.split()[:3] == ["mu", "1.50", "1.12"]
    assert second.split() == ["still", "0.000", "0.000", "0.000", "0.000", "constant"]
    assert len(columns) == len(first) == len(second) <= 100
    assert len(rest) == 18 and more == "... 12 more rows: summary()['theta[30]']"
    assert len(summary) == 32 and summary["theta[30]"]["mean"] == 1.5
    with pytest.raises(errors.AddressNotFound, match='did you mean "theta'):
        summary["thetta[30]"]
    with pytest.raises(errors.InvalidArgument, match="0 < prob < 1"):
        Draws({"mu": x}).summary(prob=90)


def test_table_without_draws():
    assert str(Draws({"mu": np.zeros((4, 0))}).verdict()) == (
        'not converged: "mu" has no draws: run it'
    )
    assert "no draws" in str(Draws({"mu": np.zeros((4, 0))}).summary())


# -- the verdict ------------------------------------------------------------------------------


def after(value, at=(0, 0)):
    """Good draws with one value changed."""
    x = GOOD.copy()
    x[at] = value
    return x


def flag(*at):
    x = np.zeros(GOOD.shape, bool)
    for each in at:
        x[each] = True
    return x


APART = GOOD + np.array([[0.0], [0.0], [0.0], [1.0]])
# every half of every chain has the same 30 values, so that R-hat is below one
FEW = np.array([[RANDOM.permutation(GOOD[0, :30]) for _ in range(2)] for _ in range(4)])
FEW = FEW.reshape(4, 60)
ESS = min(
    array_stats.ess(FEW, **AXES), array_stats.ess(FEW, **AXES, method="tail", prob=(0.05, 0.95))
)
RHAT = array_stats.rhat(APART, **AXES)
WALK = np.cumsum(GOOD, 1)

CASES = {
    "finite": ({"mu": GOOD * 0, "tau": after(np.nan)}, {}, "tau", '"tau" has 1 NaN among 2000'),
    "constant": (
        {"mu": GOOD * 0 + 2, "tau": APART},
        {"diverging": flag((0, 0))},
        "mu",
        '"mu" is constant (2 in all 2000 draws): add a kernel',
    ),
    "divergences": (
        {"mu": APART},
        {"nuts/diverging": flag((1, 3), (2, 0))},
        "nuts/diverging",
        "2 of 2000 transitions diverged (nuts/diverging): raise target_accept",
    ),
    "rhat": ({"mu": GOOD, "tau": APART}, {}, "tau", f'R-hat of "tau" is {RHAT:.4f} > 1.01'),
    "ess": ({"tau": FEW}, {}, "tau", f'ESS of "tau" is {ESS:.0f} < 400 (100 a chain)'),
    "bfmi": ({"mu": GOOD}, {"nuts/energy": WALK}, "nuts/energy", "BFMI of chain"),
}


@pytest.mark.parametrize("check", CASES)
def test_verdict_names_the_first_check_that_fails(check):
    choices, stats, name, text = CASES[check]
    verdict = Draws(choices, stats).verdict()
    assert not verdict and (verdict.check, verdict.name) == (check, name)
    line = verdict.line
    assert line.startswith("not converged: ") and text in line and "\n" not in line
    assert len(line.removeprefix("not converged: ").split(": ")) > 1  # what to do


def test_verdict_names_every_check_that_fails_the_most_serious_first():
    """Sweep over the checks: the draws fail all of them at once."""
    choices = {
        "mu": np.where(GOOD < -5, 0, APART), "bad": after(np.nan), "still": GOOD * 0,
        "stuck": np.where(np.arange(4)[:, None] == 1, 0.5, GOOD), "few": np.cumsum(GOOD, 1),
    }  # fmt: skip
    deep = flag((0, 0), (1, 1))
    stats = {"diverging": flag((2, 3)), "energy": WALK, "reached_max_depth": deep}
    verdict = Draws(choices, stats).verdict()
    found = [(finding.check, finding.fails) for finding in verdict.findings]
    assert found == [
        ("finite", True), ("constant", True), ("constant", True), ("divergences", True),
        ("rhat", True), ("ess", True), ("bfmi", True), ("depth", False),
    ]  # fmt: skip
    lines = str(verdict).splitlines()
    assert lines[0] == verdict.line and len(lines) == len(found)
    for line, finding in zip(lines, verdict.findings, strict=True):
        assert line.endswith(f"{finding.text}: {finding.action}") and finding.action
    assert lines[-1].startswith("  note: 2 of 2000 trajectories reached max_depth")
    # a note alone does not fail
    fine = Draws({"mu": GOOD}, {"reached_max_depth": deep}).verdict()
    assert fine and str(fine).splitlines()[1:] == lines[-1:]
    # and a check of one's own is a function more
    odd = lambda found: iter([Finding("odd", "mu", 1.0, "it is odd", "make it even")])  # noqa: E731
    row = {"note": "", "mean": 0.0, "rhat": 1.0, "ess_bulk": 900.0, "ess_tail": 900.0}
    assert judge(Diagnosed({"mu": row}, (4, 500)), (*CHECKS, odd)).check == "odd"


def test_chains_that_settled_apart_are_told_to_cross():
    """Whatever shape the modes have; chains that still wander are told to go on."""
    side = np.array([[3.0], [-3.0], [3.0], [-3.0]])
    for x in (GOOD + side, np.exp(GOOD / 4) * side, (GOOD > 0) + 10 * (side > 0)):
        verdict = Draws({"mu": x}).verdict()
        assert verdict.check == "rhat" and "2, 4 near" in str(verdict)
        assert "parallel_tempering" in verdict.findings[0].action
        assert "annealed" in verdict.findings[0].action
    wandering = Draws({"mu": WALK}).verdict()
    assert "settled" not in str(wandering) and "more warmup" in wandering.findings[0].action


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_chains_that_each_stay_have_no_r_hat(dtype):
    """Not 6e15, whatever rounding makes of the variance in a chain."""
    still = np.repeat(np.array([[0.1], [0.7], [1.3], [2.9]]) * 10, 50, 1).astype(dtype)
    row = Draws({"mu": still}).summary()["mu"]
    assert row["note"] == "each chain constant" and np.isnan(row["rhat"])
    verdict = Draws({"mu": still}).verdict()
    assert [finding.check for finding in verdict.findings] == ["constant"]
    turned = np.concatenate([still, still[::-1]], 1)  # and halves that each stay
    assert Draws({"mu": turned}).summary()["mu"]["rhat"] in (np.inf, pytest.approx(1.0, abs=9))


ONE_VALUE = {  # and where: by the axes of the choice
    "LKJCholesky": (lambda: dist.LKJCholesky(3), np.triu(np.ones((3, 3))) - np.diag([0, 1, 1])),
    "LKJ": (lambda: dist.LKJ(2), np.eye(2)),
    "Dirichlet": (lambda: dist.Dirichlet(jnp.ones(3)), np.zeros(3)),
    "Dirichlet of one": (lambda: dist.Dirichlet(jnp.ones(1)), np.ones(1)),
    "ZeroSumNormal of one": (lambda: dist.ZeroSumNormal(1.0, (1,)), np.ones(1)),
    "Normal": (lambda: dist.Normal(0.0, 1.0).expand([2]), np.zeros(2)),
    "Uniform": (lambda: dist.Uniform(1.0, 2.0), 0),
    "Delta": (lambda: dist.Delta(2.0), 1),
    "Categorical of one": (lambda: dist.Categorical(jnp.ones(1)), 1),
    "Categorical": (lambda: dist.Categorical(jnp.ones(2) / 2), 0),
    "Binomial of none": (lambda: dist.Binomial(0, 0.5), 1),
    "Binomial": (lambda: dist.Binomial(3, 0.5), 0),
    "DiscreteUniform of one": (lambda: dist.DiscreteUniform(4, 4), 1),
    "Multinomial of one": (lambda: dist.Multinomial(3, jnp.ones(1)), np.ones(1)),
    "Poisson": (lambda: dist.Poisson(1.0), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_VALUE)
def test_what_a_support_fixes_is_no_chain_that_is_stuck(name):
    """Sweep over kinds of support, alone and in a loop."""
    make, where = ONE_VALUE[name]

    @gen
    def model():
        sample("x", make())
        jax.vmap(lambda _: sample("loop", make()))(jnp.arange(2))

    sites = model.sites()
    np.testing.assert_array_equal(fixed_elements(sites["x",]), np.asarray(where, bool))
    if name not in ("Binomial of none", "DiscreteUniform of one"):  # bounds that a loop hides
        np.testing.assert_array_equal(
            fixed_elements(sites["loop",]), np.broadcast_to(where, sites["loop",].shape)
        )
    where = np.asarray(where, bool)
    shape, continuous = (4, 100, *where.shape), sites["x",].dtype.kind == "f"
    moves = RANDOM.normal(size=shape) if continuous else RANDOM.integers(0, 9, shape)
    # as a product that is one is computed
    x = np.where(where, 1 + continuous * RANDOM.integers(-1, 2, shape) * 1e-16, moves)
    target = Target(gen(lambda: sample("x", make())))
    draws = Draws({"x": x.astype(moves.dtype)}, target=target)
    notes = [row["note"] == "fixed by its support" for row in draws.summary().values()]
    assert notes == where.ravel().tolist()
    assert not any(finding.check == "constant" for finding in draws.verdict().findings)
    # what only happens to be constant is not told from it by its value
    stuck = Draws({"x": np.zeros_like(x) + x[0, 0]}, target=target).verdict()
    assert (stuck.check == "constant") == (not where.all())


def test_verdict_of_good_draws_tells_its_numbers():
    stats = {"diverging": flag(), "energy": GOOD, "accept": GOOD}
    draws = Draws({"mu": GOOD, "tau": GOOD[::-1] ** 2}, stats, status="interrupted at 500")
    rows = draws.summary()
    ess = min(row[key] for row in rows.values() for key in ("ess_bulk", "ess_tail"))
    rhat = max(row["rhat"] for row in rows.values())
    assert draws.verdict()
    assert str(draws.verdict()) == (
        f"converged: 2 scalars, 4 chains x 500 draws; R-hat <= {rhat:.3f}; ESS >= {ess:.0f}; "
        f"no divergences; BFMI >= {array_stats.bfmi(GOOD).min():.2f} "
        "(the run: interrupted at 500)"
    )


def test_a_diagnostic_that_is_not_a_number_is_no_pass():
    good = {"note": "", "mean": 0.0, "rhat": 1.0, "ess_bulk": 900.0, "ess_tail": 900.0}
    for check, column in (("rhat", "rhat"), ("ess", "ess_bulk"), ("ess", "ess_tail")):
        rows = {"a": good, "b": {**good, column: np.nan}, "c": good}
        verdict = judge(Diagnosed(rows, (4, 500)))
        assert not verdict and (verdict.check, verdict.name) == (check, "b")
    assert judge(Diagnosed({"a": good}, (4, 500)))
    huge = Draws({"mu": 1e200 * GOOD})
    assert huge.verdict() and huge.summary()["mu"]["sd"] == np.inf  # its square overflows


def test_one_chain_is_no_evidence_of_convergence():
    few = Draws({"mu": GOOD[:, :1]}).verdict()
    assert str(few) == (
        "not converged: 4 chains of 1 draw say nothing: R-hat needs 2 chains of 4 draws; "
        "use 4 of 1000"
    )
    verdict = Draws({"mu": GOOD[:1]}).verdict()
    assert not verdict and verdict.check == "rhat" and "R-hat needs 2 chains" in str(verdict)


def test_divergences_of_all_kernels_and_bfmi_by_hand():
    energy = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 2.0, 3.0]])
    first, second = np.zeros((2, 2, 4), bool)
    first[0, 1] = second[0, 1] = second[1, 3] = True
    stats = {"a/diverging": first, "b/diverging": second, "a/energy": energy}
    draws = Draws({"mu": energy}, stats)
    found = draws.divergences()
    assert found.count.tolist() == [1, 1] and found.where.tolist() == [[0, 1], [1, 3]]
    # mean square of the steps over the variance: 1 / (1/3), and 1 / (5/3)
    np.testing.assert_allclose(draws.bfmi()["a/energy"], [3.0, 0.6])
    with pytest.raises(errors.InvalidArgument, match='no statistic "energy"'):
        Draws({"mu": energy}).bfmi()


def test_draws_are_looked_up_by_address_and_checked():
    draws = Draws({"sub": {"x": jnp.zeros((2, 3))}, "mu": jnp.ones((2, 3, 2))})
    assert isinstance(draws["sub", "x"], np.ndarray) and draws["sub"].keys() == {"x"}
    assert list(draws.scalars()) == ["sub/x", "mu[1]", "mu[2]"]  # in the given order
    with pytest.raises(errors.AddressNotFound, match='did you mean "sub", "x"'):
        draws["sub", "y"]
    with pytest.raises(errors.ShapeError, match='"b" does not have the chain and draw axes'):
        Draws({"a": np.zeros((2, 3)), "b": np.zeros((3, 2))})
    with pytest.raises(errors.ShapeError, match='"energy" does not have'):
        Draws({"a": np.zeros((2, 3))}, {"energy": np.zeros((2, 3, 1))})
