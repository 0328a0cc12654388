"""Fits: the same numbers however they are run, mistakes told before they cost, known posteriors.

Over 400 lines, since all ways to run, stop and use a fit are held to the same few programs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from inference import (
    Fitted,
    Objective,
    by_importance,
    elbo,
    fit,
    log_evidence,
    mean_field,
    mh,
    normalize,
    sample_posterior,
    to_datatree,
    unit,
)
from inference.results.khat import khat
from inference.running import fitting, stopping
from inference.running.training import Regimen
from ppl import Target, draw, enumerate_, gen, moving_average, reinforce, sample, seed
from ppl.arguments import Arguments
from ppl.errors import CheckpointError, GuideMismatch, InvalidArgument, NonFiniteStep

KEY = jax.random.key(0)
START = {"loc": 0.0, "log_scale": 0.0}


@gen
def model():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 1.0))


@gen
def guide(p):
    sample("mu", dist.Normal(p["loc"], jnp.exp(p["log_scale"])))


TARGET = Target(model, (), {"y": 2.0})
BOUND = elbo(TARGET, guide)
EXACT = dist.Normal(0.0, 2**0.5).log_prob(2.0)


def test_a_step_is_the_optimizers_on_the_gradient_of_the_estimate():
    """By hand: stochastic gradient ascent of -(m - 1 + noise)^2, with the keys of the steps."""

    def near(m):
        return -((m - 1.0) ** 2)

    found = fit(KEY, near, 0.0, optax.sgd(0.1), steps=3, average=False)
    m, seen = 0.0, []
    for _ in range(3):
        seen.append(-((m - 1.0) ** 2))
        m = m + 0.1 * -2 * (m - 1.0)
    assert_allclose(found.parameters, m, rtol=1e-15)
    assert_allclose(found.values, seen, rtol=1e-15)


def test_the_average_weighs_late_iterates_more():
    """Shamir and Zhang: the weight of iterate t of n is the product of shares and their rests."""
    call = Arguments.of((lambda m: m, None, ()), {})
    regimen = Regimen(call.static, optax.sgd(1.0), (), samples=1, buffer=4)
    training, *_ = regimen.block((), KEY, regimen.begin(0.0), np.asarray(0), np.asarray(4))
    mean = 0.0
    for t in range(4):  # iterates 1, 2, 3, 4
        mean += 4 / (t + 4) * (t + 1 - mean)
    assert_allclose(training.average, mean, rtol=1e-15)
    assert training.parameters == 4


def test_where_the_last_iterate_is_the_better_one_it_is_taken():
    """The way from 0 to 100 in steps of 0.01 is in the mean for long after it is over."""
    far = gen(lambda: sample("mu", dist.Normal(100.0, 1.0)))
    near = gen(lambda m: sample("mu", dist.Normal(m, 1.0)))
    found = fit(KEY, elbo(Target(far), near), 0.0, steps=15_000)
    assert found.parameters == found.last and abs(found.last - 100) < 1


def test_an_optimizer_that_asks_for_values_has_them():
    """L-BFGS on -(x - 1)^2 - 3 (y + 2)^2, whose line search evaluates the objective."""

    def bowl(p):
        return -((p[0] - 1) ** 2) - 3 * (p[1] + 2) ** 2

    found = fit(KEY, bowl, jnp.zeros(2), optax.lbfgs(), steps=12)
    assert_allclose(found.last, [1.0, -2.0], atol=1e-8)


def test_a_guide_by_a_law_of_all_latents_is_a_proposal():
    """Mean field of a positive latent: what `fit` gives is simulated, and weighs particles."""

    def positive():
        sample("y", dist.Normal(0.0, sample("s", dist.HalfNormal(1.0))))

    target = Target(gen(positive), (), {"y": 2.0})
    made, start = mean_field(target)
    found = fit(KEY, elbo(target, made, landing=True), start, steps=1500)
    trace = seed(found.simulate)(KEY)
    assert_allclose(found.assess(trace.choices)[0], trace.score, rtol=1e-10)
    particles = seed(lambda: by_importance(2000, found).step(target)(unit()))(KEY)
    s = np.linspace(1e-3, 12.0, 20_000)
    p = np.exp(dist.HalfNormal(1.0).log_prob(s) + dist.Normal(0.0, s).log_prob(2.0))
    # of 2,000 weights whose variance is below one: an error of 0.02
    assert abs(log_evidence(particles) - np.log(np.sum(p) * (s[1] - s[0]))) < 0.1


def test_a_report_of_a_discrete_guide():
    """Two outcomes have two weights, whose tail is finite."""
    coin = Target(gen(lambda: sample("side", dist.Bernoulli(0.8))))
    guess = gen(lambda p: sample("side", dist.Bernoulli(logits=p)))
    found = fit(KEY, elbo(coin, guess), 0.0, steps=300, strategies={"side": enumerate_()})
    report = found.report(KEY)
    assert report and "finitely many" in str(report)


@pytest.mark.parametrize(
    "optimizer", [None, optax.sgd(1e-2), optax.rmsprop(1e-2)], ids=["adam", "sgd", "rmsprop"]
)
def test_a_conjugate_posterior_within_one_percent(optimizer):
    """With the landing stuck there is no noise at the posterior, so that fits end there.

    The plain bound has noise: in 5,000 steps of one draw each the sd is known to 1.7 % at best.
    """
    found = fit(KEY, elbo(TARGET, guide, landing=True), START, optimizer)
    assert abs(found.parameters["loc"] - 1) < 0.01 * 0.5**0.5
    assert abs(np.exp(found.parameters["log_scale"]) / 0.5**0.5 - 1) < 0.01
    report = found.report(jax.random.key(1))
    assert report and abs(report.log_evidence - EXACT) < 0.01


def test_the_plain_bound_with_many_draws():
    """35,000 draws count: each moment has an error of 0.004, and 0.03 is seven of them."""
    found = fit(KEY, BOUND, START, steps=4000, samples=20)
    assert abs(found.parameters["loc"] - 1) < 0.03
    assert abs(np.exp(found.parameters["log_scale"]) / 0.5**0.5 - 1) < 0.03


def test_a_guide_made_from_the_target():
    """The mean field of one coordinate: the posterior, to the noise that is left at the end."""
    made, start = mean_field(TARGET)
    found = fit(KEY, elbo(TARGET, made, landing=True), start, steps=3000)
    report = found.report(KEY)
    assert report and abs(report.elbo - EXACT) < 1e-3
    assert found.draws(KEY, 10)["mu"].shape == (1, 10)


@gen
def normal_guide(p, y):
    sample("mu", dist.Normal(p * y, 0.5**0.5))


def of_data(_, y):
    return Target(model, (), {"y": y})


def test_a_second_fit_compiles_nothing(caplog):
    objective, compiled = elbo(of_data, normal_guide), []
    for seed_, start, y in ((0, 0.1, 2.0), (5, 0.7, -1.0)):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            fit(jax.random.key(seed_), objective, start, data=(y,), steps=30)
        compiled.append([r for r in caplog.records if "Finished XLA" in r.getMessage()])
    assert compiled[0] and not compiled[1]


def test_so_does_an_objective_made_anew_of_other_data(caplog):
    def made(y):
        return elbo(Target(model, (), {"y": y}), guide)

    fit(KEY, made(1.0), START, steps=30)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        fit(KEY, made(3.0), START, steps=30)
    assert not [r for r in caplog.records if "Finished XLA" in r.getMessage()]


@pytest.fixture(scope="module")
def whole():
    return fit(KEY, BOUND, START, steps=60)


def same(a, b):
    for x, y in zip(
        jax.tree.leaves((a.parameters, a.last, a.values)),
        jax.tree.leaves((b.parameters, b.last, b.values)),
        strict=True,
    ):
        assert_array_equal(x, y)
    return True


def test_sizes_of_blocks_change_no_bit(whole, monkeypatch):
    monkeypatch.setattr(fitting.BlockSize, "next", lambda self, most: min(7, most))
    assert same(fit(KEY, BOUND, START, steps=60), whole)


def test_shown_or_not_it_is_the_same(whole, monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert same(fit(KEY, BOUND, START, steps=60), whole)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("write", range(1, 7))
def test_a_fit_that_is_killed_goes_on_to_the_same_bits(whole, tmp_path, monkeypatch, write):
    monkeypatch.setattr(fitting.BlockSize, "next", lambda self, most: min(16, most))
    count, original = 0, fitting.Checkpoint._write

    def dying(self, *args):
        nonlocal count
        count += 1
        if count == write:
            raise Killed
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Checkpoint, "_write", dying)
        with pytest.raises(Killed):
            fit(KEY, BOUND, START, steps=60, checkpoint=tmp_path)
    assert same(fit(KEY, BOUND, START, steps=60, checkpoint=tmp_path), whole)


def test_a_checkpoint_of_another_fit(tmp_path):
    fit(KEY, BOUND, START, steps=20, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="another start"):
        fit(KEY, BOUND, {"loc": 1.0, "log_scale": 0.0}, steps=20, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="other data"):
        other = elbo(Target(model, (), {"y": 3.0}), guide)
        fit(KEY, other, START, steps=20, checkpoint=tmp_path)


def test_interrupted_it_gives_the_steps_so_far(whole, monkeypatch):
    monkeypatch.setattr(fitting.BlockSize, "next", lambda self, most: min(20, most))
    original, calls = fitting.BlockSize.timed, []

    def timed(self, block, arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt  # no signal: a shell's background jobs ignore SIGINT
        return original(self, block, arguments)

    monkeypatch.setattr(fitting.BlockSize, "timed", timed)
    found = fit(KEY, BOUND, START, steps=60)
    assert found.status == "interrupted after 40 of 60 steps"
    assert_array_equal(found.values, whole.values[:40])


@gen
def astray(p):
    sample("mu", dist.Normal(p, 1.0))


@gen
def scaled():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(0.0, 2.5 - mu))


@pytest.mark.parametrize("size", [7, 60])
def test_the_first_bad_step_is_named(monkeypatch, size):
    """The scale of y is negative where mu is above 2.5: a density that is no number."""
    monkeypatch.setattr(fitting.BlockSize, "next", lambda self, most: min(size, most))
    objective = elbo(Target(scaled, (), {"y": 0.1}), astray)
    with pytest.raises(NonFiniteStep) as caught:
        fit(KEY, objective, 0.0, optax.sgd(0.1), steps=500)
    error = caught.value
    assert '`scale` of "y" is outside positive' in str(error) and "the value, nan" in str(error)
    step = int(str(error).split("Step ")[1].split()[0])
    assert error.fitted.values.shape == (step,) and np.isfinite(error.fitted.values).all()
    assert_array_equal(error.fitted.parameters, error.fitted.last)


def test_a_gradient_that_is_no_number_names_its_parameter():
    def rooted(p):
        return -jnp.sqrt(p["a"]) + 0.0 * p["b"]

    with pytest.raises(NonFiniteStep, match=r"Step 0 .*\n.*\n.*gradient of \['a'\]"):
        fit(KEY, rooted, {"a": 0.0, "b": 1.0}, steps=5)


def test_it_stops_when_the_objective_has_settled():
    found = fit(KEY, BOUND, START, optax.sgd(0.05), steps=20_000, tolerance=0.2)
    step = len(found.values)
    assert found.status == f"settled after {step} of 20000 steps"
    assert step in stopping.looks(20_000) and abs(found.parameters["loc"] - 1) < 0.2


def test_false_stops_are_as_rare_as_it_says():
    """An objective that grows by exactly the tolerance from one quarter to the next.

    Of 2,000 series with 6 looks each 100 stops are allowed, and 168 is seven standard deviations.
    """
    random, stops = np.random.default_rng(0), 0
    ends = stopping.looks(4000)
    for _ in range(2000):
        noise = random.normal(size=ends[-1])
        for look, end in enumerate(ends):
            quarter = end // 4
            growth = np.r_[np.zeros(end - quarter), np.ones(quarter)] * 0.1
            if stopping.settled(noise[:end] + growth, look, 0.1):
                stops += 1
                break
    assert 20 < stops < 168


def test_a_fit_is_a_generative_function():
    """A proposal, a part of a model, and the start of chains."""
    found = fit(KEY, BOUND, START, steps=3000, samples=10)
    p = found.parameters
    law = dist.Normal(p["loc"], jnp.exp(p["log_scale"]))
    assert_allclose(found.assess({"mu": 0.3})[0], law.log_prob(0.3), rtol=1e-12)
    particles = seed(lambda: by_importance(200, found).step(TARGET)(unit()))(KEY)
    assert abs(log_evidence(particles) - EXACT) < 0.01  # weights within 1 % of one another

    @gen
    def prior():
        sample("fitted", found())
        sample("more", dist.Normal(0.0, 1.0))

    assert list(prior.sites()) == [("fitted", "mu"), ("more",)]
    start = {"mu": found.draws(KEY, 4)["mu"][0]}
    draws = sample_posterior(KEY, TARGET, mh(TARGET, "mu"), initial=start, draws=50, warmup=10)
    assert draws.shape == (4, 50)


def test_a_guide_by_an_algorithm_is_fitted_too():
    """Importance sampling whose model is tuned: the bound of two particles, exact by quadrature."""

    def posterior(m):
        @gen
        def moved():
            mu = sample("mu", dist.Normal(m, 1.0))
            sample("y", dist.Normal(mu, 1.0))

        return Target(moved, (), {"y": 2.0})

    guide = normalize(posterior, by_importance(2))
    objective = elbo(TARGET, guide)
    found = fit(KEY, objective, 0.3, steps=5)
    assert isinstance(found, Fitted) and list(found.guide.sites()) == [("mu",)]
    trace = seed(found.guide.simulate)(KEY)
    again = seed(guide.simulate)(KEY, found.parameters)
    assert_array_equal(trace.score, again.score)


def test_amortised_by_a_network():
    """An equinox module: exact for linear-Gaussian data, E[mu | y] = y / 2."""

    @gen
    def amortised(net, y):
        loc, log_scale = net(jnp.atleast_1d(y))
        sample("mu", dist.Normal(loc, jnp.exp(log_scale)))

    net = eqx.nn.Linear(1, 2, key=KEY)

    def batch(net, ys):
        bound = elbo(lambda _, y: Target(model, (), {"y": y}), amortised)
        return jnp.mean(jax.vmap(lambda y: bound(net, y))(ys))

    ys = jnp.linspace(-3.0, 3.0, 16)
    found = fit(KEY, batch, net, data=(ys,), steps=4000)
    slope, scales = found.parameters.weight, found.parameters.bias[1]
    # 16 data a step: the error of each is below 0.01
    assert_allclose([slope[0, 0], slope[1, 0], scales], [0.5, 0.0, np.log(0.5**0.5)], atol=0.04)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"parameters": 3}, "no float"),
        ({"parameters": {"a": "b"}}, "nothing to fit"),
        ({"optimizer": 0.1}, "none of optax"),
        ({"data": 1.0}, "tuple"),
        ({"steps": 0}, "steps"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"strategies": 3}, "dict by address"),
        ({"objective": 3}, "objective"),
        ({"objective": guide}, "objective"),
        ({"objective": lambda p: jnp.ones(2)}, "one number"),
        ({"objective": lambda p: None}, "one number"),
        ({"strategies": {"mu": reinforce}}, "no strategy"),
    ],
)
def test_mistakes_are_told_before_anything_runs(change, words):
    call = {"objective": BOUND, "parameters": START, **change}
    with pytest.raises(InvalidArgument, match=words):
        fit(KEY, **call)


def test_a_guide_that_does_not_fit_is_refused_before_step_one():
    wide = gen(lambda p: [sample("mu", dist.Normal(p, 1.0)), sample("nu", dist.Normal(p, 1.0))])
    with pytest.raises(GuideMismatch, match="nu"):
        fit(KEY, elbo(TARGET, wide), 0.0)


def test_a_plain_objective_has_no_guide():
    found = fit(KEY, lambda m: -(draw(dist.Normal(m, 1.0)) ** 2), 1.0, steps=5)
    for use in (found.report, found.draws):
        with pytest.raises(InvalidArgument, match="tells no guide"):
            use(KEY)


def test_the_tail_of_weights():
    """Known laws, ties, and weights that are all the same: only what is known is told."""
    random = np.random.default_rng(0)
    for k in (0.3, 0.5, 0.9):
        found = khat(-k * np.log(random.uniform(size=100_000)))  # Pareto with exponent 1 / k
        assert abs(found - k) < 0.15  # 949 in the tail: k-hat has an error of (1 + k) / 31
    few = random.normal(size=30)
    for tied in (np.repeat(few, 40), np.r_[np.zeros(900), np.ones(100)], np.full(100, np.nan)):
        assert khat(tied) is None
    assert khat(np.full(1000, 0.5)) == -np.inf


def test_draws_are_exported(whole):
    tree = to_datatree(whole.draws(KEY, 50))
    assert tree["posterior"]["mu"].shape == (1, 50) and tree["observed_data"]["y"] == 2.0


def test_in_single_precision():
    with jax.enable_x64(False):
        found = fit(KEY, BOUND, START, steps=4000, samples=20)
        assert found.parameters["loc"].dtype == jnp.float32
        assert abs(found.parameters["loc"] - 1) < 0.01 and found.report(KEY)


def test_a_baseline_is_learned_beside_the_guide():
    """Of a binary guide: the level goes to the mean of what the score multiplies, by hand."""

    @gen
    def coin():
        sample("side", dist.Bernoulli(0.5))

    @gen
    def tossed(p, price):
        sample("side", dist.Bernoulli(0.25))

    def run(target, made, args):
        trace = made.simulate(*args)
        return args[1] * trace["side"] + 0.0 * args[0]["level"]

    objective = Objective("price", Target(coin), tossed, run)
    how = lambda p, price: {"side": reinforce(moving_average(p["level"] * price))}  # noqa: E731
    found = fit(
        KEY, objective, {"level": 1.0}, optax.sgd(0.02), data=(4.0,), steps=4000, strategies=how
    )  # fmt: skip
    # the level times the price is the mean, 1; what is averaged are 4,000 steps of deviation 1.7
    assert abs(found.parameters["level"] - 0.25) < 0.1


def test_a_baseline_in_a_dict_would_not_be_learned():
    how = {"mu": reinforce(moving_average(1.0))}
    with pytest.raises(InvalidArgument, match="not learned"):
        fit(KEY, BOUND, START, strategies=how)


def test_a_fit_inside_a_compiled_program_is_refused():
    with pytest.raises(InvalidArgument, match="from the host"):
        jax.jit(lambda m: fit(KEY, BOUND, m, steps=3).last)(START)
