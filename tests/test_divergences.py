"""Bounds of several divergences: their order, what is best for each, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import elbo, iwelbo
from inference.vi.auxiliary import diwhvi, hvi, iwhvi
from inference.vi.divergences import forward_kl, symmetric_kl
from inference.vi.f_divergence import f_divergence
from inference.vi.renyi import renyi
from ppl import Target, expectation, gen, integrate, sample


@gen
def coin():
    fair = sample("fair", dist.Bernoulli(0.5))
    sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))


@gen
def guess(p):
    sample("fair", dist.Bernoulli(p))


TARGET = Target(coin, (), {"heads": 1})
EVIDENCE, RIGHT = 0.625, 0.4
posterior = gen(lambda p: sample("fair", dist.Bernoulli(RIGHT)))


def value(objective, *args):
    return float(jax.jit(integrate(objective))(*args))


def test_the_order_of_renyi_bounds():
    """The larger the order, the lower; at 0 it is the bound of several weights, at 1 the plain."""
    orders = [value(renyi(TARGET, guess, alpha, 3), 0.6) for alpha in (0.0, 0.5, 1.0, 2.0)]
    assert np.all(np.diff(orders) < 0) and orders[0] < np.log(EVIDENCE)
    assert_allclose(orders[0], value(iwelbo(TARGET, guess, 3), 0.6), rtol=1e-12)
    assert_allclose(orders[2], value(elbo(TARGET, guess), 0.6), rtol=1e-12)
    near = value(renyi(TARGET, guess, 1 - 1e-6, 3), 0.6)
    assert_allclose(near, orders[2], atol=1e-6)  # its slope in the order is less than one here


@pytest.mark.parametrize(
    "f, best",
    [
        ("kl", np.log(EVIDENCE)),
        ("forward_kl", -EVIDENCE * np.log(EVIDENCE)),
        ("chi_square", -(EVIDENCE**2)),
        ("hellinger", 2 * np.sqrt(EVIDENCE)),
        (lambda r: jnp.exp(3 * r) / 6, -(EVIDENCE**3) / 6),
    ],
)
def test_every_bound_is_reached_at_the_posterior_alone(f, best):
    values = [value(f_divergence(TARGET, guess, f), p) for p in (0.2, 0.4, 0.6)]
    assert_allclose(values[1], best, rtol=1e-12)
    assert values[0] < best and values[2] < best


def test_a_chi_square_is_an_upper_bound_of_the_log_evidence():
    bounds = [np.log(-value(f_divergence(TARGET, guess, "chi_square"), p)) / 2 for p in (0.2, 0.6)]
    assert min(bounds) > np.log(EVIDENCE)


def test_the_forward_divergence_is_what_many_draws_tend_to():
    """At the posterior there is none, whatever is drawn; elsewhere the error falls with the draws.

    The bias of a ratio of two means of n draws is of order 1/n: from 2 draws to 8, a quarter, and
    what is left is at most a half.
    """
    exact = value(forward_kl(TARGET, guess, posterior), 0.6)
    divergence = RIGHT * np.log(RIGHT / 0.6) + (1 - RIGHT) * np.log((1 - RIGHT) / 0.4)
    assert_allclose(exact, -divergence, rtol=1e-12)
    two, eight = (value(forward_kl(TARGET, guess, n), 0.6) for n in (2, 8))
    assert exact < eight < two < 0
    assert eight - exact < (two - exact) / 2
    assert_allclose(value(forward_kl(TARGET, guess, 2), RIGHT), 0.0, atol=1e-14)
    assert_allclose(value(symmetric_kl(TARGET, guess, 2), RIGHT), 0.0, atol=1e-14)


def test_the_two_directions_add_up():
    backward = 0.6 * np.log(0.6 / RIGHT) + 0.4 * np.log(0.4 / (1 - RIGHT))
    forward = value(forward_kl(TARGET, guess, posterior), 0.6)
    assert_allclose(value(symmetric_kl(TARGET, guess, posterior), 0.6), forward - backward)


def test_what_is_impossible_weighs_nothing():
    """A guide that makes values of density zero: they have no share, and no slope that is NaN."""
    only = gen(lambda: sample("k", dist.Categorical(probs=jnp.array([0.5, 0.5, 0.0]))))
    target = Target(only)
    wider = gen(lambda logits: sample("k", dist.Categorical(logits=logits)))
    logits = jnp.array([0.1, -0.2, 0.3])
    q = jax.nn.softmax(logits)
    slope = jax.jit(integrate(jax.grad(expectation(forward_kl(target, wider, 2)))))(logits)
    jacobian = np.eye(3) - np.asarray(q)  # of log q
    w = np.array([0.5, 0.5, 0.0]) / q
    right = 0.0
    for i in range(3):
        for j in range(3):
            if w[i] + w[j]:
                share = w[i] / (w[i] + w[j])
                right += q[i] * q[j] * (share * jacobian[i] + (1 - share) * jacobian[j])
            else:  # both impossible: no weight says which, so none counts
                continue
    assert_allclose(slope, right, rtol=1e-12)


@gen
def mixed():
    u = sample("u", dist.Bernoulli(0.3))
    sample("fair", dist.Bernoulli(0.25 + 0.4 * u))


reverse = gen(lambda x: sample("u", dist.Bernoulli(0.5)))


def test_more_reverse_draws_and_more_weights_are_tighter():
    """HVI below IWHVI of two, of four, the exact bound; each below that of two weights."""
    q = np.array([0.7 * 0.75 + 0.3 * 0.35, 0.7 * 0.25 + 0.3 * 0.65])
    exact = np.sum(q * np.log(np.array([0.375, 0.25]) / q))
    one = value(hvi(TARGET, mixed, reverse))
    two, four = (value(iwhvi(TARGET, mixed, reverse, n)) for n in (2, 4))
    assert one < two < four < exact < np.log(EVIDENCE)
    assert one < value(diwhvi(TARGET, mixed, reverse, 1, 2)) < np.log(EVIDENCE)
    of_u = np.array([0.105, 0.195]) / q
    own = gen(lambda x: sample("u", dist.Bernoulli(jnp.asarray(of_u)[x["fair"]])))
    assert_allclose(value(hvi(TARGET, mixed, own)), exact, rtol=1e-12)


@gen
def cloud():
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(z, 0.5))


@gen
def layered(theta):
    u = sample("u", dist.Normal(0.0, 1.0))
    sample("z", dist.Normal(theta[0] + theta[1] * u, 0.6))


@gen
def unlayered(x, theta):
    sample("u", dist.Normal(theta[2] * (x["z"] - theta[0]), 0.8))


def test_a_hierarchical_guide_of_normals():
    """HVI in closed form, and its gradients: of quadratics, so that 6 nodes are exact."""
    target = Target(cloud, (), {"y": 0.7})

    def mean(theta):
        a, b, c = theta
        v = b**2 + 0.36
        normaliser = jnp.log(2 * jnp.pi)
        prior = -(a**2 + v) / 2 - normaliser / 2
        likelihood = -((0.7 - a) ** 2 + v) / 0.5 - normaliser / 2 - jnp.log(0.5)
        back = -(1 - 2 * c * b + c**2 * v) / 1.28 - normaliser / 2 - jnp.log(0.8)
        made = -1 - normaliser - jnp.log(0.6)
        return prior + likelihood + back - made

    theta = jnp.array([0.3, 0.5, 0.4])
    estimate = expectation(hvi(target, layered, unlayered))
    found = jax.jit(integrate(jax.value_and_grad(estimate), nodes=6))(theta)
    right = jax.value_and_grad(mean)(theta)
    assert_allclose(found[0], right[0], rtol=1e-12)
    assert_allclose(found[1], right[1], rtol=1e-11)
