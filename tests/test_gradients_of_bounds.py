"""Gradients that are not those of the strategies: as exact, with less variance, where they fit."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import elbo, iwelbo
from inference.vi.vimco import vimco
from ppl import Target, expectation, gen, integrate, reinforce, sample, seed
from ppl.errors import AddressNotFound, GradientThroughDraw
from tests.two_coins import model_of

EXACT = 1e-11


def moments(objective, p, how):
    """The mean of a gradient, and its variance: exactly."""
    slope = jax.grad(expectation(objective, how))

    def both(p):
        one = slope(p)
        return one, one**2

    first, second = jax.jit(integrate(both))(p)
    return first, second - first**2


@gen
def coin(p):
    sample("a", dist.Bernoulli(p))


COIN = Target(model_of, (0.3,), {"y": 1})


def test_vimco_has_the_gradient_of_the_bound_with_less_variance():
    """Of three particles: a tenth of the variance of the plain score function."""
    p = jnp.asarray(0.4)
    w = jnp.array([0.07, 0.15])
    every = np.stack(np.meshgrid(*[[0, 1]] * 3), -1).reshape(-1, 3)

    def mean(p):
        q = jnp.stack([1 - p, p])
        return jnp.sum(jnp.prod(q[every], 1) * jnp.log(jnp.mean((w / q)[every], 1)))

    found, variance = moments(vimco(COIN, coin, 3), p, {})
    plain, most = moments(iwelbo(COIN, coin, 3), p, {"a": reinforce()})
    assert_allclose((found, plain), (jax.grad(mean)(p),) * 2, rtol=EXACT)
    assert variance < most / 10


@gen
def normal(s):
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(s * z, 0.5))


def on(s):
    return Target(normal, (s,), {"y": 0.7})


@gen
def mean_field(m):
    sample("z", dist.Normal(m, 0.8))


@gen
def free(theta):
    sample("z", dist.Normal(theta[0], jnp.exp(theta[1])))


def test_landing_has_the_gradient_of_the_bound():
    """The bound of two normals in closed form; the integrand is quadratic, so 8 nodes are exact."""

    def mean(theta):
        m, v = theta[0], jnp.exp(2 * theta[1])
        likelihood = -((0.7 - 0.9 * m) ** 2 + 0.81 * v) / 0.5 - jnp.log(0.5 * jnp.sqrt(2 * jnp.pi))
        return likelihood - (m**2 + v) / 2 + theta[1] + 0.5

    theta = jnp.array([0.3, -0.2])
    estimate = expectation(elbo(on(0.9), free, landing=True))
    found = jax.jit(integrate(jax.value_and_grad(estimate), nodes=8))(theta)
    right = jax.value_and_grad(mean)(theta)
    assert_allclose(found[0], right[0], rtol=1e-12)
    assert_allclose(found[1], right[1], rtol=1e-12)


def test_landing_has_no_variance_at_the_posterior():
    """The gradient is zero draw by draw, where that of the plain bound is not."""
    precision = 1 + 0.81 / 0.25
    theta = jnp.array([0.9 * 0.7 / 0.25 / precision, -np.log(precision) / 2])
    keys = jax.random.split(jax.random.key(0), 20)

    def gradients(objective):
        slope = seed(jax.grad(expectation(objective)))
        return jax.jit(jax.vmap(lambda key: slope(key, theta)))(keys)

    assert np.abs(gradients(elbo(on(0.9), free, landing=True))).max() < 1e-13
    assert np.abs(gradients(elbo(on(0.9), free))).max() > 1


@gen
def walk():
    def step(z, _):
        z = sample("z", dist.Normal(0.6 * z, 0.7))
        sample("y", dist.Normal(z, 0.5))
        return z, None

    jax.lax.scan(step, 0.0, None, length=2)


@gen
def walking(theta):
    def step(z, _):
        return sample("z", dist.Normal(theta[0] + theta[1] * z, 0.8)), None

    jax.lax.scan(step, 0.1, None, length=2)


def test_landing_goes_through_loops():
    """Both gradients are of polynomials of degree 2 in normals, so that 4 nodes are exact."""
    target, theta = Target(walk, (), {"y": jnp.array([0.4, -0.2])}), jnp.array([0.3, -0.4])
    landing = expectation(elbo(target, walking, landing=True))
    found = jax.jit(integrate(jax.value_and_grad(landing), nodes=4))(theta)
    right = jax.jit(jax.value_and_grad(integrate(elbo(target, walking), nodes=4)))(theta)
    assert_allclose(found[0], right[0], rtol=1e-12)
    assert_allclose(found[1], right[1], rtol=1e-11)


@gen
def switches():
    def step(z, _):
        z = sample("z", dist.Bernoulli(0.3 + 0.4 * z))
        sample("y", dist.Bernoulli(0.2 + 0.5 * z))
        return z, None

    jax.lax.scan(step, 0, None, length=2)


@gen
def switching(p):
    def step(z, _):
        return sample("z", dist.Bernoulli(jnp.where(z == 1, p, p**2))), None

    jax.lax.scan(step, 0, None, length=2)


def test_vimco_goes_through_loops():
    target, p = Target(switches, (), {"y": jnp.array([1, 0])}), jnp.asarray(0.4)
    found = jax.jit(integrate(jax.value_and_grad(expectation(vimco(target, switching, 2)))))(p)
    right = jax.jit(jax.value_and_grad(integrate(iwelbo(target, switching, 2))))(p)
    assert_allclose(found, right, rtol=EXACT)


def jumping():
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(jnp.where(z > 0, 1.0, -1.0), 0.5))


def test_what_moves_takes_no_other_strategy_and_crosses_no_jump():
    key, landing = jax.random.key(0), elbo(on(0.9), mean_field, landing=True)
    with pytest.raises(AddressNotFound):
        seed(expectation(landing, {"z": reinforce()}))(key, 0.3)
    across = elbo(Target(gen(jumping), (), {"y": 0.7}), mean_field, landing=True)
    with pytest.raises(GradientThroughDraw, match="a jump"):
        jax.grad(lambda m: seed(expectation(across))(key, m))(0.3)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("doubly", [False, True])
def test_reparameterised_gradients_have_the_same_mean(doubly, shared):
    """By quadrature: the error is at most ten times what the number of nodes changes."""
    m = jnp.asarray(0.3)
    target = (lambda m: on(0.6 + m)) if shared else on(0.9)  # the model may have the parameter, too
    objective = iwelbo(target, mean_field, 2)
    estimate = expectation(iwelbo(target, mean_field, 2, doubly=doubly))

    def both(nodes):
        plain = jax.value_and_grad(integrate(objective, nodes=nodes))
        mean = integrate(lambda m: jax.value_and_grad(estimate)(m), nodes=nodes)
        return np.asarray(jax.jit(plain)(m)), np.asarray(jax.jit(mean)(m))

    (coarse, coarse_mean), (plain, mean) = both(48), both(64)
    changed = abs(plain - coarse) + abs(mean - coarse_mean)
    assert np.all(changed < 1e-4)
    assert np.all(abs(mean - plain) <= 10 * changed)


def test_a_models_parameters_are_learned_beside_the_guides():
    """d/ds of the bound is E[d/ds log p(z, y; s)], whose moments are known."""
    objective = elbo(lambda s, m: on(s), gen(lambda s, m: sample("z", dist.Normal(m, 0.8))))
    slope = jax.jit(integrate(jax.grad(expectation(objective)), nodes=8))(0.9, 0.3)
    right = (0.7 * 0.3 - 0.9 * (0.3**2 + 0.8**2)) / 0.25
    assert_allclose(slope, right, rtol=1e-12)
