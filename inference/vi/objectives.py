"""Objectives: what is maximised to bring a guide close to a target, as random programs.

Each is a function of the guide's arguments whose mean is the objective; `expectation` of it has
unbiased derivatives. A target may depend on the arguments, too: give a function that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Target, errors
from ppl.effects import weak

from ..targets.stochastic import Stochastic
from ..validation.objects import check_target
from ..validation.settings import check_count, check_flag
from .matching import check_guide


def elbo(
    target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic
) -> Callable[..., Any]:
    """E[log p(x, y) - log q(x)], x from the guide: at most the log evidence.

    Args:
      target: a target; or a function of the same arguments as the guide that makes one, where
        the model's parameters are learned, too.
      guide: a generative function of the latents, or one whose density an algorithm estimates
        (`normalize`, `marginalize`): then this is a bound of that bound.

    Returns:
      A random program of the guide's arguments.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.

    Source: Jordan et al. (Machine Learning 1999); Becker et al. (PLDI 2024).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import elbo
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> bound = integrate(elbo(Target(coin, (), {"heads": 1}), guide))
    >>> print(f"{bound(0.4):.4f}, of {jnp.log(0.625):.4f}")  # at the posterior it is all of it
    -0.4700, of -0.4700
    """
    _check(target, guide)

    def objective(*args: Any) -> Any:
        made = _target(target, guide, args)
        trace = guide.simulate(*args)
        return made.log_density(trace.choices) - trace.score

    return objective


def iwelbo(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    particles: int,
    *,
    doubly: bool = False,
) -> Callable[..., Any]:
    """E[log of the mean of `particles` weights p(x, y) / q(x)]: the more, the tighter.

    Args:
      target, guide: as for `elbo`.
      particles: how many weights are averaged.
      doubly: doubly reparameterised gradients, for choices that move with their parameters:
        with many particles their signal does not drown. Right only where what the guide and
        the target share has no parameters in common.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.

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
    _check(target, guide)
    check_count("particles", particles)
    check_flag("doubly", doubly)

    def objective(*args: Any) -> Any:
        made = _target(target, guide, args)

        def drawn(_: Any) -> tuple[Any, Any]:
            trace = guide.simulate(*args)
            return trace.choices, trace.score

        choices, scores = jax.vmap(drawn)(jnp.zeros(particles))
        if doubly:
            return _doubly(made, guide, choices, args)
        weights = jax.vmap(made.log_density)(choices) - scores
        return jax.nn.logsumexp(weights) - jnp.log(particles)

    return objective


def _doubly(
    target: Target, guide: GenerativeFunction | Stochastic, choices: Any, args: tuple
) -> Any:
    """Each particle's path is weighed once more by its share; the guide's own score is left out."""
    still = jax.lax.stop_gradient(args)

    def log_weight(choices: Any) -> Any:
        return target.log_density(choices) - guide.assess(choices, *still)[0]

    weights = jax.vmap(log_weight)(choices)
    share = jax.lax.stop_gradient(jax.nn.softmax(weights))

    def slower(choices: Any, speed: Any) -> Any:
        return jax.tree.map(lambda x: _at_speed(x, speed), choices)

    weights = jax.vmap(log_weight)(jax.vmap(slower)(choices, share))
    return jax.nn.logsumexp(weights) - jnp.log(len(share))


def _at_speed(x: Any, speed: Any) -> Any:
    """`x`, moving `speed` times as fast with its parameters."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x
    return jax.lax.stop_gradient(x) + weak(speed, x)


def wake(
    target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic, particles: int
) -> Callable[..., Any]:
    """The forward divergence's part that moves the guide: E[sum of w log q(x)], w normalised.

    With x from the guide as it is, weighted to the target; the argument of the guide is learned
    by ascent. For finitely many particles it is the objective of reweighted wake-sleep, not the
    divergence itself, to which it tends.

    Source: Bornschein and Bengio, Reweighted wake-sleep (ICLR 2015).

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
    _check(target, guide)
    check_count("particles", particles)

    def objective(*args: Any) -> Any:
        made = _target(target, guide, args)
        still = jax.lax.stop_gradient(args)

        def drawn(_: Any) -> tuple[Any, Any]:
            trace = guide.simulate(*still)
            return trace.choices, made.log_density(trace.choices) - trace.score

        choices, weights = jax.vmap(drawn)(jnp.zeros(particles))
        weights = jax.lax.stop_gradient(jax.nn.softmax(weights))
        scores = jax.vmap(lambda choices: guide.assess(choices, *args)[0])(choices)
        return jnp.sum(weights * scores)

    return objective


def _check(target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic) -> None:
    if not callable(target) or isinstance(target, GenerativeFunction | type):
        check_target(target)
    if not isinstance(guide, GenerativeFunction | Stochastic):
        raise errors.InvalidArgument(
            "A guide is a generative function.",
            where=errors.caller(),
            given=repr(guide),
            expected="a function decorated with @gen, or normalize(...), marginalize(...)",
            fix="decorate it with @gen, and give the function, not a call of it",
        )


def _target(
    target: Target | Callable[..., Target], guide: GenerativeFunction | Stochastic, args: tuple
) -> Target:
    made = target if isinstance(target, Target) else target(*args)
    check_target(made)
    check_guide(made, guide, args)
    return made
