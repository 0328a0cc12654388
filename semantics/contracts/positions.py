"""Positions for another library's kernels: coordinates on the line, and integers as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Target
from ppl.addresses import flatten, nest


class Positions:
    """The latents of a target with its continuous ones unconstrained, and the density there.

    Raises:
      InvalidArgument: a continuous latent has no bijection to unconstrained space.
    """

    def __init__(self, target: Target):
        self.target = target
        floats = [
            path
            for path in target.latents
            if jnp.issubdtype(target.sites[path].dtype, jnp.floating)
        ]
        self.whole = [path for path in target.latents if path not in floats]
        self.coordinates = target.coordinates(floats)

    def position(self, latents: Mapping[str, Any]) -> Any:
        """The position of latents."""
        if not self.whole:
            return self.target.unconstrain(latents)
        values = flatten(latents)
        known = {**flatten(self.target.observations), **values}
        z = self.coordinates.unconstrain(known)
        return nest({path: jnp.asarray({**values, **z}[path]) for path in self.target.latents})

    def latents(self, position: Any) -> dict[str, Any]:
        """The latents at a position."""
        return self._at(position)[0]

    def log_density(self, position: Any) -> jax.Array:
        """The target's log density there, with the Jacobian of the coordinates."""
        if not self.whole:
            return -self.target.potential(position)
        latents, log_det = self._at(position)
        return self.target.log_density(latents) + log_det

    def _at(self, position: Any) -> tuple[dict[str, Any], jax.Array]:
        if not self.whole:
            return self.target.constrain(position)
        given = flatten(position)
        whole = {path: given[path] for path in self.whole}
        rest = {**flatten(self.target.observations), **whole}
        values, log_det = self.coordinates.constrain(given, rest)
        values = {**values, **whole}
        return nest({path: values[path] for path in self.target.latents}), log_det
