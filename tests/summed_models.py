"""Small models of which some choices are summed out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ppl import factor, gen, sample, select
from semantics.compiling import QUICK

MOVE = jnp.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.0, 0.25, 0.75]])
SEE = jnp.array([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
YS = jnp.array([0.3, -1.0, 2.0])


@gen
def chain(theta):
    """A hidden Markov model whose emissions have a global choice in common, and what follows."""
    k = sample("k", dist.Bernoulli(0.3))
    mu = sample("mu", dist.Normal(0.0, 1.0))

    def step(z, _):
        z = sample("z", dist.Categorical(MOVE[z]))
        sample("y", dist.Normal(z * theta + k * mu, 1.0))
        return z, None

    z, _ = lax.scan(step, 0, None, length=3)
    sample("end", dist.Categorical(SEE[z]))
    factor(0.3 * k * z)


@gen
def arrays(theta):
    k = sample("k", dist.Categorical(MOVE[0]))
    z = sample("z", dist.Bernoulli(jnp.array([0.2, 0.5, 0.7]) * (1 + k) / 3))
    sample("x", dist.Normal(theta * z, 1.0))
    sample("w", dist.Bernoulli((0.2 + 0.5 * z) / (1 + k)))
    factor(0.2 * k)


@gen
def copies(theta):
    k = sample("k", dist.Bernoulli(0.4))

    def one(p):
        z = sample("z", dist.Bernoulli(p * (1 + k) / 2))
        sample("x", dist.Normal(theta * z, 1.0))
        sample("w", dist.Bernoulli(0.2 + 0.5 * z))

    jax.vmap(one)(jnp.array([0.2, 0.5, 0.7]))


GIVEN = {
    "chain": {"mu": jnp.array(0.4), "y": YS, "end": jnp.array(1)},
    "arrays": {"x": YS, "w": jnp.array([0, 1, 1])},
    "copies": {"x": YS, "w": jnp.array([0, 1, 1])},
}
MODELS = {"chain": chain, "arrays": arrays, "copies": copies}


@gen
def steps(p):
    def step(z, _):
        z = sample("z", dist.Bernoulli(SEE[z, 0] * p))
        sample("y", dist.Bernoulli(0.2 + 0.5 * z))
        return z, None

    z, _ = lax.scan(step, 0, None, length=2)
    sample("end", dist.Categorical(MOVE[z]))


@gen
def family(p):
    a = sample("a", dist.Bernoulli(p))
    b = sample("b", dist.Bernoulli(0.2 + 0.6 * a))
    c = sample("c", dist.Categorical(MOVE[a]))
    sample("d", dist.Bernoulli((b + c) / 4))
    # a branch on what is kept, whose choices depend on what is not
    lax.cond(c == 1, lambda: sample("e", dist.Bernoulli(0.3 + 0.4 * b)), lambda: 0)


@gen
def pairs(p):
    def one(q):
        z = sample("z", dist.Bernoulli(q))
        sample("w", dist.Bernoulli(0.2 + 0.5 * z))

    jax.vmap(one)(jnp.array([0.3, 0.9]) * p)


FINITE = {
    "steps": (steps, "z"),
    "family": (family, select("a", "b")),
    "pairs": (pairs, "z"),
}


def value_and_slopes(model, given, theta=1.2):
    """The density, with its derivatives by the argument and what is continuous; compiled."""
    real = {a: v for a, v in given.items() if jnp.issubdtype(v.dtype, jnp.floating)}
    score = lambda theta, real: model.assess({**given, **real}, theta)[0]  # noqa: E731
    run = jax.jit(jax.value_and_grad(score, (0, 1)), compiler_options=QUICK)
    return run(jnp.asarray(theta), real)


def same(one, other, atol=1e-10):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), one, other)
