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
from ppl.program import Choice, Path

from .elimination import run
from .gaussians import Gaussians
from .linear import Block, Tilt
from .normals import factor_of
from .process_steps import is_process


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
        long = self._processes()
        means = {path: mean for path, mean in self._means().items() if path not in long}
        if not means:
            return long
        zeros = {path: jnp.zeros(self._shape(path)) for path in means}
        bends = {path: jnp.zeros((*mean.shape, mean.shape[-1])) for path, mean in means.items()}

        def mass(bends: dict[Path, jax.Array]) -> jax.Array:
            tilts = {path: Tilt(zeros[path], bends[path], means[path]) for path in means}
            return self._evidence(tilts, False)

        halves = jax.grad(mass)(bends)
        laws = {path: self._law(path, means[path], 2 * half) for path, half in halves.items()}
        return {**laws, **long}

    def _processes(self) -> dict[Path, Any]:
        """The laws of processes of which no matrix was needed."""
        choices = [s for s in self.prepared.staged.program.steps if isinstance(s, Choice)]
        blocks = [Block(s.path, math.prod(s.spec.shape)) for s in choices
                  if s.path in self.sums.places and is_process(s.spec)]  # fmt: skip
        if not blocks:
            return {}
        found = self._run({}, False, frozenset(blocks))
        return {held.block.name: held.law(held.level) for held in found.processes}

    def _shape(self, path: Path) -> tuple[int, ...]:
        """The loops around a choice, and how many numbers it is."""
        site = self.prepared.sites[path]
        return (*(size for _, size in site.axes), math.prod(site.spec.shape))

    def _run(self, tilts: dict[Path, Tilt], simulate: bool, live: frozenset) -> Any:
        sums = replace(self.sums, given=True, simulate=simulate)
        program, operands = self.prepared.staged.program, self.prepared.operands
        return run(program, operands, sums.nothing(), sums, {**self.values, **tilts}, live)[1]

    def _evidence(self, tilts: dict[Path, Tilt], simulate: bool) -> jax.Array:
        return self.sums.evidence(self._run(tilts, simulate, frozenset()))

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
