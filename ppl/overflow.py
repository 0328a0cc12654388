"""Densities that are +inf although they are proper: told from those that are infinite.

A normaliser that underflows makes a density +inf everywhere, and a point of it would take
all the weight. No number is right there, so it is NaN, which weights and chains report and
do not follow. A density that is infinite at an edge of its support, as that of a
Beta(0.1, 0.1) at 0, stays +inf.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from .supports import parts

_INFINITE_AT_AN_EDGE = (
    dist.Beta,
    dist.BetaProportion,
    dist.Gamma,
    dist.Chi2,
    dist.Dagum,
    dist.Dirichlet,
    dist.Kumaraswamy,
    dist.LKJ,
    dist.LKJCholesky,
    dist.Weibull,
    dist.Wishart,
    dist.WishartCholesky,
    dist.Delta,  # a mass, given by its logarithm
    dist.Unit,
)


def overflow_told(d: Any, density: Any) -> Any:
    """`density` of `d`, NaN for +inf, where that can only be an overflow; masses have none."""
    if d.support.is_discrete or _infinite(d):
        return density
    return jnp.where(density == jnp.inf, jnp.nan, density)


def _infinite(d: Any) -> bool:
    if isinstance(d, (dist.StudentT, dist.MultivariateStudentT)):
        return False  # its Chi2 is there to draw from
    return isinstance(d, _INFINITE_AT_AN_EDGE) or any(map(_infinite, parts(d)))
