"""Particles: what moves, reweights and resamples weighted values, and what is made of that.

Filters, smoothers, annealing, islands, translations and nested sampling are compositions of
`particles`, `resample` and `schemes`. It may use `ppl`, the algebra, `targets` and `mcmc`.
"""
