"""Where a term begins changes no estimate: what is known does not carry a score."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from ppl import draw, expectation, integrate, reinforce

MASK = np.array([True, False, False])


def drawn(p):
    return jnp.exp(draw(dist.Bernoulli(p).expand([3]), reinforce()).astype(float))


# each has the derivatives and the variance of the sum of exp(z), where z counts
PLAIN = {
    "known numbers added": lambda p: jnp.sum(drawn(p) + 7.0),
    "known numbers in place of some": lambda p: jnp.sum(jnp.where(MASK, 7.0, drawn(p))),
    "zeros in place of some": lambda p: jnp.sum(jnp.where(MASK, 0.0, drawn(p))),
    "a sum of scaled sums": lambda p: jnp.sum(2.0 * drawn(p) / 2.0),
    "terms with other scores": lambda p: jnp.sum(drawn(p) - drawn(p)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_only_what_depends_on_a_choice_carries_its_score(name):
    p = 0.3
    slope = jax.grad(expectation(PLAIN[name]))
    mean, square = integrate(lambda p: (slope(p), slope(p) ** 2))(p)
    # one element's estimate is exp(z) times its score, of mean e - 1
    one = np.e**2 / p + 1 / (1 - p) - (np.e - 1) ** 2
    count = {"terms with other scores": 6}.get(name, 2 if "some" in name else 3)
    sign = 0 if "other" in name else count
    assert_allclose(mean, sign * (np.e - 1), rtol=0, atol=1e-11)
    assert_allclose(square - mean**2, count * one, rtol=1e-11)
