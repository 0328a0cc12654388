"""Choices that are summed out exactly: finite ones, and linear Gaussian ones.

`elimination` is the one walk, with sums for each kind of choice (`finite`, `gaussians`); the other
files are what these are made of, and what is made of them: `sum_out` of a model, with `recover`,
and `rao_blackwell` of a step. It may use `ppl`, the algebra, `targets`, `mcmc`, `smc` and
`gaussian`.
"""
