"""Values in other worlds that stay what they are wherever they can.

A world differs from the one that happens by what came before; a value there has another law,
and is as often the same as two values with these laws can be (a maximal coupling). Then the
difference that a choice makes is not hidden by the noise of what comes after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .. import distributions, quadrature
from ..randomness import draw
from .lanes import WORLDS, Lane, Value, along, happening, over, union

if TYPE_CHECKING:
    from .strategies import Site


def coupled(site: Site, here: Value) -> Value:
    """The value that happens, and with it values in the worlds that reach its parameters.

    Of choices with infinitely many outcomes, these are drawn anew.
    """
    spec = site.node.spec
    d = spec.tree.unflatten(list(spec.leaves))
    table = None if d.event_shape else quadrature.outcomes(distributions.elementwise(d))
    reached = np.asarray(sorted(site.reached))
    others = Lane(WORLDS, len(reached))
    parameters = [_in_worlds(p, reached, others) for p in site.parameters]
    if table is None:
        there = along(site.draw_once, *parameters)
    else:
        there = _kept_or_not(site, here, parameters, table)
    around = tuple(lane for lane in union([here, there]) if lane != others)
    first, last = int(reached[0]), int(reached[-1]) + 1

    def joined(one: Any, more: Any) -> Any:
        def same(worlds: int) -> Any:
            return jnp.broadcast_to(one, (worlds, *jnp.shape(one)))

        more = more.astype(one.dtype)
        if last - first == len(reached):
            return jnp.concatenate([same(first), more, same(site.worlds - last)])
        places = np.zeros(site.worlds, int)
        places[reached] = 1 + np.arange(len(reached))
        return jnp.concatenate([one[None], more])[places]

    return Value(over(joined, [here, there], around), (*around, site.world))


def _in_worlds(parameter: Value, reached: np.ndarray, others: Lane) -> Value:
    """A parameter, without derivative, in the worlds that reach it or others."""
    array = jax.lax.stop_gradient(parameter.array)
    if not parameter.lanes or parameter.lanes[-1].draw != WORLDS:
        return Value(array, parameter.lanes)
    place = len(parameter.lanes) - 1
    if reached[-1] - reached[0] + 1 == len(reached):
        array = jax.lax.slice_in_dim(array, int(reached[0]), int(reached[-1]) + 1, axis=place)
    else:
        array = jnp.take(array, reached, axis=place)
    return Value(array, (*parameter.lanes[:-1], others))


def _kept_or_not(site: Site, here: Value, parameters: list[Value], table: np.ndarray) -> Value:
    """The same value as probably as can be, or else one from what is left."""

    def chances(*leaves: Any) -> Any:
        return site.probabilities(list(leaves), table)

    def chosen(x: Any, was: Any, now: Any) -> Any:
        place = place_of(x, table)
        here = place[..., None] == np.arange(len(table))
        before, after = (jnp.sum(jnp.where(here, p, 0.0), -1) for p in (was, now))
        ratio = after / jnp.where(before > 0, before, 1)
        kept = draw(dist.BernoulliProbs(jnp.minimum(ratio, 1)))
        if len(table) == 2:
            other = 1 - place
        else:
            left = jnp.maximum(now - was, 0)
            mass = jnp.sum(left, -1, keepdims=True)
            odds = jnp.where(mass > 0, left / jnp.where(mass > 0, mass, 1), 1 / len(table))
            other = draw(dist.CategoricalProbs(odds))
        return outcome_at(jnp.where(kept == 1, place, other), table)

    still = [happening(Value(jax.lax.stop_gradient(p.array), p.lanes)) for p in site.parameters]
    return along(chosen, here, along(chances, *still), along(chances, *parameters))


def place_of(x: Any, table: np.ndarray) -> Any:
    """The places of outcomes in their table."""
    if np.array_equal(table, np.arange(len(table))):
        return x.astype(int)
    return jnp.argmin(jnp.abs(jnp.asarray(table) - x[..., None]), -1)


def outcome_at(place: Any, table: np.ndarray) -> Any:
    """The outcomes at places of a table."""
    if np.array_equal(table, np.arange(len(table))):
        return place
    return jnp.asarray(table)[place]
