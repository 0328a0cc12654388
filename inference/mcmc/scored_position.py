"""The state of kernels that need densities and no gradients: a position and its log density.

Where the density is an estimate, a position keeps the trace that the estimate was made with, and
no estimate is made anew for a state: so that a kernel which compares a new one with that of the
state leaves the exact law invariant (Andrieu and Roberts 2009).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl import Trace
from ppl.addresses import nest

from .space import Space


class ScoredPosition(NamedTuple):
    """A position with the log density there; the trace that holds the rest."""

    rest: Trace | None
    z: jax.Array
    log_density: jax.Array


def scored_at(space: Space, rest: Trace | None, z: jax.Array) -> ScoredPosition:
    """The position z with its log density; with a new estimate where it is one."""
    if not space.estimated:
        return ScoredPosition(rest, z, space.log_density(rest)(z))
    assert rest is not None
    values, log_det = space.constrain(rest, z)
    trace = space.target.moved(rest, nest(values))[0]
    return ScoredPosition(trace, z, trace.score + log_det)


def on_scored_positions(space: Space) -> dict[str, Any]:
    """What makes a kernel of a step on `ScoredPosition`s: `enter`, `leave`, ..., `target`."""

    def enter(trace: Trace) -> ScoredPosition:
        rest, z = space.rest(trace), space.position(trace)
        if space.estimated:
            return ScoredPosition(trace, z, trace.score + space.constrain(trace, z)[1])
        return scored_at(space, rest, z)

    def leave(point: ScoredPosition) -> Trace:
        if space.estimated:
            assert point.rest is not None
            return point.rest
        return space.trace(point.rest, point.z)

    return {
        "enter": enter,
        "leave": leave,
        "read": lambda point: space.latents(point.rest, point.z),
        "valid": lambda point: jnp.isfinite(point.log_density),
        "target": space.target,
    }
