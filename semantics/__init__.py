"""Contracts of programs and inference, checked: exactly where finite, else statistically."""

from ppl._siblings import check as _check

from . import programs
from .continuous import check_kernel_quadrature
from .denote import denote, target_measure
from .equivalent import check_equivalent, check_pure
from .gradients import check_gradient
from .laws import check_generative_function
from .ledger import Budget, Evidence, Ledger, stages
from .matrix import Kernel
from .measure import Measure, MeasureError, dirac, uniform, zero
from .moves import check_move
from .proper import check_kernel, check_proper, kernel_matrix
from .report import CheckFailed, Verdict, table
from .resamplers import check_resampler
from .sampled import (
    Opaque,
    blackjax_kernel,
    check_kernel_sampled,
    check_pure_kernel,
    numpyro_kernel,
)

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
    "check_kernel",
    "check_kernel_quadrature",
    "check_kernel_sampled",
    "check_move",
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
