"""Gaussian processes on a line, as Markov programs: kernels, their law, and its evidence.

A kernel is the law of a linear stochastic differential equation, whose state moves over any gap
by a known matrix and known noise. So a process at n times has a density and draws in O(n), by
one pass of a Kalman filter, and a gradient by one pass back. It may use `ppl`, the algebra and
`validation`, and nothing else.
"""
