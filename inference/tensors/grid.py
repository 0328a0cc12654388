"""Coordinates of several sets of entries, brought together: new ones say nothing yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .beliefs import Beliefs, Told, precision_given
from .entries import Entries
from .model import Tensor
from .sites import Sites, folded


def together(a: Entries, b: Entries) -> tuple[jax.Array, ...]:
    """The coordinates of both, mode by mode.

    >>> from inference.tensors import entries
    >>> from inference.tensors.grid import together
    >>> one, other = entries({"day": [0.0, 2.0]}), entries({"day": [1.0]})
    >>> [c.tolist() for c in together(one, other)]
    [[0.0, 1.0, 2.0]]
    """
    pairs = zip(a.coordinates, b.coordinates, strict=True)
    return tuple(jnp.asarray(np.union1d(np.asarray(x), np.asarray(y))) for x, y in pairs)


def placed(rows: Entries, coordinates: tuple[jax.Array, ...]) -> Entries:
    """The entries on a grid that holds their coordinates."""
    index = [
        _places(old, new)[np.asarray(which)]
        for old, new, which in zip(rows.coordinates, coordinates, rows.index.T, strict=True)
    ]
    return Entries(coordinates, jnp.asarray(np.stack(index, 1)), rows.names)


def _places(old: Any, new: Any) -> np.ndarray:
    return np.searchsorted(np.asarray(new), np.asarray(old))


def spread_out(
    told: Told, rows: Entries, coordinates: tuple[jax.Array, ...], by: str | None = None
) -> Told:
    """What was told on a grid, on a larger one; `by` names the mode of the noise's precisions."""

    def one(x: jax.Array, old: Any, new: Any) -> jax.Array:
        return jnp.zeros((new.shape[0], *x.shape[1:]), x.dtype).at[_places(old, new)].set(x)

    parts = list(zip(rows.coordinates, coordinates, strict=True))
    modes = tuple(
        Sites(one(sites.precision, *part), one(sites.linear, *part))
        for sites, part in zip(told.modes, parts, strict=True)
    )
    if by is None:
        return replace(told, modes=modes)
    part = parts[rows.names.index(by)]
    return replace(told, modes=modes, noise=tuple(one(x, *part) for x in told.noise))


@jax.jit
def believed(
    tensor: Tensor, beliefs: Beliefs, coordinates: tuple[jax.Array, ...], told: Told
) -> Beliefs:
    """The same beliefs with the modes' functions at all these coordinates, by their kernels."""
    parts = zip(tensor.kernels, coordinates, told.modes, strict=True)
    beliefs = replace(beliefs, modes=tuple(folded(*part) for part in parts))
    if tensor.noise.by is None:
        return beliefs
    return replace(beliefs, precision=precision_given(tensor, told.noise))
