"""Markov kernels: what each needs of a target, and what it keeps."""
