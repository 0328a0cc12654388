"""Missing data under a mask: chains draw from the posterior in which they are summed out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from inference import Kernel, hmc, iterate, mh, nuts, sample_posterior
from inference.targets.missing import imputing
from ppl import Masked, Target, gen, integrate, sample, seed
from ppl.errors import InvalidArgument
from semantics.evidence.e_values import multinomial
from tests.budget import CHECKS

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


POSTERIOR = stats.norm(1.0, 3**-0.5)  # given the two observations alone


@pytest.mark.slow
@pytest.mark.parametrize("make", [nuts, lambda target: hmc(target, steps=3)], ids=["nuts", "hmc"])
def test_gradient_kernels_take_missing_data(make):
    """The law of 2000 chains after 60 steps (false alarm 1e-9).

    A step forgets all but 2 / 5 of its start, the part of what is known that is missing, if it
    draws mu anew; these kernels halve that at worst, and 0.7^60 adds 1e-6 of a nat.
    """
    trace = seed(NORMAL.generate)(KEY, {"mu": 2.5})[0]
    run = seed(lambda: iterate(imputing(make(NORMAL), NORMAL), 60)(trace)["mu"])
    found = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 2000)))
    bins = np.searchsorted(POSTERIOR.ppf(np.arange(1, 10) / 10), found)
    log_e = float(multinomial(np.bincount(bins, minlength=10), np.full(10, 0.1)))
    assert log_e < -math.log(CHECKS["draws beside missing data"][1])


def test_the_driver_draws_missing_data():
    draws = sample_posterior(KEY, COINS, mh(COINS, "k"), draws=5, warmup=5)
    assert list(draws.stats) == ["mh select('k')/accept"]  # in a cycle


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
