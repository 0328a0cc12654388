"""The state of kernels that need gradients: a position with its potential and its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl import Trace

from .space import Space


class Phase(NamedTuple):
    """A position with its potential energy and gradient; the trace that holds the rest."""

    rest: Trace | None
    z: jax.Array
    potential: jax.Array
    gradient: jax.Array


def on_phases(space: Space) -> dict[str, Any]:
    """`enter`, `leave`, `read`, `valid` and `target` of a kernel whose state is a `Phase`."""

    def enter(trace: Trace) -> Phase:
        rest, z = space.rest(trace), space.position(trace)
        potential, gradient = jax.value_and_grad(space.potential(rest))(z)
        return Phase(rest, z, potential, gradient)

    return {
        "enter": enter,
        "leave": lambda phase: space.trace(phase.rest, phase.z),
        "read": lambda phase: space.latents(phase.rest, phase.z),
        "valid": lambda phase: (
            jnp.isfinite(phase.potential) & jnp.all(jnp.isfinite(phase.gradient))
        ),
        "target": space.target,
    }
