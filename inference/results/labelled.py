"""Arrays by address as an `xarray.Dataset`: names, dimensions, and labels along them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl import errors
from ppl.labels import Labels
from ppl.program import Path

SAMPLES = ("chain", "draw")


def dataset(
    group: str, values: Mapping[Path, Any], labels: Labels, arviz: Any, samples: bool = True
) -> Any:
    """The arrays of a group of ArviZ's, under the names of their addresses.

    Args:
      samples: whether arrays have chain and draw axes in front.

    Raises:
      ShapeError: an axis is longer or shorter than its labels, or than others of its name.
      InvalidArgument: two addresses have the same name, or one holds a slash.

    >>> import arviz_base, numpy as np
    >>> from ppl.labels import Labels
    >>> from inference.results.labelled import dataset
    >>> labels = Labels.of({"y": ("year",)}, {"year": [1851, 1852]})
    >>> made = dataset("posterior", {("y",): np.zeros((1, 3, 2))}, labels, arviz_base)
    >>> made["y"].dims, made["year"].values.tolist()
    (('chain', 'draw', 'year'), [1851, 1852])
    """
    skipped = len(SAMPLES) if samples else 0
    arrays = {path: np.asarray(x) for path, x in values.items()}
    sizes: dict[str, int] = {}
    dims, coords = {}, {}
    named = _named(arrays)
    for name, path in named.items():
        if arrays[path].ndim < skipped:
            raise errors.ShapeError(
                f"In {group}, {errors.show(path)} has no axes of chains and draws.",
                where=errors.caller(), given=f"shape {arrays[path].shape}",
                expected="(chains, draws, ...)", fix="put the chain axis first and the draw second",
            )  # fmt: skip
        shape = arrays[path].shape[skipped:]
        axes = labels.axes(path, len(shape))
        dims[name] = [axis or f"{name}_dim_{i}" for i, axis in enumerate(axes)]
        for axis, size in zip(axes, shape, strict=True):
            if axis is None:
                continue
            along = labels.coords.get(axis)
            known = sizes.setdefault(axis, size if along is None else len(along))
            if known != size:
                raise errors.ShapeError(
                    f'In {group}, the dimension "{axis}" of {errors.show(path)} has another length '
                    + ("than another of its name." if along is None else "than its labels."),
                    where=errors.caller(), given=f"{size}, of shape {shape}", expected=f"{known}",
                    fix=f'give labels of what is predicted: to_datatree(..., coords={{"{axis}": '
                    f"[...]}}), {size} of them" if group == "posterior_predictive" else
                    "arrays of the model that the draws are of",
                )  # fmt: skip
            if along is not None:
                coords[axis] = along
    how = {"sample_dims": list(SAMPLES) if samples else []}
    data = {name: arrays[path] for name, path in named.items()}
    return arviz.dict_to_dataset(data, dims=dims, coords=coords, check_conventions=False, **how)


def observed_alone(
    values: Mapping[Path, Any], masks: Mapping[Path, np.ndarray], labels: Labels
) -> tuple[dict[Path, np.ndarray], Labels, dict[str, tuple[str, np.ndarray]]]:
    """Likelihoods with the masked elements left out: arrays, their dims, and where each was.

    ArviZ adds up all that there is, and NaN with it. What is left of `y` has one axis,
    `y_element`, and along it coordinates `y_element_<dimension>`, of each axis that was.
    """
    arrays = {path: np.asarray(x) for path, x in values.items()}
    dims, where = dict(labels.dims), {}
    for path, mask in masks.items():
        if path not in arrays:
            continue
        name, rank = ".".join(path), mask.ndim
        element = f"{name}_element"
        for axis, places, called in zip(
            range(rank), np.nonzero(mask), labels.axes(path, rank), strict=True
        ):
            along = labels.coords.get(called) if called else None
            known = along is not None and len(along) == mask.shape[axis]
            labelled = along[places] if known else places  # type: ignore[index]
            where[f"{element}_{called or f'dim_{axis}'}"] = (element, labelled)
        arrays[path] = arrays[path][:, :, mask]
        dims[path] = (element,)
    return arrays, Labels(dims, labels.coords), where


def _named(values: Mapping[Path, Any]) -> dict[str, Path]:
    """Addresses by their names in xarray."""
    origin: dict[str, Path] = {}
    for path in values:
        name = ".".join(path)
        if "/" in name or name in origin:
            raise errors.InvalidArgument(
                f"The address {errors.show(path)} has no name of its own in xarray.",
                where=errors.caller(),
                given=f"{name!r}, also of {errors.show(origin[name])}" if name in origin else name,
                expected="addresses that differ when their parts are joined by dots, "
                "and hold no slash",
                fix="rename the choice in the model",
            )
        origin[name] = path
    return origin
