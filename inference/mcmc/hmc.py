"""Hamiltonian Monte Carlo on the unconstrained space of a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.infer.hmc_util import IntegratorState, euclidean_kinetic_energy, velocity_verlet

from ppl import Selection, Target, Trace, draw, errors

from ..kernel import Kernel, Stats, Tuning
from .adaptation import windows
from .metric import Metric, kinetic_energy, unit_metric
from .space import Space
from .tree import DIVERGENT


class Phase(NamedTuple):
    """A position with its potential energy and gradient; the trace that holds the rest."""

    rest: Trace | None
    z: jax.Array
    potential: jax.Array
    gradient: jax.Array


class Hamiltonian:
    """What Hamiltonian kernels share: energies, leapfrog steps, momenta, and traces."""

    def __init__(self, target: Target, selection: Any, step_size: float, dense: bool | None):
        self.space = Space(target, selection)
        self.metric = unit_metric(step_size, self.space.size, self.space.dtype, dense)

    def enter(self, trace: Trace) -> Phase:
        rest, z = self.space.rest(trace), self.space.position(trace)
        potential, gradient = jax.value_and_grad(self.potential(rest))(z)
        return Phase(rest, z, potential, gradient)

    def leave(self, phase: Phase) -> Trace:
        return self.space.trace(phase.rest, phase.z)

    def read(self, phase: Phase) -> dict[str, Any]:
        return self.space.latents(phase.rest, phase.z)

    def valid(self, phase: Phase) -> jax.Array:
        return jnp.isfinite(phase.potential) & jnp.all(jnp.isfinite(phase.gradient))

    def potential(self, rest: Trace | None) -> Callable[[jax.Array], jax.Array]:
        log_density = self.space.log_density(rest)
        return lambda z: -log_density(z)

    def leapfrog(self, rest: Trace | None) -> Callable[..., IntegratorState]:
        """`(step size, inverse mass, state) -> state`, by numpyro's velocity Verlet."""
        return velocity_verlet(self.potential(rest), euclidean_kinetic_energy)[1]

    def tuning(self, target_accept: float) -> Tuning:
        """How the step size and the mass are found."""
        return windows(_position, self.metric, target_accept, gradient=_gradient)

    def momentum(self, inverse_mass: jax.Array) -> jax.Array:
        """r ~ N(0, inverse_mass^-1)."""
        n = self.space.size
        noise = draw(dist.Normal(jnp.zeros(n, self.space.dtype), 1.0))
        if inverse_mass.ndim == 1:
            return noise / jnp.sqrt(inverse_mass)
        return solve_triangular(jnp.linalg.cholesky(inverse_mass), noise, trans=1, lower=True)


def hmc(
    target: Target,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    steps: int,
    step_size: float = 0.1,
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
      step_size: used as it is without a warm-up, and as the start of one.
      dense: whether the warm-up finds a dense mass matrix or a diagonal one; dense for at
        most 64 coordinates if left out.
      target_accept: the acceptance probability that the warm-up aims at.

    Raises:
      InvalidArgument: a selected latent has no unconstrained space, or `steps` < 1.

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
    check_positive("steps", steps)
    system = Hamiltonian(target, selection, step_size, dense)

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

    tuning = system.tuning(target_accept)
    return Kernel(
        name="hmc",
        step=step,
        parameters=system.metric,
        tuning=tuning,
        enter=system.enter,
        leave=system.leave,
        read=system.read,
        valid=system.valid,
    )


def _position(phase: Phase) -> jax.Array:
    return phase.z


def _gradient(phase: Phase) -> jax.Array:
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


def check_positive(name: str, value: Any) -> None:
    """Raise `InvalidArgument` unless `value` is a positive Python int."""
    if not isinstance(value, int) or value < 1:
        raise errors.InvalidArgument(
            f"{name} is not a positive int.", where=errors.caller(), given=repr(value),
            expected=f"{name} >= 1, known before the program runs", fix=f"{name}=10",
        )  # fmt: skip
