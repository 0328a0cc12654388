"""One model under many algorithms, by changing one expression: each is right by its own word.

Posteriors are exact: a normal regression in closed form, a hidden Markov chain by enumeration. An
estimate lies within the error that the result itself states; from r runs that error is itself
estimated, with r - 1 degrees of freedom, so the bound is that of Student's law for the probability
of seven standard errors.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from inference import (
    Draws,
    Particles,
    Weighted,
    adaptive_annealing,
    annealed,
    by_filter,
    by_importance,
    degeneracy,
    each,
    elbo,
    filter_series,
    fit,
    full_rank,
    gibbs,
    importance,
    islands,
    iterate,
    laplace,
    loo,
    merged,
    mh,
    multinomial,
    nested_sampling,
    nuts,
    particle_filter,
    particle_gibbs,
    particle_metric,
    plot_ess,
    plot_posterior,
    plot_weights,
    posterior_predictive,
    random_walk,
    retarget,
    run_particles,
    sample_posterior,
    spawn,
    start,
    systematic,
    then,
    to_datatree,
    when_ess_below,
    within,
)
from inference.running.independent_runs import one_run
from inference.weighted import lift
from ppl import Target, errors, gen, sample, seed

KEY = jax.random.key(3)
SMALL = 3e-12
"""The probability beyond seven standard errors of a normal, and what is allowed to each check."""
RUNS = 64

X = np.linspace(-1.0, 1.0, 5)
Y = np.array([0.2, 0.9, 0.7, 1.6, 1.9])


@gen
def line(x):
    a = sample("a", dist.Normal(0.0, 2.0))
    b = sample("b", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(a + b * x, 0.5))


LINE = Target(line, (jnp.asarray(X),), {"y": jnp.asarray(Y)})


def exact_line(x=X, y=Y, noise=0.5):
    """Mean and sd of a and b, and the log evidence, by the normal equations."""
    design, prior = np.stack([np.ones_like(x), x], 1), np.diag([4.0, 1.0])
    covariance = np.linalg.inv(np.linalg.inv(prior) + design.T @ design / noise**2)
    mean = covariance @ design.T @ y / noise**2
    marginal = design @ prior @ design.T + noise**2 * np.eye(len(x))
    evidence = stats.multivariate_normal(np.zeros(len(x)), marginal).logpdf(y)
    sds = np.sqrt(np.diag(covariance))
    return {"a": (mean[0], sds[0]), "b": (mean[1], sds[1])}, evidence


MOVES, EMITS = np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0.9, 0.2])
WET = np.array([1, 0, 0, 1])


@gen
def weather():
    def step(k, _):
        k = sample("k", dist.Categorical(jnp.asarray(MOVES)[k]))
        sample("y", dist.Bernoulli(jnp.asarray(EMITS)[k]))
        return k, None

    jax.lax.scan(step, 0, None, length=4)


CHAIN = Target(weather, (), {"y": jnp.asarray(WET)})


def exact_chain():
    """The same of the four states, by all paths."""
    paths = np.array(list(itertools.product((0, 1), repeat=4)))
    before = np.concatenate([np.zeros((16, 1), int), paths[:, :-1]], 1)
    emitted = np.where(WET == 1, EMITS[paths], 1 - EMITS[paths])
    masses = (MOVES[before, paths] * emitted).prod(1)
    means = masses @ paths / masses.sum()
    rows = {f"k[{i + 1}]": (m, np.sqrt(m * (1 - m))) for i, m in enumerate(means)}
    return rows, np.log(masses.sum())


def bound(result):
    """Standard errors beyond which lies so little of the law of what the result tells."""
    runs = result.shape[0]
    known = isinstance(result, Draws) or result.independent.alone
    return stats.norm.isf(SMALL / 2) if known else stats.t.isf(SMALL / 2, runs - 1)


def assert_right(result, exact):
    """Means, sds and the evidence are within what the result says of itself; all is told."""
    rows, evidence = exact
    summary, most = result.summary(), bound(result)
    for name, (mean, sd) in rows.items():
        row = summary[name]
        assert abs(row["mean"] - mean) < most * row["mcse_mean"], name
        assert abs(row["sd"] - sd) < most * row["mcse_sd"], name
        # and the errors are worth something: a fifth of the sd, or less
        assert most * row["mcse_mean"] < sd
    text = str(summary)
    assert text.endswith(str(result.verdict())) and "mcse mean" in text
    if isinstance(result, Particles):
        assert abs(result.log_evidence - evidence) < most * result.log_evidence_error < 2
        assert "log evidence" in text and "particles count" in text
        assert result.verdict(), text
        assert repr(result).endswith(result.verdict().line)


def wide(target):
    """A guide that is not the posterior, and covers it."""
    guide, parameters = laplace(target)
    parameters = {
        **parameters,
        "log_scale": jax.tree.map(lambda x: x + 0.3, parameters["log_scale"]),
    }
    return gen(lambda x: guide.fn(parameters))


def fitted(target):
    guide, parameters = full_rank(target)
    return fit(KEY, elbo(target, guide), parameters, steps=200)


def as_data_come(target):
    """Sequential Monte Carlo over the data, one after the other: a step made of steps."""
    parts = [Target(line, (target.args[0][:n],), {"y": target.observed[("y",)][:n]})
             for n in (1, 3, 5)]  # fmt: skip
    stages = [then(spawn(200), each(start(parts[0])))]
    for old, new in itertools.pairwise(parts):
        moved = each(lift(iterate(random_walk(new, step_size=0.5), 3)))
        stages.append(then(each(retarget(old, new)), when_ess_below(0.7), moved))
    return then(*stages)


ON_LINE = {
    "importance": lambda t: importance(t, 20_000),
    "a guide, weighted": lambda t: by_importance(2000, wide(t)),
    "a fit, weighted": lambda t: by_importance(2000, fitted(t)),
    "annealed": lambda t: annealed(t, 100, partial(random_walk, step_size=0.5), 8),
    "annealed without waste": lambda t: annealed(
        t, 100, partial(random_walk, step_size=0.5), 8, chains=20
    ),
    "adaptive annealing": lambda t: (
        lambda: adaptive_annealing(t, 200, random_walk, tune=particle_metric, max_stages=8)
    ),
    "nested sampling": lambda t: (
        lambda: nested_sampling(
            t, 40, partial(random_walk, step_size=0.5), batch=4, tune=particle_metric
        )
    ),
    "data one after the other": as_data_come,
    "nuts": nuts,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_LINE)
def test_a_regression_under_every_algorithm(name):
    algorithm = ON_LINE[name](LINE)
    one = name in ("importance", "a guide, weighted", "a fit, weighted", "nuts")
    result = sample_posterior(KEY, LINE, algorithm, chains=None if one else RUNS)
    assert_right(result, exact_line())


ON_CHAIN = {
    "importance": lambda t: importance(t, 4000),
    "a filter": lambda t: filter_series(t, "k", 100),
    "a filter as an algorithm": lambda t: by_filter("k", 100),
    "annealed": lambda t: annealed(t, 100, lambda hot: mh(hot, "k"), 4),
    "particle Gibbs": lambda t: particle_gibbs(t, "k", 10),
    "Gibbs": lambda t: gibbs(t, "k"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CHAIN)
def test_a_hidden_chain_under_every_algorithm(name):
    algorithm = ON_CHAIN[name](CHAIN)
    chains = RUNS if "filter" in name or name == "annealed" else None
    assert_right(sample_posterior(KEY, CHAIN, algorithm, chains=chains), exact_chain())


# -- what is stated ---------------------------------------------------------------------------


@gen
def coin():
    p = sample("p", dist.Beta(2.0, 2.0))
    sample("heads", dist.Binomial(10, p))


COIN = Target(coin, (), {"heads": 8})
BETA = stats.beta(10, 4)
LOG_COIN = stats.betabinom(10, 2, 2).logpmf(8)
REPEATS = 500


@pytest.fixture(scope="module")
def many():
    """Many results of importance sampling, and of 16 runs of annealing."""

    def runs(algorithm, n):
        run = jax.jit(jax.vmap(seed(lambda: one_run(algorithm, COIN)["particles"])))
        found = jax.tree.map(np.asarray, run(jax.random.split(KEY, n)))
        return found.value["p"], found.log_weight

    p, logs = runs(importance(COIN, 400), REPEATS)
    each_alone = np.arange(400)[None]
    alone = [Particles({"p": a[None]}, b[None], families=each_alone)
             for a, b in zip(p, logs, strict=True)]  # fmt: skip
    step = annealed(COIN, 50, lambda hot: mh(hot, "p"), (0.0, 0.3, 1.0))
    p, logs = (x.reshape(REPEATS, 16, 50) for x in runs(step, 16 * REPEATS))
    several = [Particles({"p": a}, b) for a, b in zip(p, logs, strict=True)]
    return {"particles": alone, "runs": several}


@pytest.mark.slow
@pytest.mark.parametrize("kind, law", [("particles", stats.norm), ("runs", stats.t(15))])
def test_stated_errors_are_met_as_often_as_they_say(many, kind, law):
    """Within two of them, as often as the law of the ratio says, up to chance, for one in 25.

    The ratio has that law in the limit of many particles: what is left is of the order of the
    skewness of a weight over the square root of their number, a twentieth at most here; its effect
    on a symmetric interval is of the square of that.
    """
    results = many[kind]
    rows = [result.summary()["p"] for result in results]
    ratios = {
        "mean": [(r["mean"] - BETA.mean()) / r["mcse_mean"] for r in rows],
        "sd": [(r["sd"] - BETA.std()) / r["mcse_sd"] for r in rows],
        "evidence": [(r.log_evidence - LOG_COIN) / r.log_evidence_error for r in results],
    }
    expected = 1 - 2 * law.sf(2.0)
    chance = stats.norm.isf(SMALL / 2) * np.sqrt(expected * (1 - expected) / REPEATS)
    for name, ratio in ratios.items():
        assert abs((np.abs(ratio) < 2).mean() - expected) < chance, name


def test_the_numbers_are_those_of_the_weights():
    """By hand: two runs of three particles."""
    x = np.array([[0.0, 1.0, 4.0], [2.0, 2.0, 6.0]])
    w = np.array([[1.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
    with np.errstate(divide="ignore"):
        found = Particles({"x": x}, np.log(w))
    row = found.summary(prob=0.5)["x"]
    mean = (w * x).sum() / 8
    assert np.isclose(row["mean"], mean)
    assert np.isclose(row["sd"], np.sqrt((w * (x - mean) ** 2).sum() / 8))
    parts = (w * (x - mean)).sum(1) / 8
    assert np.isclose(row["mcse_mean"], np.sqrt(2 * (parts**2).sum()))
    assert np.isclose(found.log_evidence, np.log(8 / 6))
    z = w.mean(1)
    assert np.isclose(found.log_evidence_error, z.std(ddof=1) / 2**0.5 / z.mean())
    assert (row["25%"], row["75%"]) == (1.0, 2.0)  # 1, 1, 2 | 2, 2, 3, 4, 6: by weight
    assert np.isclose(found.ess, 64 / 16)


def test_the_error_of_independent_particles_is_that_of_a_ratio():
    rng = np.random.default_rng(0)
    x, logs = rng.normal(size=(1, 50)), rng.normal(size=(1, 50))
    found = Particles({"x": x}, logs, families=np.arange(50)[None])
    w = np.exp(logs) / np.exp(logs).sum()
    mean = (w * x).sum()
    row = found.summary()["x"]
    assert np.isclose(row["mcse_mean"] ** 2, 50 / 49 * (w**2 * (x - mean) ** 2).sum())
    ratio = np.exp(logs)
    assert np.isclose(found.log_evidence_error, ratio.std(ddof=1) / ratio.mean() / 50**0.5)


@pytest.mark.slow
def test_a_filter_tells_its_error_by_ancestors():
    """Of one run: its evidence as `log_evidence_error`, its mean by families of ancestors."""

    @gen
    def level(z, _):
        z = sample("z", dist.Normal(z, 0.5))
        sample("y", dist.Normal(z, 1.0))
        return z, None

    ys = np.array([0.3, 0.8, 1.9, 1.7, 2.6])
    filtering = lambda: particle_filter(  # noqa: E731
        level, 0.0, {"y": jnp.asarray(ys)}, 2000, scheme=multinomial
    )
    run = run_particles(KEY, filtering)
    found = run.posterior()
    row = found.summary()["state"]
    assert found.log_evidence_error == run.standard_error
    w, eves = found.weights[0], np.asarray(run.result.ancestry.eves)
    parts = np.bincount(eves, w * (found["state"][0] - row["mean"]), 2000)
    assert np.isclose(row["mcse_mean"], np.sqrt(2000 / 1999 * (parts**2).sum()))
    walk = 0.25 * np.minimum.outer(np.arange(1, 6), np.arange(1, 6))
    gain = np.linalg.solve(walk + np.eye(5), walk[:, -1])
    assert abs(row["mean"] - gain @ ys) < 7 * row["mcse_mean"]
    assert bool(found.verdict()) and bool(run.verdict())


# -- what can be done with it -----------------------------------------------------------------


@pytest.fixture(scope="module")
def weighted():
    return sample_posterior(KEY, LINE, importance(LINE, 5000))


def test_predictions_count_alike(weighted):
    rows, _ = exact_line()
    new = posterior_predictive(KEY, weighted)["y"]
    assert new.shape == (1, 1000, 5)
    mean = rows["a"][0] + rows["b"][0] * X
    spread = np.sqrt(0.25 + rows["a"][1] ** 2 + (rows["b"][1] * X) ** 2)
    # those of 1000 draws, which are drawn from fewer that count
    most = 7 * spread * np.sqrt(1 / 1000 + 1 / weighted.ess)
    assert (abs(new.mean((0, 1)) - mean) < most).all()


def test_resampled_draws_are_those_of_the_weights(weighted):
    draws = weighted.resampled(KEY, 4000)
    assert draws.shape == (1, 4000) and "by weight" in draws.status
    # systematic: each is there as often as its weight says, but for one
    values, counts = np.unique(draws["a"], return_counts=True)
    at = {x: w for x, w in zip(weighted["a"][0], weighted.weights[0], strict=True)}
    assert all(abs(c - 4000 * at[v]) < 1 for v, c in zip(values, counts, strict=True))
    assert np.ptp(np.diff(draws["a"][0])) > 0  # in random order
    assert loo(draws).n == 5


def test_it_is_saved_and_exported_with_its_weights(weighted, tmp_path):
    more = weighted.derive(total=lambda latents: latents["a"] + latents["b"])
    more.save(tmp_path / "found.npz")
    again = Particles.load(tmp_path / "found.npz", LINE)
    assert str(again.summary()) == str(more.summary()) and repr(again) == repr(more)
    assert (again.log_weight == more.log_weight).all() and again["total"].shape == (1, 5000)
    with pytest.raises(errors.CheckpointError, match="no draws"):
        Draws.load(tmp_path / "found.npz")
    tree = to_datatree(more)
    assert (tree["sample_stats"]["log_weight"].values == more.log_weight).all()
    assert "log_weight" in tree.attrs["weights"]


def test_what_takes_no_weights_says_so(weighted):
    with pytest.raises(errors.InvalidArgument, match="resampled"):
        loo(weighted)


# -- what is wrong ----------------------------------------------------------------------------


def verdict_of(x, logs, **more):
    return Particles({"x": np.asarray(x)}, np.asarray(logs), **more).verdict()


def test_degenerate_weights_fail_with_a_reason_and_a_fix():
    x = np.random.default_rng(1).normal(size=(1, 2000))
    alone = {"families": np.arange(2000)[None]}
    cases = {
        "khat": verdict_of(x, 0.9 * x**2, **alone),
        "finite": verdict_of(x, np.where(x > 2, np.nan, 0.0), **alone),
        "evidence": verdict_of(x, np.full((1, 2000), -np.inf), **alone),
        "ess": verdict_of(x, np.where(np.arange(2000) < 30, 0.0, -np.inf)[None], **alone),
        "error": verdict_of(x, np.zeros((1, 2000))),
        "ancestors": verdict_of(x, np.zeros((1, 2000)), families=np.arange(2000)[None] % 5),
        "steps": verdict_of(
            x.reshape(2, 1000), np.zeros((2, 1000)),
            history={"ess": np.array([[900.0, 800.0], [700.0, 1.5]])},
        ),
        "runs": verdict_of(
            x.reshape(20, 100), np.where(np.arange(20) == 3, 5.0, 0.0)[:, None] + np.zeros(100)
        ),
        "copies": verdict_of(np.round(x.reshape(20, 100)), np.zeros((20, 100))),
        "constant": verdict_of(np.ones((20, 100)), np.zeros((20, 100))),
        "ended": verdict_of(
            x.reshape(20, 100), np.zeros((20, 100)), notes={"out of iterations": 2}
        ),
    }  # fmt: skip
    for check, verdict in cases.items():
        assert not verdict and verdict.check == check, (check, str(verdict))
        assert verdict.line.startswith("not usable: ")
        assert all(finding.action for finding in verdict.findings)
    assert "step 1 of run 2, 1.5 of 1000 particles" in cases["steps"].line
    assert "run 4 has 89% of all" in cases["runs"].line


def test_runs_that_settle_apart_are_worth_few_draws():
    """Each in one of two modes: the particles are many, the modes are seen twenty times."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, 500)) + np.repeat([[-5.0], [5.0]], 10, 0)
    verdict = verdict_of(x, np.zeros((20, 500)))
    assert verdict.check == "ess" and 10 < verdict.value < 40


@pytest.mark.slow
def test_particles_that_do_not_move_are_told():
    stay = annealed(COIN, 60, lambda hot: lambda trace: trace, 8, threshold=1.0)
    found = sample_posterior(KEY, COIN, stay, chains=2)
    assert "copies" in {x.check for x in found.verdict().findings}


def test_data_that_the_prior_does_not_expect():
    far = Target(line, (jnp.asarray(X),), {"y": jnp.asarray(Y + 9.0)})
    verdict = sample_posterior(KEY, far, importance(far, 1000)).verdict()
    assert not verdict and "annealed" in str(verdict)


# -- what runs --------------------------------------------------------------------------------


def test_other_data_of_equal_shapes_compile_nothing(caplog):
    sample_posterior(KEY, LINE, importance(LINE, 50))
    other = Target(line, (jnp.asarray(X + 1),), {"y": jnp.asarray(Y - 1)})
    with jax.log_compiles(), caplog.at_level("WARNING"):
        found = sample_posterior(KEY, other, importance(other, 50))
    # what goes to the compiler is what the host does with the results, at most
    assert not [
        r for r in caplog.records if "Finished XLA compilation of jit(run)" in r.getMessage()
    ]
    assert not [r for r in caplog.records if "compilation of jit(block)" in r.getMessage()]
    assert found["a"].shape == (1, 50)


@pytest.mark.slow
def test_it_is_one_run_of_the_algorithm_for_each(tmp_path, monkeypatch):
    """Runs differ, and go on from a folder; one weighted value is a run of one particle."""
    step = then(importance(COIN, 8), when_ess_below(1.0, systematic))
    three = sample_posterior(KEY, COIN, step, chains=3, checkpoint=tmp_path)
    assert three.shape == (3, 8) and not three.independent.alone
    again = sample_posterior(KEY, COIN, step, chains=3, checkpoint=tmp_path)
    assert (again["p"] == three["p"]).all()
    assert len(np.unique(three["p"][:, 0])) == 3
    one = sample_posterior(KEY, COIN, then(start(COIN)), chains=4)
    assert one.shape == (4, 1)

    class Bar:
        """Ctrl-C after the first run, of blocks of one run and then more."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def __call__(self, phase, done, total):
            assert (phase, total) == ("runs", 3)
            raise KeyboardInterrupt

    monkeypatch.setattr("inference.running.resumable_loop.bar", lambda show: Bar())
    part = sample_posterior(KEY, COIN, step, chains=3)
    assert part.status == "interrupted after 1 of 3 runs" and part.shape == (1, 8)
    assert (part["p"] == three["p"][:1]).all()


@pytest.mark.slow
def test_what_is_not_of_particles_is_refused():
    step = importance(COIN, 8)
    for name, value in {"draws": 10, "warmup": 5, "initial": "prior", "batch_size": 1}.items():
        with pytest.raises(errors.InvalidArgument, match=f"no setting {name}"):
            sample_posterior(KEY, COIN, step, **{name: value})
    with pytest.raises(errors.InvalidArgument, match="another target"):
        sample_posterior(KEY, LINE, step)
    other = Target(coin, (), {"heads": 7})
    with pytest.raises(errors.InvalidArgument, match="another target"):
        sample_posterior(KEY, other, step)
    with pytest.raises(errors.InvalidArgument, match="no particles"):
        sample_posterior(KEY, COIN, lambda: 3.0)
    with pytest.raises(errors.InvalidArgument, match="islands"):
        sample_posterior(KEY, COIN, then(islands(2), each(within(step))))
    assert sample_posterior(
        KEY, COIN, then(islands(2), each(within(step)), merged), chains=2
    ).shape == (2, 16)
    with pytest.raises(errors.InvalidArgument, match="no latents"):
        sample_posterior(KEY, COIN, lambda: Weighted(jnp.zeros(3), jnp.zeros(3)))
    assert not degeneracy(Weighted(jnp.zeros(3), jnp.full(3, -jnp.inf)))


def test_pictures_count_by_weight(weighted):
    """The title of a histogram has the mean by weight; of steps there is a line for each run."""
    row = weighted.summary()["a"]
    title = plot_posterior(weighted, ["a"]).axes[0].get_title()
    assert title == f"a: {row['mean']:.3g} [{row['5%']:.3g}, {row['95%']:.3g}]"
    shares = plot_weights(weighted).axes[0].lines[0].get_ydata()
    assert np.isclose(shares[-1], 1.0) and shares[2500] < 0.5
    told = {"ess": np.array([[9.0, 1.5], [8.0, 7.0]]), "log_evidence": np.zeros((2, 2))}
    steps = Particles({"x": np.ones((2, 10))}, np.zeros((2, 10)), history=told)
    top, _ = plot_ess(steps).axes
    assert [line.get_ydata().tolist() for line in (top.lines[0], top.lines[1], top.lines[3])] == [
        [9.0, 1.5], [8.0, 7.0], [1.5]
    ]  # fmt: skip
    with pytest.raises(errors.InvalidArgument, match="no history"):
        plot_ess(weighted)
