"""Conjugate variational inference: the Gaussian of least divergence, by natural gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Target
from ppl.program import Path

from ..validation.settings import check_count
from .approximation import Approximation, approximated
from .expectations import at_nodes, nodes_of
from .fold import Folded, Sites, Walk, log_mass
from .iterate import GROWTH, less_change
from .terms import Terms


def conjugate_vi(
    target: Target,
    address: str | Path,
    *,
    nodes: int = 32,
    damping: Any = 1.0,
    tolerance: Any = None,
    most: int = 200,
) -> Approximation:
    """The posterior of a Gaussian process as the Gaussian q that makes the evidence bound largest.

    The bound, E_q[log p(y | f)] - KL(q || p), is `log_evidence`. Each sweep is a step along its
    natural gradient, as a fold in O(n): a site gets the slope and curvature that the log
    likelihood has on average over its marginal. At the best q the bound has no slope in the
    sites, so its first derivative is that with the sites held fixed.

    Args:
      target, address: as for `laplace`.
      nodes: of the quadrature of each average, over one marginal.
      damping: the largest step; what is found does not depend on it.
      tolerance: of `status.change`; None for the square root of the precision of floats.
      most: how many times the process is folded, at most.

    Raises:
      AddressNotFound, InvalidArgument: as for `laplace`.

    Source: Khan & Lin, Conjugate-computation variational inference (AISTATS 2017); Chang,
    Wilkinson, Khan & Solin, Fast variational learning in state-space GP models (MLSP 2020).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.gaussian.matern import Matern32
    >>> from inference.gaussian.process import gp
    >>> from inference.sites.conjugate_vi import conjugate_vi
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def counts(scale):
    ...     f = sample("f", gp(Matern32(scale), jnp.arange(5.0)))
    ...     sample("y", dist.Poisson(jnp.exp(f)))
    >>> target = Target(counts, (2.0,), {"y": jnp.array([1, 2, 4, 2, 0])})
    >>> found = conjugate_vi(target, "f")
    >>> bool(found.status.converged), round(float(found.log_evidence), 3)
    (True, -9.129)
    """
    check_count("nodes", nodes, 2, 256)
    method = _ConjugateVI(int(nodes))
    return approximated(method, "conjugate_vi", target, address, damping, tolerance, most)


@dataclass(frozen=True)
class _ConjugateVI:
    """Power EP at its limit: slopes and curvatures of averages, by the identities of Stein.

    They are taken of what the sites leave of the likelihood, which is flat where they agree, and
    need no derivative of it.
    """

    nodes: int

    def better(self, terms: Terms, sites: Sites, folded: Folded) -> tuple[Sites, jax.Array]:
        x, w, left = self._left(terms, sites, folded)
        sd = jnp.sqrt(folded.variance)
        turn = -(w * (x**2 - 1)) @ left / folded.variance
        pull = (w * x) @ left / sd + turn * folded.mean
        return Sites(sites.precision + turn, sites.linear + pull), jnp.zeros_like(sd, bool)

    def merit(self, terms: Terms, sites: Sites, folded: Folded, change: jax.Array) -> jax.Array:
        return less_change(change)

    def slack(self, merit: jax.Array) -> jax.Array:
        return jnp.full_like(merit, GROWTH)

    def settled(self, terms: Terms, sites: Sites, folded: Folded) -> Sites:
        return sites

    def evidence(self, terms: Terms, walk: Walk, sites: Sites, folded: Folded) -> jax.Array:
        _, w, left = self._left(terms, sites, folded)
        return log_mass(walk, sites) + jnp.sum(w @ left)

    def _left(self, terms: Terms, sites: Sites, folded: Folded) -> tuple:
        """Nodes, weights, and what the sites leave of each term there."""
        x, w = nodes_of(self.nodes, folded.mean.dtype)
        f, each = at_nodes(terms, folded.mean, folded.variance, x)
        return x, w, each - sites.log(f)
