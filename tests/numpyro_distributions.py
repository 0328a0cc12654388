"""All distributions of numpyro, each with valid parameters: the registry of the sweeps."""

import inspect

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

TWO, EYE = np.array([0.5, 1.5]), np.eye(2)
NORMAL = dist.Normal(0.0, 1.0)
HALF = {"concentration1": 2.0, "concentration0": 3.0}

VALID = {
    "AsymmetricLaplace": {"loc": 0.1, "scale": 1.2, "asymmetry": 1.5},
    "AsymmetricLaplaceQuantile": {"loc": 0.1, "scale": 1.2, "quantile": 0.3},
    "BernoulliLogits": {"logits": 0.3},
    "BernoulliProbs": {"probs": 0.3},
    "Beta": HALF,
    "BetaBinomial": {**HALF, "total_count": 5},
    "BetaNegativeBinomial": {**HALF, "n": 4.0},
    "BetaProportion": {"mean": 0.3, "concentration": 2.0},
    "BinomialLogits": {"logits": 0.3, "total_count": 5},
    "BinomialProbs": {"probs": 0.3, "total_count": 5},
    "CAR": {
        "loc": np.zeros(2), "correlation": 0.3, "conditional_precision": 2.0,
        "adj_matrix": 1.0 - EYE,
    },
    "CategoricalLogits": {"logits": TWO},
    "CategoricalProbs": {"probs": np.array([0.25, 0.75])},
    "Cauchy": {"loc": 0.1, "scale": 1.2},
    "Chi2": {"df": 3.0},
    "CirculantNormal": {"loc": np.zeros(3), "covariance_row": np.array([2.0, 0.5, 0.5])},
    "Dagum": {"concentration": 2.0, "sharpness": 1.5, "scale": 1.2},
    "Delta": {"v": 0.5, "log_density": 0.0},
    "Dirichlet": {"concentration": TWO},
    "DirichletMultinomial": {"concentration": TWO, "total_count": 5},
    "DiscreteUniform": {"low": 1, "high": 6},
    "DoublyTruncatedPowerLaw": {"alpha": -2.0, "low": 1.0, "high": 3.0},
    "EulerMaruyama": {
        "t": np.array([0.0, 0.5, 1.0]), "sde_fn": lambda x, t: (-x, jnp.ones_like(x)),
        "init_dist": NORMAL,
    },
    "Exponential": {"rate": 2.0},
    "FoldedDistribution": {"base_dist": NORMAL},
    "Gamma": {"concentration": 2.0, "rate": 1.5},
    "GammaPoisson": {"concentration": 2.0, "rate": 1.5},
    "GaussianCopula": {"marginal_dist": NORMAL, "correlation_matrix": EYE},
    "GaussianCopulaBeta": {**HALF, "correlation_matrix": EYE},
    "GaussianRandomWalk": {"scale": 1.2, "num_steps": 3},
    "GaussianStateSpace": {
        "num_steps": 3, "transition_matrix": 0.5 * EYE, "covariance_matrix": EYE,
    },
    "GeometricLogits": {"logits": 0.3},
    "GeometricProbs": {"probs": 0.3},
    "Gompertz": {"concentration": 2.0, "rate": 1.5},
    "Gumbel": {"loc": 0.1, "scale": 1.2},
    "HalfCauchy": {"scale": 1.2},
    "HalfNormal": {"scale": 1.2},
    "HurdleGamma": {"gate": 0.3, "concentration": 2.0, "rate": 1.5},
    "HurdleLogNormal": {"gate": 0.3, "loc": 0.1, "scale": 1.2},
    "HurdleLogits": {"base_dist": dist.Poisson(2.0), "gate_logits": 0.3},
    "HurdlePoisson": {"gate": 0.3, "rate": 2.0},
    "HurdleProbs": {"base_dist": dist.Poisson(2.0), "gate": 0.3},
    "InverseGamma": {"concentration": 2.0, "rate": 1.5},
    "InverseWishart": {"concentration": 4.0, "scale_matrix": EYE},
    "InverseWishartCholesky": {"concentration": 4.0, "scale_matrix": EYE},
    "Kumaraswamy": HALF,
    "LKJ": {"dimension": 3, "concentration": 1.5},
    "LKJCholesky": {"dimension": 3, "concentration": 1.5},
    "Laplace": {"loc": 0.1, "scale": 1.2},
    "LeftTruncatedDistribution": {"base_dist": NORMAL, "low": 0.5},
    "LeftTruncatedGamma": {"base_dist": dist.Gamma(2.0, 1.5), "low": 0.5},
    "Levy": {"loc": 0.1, "scale": 1.2},
    "LogNormal": {"loc": 0.1, "scale": 1.2},
    "LogUniform": {"low": 1.0, "high": 3.0},
    "Logistic": {"loc": 0.1, "scale": 1.2},
    "LowRankMultivariateNormal": {"loc": np.zeros(2), "cov_factor": EYE, "cov_diag": np.ones(2)},
    "LowerTruncatedPowerLaw": {"alpha": -2.0, "low": 1.0},
    "MatrixNormal": {"loc": np.zeros((2, 2)), "scale_tril_row": EYE, "scale_tril_column": EYE},
    "MixtureGeneral": {
        "mixing_distribution": dist.Categorical(np.array([0.5, 0.5])),
        "component_distributions": [NORMAL, dist.Laplace(0.0, 1.0)],
    },
    "MixtureSameFamily": {
        "mixing_distribution": dist.Categorical(np.array([0.5, 0.5])),
        "component_distribution": dist.Normal(TWO, 1.0),
    },
    "MultinomialLogits": {"logits": TWO, "total_count": 5},
    "MultinomialProbs": {"probs": np.array([0.25, 0.75]), "total_count": 5},
    "MultivariateNormal": {"loc": np.zeros(2), "covariance_matrix": EYE},
    "MultivariateStudentT": {"df": 3.0, "loc": np.zeros(2), "scale_tril": EYE},
    "NegativeBinomial2": {"mean": 2.0, "concentration": 1.5},
    "NegativeBinomialLogits": {"total_count": 4.0, "logits": 0.3},
    "NegativeBinomialProbs": {"total_count": 4.0, "probs": 0.3},
    "Normal": {"loc": 0.1, "scale": 1.2},
    "OrderedLogistic": {"predictor": 0.3, "cutpoints": TWO},
    "Pareto": {"scale": 1.2, "alpha": 2.0},
    "Poisson": {"rate": 2.0},
    "ProjectedNormal": {"concentration": TWO},
    "RelaxedBernoulliLogits": {"temperature": 0.5, "logits": 0.3},
    "RightTruncatedDistribution": {"base_dist": NORMAL, "high": 0.5},
    "RightTruncatedGamma": {"base_dist": dist.Gamma(2.0, 1.5), "high": 0.5},
    "SineBivariateVonMises": {
        "phi_loc": np.array(0.1), "psi_loc": np.array(0.2), "correlation": np.array(0.5),
        "phi_concentration": np.array(2.0), "psi_concentration": np.array(3.0),
    },
    "SoftLaplace": {"loc": 0.1, "scale": 1.2},
    "StudentT": {"df": 3.0, "loc": 0.1, "scale": 1.2},
    "TransformedDistribution": {
        "base_distribution": NORMAL, "transforms": transforms.ExpTransform(),
    },
    "TruncatedPolyaGamma": {},
    "TwoSidedTruncatedDistribution": {"base_dist": NORMAL, "low": 0.5, "high": 1.5},
    "TwoSidedTruncatedGamma": {"base_dist": dist.Gamma(2.0, 1.5), "low": 0.5, "high": 1.5},
    "Uniform": {"low": 0.5, "high": 1.5},
    "VonMises": {"loc": 0.1, "concentration": 2.0},
    "Weibull": {"scale": 1.2, "concentration": 2.0},
    "Wishart": {"concentration": 4.0, "scale_matrix": EYE},
    "WishartCholesky": {"concentration": 4.0, "scale_matrix": EYE},
    "ZeroInflatedLogits": {"base_dist": dist.Poisson(2.0), "gate_logits": 0.3},
    "ZeroInflatedPoisson": {"gate": 0.3, "rate": 2.0},
    "ZeroInflatedProbs": {"base_dist": dist.Poisson(2.0), "gate": 0.3},
    "ZeroSumNormal": {"scale": 1.2, "event_shape": (3,)},
    "ImproperUniform": {"support": constraints.real, "batch_shape": (), "event_shape": ()},
}  # fmt: skip

# no laws of their own, or of data that say for each value whether it is censored
WRAPPERS = {
    "Distribution", "ExpandedDistribution", "Independent", "MaskedDistribution", "Unit",
    "IntervalCensoredDistribution", "LeftCensoredDistribution", "RightCensoredDistribution",
    "SineSkewed",
}  # fmt: skip


def public() -> set[str]:
    """The names of all classes of distributions that numpyro exports."""
    return {
        name
        for name, each in vars(dist).items()
        if inspect.isclass(each) and issubclass(each, dist.Distribution)
    }
