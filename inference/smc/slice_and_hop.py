"""The kernel of nested sampling when none is given: slices, and hops from mode to mode."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import Target, draw

from ..kernel import Kernel, Stats
from ..mcmc.metric import Metric
from ..mcmc.scored_position import ScoredPosition, on_scored_positions
from ..mcmc.slices import slice_sample
from ..mcmc.space import Space
from ..move import accepted
from ..weighted import Weighted
from .adaptive import particle_metric


class Others(NamedTuple):
    """What is known of the other points: the slices' metric; positions, shape (n, d), of which
    the first `vacant` are none."""

    metric: Metric
    positions: jax.Array
    vacant: jax.Array


def slice_and_hop(target: Target) -> Kernel:
    """Slices along 5 d random directions, a hop by the difference of two other points after each.

    Leaves `target` invariant for other points that are fixed: a hop is as likely as its reverse,
    and accepted by Metropolis's rule (ter Braak 2006, with a factor of 1). From one mode to
    another it hops by the difference of points of both, which keeps each mode its share. Slices
    come first, so that a copy does not hop onto one of the points.

    Parameters: `Others`, from `others`; with none it makes no hops.

    Statistics: `hop`, the mean acceptance probability of the hops.

    Raises:
      InvalidArgument: a latent has no unconstrained space.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.smc.slice_and_hop import slice_and_hop
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     sample("y", dist.Normal(sample("x", dist.Normal(0.0, 1.0)), 1.0))
    >>> slice_and_hop(Target(model, (), {"y": 0.0})).parameters.positions.shape
    (1, 1)
    """
    space = Space(target)
    slices = slice_sample(target, along="direction")

    def step(others: Others, point: Any) -> tuple[Any, Stats]:
        last = others.positions.shape[0] - 1

        def one(point: Any, _: None) -> tuple[Any, jax.Array]:
            point, _stats = slices.step(others.metric, point)
            i = draw(dist.DiscreteUniform(others.vacant, last))
            j = draw(dist.DiscreteUniform(others.vacant, last))
            z = point.z + others.positions[i] - others.positions[j]
            moved: Any = ScoredPosition(point.rest, z, space.log_density(point.rest)(z))
            return accepted(point, moved, moved.log_density - point.log_density)

        point, probability = lax.scan(one, point, None, length=5 * space.size)
        return point, {"hop": probability.mean()}

    none = Others(slices.parameters, jnp.zeros((1, space.size), space.dtype), jnp.zeros((), int))
    return Kernel(name="slice_and_hop", step=step, parameters=none, **on_scored_positions(space))


def others(kernel: Kernel, particles: Weighted) -> Others:
    """The parameters of `slice_and_hop` from particles, those of weight zero first."""
    positions = jax.vmap(lambda latents: kernel.enter(latents).z)(particles.value)
    metric = particle_metric(kernel.tuned(kernel.parameters.metric), particles)
    return Others(metric, positions, (particles.log_weight == -jnp.inf).sum())
