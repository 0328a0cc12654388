"""A choice that moves stays on its support: comparisons that the support decides are no jump.

Nor are the pieces of which densities are written. Where a guide may leave the target's support the
comparison is one, and is refused.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import elbo, iwelbo
from ppl import Target, draw, expectation, gen, integrate, sample, seed
from ppl.errors import GradientThroughDraw

PRIOR = Target(gen(lambda: sample("x", dist.Gamma(2.0, 1.0))))
GUIDE = gen(lambda t: sample("x", dist.LogNormal(t, 0.5)))


@pytest.mark.parametrize(
    "objective",
    [elbo(PRIOR, GUIDE), elbo(PRIOR, GUIDE, landing=True), iwelbo(PRIOR, GUIDE, 1, doubly=True)],
)
def test_a_log_normal_guide_of_a_gamma(objective):
    """E[log x - x - log q(x)] is t - exp(t + 1/8) + t and a constant; of 20 nodes."""
    slope = jax.jit(integrate(jax.grad(expectation(objective)), nodes=20))(0.3)
    assert_allclose(slope, 2 - jnp.exp(0.425), rtol=1e-12)


def squashed(loc):
    return dist.TransformedDistribution(
        dist.Normal(loc, 1.0), dist.biject_to(dist.constraints.interval(0.0, 2.0))
    )


PAIRS = {
    "gamma": (lambda: dist.Gamma(2.0, 1.0), lambda t: dist.Gamma(t, 1.5)),
    "beta": (lambda: dist.Beta(2.0, 1.0), lambda t: dist.Beta(t, 1.5)),
    "uniform": (lambda: dist.Uniform(0.0, 1.0), lambda t: dist.Beta(t, 1.5)),
    "half": (lambda: dist.HalfNormal(1.0), lambda t: dist.LogNormal(t, 0.5)),
    "exponential": (lambda: dist.Exponential(1.0), lambda t: dist.Gamma(t, 1.5)),
    "simplex": (lambda: dist.Dirichlet(jnp.ones(3)), lambda t: dist.Dirichlet(t * jnp.ones(3))),
    "circle": (lambda: dist.VonMises(0.0, 1.0), lambda t: dist.VonMises(t, 2.0)),
    "truncated": (
        lambda: dist.TruncatedNormal(0.0, 1.0, low=0.0),
        lambda t: dist.TruncatedNormal(t, 2.0, low=0.0),
    ),
    "inverse": (lambda: dist.InverseGamma(2.0, 1.0), lambda t: dist.InverseGamma(t, 2.0)),
    "interval": (lambda: dist.Uniform(0.0, 2.0), squashed),
    "power": (lambda: dist.Kumaraswamy(2.0, 1.0), lambda t: dist.Kumaraswamy(t, 2.0)),
    "heavy": (lambda: dist.StudentT(3.0, 0.0, 1.0), lambda t: dist.StudentT(4.0, t, 1.0)),
    "above": (lambda: dist.Pareto(1.0, 2.0), lambda t: dist.Pareto(1.0, t)),
}
LIKELIHOODS = {
    "counts": lambda r: dist.Poisson(r),
    "spread counts": lambda r: dist.NegativeBinomial2(r, 1.0),
    "mixed counts": lambda r: dist.GammaPoisson(r, 1.0),
    "shares": lambda r: dist.BetaBinomial(r, 1.0, 10),
    "tosses": lambda r: dist.BinomialLogits(r, 20),
    "times": lambda r: dist.Gamma(r, 1.0),
    "rate": lambda r: dist.Exponential(r),
    "scale": lambda r: dist.Normal(0.0, r),
}


def accepted(model, guide, observations):
    """A derivative of the bound is taken, in both precisions."""
    for x64 in (True, False):
        with jax.enable_x64(x64):
            bound = expectation(elbo(Target(gen(model), (), observations), gen(guide)))
            slope = seed(jax.grad(bound))(jax.random.key(0), 1.3)
            assert slope != 0 and slope == slope


@pytest.mark.parametrize("name", PAIRS)
def test_no_pair_of_one_support_is_a_jump(name):
    prior, law = PAIRS[name]
    accepted(lambda: sample("x", prior()), lambda t: sample("x", law(t)), {})


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_no_likelihood_of_a_positive_number_is_a_jump(name):
    def model():
        sample("y", LIKELIHOODS[name](sample("x", dist.HalfNormal(1.0))))

    y = 3 if LIKELIHOODS[name](1.0).support.is_discrete else 0.5
    accepted(model, lambda t: sample("x", dist.LogNormal(t, 0.5)), {"y": y})


def test_a_value_that_may_leave_the_support_crosses_a_jump():
    """Outside of objectives nothing says that it stays: E[density] jumps at the ends."""

    def density(t):
        x = draw(dist.Normal(t, 1.0))
        return jnp.exp(
            Target(gen(lambda: sample("x", dist.Uniform(0.0, 1.0)))).log_density({"x": x})
        )

    with pytest.raises(GradientThroughDraw, match="jump"):
        seed(jax.grad(expectation(density)))(jax.random.key(0), 0.4)
