"""A choice that moves stays on its support: comparisons that the support decides are no jump."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import elbo, iwelbo
from ppl import Target, expectation, gen, integrate, sample

PRIOR = Target(gen(lambda: sample("x", dist.Gamma(2.0, 1.0))))
GUIDE = gen(lambda t: sample("x", dist.LogNormal(t, 0.5)))


@pytest.mark.parametrize(
    "objective",
    [elbo(PRIOR, GUIDE), elbo(PRIOR, GUIDE, landing=True), iwelbo(PRIOR, GUIDE, 1, doubly=True)],
)
def test_a_log_normal_guide_of_a_gamma(objective):
    """E[log x - x - log q(x)] is t - exp(t + 1/8) + t and a constant; 20 nodes are exact to 1e-14."""
    slope = jax.jit(integrate(jax.grad(expectation(objective)), nodes=20))(0.3)
    assert_allclose(slope, 2 - jnp.exp(0.425), rtol=1e-12)
