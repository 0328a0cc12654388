"""Minibatches: their mean is the whole, exactly, with and without latents of each datum."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpy.testing import assert_allclose

from inference import elbo, fit, iwelbo, minibatch
from ppl import Target, expectation, gen, integrate, sample, vmap
from ppl.errors import InvalidArgument

X = jnp.array([1.0, 2.0, -1.0])
Y = jnp.array([1, 0, 1])


@gen
def coins(x):
    heads = sample("heads", dist.Bernoulli(0.3))
    sample("y", dist.Bernoulli(logits=x * (heads - 0.2)))


@gen
def datum(heads, x):
    z = sample("z", dist.Bernoulli(0.2 + 0.5 * heads))
    sample("y", dist.Bernoulli(logits=x * (z - 0.2)))


@gen
def mixed(x):
    heads = sample("heads", dist.Bernoulli(0.3))
    sample("each", vmap(datum, (None, 0))(heads, x))


@gen
def guide(p):
    sample("heads", dist.Bernoulli(p))


@gen
def local_guide(p, numbers):
    heads = sample("heads", dist.Bernoulli(p))
    shares = p * jnp.array([0.5, 1.0, 0.7])[numbers]

    @gen
    def one(share):
        sample("z", dist.Bernoulli(share * (1 - 0.5 * heads)))

    sample("each", vmap(one)(shares))


def shared(i):
    return Target(coins, (X[i],), {"y": Y[i]})


def each(i):
    return Target(mixed, (X[i],), {"each": {"y": Y[i]}})


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    "batch, made, how", [(shared, guide, {}), (each, local_guide, {"local": ("each", "z")})]
)
def test_the_mean_over_all_minibatches_is_the_full_objective(size, batch, made, how):
    """Value and derivative, over all batches and all latents, to rounding."""
    some = elbo(minibatch(batch, 3, size, **how), made)

    def full(p):
        numbers = jnp.arange(3)
        args = (p, numbers) if how else (p,)
        trace = made.simulate(*args)
        return batch(numbers).log_density(trace.choices) - trace.score

    p = jnp.asarray(0.4)
    both = jax.jit(integrate(jax.value_and_grad(expectation(some))))(p)
    assert_allclose(both, jax.value_and_grad(integrate(full))(p), rtol=1e-11)
    assert some.target_of(p).latents == list(batch(jnp.arange(3)).latents)


def test_another_bound_of_a_minibatch_is_biased_and_refused():
    with pytest.raises(InvalidArgument, match="biased"):
        integrate(iwelbo(minibatch(shared, 3, 2), guide, 2))(0.4)
    with pytest.raises(InvalidArgument, match="change with the data"):
        integrate(minibatch(each, 3, 2, local=("each", "z")))({"heads": 1})


def test_a_latent_that_all_data_share_is_not_local():
    shared_guide = gen(lambda p, numbers: sample("heads", dist.Bernoulli(p)))
    with pytest.raises(InvalidArgument, match="one datum each"):
        integrate(elbo(minibatch(shared, 3, 2, local="heads"), shared_guide))(0.4)


def test_a_fit_by_minibatches_finds_the_posterior():
    """Normal data, 10 of 400 at a time: N(n ybar / (n + 1), 1 / (n + 1)), the mean to 1 % of Y."""
    y = np.random.default_rng(0).normal(2.0, 1.0, size=400)

    @gen
    def model(n):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu, 1.0).expand([len(n)]))

    @gen
    def near(p, y):
        sample("mu", dist.Normal(p["loc"], jnp.exp(p["log_scale"])))

    def target(p, y):
        return minibatch(lambda i: Target(model, (i,), {"y": y[i]}), 400, 10)

    start = {"loc": 0.0, "log_scale": -2.0}
    slower = optax.adam(optax.cosine_decay_schedule(0.01, 6000))
    objective = elbo(target, near)
    found = fit(jax.random.key(0), objective, start, slower, data=(y,), steps=6000, samples=5)
    assert abs(found.parameters["loc"] - 400 * y.mean() / 401) < 0.02
    assert abs(np.exp(found.parameters["log_scale"]) * 401**0.5 - 1) < 0.1
    assert found.report(jax.random.key(1))
