"""Metrics from positions and the gradients there.

They make the normal density of that metric nearest to the target by the Fisher divergence
(Seyboldt, Carlson and Carpenter 2026, "Preconditioning Hamiltonian Monte Carlo by minimizing
Fisher divergence").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from .low_rank import LowRank, diagonal_still

# One of low rank is found from so many positions, the last of a window.
ROWS = 128

# So often the covariance of rows multiplies some of them.
POWER = 2

# So many positions a coordinate, and a dense metric is found by them and their slopes; by fewer
# it is diagonal, or of many coordinates the covariance.
ENOUGH = 2

# What is added to both variances along each axis, in units where they are near one: little where
# there are `ENOUGH` positions for the axes to choose from; else much, since an axis along which
# only positions vary, or only gradients, would be stretched by anything.
DAMPING = (1e-5, 0.01)

# An axis along which variances differ by less than this factor is left as it is: of many
# coordinates, chance makes such axes.
SLIGHT = 2.0


def by_slopes(covariance: jax.Array, slopes: jax.Array, before: jax.Array) -> jax.Array:
    """The inverse mass that takes positions and gradients for those of a normal density.

    It is the geometric mean of the covariance of positions and the inverse of that of gradients.
    Of a normal density it is the covariance, from any positions whatever: those of chains that
    have not spread yet, and of few chance correlations, since these are in the gradients too. A
    dense one needs more positions than coordinates.

    Args:
      covariance: of positions, (d,) or (d, d).
      slopes: of the gradients there, of the same shape.
      before: the inverse mass so far, kept by a coordinate that did not vary.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.by_slopes import by_slopes
    >>> z = jnp.array([1.0, 1.1, 1.3])  # of Normal(0, 10), whose gradient is -z / 100
    >>> by_slopes(jnp.var(z)[None], jnp.var(z / 100)[None], jnp.ones(1)).round(1).tolist()
    [100.0]
    """
    if covariance.ndim == 1:
        found = jnp.sqrt(covariance) / jnp.sqrt(slopes)
        return jnp.where((found > 0) & jnp.isfinite(found), found, before)
    d = len(covariance)
    variances = by_slopes(jnp.diagonal(covariance), jnp.diagonal(slopes), jnp.diagonal(before))
    scales = jnp.sqrt(jnp.outer(variances, variances))
    # in these units both are near one another, and so is what rounding may take from them
    share = 10 * d * jnp.finfo(covariance.dtype).eps
    positions, gradients = (
        (1 - share) * x + share * jnp.diag(jnp.diagonal(x))
        for x in (covariance / scales, slopes * scales)
    )
    found, least = _geometric_mean(positions, gradients)
    found = scales * found
    definite = (least > 0) & jnp.all(jnp.isfinite(found))
    return jnp.where(definite, found, jnp.diag(variances))


def _geometric_mean(positions: jax.Array, gradients: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The A for which A gradients A = positions, and a number above zero if it is one."""
    # with gradients = L L', L^-T (L' positions L)^(1/2) L^-1
    factor = jnp.linalg.cholesky(gradients)
    squares, axes = jnp.linalg.eigh(factor.T @ positions @ factor)
    half = solve_triangular(factor, axes, trans="T", lower=True)
    return (half * jnp.sqrt(jnp.maximum(squares, 0.0))) @ half.T, squares[0]


class Rows(NamedTuple):
    """The last `ROWS` positions of a window, and the gradients there, each (rows, n)."""

    positions: jax.Array
    gradients: jax.Array

    @staticmethod
    def none(n: int, dtype: jax.typing.DTypeLike) -> Rows:
        return Rows(*jnp.zeros((2, ROWS, n), dtype))

    def with_row(self, i: jax.Array, position: jax.Array, gradient: jax.Array) -> Rows:
        """`i`: how many there were before, in the window."""
        row = i % ROWS
        return Rows(self.positions.at[row].set(position), self.gradients.at[row].set(gradient))


def low_rank_by_slopes(rows: Rows, n: jax.Array, variances: jax.Array) -> LowRank:
    """Like `by_slopes`, along the axes where it differs most from what it is across them.

    Positions and gradients, in units of `variances`, vary most along the same axes or along
    others. There it is the geometric mean of the covariance of positions and the inverse of that
    of gradients (after Seyboldt, Carlson and Carpenter 2026); across all of these axes it
    is diagonal, by what is left of both.

    Args:
      n: how many positions there were in the window.
      variances: a diagonal inverse mass, (d,), of more coordinates than twice `RANK`.

    >>> import jax, jax.numpy as jnp
    >>> from inference.mcmc.by_slopes import ROWS, Rows, low_rank_by_slopes
    >>> variances = jnp.full(100, 4.0).at[3].set(2500.0)
    >>> z = jax.random.normal(jax.random.key(0), (ROWS, 100)) * jnp.sqrt(variances)
    >>> rows = Rows(z, -z / variances)  # of a normal density
    >>> found = low_rank_by_slopes(rows, jnp.array(ROWS), jnp.ones(100))
    >>> bool(jnp.allclose(found.diagonal(), variances, rtol=0.01))
    True
    """
    k, dtype = len(diagonal_still(variances).stretches), variances.dtype
    m = jnp.minimum(n, ROWS)
    there = (jnp.arange(ROWS) < m)[:, None]
    damping = jnp.where(m >= 2 * k * ENOUGH, *DAMPING).astype(dtype)

    def centred(x: jax.Array) -> jax.Array:
        mean = jnp.where(there, x, 0).sum(0) / m.astype(dtype)
        return jnp.where(there, x - mean, 0) / jnp.sqrt(m.astype(dtype))

    def seen(variances: jax.Array) -> tuple[list, jax.Array, list]:
        """Positions and gradients in these units, the axes, and what is left across the axes."""
        scales = jnp.sqrt(variances)
        both = [centred(rows.positions) / scales, centred(rows.gradients) * scales]
        some = jnp.arange(k) * m // k
        basis = jnp.linalg.qr(jnp.concatenate([_widest(x, x[some].T) for x in both], 1))[0]
        return both, basis, [jnp.sum((x - (x @ basis) @ basis.T) ** 2, 0) for x in both]

    # the variances given are those along axes too, which is not what is left across them
    *_, left = seen(variances)
    # a coordinate that is an axis leaves nothing: it gets what is left of the others
    least = [damping * (x.mean() + damping) for x in left]
    units = variances * jnp.sqrt((left[0] + least[0]) / (left[1] + least[1]))
    both, basis, left = seen(units)
    along = [(x @ basis).T @ (x @ basis) + damping * jnp.eye(2 * k, dtype=dtype) for x in both]
    stretches, turned = jnp.linalg.eigh(_geometric_mean(*along)[0])
    rest = jnp.sqrt((left[0].sum() + damping) / (left[1].sum() + damping))
    size = jnp.abs(jnp.log(stretches / rest))
    chosen = jnp.argsort(-size)[:k]
    stretches = jnp.where(size > math.log(SLIGHT), stretches / rest, 1.0)[chosen]
    found = LowRank(units * rest, basis @ turned[:, chosen], stretches)
    well = jnp.all(stretches > 0) & (rest > 0)
    for part in found:
        well &= jnp.all(jnp.isfinite(part))
    return jax.tree.map(lambda a, b: jnp.where(well, a, b), found, diagonal_still(variances))


def _widest(x: jax.Array, of: jax.Array) -> jax.Array:
    """About the directions in which rows (m, n) vary most, as many as columns `of`.

    They are not orthogonal. An exact decomposition of 128 rows takes ten times as long, and made
    no better metrics.
    """
    for _ in range(POWER):
        of = x.T @ (x @ of)
        size = jnp.linalg.norm(of, axis=0)
        of = jnp.where(size > 0, of / size, 0.0)
    return of
