"""Contracts of programs and inference, checked: exactly where finite, else statistically."""

from ppl._siblings import check as _check

from .contracts.continuous import check_kernel_quadrature
from .contracts.equivalent import check_equivalent, check_pure
from .contracts.gradients import check_gradient
from .contracts.moves import check_move
from .contracts.orbits import check_orbit
from .contracts.proper import check_kernel, check_proper, kernel_matrix
from .contracts.resamplers import check_resampler
from .contracts.sampled import (
    Opaque,
    blackjax_kernel,
    check_kernel_sampled,
    check_pure_kernel,
    numpyro_kernel,
)
from .contracts.sampled_gradients import check_gradient_sampled
from .evidence.ledger import Budget, Evidence, Ledger, stages
from .generated import programs
from .laws.generative_function import check_generative_function
from .measures.denote import denote, target_measure
from .measures.matrix import Kernel
from .measures.measure import Measure, MeasureError, dirac, uniform, zero
from .report import CheckFailed, Verdict, table

_check(__name__)

__all__ = [
    "Budget",
    "CheckFailed",
    "Evidence",
    "Kernel",
    "Ledger",
    "Measure",
    "MeasureError",
    "Opaque",
    "Verdict",
    "blackjax_kernel",
    "check_equivalent",
    "check_generative_function",
    "check_gradient",
    "check_gradient_sampled",
    "check_kernel",
    "check_kernel_quadrature",
    "check_kernel_sampled",
    "check_move",
    "check_orbit",
    "check_proper",
    "check_pure",
    "check_pure_kernel",
    "check_resampler",
    "denote",
    "dirac",
    "kernel_matrix",
    "numpyro_kernel",
    "programs",
    "stages",
    "table",
    "target_measure",
    "uniform",
    "zero",
]
