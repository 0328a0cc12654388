"""Inference as steps between weighted measures, built from small transformations."""

from ppl._siblings import check as _check

from .adaptive import Annealed, adaptive_annealing, particle_metric
from .algorithms import Algorithm, by_filter, by_importance
from .ancestry import filter_error, log_evidence_error, relative_variance
from .annealing import annealed, retarget, reverse_annealed
from .belief_series import filter_beliefs
from .choose import choose
from .conditional import conditional_filter, particle_gibbs
from .correlated import auxiliary_marginal, correlated
from .degeneracy import degeneracy
from .draws import Draws
from .ensemble import stretch
from .enumerated import Enumerated
from .export import to_datatree
from .filtering import Ancestry, Filtered, Path, particle_filter
from .gibbs import gibbs
from .islands import islands, merged, spread, within
from .jumps import birth_death, one_row, split_merge
from .kernel import Kernel, Tuning, as_kernel
from .kernels import cycle, iterate, mh, mixture
from .loo import Loo, loo
from .marginalized import marginalize
from .mcmc.delayed import delayed_acceptance
from .mcmc.hmc import hmc
from .mcmc.langevin import mala, minibatch, sghmc, sgld
from .mcmc.nuts import nuts
from .mcmc.slices import elliptical_slice, slice_sample
from .mcmc.walk import random_walk
from .move import Move, accept, metropolize, mhg, weigh
from .nested import Nested, nested_sampling
from .ordering import sort_by
from .particle_plots import plot_ancestry, plot_ess, plot_weights
from .particle_run import ParticleRun, run_particles
from .particles import History, advance, over, recorded, reweight
from .plates import mh_each
from .plots import plot_posterior, plot_predictive, plot_trace
from .pointwise import log_likelihood
from .predictive import posterior_predictive, prior_predictive
from .proposals import propose
from .pseudo import filter_series, marginal
from .rao_blackwell import Belief, rao_blackwell
from .resample import effective_sample_size, resample, when_ess_below
from .retraced import by_annealing
from .run import sample_posterior
from .schemes import killing, multinomial, residual, ssp, stratified, systematic
from .smc2 import smc2
from .smoothing import backward_sample, fixed_lag, genealogy
from .stochastic import Stochastic, normalize
from .summary import Summary
from .temper import temper
from .tempering import parallel_tempering
from .translate import translate
from .verdict import Divergences, Verdict
from .waste_free import waste_free
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
    "Algorithm",
    "Ancestry",
    "Annealed",
    "Belief",
    "Divergences",
    "Draws",
    "Enumerated",
    "Filtered",
    "History",
    "Kernel",
    "Loo",
    "Move",
    "Nested",
    "ParticleRun",
    "Path",
    "Stochastic",
    "Summary",
    "Tuning",
    "Verdict",
    "Weighted",
    "accept",
    "adaptive_annealing",
    "advance",
    "annealed",
    "as_kernel",
    "auxiliary_marginal",
    "backward_sample",
    "birth_death",
    "by_annealing",
    "by_filter",
    "by_importance",
    "choose",
    "collapse",
    "conditional_filter",
    "correlated",
    "cycle",
    "degeneracy",
    "delayed_acceptance",
    "each",
    "effective_sample_size",
    "elliptical_slice",
    "filter_beliefs",
    "filter_error",
    "filter_series",
    "fixed_lag",
    "genealogy",
    "gibbs",
    "hmc",
    "importance",
    "islands",
    "iterate",
    "killing",
    "lift",
    "log_evidence",
    "log_evidence_error",
    "log_likelihood",
    "loo",
    "mala",
    "marginal",
    "marginalize",
    "merged",
    "metropolize",
    "mh",
    "mh_each",
    "mhg",
    "minibatch",
    "mixture",
    "multinomial",
    "nested_sampling",
    "normalize",
    "nuts",
    "one_row",
    "over",
    "parallel_tempering",
    "particle_filter",
    "particle_gibbs",
    "particle_metric",
    "plot_ancestry",
    "plot_ess",
    "plot_posterior",
    "plot_predictive",
    "plot_trace",
    "plot_weights",
    "posterior_predictive",
    "prior_predictive",
    "propose",
    "random_walk",
    "rao_blackwell",
    "recorded",
    "relative_variance",
    "resample",
    "residual",
    "retarget",
    "reverse_annealed",
    "reweight",
    "run_particles",
    "sample_posterior",
    "sghmc",
    "sgld",
    "slice_sample",
    "smc2",
    "sort_by",
    "spawn",
    "split_merge",
    "spread",
    "ssp",
    "start",
    "stratified",
    "stretch",
    "systematic",
    "temper",
    "then",
    "to_datatree",
    "translate",
    "unit",
    "waste_free",
    "weigh",
    "when_ess_below",
    "within",
]
