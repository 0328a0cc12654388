"""Densities that an algorithm estimates: for drawn values, for given values, or both.

Marginals for pseudo-marginal kernels, algorithms as proposals and parts of models, and SMC²
live here. It may use `ppl`, the algebra and the rooms `targets`, `mcmc`, `smc` and `exact`.
"""
