"""Stacked traces: trees of arrays whose first axis runs over traces, read as tables of numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors
from ppl.addresses import flatten


def take(tree: Any, index: Any) -> Any:
    """The part of each array that numpy's `index` picks."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def one_axis(tree: Any) -> Any:
    """Points and outcomes as one axis."""
    n = lambda leaf: leaf.shape[0] * leaf.shape[1]  # noqa: E731
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(n(leaf), *leaf.shape[2:]), tree)


def rows_of(traces: Any) -> list[tuple]:
    """The choices of stacked traces as tuples of numbers, to be looked up."""
    leaves = [np.asarray(leaf) for _, leaf in sorted(flatten(traces.choices).items())]
    columns = [np.zeros((len(traces.score), 0)), *(x.reshape(len(x), -1) for x in leaves)]
    return [tuple(row) for row in np.concatenate(columns, 1).tolist()]


def merged(rows: Iterable[tuple], masses: Any) -> dict[tuple, float]:
    """The total mass of each row; rows without mass are left out."""
    total: dict[tuple, float] = defaultdict(float)
    for row, mass in zip(rows, np.asarray(masses).tolist(), strict=True):
        if mass != 0:
            total[row] += mass
    return total


def shown(traces: Any, i: Any) -> str:
    """The choices of trace `i` in words, for a witness."""
    choices = {path: np.asarray(leaf)[i] for path, leaf in flatten(traces.choices).items()}
    return ", ".join(f"{errors.show(p)} = {v.tolist()}" for p, v in choices.items())[:300]


def log_of(masses: Any) -> np.ndarray:
    """Their logarithms: that of 0 is -inf, without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(masses)


def eps() -> float:
    """The epsilon of the default float, which has 64 or 32 bits."""
    return float(jnp.finfo(jnp.zeros((), float).dtype).eps)
