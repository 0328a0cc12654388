"""The forward divergence, from the posterior to the guide, and the sum of both directions.

An objective is maximised, so a divergence has a minus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Target

from ..targets.stochastic import Stochastic
from ..validation.settings import check_count
from ..weighted import Weighted, log_evidence
from .drawn import held, still
from .matching import check_guide
from .objective import Guide, Objective
from .objectives import OneBound
from .wake import shares, weighted_draws


def forward_kl(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    using: int | GenerativeFunction,
) -> Objective:
    """-KL(p(x|y) || q(x)), from draws of the posterior or from weighted draws of the guide.

    Its guide covers all of the posterior, where that of `elbo` may leave a mode out. Only the
    guide's density has a derivative, so no choice needs a strategy.

    Args:
      target, guide: as for `elbo`; the target's parameters do not move.
      using: a generative function, of the guide's arguments, that draws the posterior: then it
        is exact. Or how many draws of the guide are weighed against each other: then it is the
        mean of -sum of w log(n w), w normalised, which is at least -log n, has the gradient of
        `wake`, and tends to the divergence.

    Raises:
      GuideMismatch: when it is used, and the guide, or the posterior, does not make the target's
        latents.

    Source: Minka, Divergence measures and message passing (2005); Bornschein and Bengio,
    Reweighted wake-sleep (ICLR 2015).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import forward_kl
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> posterior = gen(lambda p: sample("fair", dist.Bernoulli(0.4)))
    >>> objective = forward_kl(Target(coin, (), {"heads": 1}), guide, posterior)
    >>> print(f"{integrate(objective)(0.4):.4f} {integrate(objective)(0.5):.4f}")
    0.0000 -0.0201
    """
    _check_using(using)
    return Objective(f"forward_kl({_shown(using)})", target, guide, _Forward(using))


@dataclass(frozen=True)
class _Forward:
    using: int | GenerativeFunction

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        if isinstance(self.using, GenerativeFunction):
            check_guide(target, self.using, args)
            choices, score = held(self.using, args)
            return guide.assess(choices, *args)[0] - score
        ratios, weights, mass = _weighted_ratios(target, guide, args, self.using)
        return jnp.sum(weights * ratios) + mass


def _weighted_ratios(target: Target, guide: Guide, args: tuple, n: int) -> tuple[Any, Any, Any]:
    """log q - log p of draws of the guide, their normalised weights, and the log evidence."""
    choices, weights = weighted_draws(target, guide, args, n)
    scores = jax.vmap(lambda x: guide.assess(x, *args)[0])(choices)
    densities = jax.vmap(target.log_density)(choices)
    fixed = shares(weights), jax.lax.stop_gradient(densities)
    mass = jax.lax.stop_gradient(log_evidence(Weighted((), weights)))
    ratios = jnp.where(fixed[0] > 0, scores - fixed[1], 0)  # what has no weight has no share
    return ratios, fixed[0], mass


def symmetric_kl(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    using: int | GenerativeFunction,
) -> Objective:
    """-KL(q(x) || p(x|y)) - KL(p(x|y) || q(x)): zero at the posterior, and below it elsewhere.

    The log evidence is in both, and cancels. The first term is that of `elbo`, whose choices
    have their strategies. The guide moves, and the target does not.

    Args:
      target, guide, using: as for `forward_kl`. For finitely many weighted draws the second term
        is estimated.

    Raises:
      GuideMismatch: as for `forward_kl`.

    Source: Jeffreys, An invariant form for the prior probability in estimation problems (1946).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import symmetric_kl
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> posterior = gen(lambda p: sample("fair", dist.Bernoulli(0.4)))
    >>> objective = symmetric_kl(Target(coin, (), {"heads": 1}), guide, posterior)
    >>> print(f"{integrate(objective)(0.4):.4f} {integrate(objective)(0.5):.4f}")
    0.0000 -0.0405
    """
    _check_using(using)
    return Objective(f"symmetric_kl({_shown(using)})", target, guide, _Symmetric(using))


@dataclass(frozen=True)
class _Symmetric:
    using: int | GenerativeFunction

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        # the log evidence cancels if neither term moves the target
        return OneBound()(still(target), guide, args) + self.forward(target, guide, args)

    def forward(self, target: Target, guide: Guide, args: tuple) -> Any:
        """E[log q - log p(x, y)] under the posterior."""
        if isinstance(self.using, GenerativeFunction):
            check_guide(target, self.using, args)
            choices, _ = held(self.using, args)
            density = jax.lax.stop_gradient(target.log_density(choices))
            return guide.assess(choices, *args)[0] - density
        ratios, weights, _ = _weighted_ratios(target, guide, args, self.using)
        return jnp.sum(weights * ratios)


def _check_using(using: Any) -> None:
    if not isinstance(using, GenerativeFunction):
        check_count("using", using)


def _shown(using: int | GenerativeFunction) -> str:
    return using.name if isinstance(using, GenerativeFunction) else str(using)
