"""Sums over data of one of two numbers made of outcomes: matrix products, with the same results.

Right values are by `integrate`, which sums over all outcomes of a batch, one by one: sums of some
thousand products in float64, to 1e-11.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from ppl import draw, enumerate_, expectation, integrate, seed
from ppl.distributions import log_density

EXACT = 1e-11
random = np.random.default_rng(0)
FIRST, SECOND = random.normal(size=(2, 5)), random.normal(size=(5, 6))
ROWS = 3
X = (random.random((ROWS, 6)) < 0.5).astype(int)


def choices(p, n=2):
    """n choices in each of as many elements as there are rows of data."""
    odds = p * jnp.linspace(1.0, 0.5, ROWS)
    return jnp.stack([draw(dist.Bernoulli(odds), enumerate_()) for _ in range(n)], -1) * 1.0


def logits_of(p, z):
    return jnp.tanh(z @ FIRST + p) @ SECOND


def of_densities(p, x=X, scale=1.0, shift=0.0):
    """A density, which asks whether data are possible, too."""
    logits = logits_of(p, choices(p)) * scale + shift
    return jnp.mean(log_density(dist.Bernoulli(logits=logits).to_event(1), jnp.asarray(x)))


def of_single_images(p):
    """A program for one image, under `vmap`."""

    def one(x, q):
        z = draw(dist.Bernoulli(q * p), enumerate_()) * jnp.ones(2)
        return jnp.sum(jnp.where(x == 1, jnp.exp(logits_of(p, z)), jnp.cos(logits_of(p, z))))

    return jnp.sum(jax.vmap(one)(jnp.asarray(X), jnp.linspace(1.0, 0.5, ROWS)))


def with_rows_kept(p):
    """A sum over some axes: of those that are left, one has the same numbers along it."""
    made = jnp.reshape(logits_of(p, choices(p)), (ROWS, 2, 3))
    x = jnp.asarray(X).reshape(ROWS, 2, 3)
    found = jnp.sum(jnp.where(x == 1, made, jnp.where(x == 0, made * p, -1.0)), 1)
    return jnp.sum(jnp.sin(found) * jnp.arange(3.0))


def scaled(p):
    """A number with no axes among them, and a sum that is used twice."""
    made = logits_of(p, choices(p))
    found = jnp.sum(jnp.where(X == 1, p, 2.0) * jnp.abs(made) - p, 1)
    return jnp.sum(found**2 + found)


def used_elsewhere(p):
    """What is summed is read one by one, too."""
    each = jnp.where(X == 1, logits_of(p, choices(p)), 0.5)
    return jnp.sum(jnp.sum(each, 1) ** 2 + each[:, 0] * each[:, 1])


def of_no_element(p):
    """A pixel that is 1 in all rows, where what it would be otherwise overflows."""
    first = np.eye(6)[0]
    squares, weights = jnp.tanh(choices(p) @ FIRST + p) ** 2, np.abs(SECOND)
    made, steep = squares @ weights, squares @ (1e6 * weights * first)
    x = np.maximum(X, first) == 1
    return jnp.mean(jnp.sum(jnp.exp(jnp.where(x, made, steep)), 1) ** 2)


PROGRAMS = [of_densities, of_single_images, with_rows_kept, scaled, used_elsewhere]
HUGE = [of_no_element, partial(of_densities, scale=1e7), partial(of_densities, scale=1e300)]


def both(f, p):
    return f(p), *jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))


@pytest.mark.parametrize("program", [*PROGRAMS, *HUGE])
def test_values_and_derivatives_are_the_same(program):
    p = jnp.asarray(0.3)
    found = jax.jit(integrate(lambda p: both(expectation(program), p)))(p)
    assert_allclose(found, jax.jit(partial(both, integrate(program)))(p), rtol=EXACT)


@pytest.mark.parametrize("program", [of_densities, with_rows_kept])
def test_side_by_side(program):
    """Under `vmap` both ways are computed, and one is taken for each element."""
    slope = jax.value_and_grad(expectation(program))
    ps = jnp.array([0.3, 0.6])
    found = jax.vmap(integrate(slope))(ps)
    assert_allclose(np.stack(found), np.stack([integrate(slope)(p) for p in ps], 1), rtol=EXACT)


def slope_of(program):
    return jax.jit(seed(jax.value_and_grad(expectation(program))))


def test_what_cannot_be():
    """A pixel that is neither 0 nor 1, and log odds of infinity: the density is minus infinity in
    these rows, or it is that of the other pixels."""
    odd = X.copy()
    odd[1, 2] = 2
    value, _ = slope_of(lambda p: of_densities(p, odd))(jax.random.key(0), 0.3)
    assert value == -np.inf

    sure = np.zeros(6)
    sure[2] = np.inf

    def mean(x):
        return slope_of(lambda p: of_densities(p, x, shift=sure))(jax.random.key(0), 0.3)

    ones, zero = X.copy(), X.copy()
    ones[:, 2] = 1
    zero[:, 2] = [1, 0, 1]
    rest = np.delete(np.arange(6), 2)
    right = integrate(jax.value_and_grad(lambda p: _of_pixels(p, rest)))(0.3)
    assert_allclose(mean(ones), right, rtol=EXACT)
    assert mean(zero)[0] == -np.inf


def _of_pixels(p, which):
    def program(p):
        logits = logits_of(p, choices(p))[:, which]
        return jnp.mean(dist.Bernoulli(logits=logits).to_event(1).log_prob(X[:, which]))

    return expectation(program)(p)


def sizes(jaxpr):
    """The sizes of all arrays, but for those of what is computed where a number is huge."""
    for eqn in jaxpr.eqns:
        yield from (var.aval.size for var in eqn.outvars)
        for value in eqn.params.values():
            inner = value if isinstance(value, (tuple, list)) else (value,)
            if eqn.primitive.name == "cond":
                inner = inner[1:]
            for each in inner:
                each = getattr(each, "jaxpr", each)
                if hasattr(each, "eqns"):
                    yield from sizes(each)


def test_no_array_is_of_all_outcomes_and_all_data():
    """Of 40 rows of 60 pixels, and of 4 outcomes of each row: in the gradient an array may be as
    large as the data, and there are none 4 times as large."""
    rows, pixels = 40, 60
    x, last = random.random((rows, pixels)) < 0.5, random.normal(size=(5, pixels))

    def program(p):
        z = [draw(dist.Bernoulli(p * jnp.ones(rows)), enumerate_()) for _ in range(2)]
        logits = jnp.tanh(jnp.stack(z, -1) * p @ FIRST) @ last
        return jnp.mean(log_density(dist.Bernoulli(logits=logits).to_event(1), x.astype(int)))

    slope = jax.make_jaxpr(seed(jax.grad(expectation(program))))(jax.random.key(0), 0.3)
    assert rows * pixels <= max(sizes(slope.jaxpr)) < 4 * rows * pixels
