"""What Gaussian choices were, given the rest: by derivatives of the evidence.

The density is multiplied by exp(slope z + (z - c)' bend (z - c) / 2) for each summed choice z.
At slopes and bends of zero, the derivatives of its log mass are the mean of z given the rest,
and half of the mean square of z - c, which is half of the covariance where c is the mean. The
mean moves linearly with what is given: so a draw of everything, corrected by the mean for what
it lacks, is a joint draw (Durbin and Koopman 2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Trace
from ppl.execute import Given
from ppl.program import Path

from .elimination import run
from .gaussians import Gaussians
from .linear import Tilt


@dataclass(frozen=True, eq=False)
class GaussianGiven:
    """A model whose other choices are given.

    Attributes:
      values: the other choices.
      inner: None, since nothing is to be restored after Gaussian choices.
    """

    prepared: Any
    sums: Gaussians
    values: dict[Path, Given]
    inner: GenerativeFunction | None

    def drawn(self) -> Trace:
        """A joint draw."""
        return self._trace(self._means(simulate=True))

    def likeliest(self) -> Trace:
        return self._trace(self._means())

    def laws(self) -> dict[Path, Any]:
        means = self._means()
        zeros = {path: jnp.zeros(self._shape(path)) for path in means}
        bends = {path: jnp.zeros((*mean.shape, mean.shape[-1])) for path, mean in means.items()}

        def mass(bends: dict[Path, jax.Array]) -> jax.Array:
            tilts = {path: Tilt(zeros[path], bends[path], means[path]) for path in means}
            return self._evidence(tilts, False)

        halves = jax.grad(mass)(bends)
        return {path: self._law(path, means[path], 2 * half) for path, half in halves.items()}

    def _shape(self, path: Path) -> tuple[int, ...]:
        """The loops around a choice, and how many numbers it is."""
        site = self.prepared.sites[path]
        return (*(size for _, size in site.axes), math.prod(site.spec.shape))

    def _evidence(self, tilts: dict[Path, Tilt], simulate: bool) -> jax.Array:
        sums = replace(self.sums, given=True, simulate=simulate)
        program, operands = self.prepared.staged.program, self.prepared.operands
        _, law = run(program, operands, sums.nothing(), sums, {**self.values, **tilts})
        return sums.evidence(law)

    def _means(self, simulate: bool = False) -> dict[Path, jax.Array]:
        """The means of all summed choices, flat; or, with `simulate`, a joint draw of them."""
        slopes = {path: jnp.zeros(self._shape(path)) for path in self.sums.places}

        def mass(slopes: dict[Path, jax.Array]) -> jax.Array:
            return self._evidence({path: Tilt(s) for path, s in slopes.items()}, simulate)

        return jax.grad(mass)(slopes)

    def _trace(self, flat: dict[Path, jax.Array]) -> Trace:
        """The model's trace with these values of what was summed out."""
        sites = self.prepared.sites
        found = {
            p: Given(x.reshape(sites[p].shape).astype(sites[p].dtype)) for p, x in flat.items()
        }
        given = {path: Given(old.value) for path, old in self.values.items()}
        return self.prepared.at({**given, **found})[0]

    def _law(self, path: Path, mean: jax.Array, covariance: jax.Array) -> Any:
        site = self.prepared.sites[path]
        if site.spec.shape == ():
            variance = jnp.maximum(covariance[..., 0, 0], 0.0)
            return dist.Normal(mean[..., 0], jnp.sqrt(variance))
        return dist.MultivariateNormal(mean, scale_tril=factor_of(covariance))


def factor_of(covariance: jax.Array) -> jax.Array:
    """A lower factor of a covariance that may be singular."""
    values, vectors = jnp.linalg.eigh((covariance + jnp.swapaxes(covariance, -1, -2)) / 2)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :]
    upper = jnp.linalg.qr(jnp.swapaxes(root, -1, -2), mode="r")
    signs = jnp.where(jnp.diagonal(upper, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return jnp.swapaxes(signs[..., None] * upper, -1, -2)
