"""What is made of enumerated outcomes alone is computed once for all elements."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from ppl import draw, enumerate_, expectation, integrate, seed

random = np.random.default_rng(0)
FIRST, SECOND = random.normal(size=(2, 5)), random.normal(size=(5, 3))
DATA = random.normal(size=(2, 3))


def network(x, first=FIRST, second=SECOND):
    return jax.nn.softplus(jax.nn.relu(x @ first) @ second)


def of_choices_alone(p):
    """Two choices in each of two elements, a network of them, and a term for each element."""
    z = [draw(dist.Bernoulli(p * jnp.array([1.0, 0.5])), enumerate_()) for _ in range(2)]
    made = network(jnp.stack(z, -1).astype(float))
    return jnp.sum((made - DATA) ** 2)


def of_data_too(p):
    z = draw(dist.Bernoulli(p * jnp.array([1.0, 0.5])), enumerate_())
    made = network(jnp.stack([z, z * DATA[:, 0]], -1))
    return jnp.mean(jnp.log1p(made)[:, 1] * z)


def transposed(p):
    z = draw(dist.Bernoulli(p * jnp.array([1.0, 0.5])), enumerate_())
    row = jnp.broadcast_to(z, (3, 2)).reshape(3, 2, 1).transpose(1, 2, 0)[:, 0].astype(float)
    return jnp.sum(jnp.where(row > 0.5, jnp.exp(row), p).max(1) * (1 + z))


def mixed(p):
    """Along its own axis: sums, an order, differences, which are not the same in all elements."""
    z = draw(dist.Bernoulli(p * jnp.array([1.0, 0.5])), enumerate_())
    total = jnp.cumsum(z) + 2.0 * jnp.flip(z)
    return jnp.sum(jnp.sin(total * p)) + jnp.cos(1.0 * z[0] - z[1])


def looped(p):
    z = draw(dist.Bernoulli(p * jnp.array([1.0, 0.5])), enumerate_()).astype(float)

    def body(c, row):
        return c + jnp.sin(row * p), network(jnp.stack([row, c]))

    c, rows = jax.lax.scan(body, 0.0, z)
    return c + jnp.sum(rows * jnp.arange(3.0))


def own_rule(p):
    """A function with a derivative of its own that is not the same in all elements."""
    places = jnp.arange(1.0, 3.0)

    @jax.custom_jvp
    def scaled(x):
        return x * places

    scaled.defjvp(lambda x, t: (scaled(x[0]), t[0] * places))
    z = draw(dist.Bernoulli(p * jnp.array([1.0, 0.5])), enumerate_()).astype(float)
    return jnp.sum(jnp.exp(scaled(z)))


PROGRAMS = [of_choices_alone, of_data_too, transposed, mixed, looped, own_rule]


@pytest.mark.parametrize("program", PROGRAMS)
def test_values_and_derivatives_are_the_same(program):
    """As by the sum over all outcomes of all elements: sums of products, to rounding."""

    def both(f, p):
        return f(p), *jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))

    p = jnp.asarray(0.3)
    found = jax.jit(integrate(lambda p: both(expectation(program), p)))(p)
    assert_allclose(found, both(integrate(program), p), rtol=1e-11, atol=1e-11)


def operations(n):
    """Floating-point operations of a gradient for a batch of n, of a network of the choices."""
    wide, last = jnp.ones((2, 200)), jnp.ones((200, 200))

    def program(p):
        z = [draw(dist.Bernoulli(p * jnp.ones(n)), enumerate_()) for _ in range(2)]
        made = network(jnp.stack(z, -1).astype(float), wide, last)
        return jnp.mean(jnp.sum(made, -1))

    slope = jax.jit(lambda p: seed(jax.grad(expectation(program)))(jax.random.key(0), p))
    return slope.lower(0.3).compile().cost_analysis()["flops"]


def test_a_network_of_outcomes_is_computed_once_for_all_elements():
    """A product of 200 by 200 for each of four outcomes, not for each of 32 elements as well."""
    assert operations(32) < 2 * operations(2)
