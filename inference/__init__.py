"""Inference as steps between weighted measures, built from small transformations."""

from ppl._siblings import check as _check

from .choose import choose
from .estimated.algorithms import Algorithm, by_filter, by_importance
from .estimated.belief_series import filter_beliefs
from .estimated.conditional_annealing import by_annealing
from .estimated.correlated import auxiliary_marginal, correlated
from .estimated.marginalized import marginalize
from .estimated.normalized import normalize
from .estimated.pseudo_marginal import filter_series, marginal
from .estimated.smc2 import smc2
from .exact.believed import Belief
from .exact.enumerated import Enumerated
from .exact.outcomes import Outcomes
from .exact.rao_blackwell import rao_blackwell
from .exact.recover import beliefs, most_likely, restore
from .exact.summed_out import sum_out
from .guides.flow import flow
from .guides.gaussian import full_rank, low_rank, mean_field
from .guides.laplace import laplace
from .guides.pathfinder import Pathfinder, pathfinder
from .guides.structured import structured
from .kernel import Kernel, Tuning, as_kernel
from .kernels import cycle, iterate, mh, mixture
from .mcmc.delayed import delayed_acceptance
from .mcmc.ensemble import stretch
from .mcmc.gibbs import gibbs
from .mcmc.hmc import hmc
from .mcmc.jumps import birth_death, one_row, split_merge
from .mcmc.langevin import mala, sghmc, sgld
from .mcmc.mh_each import mh_each
from .mcmc.nuts import nuts
from .mcmc.proposals import propose
from .mcmc.random_walk import random_walk
from .mcmc.slices import elliptical_slice, slice_sample
from .mcmc.tempering import parallel_tempering
from .move import Move, accept, metropolize, mhg, weigh
from .results.degeneracy import degeneracy
from .results.draws import Draws
from .results.export import to_datatree
from .results.fit_plots import plot_fit
from .results.fit_report import FitReport
from .results.fitted import Fitted
from .results.loo import Loo, loo
from .results.particle_plots import plot_ancestry, plot_ess, plot_weights
from .results.particles import Particles
from .results.plots import plot_posterior, plot_predictive, plot_trace
from .results.pointwise import log_likelihood
from .results.posteriordb import Reference, read_posteriordb
from .results.predictive import posterior_predictive, prior_predictive
from .results.summary import Summary
from .results.verdict import Divergences, Verdict
from .running.data_sets import sample_posteriors
from .running.fitting import fit
from .running.particle_run import ParticleRun, run_particles
from .running.sampling import sample_posterior
from .smc.adaptive import Annealed, adaptive_annealing, particle_metric
from .smc.ancestry import filter_error, log_evidence_error, relative_variance
from .smc.annealing import annealed, retarget, reverse_annealed
from .smc.conditional import conditional_filter, particle_gibbs
from .smc.filtering import Ancestry, Filtered, Path, particle_filter
from .smc.islands import islands, merged, spread, within
from .smc.nested import Nested, nested_sampling
from .smc.ordering import sort_by
from .smc.particles import History, advance, over, recorded, reweight
from .smc.resample import effective_sample_size, resample, when_ess_below
from .smc.schemes import killing, multinomial, residual, ssp, stratified, systematic
from .smc.smoothing import backward_sample, fixed_lag, genealogy
from .smc.translate import translate
from .smc.waste_free import waste_free
from .targets.minibatch import Minibatch, minibatch
from .targets.stochastic import Stochastic
from .targets.temper import temper
from .vi.auxiliary import diwhvi, hvi, iwhvi
from .vi.discrepancies import energy_distance, mmd
from .vi.divergences import forward_kl, symmetric_kl
from .vi.f_divergence import f_divergence
from .vi.filtering import FilterObjective, vsmc
from .vi.objective import Objective
from .vi.objectives import elbo, iwelbo
from .vi.renyi import renyi
from .vi.score_matching import score_matching
from .vi.vimco import vimco
from .vi.wake import sleep, wake, wake_p
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
    "FilterObjective",
    "Filtered",
    "FitReport",
    "Fitted",
    "History",
    "Kernel",
    "Loo",
    "Minibatch",
    "Move",
    "Nested",
    "Objective",
    "Outcomes",
    "ParticleRun",
    "Particles",
    "Path",
    "Pathfinder",
    "Reference",
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
    "beliefs",
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
    "diwhvi",
    "each",
    "effective_sample_size",
    "elbo",
    "elliptical_slice",
    "energy_distance",
    "f_divergence",
    "filter_beliefs",
    "filter_error",
    "filter_series",
    "fit",
    "fixed_lag",
    "flow",
    "forward_kl",
    "full_rank",
    "genealogy",
    "gibbs",
    "hmc",
    "hvi",
    "importance",
    "islands",
    "iterate",
    "iwelbo",
    "iwhvi",
    "killing",
    "laplace",
    "lift",
    "log_evidence",
    "log_evidence_error",
    "log_likelihood",
    "loo",
    "low_rank",
    "mala",
    "marginal",
    "marginalize",
    "mean_field",
    "merged",
    "metropolize",
    "mh",
    "mh_each",
    "mhg",
    "minibatch",
    "mixture",
    "mmd",
    "most_likely",
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
    "pathfinder",
    "plot_ancestry",
    "plot_ess",
    "plot_fit",
    "plot_posterior",
    "plot_predictive",
    "plot_trace",
    "plot_weights",
    "posterior_predictive",
    "prior_predictive",
    "propose",
    "random_walk",
    "rao_blackwell",
    "read_posteriordb",
    "recorded",
    "relative_variance",
    "renyi",
    "resample",
    "residual",
    "restore",
    "retarget",
    "reverse_annealed",
    "reweight",
    "run_particles",
    "sample_posterior",
    "sample_posteriors",
    "score_matching",
    "sghmc",
    "sgld",
    "sleep",
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
    "structured",
    "sum_out",
    "symmetric_kl",
    "systematic",
    "temper",
    "then",
    "to_datatree",
    "translate",
    "unit",
    "vimco",
    "vsmc",
    "wake",
    "wake_p",
    "waste_free",
    "weigh",
    "when_ess_below",
    "within",
]
