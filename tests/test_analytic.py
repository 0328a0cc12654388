"""Divergences in closed form: by quadrature, and in bounds whose latents depend on one another."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad

from inference import elbo
from inference.vi.analytic import closed_forms
from ppl import Target, enumerate_, expectation, gen, integrate, sample, seed
from ppl.errors import InvalidArgument

KEY = jax.random.key(0)


def divergence(q, p):
    """KL(q || p) as the library has it: minus the bound of a target without observations."""
    model = gen(lambda: sample("x", p))
    guide = gen(lambda: sample("x", q))
    return -seed(elbo(Target(model), guide, analytic=True))(KEY)


PAIRS = {
    "normal": (dist.Normal(0.3, 0.8), dist.Normal(-1.0, 1.7), (-9, 9)),
    "log normal": (dist.LogNormal(0.3, 0.4), dist.LogNormal(0.1, 0.7), (0, 40)),
    "half normal": (dist.HalfNormal(0.8), dist.HalfNormal(1.3), (0, 12)),
    "laplace": (dist.Laplace(0.3, 0.8), dist.Laplace(-1.0, 1.7), (-30, 30)),
    "gamma": (dist.Gamma(2.5, 1.5), dist.Gamma(1.2, 0.7), (0, 60)),
    "exponential": (dist.Gamma(2.5, 1.5), dist.Exponential(0.7), (0, 60)),
    "inverse gamma": (dist.InverseGamma(6.0, 1.5), dist.InverseGamma(3.0, 0.7), (1e-3, 200)),
    "beta": (dist.Beta(2.5, 1.5), dist.Beta(1.2, 3.0), (0, 1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_divergences_of_densities(name):
    """By adaptive quadrature, to its own 1e-10; tails that are cut off weigh less."""
    q, p, (low, high) = PAIRS[name]
    log_q, log_p = jax.jit(q.log_prob), jax.jit(p.log_prob)

    def integrand(x):
        log = float(log_q(x))
        return np.exp(log) * (log - float(log_p(x)))

    points = [low + (high - low) * t for t in (0.01, 0.05, 0.2)] + ([0.3, -1.0] if low < 0 else [])
    right, error = quad(integrand, low, high, epsabs=1e-10, epsrel=1e-10, limit=200, points=points)
    assert error < 1e-9
    assert_allclose(divergence(q, p), right, atol=1e-8)


def test_divergences_of_masses():
    """Sums by hand, with an outcome that the guide never has."""
    q, p = np.array([0.5, 0.2, 0.3, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])
    found = divergence(dist.Categorical(probs=q), dist.Categorical(logits=jnp.log(p)))
    assert_allclose(found, 0.5 * np.log(5), rtol=1e-12)
    found = divergence(dist.Bernoulli(logits=np.log(3.0)), dist.Bernoulli(0.5))
    assert_allclose(found, 0.75 * np.log(1.5) + 0.25 * np.log(0.5), rtol=1e-12)
    counts = np.arange(60)
    q, p = dist.Poisson(2.5), dist.Poisson(4.0)
    log_q, log_p = np.asarray(q.log_prob(counts)), np.asarray(p.log_prob(counts))
    assert_allclose(divergence(q, p), np.sum(np.exp(log_q) * (log_q - log_p)), rtol=1e-12)


def test_divergences_of_vectors():
    """Of normal vectors by the determinant and the inverse; of two parts a Dirichlet is a beta."""
    root, loc = np.array([[0.8, 0.0], [0.3, 0.5]]), np.array([0.3, -0.2])
    middle, scale = np.array([0.1, 0.4]), np.array([1.2, 0.7])
    cov = root @ root.T
    right = 0.5 * (
        np.sum(np.diag(cov) / scale**2)
        + np.sum((loc - middle) ** 2 / scale**2)
        - 2
        + 2 * np.sum(np.log(scale))
        - np.log(np.linalg.det(cov))
    )
    joint = dist.MultivariateNormal(loc, scale_tril=root)
    apart = dist.Normal(middle, scale)
    assert_allclose(divergence(joint, apart), right, rtol=1e-12)
    assert_allclose(divergence(joint, apart.to_event(1)), right, rtol=1e-12)
    other = dist.MultivariateNormal(middle, scale_tril=jnp.diag(scale))
    assert_allclose(divergence(joint, other), right, rtol=1e-12)
    two = divergence(dist.Dirichlet(jnp.array([2.5, 1.5])), dist.Dirichlet(jnp.array([1.2, 3.0])))
    assert_allclose(two, divergence(dist.Beta(2.5, 1.5), dist.Beta(1.2, 3.0)), rtol=1e-12)


def means(target, guide, theta, nodes=6):
    """The bound's mean, the analytic one's, and the mean of the gradient of each estimate.

    All is polynomial of degree 2 in normals, so that 6 nodes are exact.
    """
    plain, closed = elbo(target, guide), elbo(target, guide, analytic=True)
    right = jax.value_and_grad(integrate(plain, nodes=nodes))
    found = integrate(jax.value_and_grad(expectation(closed)), nodes=nodes)
    return jax.jit(found)(theta), jax.jit(right)(theta)


def names(target, guide, theta):
    return [path[0] for path in closed_forms(target, guide, (theta,))]


@gen
def chain():
    x = sample("x", dist.Normal(0.0, 1.0))
    y = sample("y", dist.Normal(0.5 * x, 0.7))
    sample("seen", dist.Normal(x - y, 0.5))


CHAIN = Target(chain, (), {"seen": 0.4})


@gen
def along(theta):
    x = sample("x", dist.Normal(theta[0], 0.8))
    sample("y", dist.Normal(theta[1] * x + 0.2, jnp.exp(theta[2])))


@gen
def against(theta):
    y = sample("y", dist.Normal(theta[0], 0.8))
    sample("x", dist.Normal(theta[1] * y + 0.2, jnp.exp(theta[2])))


THETA = jnp.array([0.3, -0.4, -0.2])


@pytest.mark.parametrize("guide, closed", [(along, ["x", "y"]), (against, ["x"])])
def test_of_latents_that_depend_on_one_another(guide, closed):
    """A guide that makes the child first leaves the child's term as it is: its mean is another."""
    assert names(CHAIN, guide, THETA) == closed
    found, right = means(CHAIN, guide, THETA)
    assert_allclose(found[0], right[0], rtol=1e-12)
    assert_allclose(found[1], right[1], rtol=1e-11)


N = 3


@gen
def series():
    def step(z, _):
        z = sample("z", dist.Normal(0.6 * z, 0.7))
        sample("y", dist.Normal(z, 0.5))
        return z, None

    jax.lax.scan(step, 0.0, None, length=N)


@gen
def at_once(theta):
    sample("z", dist.Normal(theta[0] * jnp.arange(1.0, N + 1), jnp.exp(theta[2])))


def stepwise(reverse):
    @gen
    def guide(theta):
        def step(z, t):
            z = sample("z", dist.Normal(theta[0] + theta[1] * z, jnp.exp(theta[2])))
            return z, None

        jax.lax.scan(step, 0.1, jnp.arange(N), reverse=reverse)

    return guide


@gen
def plate():
    def each(scale):
        z = sample("z", dist.Normal(0.0, scale))
        sample("y", dist.Normal(z, 0.5))

    jax.vmap(each)(jnp.array([1.0, 0.7, 1.3]))


YS = {"y": jnp.array([0.4, -0.2, 0.9])}
SERIES, PLATE = Target(series, (), YS), Target(plate, (), YS)


@pytest.mark.parametrize(
    "target, guide",
    [(SERIES, at_once), (SERIES, stepwise(False)), (PLATE, at_once), (PLATE, stepwise(True))],
    ids=["series, at once", "series, stepwise", "plate, at once", "plate, backwards"],
)
def test_of_latents_in_loops(target, guide):
    """What is one array in the guide may be a loop in the model."""
    found, right = means(target, guide, THETA, nodes=4)
    assert_allclose(found[0], right[0], rtol=1e-12)
    assert_allclose(found[1], right[1], rtol=1e-11)


def test_without_observations_every_draw_is_the_mean():
    free = gen(lambda: jax.vmap(lambda s: sample("z", dist.Normal(0.0, s)))(jnp.ones(N)))
    objective = elbo(Target(free), at_once, analytic=True)
    values = jax.vmap(lambda key: seed(objective)(key, THETA))(jax.random.split(KEY, 5))
    scale, locs = np.exp(-0.2), 0.3 * np.arange(1, N + 1)
    right = -np.sum((scale**2 + locs**2 - 1) / 2 - np.log(scale))
    assert_allclose(values, right, rtol=1e-12)


@gen
def counted():
    k = sample("k", dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5])))
    size = sample("size", dist.Cauchy(0.0, 1.0))
    z = sample("z", dist.Normal(k + 0.0 * size, 1.0))
    sample("y", dist.Normal(z, 0.5))


@gen
def counting(theta):
    k = sample("k", dist.Categorical(logits=theta))
    sample("size", dist.Normal(0.0, 0.5))
    sample("z", dist.Normal(theta[0] + k, 0.6))


def test_a_latent_without_a_closed_form_keeps_its_difference():
    """By Gauss quadrature, whose error in the Cauchy term is the same on both sides."""
    target = Target(counted, (), {"y": 1.1})
    assert names(target, counting, THETA) == ["k", "z"]
    plain, closed = elbo(target, counting), elbo(target, counting, analytic=True)
    right = jax.value_and_grad(integrate(plain, nodes=6))
    found = integrate(jax.value_and_grad(expectation(closed, {"k": enumerate_()})), nodes=6)
    (a, b), (c, d) = jax.jit(found)(THETA), jax.jit(right)(THETA)
    assert_allclose(a, c, rtol=1e-12)
    assert_allclose(b, d, rtol=1e-11)


def test_no_closed_form_at_all():
    heavy = gen(lambda: sample("x", dist.Cauchy(0.0, 1.0)))
    guide = gen(lambda: sample("x", dist.Normal(0.0, 1.0)))
    with pytest.raises(InvalidArgument, match='"x": Normal and Cauchy'):
        seed(elbo(Target(heavy), guide, analytic=True))(KEY)
    backwards = Target(series, (), YS)
    with pytest.raises(InvalidArgument, match="another order"):
        seed(elbo(backwards, stepwise(True), analytic=True))(KEY, THETA)
