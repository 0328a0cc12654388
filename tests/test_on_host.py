"""What is driven from the host says so inside a compiled program, in words of its own."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

import inference as inf
from inference import tensors
from inference.gaussian import Matern12
from ppl import Target, draw, errors, gen, sample

KEY = jax.random.key(0)
FEW = {"draws": 2, "warmup": 2}


@gen
def model():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 1.0))


@gen
def guide(loc):
    sample("mu", dist.Normal(loc, 1.0))


TARGET = Target(model, (), {"y": 1.0})
ROWS = tensors.entries({"x": [0.0, 1.0]})
TENSOR = tensors.cp(1, {"x": Matern12(1.0)})


def of(y):
    return Target(model, (), {"y": y})


def walk():
    return jax.lax.scan(lambda x, _: (x + draw(dist.Normal(0.0, 1.0)), x), 0.0, length=3)


CALLS = {
    "chains, a key": lambda k, y: inf.sample_posterior(k, TARGET, inf.nuts(TARGET), **FEW)["mu"],
    "chains, data": lambda k, y: inf.sample_posterior(KEY, of(y), inf.nuts(of(y)), **FEW)["mu"],
    "chains, a start": lambda k, y: inf.sample_posterior(
        KEY, TARGET, inf.nuts(TARGET), initial={"mu": y}, **FEW
    )["mu"],
    "many data sets": lambda k, y: inf.sample_posteriors(KEY, [of(y)], inf.nuts, **FEW)[0]["mu"],
    "a fit": lambda k, y: inf.fit(KEY, inf.elbo(TARGET, guide), y, steps=2).parameters,
    "particles": lambda k, y: inf.run_particles(k, walk).result,
    "a tensor, a key": lambda k, y: (
        tensors.message_passing(k, Target(TENSOR, (ROWS,), {"y": jnp.ones(2)})).bounds
    ),
    "a tensor, data": lambda k, y: (
        tensors.message_passing(KEY, Target(TENSOR, (ROWS,), {"y": jnp.stack([y, y])})).bounds
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_inside_jit(name):
    with pytest.raises(errors.InvalidArgument, match="driven from the host") as raised:
        jax.jit(CALLS[name])(KEY, 1.0)
    assert "test_on_host.py" in str(raised.value) and "jit" in raised.value.given
