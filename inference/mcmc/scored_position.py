"""The state of kernels that need densities and no gradients: a position and its log density."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl import Trace

from .space import Space


class ScoredPosition(NamedTuple):
    """A position with the log density there; the trace that holds the rest."""

    rest: Trace | None
    z: jax.Array
    log_density: jax.Array


def on_scored_positions(space: Space) -> dict[str, Any]:
    """What makes a kernel of a step on `ScoredPosition`s: `enter`, `leave`, ..., `target`."""

    def enter(trace: Trace) -> ScoredPosition:
        rest, z = space.rest(trace), space.position(trace)
        return ScoredPosition(rest, z, space.log_density(rest)(z))

    return {
        "enter": enter,
        "leave": lambda point: space.trace(point.rest, point.z),
        "read": lambda point: space.latents(point.rest, point.z),
        "valid": lambda point: jnp.isfinite(point.log_density),
        "target": space.target,
    }
