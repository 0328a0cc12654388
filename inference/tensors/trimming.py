"""Components of a CP model that may not be needed: what they are of the variance, and without.

The bound has a maximum for each number of components that share the work, and by small steps
none leads to fewer. So a component is taken out, and stays out if the others do better alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from .learning import Run

SIZES = frozenset({"sigma", "level", "slope"})
"""Hyperparameters of kernels that are standard deviations."""

SMALL = 1e-3
"""What is left of the size of each function that is switched off."""


@jax.jit
def shares(run: Run, index: jax.Array, y: jax.Array) -> jax.Array:
    """The variance of each component's mean product over entries, over that of all, `(R,)`."""
    rank = run.tensor.ranks[0]
    product = jnp.ones((len(index), rank))
    for k, mode in enumerate(run.state.beliefs.modes):
        product = product * mode.mean[index[:, k], :rank]
    return jnp.var(product, axis=0) / jnp.var(y)


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
    sites = tuple(
        replace(
            site,
            precision=site.precision.at[:, r].set(0.0).at[:, :, r].set(0.0),
            linear=site.linear.at[:, r].set(0.0),
        )
        for site in told.modes
    )
    state = replace(
        run.state, beliefs=replace(beliefs, modes=modes), told=replace(told, modes=sites)
    )
    kernels = jax.tree_util.tree_map_with_path(smaller, run.tensor.kernels)
    return replace(run, tensor=replace(run.tensor, kernels=kernels), state=state)
