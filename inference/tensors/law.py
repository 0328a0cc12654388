"""The law that message passing finds, as a generative function with the choices of the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.transforms import ReshapeTransform

from ppl import GenerativeFunction, sample

from .beliefs import Beliefs
from .factors import Factors
from .model import Tensor
from .sites import Sites


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tensor", "beliefs", "coordinates", "modes"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class _Law:
    tensor: Tensor
    beliefs: Beliefs
    coordinates: tuple[jax.Array, ...]
    modes: tuple[Sites, ...]

    def __call__(self, *others: Any) -> None:
        tensor, beliefs = self.tensor, self.beliefs
        if tensor.effects:
            mean, variance = beliefs.level
            sample("level", dist.Normal(mean, jnp.sqrt(variance)))
        parts = zip(tensor.names, tensor.kernels, self.coordinates, self.modes, strict=True)
        for name, kernels, at, sites in parts:
            sample(name, Factors(kernels, at, sites))
        if tensor.has_core and beliefs.core is not None:
            mean, second = beliefs.core
            normal = dist.MultivariateNormal(mean, second - jnp.outer(mean, mean))
            shaped = ReshapeTransform(tensor.ranks, (mean.size,))
            sample("core", dist.TransformedDistribution(normal, shaped))
        if beliefs.precision is not None:
            gamma = dist.Gamma(beliefs.precision.shape, beliefs.precision.rate)
            sample("precision", gamma.to_event(len(gamma.batch_shape)))


def law_of(
    tensor: Tensor, beliefs: Beliefs, coordinates: tuple[jax.Array, ...], modes: tuple[Sites, ...]
) -> GenerativeFunction:
    """The generative function that draws all latent choices of the model by their beliefs."""
    return GenerativeFunction(_Law(tensor, beliefs, coordinates, modes), name="message_passing")
