"""One sweep of conditional message passing: every mode, then the core, the level and the noise.

Each part's law becomes the best one given the laws of the others, so the evidence bound does not
fall; with damping, it goes a share of the way in natural parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from .beliefs import Beliefs, Told, core_given, level_given, precision_given
from .entries import Entries
from .model import Tensor
from .noise import Likelihood
from .sites import folded
from .sums import of_core, of_mode, of_predictor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where inference is.

    Attributes:
      beliefs: the law of all choices.
      told: what the entries of this sweep say, of which that law is made, with what is held.
      weight, pull: what each entry says of its predictor.
      likely: the mean log density of the entries of this sweep, or its bound.
      bound: the evidence bound; for a `Likelihood`, with predictors taken as normal. What is held
        counts by what it says of the beliefs, up to a number.
    """

    beliefs: Beliefs
    told: Told
    weight: jax.Array
    pull: jax.Array
    likely: jax.Array
    bound: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slopes:
    """The derivative of the evidence bound in hyperparameters."""

    kernels: tuple[Any, ...]
    noise: dict[str, Any]


def swept(
    tensor: Tensor, rows: Entries, y: jax.Array, state: State, held: Told, damping: Any
) -> tuple[State, Slopes]:
    """The state after a sweep, and the derivative of its bound.

    Args:
      held: what other entries have told.
      damping: the share of the way that natural parameters go, at most 1.
    """
    beliefs, told = state.beliefs, state.told
    weight, pull = state.weight, state.pull

    def toward(old: Any, new: Any) -> Any:
        return jax.tree.map(lambda a, b: a + damping * (b - a), old, new)

    def own() -> Any:
        """What is believed of the precision of each entry."""
        return tensor.of_entries(beliefs.precision, rows.index)

    def seen() -> tuple[Any, Any]:
        """What entries say of their predictors, where that differs with the predictor."""
        if not tensor.noise.moves:
            return weight, pull
        found = of_predictor(
            tensor, beliefs.means, beliefs.seconds, beliefs.core, beliefs.level, rows.index
        )
        return tensor.noise.seen_as(y, *found, own())

    slopes = []
    for k, (kernels, at) in enumerate(zip(tensor.kernels, rows.coordinates, strict=True)):
        weight, pull = seen()
        new = of_mode(
            tensor, k, beliefs.means, beliefs.seconds, beliefs.core, beliefs.level, rows.index,
            weight, pull,
        )  # fmt: skip
        new = toward(told.modes[k], new)
        mode = folded(kernels, at, jax.tree.map(jnp.add, new, held.modes[k]))
        slopes.append(mode.slope)
        told = replace(told, modes=(*told.modes[:k], new, *told.modes[k + 1 :]))
        modes = (*beliefs.modes[:k], mode, *beliefs.modes[k + 1 :])
        beliefs = replace(beliefs, modes=modes)
    if tensor.has_core:
        weight, pull = seen()
        new = of_core(
            tensor, beliefs.means, beliefs.seconds, beliefs.core, beliefs.level, rows.index,
            weight, pull,
        )  # fmt: skip
        new = toward(told.core, new)
        told = replace(told, core=new)
        beliefs = replace(beliefs, core=core_given(tensor, jax.tree.map(jnp.add, new, held.core)))

    mean, variance = of_predictor(
        tensor, beliefs.means, beliefs.seconds, beliefs.core, beliefs.level, rows.index
    )
    if tensor.effects:
        if tensor.noise.moves:
            weight, pull = tensor.noise.seen_as(y, mean, variance, own())
        old, spread = beliefs.level
        new = jnp.sum(weight), jnp.sum(pull - weight * (mean - old))
        new = toward(told.level, new)
        level = level_given(tensor, jax.tree.map(jnp.add, new, held.level))
        told, beliefs = replace(told, level=new), replace(beliefs, level=level)
        mean, variance = mean + level[0] - old, variance + level[1] - spread
    if not isinstance(tensor.noise, Likelihood):
        shape = tensor.precisions(rows.sizes)
        each = tensor.noise.told(y, mean, variance, own())
        new = toward(told.noise, tuple(tensor.over_entries(x, rows.index, shape) for x in each))
        told = replace(told, noise=new)
        law = precision_given(tensor, jax.tree.map(jnp.add, new, held.noise))
        beliefs = replace(beliefs, precision=law)
    weight, pull = tensor.noise.seen_as(y, mean, variance, own())

    def expected(learned: dict[str, Any]) -> tuple[Any, Any]:
        noise: Any = tensor.noise.with_learned(learned)
        likely = noise.expected(y, mean, variance, own())
        if noise.by is None:
            return likely, likely
        return likely - jnp.sum(beliefs.precision.divergence(noise.prior)), likely  # type: ignore[union-attr]

    by_noise, likely = jax.grad(expected, has_aux=True)(tensor.noise.learned)
    bound = likely + beliefs.average(held) - beliefs.divergence(tensor)
    return State(beliefs, told, weight, pull, likely, bound), Slopes(tuple(slopes), by_noise)
