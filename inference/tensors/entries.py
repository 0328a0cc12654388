"""The entries of a table that are there: for each mode its coordinates, and which an entry has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import errors

from ..gaussian.inputs import array_of
from ..validation.settings import shown


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["coordinates", "index"],
    meta_fields=["names"],
)
@dataclass(frozen=True)
class Entries:
    """Where the entries of a table are: see `entries`.

    Attributes:
      coordinates: of each mode, the places on its line, in order and once each, `(n_k,)`.
      index: of each entry, which coordinate of each mode it has, `(N, K)`.
      names: of the modes.

    >>> from inference.tensors import entries
    >>> rows = entries({"day": [2.0, 0.5, 2.0], "place": [7, 7, 9]})
    >>> [c.tolist() for c in rows.coordinates], rows.index.tolist()
    ([[0.5, 2.0], [7.0, 9.0]], [[1, 0], [0, 0], [1, 1]])
    >>> rows.count, rows.sizes
    (3, (2, 2))
    """

    coordinates: tuple[jax.Array, ...]
    index: jax.Array
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self.index.shape[0]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many coordinates each mode has."""
        return tuple(each.shape[0] for each in self.coordinates)

    def columns(self) -> dict[str, jax.Array]:
        """The coordinate of each entry, mode by mode, `(N,)`."""
        each = zip(self.names, self.coordinates, self.index.T, strict=True)
        return {name: places[index] for name, places, index in each}


def entries(columns: Mapping[str, Any], *, coordinates: Mapping[str, Any] | None = None) -> Entries:
    """The entries of a table, one a row of its columns: entries that are missing are not rows.

    Args:
      columns: the modes by name, each with a number for every entry, `(N,)`; of categories, any
        number that names them. A coordinate may repeat, and entries come in any order.
      coordinates: of some modes, all places that are to be known, if they are more than those of
        the entries: what a place without entries adds is a prediction, and no change elsewhere.

    Raises:
      InvalidArgument: a column is not of finite numbers, columns differ in length, an entry is
        at none of the coordinates, or columns are traced.

    >>> from inference.tensors import entries
    >>> entries({"day": [2.0, 0.5]}, coordinates={"day": [0.5, 1.0, 2.0]}).index.tolist()
    [[2], [0]]
    """
    if not isinstance(columns, Mapping) or not columns:
        raise errors.InvalidArgument(
            "Entries have a column for each mode.", where=errors.caller(), given=shown(columns),
            expected="a mapping from names to numbers (N,)", fix='entries({"day": [0.0, 1.0]})',
        )  # fmt: skip
    known = dict(coordinates or {})
    for name in known:
        if name not in columns:
            raise errors.InvalidArgument(
                "Coordinates are given for no mode.", where=errors.caller(),
                given=f"coordinates of {name!r}", expected=" or ".join(map(repr, columns)),
                fix="the name of a column",
            )  # fmt: skip
    count = np.shape(array_of(next(iter(columns.values()))))[:1]
    places, index = [], []
    for name, column in columns.items():
        values = _numbers(name, column)
        if values.shape != count:
            raise errors.InvalidArgument(
                f"The column {name!r} has another length.", where=errors.caller(),
                given=f"shape {values.shape}", expected=f"shape {count}, as the first column",
                fix="a number for each entry in every column",
            )  # fmt: skip
        own, which = np.unique(values, return_inverse=True)
        if name in known:
            own = np.unique(_numbers(name, known[name]))
            which = np.minimum(np.searchsorted(own, values), own.size - 1)
            _check_there(name, values, own[which])
        places.append(jnp.asarray(own))
        index.append(which.reshape(-1))
    return Entries(tuple(places), jnp.asarray(np.stack(index, 1)), tuple(columns))


def _numbers(name: str, column: Any) -> np.ndarray:
    if isinstance(column, jax.core.Tracer):
        raise errors.InvalidArgument(
            "Entries are laid out before anything is compiled.", where=errors.caller(),
            given=f"a traced column {name!r}", expected="known numbers",
            fix="entries(...) outside of jit; what it makes may be traced",
        )  # fmt: skip
    array = np.asarray(array_of(column))
    real = array.dtype.kind in "fiu" and array.ndim == 1 and array.size > 0
    if not real or not np.isfinite(array).all():
        raise errors.InvalidArgument(
            f"The column {name!r} is not of finite numbers.", where=errors.caller(),
            given=shown(column), expected="shape (N,), a finite number for each entry",
            fix="leave out the entries that have none; number the categories",
        )  # fmt: skip
    return array.astype(jnp.result_type(float))


def _check_there(name: str, values: np.ndarray, found: np.ndarray) -> None:
    if not (values == found).all():
        at = int(np.argmax(values != found))
        raise errors.InvalidArgument(
            f"An entry is at no coordinate of {name!r}.", where=errors.caller(),
            given=f"entry {at}, at {values[at]:g}", expected="one of the coordinates given",
            fix="coordinates that hold those of all entries",
        )  # fmt: skip
