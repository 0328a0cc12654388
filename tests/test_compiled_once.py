"""One program for all data of one shape: runs on other data compile nothing, and are right."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import inference as inf
from inference import nuts, sample_posterior
from ppl import Masked, Target, gen, sample

KEY = jax.random.key(3)
FEW = {"draws": 12, "warmup": 20, "chains": 2, "progress": False}


def model_of():
    """A model that no other test has compiled a program of."""

    @gen
    def model(x):
        slope = sample("slope", dist.Normal(0.0, 1.0).expand([2]))
        k = sample("k", dist.Bernoulli(0.3).expand([2]))
        sample("y", dist.Normal(x @ slope + k.sum(), 0.7))

    return model


def target_of(model, seed, masked=False):
    random = np.random.default_rng(seed)
    y = jnp.asarray(random.normal(size=4))
    if masked:
        y = Masked(y, jnp.asarray(random.permutation([True, True, False, True])))
    return Target(model, (jnp.asarray(random.normal(size=(4, 2))),), {"y": y})


KERNELS = {
    "nuts": lambda t: nuts(t, "slope"),
    "hmc": lambda t: inf.hmc(t, "slope", steps=3),
    "mala": lambda t: inf.mala(t, "slope"),
    "random walk": lambda t: inf.random_walk(t, "slope"),
    "slices": lambda t: inf.slice_sample(t, "slope"),
    "ellipses": lambda t: inf.elliptical_slice(t, "slope"),
    "mh": lambda t: inf.mh(t, "k"),
    "gibbs": lambda t: inf.gibbs(t, "k"),
    "a cycle": lambda t: inf.cycle(inf.hmc(t, "slope", steps=2), inf.gibbs(t, "k")),
    "a mixture": lambda t: inf.mixture([inf.mh(t, "k"), inf.mala(t, "slope")], [0.25, 0.75]),
    "iterated": lambda t: inf.iterate(inf.cycle(inf.mh(t, "k"), inf.mh(t, "slope")), 3),
    "tuned": lambda t: tuned(inf.random_walk(t, "slope"), 0.01 * float(t.args[0][0, 0]) ** 2),
}


def tuned(kernel, step_size):
    """The same with a fixed step size, which is data too."""
    return kernel.tuned(kernel.parameters._replace(step_size=jnp.asarray(step_size)))


def compiled(caplog, run):
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        draws = run()
    return draws, [r for r in caplog.records if "Finished XLA" in r.getMessage()]


def check(make, model, caplog, **how):
    first, second = (target_of(model, seed, **how) for seed in (1, 2))
    assert make(first).recipe == make(second).recipe is not None
    begun, some = compiled(caplog, lambda: sample_posterior(KEY, first, make(first), **FEW))
    fresh, more = make(second), FEW | {"draws": 14}
    draws, none = compiled(caplog, lambda: sample_posterior(KEY, second, fresh, **more))
    assert some and not none
    # and the draws say so
    assert [(c.program, c.why) for c in begun.timing.compiled] == [
        ("begin", "new"), ("freeze", "new"), ("steps", "new")
    ]  # fmt: skip
    assert 0 < begun.timing.compiling < begun.timing.seconds and not draws.timing.compiled
    # by a program that holds the data, whose sums may be rounded otherwise
    alone = sample_posterior(KEY, second, make(second).of_recipe(None), **more)
    for name in ("slope", "k"):
        np.testing.assert_allclose(draws[name], alone[name], rtol=0, atol=1e-7)
    assert any(np.ptp(np.asarray(draws[name])) > 0 for name in ("slope", "k"))


QUICKLY = {"nuts", "a cycle"}
EACH = [pytest.param(k, marks=() if k in QUICKLY else pytest.mark.slow) for k in KERNELS]


@pytest.mark.parametrize("name", EACH)
def test_another_target_and_kernel_compile_nothing(name, caplog):
    check(KERNELS[name], model_of(), caplog)


@pytest.mark.slow
def test_missing_elements_are_data_too(caplog):
    check(KERNELS["hmc"], model_of(), caplog, masked=True)


def test_what_differs_in_more_than_numbers_has_another_recipe():
    target = target_of(model_of(), 1)
    one = nuts(target, "slope")
    assert one.recipe == nuts(target, "slope", max_depth=10).recipe  # which is the default
    others = [
        nuts(target, "slope", max_depth=9),
        nuts(target, "slope", dense=False),
        inf.hmc(target, "slope", steps=3),
        inf.iterate(one, 2),
        inf.cycle(one),
    ]
    assert len({one.recipe, *(other.recipe for other in others)}) == 6


def test_what_cannot_be_made_again_has_none():
    """A function that is no maker's; functions replaced; parameters of a whole, not its parts'."""
    target = target_of(model_of(), 1)
    one = inf.mh(target, "k")
    assert inf.cycle(one, lambda trace: trace).recipe is None
    assert replace(one, step=lambda _, trace: (trace, {})).recipe is None
    both = inf.cycle(one, inf.mala(target, "slope"))
    assert both.recipe is not None and both.tuned(both.parameters).recipe is None


def test_predictions_of_other_draws_and_data_compile_nothing(caplog):
    model, found = model_of(), {}
    for seed in (1, 2):
        target = target_of(model, seed)
        random = np.random.default_rng(seed)
        latents = {"slope": random.normal(size=(2, 5, 2)), "k": random.integers(0, 2, (2, 5, 2))}
        draws = inf.Draws(latents, target=target)
        at = (jnp.asarray(random.normal(size=(3, 2))),)
        calls = {
            "replicates": lambda d=draws: inf.posterior_predictive(KEY, d),
            "elsewhere": lambda d=draws, at=at: inf.posterior_predictive(KEY, d, args=at),
            "likelihoods": lambda d=draws: inf.log_likelihood(d),
            "prior": lambda t=target: inf.prior_predictive(KEY, t, 20),
        }
        for name, call in calls.items():
            values, programs = compiled(caplog, call)
            assert bool(programs) == (seed == 1), name
            found[name] = values
        found["target"], found["latents"] = target, latents
    # of the second data, not of the first
    x, y = found["target"].args[0], found["target"].observed["y",]
    mean = found["latents"]["slope"] @ np.asarray(x).T + found["latents"]["k"].sum(-1)[..., None]
    exact = dist.Normal(mean, 0.7).log_prob(y)
    np.testing.assert_allclose(found["likelihoods"]["y"], exact, rtol=1e-12)
    noise = np.asarray(found["replicates"]["y"]) - mean
    assert found["elsewhere"]["y"].shape == (2, 5, 3) and np.abs(noise).max() < 0.7 * 6


@pytest.mark.slow
def test_what_is_compiled_again_says_which_shapes_differ(caplog):
    model = model_of()
    run = {"key": KEY, **FEW}
    first = target_of(model, 1)
    sample_posterior(target=first, algorithm=inf.mh(first, "k"), **run)
    x = jnp.ones((5, 2))
    longer = Target(model, (x,), {"y": jnp.ones(5)})
    with caplog.at_level("INFO", "inference.running.programs"):
        draws = sample_posterior(target=longer, algorithm=inf.mh(longer, "k"), **run)
    (why,) = {each.why for each in draws.timing.compiled if each.program == "steps"}
    assert "float64[5, 2] for float64[4, 2]" in why and "float64[5] for float64[4]" in why
    told = [r.getMessage() for r in caplog.records if r.name == "inference.running.programs"]
    assert len(told) == len(draws.timing.compiled) and any(why in line for line in told)
    assert repr(draws.timing).endswith("compilations)")


def test_why_chains_diverge_is_looked_for_with_one_program(caplog):
    """For all summaries of all draws from targets of equal shapes."""

    @gen
    def model():
        s = sample("s", dist.Normal(3.0, 0.01))
        sample("y", dist.Normal(0.0, -s))

    def draws(y):
        target = Target(model, (), {"y": jnp.asarray(y)})
        values = {"s": np.random.default_rng(0).normal(3.0, 0.01, size=(4, 100))}
        return inf.Draws(values, {"nuts/diverging": np.ones((4, 100), bool)}, target)

    first, some = compiled(caplog, lambda: draws(0.5).summary())
    again, none = compiled(caplog, lambda: draws(0.7).summary())
    assert some and not none
    assert str(first) == str(again) and "outside positive" in str(draws(0.1).verdict().findings)
