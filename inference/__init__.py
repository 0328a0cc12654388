"""Inference as steps between weighted measures, built from small transformations."""

from ppl._siblings import check as _check

from .draws import Draws
from .kernel import Kernel, Tuning, as_kernel
from .kernels import cycle, iterate, mh, mixture
from .mcmc.hmc import hmc
from .mcmc.nuts import nuts
from .move import Move, metropolize, weigh
from .resample import multinomial, resample, systematic
from .run import sample_posterior
from .weighted import (
    Weighted,
    collapse,
    each,
    importance,
    lift,
    log_evidence,
    spawn,
    start,
    then,
    unit,
)

_check(__name__)

__all__ = [
    "Draws",
    "Kernel",
    "Move",
    "Tuning",
    "Weighted",
    "as_kernel",
    "collapse",
    "cycle",
    "each",
    "hmc",
    "importance",
    "iterate",
    "lift",
    "log_evidence",
    "metropolize",
    "mh",
    "mixture",
    "multinomial",
    "nuts",
    "resample",
    "sample_posterior",
    "spawn",
    "start",
    "systematic",
    "then",
    "unit",
    "weigh",
]
