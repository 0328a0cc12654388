"""Choices that are summed out exactly: finite ones, and linear Gaussian ones.

`symbolic` is the one walk, with an algebra for each kind of choice; the other files are those
algebras and the steps made of them. It may use `ppl`, the algebra, `targets`, `mcmc` and `smc`.
"""
