"""Gaussian processes on a line, as Markov programs: kernels, their law, and its evidence.

A kernel is the law of a linear stochastic differential equation, whose state moves over any gap
by a known matrix and known noise. So a process at n times has a density and draws in O(n), by
one pass of a Kalman filter, and a gradient by one pass back. It may use `ppl`, the algebra and
`validation`, and nothing else.

>>> import jax.numpy as jnp
>>> from inference import gaussian
>>> process = gaussian.gp(gaussian.Matern32(scale=1.0), jnp.array([0.0, 1.0]), noise=0.1)
>>> process.variance.round(4).tolist()
[1.1, 1.1]
"""

from .carma import CARMA
from .exchangeable import Exchangeable
from .kernel import Kernel, Product, Scaled, Sum
from .matern import Matern12, Matern32, Matern52, Matern72
from .oscillator import SHO
from .periodic import Cosine, Periodic, quasi_periodic
from .prediction import Prediction, predict
from .process import GaussianProcess, gp
from .smooth import SquaredExponential
from .space import SpaceTime, SpaceTimePrediction, predict_places, space_time
from .trends import Constant, IntegratedWiener, Linear, Wiener

__all__ = [
    "CARMA",
    "SHO",
    "Constant",
    "Cosine",
    "Exchangeable",
    "GaussianProcess",
    "IntegratedWiener",
    "Kernel",
    "Linear",
    "Matern12",
    "Matern32",
    "Matern52",
    "Matern72",
    "Periodic",
    "Prediction",
    "Product",
    "Scaled",
    "SpaceTime",
    "SpaceTimePrediction",
    "SquaredExponential",
    "Sum",
    "Wiener",
    "gp",
    "predict",
    "predict_places",
    "quasi_periodic",
    "space_time",
]
