"""Targets of models written for NumPyro: what they observe is kept, with its address."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import numpy as np
from numpyro import handlers

from . import errors
from .addresses import Masked
from .interop import imported, mask_of
from .labels import RESERVED
from .target import Target


def target_from_numpyro(
    model: Callable,
    args: tuple = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    static_argnames: tuple[str, ...] = (),
    dims: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> Target:
    """The posterior of a NumPyro model at these arguments, all of whose sites have addresses.

    As `from_numpyro`, but sites with a value (`obs=`, `handlers.condition`) are observed choices
    of the target, so that there are predictions, pointwise likelihoods and `loo` of them; and the
    plates name the axes of the sites in them. A value that a mask leaves out in part is
    `Masked`. Sites that stay factors: those under `handlers.scale`, those whose value depends on
    a random one, those in JAX's own control flow, and masked ones in numpyro's `scan`.

    `draws.returned()` adds what `numpyro.deterministic` makes. To predict without the data, give
    the arguments without them: `posterior_predictive(key, draws, args=(x, None))`.

    Args:
      model: a NumPyro model; it is run twice here, to find what it observes.
      args, kwargs: as `MCMC.run` takes them after its key. They become the target's arguments,
        all of them by position, with the defaults of those that are left out.
      static_argnames: arguments known before the model runs (sizes of plates).
      dims, coords: as of `Target`, beside the dims of the plates.

    Raises:
      InvalidArgument: as `from_numpyro`; or the arguments are not those of the model.
      SupportError, ShapeError, DtypeError: an observation does not fit.

    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from ppl import target_from_numpyro
    >>> def model(x, y=None):
    ...     slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("row", len(x)):
    ...         numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)
    >>> target = target_from_numpyro(model, (jnp.ones(2),), {"y": jnp.array([1.0, 2.0])})
    >>> target.observations["y"].tolist(), target.labels.dims[("y",)]
    ([1.0, 2.0], ('row',))
    """
    if not callable(model):
        raise errors.InvalidArgument(
            "target_from_numpyro takes a model.", where=errors.caller(), given=repr(model),
            expected="a function that calls numpyro.sample", fix="pass the function itself",
        )  # fmt: skip
    model, args = _by_position(model, args, kwargs)
    first, second = (_sites(model, args, seed) for seed in (0, 1))
    found, named = {}, {}
    for name, site in first.items():
        axes = _axes(site)
        if axes is not None:
            named[name] = axes
        if site["is_observed"] and name in second:
            seen = _observation(site)
            if seen is not None and _equal(seen, _observation(second[name])):
                found[name] = seen
    made = imported(model, static_argnames, frozenset(found))
    sites = made.sites(*args)
    fit = {name: axes for name, axes in named.items()
           if (name,) in sites and len(axes) == len(sites[name,].shape)}  # fmt: skip
    values = {
        name: jax.tree.map(lambda x, site=sites[name,]: _cast(x, site.dtype), value)
        for name, value in found.items()
    }
    return Target(made, args, values, dims={**fit, **(dims or {})}, coords=coords)


def _by_position(model: Callable, args: Any, kwargs: Any) -> tuple[Callable, tuple]:
    """The model, and its arguments by position alone."""
    kinds = isinstance(args, (tuple, list)) and isinstance(kwargs or {}, Mapping)
    try:
        if not kinds:
            raise TypeError(f"{args!r}, {kwargs!r}")
        signature = inspect.signature(model)
        bound = signature.bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise errors.InvalidArgument(
            "These are not the arguments of the model.", where=errors.caller(), given=str(error),
            expected="args, a tuple, and kwargs, a dict, as the model takes them",
            fix='target_from_numpyro(model, (x,), {"y": y})',
        ) from error  # fmt: skip
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    several = (*by_name, inspect.Parameter.VAR_POSITIONAL)
    if any(p.kind in several for p in signature.parameters.values()):
        return (functools.partial(model, **kwargs) if kwargs else model), tuple(args)
    bound.apply_defaults()
    return model, tuple(bound.arguments.values())


def _sites(model: Callable, args: tuple, seed: int) -> dict[str, Any]:
    """The sample sites of a run."""
    with handlers.block():  # handlers outside belong to another program
        trace = handlers.trace(handlers.seed(model, seed)).get_trace(*args)
    return {name: site for name, site in trace.items() if site["type"] == "sample"}


def _looped(site: Any) -> bool:
    return bool(site.get("_control_flow_done"))


def _observation(site: Any) -> Any:
    """The value of a site, as a choice of its shape takes it; None where it stays a factor."""
    fn, value = site["fn"], site["value"]
    scaled = site["scale"] is not None
    if scaled or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((fn, value))):
        return None
    mask = mask_of(fn)
    if _looped(site):
        return np.asarray(value) if mask is None else None
    fn_shape = (*(site["kwargs"].get("sample_shape") or ()), *fn.shape())
    if np.broadcast_shapes(np.shape(value), fn_shape) != fn_shape:
        return np.asarray(value)  # told where it is observed
    whole = np.broadcast_to(np.asarray(value), fn_shape)
    return whole if mask is None else Masked(whole, np.asarray(mask))


def _equal(one: Any, other: Any) -> bool:
    mine, theirs = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(mine) == len(theirs) and all(
        np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc")
        for a, b in zip(mine, theirs, strict=True)
    )


def _axes(site: Any) -> tuple[str | None, ...] | None:
    """The plates of a site as names of its axes; None where there are none."""
    frames = site["cond_indep_stack"]
    if not frames or _looped(site):
        return None
    batch = len(site["fn"].batch_shape)
    axes: list[str | None] = [None] * batch
    for frame in frames:
        if -frame.dim <= batch and "/" not in frame.name and frame.name not in RESERVED:
            axes[frame.dim] = frame.name
    return (*axes, *(None,) * site["fn"].event_dim)


def _cast(value: np.ndarray, dtype: Any) -> Any:
    """Whole numbers as real ones, which NumPyro takes for them."""
    real = np.issubdtype(np.dtype(dtype), np.floating)
    return value.astype(dtype) if real and value.dtype.kind in "iu" else value
