"""Gamma draws made together: their law, their derivatives, and that each is made for itself."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from budget import CHECKS
from scipy import stats

from ppl import gen, sample, seed
from ppl.gammas import gamma, log_gamma, sampler
from semantics.evidence.e_values import multinomial

KEY = jax.random.key(5)
N, BINS = 20_000, 20
NUMBER, LEVEL = CHECKS["draws of gammas and of what is made of them"]


def assert_law(draws, cdf):
    """Independent draws, by how many are in each of 20 bins of equal probability."""
    place = np.floor(BINS * cdf(np.asarray(draws, np.float64))).astype(int)
    counts = np.bincount(np.minimum(place, BINS - 1), minlength=BINS)
    log_e = float(multinomial(counts, np.full(BINS, 1 / BINS)))
    assert log_e < math.log(1 / LEVEL)


CONCENTRATIONS = (0.02, 0.5, 1.0, 2.5, 1e3)


@pytest.mark.parametrize("a", CONCENTRATIONS)
def test_of_one_key_and_of_many(a):
    """By logarithms, since at .02 a tenth of all are below 1e-50."""
    cdf = stats.gamma(a).cdf
    assert_law(np.exp(np.asarray(log_gamma(KEY, jnp.full(N, a)))), cdf)
    many = jax.jit(jax.vmap(gamma, (0, None)))(jax.random.split(KEY, N), a)
    assert_law(many, cdf)


MADE = {
    "gamma": (dist.Gamma(jnp.full(N, 0.7), 3.0), stats.gamma(0.7, scale=1 / 3)),
    "chi squared": (dist.Chi2(3.0).expand([N]), stats.chi2(3)),
    "inverse gamma": (dist.InverseGamma(2.0, 3.0).expand([N]), stats.invgamma(2, scale=3)),
    "beta": (dist.Beta(0.3, 2.0).expand([N]).to_event(1), stats.beta(0.3, 2)),
    "beta, near its ends": (dist.Beta(0.1, 0.1).expand([N]), stats.beta(0.1, 0.1)),
    "t": (dist.StudentT(2.5, 1.0, 2.0).expand([N]), stats.t(2.5, 1, 2)),
    "t of one degree": (dist.StudentT(1.0).expand([N]), stats.cauchy),
    "Dirichlet": (dist.Dirichlet(jnp.array([0.5, 1.0, 3.0])).expand([N]), stats.beta(0.5, 4)),
}


@pytest.mark.parametrize("name", MADE)
def test_of_what_is_made_of_them(name):
    """As a model draws them; of a Dirichlet the first share, and all add up to one."""
    d, law = MADE[name]
    assert sampler(d) is not None
    x = seed(gen(lambda: sample("x", d)).simulate)(KEY)["x"]
    if name == "Dirichlet":
        np.testing.assert_allclose(x.sum(-1), 1.0, rtol=1e-6)  # shares are kept off 0 and 1
        x = x[:, 0]
    assert_law(x, law.cdf)


def test_as_many_are_checked_as_the_budget_says():
    assert 2 * len(CONCENTRATIONS) + len(MADE) == NUMBER


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_draw_does_not_depend_on_what_is_beside_it(impl):
    """Alone, in a batch of keys, and in a batch of batches; where most proposals are rejected."""
    keys = jax.random.split(jax.random.key(1, impl=impl), (3, 40))
    a = jnp.asarray(np.random.default_rng(0).gamma(1.0, size=(3, 40, 2)))
    together = jax.jit(jax.vmap(jax.vmap(gamma)))(keys, a)
    if impl == "rbg":  # whose bits depend on the batch, as JAX says
        assert jnp.isfinite(together).all() and (together >= 0).all()
        return
    alone = jax.jit(gamma)
    for i, j in np.ndindex(3, 40):
        np.testing.assert_allclose(together[i, j], alone(keys[i, j], a[i, j]), rtol=1e-13)
    shared = jax.vmap(gamma, (None, 0))(keys[0, 0], a[0])
    np.testing.assert_allclose(shared[7], alone(keys[0, 0], a[0, 7]), rtol=1e-13)


@pytest.mark.parametrize("draw", [gamma, log_gamma])
def test_derivatives_are_those_of_the_quantile(draw):
    """d x / d a at a fixed probability, by differences of scipy's quantiles."""
    a = jnp.array([0.3, 1.0, 2.5, 40.0])
    slope = np.asarray(jax.vmap(jax.grad(draw, 1), (None, 0))(KEY, a))
    h = 1e-5
    for i, c in enumerate(np.asarray(a)):
        x = float(draw(KEY, a[i]))
        value = x if draw is gamma else np.exp(x)
        p = stats.gamma(c).cdf(value)
        ends = np.array([stats.gamma(c + s * h).ppf(p) for s in (1, -1)])
        ends = ends if draw is gamma else np.log(ends)
        # differences of size 1e-5: their error is h^2 / 6 of a third derivative, and 1e-11 / h of
        # scipy's inverse
        np.testing.assert_allclose(slope[i], (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


@pytest.mark.parametrize("a", [-1.0, 0.0, np.nan, np.inf])
def test_what_is_no_concentration_has_no_draw_and_no_end_to_wait_for(a):
    found = jax.jit(gamma)(KEY, jnp.array([a, 2.0]))
    assert jnp.isnan(found[0]) and found[1] > 0
