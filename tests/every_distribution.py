"""Every distribution of numpyro: a registry that tests go through.

`EVERY[name](batch)` is an instance of that batch shape, with events of size 3 (or 3 x 3)
where the family has events, so that with a batch of 3 a flag for each row and a flag for each
element of an event have one shape. `HurdleNegativeBinomial2` is left out: numpyro cannot take
its own instances apart and put them together again.
"""

import inspect
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

N = 3
SIMPLEX = np.array([0.2, 0.3, 0.5])
TRIL = np.array([[1.0, 0.0, 0.0], [0.3, 0.9, 0.0], [-0.2, 0.4, 1.1]])
COV = TRIL @ TRIL.T
NEIGHBOURS = np.ones((N, N)) - np.eye(N)


def full(batch, *values):
    """Each of `values` (floats, or arrays of an event) for each element of the batch."""
    return [jnp.broadcast_to(jnp.asarray(v, float), (*batch, *np.shape(v))) for v in values]


def of(family, *values, **fixed):
    """A family that takes parameters of the batch shape."""
    return lambda batch: family(*full(batch, *values), **fixed)


def on(family, base, *more, **fixed):
    """A family that takes a distribution of the batch shape first."""
    return lambda batch: family(base(batch), *full(batch, *more), **fixed)


normal = of(dist.Normal, 0.3, 1.2)
poisson = of(dist.Poisson, 1.7)
gamma = of(dist.Gamma, 2.0, 1.5)


def general_mixture(batch):
    parts = [normal(batch), of(dist.Laplace, 0.0, 1.0)(batch)]
    weights = jnp.broadcast_to(SIMPLEX[:2] * 2, (*batch, 2))
    return dist.MixtureGeneral(dist.Categorical(weights), parts)


def same_family(batch):
    weights = jnp.broadcast_to(SIMPLEX, (*batch, N))
    return dist.MixtureSameFamily(dist.Categorical(weights), normal((*batch, N)))


def vectors(batch):
    """A mixture of vectors."""
    weights = jnp.broadcast_to(SIMPLEX[:2] * 2, (*batch, 2))
    return dist.MixtureSameFamily(dist.Categorical(weights), multivariate((*batch, 2)))


multivariate = of(dist.MultivariateNormal, np.arange(3.0), COV)

EVERY: dict[str, Callable] = {
    "AsymmetricLaplace": of(dist.AsymmetricLaplace, 0.3, 1.2, 0.7),
    "AsymmetricLaplaceQuantile": of(dist.AsymmetricLaplaceQuantile, 0.3, 1.2, 0.4),
    "BernoulliLogits": of(dist.BernoulliLogits, 0.4),
    "BernoulliProbs": of(dist.BernoulliProbs, 0.4),
    "Beta": of(dist.Beta, 2.0, 1.5),
    "BetaBinomial": of(dist.BetaBinomial, 2.0, 1.5, total_count=4),
    "BetaNegativeBinomial": of(dist.BetaNegativeBinomial, 2.0, 3.5, 4.0),
    "BetaProportion": of(dist.BetaProportion, 0.4, 3.0),
    "BinomialLogits": of(dist.BinomialLogits, 0.4, total_count=4),
    "BinomialProbs": of(dist.BinomialProbs, 0.4, total_count=4),
    "CAR": lambda b: dist.CAR(*full(b, np.zeros(N), 0.3, 1.4), NEIGHBOURS).expand(b),
    "CategoricalLogits": of(dist.CategoricalLogits, np.arange(3.0)),
    "CategoricalProbs": of(dist.CategoricalProbs, SIMPLEX),
    "Cauchy": of(dist.Cauchy, 0.3, 1.2),
    "Chi2": of(dist.Chi2, 3.0),
    "CirculantNormal": of(dist.CirculantNormal, np.zeros(N), np.array([1.0, 0.3, 0.3])),
    "Dagum": of(dist.Dagum, 2.0, 1.5, 1.2),
    "Delta": of(dist.Delta, 0.7),
    "Delta, an event": of(dist.Delta, np.arange(3.0), event_dim=1),
    "Dirichlet": of(dist.Dirichlet, np.array([2.0, 1.0, 3.0])),
    "DirichletMultinomial": of(dist.DirichletMultinomial, np.array([2.0, 1.0, 3.0]), total_count=4),
    "DiscreteUniform": lambda b: dist.DiscreteUniform(*(jnp.full(b, k) for k in (1, 6))),
    "DoublyTruncatedPowerLaw": of(dist.DoublyTruncatedPowerLaw, -1.5, 0.5, 4.0),
    "EulerMaruyama": lambda b: dist.EulerMaruyama(
        jnp.linspace(0.0, 1.0, N), lambda x, t: (-x, jnp.ones_like(x)), dist.Normal(0.0, 1.0)
    ).expand(b),
    "ExpandedDistribution": lambda b: dist.Normal(jnp.full([1] * len(b), 0.3), 1.2).expand(b),
    "Exponential": of(dist.Exponential, 1.3),
    "FoldedDistribution": on(dist.FoldedDistribution, normal),
    "Gamma": gamma,
    "GammaPoisson": of(dist.GammaPoisson, 2.0, 1.5),
    "GaussianCopula": lambda b: dist.GaussianCopula(
        dist.Beta(*full((*b, N), 2.0, 1.5)), correlation_matrix=_correlated()
    ),
    "GaussianCopulaBeta": lambda b: dist.GaussianCopulaBeta(
        *full((*b, N), 2.0, 1.5), correlation_matrix=_correlated()
    ),
    "GaussianRandomWalk": of(dist.GaussianRandomWalk, 0.7, num_steps=N),
    "GaussianStateSpace": lambda b: dist.GaussianStateSpace(
        2, 0.5 * jnp.eye(2), jnp.eye(2), initial_value=jnp.zeros((*b, 2))
    ).expand(b),
    "GeometricLogits": of(dist.GeometricLogits, 0.4),
    "GeometricProbs": of(dist.GeometricProbs, 0.4),
    "Gompertz": of(dist.Gompertz, 2.0, 1.5),
    "Gumbel": of(dist.Gumbel, 0.3, 1.2),
    "HalfCauchy": of(dist.HalfCauchy, 1.2),
    "HalfNormal": of(dist.HalfNormal, 1.2),
    "HurdleGamma": of(dist.HurdleGamma, 0.4, 2.0, 1.5),
    "HurdleLogNormal": of(dist.HurdleLogNormal, 0.4, 0.3, 1.2),
    "HurdleLogits": on(dist.HurdleLogits, poisson, 0.4),
    "HurdlePoisson": of(dist.HurdlePoisson, 0.4, 1.7),
    "HurdleProbs": on(dist.HurdleProbs, poisson, 0.4),
    "ImproperUniform": lambda b: dist.ImproperUniform(dist.constraints.real, b, ()),
    "Independent": lambda b: normal((*b, N)).to_event(1),
    "Independent of an event": lambda b: multivariate((*b, N)).to_event(1),
    "IntervalCensoredDistribution": lambda b: dist.IntervalCensoredDistribution(
        normal(b), jnp.zeros(b, bool), jnp.zeros(b, bool)
    ),
    "InverseGamma": of(dist.InverseGamma, 3.0, 1.5),
    "InverseWishart": of(dist.InverseWishart, 6.0, COV),
    "InverseWishartCholesky": of(dist.InverseWishartCholesky, 6.0, COV),
    "Kumaraswamy": of(dist.Kumaraswamy, 2.0, 1.5),
    "LKJ": lambda b: dist.LKJ(N, *full(b, 1.5)),
    "LKJCholesky": lambda b: dist.LKJCholesky(N, *full(b, 1.5)),
    "Laplace": of(dist.Laplace, 0.3, 1.2),
    "LeftCensoredDistribution": lambda b: dist.LeftCensoredDistribution(
        normal(b), jnp.zeros(b, bool)
    ),
    "LeftTruncatedDistribution": lambda b: dist.LeftTruncatedDistribution(normal(b), 0.1),
    "LeftTruncatedGamma": lambda b: dist.LeftTruncatedGamma(gamma(b), 0.1),
    "Levy": of(dist.Levy, 0.3, 1.2),
    "LogNormal": of(dist.LogNormal, 0.3, 1.2),
    "LogUniform": of(dist.LogUniform, 0.5, 4.0),
    "Logistic": of(dist.Logistic, 0.3, 1.2),
    "LowRankMultivariateNormal": of(
        dist.LowRankMultivariateNormal, np.zeros(N), TRIL[:, :1], np.ones(N)
    ),
    "LowerTruncatedPowerLaw": of(dist.LowerTruncatedPowerLaw, -2.5, 0.5),
    "MaskedDistribution": lambda b: normal(b).mask(jnp.ones(b, bool)),
    "MatrixNormal": of(dist.MatrixNormal, np.zeros((N, N)), TRIL, TRIL),
    "MixtureGeneral": general_mixture,
    "MixtureSameFamily": same_family,
    "MixtureSameFamily of events": vectors,
    "MultinomialLogits": of(dist.MultinomialLogits, np.arange(3.0), total_count=4),
    "MultinomialProbs": of(dist.MultinomialProbs, SIMPLEX, total_count=4),
    "MultivariateNormal": multivariate,
    "MultivariateStudentT": of(dist.MultivariateStudentT, 4.0, np.zeros(N), TRIL),
    "NegativeBinomial2": of(dist.NegativeBinomial2, 2.0, 1.5),
    "NegativeBinomialLogits": of(dist.NegativeBinomialLogits, 3.0, 0.4),
    "NegativeBinomialProbs": of(dist.NegativeBinomialProbs, 3.0, 0.4),
    "Normal": normal,
    "OrderedLogistic": of(dist.OrderedLogistic, 0.3, np.array([-1.0, 0.5])),
    "Pareto": of(dist.Pareto, 0.5, 1.5),
    "Poisson": poisson,
    "ProjectedNormal": of(dist.ProjectedNormal, np.array([0.5, -1.0, 0.2])),
    "RelaxedBernoulliLogits": of(dist.RelaxedBernoulliLogits, 0.7, 0.4),
    "RightCensoredDistribution": lambda b: dist.RightCensoredDistribution(
        normal(b), jnp.zeros(b, bool)
    ),
    "RightTruncatedDistribution": lambda b: dist.RightTruncatedDistribution(normal(b), 2.0),
    "RightTruncatedGamma": lambda b: dist.RightTruncatedGamma(gamma(b), 2.0),
    "SineBivariateVonMises": of(dist.SineBivariateVonMises, 0.3, -0.2, 2.0, 1.5, 0.4),
    "SineSkewed": lambda b: dist.SineSkewed(
        dist.VonMises(*full((*b, 2), 0.3, 1.2)).to_event(1), *full((*b, 2), 0.3)
    ),
    "SoftLaplace": of(dist.SoftLaplace, 0.3, 1.2),
    "StudentT": of(dist.StudentT, 3.0, 0.3, 1.2),
    "TransformedDistribution": on(
        dist.TransformedDistribution, normal, transforms=dist.transforms.ExpTransform()
    ),
    "TransformedDistribution of an event": on(
        dist.TransformedDistribution, multivariate, transforms=dist.transforms.ExpTransform()
    ),
    "TruncatedPolyaGamma": lambda b: dist.TruncatedPolyaGamma(batch_shape=b),
    "TwoSidedTruncatedDistribution": lambda b: dist.TwoSidedTruncatedDistribution(
        normal(b), 0.1, 2.0
    ),
    "TwoSidedTruncatedGamma": lambda b: dist.TwoSidedTruncatedGamma(gamma(b), 0.1, 2.0),
    "Uniform": of(dist.Uniform, -1.0, 2.0),
    "Unit": of(dist.Unit, 0.3),
    "VonMises": of(dist.VonMises, 0.3, 1.2),
    "Weibull": of(dist.Weibull, 2.0, 1.5),
    "Wishart": of(dist.Wishart, 6.0, COV),
    "WishartCholesky": of(dist.WishartCholesky, 6.0, COV),
    "ZeroInflatedLogits": on(dist.ZeroInflatedLogits, poisson, 0.4),
    "ZeroInflatedPoisson": of(dist.ZeroInflatedPoisson, 0.4, 1.7),
    "ZeroInflatedProbs": on(dist.ZeroInflatedProbs, poisson, 0.4),
    "ZeroInflatedNegativeBinomial2": of(
        dist.ZeroInflatedNegativeBinomial2, 2.0, 1.5, gate=np.array(0.4)
    ),
    "ZeroSumNormal": lambda b: dist.ZeroSumNormal(jnp.asarray(1.2), event_shape=(N,)).expand(b),
}
NO_SAMPLER = {"ImproperUniform"}


def _correlated():
    scale = np.sqrt(np.diag(COV))
    return jnp.asarray(COV / np.outer(scale, scale))


def families() -> set[str]:
    """The names of numpyro's concrete distributions."""
    found = {name: getattr(dist, name) for name in dir(dist) if name != "Distribution"}
    return {n for n, d in found.items() if inspect.isclass(d) and issubclass(d, dist.Distribution)}


def at(name: str, batch: tuple[int, ...]):
    """An instance of that batch shape; numpyro's constructors take no parameters of size 0."""
    return EVERY[name](()).expand(batch) if 0 in batch else EVERY[name](batch)


def values(d, seed: int = 0) -> np.ndarray:
    """Values of `d` that differ between its elements, without running its sampler."""
    rng, shape, inner = np.random.default_rng(seed), d.shape(), d
    if isinstance(d, dist.Unit):
        return np.zeros(shape)
    while isinstance(inner, (dist.Independent, dist.ExpandedDistribution)):
        inner = inner.base_dist
    if isinstance(inner, dist.Delta):
        return np.broadcast_to(inner.v, shape)
    if isinstance(inner, dist.IntervalCensoredDistribution):
        return np.sort(rng.normal(size=shape), -1)
    if d.support.is_discrete:
        if d.event_shape:
            return rng.multinomial(4, np.ones(N) / N, size=d.batch_shape)
        return (
            rng.integers(1, 3, size=shape)
            if "Uniform" in type(inner).__name__
            else (rng.integers(0, 2, size=shape))
        )
    z = rng.normal(size=shape)
    if isinstance(inner, dist.ProjectedNormal):
        return z / np.linalg.norm(z, axis=-1, keepdims=True)
    if isinstance(inner, (dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)):
        return np.clip(z, -3.0, 3.0)
    if isinstance(inner, dist.EulerMaruyama):
        return z
    bijection = dist.biject_to(d.support)
    return np.asarray(bijection(rng.normal(size=bijection.inverse_shape(shape))))
