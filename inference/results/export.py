"""Export of draws to xarray and netCDF, in the groups and names of ArviZ."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl import Masked, errors
from ppl.addresses import flatten
from ppl.labels import Labels
from ppl.program import Path

from ..validation.packages import extra
from ..validation.settings import shown
from .draws import Draws, check_draws
from .labelled import dataset, observed_alone
from .particles import Particles
from .pointwise import there

_ARVIZ = {
    "accept": "acceptance_rate",
    "steps": "n_steps",
    "depth": "tree_depth",
    "reached_max_depth": "reached_max_treedepth",
}
"""Our names of statistics that ArviZ calls otherwise."""


def to_datatree(
    draws: Draws | Particles,
    *,
    posterior_predictive: Mapping[str, Any] | None = None,
    log_likelihood: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> Any:
    """The draws as an `xarray.DataTree`: what ArviZ plots and compares, and netCDF stores.

    Groups: `posterior`; `sample_stats`; `observed_data`, if the draws carry their target
    (of a partly observed address also its mask, as "<name>_observed"); and those given.
    A variable is named by its address, its parts joined by dots; its dimensions are the `dims` of
    the draws, with their `coords`. Of a partly observed address the likelihood has only what is
    observed, along `<name>_element`: ArviZ's `loo` would add up NaN. A statistic has ArviZ's
    name (`acceptance_rate`, `n_steps`, `tree_depth`), without its kernel if only one
    reports it; the attribute `kernel` says which.

    Of weighted particles, chains are runs, and `sample_stats` has `log_weight` (and `family`); the
    attribute `weights` says that they count so. What takes no weights is given draws by weight,
    `to_datatree(particles.resampled(key))`.

    `.to_netcdf(path, engine="h5netcdf")` writes it, `xarray.open_datatree` reads it: the
    same bits.

    Args:
      posterior_predictive, log_likelihood: what the functions of these names give.
      prior: what `prior_predictive` gives; observed choices go to `prior_predictive`.
      coords: labels along the axes of what is predicted, where new arguments made it longer, or
        of other things, than the data.

    Raises:
      MissingPackage: arviz-base is not installed (`pip install 'giry[arviz]'`).
      ShapeError: an array does not fit the labels of its axes.
      InvalidArgument: two addresses have the same name, or one holds a slash.

    >>> import numpy as np
    >>> from inference import Draws
    >>> from inference.results.export import to_datatree
    >>> tree = to_datatree(Draws({"sub": {"x": np.zeros((4, 100, 2))}}))
    >>> tree["posterior"]["sub.x"].dims
    ('chain', 'draw', 'sub.x_dim_0')
    """
    weighted = isinstance(draws, Particles)
    draws = draws.plain if isinstance(draws, Particles) else draws
    check_draws(draws)
    arviz = extra("arviz_base", "arviz", "Export")
    xarray = extra("xarray", "arviz", "Export")
    labels = draws.labels
    found: dict[str, Any] = {}

    def group(name: str, values: Mapping[Path, Any], by: Labels, samples: bool = True) -> None:
        found[name] = dataset(name, values, by, arviz, samples)

    group("posterior", {**flatten(draws.choices), **flatten(draws.derived)}, labels)
    stats, kernels = _statistics(draws.stats)
    if stats:
        group("sample_stats", {(name,): x for name, x in stats.items()}, Labels())
        for name, kernel in kernels.items():
            found["sample_stats"][name].attrs["kernel"] = kernel
    observed = draws.target.observed if draws.target is not None else {}
    if observed:
        group("observed_data", *_observed(observed, labels), samples=False)
    if coords is not None and posterior_predictive is None:
        raise errors.InvalidArgument(
            "The coords are of predictions, and there are none.", where=errors.caller(),
            given=shown(coords), expected="posterior_predictive, or no coords",
            fix="give the labels of the data to their target: Target(..., coords=...)",
        )  # fmt: skip
    if posterior_predictive is not None:
        predicted = flatten(posterior_predictive)
        group("posterior_predictive", predicted, _of_predictions(predicted, labels, coords))
    if log_likelihood is not None:
        values = flatten(log_likelihood)
        masks = {p: there(np.shape(values[p])[2:], x) for p, x in observed.items()
                 if p in values and isinstance(x, Masked)}  # fmt: skip
        arrays, by, where = observed_alone(values, masks, labels)
        group("log_likelihood", arrays, by)
        found["log_likelihood"] = found["log_likelihood"].assign_coords(where)
    if prior is not None:
        both = flatten(prior)
        group("prior", {p: x for p, x in both.items() if p not in observed}, labels)
        predictive = {p: x for p, x in both.items() if p in observed}
        if predictive:
            group("prior_predictive", predictive, labels)
    about = {
        "status": draws.status,
        "inference_library": "giry",
        "inference_library_version": importlib.metadata.version("giry"),
    }
    if weighted:
        about["weights"] = "draws count by exp(sample_stats.log_weight)"
    tree = xarray.DataTree.from_dict(found)
    tree.attrs.update(about)
    return tree


def _of_predictions(values: Mapping[Path, Any], labels: Labels, coords: Any) -> Labels:
    """The labels of what is predicted, those that are given before those of the draws."""
    given = Labels.of(None, coords)
    used = {path: names for path, names in labels.dims.items() if path in values}
    Labels(used, given.coords).check_addresses(values)
    return Labels(labels.dims, {**labels.coords, **given.coords})


def _statistics(stats: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, str]]:
    """Statistics by ArviZ's names, and the kernel of each that loses its prefix."""
    last = [name.split("/")[-1] for name in stats]
    found, kernels = {}, {}
    for full, value in stats.items():
        *prefix, name = full.split("/")
        called = _ARVIZ.get(name, name)
        if last.count(name) == 1:
            kernels |= {called: "/".join(prefix)} if prefix else {}
        else:
            called = ".".join([*prefix, called])
        found[called] = value
    return found, kernels


def _observed(observed: Mapping[Path, Any], labels: Labels) -> tuple[dict[Path, Any], Labels]:
    """The data, of partly observed ones the masks too, and their labels."""
    values: dict[Path, Any] = {}
    dims = dict(labels.dims)
    for path, value in observed.items():
        if isinstance(value, Masked):
            values[path] = value.value
            flags = (*path[:-1], f"{path[-1]}_observed")
            values[flags] = there(np.shape(value.value), value)
            dims |= {flags: labels.dims[path]} if path in labels.dims else {}
        else:
            values[path] = value
    return values, Labels(dims, labels.coords)
