"""Densities of large counts and concentrations in float32 are those of float64 (S7).

Swept: every distribution with a density of its own in `ppl.large_counts`, with parameters from
1 to 1e8, at its middle, a few standard deviations out, and at its ends; beside the closed forms
by scipy's log-gamma in float64, at the same float32 numbers.

Derivation of the bound. Terms of size 1 + log(scale) are added up: a few dozen roundings of
them; of small parameters, log-gammas of up to 78, four roundings of each. The difference of a
count and its mean is known to one rounding of the mean m, which changes the log density by
eps m |k - m| / variance, at most eps times |k - m| over the smaller share; out of the middle
the density itself is as large, and is rounded.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import betaln, gammaln, xlog1py, xlogy

from ppl import Target, gen, sample
from ppl.distributions import log_density
from ppl.large_counts import _COUNTS, _SHAPES

EPS = np.finfo(np.float32).eps
SCALES = [1.0, 30.0, 1e3, 1e5, 1e7, 1e8]


def choose(n, k):
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def binomial(n, p, k):
    return choose(n, k) + xlogy(k, p) + xlog1py(n - k, -p)


def many(n, p, k):
    return gammaln(n + 1) + (xlogy(k, p) - gammaln(k + 1)).sum(-1)


def negative(a, p, q, k):
    return gammaln(a + k) - gammaln(a) - gammaln(k + 1) + xlogy(k, p) + a * np.log(q)


def around(mean, sd, low, high):
    """Whole numbers in the middle, out of it, and at the ends."""
    at = mean + sd * np.array([0.0, 0.7, -1.5, 3.0, -4.0])
    ends = [low, min(low + 1, high)] + ([high] if np.isfinite(high) else [])
    # of numbers that float32 has
    return np.float32(np.unique(np.clip(np.rint([*at, *ends]), low, high))).astype(np.int64)


CASES = {
    "BinomialProbs": lambda s: (
        lambda n, p: dist.BinomialProbs(p, n),
        (np.rint(s), np.float32(0.3)),
        binomial,
        around(0.3 * np.rint(s), np.sqrt(0.21 * s), 0, np.rint(s)),
    ),
    "BinomialLogits": lambda s: (
        lambda n, z: dist.BinomialLogits(z, n),
        (np.rint(s), np.float32(-2.5)),
        lambda n, z, k: choose(n, k) + k * z - n * np.log1p(np.exp(z)),
        around(s / (1 + np.exp(2.5)), np.sqrt(0.07 * s), 0, np.rint(s)),
    ),
    "BetaBinomial": lambda s: (
        lambda a, b: dist.BetaBinomial(a, b, 20),
        (np.float32(0.3 * s), np.float32(0.7 * s)),
        lambda a, b, k: choose(20, k) + betaln(a + k, b + 20 - k) - betaln(a, b),
        np.arange(21),
    ),
    "Poisson": lambda s: (
        dist.Poisson,
        (np.float32(s),),
        lambda m, k: xlogy(k, m) - m - gammaln(k + 1),
        around(s, np.sqrt(s), 0, np.inf),
    ),
    "GammaPoisson": lambda s: (
        dist.GammaPoisson,
        (np.float32(s), np.float32(0.5)),
        lambda a, r, k: negative(a, 1 / (1 + r), r / (1 + r), k),
        around(2 * s, np.sqrt(6 * s), 0, np.inf),
    ),
    "NegativeBinomialProbs": lambda s: (
        dist.NegativeBinomialProbs,
        (np.float32(s), np.float32(0.25)),
        lambda a, p, k: negative(a, p, 1 - p, k),
        around(s / 3, np.sqrt(s / 2), 0, np.inf),
    ),
    "NegativeBinomial2": lambda s: (
        lambda c: dist.NegativeBinomial2(5.0, c),
        (np.float32(s),),
        lambda c, k: negative(c, 5 / (5 + c), c / (5 + c), k),
        np.arange(15),
    ),
    "NegativeBinomialLogits": lambda s: (
        dist.NegativeBinomialLogits,
        (np.float32(s), np.float32(0.5)),
        lambda a, z, k: negative(a, 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z)), k),
        around(1.65 * s, np.sqrt(4.4 * s), 0, np.inf),
    ),
    "MultinomialProbs": lambda s: (
        lambda p: dist.MultinomialProbs(p, 4 * int(s)),
        (np.float32([0.25, 0.25, 0.5]),),
        lambda p, k: many(4 * int(s), p, k),
        int(s) * np.array([[1, 1, 2], [1, 0, 3]]) + np.array([[0, 0, 0], [0, 0, 0]]),
    ),
    "MultinomialLogits": lambda s: (
        lambda z: dist.MultinomialLogits(z, 4 * int(s)),
        (np.log(np.float32([1.0, 1.0, 2.0])),),
        lambda z, k: many(4 * int(s), np.exp(z) / np.exp(z).sum(), k),
        int(s) * np.array([[1, 1, 2]]),
    ),
    "DirichletMultinomial": lambda s: (
        lambda a: dist.DirichletMultinomial(a, 20),
        (np.float32([0.2 * s, 0.3 * s, 0.5 * s]),),
        lambda a, k: (
            gammaln(21) + gammaln(a.sum()) - gammaln(a.sum() + 20)
            + (gammaln(a + k) - gammaln(a) - gammaln(k + 1)).sum(-1)
        ),
        np.array([[4, 6, 10], [0, 10, 10], [20, 0, 0]]),
    ),
    "Beta": lambda s: (
        dist.Beta,
        (np.float32(2 * s), np.float32(s)),
        lambda a, b, x: xlogy(a - 1, x) + xlog1py(b - 1, -x) - betaln(a, b),
        np.float32(2 / 3 + np.array([0, 1, -2.5]) / np.sqrt(13.5 * s + 200)),
    ),
    "Gamma": lambda s: (
        lambda a: dist.Gamma(a, 2.0),
        (np.float32(s),),
        lambda a, x: a * np.log(2) + (a - 1) * np.log(x) - 2 * x - gammaln(a),
        np.float32((s + np.sqrt(s) * np.array([0, 1, -0.9])) / 2),
    ),
    "Chi2": lambda s: (
        dist.Chi2,
        (np.float32(2 * s),),
        lambda k, x: (k / 2 - 1) * np.log(x) - x / 2 - k / 2 * np.log(2) - gammaln(k / 2),
        np.float32(2 * (s + np.sqrt(s) * np.array([0, 1, -0.9]))),
    ),
    "Dirichlet": lambda s: (
        dist.Dirichlet,
        (np.float32([s, s, 2 * s]),),
        lambda a, x: xlogy(a - 1, x).sum(-1) - gammaln(a).sum() + gammaln(a.sum()),
        np.float32([[0.25, 0.25, 0.5]]),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_densities_in_float32(name):
    for scale in SCALES:
        make, parameters, exact, values = CASES[name](scale)
        wide = [np.asarray(p, np.float64) for p in parameters]
        found = []
        expected = exact(*wide, np.asarray(values, np.float64))
        with jax.enable_x64(False):
            # traced parameters: nothing is known of them
            density = jax.jit(lambda v, *p, make=make: log_density(make(*p), v))
            found = np.asarray(density(jnp.asarray(values), *map(jnp.float32, parameters)))
        scaled = np.sqrt(scale) * 5  # |k - m| over a share, a few standard deviations out
        bound = EPS * (4 * 78 + 40 * (1 + np.log(scale)) + 2 * np.abs(expected) + scaled)
        assert found.dtype == np.float32
        assert (np.abs(found - expected) <= bound).all(), (scale, values, found, expected, bound)


def test_every_density_is_swept():
    assert {t.__name__ for t in (*_COUNTS, *_SHAPES)} == set(CASES)


def test_counts_beside_large_ones():
    """Four binomials, two of twenty million trials: the others' densities are not drowned."""
    n, y = np.array([20_000_000, 20_000_000, 50, 50]), np.array([2_000_000, 1_999_000, 5, 5])

    @gen
    def model():
        p = sample("p", dist.Uniform(0.0, 1.0).expand([4]))
        sample("y", dist.Binomial(n, p))

    small = np.linspace(0.02, 0.3, 20)
    p = np.float32(np.stack([np.full(20, 0.1), np.full(20, 0.1), small, small], 1))
    exact = binomial(n, np.asarray(p, np.float64), y).sum(1)
    with jax.enable_x64(False):
        target = Target(model, (), {"y": y})
        found = jax.jit(jax.vmap(lambda p: target.log_density({"p": p})))(jnp.asarray(p))
    assert np.ptp(np.asarray(found) - exact) < EPS * 4 * (
        40 * (1 + np.log(2e7)) + np.abs(exact).max()
    )


@pytest.mark.slow
def test_off_the_support_and_at_its_ends():
    """-inf off the support, and no gradient that is no number at its ends."""
    with jax.enable_x64(False):
        for name, (make, parameters, *_) in ((n, CASES[n](1e3)) for n in CASES):
            d = make(*map(jnp.float32, parameters))
            if type(d) in _COUNTS and not d.event_shape:
                assert log_density(d, jnp.array(-1)) == -jnp.inf, name
        for d, v in (
            (lambda p: dist.Binomial(100, p), 0), (lambda p: dist.Binomial(100, p), 100),
            (lambda p: dist.Poisson(p), 0), (lambda p: dist.GammaPoisson(100 * p, 1.0), 0),
            (lambda p: dist.BetaBinomial(100 * p, 50.0, 30), 30),
            (lambda p: dist.Gamma(100 * p, 1.0), 1.0),
        ):  # fmt: skip
            found = jax.grad(lambda p, d=d, v=v: log_density(d(p), jnp.asarray(v)))(0.5)
            expected = jax.grad(lambda p, d=d, v=v: d(p).log_prob(v))(0.5)
            # numpyro's is of differences of digammas: some units of 100 in the last place
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
