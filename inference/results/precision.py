"""Whether float32 is enough for a run: its log density and its draws, beside float64.

Draws of a log density that is off by more than it changes over a standard deviation are draws
of something else, however well the chains agree. So the density is computed at some of the
draws in float64, too; what differs between draws is the error that a sampler meets. (Float32
arrays that a model closes over, and does not take as arguments, stay what they are.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors
from ppl.addresses import flatten, nest
from ppl.beta_tails import beyond_floats
from ppl.program import DRAW

from ..targets.missing import partly_observed
from .effort import effort

RESOLUTION = 0.1
"""A log density changes by a half over one standard deviation of the posterior; an error of a
fifth of that changes the probability of a draw by a tenth."""

EDGE = 0.005
"""Of a density that is bounded there, one draw in ten million lies so near an edge."""

_AT = 32
X64 = 'jax.config.update("jax_enable_x64", True) first of all, and run again'


@dataclass(frozen=True)
class Limit:
    """Where single precision is too coarse: the address (or nothing), a number, and words."""

    name: str
    value: float
    text: str


def limit(target: Target | None, choices: Mapping[str, Any]) -> Limit | None:
    """What of a run in float32 cannot be trusted, or None.

    Args:
      target: of the draws, if they know it.
      choices: draws with axes (chains, draws) in front.

    >>> import jax, jax.numpy as jnp, numpy as np, numpyro.distributions as dist
    >>> from inference.results.precision import limit
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(1e4, 1.0))
    ...     sample("y", dist.Normal(mu, 1e-3))
    >>> with jax.enable_x64(False):
    ...     target = Target(model, (), {"y": 10000.5})
    ...     found = limit(target, {"mu": np.float32(1e4 + np.linspace(0.49, 0.51, 8))[None]})
    >>> found is None  # float32 has numbers 0.001 apart there, which the density takes as given
    True
    """
    if target is None or jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        return None
    values = {path: np.asarray(x) for path, x in flatten(choices).items()}
    if not values or any(path not in target.sites for path in values):
        return None
    return _at_edges(target, values) or _unresolved(target, values)


def _at_edges(target: Target, values: Mapping[tuple, np.ndarray]) -> Limit | None:
    """A choice of which many draws are the last numbers before the edge of the support."""
    info = np.finfo(np.float32)
    for path, x in values.items():
        site = target.sites[path]
        # a density with a pole is known at the edge, too: `ppl.beta_tails`
        if x.dtype != np.float32 or not x.size or beyond_floats(site):
            continue
        kind = site.support.split("(")[0]
        if kind in ("unit_interval", "simplex") or site.support == "interval(0, 1)":
            near = (x >= 1 - info.eps) | (x <= info.tiny)
        elif kind == "positive":
            near = x <= 100 * info.tiny
        else:
            continue
        share = float(near.reshape(*x.shape[:2], -1).mean((0, 1)).max())
        if share > EDGE:
            text = f"{share:.1%} of the draws of {errors.show(path)} are at an edge of its support"
            return Limit("/".join(path), share, text)
    return None


def _unresolved(target: Target, values: Mapping[tuple, np.ndarray]) -> Limit | None:
    """A log density whose rounding changes from draw to draw."""
    rows = {path: x.reshape(-1, *x.shape[2:]) for path, x in values.items()}
    n = len(next(iter(rows.values())))
    effects = target.model._prepare(target.args, {}).staged.program.effects
    if n < 2 or DRAW in effects or partly_observed(target) or len(rows) != len(target.latents):
        return None
    at = np.unique(np.linspace(0, n - 1, _AT).astype(int))
    some = nest({path: x[at] for path, x in rows.items()})
    single = _densities(target, some)
    try:
        with jax.enable_x64(True):
            double = _densities(_wide(target), _wide(some))
    except Exception:  # a model that mixes dtypes where JAX allows only one: a bound instead
        error = float(np.finfo(np.float32).eps * np.abs(single).max())
    else:
        both = np.isfinite(single) & np.isfinite(double)
        if both.sum() < 2:
            return None
        error = float(np.std((single - double)[both]))
    if not error > RESOLUTION:
        return None
    text = f"the log density is off by {error:.2g} from draw to draw (0.5 is one sd)"
    return Limit("", error, text)


def _densities(target: Target, choices: Mapping[str, Any]) -> np.ndarray:
    program = jax.jit(jax.vmap(lambda x: target.at(x)[1]), compiler_options=effort(2))
    return np.asarray(program(choices), np.float64)


def _wide(tree: Any) -> Any:
    """The same numbers, in the widest types."""

    def wide(x: Any) -> Any:
        if not hasattr(x, "dtype") or jnp.issubdtype(x.dtype, jax.dtypes.extended):
            return x
        if jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.asarray(np.asarray(x), jnp.float64)
        return jnp.asarray(np.asarray(x), jnp.int64) if x.dtype == jnp.int32 else x

    return jax.tree.map(wide, tree)
