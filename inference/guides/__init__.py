"""Guides made from a target: laws of its latents in unconstrained space, with their starts.

`joint` makes a law of all latents from a family of densities; `triangular` is the family of normals
in which each coordinate is affine in some of those before it; the other files are guides that
people call. It may use `targets`, `mcmc`, `smc`, `exact` and `estimated`.
"""
