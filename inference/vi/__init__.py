"""Variational inference: objectives are random programs, and `ppl.expectation` differentiates them.

An objective is written with `guide.simulate`, `target.log_density` and what estimates densities;
a guide is any generative function, or a density by an algorithm. It may use `targets`, `mcmc`,
`smc`, `exact` and `estimated`.
"""
