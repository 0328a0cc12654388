"""Contracts of programs and inference, checked: exactly where finite, else statistically."""

from ppl._siblings import check as _check

from . import evidence, programs
from .denote import denote, target_measure
from .ledger import Budget, Evidence, Ledger, stages
from .matrix import Kernel
from .measure import Measure, dirac, uniform, zero
from .proper import check_kernel, check_proper, kernel_matrix
from .report import CheckFailed, Verdict, table

_check(__name__)

__all__ = [
    "Budget",
    "CheckFailed",
    "Evidence",
    "Kernel",
    "Ledger",
    "Measure",
    "Verdict",
    "check_kernel",
    "check_proper",
    "denote",
    "dirac",
    "evidence",
    "kernel_matrix",
    "programs",
    "stages",
    "table",
    "target_measure",
    "uniform",
    "zero",
]
