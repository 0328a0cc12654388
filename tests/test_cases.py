"""Small inputs that once went wrong, one by one, each beside the sweep that finds its kind.

S are those that were silently wrong, R those with raw errors or bad advice. The values come from
closed forms, and from scipy. All run in single precision, which is JAX's default.
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas
import pytest
import scipy.stats as st

from inference import (
    Draws,
    Weighted,
    filter_beliefs,
    hmc,
    importance,
    log_evidence,
    marginal,
    nuts,
    particle_filter,
    posterior_predictive,
    recorded,
    reweight,
    sample_posterior,
    unit,
)
from ppl import Masked, Target, draw, errors, from_numpyro, gen, integrate, sample, seed
from ppl.distributions import log_density
from semantics import check_generative_function, check_gradient

K = jax.random.key
x = np.arange(5, dtype=np.float32)
y = np.array([0.6, 2.5, 3.2, 6.4, 8.8], np.float32)


@pytest.fixture(autouse=True)
def single():
    with jax.enable_x64(False):
        yield


@gen
def line(x):
    slope = sample("slope", dist.Normal(0.0, 2.0))
    sample("y", dist.Normal(slope * x, 1.0))


@gen(static_argnames="n")
def walk(n):
    s = sample("s", dist.HalfNormal(1.0))
    jax.lax.scan(lambda p, _: (sample("y", dist.Normal(p, s)), None), 0.0, None, length=n)


with jax.enable_x64(False):
    A = Target(line, (x,), {"y": y})
    B = Target(line, (x,), {"y": -y})
SWEEPS = {}


def case(name, *sweeps, slow=False):
    """A test of the case; the sweeps of its kind are tests of other files."""

    def named(test):
        SWEEPS[name] = sweeps
        return pytest.mark.slow(test) if slow else test

    return named


def told(kind, call, *words):
    with pytest.raises(kind) as caught:
        call()
    assert len(str(caught.value).splitlines()) <= 12
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))


@case("S1", "test_masks::test_a_flag_a_row", "test_masks::test_a_flag_a_row_in_loops")
def test_s1():
    rows = gen(lambda: sample("y", dist.MultivariateNormal(jnp.zeros((3, 3)), jnp.eye(3))))
    seen = Masked(jnp.full((3, 3), 2.0), jnp.arange(3) == 0)
    _, w = seed(rows.generate)(K(0), {"y": seen})
    assert abs(w - st.norm.logpdf(2.0) * 3) < 1e-5

    @gen
    def common():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.MultivariateNormal(mu * jnp.ones((3, 3)), jnp.eye(3)))

    data = jnp.array([[1.0, 1, 1], [50.0, 50, 50], [-80.0, -80, -80]])
    t = Target(common, (), {"y": Masked(data, jnp.array([True, False, False]))})
    # a Gaussian whose mean is where the slope is zero: 3 / (1 + 3)
    assert abs(jax.grad(t.potential)({"mu": 0.75})["mu"]) < 1e-6


@case("S2", "test_known_targets::test_a_part_of_another_target_is_refused")
def test_s2():
    wrong = errors.InvalidArgument
    told(wrong, lambda: sample_posterior(K(0), B, nuts(A)), '"y"', "0.6", "-0.6")
    short = Target(line, (x[:4],), {"y": y[:4]})
    told(wrong, lambda: sample_posterior(K(0), short, nuts(A)), "(5,)", "(4,)")


@case("S3", "test_border::test_what_enters_is_the_right_number_or_our_error")
def test_s3():
    counts = gen(lambda: sample("y", dist.Poisson(2.0).expand([2])))
    give = lambda: Target(counts, (), {"y": np.array([3, 2**32 + 5])})  # noqa: E731
    told(errors.DtypeError, give, "4294967301 at [1]")


@case("S4", "test_border::test_a_truncated_density_is_finite_however_far_out")
def test_s4():
    @gen
    def trunc():
        mu = sample("mu", dist.Normal(0.0, 10.0))
        sample("y", dist.TruncatedNormal(mu, 1.0, low=0.0).expand([4]))

    data = np.array([0.05, 0.1, 0.2, 0.02])
    t = Target(trunc, (), {"y": jnp.asarray(data)})
    right = st.norm.logpdf(-15, 0, 10) + np.sum(st.norm.logpdf(data, -15) - st.norm.logsf(0, -15))
    assert abs(t.log_density({"mu": -15.0}) - right) < 1e-3  # tails of size 120 in float32
    # the evidence on a grid, by the same density, is that of scipy
    mu = np.linspace(-60, 10, 7001)
    by_us = jax.vmap(lambda m: t.log_density({"mu": m}))(jnp.asarray(mu, jnp.float32))
    evidence = math.log(np.sum(np.exp(np.asarray(by_us, float))) * (mu[1] - mu[0]))
    assert abs(evidence - 4.176) < 1e-3
    particles = seed(importance(t, 8))(K(0), unit())
    assert np.isfinite(log_evidence(particles))


@case("S5", "test_precision::test_a_beta_variable_keeps_its_tails", slow=True)
def test_s5():
    model = gen(lambda: sample("y", dist.Bernoulli(sample("p", dist.Beta(0.1, 0.1)))))
    t = Target(model, (), {"y": 1})
    draws = sample_posterior(K(0), t, nuts(t))
    row = draws.summary()["p"]
    assert abs(row["mean"] - 1.1 / 1.2) < 5 * row["mcse_mean"]  # five standard errors: 6e-7


@case("S6", "test_distributions::test_derivative_at_an_edge")
def test_s6():
    found = jax.grad(lambda b: log_density(dist.Beta(1.0, b), 0.0))(8.0)
    assert abs(found - 1 / 8) < 1e-5


@case(
    "S7",
    "test_large_counts::test_densities_in_float32",
    "test_precision::test_densities_are_right_or_told",
)
def test_s7():
    for c in (1e6, 1e7, 1e8):
        right = st.betabinom.logpmf(5, 20, 0.3 * c, 0.7 * c)
        assert abs(log_density(dist.BetaBinomial(0.3 * c, 0.7 * c, 20), 5) - right) < 1e-4


@case("S8", "test_border::test_a_result_that_is_no_array_is_told")
def test_s8():
    model = gen(lambda: dist.Normal(0.0, 1.0))
    told(errors.InvalidDistribution, lambda: seed(model.simulate)(K(0)), "sample it")


@case("S9", "test_border::test_what_enters_is_the_right_number_or_our_error")
def test_s9():
    @gen
    def step(z, _):
        z = sample("z", dist.Normal(z, 1.0))
        sample("y", dist.Normal(z, 1.0))
        return z, None

    bad = {"y": jnp.array([1.0, np.nan, 2.0])}
    told(errors.SupportError, lambda: particle_filter(step, 0.0, bad, 10), "at [1]")


@case("S10", "test_settings::test_every_setting_out_of_range_is_refused")
def test_s10():
    told(errors.InvalidArgument, lambda: nuts(A, target_accept=95.0), "target_accept")
    told(errors.InvalidArgument, lambda: hmc(A, steps=5, step_size=-1.0), "step_size")
    model = gen(lambda s: sample("y", dist.Normal(0.0, s)))
    told(errors.InvalidDistribution, lambda: model.assess({"y": 1.0}, -1.0), "scale = -1.0")


@case(
    "S10 in a run",
    "test_border::test_a_parameter_that_leaves_its_constraint_is_named_at_given_latents",
    slow=True,
)
def test_s10_in_a_run():
    @gen
    def model():
        sample("y", dist.Normal(0.0, sample("s", dist.Normal(0.0, 1.0))))

    t = Target(model, (), {"y": 0.5})
    verdict = sample_posterior(K(0), t, nuts(t), draws=200, warmup=200).verdict()
    assert verdict.check == "model" and '`scale` of "y" is outside positive' in verdict.line


@case("S11", "test_forecasts::test_what_is_new_has_the_law_given_the_past")
def test_s11():
    t = Target(walk, (5,), {"y": jnp.array([2.0, 4.0, 6.0, 8.0, 10.0])})
    draws = Draws({"s": np.ones((4, 500))}, target=t)
    found = posterior_predictive(K(0), draws, args=(6,))["y"]
    np.testing.assert_array_equal(found[0, 0, :5], [2, 4, 6, 8, 10])
    # the mean of 2000 normals is further off with probability 3e-12
    assert abs(found[..., 5].mean() - 10) < 7 / math.sqrt(2000)


@case("S12", "test_results::test_what_a_support_fixes_is_no_chain_that_is_stuck")
def test_s12():
    model = gen(lambda: sample("L", dist.LKJCholesky(2, 1.0)))
    r = np.random.default_rng(0).uniform(-0.9, 0.9, (4, 500))
    one, zero = np.ones_like(r), np.zeros_like(r)
    L = np.stack([np.stack([one, zero], -1), np.stack([r, np.sqrt(1 - r**2)], -1)], -2)
    assert Draws({"L": L.astype(np.float32)}, target=Target(model)).verdict()


@case("S13", "test_resampling::test_effective_sample_size_by_hand")
def test_s13():
    s = Weighted(jnp.zeros(50), jnp.zeros(50))
    steps = recorded(lambda a: reweight(lambda x: a), jnp.array([0.0, -jnp.inf, 0.0]))
    assert steps(s)[1].ess.tolist() == [50, 0, 0]


@case("S14", "test_quadrature::test_nodes_that_move_never_cross_a_jump")
def test_s14():
    def positive(t):
        return jnp.where(draw(dist.Normal(t, 1.0)) > 0, 1.0, 0.0)

    with jax.enable_x64(True):
        wrong = lambda t: 0.0 * t  # noqa: E731
        refused = lambda: check_gradient(wrong, positive, (0.5,), nodes=(8, 12))  # noqa: E731
        told(errors.GradientThroughDraw, refused, "trapezoid")
        told(errors.GradientThroughDraw, lambda: jax.grad(integrate(positive, nodes=64))(0.5))
        stay = {"rule": "trapezoid", "nodes": (400, 600)}  # the fix
        assert not check_gradient(wrong, positive, (0.5,), **stay)


@case("S15", "test_quadrature::test_rules_are_exact_at_any_count")
def test_s15():
    found = integrate(lambda: draw(dist.Normal(0.0, 1.0)) ** 2, nodes=(380, 400))()
    assert abs(found.value - 1) < 1e-5 and found.error < 1e-5


@case(
    "S16",
    "test_long_sums::test_evidence_of_long_series",
    "test_long_sums::test_scores_and_weights_of_long_loops",
)
@pytest.mark.parametrize("steps, each", [(100_000, -1.4189), (1_000_000, -0.1)])
def test_s16(steps, each):
    s = Weighted(jnp.zeros(2), jnp.zeros(2))
    run = recorded(lambda a: reweight(lambda x: a), jnp.full(steps, each))
    total = float(log_evidence(jax.jit(run)(s)[0]))
    right = steps * float(np.float32(each))
    assert abs(total - right) <= np.spacing(np.float32(abs(right)))  # two roundings of a half


@case("R1", "test_potential::test_the_public_density_is_what_kernels_see")
def test_r1():
    t = Target(line, (x,), {"y": Masked(y, y < 5)})
    seen = np.asarray(y)[:3] - np.arange(3)
    right = st.norm.logpdf(1.0, 0, 2) + st.norm.logpdf(seen).sum()
    assert abs(t.log_density({"slope": 1.0}) - right) < 1e-5
    assert abs(t.potential({"slope": 1.0}) + right) < 1e-5
    slope = 1 / 4 - np.sum(seen * np.arange(3))
    assert abs(jax.grad(t.potential)({"slope": 1.0})["slope"] - slope) < 1e-5


@case("R2", "test_generated::test_laws_of_a_shape")
def test_r2():
    @gen
    def loop():
        def each(j):
            one = lambda: sample("a", dist.Normal(0.0, 1.0))  # noqa: E731
            return jax.lax.cond(j < 2, one, lambda: 0.0)

        sample("b", dist.Normal(jax.vmap(each)(jnp.arange(3)).sum(), 1.0))

    t = seed(loop.simulate)(K(0))
    new, w, _ = seed(loop.regenerate)(K(1), t, "b")
    assert w == 0 and new["b"] != t["b"] and (new["a"] == t["a"]).all()


@case("R3", "test_sizes::test_sizes", "test_draws::test_what_takes_draws_takes_any_number_of_them")
def test_r3():
    model = gen(lambda: sample("b", dist.Normal(0.0, 1.0).expand([0])))
    assert model.assess({"b": jnp.zeros(0)})[0] == 0
    assert Target(model, (), {"b": jnp.zeros(0)}).log_density({}) == 0


@case("R4", "test_sizes::test_a_choice_is_known_without_its_sampler")
def test_r4():
    with jax.enable_x64(True):
        model = gen(lambda p: sample("y", dist.Binomial(np.int32(5), p)))
        found = model.assess({"y": 2}, 0.3)[0]
        assert abs(found - st.binom.logpmf(2, 5, 0.3)) < 1e-12


@case("R5", "test_wrong_parameters::test_wrong_parameters_are_our_errors")
def test_r5():
    halves = dist.Categorical(jnp.array([0.5, 0.5]))
    parts = [dist.Uniform(0.0, 1.0), dist.Uniform(1.0, 2.0)]
    mixture = gen(lambda: sample("x", dist.MixtureGeneral(halves, parts)))
    assert abs(mixture.assess({"x": 0.5})[0] - math.log(0.5)) < 1e-6
    levy = gen(lambda: sample("x", dist.Levy(0.0, 1.0)))
    assert abs(levy.assess({"x": 1.0})[0] - st.levy.logpdf(1.0)) < 1e-5
    inside = gen(lambda: sample("x", dist.Normal(dist.Normal(0.0, 1.0), 1.0)))
    told(errors.InvalidDistribution, inside.sites, "sample it first")


@case("R6", "test_semantics_exact::test_checks_of_a_target_with_static_arguments")
def test_r6():
    flips = lambda q: sample("x", dist.Bernoulli(q))  # noqa: E731
    uneven = gen(lambda: jax.lax.map(flips, jnp.arange(5.0) / 10, batch_size=2))
    told(errors.DuplicateAddress, uneven.sites, "batch_size")


@case("R7", "test_border::test_words_of_numpyro_are_told")
def test_r7():
    d = dist.Normal(0.0, 1.0)
    told(errors.InvalidArgument, gen(lambda: numpyro.sample("x", d)).sites, "from_numpyro")
    told(errors.InvalidArgument, gen(lambda: sample("x", d, obs=1.0)).sites, "Target")
    told(errors.InvalidArgument, gen(lambda: sample(d)).sites, "address")


@case(
    "R8",
    "test_wrong_objects::test_every_wrong_object_is_told",
    "test_wrong_objects::test_things_in_each_others_place",
)
def test_r8():
    wrong = errors.InvalidArgument
    told(wrong, lambda: sample_posterior(K(0), nuts(A), A), "A target was expected")
    told(wrong, lambda: sample_posterior(K(0), A, nuts), "call it: nuts(target")
    told(wrong, lambda: nuts(nuts(A)), "A target was expected")
    told(wrong, lambda: sample_posterior(K(0), A, nuts(A), mesh=4), "mesh")
    told(wrong, lambda: sample_posterior(K(0), A, nuts(A), checkpoint=__file__), "folder")
    told(wrong, lambda: check_generative_function(line, ()), "check_generative_function(model")


@case("R9", "test_border::test_arguments_are_looked_at_as_observations_are")
def test_r9():
    t = Target(line, (pandas.Series([0.0, 1, 2, 3, 4]),), {"y": y})
    assert t.log_density({"slope": 1.0}) == A.log_density({"slope": 1.0})
    told(errors.DtypeError, lambda: Target(line, ([0.0, 1, 2, 3, 4],), {"y": y}), "asarray")
    tosses = gen(lambda n: sample("y", dist.Binomial(n, 0.5)))
    told(errors.DtypeError, lambda: tosses.assess({"y": 3}, np.int64(2**32 + 10)), "4294967306")
    failures = gen(lambda: sample("y", dist.Geometric(0.3)))
    for assess in (failures.assess, jax.jit(failures.assess)):
        assert abs(assess({"y": jnp.array(3)})[0] - st.geom.logpmf(4, 0.3)) < 1e-5


@case(
    "R10",
    "test_border::test_advice_can_be_followed",
    "test_results::test_verdict_names_every_check_that_fails_the_most_serious_first",
)
def test_r10():
    given = lambda: sample_posterior(K(0), A, nuts(A), initial={"y": y})  # noqa: E731
    told(errors.InvalidArgument, given, "leave it out")
    wait = gen(lambda: sample("y", dist.Exponential(1.0)))
    told(errors.SupportError, lambda: Target(wait, (), {"y": 0.0}), "open at 0")
    inner = gen(lambda: sample("theta", dist.Normal(0.0, 1.0)))
    outer = gen(lambda: sample("school", inner()))
    miss = lambda: outer.generate({"school": {"thata": 0.0}})  # noqa: E731
    told(errors.AddressNotFound, miss, 'did you mean "school", "theta"')


@case("R11", "test_exact_marginals::test_the_density_of_an_exact_marginal")
def test_r11():
    P = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    data = np.array([0.1, 1.0, 0.9, 0.3], np.float32)

    @gen
    def hidden():
        m = sample("m", dist.Normal(0.0, 1.0))

        def step(s, _):
            s = sample("s", dist.Categorical(jnp.asarray(P)[s]))
            sample("y", dist.Normal(m * s, 1.0))
            return s, None

        jax.lax.scan(step, 0, None, length=4)

    T = Target(hidden, (), {"y": jnp.asarray(data)})
    t = marginal(T, "m", lambda rest: filter_beliefs(rest, "s", "s", 1))
    law, evidence = np.array([1.0, 0.0]), st.norm.logpdf(0.3)
    for each in data:
        law = (law @ P) * st.norm.pdf(each, 0.3 * np.arange(2))
        evidence, law = evidence + math.log(law.sum()), law / law.sum()
    assert abs(t.potential({"m": 0.3}) + evidence) < 1e-5
    assert nuts(t).name == "nuts"


@case("R12", "test_first_steps::test_chains_of_scales_far_apart_move", slow=True)
def test_r12():
    @gen
    def scales():
        sample("a", dist.Normal(0.0, 1e-3))
        sample("b", dist.Normal(0.0, 1e3))

    t = Target(scales)
    draws = sample_posterior(K(0), t, nuts(t), draws=100, warmup=0)
    assert all(np.unique(draws[name], axis=1).shape[1] > 50 for name in ("a", "b"))


@case(
    "R13",
    "test_border::test_a_shape_that_an_argument_decides_asks_for_a_static_argument",
    "test_sizes::test_a_choice_is_known_without_its_sampler",
    "test_semantics_sampled::test_blackjax_kernel_moves_discrete_latents",
)
def test_r13():
    shaped = gen(lambda n: sample("x", dist.Normal(0.0, 1.0).expand([n])))
    told(errors.PythonControlFlow, lambda: shaped.sites(3), "static_argnames")
    half = dist.TruncatedDistribution(dist.StudentT(3.0, 0.0, 10.0), low=0.0)
    found = gen(lambda: sample("x", half)).assess({"x": 1.0})[0]
    assert abs(found - st.t.logpdf(1.0, 3, 0, 10) - math.log(2)) < 1e-5


@case("R14", "test_interop::test_data_that_do_not_fit_a_plate")
def test_r14():
    def model(data):
        with numpyro.plate("N", 5):
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=data)

    column = lambda: from_numpyro(model).sites(jnp.zeros((5, 1)))  # noqa: E731
    told(errors.ShapeError, column, "(5, 1)", '"N"')


def test_every_case_names_sweeps_that_are_there():
    assert set(SWEEPS) >= {f"S{i}" for i in range(1, 17)} | {f"R{i}" for i in range(1, 15)}
    for name, sweeps in SWEEPS.items():
        assert sweeps, name
        for sweep in sweeps:
            file, test = sweep.split("::")
            assert f"def {test}(" in (Path(__file__).parent / f"{file}.py").read_text(), sweep
