"""The lean densities and samplers against numpyro's and scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from ppl.distributions import _BASE, _DENSITY, base, log_density

CASES = {
    "normal": (dist.Normal(0.3, 1.7), st.norm(0.3, 1.7)),
    "half normal": (dist.HalfNormal(1.7), st.halfnorm(scale=1.7)),
    "log normal": (dist.LogNormal(0.3, 0.6), st.lognorm(0.6, scale=np.exp(0.3))),
    "uniform": (dist.Uniform(-1.0, 2.5), st.uniform(-1.0, 3.5)),
    "exponential": (dist.Exponential(2.3), st.expon(scale=1 / 2.3)),
    "laplace": (dist.Laplace(0.3, 1.7), st.laplace(0.3, 1.7)),
    "cauchy": (dist.Cauchy(0.3, 1.7), st.cauchy(0.3, 1.7)),
    "half cauchy": (dist.HalfCauchy(1.7), st.halfcauchy(scale=1.7)),
    "levy": (dist.Levy(0.3, 1.7), st.levy(0.3, 1.7)),
    "von mises": (dist.VonMises(0.3, 1.7), st.vonmises(1.7, 0.3)),
    "bernoulli": (dist.Bernoulli(0.3), st.bernoulli(0.3)),
    "bernoulli logits": (dist.Bernoulli(logits=0.3), st.bernoulli(1 / (1 + np.exp(-0.3)))),
    "categorical": (
        dist.Categorical(jnp.array([0.2, 0.0, 0.8])),
        st.rv_discrete(values=([0, 1, 2], [0.2, 0.0, 0.8])),
    ),
    "categorical logits": (
        dist.Categorical(logits=jnp.array([0.0, 1.0, -1.0])),
        st.rv_discrete(values=([0, 1, 2], np.exp([0, 1, -1]) / np.exp([0, 1, -1]).sum())),
    ),
}
cases = pytest.mark.parametrize("d, reference", CASES.values(), ids=CASES.keys())


def test_every_entry_has_a_case():
    tested = {type(d) for d, _ in CASES.values()}
    assert set(_DENSITY) == tested
    assert set(_BASE) == tested - {dist.Levy, dist.VonMises}


@cases
def test_density(d, reference):
    """Equal to scipy's, -inf off the support included; a few roundings of float64."""
    discrete = d.support.is_discrete
    points = np.arange(-1, 4) if discrete else np.array([-3.0, -0.4, 0.0, 0.2, 0.9, 2.4, 7.0])
    with np.errstate(divide="ignore"):
        expected = reference.logpmf(points) if discrete else reference.logpdf(points)
    found = np.asarray(log_density(d, jnp.asarray(points)))
    if isinstance(d, dist.VonMises):  # scipy's goes around the circle again
        expected[abs(points) > np.pi] = -np.inf
    if isinstance(d, dist.LogNormal | dist.Exponential | dist.HalfNormal | dist.HalfCauchy):
        points_at_zero = points == 0  # a null set on which conventions differ
        expected, found = expected[~points_at_zero], found[~points_at_zero]
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@cases
def test_gradient_of_density(d, reference):
    """The derivative in the value and in every parameter equals numpyro's."""
    if d.support.is_discrete:
        pytest.skip("integer values have no derivative")
    value = jnp.asarray(float(reference.median()) * 1.1 + 0.01)
    parameters = {name: jnp.asarray(getattr(d, name)) for name in d.arg_constraints}

    def mine(p, v):
        return log_density(type(d)(**p), v)

    def theirs(p, v):
        return type(d)(**p).log_prob(v)

    found = jax.grad(mine, argnums=(0, 1))(parameters, value)
    expected = jax.grad(theirs, argnums=(0, 1))(parameters, value)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


@cases
def test_sampler_inverts_the_distribution_function(d, reference):
    """A sampler from a base is exact: its value at a quantile is that quantile."""
    found = base(d)
    if type(d) in (dist.Levy, dist.VonMises):
        pytest.skip("numpyro's own sampler")
    assert found is not None
    kind, shape, transform = found
    assert shape == ()
    u = np.linspace(0.001, 0.999, 40)
    e = jnp.asarray(st.norm.ppf(u) if kind == "normal" else u)
    values = np.asarray(jax.vmap(transform)(e))
    if isinstance(d, dist.Bernoulli(0.5).__class__ | dist.Bernoulli(logits=0.0).__class__):
        expected = (u < reference.mean()).astype(int)  # ones first
    elif isinstance(d, dist.HalfNormal):
        expected = np.abs(st.norm.ppf(u)) * 1.7
    else:
        expected = reference.ppf(u)
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "weights", [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [1 / 3] * 3]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_category_of_weight_zero(weights, dtype):
    """At the ends of the uniform's range too."""
    w = jnp.asarray(weights, dtype)
    _, _, transform = base(dist.CategoricalProbs(w))
    ends = [0.0, jnp.finfo(dtype).tiny, 1 - jnp.finfo(dtype).epsneg]
    for u in ends:
        assert w[int(transform(jnp.asarray(u, dtype)))] > 0


@pytest.mark.slow
def test_composite_densities_are_numpyros():
    loc = jnp.arange(6.0).reshape(2, 3)
    for d in [
        dist.Normal(loc, 1.0).to_event(1),
        dist.Normal(loc, 1.0).to_event(2),
        dist.Normal(0.0, 1.0).expand([2, 3]),
        dist.Normal(0.0, 1.0).expand([2, 3]).to_event(1),
        dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)).expand([2]),
        dist.TransformedDistribution(dist.Normal(loc, 1.0), dist.transforms.ExpTransform()),
        dist.MixtureSameFamily(dist.Categorical(jnp.ones(3) / 3), dist.Normal(loc, 1.0)),
        dist.Normal(loc, 1.0).mask(jnp.array([True, False, True])),
        dist.Dirichlet(jnp.ones(3)),
        dist.Gamma(loc + 1, 2.0),
        dist.Poisson(loc + 1),
    ]:
        value = d.sample(jax.random.key(0))
        np.testing.assert_allclose(log_density(d, value), d.log_prob(value), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.float16])
def test_densities_and_draws_keep_the_dtype_of_their_parameters(dtype):
    """In both precisions, traced, beside Python numbers: as numpyro's own density."""

    def density(value, loc, scale):
        return log_density(dist.Normal(loc, scale), value)

    args = (jnp.asarray(0.3, dtype), jnp.asarray(0.1, dtype), jnp.asarray(1.7, dtype))
    found = jax.jit(density)(*args)
    assert found.dtype == dtype
    expected = dist.Normal(*(np.float64(a) for a in args[1:])).log_prob(np.float64(args[0]))
    # five roundings of numbers below two
    assert float(found) == pytest.approx(float(expected), abs=10 * float(jnp.finfo(dtype).eps))
    assert jax.jit(lambda v: density(v, 0.0, 2.0))(args[0]).dtype == dtype


# S6: derivatives at the edge of what weights can be, against the closed form of the density
def test_the_derivative_in_a_weight_that_is_zero():
    normal = lambda m: float(st.norm(m).pdf(0.4))  # noqa: E731
    one, two = normal(0.0), normal(2.0)

    def mixtures(w):
        weights = dist.Categorical(jnp.stack([w, 1 - w]))
        means = jnp.array([0.0, 2.0])
        return (
            dist.MixtureSameFamily(weights, dist.Normal(means, 1.0)),
            dist.MixtureGeneral(weights, [dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0)]),
        )

    for i in range(2):
        for w, exact in ((0.0, one / two - 1), (1.0, 1 - two / one), (0.25, None)):
            density = 0.25 * one + 0.75 * two
            exact = (one - two) / density if exact is None else exact
            found = jax.grad(lambda w, i=i: log_density(mixtures(w)[i], 0.4))(w)
            np.testing.assert_allclose(found, exact, rtol=1e-13)
        at = log_density(mixtures(jnp.asarray(0.25))[i], jnp.array([0.4]))
        np.testing.assert_allclose(at, np.log(0.25 * one + 0.75 * two), rtol=1e-13)


def test_a_category_that_is_not_picked_can_have_no_mass():
    log_p = lambda p, k: log_density(dist.Categorical(jnp.stack([p, 1 - p])), k)  # noqa: E731
    assert jax.grad(log_p)(0.0, 1) == -1 and jax.grad(log_p)(1.0, 0) == 1
    assert log_p(0.0, 0) == -np.inf and log_p(0.3, 2) == -np.inf


EDGES = {
    # a density with its parameter at an edge: the derivative there, in closed form
    "binomial, no success": (lambda p: dist.Binomial(5, p), 0, 0.0, -5.0),
    "binomial, no failure": (lambda p: dist.Binomial(5, p), 5, 1.0, 5.0),
    "poisson": (dist.Poisson, 0, 0.0, -1.0),
    "geometric": (dist.Geometric, 0, 1.0, 1.0),
    "negative binomial": (lambda p: dist.NegativeBinomialProbs(3.0, p), 0, 0.0, -3.0),
    "beta at 0": (lambda b: dist.Beta(1.0, b), 0.0, 8.0, 1 / 8),
    "beta at 1": (lambda a: dist.Beta(a, 1.0), 1.0, 8.0, 1 / 8),
    "uniform at its end": (lambda b: dist.Uniform(0.0, b), 2.0, 2.0, -1 / 2),
    "bernoulli": (dist.Bernoulli, 0, 0.0, -1.0),
    "bernoulli, sure": (dist.Bernoulli, 1, 1.0, 1.0),
}


@pytest.mark.parametrize("make, value, at, slope", EDGES.values(), ids=EDGES.keys())
@pytest.mark.parametrize("x64", [True, False])
def test_derivative_at_an_edge(make, value, at, slope, x64):
    """S6 of the cases; the sweep of its kind: every one-parameter edge whose slope is finite."""
    with jax.enable_x64(x64):
        found = jax.grad(lambda p: log_density(make(p), value))(at)
        np.testing.assert_allclose(found, slope, rtol=1e-5 if not x64 else 1e-13)


def test_derivative_of_a_multinomial_that_leaves_a_class_out():
    """d log p / d p_i = k_i / p_i, and 0 where there is no k, though p is 0."""
    k, p = jnp.array([2, 0, 3]), jnp.array([0.5, 0.0, 0.5])
    found = jax.grad(lambda p: log_density(dist.MultinomialProbs(p, 5), k))(p)
    np.testing.assert_allclose(found, [4.0, 0.0, 6.0], rtol=1e-13)


@pytest.mark.parametrize(
    "d, reference",
    [
        (dist.Binomial(5, 0.3), st.binom(5, 0.3)),
        (dist.Poisson(2.5), st.poisson(2.5)),
        (dist.Geometric(0.3), st.geom(0.3, loc=-1)),
        (dist.Geometric(1.0), st.geom(1.0, loc=-1)),  # numpyro 0.22 says -inf at 0
        (dist.NegativeBinomialProbs(3.0, 0.4), st.nbinom(3.0, 0.6)),
        (dist.Beta(1.0, 3.0), st.beta(1.0, 3.0)),
        (dist.Beta(2.0, 1.0), st.beta(2.0, 1.0)),
    ],
)
def test_densities_with_right_edges_are_scipys(d, reference):
    """A few roundings of sums of terms below ten; -inf off the support."""
    points = np.arange(-1, 7) if d.support.is_discrete else np.array([-0.5, 0.0, 0.2, 0.9, 1.0, 2])
    with np.errstate(divide="ignore"):
        theirs = reference.logpmf(points) if d.support.is_discrete else reference.logpdf(points)
    np.testing.assert_allclose(log_density(d, jnp.asarray(points)), theirs, rtol=1e-12, atol=1e-13)
