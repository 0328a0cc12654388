"""Bounds between the one of several weights and the plain one, and below: powers of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from ppl import GenerativeFunction, Target, errors

from ..targets.stochastic import Stochastic
from ..validation.settings import check_count, check_number, shown
from ..weighted import Weighted, log_evidence
from .objective import Guide, Objective
from .objectives import log_weights


def renyi(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    alpha: float,
    particles: int,
) -> Objective:
    """E[log of the mean of w^(1 - alpha)] / (1 - alpha), w the weights: at most the log evidence.

    With many particles, log p(y) less the Rényi divergence of order alpha of the guide from the
    posterior. At 0 it is `iwelbo`, at 1 `elbo`; the larger alpha is, the lower.

    Args:
      target, guide: as for `elbo`.
      alpha: 0 or more. (Below 0 it would be an upper bound, which is not to be maximised: see
        `f_divergence`, "chi_square".)
      particles: how many weights are averaged.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.

    Source: Li and Turner, Rényi divergence variational inference (NeurIPS 2016), equation 9.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import renyi
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> [f"{integrate(renyi(target, guide, alpha, 2))(0.5):.5f}" for alpha in (0.0, 0.5, 1.0)]
    ['-0.48021', '-0.48529', '-0.49041']
    """
    check_number("alpha", alpha, least=0, fix=0.5)
    if isinstance(alpha, jax.core.Tracer):
        raise errors.InvalidArgument(
            "alpha is part of the objective, and not one of its arguments.",
            where=errors.caller(),
            given=shown(alpha),
            expected="a number, known before the program runs",
            fix="alpha=0.5",
        )
    check_count("particles", particles)
    order = float(alpha)
    return Objective(f"renyi({order:g}, {particles})", target, guide, _Renyi(order, particles))


@dataclass(frozen=True)
class _Renyi:
    alpha: float
    particles: int

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        weights = log_weights(target, guide, args, self.particles)
        power = 1 - self.alpha
        if power == 0:
            return jnp.mean(weights)
        return log_evidence(Weighted((), power * weights)) / power
