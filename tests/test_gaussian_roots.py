"""Roots of covariances: tiny noise, and gaps far below a scale, in single precision."""

import jax
import numpy as np
import pytest

from inference.gaussian.matern import Matern52, Matern72
from inference.gaussian.process import gp

pytestmark = pytest.mark.slow

N, VARIANCE = 300, 1e-8


def both(kind, along):
    """Value and derivatives in the logarithms of scale, deviation and noise."""

    def density(logs, times, values):
        scale, sigma, noise = jax.numpy.exp(logs)
        return gp(kind(scale, sigma), times, noise=noise, along=along).log_prob(values)

    return jax.jit(jax.value_and_grad(density))


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("kind", [Matern52, Matern72])
def test_tiny_noise_in_single_precision(kind, gap):
    """Against double precision, of the same rounded arguments: to .1 in value and derivatives.

    Values of order one are known to 6e-8, and so are predictions: 1e-3 of their deviation, 1e-4,
    each. Half the sum of 300 squares of residuals then has an error of sqrt(300 · 2) · 1e-3, or
    .025, and so have its derivatives in logarithms: .1 is four of these. (Covariances themselves
    are off by .2 to 40 in value, and by 2 to 12000 in the derivative in the noise.)
    """
    random = np.random.default_rng(0)
    logs = np.log([1.5, 0.8, VARIANCE]).astype(np.float32)
    times = np.cumsum(random.uniform(0.5, 1.5, N) * gap).astype(np.float32)
    values = np.sin(times) + 0.3 + VARIANCE**0.5 * random.normal(size=N)
    args = logs, times, values.astype(np.float32)
    right = both(kind, "scan")(*(x.astype(float) for x in args))
    found = both(kind, "roots")(*args)
    assert found[0].dtype == np.float32
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.1)
