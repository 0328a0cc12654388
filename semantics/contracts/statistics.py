"""What is looked at of latents and data, where a kernel is checked by sampling."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target

Latents = Mapping[str, Any]
Statistics = Callable[[Latents, Mapping[str, Any]], Any]

DENSITY = "log p(latents, data)"
SCALARS, FACTORS = 6, 3
"""Scalars of the latents that are looked at alone, and those of latents and data in products."""

CENTER = 4
"""Draws of the model whose mean is where second moments are taken about."""


def statistics_of(
    target: Target,
    statistics: Statistics | None,
    center: Latents,
    latents: Latents,
    data: Mapping[str, Any],
) -> dict[str, jax.Array]:
    """Numbers by name: those of `statistics`, or the usual ones; and always the joint density.

    Args:
      center: draws of the model, stacked, independent of these latents.
    """
    found = {DENSITY: Target(target.model, target.args, data).log_density(latents)}
    if statistics is not None:
        return found | _scalars(statistics(latents, data), "statistic")
    of_latents, of_data = _scalars(latents), _scalars(data)
    found |= dict(list(of_latents.items())[:SCALARS])
    for a, x in list(of_latents.items())[:FACTORS]:
        found |= {f"{a} * {b}": x * y for b, y in list(of_data.items())[:FACTORS]}
    return found | _second_moments(of_latents, center)


def _second_moments(of_latents: dict[str, jax.Array], center: Latents) -> dict[str, jax.Array]:
    """How far the first scalars are from where other draws of the model are; and products of
    that. A kernel that is wrong by a variance leaves medians as they are, and signs."""
    draws = jax.vmap(_scalars)(center)
    off = {
        name: jnp.asarray(x, float) - jnp.mean(jnp.asarray(draws[name], float))
        for name, x in list(of_latents.items())[:FACTORS]
    }
    found = {f"|{a} - m|": jnp.abs(x) for a, x in off.items()}
    pairs = itertools.combinations(off.items(), 2)
    return found | {f"({a} - m) * ({b} - m)": x * y for (a, x), (b, y) in pairs}


def _scalars(tree: Any, name: str = "") -> dict[str, jax.Array]:
    """Every scalar in a tree, by name."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = jnp.asarray(leaf)
        for index in np.ndindex(array.shape):
            label = jax.tree_util.keystr(path, simple=not name, separator="/")
            found[name + label + (str(list(index)) if index else "")] = array[index]
    return found
