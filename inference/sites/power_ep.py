"""Power expectation propagation: sites that agree with the likelihood in two moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Target
from ppl.program import Path

from ..validation.settings import check_count, check_number
from .approximation import Approximation, approximated
from .expectations import at_nodes, nodes_of
from .fold import Folded, Sites, Walk, log_mass
from .iterate import GROWTH, less_change
from .terms import Terms


def power_ep(
    target: Target,
    address: str | Path,
    power: float = 1.0,
    *,
    nodes: int = 32,
    damping: Any = 1.0,
    tolerance: Any = None,
    most: int = 200,
) -> Approximation:
    """The posterior of a Gaussian process by moments: expectation propagation, at power 1.

    Each site is taken out of its marginal, in part (the power), and that part of the likelihood
    put in; the site gets what gives the same mean and variance. All sites move at once, each
    sweep one fold in O(n). The evidence is Minka's; where sites agree it has no slope in them, so
    its first derivative is that with the sites held fixed. As the power goes to 0 both are those
    of `conjugate_vi`.

    Where a marginal without its part of the site has no positive variance, or its data are
    impossible, the site stays as it is in that sweep; `status.skipped` counts those.

    Args:
      target, address: as for `laplace`.
      power: above 0, and 1 at most.
      nodes: of the quadrature of each moment, over one marginal.
      damping: the largest step; what is found does not depend on it.
      tolerance: of `status.change`; None for the square root of the precision of floats.
      most: how many times the process is folded, at most.

    Raises:
      AddressNotFound, InvalidArgument: as for `laplace`.

    Source: Minka, Power EP (2004); Wilkinson, Chang, Andersen & Solin, State space expectation
    propagation (ICML 2020).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.gaussian.matern import Matern32
    >>> from inference.gaussian.process import gp
    >>> from inference.sites.power_ep import power_ep
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def counts(scale):
    ...     f = sample("f", gp(Matern32(scale), jnp.arange(5.0)))
    ...     sample("y", dist.Poisson(jnp.exp(f)))
    >>> target = Target(counts, (2.0,), {"y": jnp.array([1, 2, 4, 2, 0])})
    >>> found = power_ep(target, "f")
    >>> bool(found.status.converged), round(float(found.log_evidence), 3)
    (True, -9.109)
    """
    check_number("power", power, above=0, most=1, fix=1.0)
    check_count("nodes", nodes, 2, 256)
    method = _PowerEP(float(power), int(nodes))
    return approximated(method, "power_ep", target, address, damping, tolerance, most)


@dataclass(frozen=True)
class _PowerEP:
    """With a site's part out and the likelihood's in, the marginal is q (p / site)^power.

    Averages over q at its own nodes, of what is near 1 where sites agree, and of the difference
    from 1, which is as precise at any power.
    """

    power: float
    nodes: int

    def better(self, terms: Terms, sites: Sites, folded: Folded) -> tuple[Sites, jax.Array]:
        x, total, excess, _ = self._tilted(terms, sites, folded)
        sd, power = jnp.sqrt(folded.variance), self.power
        shift = x @ excess / total  # the mean, and the variance less 1, in units of q's
        spread = (x**2 - 1) @ excess / total - shift**2
        turn = -spread / (1 + spread) / (power * folded.variance)
        moved = sites.precision + turn
        pull = shift / (1 + spread) / (power * sd) + turn * folded.mean
        cavity = 1 - power * sites.precision * folded.variance
        left = ~((cavity > 0) & (total > 0) & jnp.isfinite(turn) & jnp.isfinite(pull))
        return Sites(jnp.where(left, sites.precision, moved),
                     jnp.where(left, sites.linear, sites.linear + pull)), left  # fmt: skip

    def merit(self, terms: Terms, sites: Sites, folded: Folded, change: jax.Array) -> jax.Array:
        return less_change(change)

    def slack(self, merit: jax.Array) -> jax.Array:
        return jnp.full_like(merit, GROWTH)

    def settled(self, terms: Terms, sites: Sites, folded: Folded) -> Sites:
        return sites

    def evidence(self, terms: Terms, walk: Walk, sites: Sites, folded: Folded) -> jax.Array:
        _, total, _, near = self._tilted(terms, sites, folded)
        return log_mass(walk, sites) + jnp.sum(near + jnp.log(total) / self.power)

    def _tilted(self, terms: Terms, sites: Sites, folded: Folded) -> tuple:
        """Nodes; E_q[(p / site)^power], relative to exp(power near); each node's part less its
        weight; and `near`."""
        x, w = nodes_of(self.nodes, folded.mean.dtype)
        f, each = at_nodes(terms, folded.mean, folded.variance, x)
        ratio = each - sites.log(f)
        near = w @ jnp.where(jnp.isneginf(ratio), 0.0, ratio)
        more = self.power * (ratio - near)
        weight = w[:, None]
        far = jnp.exp(more + jnp.log(weight)) - weight
        excess = jnp.where(more < 1, weight * jnp.expm1(jnp.minimum(more, 1.0)), far)
        total = jnp.where(jnp.all(jnp.isneginf(ratio), 0), 0.0, 1 + jnp.sum(excess, 0))
        return x, total, excess, near
