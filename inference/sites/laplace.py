"""Laplace's method: sites with the slope and curvature of the likelihood at the mode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl import Target
from ppl.program import Path

from .approximation import Approximation, approximated
from .fold import Folded, Sites, Walk, fold, log_mass
from .iterate import expanded
from .terms import Terms


def laplace(
    target: Target,
    address: str | Path,
    *,
    damping: Any = 1.0,
    tolerance: Any = None,
    most: int = 100,
) -> Approximation:
    """The posterior of a Gaussian process as the Gaussian at its mode, by its curvature.

    log p(y) ≈ log p(y, f) at the mode, less log det(I + K W) / 2, where W is minus the second
    derivative of the log likelihood there. Each sweep is one of Newton's steps, as a fold in
    O(n). Its first derivative is that of the approximation, the mode's own motion included.

    Args:
      target: a target whose one latent is a draw of `gp(kernel, times)`, and in which each
        element of all else depends on one value of it at most, in any way: y_i given
        f[index_i]. Hyperparameters are arguments, or observed.
      address: of the process.
      damping: the largest part of a step that is taken; what is found does not depend on it.
      tolerance: of `status.change`; None for the square root of the precision of floats.
      most: how many times the process is folded, at most.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: the target is of another kind, or a setting out of range.

    Source: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), 3.4 and 5.5.1.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.gaussian.matern import Matern32
    >>> from inference.gaussian.process import gp
    >>> from inference.sites.laplace import laplace
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def counts(scale):
    ...     f = sample("f", gp(Matern32(scale), jnp.arange(5.0)))
    ...     sample("y", dist.Poisson(jnp.exp(f)))
    >>> target = Target(counts, (2.0,), {"y": jnp.array([1, 2, 4, 2, 0])})
    >>> found = laplace(target, "f")
    >>> bool(found.status.converged), round(float(found.log_evidence), 3)
    (True, -9.114)
    """
    return approximated(_Laplace(), "laplace", target, address, damping, tolerance, most)


@dataclass(frozen=True)
class _Laplace:
    """Newton's method, where curvature of the wrong sign counts as none on the way."""

    def better(self, terms: Terms, sites: Sites, folded: Folded) -> tuple[Sites, jax.Array]:
        return expanded(terms, folded.mean, positive=True), jnp.zeros_like(folded.mean, bool)

    def merit(self, terms: Terms, sites: Sites, folded: Folded, change: jax.Array) -> jax.Array:
        """log p(y, f) at the mean, up to a constant: K^-1 (f - level) is the slope of the sites."""
        pulled = sites.linear - sites.precision * folded.mean
        height = terms(folded.mean) - (folded.mean - folded.level) * pulled / 2
        return jnp.sum(height)

    def slack(self, merit: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.finfo(merit.dtype).eps) * (1 + jnp.abs(merit))

    def settled(self, terms: Terms, sites: Sites, folded: Folded) -> Sites:
        return expanded(terms, folded.mean, positive=False)

    def evidence(self, terms: Terms, walk: Walk, sites: Sites, folded: Folded) -> jax.Array:
        """At a mode that is held fixed; and what is zero, with the derivative of its motion."""
        mode = folded.mean
        there = expanded(terms, mode, positive=False)
        held = log_mass(walk, there) + jnp.sum(terms(mode) - there.log(mode))
        moved = _motion(terms, walk, folded)
        return held + moved - lax.stop_gradient(moved)


def _motion(terms: Terms, walk: Walk, folded: Folded) -> jax.Array:
    """A number whose derivative is that of the evidence in the mode, times that of the mode.

    The first is s = v l^(3) / 2, by the log determinant, for variances v. The mode solves
    l'(f) = K^-1 (f - level), so that the product is u · dl' + a · dlevel + a · dK l', with
    u = (K^-1 + W)^-1 s and a = K^-1 u = s - W u. No derivative of a loop is taken for it.
    """
    mode, fixed = folded.mean, jax.tree.map(lax.stop_gradient, walk)
    centred, fixed = (replace(w, level=jnp.zeros_like(mode)) for w in (walk, fixed))
    slope, curve = terms.slopes(mode), terms.curves(mode)
    third = jax.jvp(terms.curves, (mode,), (jnp.ones_like(mode),))[1]
    pull, curve, third = map(lax.stop_gradient, (slope, curve, third))
    bend = folded.variance * third / 2
    u = fold(fixed, Sites(-curve, bend)).mean
    a = bend + curve * u
    # a · K l' from squares, of vectors of one size
    sizes = jnp.sum(a * u), jnp.sum(pull * (mode - folded.level))
    both = (sizes[0] > 0) & (sizes[1] > 0)
    scale = jnp.sqrt(jnp.where(both, sizes[1], 1.0) / jnp.where(both, sizes[0], 1.0))

    def square(x: jax.Array) -> jax.Array:
        return log_mass(centred, Sites(jnp.zeros_like(x), x))  # x · K x / 2

    product = (square(pull + scale * a) - square(pull - scale * a)) / (2 * scale)
    return jnp.sum(u * slope) + jnp.sum(a * walk.level) + product
