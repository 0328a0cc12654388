"""The density of a beta variable at the edges of its support, where floats end before it does.

Under Beta(0.1, 0.1) a fifth of the probability lies nearer to 1 than float32 comes. In its
unconstrained coordinate z nothing is cut off: log x = -softplus(-z) and log(1 - x) =
-softplus(z), for any z. So a kernel that moves z adds to the log density at the rounded x what
the rounding has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .distributions import elementwise
from .large_counts import SMALL
from .program import CHOICE, DRAW, FACTOR, Factor, Path
from .sites import Site
from .walk import Result, Rule, scalar, walk


def beyond_floats(site: Site) -> bool:
    """Whether a choice has mass nearer to an edge than floats come, as far as is known.

    That of a beta variable with a concentration below 1, where the density has a pole.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, sample
    >>> from ppl.beta_tails import beyond_floats
    >>> model = gen(lambda: [sample(f"p{a}", dist.Beta(a, 2.0)) for a in (0.1, 2.0)])
    >>> [beyond_floats(site) for site in model.sites().values()]
    [True, False]
    """
    found = [_beta(d) for d in (site.distribution, *site.others)]
    return any(d is not None and not _bounded(d) for d in found)


def _beta(d: Any) -> Any:
    """The beta distribution that a choice's elements have, or None."""
    d = elementwise(d)
    while isinstance(d, (dist.ExpandedDistribution, dist.Independent)):
        d = d.base_dist
    return d if isinstance(d, dist.Beta) else None


def _bounded(d: Any) -> bool:
    for x in (d.concentration1, d.concentration0):
        known = isinstance(x, (int, float, np.ndarray, np.generic, jax.Array))
        if not known or isinstance(x, jax.core.Tracer) or np.min(np.asarray(x)) < 1:
            return False
    return True


def rounded_off(run: Any, z: Mapping[Path, Any], values: Mapping[Path, Any]) -> jax.Array | None:
    """log p at the coordinates `z` less log p at `values`, of the choices that `beyond_floats`.

    Args:
      run: a model with its arguments, prepared.
      z: coordinates, of some choices.
      values: of all choices; those of `z` rounded.

    Returns:
      A scalar, or None where there is no such choice.
    """
    paths = [path for path in z if beyond_floats(run.sites[path])]
    program = run.staged.program
    if not paths or DRAW in program.effects:  # a second walk would draw anew
        return None
    given = {**values, **{path: _Rounded(values[path], z[path]) for path in paths}}
    return walk(program, run.operands, _RoundedOff(), given)[2]["rounded off"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Rounded:
    """A value, and the coordinate that it is rounded from."""

    value: Any
    z: Any


class _RoundedOff(Rule):
    """All choices have values; sums what the rounding of some has changed."""

    handles = frozenset({CHOICE, FACTOR})
    sums = ("rounded off",)

    def visit(self, step: Any, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            return [], {}, {}
        given = inputs[step.path]
        value = given.value if isinstance(given, _Rounded) else given
        value = jnp.asarray(value, step.spec.dtype)
        d = _beta(step.spec.tree.unflatten(args)) if isinstance(given, _Rounded) else None
        if d is None:  # another branch's choice of this name
            return [value], {}, {}
        z = jnp.asarray(given.z, step.spec.dtype)
        at_zero = jax.nn.log_sigmoid(z) - jnp.log(value)
        at_one = jax.nn.log_sigmoid(-z) - jnp.log1p(-value)
        # large concentrations keep away from the edge, and multiply the rounding of logarithms
        more = sum(
            jnp.where(c < SMALL, c - 1, 0) * by
            for c, by in ((d.concentration1, at_zero), (d.concentration0, at_one))
        )
        return [value], {}, {"rounded off": scalar(jnp.broadcast_to(more, value.shape))}
