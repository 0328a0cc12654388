"""All entries of the kill matrix."""

from __future__ import annotations

from . import continuous, csmc, gibbs, gradients, kalman, metropolis, resampling, smc, trace_mh

ENTRIES = tuple(
    entry
    for family in (
        trace_mh,
        metropolis,
        gibbs,
        continuous,
        smc,
        csmc,
        resampling,
        kalman,
        gradients,
    )
    for entry in family.ENTRIES
)
