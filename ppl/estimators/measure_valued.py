"""Derivatives of laws as differences of laws, each followed through the program by one value.

The derivative of a distribution is a signed measure, c (p' - p''); a value from each is a
*world*, in which what comes after is computed again. All choices of a program share one axis
of worlds. Values are coupled: one of the two is the value itself where that is possible, and
what comes after uses the same noise.

Source: Pflug, Sampling derivatives of probabilities (Computing 1989); Mohamed et al., Monte
Carlo gradient estimation in machine learning (JMLR 2020), Table 1. For the shape of a gamma
variable, which is the value at a time of a process of independent jumps: the derivative adds
one more jump, whose measure is e^-y / y dy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .. import errors, quadrature
from ..chances import probability
from ..distributions import elementwise, log_density
from ..effects import box, weak
from ..randomness import draw
from .coupling import outcome_at, place_of
from .lanes import Value, along, filled, happening, over, union
from .nodes import DrawNode, elements
from .scores import Score
from .strategies import Made, Site


class Worlds(NamedTuple):
    """Other values of each element, and what terms are multiplied by.

    Attributes:
      others: the other values.
      here: the amount for the value itself.
      there: the amounts for the others; all of them are zeros with derivatives.
    """

    others: list[Any]
    here: Any
    there: list[Any]


def _still(x: Any) -> Any:
    return jax.lax.stop_gradient(x)


def _finite(d: Any, x: Any, table: np.ndarray) -> Worlds:
    """All other outcomes, each with the derivative of its probability."""
    k = len(table)
    place = place_of(x, table)
    others, amounts = [], []
    for step in range(k):
        next_one = jnp.where(place < k - step, place + step, place + step - k)
        value = outcome_at(next_one, table).astype(x.dtype)
        others.append(value)
        amounts.append(weak(jnp.ones(()), probability(d, value)))
    return Worlds(others[1:], amounts[0], amounts[1:])


def _normal(d: Any, x: Any) -> Worlds:
    loc, scale = _still(d.loc), _still(d.scale)
    n = (x - loc) / scale
    shape = jnp.shape(x)

    def exponential() -> Any:
        return draw(dist.Exponential(1.0).expand(shape))

    away = jnp.sqrt(2 * exponential())
    up, down = loc + scale * away, loc - scale * away
    further = loc + scale * jnp.sign(n) * jnp.sqrt(n**2 + 2 * exponential())

    def rayleigh(y: Any, sign: int) -> Any:
        z = sign * (y - d.loc) / d.scale
        return box(jnp.log(z) - 0.5 * z**2 - jnp.log(d.scale))

    def maxwell(y: Any) -> Any:
        z = (y - d.loc) / d.scale
        return box(2 * jnp.log(jnp.abs(z)) - 0.5 * z**2 - jnp.log(d.scale))

    c = 1 / (d.scale * math.sqrt(2 * math.pi))
    there = [
        weak(c * rayleigh(up, 1), d.loc),
        -weak(c * rayleigh(down, -1), d.loc),
        weak(maxwell(further) / d.scale, d.scale),
    ]
    here = -weak(box(log_density(d, x)) / d.scale, d.scale)
    return Worlds([up, down, further], here, there)


def _poisson(d: Any, x: Any) -> Worlds:
    score = box(log_density(d, x))
    return Worlds([x + 1], -weak(score, d.rate), [weak(score, d.rate)])


def _exponential(d: Any, x: Any) -> Worlds:
    longer = x + draw(dist.Exponential(_still(d.rate)).expand(jnp.shape(x)))
    erlang = box(2 * jnp.log(d.rate) - d.rate * longer)
    there = -weak(erlang / d.rate, d.rate)
    return Worlds([longer], weak(box(log_density(d, x)) / d.rate, d.rate), [there])


def _jump(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """One more jump of a gamma process, and what it is worth."""
    y = draw(dist.Gamma(0.5, 1.0).expand(shape))
    return y, math.sqrt(math.pi) / jnp.sqrt(y)


def _gamma(d: Any, x: Any) -> Worlds:
    shape = jnp.shape(x)
    y, worth = _jump(shape)
    larger = x + y / _still(d.rate)
    longer = x + draw(dist.Exponential(_still(d.rate)).expand(shape))
    # the law of a value with the jump in it is that of the value without
    jumped = box(log_density(dist.Gamma(d.concentration, d.rate), larger - y / d.rate))
    plain = box(log_density(d, x))
    next_one = box(log_density(dist.Gamma(d.concentration + 1, d.rate), longer))
    c = d.concentration / d.rate
    here = weak(c * plain, d.rate) - weak(worth * plain, d.concentration)
    there = [weak(worth * jumped, d.concentration), -weak(c * next_one, d.rate)]
    return Worlds([larger, longer], here, there)


def _beta(d: Any, x: Any) -> Worlds:
    """The share of one gamma variable in the sum of two, which does not depend on the share."""
    a, b = (jnp.broadcast_to(c, jnp.shape(x)) for c in (d.concentration1, d.concentration0))
    total = draw(dist.Gamma(_still(a + b), 1.0))
    one, two = x * total, (1 - x) * total
    (y1, w1), (y2, w2) = _jump(jnp.shape(x)), _jump(jnp.shape(x))
    score = box(log_density(dist.Gamma(a, 1.0), one) + log_density(dist.Gamma(b, 1.0), two))
    others = [(one + y1) / (total + y1), one / (total + y2)]
    there = [weak(w1 * score, a), weak(w2 * score, b)]
    return Worlds(others, -there[0] - there[1], there)


_KINDS: dict[type, Callable[[Any, Any], Worlds]] = {
    dist.Normal: _normal,
    dist.Poisson: _poisson,
    dist.Exponential: _exponential,
    dist.Gamma: _gamma,
    dist.Beta: _beta,
}
_OTHERS = {dist.Normal: 3, dist.Poisson: 1, dist.Exponential: 1, dist.Gamma: 2, dist.Beta: 2}


def _single(d: Any) -> Any:
    """The distribution of elements, without `expand`, its parameters as large as the elements."""
    while isinstance(d, dist.ExpandedDistribution | dist.Independent):
        d = d.base_dist
    return d


def _how(node: DrawNode) -> tuple[int, Callable[[Any, Any], Worlds]]:
    """How many other values an element has, and what makes them."""
    d = elementwise(node.spec.tree.unflatten(list(node.spec.leaves)))
    found = _KINDS.get(type(_single(d)))
    if found is not None:
        return _OTHERS[type(_single(d))], found
    table = quadrature.outcomes(d)
    if table is None or d.event_shape:
        raise errors.NoStrategy(
            f"There is no measure-valued derivative of {node.spec.kind}.",
            where=node.place,
            given="measure_valued()",
            expected="a Bernoulli or categorical choice, or any with finitely many known values; "
            "Normal, Poisson, Exponential, Gamma, Beta",
            fix="reinforce(), or reparam() where the choice is continuous",
        )
    return len(table) - 1, lambda d, x: _finite(d, x, table)


@dataclass(frozen=True)
class MeasureValued:
    """See `ppl.measure_valued`."""

    order: int | None = None
    several = True
    scored = True
    biased = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        others, _ = _how(node)
        return others if apart else others * math.prod(elements(node))

    def make(self, site: Site) -> Made:
        _, how = _how(site.node)
        value = site.sampled()
        return worlds_of(site, value, how)


def worlds_of(site: Site, value: Value, how: Callable[[Any, Any], Worlds]) -> Made:
    """The value in all worlds, and what terms are multiplied by in each.

    Other values are made where parameters are those of the world that happens.
    """
    world = site.world
    given = [happening(v) for v in (value, *site.parameters)]
    lanes = union(given)

    def each(x: Any, *leaves: Any) -> Worlds:
        return site.by_element(lambda d, x: how(_single(d), x), list(leaves), x)

    found = Value(over(each, given, lanes), lanes)
    log = _log_of(site, value)
    around = tuple(lane for lane in union([value, log, found]) if lane != world)
    everywhere = (*around, world)
    lay = _laid_out_apart if site.apart else _laid_out_one_by_one
    places = partial(lay, site.first_world)
    values, amounts = over(places, [filled(value, everywhere), happening(log), found], around)
    score = Score(Value(amounts, everywhere), world, log=log, parted=site.parted)
    return Made(Value(values, everywhere), score)


def _log_of(site: Site, value: Value) -> Value:
    """The log density of a value in each world; zeros where only first derivatives are taken."""
    if site.parted:
        return Value(jnp.zeros([site.shape[i] for i in range(len(elements(site.node)))]))
    if jnp.issubdtype(site.node.spec.dtype, jnp.integer):
        # other outcomes may be impossible: where one is, no amount has its box
        return along(lambda p: jnp.log(jnp.where(p > 0, p, 1)), site.probability(value))
    return site.log_density(value)


def _laid_out_apart(first: int, x: Any, log: Any, found: Worlds) -> tuple[Any, Any]:
    """In each world all elements have another value: no term depends on two of them."""
    world = np.arange(len(x)).reshape(-1, *(1,) * jnp.ndim(found.here))
    amounts = jnp.where(world == 0, found.here, 0.0)
    for k, (other, amount) in enumerate(zip(found.others, found.there, strict=True)):
        x = jnp.where(world == first + k, other.astype(x.dtype), x)
        amounts = jnp.where(world == first + k, amount, amounts)
    return x, amounts


def _laid_out_one_by_one(first: int, x: Any, log: Any, found: Worlds) -> tuple[Any, Any]:
    """In each world one element has another value.

    An element's amount has the boxes of those after it: each pair counts once in second
    derivatives.
    """
    n, shape = jnp.size(found.here), jnp.shape(found.here)
    flat = jnp.ravel(log)
    after = box(jnp.flip(jnp.cumsum(jnp.flip(flat))) - flat)
    here, one = x[0].reshape(n), jnp.eye(n, dtype=bool)
    amounts = jnp.zeros((len(x), n), found.here.dtype).at[0].set(jnp.ravel(found.here) * after)
    values = x.reshape(len(x), n)
    for k, (other, amount) in enumerate(zip(found.others, found.there, strict=True)):
        start = first + k * n
        block = jnp.where(one, other.reshape(n), here).astype(x.dtype)
        values = jax.lax.dynamic_update_slice_in_dim(values, block, start, 0)
        block = jnp.where(one, jnp.ravel(amount) * after, 0.0)
        amounts = jax.lax.dynamic_update_slice_in_dim(amounts, block, start, 0)
    return values.reshape(x.shape), amounts.reshape(len(x), *shape)
