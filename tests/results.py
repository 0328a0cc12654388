"""Chains and targets that the tests of results have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from inference import Draws
from ppl import Target, gen, sample

RANDOM = np.random.default_rng(0)


def autoregressive(*shape):
    """Chains that mix slowly, so that no two diagnostics agree by accident."""
    x = RANDOM.normal(size=shape)
    for i in range(1, shape[1]):
        x[:, i] += 0.5 * x[:, i - 1]
    return x


GOOD = RANDOM.normal(size=(4, 500))


@gen
def regression(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    scale = sample("scale", dist.HalfNormal(1.0))
    sample("y", dist.Normal(slope * x, scale))


X = jnp.array([0.0, 1.0, 2.0])
Y = jnp.array([0.5, 1.0, -1.0])
LINE = Target(regression, (X,), {"y": Y})


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
