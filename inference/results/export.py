"""Export of draws to xarray and netCDF, in the groups and names of ArviZ."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl import Masked, errors
from ppl.addresses import flatten
from ppl.masks import leading
from ppl.program import Path

from ..validation.packages import extra
from .draws import Draws, check_draws
from .particles import Particles

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
) -> Any:
    """The draws as an `xarray.DataTree`: what ArviZ plots and compares, and netCDF stores.

    Groups: `posterior`; `sample_stats`; `observed_data`, if the draws carry their target
    (of a partly observed address also its mask, as "<name>_observed"); and those given.
    A variable is named by its address, its parts joined by dots. A statistic has ArviZ's
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

    Raises:
      MissingPackage: arviz-base is not installed (`pip install 'giry[arviz]'`).
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
    extra("xarray", "arviz", "Export")
    groups: dict[str, dict[str, Any]] = {
        "posterior": _named({**flatten(draws.choices), **flatten(draws.derived)})
    }
    stats, kernels = _statistics(draws.stats)
    if stats:
        groups["sample_stats"] = stats
    observed = draws.target.observed if draws.target is not None else {}
    if observed:
        groups["observed_data"] = _observed(observed)
    if posterior_predictive is not None:
        groups["posterior_predictive"] = _named(flatten(posterior_predictive))
    if log_likelihood is not None:
        groups["log_likelihood"] = _named(flatten(log_likelihood))
    if prior is not None:
        found = flatten(prior)
        groups["prior"] = _named({p: x for p, x in found.items() if p not in observed})
        predictive = _named({p: x for p, x in found.items() if p in observed})
        if predictive:
            groups["prior_predictive"] = predictive
    about = {
        "status": draws.status,
        "inference_library": "giry",
        "inference_library_version": importlib.metadata.version("giry"),
    }
    if weighted:
        about["weights"] = "draws count by exp(sample_stats.log_weight)"
    tree = arviz.from_dict(groups, attrs={"/": about}, check_conventions=False)
    for name, kernel in kernels.items():
        tree["sample_stats"][name].attrs["kernel"] = kernel
    return tree


def _named(values: Mapping[Path, Any]) -> dict[str, Any]:
    """Arrays by the names of their addresses."""
    found: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    for path, value in values.items():
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
        found[name], origin[name] = np.asarray(value), path
    return found


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


def _observed(observed: Mapping[Path, Any]) -> dict[str, Any]:
    values: dict[Path, Any] = {}
    for path, value in observed.items():
        if isinstance(value, Masked):
            values[path] = value.value
            shape = np.shape(value.value)
            there = np.broadcast_to(leading(value.mask, len(shape)), shape)
            values[*path[:-1], f"{path[-1]}_observed"] = there
        else:
            values[path] = value
    return _named(values)
