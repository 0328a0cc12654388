"""Predictions, pointwise likelihoods and leave-one-out: closed forms, or arviz-stats' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats
from scipy import stats as scipy_stats

from inference import Draws
from inference.results.loo import loo
from inference.results.pointwise import log_likelihood
from inference.results.predictive import posterior_predictive, prior_predictive, replicate
from ppl import Masked, Target, draw, errors, gen, law, sample, seed, select
from tests.results import (
    ALL,
    ALL_DRAWS,
    GOOD,
    LINE,
    MU,
    OBSERVED,
    UP,
    X,
    Y,
    autoregressive,
    everything,
    regression,
)

KEY = jax.random.key(0)
AXES = {"chain_axis": 0, "draw_axis": 1}
# -- predictions ------------------------------------------------------------------------------


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
    np.testing.assert_allclose(found, whole * np.array([1, np.nan, 1]), rtol=1e-12)
    log_density = jax.jit(seed(target.log_density))(KEY, {"slope": 0.5, "scale": 2.0})
    one = Draws({"slope": np.full((1, 1), 0.5), "scale": np.full((1, 1), 2.0)}, target=target)
    prior = scipy_stats.norm.logpdf(0.5) + scipy_stats.halfnorm.logpdf(2.0)
    total = np.nansum(log_likelihood(one)["y"])
    np.testing.assert_allclose(log_density - prior, total, rtol=1e-9)


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
