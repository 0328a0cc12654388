"""All entries of the kill matrix."""

from __future__ import annotations

from . import (
    ancestry,
    annealing,
    continuous,
    csmc,
    delaying,
    forecasts,
    gibbs,
    gradients,
    guided,
    hamiltonian,
    islands,
    jumps,
    kalman,
    marginalised,
    masks,
    metropolis,
    plates,
    populations,
    proposals,
    resampling,
    slicing,
    smc,
    stochastic,
    trace_mh,
    translate,
    variational,
)

ENTRIES = tuple(
    entry
    for family in (
        trace_mh,
        metropolis,
        proposals,
        delaying,
        gibbs,
        plates,
        populations,
        continuous,
        jumps,
        hamiltonian,
        slicing,
        smc,
        guided,
        ancestry,
        csmc,
        marginalised,
        islands,
        annealing,
        resampling,
        kalman,
        gradients,
        variational,
        stochastic,
        translate,
        forecasts,
        masks,
    )
    for entry in family.ENTRIES
)
