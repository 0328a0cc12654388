"""Hamiltonian kernels whose inverse mass is diagonal but along an axis, and what can be wrong."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from inference import Kernel, hmc
from inference.mcmc.low_rank import LowRank
from inference.mcmc.metric import Metric
from ppl import Target
from semantics.contracts.sampled import check_kernel_sampled

from .hamiltonian import KEY, PLANE
from .registry import family


class OfInverse(LowRank):
    def inverse_factor_times(self, x: jax.Array) -> jax.Array:
        return self.factor_times(x)


class NoRoot(LowRank):
    def inverse_factor_times(self, x: jax.Array) -> jax.Array:
        return self._along(x, 1 / self.stretches) / jnp.sqrt(self.variances)


class OtherUnits(LowRank):
    def inverse_factor_times(self, x: jax.Array) -> jax.Array:
        return self._along(x / jnp.sqrt(self.variances), 1 / jnp.sqrt(self.stretches))


class NoAxes(LowRank):
    def times(self, x: jax.Array) -> jax.Array:
        return self.variances * x


WRONG = {
    "": LowRank, "inverse": OfInverse, "no root": NoRoot, "units": OtherUnits, "no axes": NoAxes
}  # fmt: skip


def kernel(target: Target, wrong: str = "") -> Kernel:
    parts: Any = jnp.array([3.0, 0.1]), jnp.array([[0.6], [0.8]]), jnp.array([4.0])
    return hmc(target, steps=3, step_size=0.5).tuned(Metric(jnp.asarray(0.5), WRONG[wrong](*parts)))


_low_rank = family("HMC, low rank", check_kernel_sampled, kernel, PLANE, KEY, steps=3)

ENTRIES = (
    _low_rank("correct", "", "a mass that is diagonal but along an axis"),
    _low_rank("mutant", "inverse", "momenta with the inverse of the mass"),
    _low_rank("mutant", "no root", "momenta stretched by the inverse mass, not by its root"),
    _low_rank("mutant", "units", "momenta in units before the stretch, not after it"),
    _low_rank("mutant", "no axes", "velocities and energies without the axes"),
)
