"""Components of a CP model that may not be needed, or may be needed again.

The bound has a maximum for each number of components that share the work, and by small steps
none leads to fewer. So a component is taken out, and stays out if the others do better alone. One
that few entries had no need of may be needed by more, and is begun again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from .beliefs import Beliefs, begun
from .learning import Run
from .model import Tensor
from .sites import Sites

SIZES = frozenset({"sigma", "level", "slope"})
"""Hyperparameters of kernels that are standard deviations."""

NEEDED = 1e-6
"""The share of the variance below which a component is off."""

SMALL = 1e-3
"""What is left of the size of each function that is switched off."""


@jax.jit
def shares(means: tuple[jax.Array, ...], index: jax.Array, y: jax.Array) -> jax.Array:
    """The variance of each product of mean functions over entries, over that of y, `(p,)`."""
    product = jnp.ones((len(index), means[0].shape[1]))
    for k, mean in enumerate(means):
        product = product * mean[index[:, k]]
    return jnp.divide(jnp.var(product, axis=0), jnp.var(y))


@jax.jit
def switched_off(run: Run, r: Any) -> Run:
    """The same with nothing in component r, and priors that keep it small."""
    beliefs, told = run.state.beliefs, run.state.told

    def smaller(path: Any, x: jax.Array) -> jax.Array:
        return x.at[r].multiply(SMALL) if getattr(path[-1], "name", None) in SIZES else x

    modes = tuple(
        replace(
            mode,
            mean=mode.mean.at[:, r].set(0.0),
            second=mode.second.at[:, r].set(0.0).at[:, :, r].set(0.0),
        )
        for mode in beliefs.modes
    )
    sites = tuple(untold(each, jnp.arange(each.linear.shape[1]) == r) for each in told.modes)
    state = replace(
        run.state, beliefs=replace(beliefs, modes=modes), told=replace(told, modes=sites)
    )
    kernels = jax.tree_util.tree_map_with_path(smaller, run.tensor.kernels)
    return replace(run, tensor=replace(run.tensor, kernels=kernels), state=state)


@jax.jit
def begun_again(
    key: Any, tensor: Tensor, prior: Tensor, beliefs: Beliefs, coordinates: tuple[jax.Array, ...],
    variance: Any, off: Any,
) -> tuple[Tensor, Beliefs]:  # fmt: skip
    """The same with new, small functions in the components that are off, and their first priors.

    Args:
      variance: of the entries.
      off: `(p,)`, which functions.
    """
    kernels = jax.tree.map(lambda old, new: jnp.where(off, new, old), tensor.kernels, prior.kernels)
    tensor = replace(tensor, kernels=kernels)
    fresh = begun(key, tensor, coordinates, 0.1 * jnp.sqrt(variance), 1 / variance)
    modes = []
    for old, new in zip(beliefs.modes, fresh.modes, strict=True):
        mean = jnp.where(off, new.mean, old.mean)
        apart = mean[:, :, None] * mean[:, None, :]  # those that begin depend on no other
        alone = jnp.where(off[:, None] & off, new.second, apart)
        second = jnp.where(off[:, None] | off, alone, old.second)
        modes.append(replace(old, mean=mean, second=second))
    return tensor, replace(beliefs, modes=tuple(modes))


def untold(sites: Sites, off: Any) -> Sites:
    """Sites that say nothing of these functions."""
    either = off[:, None] | off
    return replace(
        sites,
        precision=jnp.where(either, 0.0, sites.precision),
        linear=jnp.where(off, 0.0, sites.linear),
    )
