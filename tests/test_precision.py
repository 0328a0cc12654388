"""What float32 cannot tell is told, and what it can is not lost (S5, S7)."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import betaln

from inference import Draws
from inference.mcmc.space import Space
from inference.results.precision import RESOLUTION, limit
from ppl import Target, factor, gen, sample
from ppl.distributions import log_density

A = 0.1
Z = np.array([-40.0, -20.0, -5.0, 0.0, 3.0, 12.0, 20.0, 60.0, 300.0])
"""Coordinates of p, most of which float32 rounds to an edge."""


@gen
def alone():
    p = sample("p", dist.Beta(A, A))
    sample("y", dist.Bernoulli(p))


@gen
def spread():
    p = sample("p", dist.Beta(A, A).expand([1]).to_event(1))
    sample("y", dist.Bernoulli(p[0]))


@gen
def proportion():
    p = sample("p", dist.BetaProportion(0.5, 2 * A))
    sample("y", dist.Bernoulli(p))


@gen
def hierarchical():
    a = sample("a", dist.Uniform(0.0, 2 * A))
    p = jax.vmap(lambda _: sample("p", dist.Beta(a, a)))(jnp.arange(1))
    sample("y", dist.Bernoulli(p[0]))


@gen
def looped():
    def step(c, _):
        p = sample("p", dist.Beta(A, A))
        return jax.lax.cond(c < 1.0, lambda: p, lambda: 0.0), None

    p, _ = jax.lax.scan(step, 0.0, None, length=1)
    sample("y", dist.Bernoulli(p))


EDGES = {m.name: m for m in (alone, spread, proportion, hierarchical, looped)}


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", EDGES)
def test_a_beta_variable_keeps_its_tails(name, x64):
    """S5: one success under Beta(A, A), in the coordinate z of p. Swept: all ways to have one.

    The density of z is s(z)^(A + 1) s(-z)^A / B(A, A), s being the logistic function. Rounded
    are logarithms of up to 300, a few times.
    """
    exact = -(1 + A) * np.logaddexp(0, -Z) - A * np.logaddexp(0, Z) - betaln(A, A)
    with jax.enable_x64(x64):
        target = Target(EDGES[name], (), {"y": 1})
        space = Space(target, None if name != "hierarchical" else "p")
        trace, _ = target.generate(
            {path[0]: jnp.full(target.sites[path].shape, A if path == ("a",) else 0.5)
             for path in target.latents}
        )  # fmt: skip
        density = space.log_density(space.rest(trace))
        z = jnp.asarray(Z, float)[:, None]
        found, slopes = jax.jit(jax.vmap(jax.value_and_grad(density)))(z)
    # up to a constant, beside other latents; below, p itself is the likelihood, which is exact
    eps = float(jnp.finfo(found.dtype).eps)
    found = np.asarray(found) - np.asarray(found)[3] + exact[3]
    np.testing.assert_allclose(found, exact, rtol=8 * eps, atol=40 * eps)
    s = 1 / (1 + np.exp(-Z))
    np.testing.assert_allclose(
        slopes[:, 0], (1 + A) * (1 - s) - A * s, atol=1e-4 if not x64 else 1e-7
    )


def test_potentials_of_other_samplers_keep_the_tails():
    with jax.enable_x64(False):
        target = Target(alone, (), {"y": 1})
        found = [-float(target.potential({"p": z})) for z in (20.0, 60.0)]
    assert found[0] - found[1] == pytest.approx(A * 40, abs=1e-5)


def test_known_bounded_densities_cost_nothing():
    """No second walk for Beta(2, 2), which has no mass where floats end."""
    target = Target(gen(lambda: sample("p", dist.Beta(2.0, 2.0))))
    coordinates = target.coordinates()
    z = {("p",): jnp.array(0.3)}
    assert coordinates.rounded_off(z, coordinates.constrain(z, {})[0], {}) is None


# -- what is told -----------------------------------------------------------------------


def draws(*shape):
    return np.float32(np.random.default_rng(0).normal(size=shape))


def test_a_log_density_that_is_lost_is_told():
    """Differences of large numbers in the model itself: the verdict names the precision."""

    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        factor(1e7 * (1 + mu) - 1e7 * mu - 1e7)

    with jax.enable_x64(False):
        verdict = Draws({"mu": draws(4, 500)}, target=Target(model)).verdict()
        assert not verdict and verdict.check == "precision"
        # numbers around 1e7 are 1 apart, so errors have a standard deviation of 0.3 or more
        assert 0.25 < verdict.value < 3
        assert "jax_enable_x64" in str(verdict)
    with jax.enable_x64(True):
        wide = Draws({"mu": np.float64(draws(4, 500))}, target=Target(model)).verdict()
        assert wide.check != "precision"


def test_what_float32_can_tell_is_not_told():
    @gen
    def line(x):
        slope = sample("slope", dist.Normal(0.0, 2.0))
        scale = sample("scale", dist.HalfNormal(1.0))
        sample("y", dist.Normal(slope * x, scale))

    with jax.enable_x64(False):
        x = jnp.arange(5.0)
        target = Target(line, (x,), {"y": jnp.array([0.6, 2.5, 3.2, 6.4, 8.8])})
        z = draws(2, 50, 2)
        choices = {"slope": 1.7 + 0.1 * z[..., 0], "scale": np.exp(0.1 * z[..., 1])}
        assert limit(target, choices) is None
        assert limit(target, {}) is None and limit(None, choices) is None


def test_a_model_that_mixes_dtypes_is_judged_by_a_bound():
    """A carry of an outside array stays float32 where all else is float64."""
    with jax.enable_x64(False):
        start = jnp.float32(0.0)

        @gen
        def mixed(scale):
            mu = sample("mu", dist.Normal(0.0, 1.0))
            jax.lax.scan(lambda c, _: (c + mu, None), start, None, length=2)
            factor(scale * mu)

        assert limit(Target(mixed, (1.0,)), {"mu": draws(2, 50)}) is None
        found = limit(Target(mixed, (1e8,)), {"mu": draws(2, 50)})
        assert found is not None and found.value > 1


@pytest.mark.parametrize(
    ("d", "values", "name"),
    [
        (dist.Dirichlet(jnp.full(3, 0.02)), lambda r: r.dirichlet([0.02] * 3, (4, 250)), "v"),
        (dist.Kumaraswamy(0.1, 0.1), lambda r: r.beta(0.1, 0.1, (4, 250)), "v"),
        (dist.Gamma(0.01, 1.0), lambda r: r.gamma(0.01, 1, (4, 250)).clip(1.2e-38), "v"),
        (dist.Beta(0.1, 0.1), lambda r: r.beta(0.1, 0.1, (4, 250)).clip(1e-38, 1 - 6e-8), None),
        (dist.Dirichlet(jnp.ones(3)), lambda r: r.dirichlet([1] * 3, (4, 250)), None),
        (dist.Uniform(0.0, 1.0), lambda r: r.uniform(size=(4, 250)), None),
    ],
)
def test_mass_at_an_edge_is_told(d, values, name):
    """Supports by whose bijection float32 comes to an edge; Beta has its density there."""
    with jax.enable_x64(False):
        d = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), d)
        target = Target(gen(lambda: sample("v", d)))
        found = limit(target, {"v": np.float32(values(np.random.default_rng(0)))})
        assert (found.name if found else None) == name


LARGE = {
    "Normal": lambda s: (dist.Normal, (s, 1.0)),
    "LogNormal": lambda s: (dist.LogNormal, (np.log(s), 1.0)),
    "StudentT": lambda s: (dist.StudentT, (s, 0.0, 1.0)),
    "Weibull": lambda s: (dist.Weibull, (s, 1.5)),
    "InverseGamma": lambda s: (dist.InverseGamma, (s, s)),
    "Chi2": lambda s: (dist.Chi2, (s,)),
    "Gumbel": lambda s: (dist.Gumbel, (s, 1.0)),
    "ZeroInflatedPoisson": lambda s: (dist.ZeroInflatedPoisson, (0.1, s)),
    "Poisson": lambda s: (dist.Poisson, (s,)),
    "Beta": lambda s: (dist.Beta, (s, s)),
    "Gamma": lambda s: (dist.Gamma, (s, 1.0)),
    "BetaBinomial": lambda s: (lambda a: dist.BetaBinomial(a, a, 50), (s,)),
    "NegativeBinomial2": lambda s: (dist.NegativeBinomial2, (s, 3.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("name", LARGE)
def test_densities_are_right_or_told(name, scale):
    """S7, swept: what float32 makes of a distribution is right to RESOLUTION, or told."""
    make, parameters = LARGE[name](np.float32(scale))
    d = make(*(float(np.float32(p)) for p in parameters))
    values = np.asarray(d.sample(jax.random.key(0), (2, 16)))
    values = np.float32(values) if np.issubdtype(values.dtype, np.floating) else np.int32(values)
    exact = np.asarray(d.log_prob(np.asarray(values, np.float64)))
    with jax.enable_x64(False):
        d = make(*map(jnp.float32, parameters))
        found = np.asarray(jax.jit(lambda v: log_density(d, v))(jnp.asarray(values)), np.float64)
        # the parameters as arguments: an array that a model closes over stays as it is
        model = gen(lambda *p: sample("v", make(*p)))
        told = limit(Target(model, tuple(map(jnp.float32, parameters))), {"v": values})
    both = np.isfinite(exact) & np.isfinite(found)
    error = np.std((found - exact)[both]) if both.sum() > 1 else 0.0
    if error > 1.5 * RESOLUTION:
        assert told is not None
    if error < RESOLUTION / 1.5:
        assert told is None
