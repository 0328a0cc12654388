"""Hamiltonian Monte Carlo on the unconstrained space of a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.infer.hmc_util import IntegratorState

from ppl import Selection, Target, Trace, draw

from ..kernel import Kernel, Stats
from ..recipe import made_again
from ..validation.settings import check_count
from .first_metric import first_step_size, scales_by_slopes, signs
from .metric import InverseMass, Metric, kinetic_energy, momentum, velocity
from .phase import Phase, on_phases
from .prologue import Prologue, accepting
from .space import Space
from .tree import DIVERGENT

USUAL = 0.1
"""The step size outside of a run."""


class Hamiltonian:
    """What Hamiltonian kernels share: leapfrog steps, momenta, and their first metric."""

    def __init__(self, space: Space):
        self.space = space

    def leapfrog(self, rest: Trace | None) -> Callable[..., IntegratorState]:
        """`(step size, inverse mass, state) -> state`."""
        slope = jax.value_and_grad(self.space.potential(rest))

        def one(h: jax.Array, inverse_mass: InverseMass, state: IntegratorState) -> IntegratorState:
            r = state.r - 0.5 * h * state.z_grad
            z = state.z + h * velocity(inverse_mass, r)
            potential, gradient = slope(z)
            return IntegratorState(z, r - 0.5 * h * gradient, potential, gradient)

        return one

    def momentum(self, inverse_mass: InverseMass) -> jax.Array:
        """r ~ N(0, inverse_mass^-1)."""
        noise = draw(dist.Normal(jnp.zeros(self.space.size, self.space.dtype), 1.0))
        return momentum(inverse_mass, noise)

    def first(self, phase: Phase, metric: Metric, short: bool) -> Metric:
        """Where a run starts: a step size that one leapfrog step bears.

        Windows find the masses; where the warm-up has `short` ones or none, the gradient beside
        the start does.
        """
        z, potential, gradient = phase.z, phase.potential, phase.gradient
        if short:
            slopes = jax.grad(self.space.potential(phase.rest))
            metric = metric.with_variances(scales_by_slopes(slopes, z, gradient))
        leapfrog = self.leapfrog(phase.rest)
        r = signs(z) / metric.deviations
        start = IntegratorState(z, r, potential, gradient)

        def log_ratio(step_size: jax.Array) -> jax.Array:
            end = leapfrog(step_size, metric.inverse_mass, start)
            before, after = (kinetic_energy(metric.inverse_mass, p) for p in (r, end.r))
            return potential + before - end.potential_energy - after

        step_size = jnp.asarray(metric.step_size, z.dtype)
        return metric._replace(step_size=first_step_size(log_ratio, step_size))


@made_again
def hmc(
    target: Target,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    steps: int,
    step_size: float | None = None,
    dense: bool | None = None,
    target_accept: float = 0.8,
) -> Kernel:
    """Hamiltonian Monte Carlo; leaves `target` invariant (Duane et al. 1987; Neal 2011, 5.2).

    `steps` leapfrog steps in the unconstrained space of the selected continuous latents,
    given the others, accepted by the change of energy. The map is its own inverse up to
    the sign of the momentum, and keeps volume.

    Statistics: `accept`, `diverging`, `energy` (of the state that was kept, at the
    momentum of the step), `steps`.

    Args:
      selection: continuous latents; all latents if left out.
      steps: leapfrog steps of a trajectory, a Python int.
      step_size: used as it is without a warm-up, and as the start of one. If left out, each
        chain of a run starts with one that its first step bears (Hoffman and Gelman 2014,
        algorithm 4); outside of a run it is 0.1.
      dense: whether the warm-up finds a dense mass matrix or a diagonal one. If left out, dense
        for at most 64 coordinates; for at most 1024, diagonal but along 24 axes; else diagonal.
      target_accept: the acceptance probability that the warm-up aims at.

    Raises:
      InvalidArgument: a selected latent has no unconstrained space, or a setting is out of
        range.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import hmc, sample_posterior
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> draws = sample_posterior(jax.random.key(0), target, hmc(target, steps=5))
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    check_count("steps", steps)
    accept = accepting(target_accept)
    begun = Prologue(target, selection, step_size, dense, accept, lambda n: USUAL, slopes=True)
    system = Hamiltonian(begun.space)

    def step(metric: Metric, phase: Phase) -> tuple[Phase, Stats]:
        r = system.momentum(metric.inverse_mass)
        energy = phase.potential + kinetic_energy(metric.inverse_mass, r)
        leapfrog = system.leapfrog(phase.rest)
        start = IntegratorState(phase.z, r, phase.potential, phase.gradient)

        def one(state: IntegratorState, _: None) -> tuple[IntegratorState, None]:
            return leapfrog(metric.step_size, metric.inverse_mass, state), None

        end, _ = jax.lax.scan(one, start, None, length=steps)
        moved = Phase(phase.rest, end.z, end.potential_energy, end.z_grad)
        after = end.potential_energy + kinetic_energy(metric.inverse_mass, end.r)
        return _kept(phase, moved, energy, after, steps)

    return begun.kernel(
        "hmc", step, on_phases(begun.space), gradient=gradient_of, first=system.first
    )


def gradient_of(phase: Phase) -> jax.Array:
    """The gradient at a state."""
    return phase.gradient


def _kept(old: Phase, new: Phase, before: Any, after: Any, steps: int) -> tuple[Phase, Stats]:
    """Accept by the change of energy; an energy that is no number is refused."""
    error = jnp.where(jnp.isnan(after), jnp.inf, after - before)
    probability = jax.lax.stop_gradient(jnp.exp(jnp.minimum(-error, 0.0)))
    taken = draw(dist.Bernoulli(probability)) == 1
    phase = jax.tree.map(lambda a, b: a if a is b else jnp.where(taken, b, a), old, new)
    stats = {
        "accept": probability,
        "diverging": error > DIVERGENT,
        "energy": jnp.where(taken, after, before),
        "steps": jnp.asarray(steps),
    }
    return phase, stats
