"""Inference as steps between weighted measures, built from small transformations."""

from ppl._siblings import check as _check

from .kernels import cycle, iterate, mh, mixture
from .move import Move, metropolize, weigh
from .resample import multinomial, resample, systematic
from .run import Draws, sample_posterior
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
    "Move",
    "Weighted",
    "collapse",
    "cycle",
    "each",
    "importance",
    "iterate",
    "lift",
    "log_evidence",
    "metropolize",
    "mh",
    "mixture",
    "multinomial",
    "resample",
    "sample_posterior",
    "spawn",
    "start",
    "systematic",
    "then",
    "unit",
    "weigh",
]
