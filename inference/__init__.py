"""Inference as steps between weighted measures, built from small transformations."""

from ppl._siblings import check as _check

from .draws import Draws
from .export import to_datatree
from .kernel import Kernel, Tuning, as_kernel
from .kernels import cycle, iterate, mh, mixture
from .loo import Loo, loo
from .mcmc.hmc import hmc
from .mcmc.nuts import nuts
from .move import Move, metropolize, weigh
from .plots import plot_posterior, plot_predictive, plot_trace
from .pointwise import log_likelihood
from .predictive import posterior_predictive, prior_predictive
from .resample import multinomial, resample, systematic
from .run import sample_posterior
from .summary import Summary
from .verdict import Divergences, Verdict
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
    "Divergences",
    "Draws",
    "Kernel",
    "Loo",
    "Move",
    "Summary",
    "Tuning",
    "Verdict",
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
    "log_likelihood",
    "loo",
    "metropolize",
    "mh",
    "mixture",
    "multinomial",
    "nuts",
    "plot_posterior",
    "plot_predictive",
    "plot_trace",
    "posterior_predictive",
    "prior_predictive",
    "resample",
    "sample_posterior",
    "spawn",
    "start",
    "systematic",
    "then",
    "to_datatree",
    "unit",
    "weigh",
]
