"""Wake and sleep: the model learns from weighted draws of the guide, the guide from the model.

The draws have no derivative, so none needs a strategy. `wake` and `sleep` move the guide alone,
`wake_p` the model alone; a sum of two of them is an objective again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Target, errors
from ppl.addresses import flatten, nest

from ..targets.stochastic import Stochastic
from ..validation.objects import check_no_gaps
from ..validation.settings import check_count, shown
from ..weighted import Weighted, log_evidence
from .drawn import held
from .objective import Guide, Objective


def weighted_draws(
    target: Target, guide: Guide, args: tuple, particles: int
) -> tuple[dict[str, Any], Any]:
    """So many draws of the guide as it is, and their log weights to the target."""

    def drawn(_: Any) -> tuple[Any, Any]:
        choices, score = held(guide, args)
        return choices, target.log_density(choices) - score

    return jax.vmap(drawn)(jnp.zeros(particles))


def shares(log_weights: jax.Array) -> jax.Array:
    """Normalised weights, without derivative; zeros where all weights are: they tell nothing."""
    some = jnp.max(log_weights) > -jnp.inf
    found = jax.nn.softmax(jnp.where(some, log_weights, 0.0))
    return jax.lax.stop_gradient(jnp.where(some, found, 0.0))


def wake(
    target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic, particles: int
) -> Objective:
    """E[sum of w log q(x)], w normalised: the forward divergence's part that moves the guide.

    With x from the guide as it is, weighted to the target. For finitely many particles it is the
    objective of reweighted wake-sleep, not the divergence itself, to which it tends.

    Args:
      target, guide: as for `elbo`; the target's parameters do not move.
      particles: how many draws are weighed against each other.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.

    Source: Bornschein and Bengio, Reweighted wake-sleep (ICLR 2015), the wake phase of q.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import wake
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> slope = jax.grad(integrate(wake(Target(coin, (), {"heads": 1}), guide, 3)))
    >>> bool(abs(slope(0.4)) < 1e-6)  # it stays at the posterior
    True
    """
    check_count("particles", particles)
    return Objective(f"wake({particles})", target, guide, _Wake(particles))


@dataclass(frozen=True)
class _Wake:
    particles: int

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        choices, weights = weighted_draws(target, guide, args, self.particles)
        scores = jax.vmap(lambda x: guide.assess(x, *args)[0])(choices)
        return jnp.sum(shares(weights) * scores)


def wake_p(
    target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic, particles: int
) -> Objective:
    """The bound of `iwelbo`, of which the model's parameters alone have a derivative.

    It is the sum of w d log p(x, y), w normalised, with x from the guide as it is.

    Args:
      target: a function of the same arguments as the guide, some of which are the model's.
      guide, particles: as for `wake`.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.

    Source: Bornschein and Bengio, Reweighted wake-sleep (ICLR 2015), the wake phase of p.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import wake_p
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin(s):
    ...     fair = sample("fair", dist.Bernoulli(s))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda s, p: sample("fair", dist.Bernoulli(p)))
    >>> objective = wake_p(lambda s, p: Target(coin, (s,), {"heads": 1}), guide, 2)
    >>> slopes = jax.grad(integrate(objective), (0, 1))(0.5, 0.4)
    >>> print(f"{slopes[0]:.2f} {slopes[1]:.2f}")  # at the posterior: that of the log evidence
    -0.40 0.00
    """
    check_count("particles", particles)
    return Objective(f"wake_p({particles})", target, guide, _WakeP(particles))


@dataclass(frozen=True)
class _WakeP:
    particles: int

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        return log_evidence(Weighted((), weighted_draws(target, guide, args, self.particles)[1]))


def sleep(
    target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic
) -> Objective:
    """E[log q(x; ..., y)], x and y from the model: the guide learns from what the model makes up.

    A function of the same arguments as the other objectives of a guide that reads its data. The
    last of them is what is observed, a nested dict, and what the model makes stands in its place.
    So only its addresses and shapes matter.

    Args:
      target: as for `elbo`. Its addresses say what is observed; its parameters do not move.
      guide: a generative function of the latents, whose last argument is the observations.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.
      InvalidArgument: the last argument has not the observations of the target.
      CannotSimulate: the model scores, so that nothing can be drawn from it.

    Source: Hinton, Dayan, Frey and Neal, The wake-sleep algorithm (Science 1995).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import sleep
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p, seen: sample("fair", dist.Bernoulli(p[seen["heads"]])))
    >>> objective = sleep(lambda p, seen: Target(coin, (), seen), guide)
    >>> slope = jax.grad(integrate(objective))
    >>> # it stays at the two posteriors, of tails and of heads
    >>> bool((abs(slope(jnp.array([2 / 3, 2 / 5]), {"heads": 1})) < 1e-6).all())
    True
    """
    return Objective("sleep", target, guide, _sleep)


def _sleep(target: Target, guide: Guide, args: tuple) -> Any:
    check_no_gaps(target, "A guide that sleeps", "wake, or elbo")
    seen = args[-1] if args else None
    observed = {path: target.sites[path] for path in target.observed}
    given = flatten(seen) if isinstance(seen, Mapping) else {}
    shapes = {path: jnp.shape(value) for path, value in given.items()}
    if not observed or shapes != {path: site.shape for path, site in observed.items()}:
        raise errors.InvalidArgument(
            "The last argument of a guide that sleeps is what the target observes.",
            where=errors.caller(),
            given=shown(seen) if not given else "; ".join(map(errors.show, given)),
            expected="a nested dict of "
            + "; ".join(f"{errors.show(p)} of shape {site.shape}" for p, site in observed.items()),
            fix="guide(parameters, observations), and sleep(...)(parameters, observations)",
        )
    made = flatten(held(target.model, target.args)[0])
    latents = nest({path: made[path] for path in target.latents})
    return guide.assess(latents, *args[:-1], nest({path: made[path] for path in observed}))[0]
