"""Choices of 0, 1 and 2 elements, and what is known of a choice without drawing it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import ppl.samplers
from inference import Draws, mh, nuts, sample_posterior
from inference.results.loo import loo
from inference.results.pointwise import log_likelihood
from inference.results.predictive import posterior_predictive, prior_predictive
from ppl import Masked, Target, gen, law, sample, seed
from ppl.errors import CannotSimulate
from tests.every_distribution import EVERY, at, values

KEY = jax.random.key(0)
HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)


# -- nothing runs a sampler to know a choice ----------------------------------------------


@pytest.fixture
def no_sampler(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a sampler was run")

    for name in dir(dist):
        d = getattr(dist, name)
        if isinstance(d, type) and issubclass(d, dist.Distribution) and "sample" in d.__dict__:
            monkeypatch.setattr(d, "sample", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_choice_is_known_without_its_sampler(name, no_sampler):
    """Shape by the constructor, dtype by the support. Sweep: all of numpyro's distributions."""
    d = at(name, (2,))
    site = gen(lambda: sample("y", d)).sites()["y",]
    assert site.shape == d.shape()
    assert site.dtype == (int if d.support.is_discrete else float)


def test_what_samplers_do_not_tell_is_observed(no_sampler):
    """Densities by scipy and by hand; an int32 count under x64 broke a sampler, and that of a
    truncated Student's t wants a package."""
    binomial = gen(lambda p: sample("y", dist.Binomial(np.int32(5), p)))
    score, _ = binomial.assess({"y": 2}, 0.25)  # numpyro's log factorials of int32 are float32
    np.testing.assert_allclose(score, np.log(10 * 0.25**2 * 0.75**3), atol=20 * 2.0**-24)
    half_t = dist.TruncatedDistribution(dist.StudentT(3.0, 0.0, 10.0), low=0.0)
    # twice the density of Student's t with 3 degrees of freedom: 2 / (pi sqrt 3) / (1 + z^2/3)^2
    z = 0.7
    expected = np.log(2 * 2 / (np.pi * np.sqrt(3)) / (1 + z**2 / 3) ** 2 / 10)
    found = Target(gen(lambda: sample("y", half_t)), (), {"y": 10 * z}).log_density({})
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    geometric = gen(lambda: sample("y", dist.Geometric(0.25)))
    assert np.isclose(jax.jit(geometric.assess)({"y": 2})[0], np.log(0.75**2 * 0.25))


def test_integers_keep_their_kind():
    """A Delta's values have its dtype; what numpyro draws as floats are counts all the same."""
    fixed = gen(lambda: sample("y", dist.Delta(jnp.array([3, 4]))))
    assert fixed.sites()["y",].dtype == int
    counts = gen(lambda: sample("y", dist.Multinomial(4, jnp.array([0.5, 0.5]))))
    made = seed(counts.simulate)(KEY)["y"]
    assert made.dtype == int and made.sum() == 4


@pytest.mark.parametrize(
    "d, words",
    [
        (dist.TruncatedDistribution(dist.StudentT(3.0, 0.0, 10.0), low=0.0), "not installed"),
        (EVERY["IntervalCensoredDistribution"]((2,)), "no value that it could be observed at"),
        (EVERY["ImproperUniform"](()), "has no sampler"),
    ],
)
def test_a_draw_without_a_sampler_is_an_error(d, words):
    with pytest.raises(CannotSimulate, match=words):
        seed(gen(lambda: sample("y", d)).simulate)(KEY)


# -- no elements, and one or two --------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_of_none_has_density_one(name):
    """Sweep: all of numpyro's distributions. numpyro's own density and constraints fail."""
    d = at(name, (0,))
    y = jnp.asarray(values(d))
    model = gen(lambda: sample("y", d))
    score, retval = model.assess({"y": y})
    assert float(score) == 0.0 and retval.shape == d.shape()
    assert Target(model, (), {"y": y}).log_density({}) == 0.0
    if not d.support.is_discrete and name != "Unit":
        assert Target(model).potential({"y": y}) == 0.0


SIZED = {
    "normal": lambda n: dist.Normal(0.0, 1.0).expand([n]),
    "normals, one event": lambda n: dist.Normal(0.0, 1.0).expand([n]).to_event(1),
    "parameters": lambda n: dist.Normal(jnp.zeros(n), 1.0),
    "gamma": lambda n: dist.Gamma(2.0, 1.5).expand([n]),
    "vectors": lambda n: dist.Dirichlet(jnp.ones(3)).expand([n]),
    "counts": lambda n: dist.Poisson(1.7).expand([n]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "n, under_jit", [(0, False), (0, True), (1, False), (2, False)], ids=["0", "0-jit", "1", "2"]
)
@pytest.mark.parametrize("name", SIZED)
def test_sizes(name, n, under_jit, monkeypatch):
    """Sweep: the six methods, masks, and a target, x sizes 0 (also under jit), 1, 2."""
    d, one = SIZED[name](n), SIZED[name](1)
    y = jnp.asarray(values(d)) if n else jnp.zeros(d.shape(), values(one).dtype)
    expected = float(np.sum(d.log_prob(y))) if n else 0.0
    monkeypatch.setattr(ppl.samplers, "sample", lambda d, *_: y)  # not numpyro's slow ones
    model = gen(lambda: sample("y", d))
    mask = jnp.zeros(y.shape[:1], bool) if y.ndim else jnp.asarray(False)

    def methods(key, y):
        made = seed(model.simulate)(key)
        trace, weight = model.generate({"y": y})
        return {
            "simulated": made.score - model.assess(made.choices)[0],
            "assessed": model.assess({"y": y})[0] - expected,
            "generated": weight - expected,
            "masked": seed(model.generate)(key, {"y": Masked(y, mask)})[1],
            "updated": model.update(trace, {"y": y})[1],
            "mask updated": model.update(trace, {"y": Masked(y, mask)})[1],
            "regenerated": seed(model.regenerate)(key, trace, "y")[1],
            "projected": model.project(trace, "y") - expected,
            "target": Target(model, (), {"y": y}).log_density({}) - expected,
        }

    for name, found in (jax.jit(methods) if under_jit else methods)(KEY, y).items():
        np.testing.assert_allclose(found, 0.0, atol=1e-12, err_msg=name)


@gen(static_argnames="n")
def some(n):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    b = sample("b", dist.Gamma(2.0, 1.0).expand([n]))
    k = sample("k", dist.Bernoulli(0.5).expand([n]))
    jax.lax.scan(lambda c, _: (c, sample("s", dist.Gamma(2.0, 1.0))), 0.0, None, length=n)
    sample("y", dist.Normal(mu + b.sum() + k.sum(), 1.0).expand([2]))
    sample("z", dist.Poisson(1.0).expand([n]))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 7])
def test_draws_with_latents_of_no_elements(batch):
    """Predictions, likelihoods, loo, tables and exports; in one batch and in several."""
    y = jnp.array([1.0, 2.0])
    target = Target(some, (0,), {"y": y, "z": jnp.zeros(0, int)})
    mu = np.random.default_rng(0).normal(size=(2, 30))
    none = np.zeros((2, 30, 0))
    draws = Draws({"mu": mu, "b": none, "k": none.astype(int), "s": none}, target=target)
    found = log_likelihood(draws, batch=batch)
    expected = -0.5 * (np.asarray(y) - mu[..., None]) ** 2 - HALF_LOG_TWO_PI
    np.testing.assert_allclose(found["y"], expected, rtol=1e-12)
    assert found["z"].shape == (2, 30, 0)
    made = posterior_predictive(KEY, draws, batch=batch)
    assert (made["y"].shape, made["z"].shape) == ((2, 30, 2), (2, 30, 0))
    prior = prior_predictive(KEY, target, 10, batch=batch)
    assert prior["b"].shape == prior["s"].shape == (1, 10, 0)
    if batch is None:
        assert loo(draws).n == 2 and loo(draws).pointwise["z"].shape == (0,)
        assert list(draws.scalars()) == ["mu"] and '"b"' not in str(draws.summary())


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [nuts, lambda target: mh(target, "mu")], ids=["nuts", "mh"])
def test_chains_beside_latents_of_no_elements(kernel):
    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        b = sample("b", dist.Gamma(2.0, 1.0).expand([0]))
        sample("y", dist.Normal(mu + b.sum(), 1.0))

    target = Target(model, (), {"y": 1.0})
    draws = sample_posterior(KEY, target, kernel(target), draws=5, warmup=5, chains=2)
    assert draws["b"].shape == (2, 5, 0) and draws["mu"].shape == (2, 5)


def test_the_law_of_no_elements():
    found = law(lambda: gen(lambda: sample("k", dist.Bernoulli(0.5).expand([0]))).simulate()["k"])()
    assert found.masses.tolist() == [1.0]
