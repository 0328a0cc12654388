"""Lower bounds of the log evidence: what is maximised to bring a guide close to a target.

Each is an `Objective`, a function of the guide's arguments. A target may depend on them, too: give
a function that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Target, errors
from ppl.effects import weak

from ..targets.stochastic import Stochastic
from ..validation.settings import check_count, check_flag
from ..weighted import Weighted, log_evidence
from .analytic import analytic_elbo
from .drawn import moving, still
from .objective import Guide, Objective
from .wake import shares


def elbo(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    *,
    landing: bool = False,
    analytic: bool = False,
) -> Objective:
    """E[log p(x, y) - log q(x)], x from the guide: at most the log evidence.

    Args:
      target: a target; or a function of the same arguments as the guide that makes one, where
        the model's parameters are learned, too, or where it is annealed.
      guide: a generative function of the latents, or one whose density an algorithm estimates
        (`normalize`, `marginalize`): then this is a bound of that bound.
      landing: stick the landing: the guide's density is evaluated with its parameters held, and
        choices move with theirs. At the posterior the gradient is then exactly zero, draw by
        draw. Only first derivatives are right.
      analytic: log p - log q is replaced by its mean, a divergence, for each latent whose two
        distributions have it in closed form, unless the model makes the latent from what the
        guide makes of it. Other latents keep their difference.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.
      NoStrategy: with `landing`, a choice of the guide does not move with its parameters.
      InvalidArgument: with `analytic`, no latent has a divergence in closed form; with one of the
        two, the guide's density is only estimated.

    Source: Jordan et al. (Machine Learning 1999); Becker et al. (PLDI 2024). `landing`: Roeder,
    Wu and Duvenaud, Sticking the landing (NeurIPS 2017). `analytic`: Kingma and Welling (ICLR
    2014), appendix B.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import elbo, temper
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> bound = integrate(elbo(target, guide))
    >>> print(f"{bound(0.4):.4f}, of {jnp.log(0.625):.4f}")  # at the posterior it is all of it
    -0.4700, of -0.4700

    Variational annealing is the bound of a tempered target, whose power is an argument, too:

    >>> annealed = elbo(lambda p, power: temper(target, power), gen(lambda p, power: guide.fn(p)))
    >>> [f"{integrate(annealed)(0.4, power):.4f}" for power in (0.0, 0.5, 1.0)]
    ['-0.0201', '-0.2451', '-0.4700']
    """
    check_flag("landing", landing)
    check_flag("analytic", analytic)
    if landing and analytic:
        raise errors.InvalidArgument(
            "A bound has closed forms, or sticks the landing, not both.",
            where=errors.caller(),
            given="landing=True, analytic=True",
            expected="one of them",
            fix="landing=True: its gradient has no variance at the posterior",
        )
    name = "elbo(landing)" if landing else "elbo(analytic)" if analytic else "elbo"
    run = _landing if landing else analytic_elbo if analytic else OneBound()
    return Objective(name, target, guide, run)


@dataclass(frozen=True)
class OneBound:
    """log p(x, y) - log q(x) of one draw of the guide."""

    of_minibatch = True

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        trace = guide.simulate(*args)
        return target.log_density(trace.choices) - trace.score


def _landing(target: Target, guide: Guide, args: tuple) -> Any:
    choices = moving(guide, args)
    held_guide, held_args = still((guide, args))
    return target.log_density(choices) - held_guide.assess(choices, *held_args)[0]


def iwelbo(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    particles: int,
    *,
    doubly: bool = False,
) -> Objective:
    """E[log of the mean of `particles` weights p(x, y) / q(x)]: the more, the tighter.

    Args:
      target, guide: as for `elbo`.
      particles: how many weights are averaged.
      doubly: doubly reparameterised gradients, for choices that move with their parameters:
        with many particles their signal does not drown. Only first derivatives are right.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.
      NoStrategy: with `doubly`, a choice of the guide does not move with its parameters.
      InvalidArgument: with `doubly`, the guide's density is only estimated.

    Source: Burda, Grosse and Salakhutdinov (ICLR 2016); Tucker et al., Doubly reparameterized
    gradient estimators (ICLR 2019).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import iwelbo
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> [f"{integrate(iwelbo(target, guide, n))(0.5):.5f}" for n in (1, 2, 3)]
    ['-0.49041', '-0.48021', '-0.47678']
    """
    check_count("particles", particles)
    check_flag("doubly", doubly)
    run = _Doubly(particles) if doubly else _Iwelbo(particles)
    return Objective(f"iwelbo({particles})", target, guide, run)


def log_weights(target: Target, guide: Guide, args: tuple, particles: int) -> Any:
    """log p(x, y) - log q(x) of so many draws of the guide."""

    def drawn(_: Any) -> tuple[Any, Any]:
        trace = guide.simulate(*args)
        return trace.choices, trace.score

    choices, scores = jax.vmap(drawn)(jnp.zeros(particles))
    return jax.vmap(target.log_density)(choices) - scores


@dataclass(frozen=True)
class _Iwelbo:
    particles: int

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        return log_evidence(Weighted((), log_weights(target, guide, args, self.particles)))


@dataclass(frozen=True)
class _Doubly:
    """Each particle's path is weighed once more by its share; the guide's own score is left out."""

    particles: int

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        held_guide, held_args = still((guide, args))

        def log_weight(choices: Any) -> Any:
            return target.log_density(choices) - held_guide.assess(choices, *held_args)[0]

        def slower(choices: Any, speed: Any) -> Any:
            return jax.tree.map(lambda x: _at_speed(x, speed), choices)

        choices = jax.vmap(lambda _: moving(guide, args))(jnp.zeros(self.particles))
        weights = jax.vmap(log_weight)(choices)
        share = shares(weights)
        weights = jax.vmap(log_weight)(jax.vmap(slower)(choices, share))
        return log_evidence(Weighted((), weights))


def _at_speed(x: Any, speed: Any) -> Any:
    """`x`, moving `speed` times as fast with its parameters."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x
    return jax.lax.stop_gradient(x) + weak(speed, x)
