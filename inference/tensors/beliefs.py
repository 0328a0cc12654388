"""What is believed of all choices of a functional tensor, and what entries have told of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .model import Tensor
from .noise import Likelihood, Precision
from .sites import Mode, Sites, drawn


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Told:
    """What entries say, as numbers that add up from one set of entries to another.

    Attributes:
      modes: sites of each mode.
      core: the site of the core, `(S, S)` and `(S,)`; None without one.
      level: precision and linear part of the site of the constant.
      noise: what is added to shape and rate of the law of each precision.
    """

    modes: tuple[Sites, ...]
    core: Sites | None
    level: tuple[Any, Any]
    noise: tuple[Any, Any]

    def __add__(self, other: Told) -> Told:
        return jax.tree.map(jnp.add, self, other)

    def __sub__(self, other: Told) -> Told:
        return jax.tree.map(jnp.subtract, self, other)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Beliefs:
    """A law of all choices, in which modes, core, level and precision are independent.

    Attributes:
      modes: the law of each mode's functions.
      core: mean and second moment of the core, `(S,)` and `(S, S)`, known or believed; or None.
      level: mean and variance of the constant.
      precision: the law of the noise's precision, or of one for each coordinate of a mode.
    """

    modes: tuple[Mode, ...]
    core: tuple[Any, Any] | None
    level: tuple[Any, Any]
    precision: Precision | None

    @property
    def means(self) -> tuple[jax.Array, ...]:
        return tuple(mode.mean for mode in self.modes)

    @property
    def seconds(self) -> tuple[jax.Array, ...]:
        return tuple(mode.second for mode in self.modes)

    def divergence(self, tensor: Tensor) -> jax.Array:
        """From the prior, in nats."""
        total = sum(mode.divergence for mode in self.modes)
        if tensor.effects:
            mean, variance = self.level
            share = variance / tensor.level**2
            total = total + (share + (mean / tensor.level) ** 2 - 1 - jnp.log(share)) / 2
        if tensor.has_core and self.core is not None:
            mean, second = self.core
            covariance = second - jnp.outer(mean, mean)
            total = total + (jnp.trace(second) - mean.size - jnp.linalg.slogdet(covariance)[1]) / 2
        if self.precision is not None:
            prior: Precision = tensor.noise.prior  # type: ignore[union-attr]
            total = total + jnp.sum(self.precision.divergence(prior))
        return jnp.asarray(total)

    def average(self, told: Told) -> jax.Array:
        """The mean log of what entries have told."""
        total = jnp.zeros(())
        for mode, sites in zip(self.modes, told.modes, strict=True):
            total = total + jnp.sum(sites.linear * mode.mean)
            total = total - jnp.sum(sites.precision * mode.second) / 2
        if told.core is not None and self.core is not None:
            total = total + jnp.sum(told.core.linear * self.core[0])
            total = total - jnp.sum(told.core.precision * self.core[1]) / 2
        mean, variance = self.level
        total = total + told.level[1] * mean - told.level[0] * (mean**2 + variance) / 2
        if self.precision is not None:
            total = total + jnp.sum(told.noise[0] * self.precision.mean_log)
            total = total - jnp.sum(told.noise[1] * self.precision.mean)
        return total


def nothing_told(tensor: Tensor, sizes: tuple[int, ...]) -> Told:
    """What no entries say."""
    widths = [rank + tensor.effects for rank in tensor.ranks]
    modes = tuple(
        Sites(jnp.zeros((n, p, p)), jnp.zeros((n, p))) for n, p in zip(sizes, widths, strict=True)
    )
    size = math.prod(tensor.ranks)
    core = Sites(jnp.zeros((size, size)), jnp.zeros(size)) if tensor.has_core else None
    each = jnp.zeros(tensor.precisions(sizes))
    return Told(modes, core, (jnp.zeros(()), jnp.zeros(())), (each, each))


def core_given(tensor: Tensor, told: Sites) -> tuple[jax.Array, jax.Array]:
    """Mean and second moment of the core, whose numbers are standard normal before."""
    eye = jnp.eye(told.linear.size, dtype=told.linear.dtype)
    covariance = jnp.linalg.inv(eye + told.precision)
    covariance = (covariance + covariance.T) / 2
    mean = covariance @ told.linear
    return mean, covariance + jnp.outer(mean, mean)


def level_given(tensor: Tensor, told: tuple[Any, Any]) -> tuple[Any, Any]:
    """Mean and variance of the constant."""
    variance = 1 / (told[0] + tensor.level**-2.0)
    return variance * told[1], variance


def precision_given(tensor: Tensor, told: tuple[Any, Any]) -> Precision:
    """The law of the noise's precisions."""
    prior: Precision = tensor.noise.prior  # type: ignore[union-attr]
    return Precision(prior.shape + told[0], prior.rate + told[1])


def begun(
    key: Any, tensor: Tensor, coordinates: tuple[jax.Array, ...], spread: Any, precision: Any
) -> Beliefs:
    """Where inference starts: functions drawn from their prior, of a size that fits the data.

    Args:
      spread: the standard deviation that the products of functions have, about.
      precision: of the noise.
    """
    *keys, last = jax.random.split(key, len(coordinates) + 1)
    nothing = nothing_told(tensor, tuple(at.shape[0] for at in coordinates))
    parts = zip(keys, tensor.kernels, coordinates, nothing.modes, tensor.ranks, strict=True)
    modes = []
    for key, kernels, at, sites, rank in parts:
        draw = drawn(kernels, at, sites, key)
        draw = draw / jnp.sqrt(jnp.mean(draw**2, 0) + 1e-30)
        size = (spread / rank**0.5) ** (1 / len(keys))
        mean = (size * draw).at[:, rank:].set(0.0)  # no effect
        second = mean[:, :, None] * mean[:, None] + 0.01 * size**2 * jnp.eye(mean.shape[1])
        zero = jnp.zeros((), mean.dtype)
        modes.append(Mode(mean, second, zero, zero, jax.tree.map(jnp.zeros_like, kernels)))
    core = None
    if tensor.known_core is not None:
        flat = jnp.ravel(tensor.known_core)
        core = flat, jnp.outer(flat, flat)
    elif tensor.has_core:
        mean = jax.random.normal(last, (math.prod(tensor.ranks),))
        core = mean, jnp.outer(mean, mean) + 0.1 * jnp.eye(mean.size)
    law = None
    if not isinstance(tensor.noise, Likelihood):
        each = nothing.noise[0]
        law = Precision(each + 100.0, each + 100.0 / precision)
    zero = jnp.zeros(())
    return Beliefs(tuple(modes), core, (zero, zero), law)
