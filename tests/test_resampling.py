"""Resampling: unbiased exactly at small sizes, and right to the last particle at large ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Weighted,
    effective_sample_size,
    killing,
    log_evidence,
    multinomial,
    resample,
    residual,
    ssp,
    stratified,
    systematic,
    when_ess_below,
)
from inference.smc.prefix import prefixes
from inference.smc.schemes import cumulated_offspring
from ppl import at_boundary, draw, integrate, seed
from ppl.errors import InvalidArgument
from semantics import check_resampler

SCHEMES = [multinomial, stratified, systematic, residual, killing, ssp]
KEY = jax.random.key(0)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_offspring_are_unbiased_on_every_path(scheme):
    """At sizes 1 to 3: zeros, ties, the ends of the uniforms, weights near 0 and 1."""
    for verdict in check_resampler(scheme):
        verdict.require()


def skewed(n):
    """Weights over six orders of magnitude, a tenth of them zero, in no order."""
    random = np.random.default_rng(0)
    w = np.exp(3 * random.normal(size=n)) * (random.random(n) > 0.1)
    return w / w.sum()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [stratified, systematic, residual, ssp])
def test_offspring_of_a_million_in_single_precision(scheme):
    """Each has floor to ceil of n w copies (one more or less for stratified; at least the floor
    for residual), but for the rounding of w to 24 bits and of their sum (1e-6 each)."""
    n = 100_000 if scheme is ssp else 1_000_000
    w = skewed(n)
    ancestors = np.asarray(jax.jit(seed(scheme))(KEY, jnp.asarray(w, jnp.float32)))
    counts = np.bincount(ancestors, minlength=n)
    assert counts.sum() == n and not counts[w == 0].any()
    slack = 2e-6 * n * w + 1e-3
    above = {residual: np.inf, stratified: 2}.get(scheme, 1)
    below = 2 if scheme is stratified else 1
    assert (counts > n * w - below - slack).all() and (counts < n * w + above + slack).all()


def test_ten_million_cumulated_weights_are_known_to_a_thousandth():
    """Against float64, where plain cumulation in float32 is off by whole particles."""
    n = 10_000_000
    w = jnp.asarray(skewed(n), jnp.float32)
    whole, part = jax.jit(cumulated_offspring)(w)
    exact = np.cumsum(np.float64(np.float32(n) * np.asarray(w)))  # of the same products
    plain = np.abs(np.cumsum(np.float32(n) * np.asarray(w)) - exact).max()
    assert np.abs(np.asarray(whole) + np.float64(part) - exact).max() < 1e-3 < 1 < plain


def test_many_categories_in_single_precision():
    """Blocks of a distribution that one float32 uniform cannot resolve: each uniform at its
    ends gives a particle of positive weight, and equal weights give all blocks alike."""
    n = 1 << 15
    w = skewed(n)
    ends = [at_boundary(lambda: multinomial(jnp.asarray(w, jnp.float32)), e)() for e in ENDS]
    assert all((w[np.asarray(ancestors)] > 0).all() for ancestors in ends)


ENDS = ("zero", "smallest", "one")


def test_two_levels_are_one_distribution():
    """The law of the two draws that find a category among many, on few."""
    from inference.smc.schemes import _search

    w = jnp.array([0.1, 0.0, 0.25, 0.05, 0.0, 0.3, 0.3, 0.0])
    blocks = w.reshape(2, 4)
    cumulated = jnp.cumsum(blocks, 1)

    def one():
        block = draw(dist.CategoricalProbs(cumulated[:, -1]))
        # a grid that meets the cumulated weights of both blocks: halves, quarters, eighths
        u = (draw(dist.DiscreteUniform(0, 23)) + 0.5) / 24
        found = block * 4 + _search(cumulated, blocks, block[None], u[None])[0]
        return jnp.zeros(8).at[found].add(1.0)

    np.testing.assert_allclose(jax.jit(integrate(one))(), w, atol=1e-12)


@pytest.mark.parametrize("n", [64, 300])
def test_draws_among_many_compare_with_few(n):
    """No array of n x n, and the category that comparisons with all would find."""
    w, u = jnp.asarray(skewed(n)), jax.random.uniform(KEY, (n,))
    big = jax.make_jaxpr(seed(multinomial))(KEY, jnp.asarray(skewed(10_000)))
    sizes = [v.aval.size for eqn in big.jaxpr.eqns for v in eqn.outvars]
    assert max(sizes) < 10 * 10_000
    from ppl.distributions import _categorical

    expected = (jnp.cumsum(w) <= u[:, None] * jnp.cumsum(w)[-1]).sum(1)
    assert (_categorical(w, u) == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 256, 257, 511, 512, 513, 1000, 4099])
def test_running_totals_of_any_number(n):
    """Also of many at once, of pairs, and of what is not commutative: the last of them."""
    x = np.random.default_rng(n).integers(0, 9, (2, n))
    add = jax.jit(jax.vmap(lambda v: prefixes(jnp.add, 0, v)))
    np.testing.assert_array_equal(add(jnp.asarray(x)), np.cumsum(x, 1))

    def later(a, b):
        return jnp.where(b[1] > 0, b[0], a[0]), jnp.maximum(a[1], b[1])

    marks = x[0] > 6
    found = prefixes(later, (0, 0), (jnp.asarray(x[0]), jnp.asarray(marks, int)))[0]
    last = np.maximum.accumulate(np.where(marks, np.arange(n), -1))
    np.testing.assert_array_equal(found[last >= 0], x[0][last[last >= 0]])


# -- when to resample ----------------------------------------------------------------------------


def test_effective_sample_size_by_hand():
    weights = np.array([0.1, 0.4, 0.0, 1.5])
    expected = weights.sum() ** 2 / (weights**2).sum()
    assert float(effective_sample_size(jnp.log(weights) - 800)) == pytest.approx(
        expected, rel=1e-12
    )
    assert float(effective_sample_size(jnp.full(4, -jnp.inf))) == 0.0  # no particle counts
    assert np.isnan(effective_sample_size(jnp.array([0.0, jnp.nan])))


@pytest.mark.parametrize("weights, happens", [([1.0, 1.0, 0.1], False), ([1.0, 0.1, 0.1], True)])
def test_resampling_when_few_particles_count(weights, happens):
    given = Weighted(jnp.arange(3), jnp.log(jnp.asarray(weights)))
    found = jax.jit(seed(when_ess_below(0.6)))(KEY, given)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), found, given)
    assert same.log_weight != happens
    assert float(log_evidence(found)) == pytest.approx(float(log_evidence(given)), rel=1e-14)
    if happens:
        assert (found.log_weight == found.log_weight[0]).all()
    else:
        assert same.value


@pytest.mark.slow
def test_weights_of_zero_stay_evidence_zero():
    given = Weighted(jnp.arange(3), jnp.full(3, -jnp.inf))
    for scheme in SCHEMES:
        found = seed(lambda s, scheme=scheme: resample(s, scheme))(KEY, given)
        assert found.log_weight.tolist() == [-np.inf] * 3
        assert set(found.value.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_fraction_is_between_0_and_1(fraction):
    with pytest.raises(InvalidArgument, match="fraction is not a number"):
        when_ess_below(fraction)
