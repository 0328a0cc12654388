"""Bounds of several particles whose choices cannot move: each is compared with the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Target
from ppl.effects import weak

from ..targets.stochastic import Stochastic
from ..validation.settings import check_count
from ..weighted import Weighted, log_evidence
from .drawn import check_exact, held
from .objective import Guide, Objective


def vimco(
    target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic, particles: int
) -> Objective:
    """The bound of `iwelbo`, with gradients by the score and a baseline from the other particles.

    A particle's score is multiplied by what the bound would lose if its weight were the geometric
    mean of the others'. No choice needs a strategy. Only first derivatives are right.

    Args:
      target: as for `elbo`.
      guide: a generative function of the latents.
      particles: how many weights are averaged, 2 or more.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.
      InvalidArgument: the guide's density is only estimated.

    Source: Mnih and Rezende, Variational inference for Monte Carlo objectives (ICML 2016),
    equations 7 to 10.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import iwelbo, vimco
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> print(f"{integrate(jax.grad(vimco(target, guide, 3)))(0.5):.5f}")
    -0.13639
    >>> print(f"{jax.grad(integrate(iwelbo(target, guide, 3)))(0.5):.5f}")
    -0.13639
    """
    check_count("particles", particles, least=2)
    return Objective(f"vimco({particles})", target, guide, _Vimco(particles))


@dataclass(frozen=True)
class _Vimco:
    particles: int

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        check_exact(guide, "vimco", args)
        choices = jax.vmap(lambda _: held(guide, args)[0])(jnp.zeros(self.particles))
        scores = jax.vmap(lambda x: guide.assess(x, *args)[0])(choices)
        weights = jax.vmap(target.log_density)(choices) - scores
        bound = log_evidence(Weighted((), weights))
        level = _without_each(weights)
        level = jnp.where(jnp.isfinite(level), level, 0)  # any is right that sees the others only
        return bound + jnp.sum(weak(jax.lax.stop_gradient(bound - level), scores))


def _without_each(weights: Any) -> Any:
    """The bound with each weight replaced by the geometric mean of the others."""
    n = len(weights)
    same = jnp.eye(n, dtype=bool)
    others = jnp.sum(jnp.where(same, 0, weights), 1) / (n - 1)
    replaced = jnp.where(same, others[:, None], weights)
    return jax.vmap(lambda row: log_evidence(Weighted((), row)))(replaced)
