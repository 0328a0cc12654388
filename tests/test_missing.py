"""Missing data under a mask: chains draw from the posterior in which they are summed out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import Kernel, hmc, mh, nuts, sample_posterior
from inference.missing import imputing
from ppl import Masked, Target, gen, integrate, sample
from ppl.errors import InvalidArgument

KEY = jax.random.key(0)
UP = jnp.array([0.2, 0.7])


@gen
def coins():
    k = sample("k", dist.Bernoulli(0.4))
    sample("y", dist.Bernoulli(UP[k]).expand([2]))


COINS = Target(coins, (), {"y": Masked(jnp.array([1, 0]), jnp.array([True, False]))})


def matrix(kernel):
    """Transitions between the four values of (k, the missing y)."""

    def row(i):
        trace = coins.generate({"k": i // 2, "y": jnp.stack([1, i % 2])})[0]

        def run():
            moved = kernel(trace)
            return jnp.zeros(4).at[2 * moved["k"] + moved["y"][1]].add(1.0)

        return integrate(run)()

    return np.asarray(jax.jit(jax.vmap(row))(jnp.arange(4)))


def test_chains_forget_what_was_drawn_for_missing_data():
    """The one invariant law is that of k given the observed y, and of the missing y given k."""
    up = np.asarray(UP)
    posterior = np.array([0.6, 0.4]) * up
    posterior /= posterior.sum()
    exact = (posterior[:, None] * np.stack([1 - up, up], 1)).reshape(4)
    k = matrix(imputing(mh(COINS, "k"), COINS))
    np.testing.assert_allclose(exact @ k, exact, atol=1e-12)
    values = np.sort(np.abs(np.linalg.eigvals(k)))
    assert values[-2] < 0.9  # and so every start is forgotten
    stuck = np.sort(np.abs(np.linalg.eigvals(matrix(mh(COINS, "k")))))
    assert stuck[-2] == pytest.approx(1.0)  # without, the missing y never moves


@gen
def normal():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 1.0).expand([4]))


SEEN = Masked(jnp.array([1.0, 0.0, 0.0, 2.0]), jnp.array([True, False, False, True]))
NORMAL = Target(normal, (), {"y": SEEN})


@pytest.mark.parametrize("make", [nuts, lambda target: hmc(target, steps=3)])
def test_gradient_kernels_take_missing_data(make):
    """Four chains agree, and on the posterior of two observations: mean 1, variance 1 / 3.

    The bounds are 5 standard errors: with probability 1.2e-6, were the averages normal.
    """
    draws = sample_posterior(KEY, NORMAL, make(NORMAL), draws=1000, warmup=300)
    row = draws.summary()["mu"]
    assert row["rhat"] < 1.1
    assert abs(row["mean"] - 1.0) < 5 * row["mcse_mean"]
    assert abs(row["sd"] - 3**-0.5) < 5 * row["mcse_sd"]


def test_without_missing_data_a_kernel_is_itself():
    kernel = Kernel("stay", lambda p, s: (s, {}))
    assert imputing(kernel, Target(normal, (), {"y": SEEN.value})) is kernel


@gen
def chain():
    x = sample("x", dist.Normal(0.0, 1.0).expand([2]))
    sample("y", dist.Normal(x, 1.0))


def test_missing_data_that_something_observed_depends_on_are_refused():
    seen = Masked(jnp.zeros(2), jnp.array([True, False]))
    mu = gen(lambda: (sample("mu", dist.Normal(0.0, 1.0)), sample("sub", chain())))
    target = Target(mu, (), {"sub": {"x": seen, "y": jnp.zeros(2)}})
    with pytest.raises(InvalidArgument, match='"sub", "y" depends on elements of "sub", "x"'):
        sample_posterior(KEY, target, mh(target, "mu"), draws=10, warmup=10)
