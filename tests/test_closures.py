"""Generative functions made inside a model, which close over its random values."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import mh
from ppl import Target, gen, mix, sample, scan, seed, switch, vmap
from semantics import check_generative_function, check_kernel

UP = jnp.array([0.2, 0.7])


def coin(p):
    return sample("x", dist.Bernoulli(p))


def by_closure(combine, a):
    """Two steps or elements of a coin whose probability is that of `a`, which is closed over."""
    closed = gen(lambda i: coin(UP[a] * i))
    stepped = gen(lambda c, i: (sample("x", dist.Bernoulli(UP[a] * i)), None))
    return {
        "call": lambda: closed(1.0),
        "vmap": lambda: vmap(closed)(jnp.array([0.5, 1.0])),
        "scan": lambda: scan(stepped)(0, jnp.array([0.5, 1.0])),
        "switch": lambda: switch(closed, gen(lambda i: coin(0.5 * i)))(a, 1.0),
        "mix": lambda: mix(closed, closed)(jnp.array([0.4, 0.6]), 1.0),
    }[combine]()


def by_argument(combine, a):
    """The same, with `a` an argument."""
    told = gen(lambda a, i: coin(UP[a] * i))
    stepped = gen(lambda c, ai: (sample("x", dist.Bernoulli(UP[ai[0]] * ai[1])), None))
    both = jnp.array([a, a]), jnp.array([0.5, 1.0])
    return {
        "call": lambda: told(a, 1.0),
        "vmap": lambda: vmap(told)(*both),
        "scan": lambda: scan(stepped)(0, both),
        "switch": lambda: switch(told, gen(lambda a, i: coin(0.5 * i)))(a, a, 1.0),
        "mix": lambda: mix(told, told)(jnp.array([0.4, 0.6]), a, 1.0),
    }[combine]()


def models(combine):
    def made(inner):
        @gen
        def model():
            a = sample("a", dist.Bernoulli(0.3))
            sample("sub", inner(combine, a))

        return model

    return made(by_closure), made(by_argument)


COMBINED = ["call", "vmap", "scan", "switch", "mix"]


@pytest.mark.slow
@pytest.mark.parametrize("combine", COMBINED)
def test_closed_over_or_given_the_densities_are_the_same(combine):
    mine, other = models(combine)
    for i in range(5):
        trace = jax.jit(seed(other.simulate))(jax.random.key(i))
        score, _ = jax.jit(mine.assess)(trace.choices)
        np.testing.assert_allclose(score, trace.score, rtol=1e-14)
        # with the opposite value of what is closed over: the weight of the change
        new = {"a": 1 - trace["a"]}
        weights = [seed(m.update)(jax.random.key(9), trace, new)[1] for m in (mine, other)]
        np.testing.assert_allclose(weights[0], weights[1], rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["call", "scan"])
def test_the_laws_hold_and_kernels_are_exact(combine):
    mine, _ = models(combine)
    for verdict in check_generative_function(mine):
        verdict.require()
    observed = {"sub": {"x": 1 if combine == "call" else jnp.array([1, 0])}}
    check_kernel(lambda target: mh(target, "a"), Target(mine, (), observed)).require()


def test_in_loops_and_branches_of_jax():
    @gen
    def model():
        a = sample("a", dist.Normal(0.0, 1.0))

        def step(z, x):
            z = sample("z", dist.Normal(z, 1.0))
            inner = gen(lambda: sample("w", dist.Normal(z + a * x, 1.0)))
            return z, sample("sub", inner())

        jax.lax.scan(step, 0.0, jnp.arange(3.0))
        jax.lax.cond(a > 0, lambda: sample("b", gen(coin)(jax.nn.sigmoid(a))), lambda: 0)

    trace = jax.jit(seed(model.simulate))(jax.random.key(1))
    z, w, a = trace["z"], trace["sub", "w"], trace["a"]
    n = lambda x, m: float(dist.Normal(m, 1.0).log_prob(x).sum())  # noqa: E731
    expected = n(a, 0.0) + n(z, jnp.concatenate([jnp.zeros(1), z[:-1]]))
    expected += n(w, z + a * jnp.arange(3.0))
    if a > 0:
        expected += float(dist.Bernoulli(jax.nn.sigmoid(a)).log_prob(trace["b", "x"]))
    np.testing.assert_allclose(trace.score, expected, rtol=1e-12)
