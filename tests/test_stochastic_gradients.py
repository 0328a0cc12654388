"""Langevin and Hamiltonian moves on minibatches: the published moments, exactly."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import cycle
from inference.mcmc.langevin import sghmc, sgld
from inference.targets.minibatch import minibatch
from ppl import Target, draw, gen, integrate, sample, seed
from ppl.errors import InvalidArgument

KEY = jax.random.key(20261125)

X, Y = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.5, 1.0, 4.0])
S, H = 0.4, 0.3  # where it starts, and the step size


@gen
def line(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(slope * x, 1.0))


LINE = Target(line, (X,), {"y": Y})


def some(size):
    return minibatch(lambda i: Target(line, (X[i],), {"y": Y[i]}), total=3, size=size)


PER_DATUM = np.asarray(X * (Y - S * X))
GRADIENT = -S + PER_DATUM.sum()


def moments(kernel):
    """Mean and variance of a step from S: the draws integrated, the batches enumerated."""
    trace = LINE.at({"slope": S})[0]

    def powers():
        z = kernel(trace)["slope"]
        return jnp.stack([z, z**2])

    first, second = jax.jit(integrate(powers, nodes=3))()
    return float(first), float(second - first**2)


@pytest.mark.parametrize("size", [1, 2])
def test_gradients_of_minibatches_are_unbiased(size):
    def gradient():
        return jax.grad(lambda s: some(size)({"slope": s}))(S)

    mean = jax.jit(integrate(gradient))()
    square = jax.jit(integrate(lambda: gradient() ** 2))()
    np.testing.assert_allclose(mean, GRADIENT, atol=1e-10)
    np.testing.assert_allclose(square - mean**2, 9 / size * PER_DATUM.var(), atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, None])
def test_a_step_of_sgld_has_the_published_moments(size):
    kernel = sgld(LINE, LINE.log_density if size is None else some(size), step_size=H)
    noise = 0.0 if size is None else 9 / size * PER_DATUM.var()
    expected = S + H / 2 * GRADIENT, H + H**2 / 4 * noise
    np.testing.assert_allclose(moments(kernel), expected, atol=1e-9)


def test_a_step_of_sghmc_has_the_published_moments():
    a, b = 0.3, 0.1
    kernel = sghmc(LINE, some(1), steps=1, step_size=H, friction=a, noise=b)
    variance = (1 - a) ** 2 * H + 2 * (a - b) * H + H**2 * 9 * PER_DATUM.var()
    np.testing.assert_allclose(moments(kernel), (S + H * GRADIENT, variance), atol=1e-9)


def test_sghmc_carries_its_velocity():
    """Two updates with friction a on a plane without slope: v, then (1 - a) v + noise."""
    a = 0.3
    kernel = sghmc(LINE, lambda latents: 0.0, steps=2, step_size=H, friction=a)
    one = (1 - a) ** 2 * H + 2 * a * H
    # z moves by v1 + v2 = (2 - a) v1 + noise
    expected = (2 - a) ** 2 * one + 2 * a * H
    np.testing.assert_allclose(moments(kernel), (S, expected), atol=1e-9)


def test_the_stationary_law_of_sgld_is_not_the_target():
    """On a Gaussian of precision p it has the variance 1 / (p (1 - h p / 4)), not 1 / p."""
    p, h = 15.0, 0.1
    mean, variance = float((X * Y).sum()) / p, 1 / (p * (1 - h * p / 4))
    kernel = sgld(LINE, LINE.log_density, step_size=h)

    def powers():
        start = draw(dist.Normal(mean, math.sqrt(variance)))
        z = kernel(LINE.at({"slope": start})[0])["slope"]
        return jnp.stack([z - mean, (z - mean) ** 2])

    np.testing.assert_allclose(jax.jit(integrate(powers, nodes=3))(), [0.0, variance], atol=1e-12)


@pytest.mark.parametrize("make", [sgld, partial(sghmc, steps=2)])
def test_approximate_kernels_say_so_and_their_schedules_end(make):
    kernel = make(LINE, some(1), step_size=lambda t: 1.0 / (1.0 + t))
    assert "approximate" in kernel.name
    assert any("approximate" in key for key in _statistics(cycle(kernel)))
    tuning, used = kernel.tuning, []
    found = tuning.init(None, 3)
    for _ in range(3):
        used.append(float(tuning.parameters(found)))
        found = tuning.update(found, None, {})
    assert used == pytest.approx([1, 1 / 2, 1 / 3])
    assert float(tuning.freeze(found)) == pytest.approx(1 / 3)
    fixed = make(LINE, some(1), step_size=0.1)
    assert fixed.tuning is None and fixed.parameters == 0.1


def _statistics(kernel):
    trace = LINE.at({"slope": S})[0]
    return seed(lambda: kernel.step(kernel.parameters, kernel.enter(trace)))(KEY)[1]


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: minibatch(lambda i: LINE, 3, 0), "size is not a number"),
        (
            lambda: sghmc(LINE, some(1), steps=1, step_size=H, friction=0.1, noise=0.2),
            "The friction does not make up for the noise.",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, what):
    with pytest.raises(InvalidArgument, match=what) as found:
        make()
    assert len(str(found.value).splitlines()) <= 12
