"""Values that move with their parameters, and differences of laws, of continuous choices.

Derivatives of means are compared with those of a fine sum over the density. The mean of an
estimate is taken by quadrature with two numbers of nodes, which differ by less than 1e-4, and
the error is at most ten times the difference, and 1e-6 for the rounding of both rules; or over n
independent estimates, at seven
standard errors (a false alarm of 3e-12 each).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from ppl import draw, expectation, integrate, measure_valued, reparam, seed
from ppl.estimators.implicit import integrated_velocity

MOVING = {
    "Gamma": lambda a: dist.Gamma(a, 1.5 * a),
    "Beta": lambda a: dist.Beta(a, 2.0 * a),
    "StudentT": lambda a: dist.StudentT(a + 4, 0.3 * a, a),
    "Chi2": lambda a: dist.Chi2(3 * a),
    "Kumaraswamy": lambda a: dist.Kumaraswamy(a, 2.0),
    "TruncatedNormal": lambda a: dist.TruncatedNormal(a, 1.0, low=0.0),
    "mixture": lambda a: dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.stack([a / 4, 1 - a / 4])),
        dist.Normal(jnp.stack([a, -a]), jnp.stack([a, 1.0 + 0 * a])),
    ),
    "VonMises": lambda a: dist.VonMises(0.2 * a, a),
    "LogNormal": lambda a: dist.LogNormal(a / 5, 0.5),
    "SoftLaplace": lambda a: dist.SoftLaplace(a, 0.5 * a),
}
QUICK = {"Gamma", "mixture"}
VALUED = {
    "Normal": lambda a: dist.Normal(a, 0.5 * a),
    "Exponential": dist.Exponential,
    "Gamma": lambda a: dist.Gamma(a, 1.5 * a),
    "Beta": lambda a: dist.Beta(a, 2.0 * a),
}


def some(names, quick):
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


def smooth(x):
    return jnp.tanh(x / 2) + 0.3 * jnp.exp(-(x**2) / 4)


def periodic(x):
    return jnp.sin(x) + 0.3 * jnp.cos(2 * x)


def derivatives(f, a):
    return jax.jvp(jax.grad(f), (a,), (jnp.ones(()),))


def right(program):
    """Of the mean, by a sum whose places stay where they are; and what a wider one changes."""

    def by(nodes, bounds):
        mean = integrate(program, nodes=nodes, rule="trapezoid", bounds=bounds)
        return np.asarray(jax.jit(partial(derivatives, mean))(jnp.asarray(1.7)))

    wide = by(1600, (-28.0, 28.0))
    return wide, abs(wide - by(800, (-14.0, 14.0)))


@pytest.mark.parametrize("name", some(MOVING, QUICK))
def test_a_value_moves_with_its_parameters(name):
    """First and second derivatives."""
    what = periodic if name == "VonMises" else smooth
    estimate = expectation(lambda a: what(draw(MOVING[name](a), reparam())))

    def mean(nodes):
        run = integrate(partial(derivatives, estimate), nodes=nodes)
        return np.asarray(jax.jit(run)(jnp.asarray(1.7)))

    coarse, fine = mean(160), mean(200)
    assert np.all(abs(fine - coarse) < 1e-4)
    wanted, uncertain = right(lambda a: what(draw(MOVING[name](a))))
    assert np.all(abs(fine - wanted) <= 10 * (abs(fine - coarse) + uncertain) + 1e-6)


@pytest.mark.parametrize("name", some(VALUED, {"Normal"}))
def test_differences_of_laws(name):
    """First and second derivatives, the mean of 200,000."""
    estimate = expectation(lambda a: smooth(draw(VALUED[name](a), measure_valued())))

    def one(key):
        return derivatives(lambda a: seed(estimate)(key, a), jnp.asarray(1.7))

    found = jnp.stack(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 200_000)))
    wanted, _ = right(lambda a: smooth(draw(VALUED[name](a))))
    error = 7 * np.std(found, 1) / np.sqrt(found.shape[1])
    assert np.all(abs(np.mean(found, 1) - wanted) < error)
    assert error[0] < 0.02


def test_a_difference_of_laws_sees_a_jump():
    """P(x > 1) for x ~ N(a, 1): its derivative is the normal density at a - 1, here 0.7."""
    estimate = expectation(lambda a: 1.0 * (draw(dist.Normal(a, 1.0), measure_valued()) > 1))
    keys = jax.random.split(jax.random.key(0), 200_000)
    found = jax.jit(jax.vmap(jax.grad(lambda a, key: seed(estimate)(key, a)), (None, 0)))(1.7, keys)
    right = np.exp(-(0.7**2) / 2) / np.sqrt(2 * np.pi)
    assert abs(np.mean(found) - right) < 7 * np.std(found) / np.sqrt(len(keys))


def test_a_count_has_a_difference_of_laws():
    """E[x^2] = r + r^2, so its derivative is 1 + 2r: 400,000 draws at seven standard errors."""
    f = expectation(lambda r: 1.0 * draw(dist.Poisson(r), measure_valued()) ** 2)
    keys = jax.random.split(jax.random.key(0), 400_000)
    slopes = jax.jit(jax.vmap(jax.grad(lambda r, key: seed(f)(key, r)), (None, 0)))(1.5, keys)
    error = 7 * np.std(slopes) / np.sqrt(len(keys))
    assert abs(np.mean(slopes) - 4.0) < error


def test_the_velocity_of_a_gamma_variable():
    """JAX's own is accurate to some 1e-9 (it is a rational approximation in part)."""
    a = jnp.array([0.3, 1.0, 2.5, 10.0, 80.0, 500.0])
    for z in (-2.0, -0.5, 0.5, 2.0):
        x = jnp.maximum(a + z * jnp.sqrt(a), a / 10)
        assert_allclose(integrated_velocity(a, x), jax.lax.random_gamma_grad(a, x), rtol=1e-8)


def test_vectors_move():
    """E[x x'] of a normal vector, and the mean of a Dirichlet one, in closed form."""

    def moment(s):
        factor = jnp.array([[1.0, 0.0], [0.5, 2.0]]) * s
        x = draw(dist.MultivariateNormal(jnp.array([s, 0.0]), scale_tril=factor))
        return x[0] * x[1]

    # 0.5 s^2 + 0: its derivative is s
    assert_allclose(integrate(jax.grad(expectation(moment)), nodes=8)(0.7), 0.7, rtol=1e-12)

    def share(a):
        return draw(dist.Dirichlet(jnp.stack([a, 2.0, 3.0])))[0]

    keys = jax.random.split(jax.random.key(1), 100_000)
    run = seed(expectation(share))
    slopes = jax.jit(jax.vmap(jax.grad(lambda a, key: run(key, a)), (None, 0)))(1.5, keys)
    right = 5 / 6.5**2  # of a / (a + 5), at seven standard errors
    assert abs(np.mean(slopes) - right) < 7 * np.std(slopes) / np.sqrt(len(keys))
