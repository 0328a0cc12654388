"""Columns of tables (pandas, xarray): what in them is no number, and what to do about it.

No such package is imported: a column is what says so of itself, by `isna`, `cat`, an index. Its
values are taken in the order in which they stand; an index moves none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import errors
from .labels import Labels
from .program import Path

_TEXT = "str, string, object"


def missing(value: Any) -> np.ndarray | None:
    """Which elements of a column are missing (NA, NaN, None); None if none is, or it is no column.

    >>> import numpy as np
    >>> from ppl.tables import missing
    >>> missing(np.array([1.0, np.nan])) is None  # an array, which says nothing of itself
    True
    """
    isna = getattr(value, "isna", None)
    if not callable(isna):
        return None
    try:
        flags = np.asarray(isna(), bool)
    except Exception:  # whatever an object does that has an attribute of this name
        return None
    return flags if flags.any() else None


def advice(value: Any, observed: bool) -> str | None:
    """What to do with an object that is no array of numbers, if it is a table or a column.

    >>> import numpy as np
    >>> from ppl.tables import advice
    >>> advice(np.array(["2020-01-01"], "datetime64[D]"), True)
    'make days of it: (x - x[0]) / np.timedelta64(1, "D")'
    """
    if hasattr(value, "columns") or hasattr(value, "data_vars"):
        return 'pass its columns, each by itself: table["x"]'
    kind = str(getattr(value, "dtype", ""))
    if kind == "category":
        return "its codes are numbers: column.cat.codes (-1 where one is missing)"
    if missing(value) is not None:
        return instead(observed)
    if kind.startswith(("datetime64", "timedelta64")):
        first = "x.iloc[0]" if hasattr(value, "iloc") else "x[0]"
        one = f"x - {first}" if kind.startswith("d") else "x"
        return f'make days of it: ({one}) / np.timedelta64(1, "D")'
    if hasattr(value, "isna") and (kind in _TEXT or kind.startswith("string")):
        return "numbers written as text: column.astype(float); names: pandas.factorize(column)[0]"
    return None


def instead(observed: bool) -> str:
    """What to do where a column has missing values."""
    if observed:
        return "mark them: Masked(column.fillna(0).to_numpy(dtype), column.notna().to_numpy())"
    return "leave the rows out (table.dropna()), or make a choice of the model of what is missing"


def check_order(labels: Labels, observations: Mapping[Path, Any]) -> None:
    """Raise where data say of themselves that their axes, or places, stand in another order.

    An index or coordinates of the same labels as `coords`, in another order, would be called by
    the wrong ones.

    Raises:
      InvalidArgument.
    """
    for path, value in observations.items():
        axes = labels.dims.get(path)
        if axes is None:
            continue
        named = getattr(value, "dims", None)
        if named is not None and tuple(named) != axes and set(named) == set(axes):
            raise errors.InvalidArgument(
                f"The axes of {errors.show(path)} stand in another order than its dims.",
                where=errors.caller(), given=", ".join(map(str, named)),
                expected=", ".join(map(str, axes)), fix=f"value.transpose{axes}",
            )  # fmt: skip
        for i, name in enumerate(axes):
            along = labels.coords.get(name) if name else None
            theirs = _along(value, i, name)
            if along is None or theirs is None or len(theirs) != len(along):
                continue
            mine = along.tolist()
            if theirs != mine and set(theirs) == set(mine):
                at = next(k for k in range(len(mine)) if mine[k] != theirs[k])
                raise errors.InvalidArgument(
                    f'{errors.show(path)} has the labels of "{name}" in another order.',
                    where=errors.caller(), given=f"{theirs[at]!r} at [{at}]",
                    expected=f"{mine[at]!r} there, as in coords",
                    fix=f"value.sel({name}=coords[{name!r}])" if named is not None else
                    f"column.loc[coords[{name!r}]], or coords={{{name!r}: column.index}}",
                )  # fmt: skip


def _along(value: Any, axis: int, name: str | None) -> list | None:
    """The labels that an object of pandas or xarray has along an axis."""
    try:
        if hasattr(value, "dims"):
            return np.asarray(value.coords[name]).tolist() if name in value.coords else None
        if axis == 0 and hasattr(value, "iloc"):
            return np.asarray(value.index).tolist()
    except Exception:  # an object of another kind, with attributes of these names
        return None
    return None
