"""What a run gives back: exact numbers, or arviz-stats' own, called directly."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray
from arviz_stats.base import array_stats
from scipy import stats as scipy_stats

from inference import Draws
from inference.export import to_datatree
from inference.loo import loo
from inference.plots import plot_posterior, plot_predictive, plot_trace
from inference.pointwise import log_likelihood
from inference.predictive import posterior_predictive, prior_predictive, replicate
from inference.verdict import judge
from ppl import Masked, Target, draw, errors, gen, law, sample, seed, select

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
AXES = {"chain_axis": 0, "draw_axis": 1}


def autoregressive(*shape):
    """Chains that mix slowly, so that no two diagnostics agree by accident."""
    x = RANDOM.normal(size=shape)
    for i in range(1, shape[1]):
        x[:, i] += 0.5 * x[:, i - 1]
    return x


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
            "mcse_sd": array_stats.mcse(each, **AXES, method="sd"),
            "ess_bulk": array_stats.ess(each, **AXES, method="bulk"),
            "ess_tail": array_stats.ess(each, **AXES, method="tail", prob=(0.05, 0.95)),
        }
        with np.errstate(invalid="ignore"):  # a folded fair coin is constant
            expected["rhat"] = array_stats.rhat(each, **AXES, method="rank")
        assert row.pop("note") == ""
        assert list(row) == list(expected)
        np.testing.assert_allclose(list(row.values()), list(expected.values()), rtol=1e-10)


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
    head, columns, first, second, *rest, more, verdict = str(summary).splitlines()
    assert head == (
        "2 chains x 400 draws; 5% and 95% are the ends of the equal-tailed 90% interval"
    )
    assert columns.split("  ")[-1] == "R-hat"
    assert first.split()[:3] == ["mu", "1.50", "1.12"]
    assert second.split() == ["still", "0.000", "0.000", "0.000", "0.000", "constant"]
    assert len(columns) == len(first) == len(second) <= 100
    assert len(rest) == 18 and more == "... 12 more rows: summary()['theta[30]']"
    assert verdict == str(summary.verdict)
    assert len(summary) == 32 and summary["theta[30]"]["mean"] == 1.5
    with pytest.raises(errors.AddressNotFound, match='did you mean "theta'):
        summary["thetta[30]"]
    with pytest.raises(errors.InvalidArgument, match="between 0 and 1"):
        Draws({"mu": x}).summary(prob=90)


def test_table_without_draws():
    assert str(Draws({"mu": np.zeros((4, 0))}).verdict()) == (
        'not converged: "mu" has no draws: run it'
    )
    assert "no draws" in str(Draws({"mu": np.zeros((4, 0))}).summary())


# -- the verdict ------------------------------------------------------------------------------

GOOD = RANDOM.normal(size=(4, 500))


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
    "rhat": ({"mu": GOOD, "tau": APART}, {}, "tau", f'R-hat of "tau" is {RHAT:.3f} > 1.01'),
    "ess": ({"tau": FEW}, {}, "tau", f'ESS of "tau" is {ESS:.0f} < 400 (100 a chain)'),
    "bfmi": ({"mu": GOOD}, {"nuts/energy": WALK}, "nuts/energy", "BFMI of chain"),
}


@pytest.mark.parametrize("check", CASES)
def test_verdict_names_the_first_check_that_fails(check):
    choices, stats, name, text = CASES[check]
    verdict = Draws(choices, stats).verdict()
    assert not verdict and (verdict.check, verdict.name) == (check, name)
    line = str(verdict)
    assert line.startswith("not converged: ") and text in line and "\n" not in line
    assert len(line.removeprefix("not converged: ").split(": ")) > 1  # what to do


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
        verdict = judge(rows, (4, 500), {}, {})
        assert not verdict and (verdict.check, verdict.name) == (check, "b")
    assert judge({"a": good}, (4, 500), {}, {})
    huge = Draws({"mu": 1e200 * GOOD})
    assert huge.verdict() and huge.summary()["mu"]["sd"] == np.inf  # its square overflows


def test_one_chain_is_no_evidence_of_convergence():
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


# -- predictions ------------------------------------------------------------------------------


@gen
def regression(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    scale = sample("scale", dist.HalfNormal(1.0))
    sample("y", dist.Normal(slope * x, scale))


X = jnp.array([0.0, 1.0, 2.0])
Y = jnp.array([0.5, 1.0, -1.0])
LINE = Target(regression, (X,), {"y": Y})
LINE_DRAWS = Draws({"slope": GOOD[:2, :5], "scale": np.exp(GOOD[2:, :5])}, target=LINE)


def test_each_draw_is_predicted_from_its_own_key_and_latents():
    found = posterior_predictive(KEY, LINE_DRAWS)["y"]
    one = jax.jit(seed(replicate(LINE, (X,))))
    keys = jax.random.split(KEY, 10).reshape(2, 5)
    for at in np.ndindex(2, 5):
        latents = {name: LINE_DRAWS[name][at] for name in ("slope", "scale")}
        np.testing.assert_allclose(found[at], one(keys[at], latents)["y"], rtol=1e-12)
    again = posterior_predictive(KEY, LINE_DRAWS, batch=3)["y"]
    np.testing.assert_allclose(again, found, rtol=1e-12)


def test_a_prediction_has_the_law_of_the_data_given_the_latents():
    @gen
    def model():
        fair = sample("fair", dist.Bernoulli(0.5))
        a = sample("a", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.25)))
        kept = sample("kept", dist.Bernoulli(0.5 + 0.25 * a))
        sample("b", dist.Bernoulli(0.25 + 0.5 * a * kept))

    target = Target(model, (), {"a": 1, "b": 0})
    program = replicate(target, ())

    def pair():
        new = program({"fair": 0, "kept": 1})
        return 2 * new["a"] + new["b"]

    # p(a) p(b | a, kept = 1): the latents stay, and b follows the new a
    masses = law(pair)()
    assert masses.values.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(masses.masses, [9 / 16, 3 / 16, 1 / 16, 3 / 16], rtol=1e-12)


def test_prediction_at_other_arguments():
    @gen
    def exact(x):
        slope = sample("slope", dist.Normal(0.0, 1.0))
        sample("y", dist.Delta(slope * x))

    target = Target(exact, (X,), {"y": jnp.zeros(3)})
    draws = Draws({"slope": GOOD[:2, :5]}, target=target)
    found = posterior_predictive(KEY, draws, args=(jnp.array([3.0, 4.0]),))["y"]
    np.testing.assert_array_equal(found, GOOD[:2, :5, None] * np.array([3.0, 4.0]))


@gen
def either(new):
    """Where `new`, a choice is made that is not made otherwise."""
    kind = sample("kind", dist.Bernoulli(0.5))
    x = jax.lax.cond((kind == 1) | new, lambda: sample("x", dist.DiscreteUniform(5, 5)), lambda: 0)
    sample("y", dist.DiscreteUniform(x, x))


def test_latents_in_branches_are_drawn_where_they_were_absent():
    target = Target(either, (False,), {"y": 5})
    draws = Draws({"kind": np.array([[1, 0]]), "x": np.array([[5, 0]])}, target=target)
    assert posterior_predictive(KEY, draws)["y"].tolist() == [[5, 0]]
    assert posterior_predictive(KEY, draws, args=(True,))["y"].tolist() == [[5, 5]]


def test_elements_that_a_mask_leaves_out_are_predicted_too():
    @gen
    def shifts():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Delta(jnp.full(3, mu)))

    seen = Masked(jnp.zeros(3), jnp.array([True, False, True]))
    draws = Draws({"mu": np.array([[1.0, 2.0]])}, target=Target(shifts, (), {"y": seen}))
    assert posterior_predictive(KEY, draws)["y"].tolist() == [[[1.0] * 3, [2.0] * 3]]


def test_prior_predictive_is_simulation():
    found = prior_predictive(KEY, LINE, 7)
    assert list(found) == ["slope", "scale", "y"]
    simulate = jax.jit(seed(lambda: regression.simulate(X).choices))
    for i, key in enumerate(jax.random.split(KEY, 7)):
        for name, value in simulate(key).items():
            np.testing.assert_allclose(found[name][0, i], value, rtol=1e-12)
    np.testing.assert_allclose(prior_predictive(KEY, LINE, 7, batch=2)["y"], found["y"], rtol=1e-12)


# -- pointwise likelihoods ----------------------------------------------------------------------


@gen
def everything():
    """Observed choices of every kind: in loops and branches, events, parts, below calls."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    up = sample("up", dist.Bernoulli(0.5))
    sample("flat", dist.Normal(mu, 1.0).expand([3]))
    sample("event", dist.Normal(mu, jnp.arange(1.0, 7.0).reshape(2, 3)).to_event(2))
    sample("vector", dist.MultivariateNormal(jnp.full((2, 3), mu), jnp.eye(3)))
    sample("sub", inner(mu))
    jax.vmap(lambda s: sample("copies", dist.Normal(mu, s).expand([2])))(jnp.array([1.0, 2.0]))

    def step(before, _):
        return sample("steps", dist.Normal(before, 1.0)), None

    jax.lax.scan(step, mu, None, length=4)
    jax.lax.cond(
        up == 1,
        lambda: sample("branch", dist.Normal(mu, 1.0)),
        lambda: sample("branch", dist.Normal(-mu, 2.0)),
    )


@gen
def inner(mu):
    sample("part", dist.Normal(mu, 2.0).expand([2, 2]))


def data(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape))


OBSERVED = {
    "flat": data(3),
    "event": data(2, 3),
    "vector": data(2, 3),
    "sub": {"part": data(2, 2)},
    "copies": data(2, 2),
    "steps": data(4),
    "branch": data(),
}
ALL = Target(everything, (), OBSERVED)
MU = np.array([[0.3, -1.0, 2.0], [0.1, 0.2, 0.5]])
UP = np.array([[1, 0, 1], [0, 0, 1]])
ALL_DRAWS = Draws({"mu": MU, "up": UP}, target=ALL)


def test_pointwise_likelihoods_are_closed_forms():
    found = log_likelihood(ALL_DRAWS)
    log_pdf = scipy_stats.norm.logpdf
    mu, y = MU[..., None], {name: np.asarray(x) for name, x in OBSERVED.items() if name != "sub"}
    square = MU[..., None, None]
    expected = {
        "flat": log_pdf(y["flat"], mu, 1.0),
        "event": log_pdf(y["event"], square, np.arange(1.0, 7.0).reshape(2, 3)),
        "vector": log_pdf(y["vector"], square, 1.0).sum(-1),
        "copies": log_pdf(y["copies"], square, np.array([[1.0], [2.0]])),
        "branch": np.where(UP, log_pdf(y["branch"], MU, 1.0), log_pdf(y["branch"], -MU, 2.0)),
    }
    before = np.concatenate([mu, np.broadcast_to(y["steps"][:-1], (2, 3, 3))], -1)
    expected["steps"] = log_pdf(y["steps"], before, 1.0)
    part = np.asarray(OBSERVED["sub"]["part"])
    np.testing.assert_allclose(found["sub"]["part"], log_pdf(part, square, 2.0), rtol=1e-9)
    assert found.keys() == OBSERVED.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


def test_pointwise_likelihoods_add_up_to_the_projection():
    found = jax.tree.leaves(log_likelihood(ALL_DRAWS, batch=4))
    total = sum(x.reshape(2, 3, -1).sum(-1) for x in found)
    observed = select(*OBSERVED)

    @jax.jit
    def projected(mu, up):
        trace, _ = ALL.at({"mu": mu, "up": up})
        return everything.project(trace, observed)

    for at in np.ndindex(2, 3):
        np.testing.assert_allclose(total[at], projected(MU[at], UP[at]), rtol=1e-9)


def test_what_a_mask_leaves_out_has_no_likelihood():
    mask = jnp.array([True, False, True])
    target = Target(regression, (X,), {"y": Masked(Y, mask)})
    draws = Draws(LINE_DRAWS.choices, target=target)
    found, whole = log_likelihood(draws)["y"], log_likelihood(LINE_DRAWS)["y"]
    np.testing.assert_allclose(found, whole * np.array([1, 0, 1]), rtol=1e-12)
    log_density = jax.jit(seed(target.log_density))(KEY, {"slope": 0.5, "scale": 2.0})
    one = Draws({"slope": np.full((1, 1), 0.5), "scale": np.full((1, 1), 2.0)}, target=target)
    prior = scipy_stats.norm.logpdf(0.5) + scipy_stats.halfnorm.logpdf(2.0)
    np.testing.assert_allclose(log_density - prior, log_likelihood(one)["y"].sum(), rtol=1e-9)


def test_likelihoods_that_are_not_known_are_refused():
    @gen
    def walk():
        def step(before, _):
            return sample("y", dist.Normal(before, 1.0)), None

        jax.lax.scan(step, sample("mu", dist.Normal(0.0, 1.0)), None, length=3)

    part = Masked(jnp.zeros(3), jnp.array([True, False, True]))
    draws = Draws({"mu": MU}, target=Target(walk, (), {"y": part}))
    with pytest.raises(errors.InvalidArgument, match='"y" depends on elements of "y"'):
        log_likelihood(draws)

    @gen
    def noisy():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu + draw(dist.Normal(0.0, 1.0)), 1.0))

    with pytest.raises(errors.InvalidArgument, match="only estimated"):
        log_likelihood(Draws({"mu": MU}, target=Target(noisy, (), {"y": 0.0})))

    @gen
    def split():
        up = sample("up", dist.Bernoulli(0.5))
        jax.lax.cond(
            up == 1,
            lambda: sample("y", dist.Normal(0.0, 1.0).expand([2])),
            lambda: sample("y", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))),
        )

    with pytest.raises(errors.BranchMismatch, match="other independent elements"):
        log_likelihood(Draws({"up": UP}, target=Target(split, (), {"y": jnp.zeros(2)})))


def test_draws_must_be_of_the_latents_of_a_target_with_data():
    with pytest.raises(errors.InvalidArgument, match="do not carry their target"):
        log_likelihood(Draws({"mu": MU}))
    with pytest.raises(errors.MissingChoice, match='no values of the latent "scale"'):
        log_likelihood(Draws({"slope": MU}), LINE)
    with pytest.raises(errors.AddressNotFound, match='The draws names "slop"'):
        posterior_predictive(KEY, Draws({"slop": MU, "scale": MU}), LINE)
    with pytest.raises(errors.InvalidArgument, match="observes no choice"):
        posterior_predictive(KEY, Draws({"mu": MU, "up": UP}), Target(inner_only))


@gen
def inner_only():
    sample("mu", dist.Normal(0.0, 1.0))
    sample("up", dist.Bernoulli(0.5))


# -- leave-one-out --------------------------------------------------------------------------------


def test_loo_is_that_of_arviz_stats():
    choices = {"slope": 0.5 * autoregressive(4, 100), "scale": np.exp(autoregressive(4, 100) / 4)}
    mask = jnp.array([True, False, True])
    target = Target(regression, (X,), {"y": Masked(Y, mask)})
    found = loo(Draws(choices, target=target))
    slope, scale = choices["slope"][..., None], choices["scale"][..., None]
    each = scipy_stats.norm.logpdf(np.asarray(Y), slope * np.asarray(X), scale)[..., [0, 2]]
    both = np.stack(list(choices.values()))
    r_eff = np.mean([array_stats.ess(x, **AXES, method="mean") for x in both]) / 400
    elpd, k, p = array_stats.loo(each, **AXES, r_eff=r_eff)
    total, se, effective, _ = array_stats.loo_summary(elpd, p)
    np.testing.assert_allclose([found.elpd, found.se, found.p], [total, se, effective], rtol=1e-9)
    np.testing.assert_allclose(found.pointwise["y"], [elpd[0], np.nan, elpd[1]], rtol=1e-9)
    np.testing.assert_allclose(found.pareto_k["y"], [k[0], np.nan, k[1]], rtol=1e-9)
    assert found.n == 2


def test_loo_over_a_finite_posterior_is_exact():
    """p(y_i | the others) = p(y) / p(the others), from draws in the posterior's proportions."""

    @gen
    def coins():
        kind = sample("kind", dist.Bernoulli(0.5))
        sample("y", dist.Bernoulli(jnp.where(kind == 1, 0.5, 0.25)).expand([2]))

    target = Target(coins, (), {"y": jnp.array([1, 0])})
    # p(kind, y) = 1/2 * 3/16 and 1/2 * 4/16: of 70 draws 30 and 40
    draws = Draws({"kind": np.repeat([0, 1], [30, 40]).reshape(2, 35)}, target=target)
    found = loo(draws)
    p_both, p_heads, p_tails = 7 / 32, 3 / 8, 5 / 8
    exact = np.log([p_both / p_tails, p_both / p_heads])
    np.testing.assert_allclose(found.pointwise["y"], exact, rtol=1e-9)
    assert found.pareto_k["y"].tolist() == [-np.inf, -np.inf] and not found.warning


def test_loo_warns_of_heavy_tails_by_their_number():
    # ratios 1 / N(5; mu, 0.2) under a wide mu are far too heavy for importance sampling
    @gen
    def outlier():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu, 0.2).expand([2]))

    draws = Draws({"mu": GOOD}, target=Target(outlier, (), {"y": jnp.array([0.0, 5.0])}))
    found = loo(draws)
    k = array_stats.loo(
        scipy_stats.norm.logpdf([0.0, 5.0], GOOD[..., None], 0.2), **AXES,
        r_eff=array_stats.ess(GOOD, **AXES, method="mean", relative=True),
    )[1]  # fmt: skip
    assert (k > 0.7).all()
    assert found.warning.startswith(
        f"warning: Pareto k of 2 of 2 observations exceeds 0.70 (largest {k.max():.2f})"
    )
    assert repr(found).splitlines()[1] == found.warning


def test_loo_refuses_what_has_no_importance_ratios():
    with pytest.raises(errors.InvalidArgument, match="too few draws"):
        loo(LINE_DRAWS)
    with pytest.raises(errors.InvalidArgument, match="Nothing that is observed is selected"):
        loo(LINE_DRAWS, selection="slope")
    far = Draws({"slope": np.full((2, 20), 1e200), "scale": np.full((2, 20), 1.0)}, target=LINE)
    with pytest.raises(errors.InvalidArgument, match="not finite"):
        loo(far)


# -- export ---------------------------------------------------------------------------------------


def test_netcdf_keeps_every_bit(tmp_path):
    seen = Masked(OBSERVED["flat"], jnp.array([True, False, True]))
    target = Target(everything, (), {"sub": OBSERVED["sub"], "flat": seen})
    choices = {
        "mu": np.float32(MU),
        "up": UP,
        "a": {"very": {"deep": np.array([[[np.nan, np.inf], [-0.0, 1e-310]]] * 2)[:, [0, 1, 1]]}},
    }
    stats = {
        "nuts/accept": np.abs(MU),
        "nuts/diverging": UP == 1,
        "nuts/steps": UP,
        "mh/depth": UP,
        "nuts/depth": UP + 1,
    }
    draws = Draws(choices, stats, target, "interrupted")
    prior = {"mu": MU[:1], "flat": np.zeros((1, 3, 3)), "sub": {"part": np.zeros((1, 3, 2, 2))}}
    tree = to_datatree(
        draws,
        posterior_predictive={"flat": np.ones((2, 3, 3))},
        log_likelihood={"flat": np.full((2, 3, 3), 0.1)},
        prior=prior,
    )
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as read:
        expected = {
            "posterior": {
                "mu": choices["mu"],
                "up": UP,
                "a.very.deep": choices["a"]["very"]["deep"],
            },
            "sample_stats": {
                "acceptance_rate": np.abs(MU),
                "diverging": UP == 1,
                "n_steps": UP,
                "mh.tree_depth": UP,
                "nuts.tree_depth": UP + 1,
            },
            "observed_data": {
                "sub.part": np.asarray(OBSERVED["sub"]["part"]),
                "flat": np.asarray(seen.value),
                "flat_observed": np.asarray(seen.mask),
            },
            "posterior_predictive": {"flat": np.ones((2, 3, 3))},
            "log_likelihood": {"flat": np.full((2, 3, 3), 0.1)},
            "prior": {"mu": MU[:1]},
            "prior_predictive": {"flat": prior["flat"], "sub.part": prior["sub"]["part"]},
        }
        assert set(read.children) == set(expected)
        for group, values in expected.items():
            assert set(read[group].data_vars) == set(values)
            for name, value in values.items():
                stored = read[group][name]
                assert stored.dtype == value.dtype and stored.values.tobytes() == value.tobytes()
        assert read["posterior"]["mu"].dims == ("chain", "draw")
        assert read["sample_stats"]["n_steps"].attrs["kernel"] == "nuts"
        assert read.attrs["status"] == "interrupted" and read.attrs["inference_library"] == "giry"


def test_addresses_that_xarray_cannot_tell_apart_are_refused():
    with pytest.raises(errors.InvalidArgument, match='"a", "b" has no name of its own'):
        to_datatree(Draws({"a.b": MU, "a": {"b": MU}}))
    with pytest.raises(errors.InvalidArgument, match='"a/b" has no name of its own'):
        to_datatree(Draws({"a/b": MU}))


@pytest.mark.parametrize(
    ("module", "extra", "call"),
    [
        ("arviz_base", "arviz", lambda: to_datatree(Draws({"mu": MU}))),
        ("matplotlib.figure", "plots", lambda: plot_trace(Draws({"mu": MU}))),
    ],
)
def test_a_missing_package_names_its_extra(monkeypatch, module, extra, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(errors.PPLError) as caught:
        call()
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(f"needs the package {module.split('.')[0]}, which is not installed.")
    assert "test_results.py" in lines[1] and lines[-1] == f"  fix:      pip install 'giry[{extra}]'"


# -- pictures -------------------------------------------------------------------------------------


def heights(patch):
    """The heights of the bins of a histogram that is drawn as a line."""
    return patch.get_xy()[1:-1:2, 1]


def test_trace_plot_draws_the_chains_and_their_ranks():
    diverging = np.zeros((2, 40), bool)
    diverging[1, 7] = True
    x = np.arange(80.0).reshape(2, 40)  # the chains do not overlap
    figure = plot_trace(Draws({"a": x, "b": x[::-1]}, {"diverging": diverging}), ["b"])
    trace, ranks = figure.axes
    for line, chain in zip(trace.lines, x[::-1], strict=False):
        assert line.get_ydata().tolist() == chain.tolist()
    assert trace.lines[-1].get_label() == "diverging"
    assert trace.lines[-1].get_xdata().tolist() == [7]
    first, second = (heights(patch) for patch in ranks.patches)
    assert first.tolist() == [0] * 10 + [4] * 10 and second.tolist() == [4] * 10 + [0] * 10
    assert ranks.lines[-1].get_ydata() == [2, 2]  # where all heights are when they agree


def test_posterior_plot_shows_masses_mean_and_interval_and_says_what_is_left_out():
    count = np.array([[1, 2, 2, 5]])
    some = np.array([[1.0, np.nan, 2.0, 3.0]])
    figure = plot_posterior(Draws({"n": count, "x": some}), prob=0.5)
    first, second = figure.axes
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in first.patches}
    assert bars == pytest.approx({1: 0.25, 2: 0.5, 5: 0.25})
    assert first.get_title() == "n: 2.5 [1.75, 2.75]"
    assert second.get_title() == "x: 2 [1.5, 2.5], 1 not finite"
    many = plot_posterior(Draws({"theta": np.zeros((1, 4, 30))}))
    assert "12 of 30 scalars" in many.get_suptitle()
    with pytest.raises(errors.AddressNotFound, match='did you mean "n"'):
        plot_posterior(Draws({"n": count}), ["N"])


def test_predictive_plot_compares_the_observed_elements():
    mask = jnp.array([True, False, True])
    target = Target(regression, (X,), {"y": Masked(Y, mask)})
    replicates = np.arange(60.0).reshape(2, 10, 3)
    (axis,) = plot_predictive({"y": replicates}, target).axes
    *drawn, shown = axis.lines
    assert shown.get_xdata().tolist() == [-1.0, 0.5] and shown.get_ydata().tolist() == [0.5, 1.0]
    assert [line.get_xdata().tolist() for line in drawn] == [
        [row[0], row[2]] for row in replicates.reshape(20, 3)
    ]
    with pytest.raises(errors.ShapeError, match="not of the shape of the data"):
        plot_predictive({"y": replicates[..., :2]}, target)
    with pytest.raises(errors.InvalidArgument, match='no predictions of "y"'):
        plot_predictive({"z": replicates}, target)
