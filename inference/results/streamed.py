"""Results that go to a netCDF file as they are made, and are never whole in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ppl import errors
from ppl.labels import Labels

from ..validation.packages import extra
from ..validation.settings import shown
from .each_draw import Room

BESIDE = ("changed", "appeared")
"""What a forecast says of itself, which is no result."""


@contextmanager
def file_of(
    to: str | os.PathLike, group: str, shape: tuple[int, int], labels: Labels
) -> Iterator[Room]:
    """Room for results in a new file: a group as ArviZ has it, with chain and draw in front.

    The file is written under another name, and renamed when it is whole.

    Args:
      shape: (chains, draws).

    Raises:
      MissingPackage: h5netcdf or xarray is not installed (`pip install 'giry[arviz]'`).
      InvalidArgument: `to` is no path of a netCDF file in a folder that there is.

    >>> import pathlib, tempfile, numpy as np, xarray
    >>> from inference.results.streamed import file_of
    >>> from ppl.labels import Labels
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "made.nc"
    >>> with file_of(path, "posterior_predictive", (1, 2), Labels()) as room:
    ...     room(("y",), (2, 3), np.float32)[0:2] = np.ones((2, 3), np.float32)
    >>> with xarray.open_dataset(path, group="posterior_predictive", engine="h5netcdf") as made:
    ...     made["y"].dims, float(made["y"].sum())
    (('chain', 'draw', 'y_dim_0'), 6.0)
    """
    path = checked_path(to)
    h5netcdf, xarray = extra("h5netcdf", "arviz", "A file"), extra("xarray", "arviz", "A file")
    partial = path.with_name(f".{path.name}.partial")
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), **labels.coords}
    made = xarray.Dataset(coords=coords)
    try:
        made.to_netcdf(partial, group=group, engine="h5netcdf")
        with h5netcdf.File(partial, "a") as file:
            yield _room(file[group], shape, labels)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def checked_path(to: Any) -> Path:
    """The path of a netCDF file that may be written.

    Raises:
      InvalidArgument: it is none.
    """
    good = isinstance(to, (str, os.PathLike)) and str(to).endswith((".nc", ".nc4", ".h5"))
    if not good or not Path(to).parent.is_dir():
        raise errors.InvalidArgument(
            "Results go to a netCDF file.", where=errors.caller(), given=shown(to),
            expected="a path that ends in .nc, in a folder that there is",
            fix='to="predictions.nc"',
        )  # fmt: skip
    return Path(to)


def _room(group: Any, shape: tuple[int, int], labels: Labels) -> Room:
    def room(place: tuple, rows: tuple[int, ...], dtype: Any) -> Any:
        path = _address(place)
        if path is None:
            return np.empty(rows, dtype)
        name, axes = ".".join(path), labels.axes(path, len(rows) - 1)
        dims = [axis or f"{name}_dim_{i}" for i, axis in enumerate(axes)]
        for dim, size in zip(dims, rows[1:], strict=True):
            known = len(group.dimensions[dim]) if dim in group.dimensions else None
            if known is None:
                group.dimensions[dim] = size
            elif known != size:
                raise errors.ShapeError(
                    f'The dimension "{dim}" of {errors.show(path)} has another length than before.',
                    where=errors.caller(), given=str(size), expected=str(known),
                    fix="leave `to` out, and give to_datatree the coords of what is predicted",
                )  # fmt: skip
        dtype = np.dtype(dtype)
        stored = np.dtype("int8") if dtype.kind == "b" else dtype
        variable = group.create_variable(name, ("chain", "draw", *dims), stored)
        if dtype.kind == "b":
            variable.attrs["dtype"] = "bool"  # as xarray stores flags
        return _Rows(variable, shape[1])

    return room


def _address(place: tuple) -> tuple[str, ...] | None:
    """The address of a result by its place in a pytree; None of what is beside the results."""
    parts = [getattr(entry, "key", entry) for entry in place]
    if parts[0] in BESIDE:
        return None
    path: list[str] = []
    for part in parts[1:] if parts[0] == "values" else parts:
        path += part if isinstance(part, tuple) else [part]
    return tuple(path)


class _Rows:
    """Rows of a variable whose first two axes are chain and draw."""

    def __init__(self, variable: Any, draws: int):
        self.variable, self.draws = variable, draws

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        start = rows.start
        while start < rows.stop:  # a chunk may go over the end of a chain
            chain, draw = divmod(start, self.draws)
            stop = min(rows.stop, (chain + 1) * self.draws)
            part = values[start - rows.start : stop - rows.start]
            self.variable[chain, draw : draw + len(part)] = part
            start = stop


def run_into(
    to: str | os.PathLike | None, group: str, shape: tuple[int, int], labels: Labels,
    run: Callable[[Room | None], Any],
) -> Any:  # fmt: skip
    """What `run` makes; or, with `to`, the path of the file that it has gone to."""
    if to is None:
        return run(None)
    with file_of(to, group, shape, labels) as room:
        run(room)
    return Path(to)
