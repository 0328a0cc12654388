"""Markov kernels: each leaves a target invariant, and is one file.

What several kernels share (the unconstrained space, the metric, the warm-up, trajectories) has
files of its own beside them. It may use `ppl`, the algebra and `targets`.
"""
