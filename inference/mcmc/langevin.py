"""Langevin dynamics: with an accept step, and with gradients of minibatches and none.

`mala` leaves its target invariant. `sgld` and `sghmc` do not: their stationary law depends on
the step size and on the noise of the gradients, and is the target only in the limit of small
steps. Their names say so, "sgld (approximate)", in the statistics of composites and in errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Selection, Target, Trace, draw, errors

from ..kernel import Kernel, Stats, Tuning
from ..recipe import made_again
from ..validation.objects import check_callable, check_target
from ..validation.settings import check_count, check_number
from .hmc import hmc
from .space import Space

Estimate = Callable[[Mapping[str, Any]], Any]
"""A random program from latents to an unbiased estimate of the log density of a target."""

Schedule = float | Callable[[Any], Any]


@made_again
def mala(
    target: Target,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    step_size: float | None = None,
    dense: bool | None = None,
    target_accept: float = 0.574,
) -> Kernel:
    """The Metropolis-adjusted Langevin algorithm; leaves `target` invariant.

    z' ~ N(z + h^2 / 2 V grad log p(z), h^2 V) for the step size h and V the inverse mass
    matrix, accepted by Hastings' ratio (Roberts and Tweedie 1996). That is Hamiltonian Monte
    Carlo with one leapfrog step: the change of the energy is the log ratio (Neal 2011, 5.5.2).

    Statistics and arguments are those of `hmc`; the warm-up aims at the acceptance
    probability 0.574 (Roberts and Rosenthal 1998).

    Raises:
      InvalidArgument: a selected latent has no unconstrained space.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import sample_posterior
    >>> from inference.mcmc.langevin import mala
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> draws = sample_posterior(jax.random.key(0), target, mala(target))
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    kernel = hmc(
        target, selection, steps=1, step_size=step_size, dense=dense, target_accept=target_accept
    )
    return replace(kernel, name="mala")


class Position(NamedTuple):
    """A position; the trace that holds the rest."""

    rest: Trace | None
    z: jax.Array


def sgld(
    target: Target,
    estimate: Estimate,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    step_size: Schedule,
) -> Kernel:
    """Stochastic gradient Langevin dynamics: approximate, no law is kept.

    z' = z + h / 2 g + sqrt(h) noise, for the gradient g of an estimate of the log density in
    unconstrained space (Welling and Teh 2011). There is no accept step. The target of a
    Gaussian with precision a gets the variance 1 / (a (1 - h a / 4)) from exact gradients, and
    noise of the gradients adds to that (Vollmer, Zygalakis and Teh 2016).

    Statistics: `step_size`.

    Args:
      estimate: from latents to an unbiased estimate of the log density, a random program:
        `minibatch(...)`, or `target.log_density` for full gradients.
      selection: continuous latents; all latents if left out.
      step_size: h, or a function of the number of steps so far, which the warm-up follows and
        whose last value stays: after it the kernel is the same at each step.

    Raises:
      InvalidArgument: a selected latent has no unconstrained space, or the step size is not
        above 0.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import sample_posterior
    >>> from inference import minibatch, sgld
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def line(x):
    ...     slope = sample("slope", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(slope * x, 1.0))
    >>> x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.5, 1.0, 4.0])
    >>> target = Target(line, (x,), {"y": y})
    >>> some = minibatch(lambda i: Target(line, (x[i],), {"y": y[i]}), total=3, size=2)
    >>> kernel = sgld(target, some, step_size=lambda t: 0.1 * (1 + t) ** -0.5)
    >>> draws = sample_posterior(jax.random.key(0), target, kernel)
    >>> slope = draws.summary()["slope"]  # gradients of a normal are linear: its mean stays
    >>> bool(abs(slope["mean"] - 15.5 / 15) < 5 * slope["mcse_mean"])
    True
    """
    _check_approximate(target, estimate, step_size)
    space = Space(target, selection)
    slope = _slope(space, estimate)

    def step(h: Any, at: Position) -> tuple[Position, Stats]:
        noise = draw(dist.Normal(jnp.zeros(space.size, space.dtype), 1.0))
        z = at.z + h / 2 * slope(at) + jnp.sqrt(h) * noise
        return Position(at.rest, z), {"step_size": jnp.asarray(h, space.dtype)}

    return _approximate("sgld", space, step, step_size)


def sghmc(
    target: Target,
    estimate: Estimate,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    steps: int,
    step_size: Schedule,
    friction: float = 0.1,
    noise: float = 0.0,
) -> Kernel:
    """Stochastic gradient Hamiltonian Monte Carlo: approximate, no law is kept.

    `steps` times v <- (1 - a) v + h g + N(0, 2 (a - b) h) and z <- z + v, from a fresh
    velocity v ~ N(0, h), for the gradient g of an estimate of the log density in
    unconstrained space (Chen, Fox and Guestrin 2014, equation 15). There is no accept step.

    Statistics: `step_size`.

    Args:
      estimate, selection, step_size: as for `sgld`.
      steps: updates of the velocity in one step of the kernel.
      friction: a.
      noise: b, what the noise of the gradients is taken for: h / 2 times their variance.

    Raises:
      InvalidArgument: a selected latent has no unconstrained space, `steps` < 1, or not
        0 <= noise <= friction <= 1.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import sample_posterior
    >>> from inference.mcmc.langevin import sghmc
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> kernel = sghmc(target, target.log_density, steps=10, step_size=0.02)
    >>> draws = sample_posterior(jax.random.key(0), target, kernel)
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    check_count("steps", steps)
    check_number("friction", friction, least=0, most=1, fix=0.1)
    check_number("noise", noise, least=0, most=1, fix=0.0)
    _check_approximate(target, estimate, step_size)
    if not isinstance(noise + friction, jax.core.Tracer) and not 0 <= noise <= friction <= 1:
        raise errors.InvalidArgument(
            "The friction does not make up for the noise.", where=errors.caller(),
            given=f"friction {friction}, noise {noise}", expected="0 <= noise <= friction <= 1",
            fix="take a smaller step size, with which the noise of the gradients is smaller",
        )  # fmt: skip
    space = Space(target, selection)
    slope, n, dtype = _slope(space, estimate), space.size, space.dtype

    def step(h: Any, at: Position) -> tuple[Position, Stats]:
        def one(state: tuple, _: None) -> tuple[tuple, None]:
            at, v = state
            kick = jnp.sqrt(2 * (friction - noise) * h) * draw(dist.Normal(jnp.zeros(n, dtype), 1))
            v = ((1 - friction) * v + h * slope(at) + kick).astype(dtype)
            return (Position(at.rest, at.z + v), v), None

        v = (jnp.sqrt(h) * draw(dist.Normal(jnp.zeros(n, dtype), 1))).astype(dtype)
        (at, _), _ = jax.lax.scan(one, (at, v), None, length=steps)
        return at, {"step_size": jnp.asarray(h, dtype)}

    return _approximate("sghmc", space, step, step_size)


def _check_approximate(target: Target, estimate: Estimate, step_size: Schedule) -> None:
    check_target(target)
    expected = "a random program from latents to an estimate of the log density"
    check_callable("estimate", estimate, expected, "target.log_density, or minibatch(...)")
    if not callable(step_size) or isinstance(step_size, GenerativeFunction):
        check_number("step_size", step_size, above=0, fix=0.01)


def _slope(space: Space, estimate: Estimate) -> Callable[[Position], jax.Array]:
    """The gradient of one estimate of the log density in unconstrained space."""

    def at(position: Position) -> jax.Array:
        def log_density(z: jax.Array) -> jax.Array:
            log_det = space.constrain(position.rest, z)[1]
            return estimate(space.latents(position.rest, z)) + log_det

        return jax.grad(log_density)(position.z)

    return at


def _approximate(name: str, space: Space, step: Callable, step_size: Schedule) -> Kernel:
    first, tuning = step_size, None
    if callable(step_size):
        first = step_size(0)
        tuning = Tuning(
            init=lambda state, n: jnp.zeros((), int),
            parameters=step_size,
            update=lambda t, state, stats: t + 1,
            # the last step of the warm-up was number t - 1
            freeze=lambda t: step_size(jnp.maximum(t - 1, 0)),
        )
    return Kernel(
        name=f"{name} (approximate)",
        step=step,
        parameters=first,
        tuning=tuning,
        enter=lambda trace: Position(space.rest(trace), space.position(trace)),
        leave=lambda at: space.trace(at.rest, at.z),
        read=lambda at: space.latents(at.rest, at.z),
        target=space.target,
    )
