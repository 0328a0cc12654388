"""The contracts of inference: proper steps, invariant kernels, moves, resamplers, gradients.

Each file is one contract and the ways to check it, exactly, by quadrature or by e-values. It
may use `measures` and `evidence`.
"""
