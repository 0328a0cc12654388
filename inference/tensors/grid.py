"""Coordinates of several sets of entries, brought together: new ones say nothing yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .beliefs import Beliefs, Told
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


def spread_out(told: Told, rows: Entries, coordinates: tuple[jax.Array, ...]) -> Told:
    """What was told on a grid, on a larger one."""

    def one(sites: Sites, old: Any, new: Any) -> Sites:
        at, n, p = _places(old, new), new.shape[0], sites.linear.shape[1]
        precision = jnp.zeros((n, p, p), sites.precision.dtype).at[at].set(sites.precision)
        linear = jnp.zeros((n, p), sites.linear.dtype).at[at].set(sites.linear)
        return Sites(precision, linear)

    parts = zip(told.modes, rows.coordinates, coordinates, strict=True)
    return replace(told, modes=tuple(one(*part) for part in parts))


@jax.jit
def believed(
    tensor: Tensor, beliefs: Beliefs, coordinates: tuple[jax.Array, ...], modes: tuple[Sites, ...]
) -> Beliefs:
    """The same beliefs with the modes' functions at all these coordinates, by their kernels."""
    parts = zip(tensor.kernels, coordinates, modes, strict=True)
    return replace(beliefs, modes=tuple(folded(*part) for part in parts))
