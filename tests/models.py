"""Finite models that between them use every construct around choices."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import factor, gen, mask, mix, repeat, sample, scan, switch, vmap

TABLE = jnp.array([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4], [0.1, 0.1, 0.8]])


@gen
def straight(p):
    a = sample("a", dist.Bernoulli(p))
    b = sample("b", dist.Categorical(TABLE[a]))
    return sample("c", dist.Bernoulli(jnp.array([0.3, 0.9, 0.5])[b]))


@gen
def coin(p):
    return sample("x", dist.Bernoulli(p))


@gen
def nested(p):
    a = sample("left", coin(p))
    b = sample("right", straight(0.2 + 0.6 * a))
    return a + b


@gen
def chain(p):
    def step(state, _):
        state = sample("z", dist.Categorical(TABLE[state]))
        return state, state

    last, path = lax.scan(step, sample("first", dist.Bernoulli(p)), None, length=3)
    sample("end", dist.Bernoulli(jnp.array([0.2, 0.5, 0.7])[last]))
    return path


@gen
def batch(p):
    x = jax.vmap(lambda q: sample("x", dist.Bernoulli(q)))(jnp.array([0.1, 0.5]) + 0.4 * p)
    return sample("y", dist.Categorical(TABLE[x.sum()]))


@gen
def branching(p):
    a = sample("a", dist.Bernoulli(p))

    def left():
        return sample("shared", dist.Bernoulli(0.2)) + sample("l", dist.Bernoulli(0.7))

    def right():
        return sample("shared", dist.Bernoulli(0.6)) * sample("r", dist.Categorical(TABLE[0]))

    x = lax.cond(a == 1, left, right)
    return sample("y", dist.Categorical(TABLE[jnp.minimum(x, 2)]))


@gen
def branches_in_scan(p):
    def step(state, _):
        new = lax.cond(
            state == 1,
            lambda: sample("stay", dist.Bernoulli(0.8)),
            lambda: sample("jump", dist.Bernoulli(p)),
        )
        return new, None

    return lax.scan(step, 1, None, length=3)[0]


@gen
def branches_in_vmap(p):
    def one(q):
        a = sample("a", dist.Bernoulli(q))
        return lax.cond(a == 1, lambda: sample("b", dist.Bernoulli(0.3)), lambda: 0)

    return jax.vmap(one)(jnp.array([0.2, 0.9]) * p)


@gen
def scan_in_vmap(p):
    def one(q):
        step = lambda c, _: (sample("z", dist.Bernoulli(0.3 + 0.4 * c * q)), None)  # noqa: E731
        return lax.scan(step, 0, None, length=2)[0]

    return jax.vmap(one)(jnp.array([0.5, 1.0]) * p).sum()


@gen
def wrapped(p):
    a = jax.jit(lambda q: sample("a", dist.Bernoulli(q)))(p)
    b = jax.checkpoint(lambda q: sample("b", dist.Bernoulli(0.2 + 0.5 * q)))(a)
    c = lax.fori_loop(0, 2, lambda i, s: s + sample("c", dist.Bernoulli(0.4)), b)
    d = lax.map(lambda q: sample("d", dist.Bernoulli(q)), jnp.array([0.1, 0.9]))
    return jax.nn.relu(1.0 * c) + d.sum()


@gen
def scored(p):
    a = sample("a", dist.Bernoulli(p))
    factor(jnp.where(a == 1, -0.3, 0.4))
    return sample("sub", straight(0.5))


combined = gen(lambda p: sample("v", vmap(coin)(jnp.array([0.3, 0.6]) * p)))
repeated = gen(lambda p: sample("r", repeat(straight, 2)(p)))
switched = gen(lambda p: sample("s", switch(coin, straight)(sample("i", dist.Bernoulli(p)), 0.3)))
masked = gen(lambda p: sample("m", mask(straight)(sample("i", dist.Bernoulli(p)) == 1, 0.3)))
mixed = gen(lambda p: sample("m", mix(coin, straight)(jnp.array([p, 1 - p]), 0.3)))


@gen
def markov(p):
    step = gen(lambda c, x: (lambda z: (z, z))(sample("z", dist.Bernoulli(0.2 + 0.5 * c * x))))
    return sample("scan", scan(step)(0, jnp.array([1.0, 0.5, p])))


MODELS = {
    "straight": straight,
    "nested": nested,
    "chain": chain,
    "batch": batch,
    "branching": branching,
    "branches_in_scan": branches_in_scan,
    "branches_in_vmap": branches_in_vmap,
    "scan_in_vmap": scan_in_vmap,
    "wrapped": wrapped,
    "scored": scored,
    "combined": combined,
    "repeated": repeated,
    "switched": switched,
    "masked": masked,
    "mixed": mixed,
    "markov": markov,
}
