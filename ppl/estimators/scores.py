"""What a choice multiplies the terms of a result by that depend on it.

A term is multiplied by factors that are one, or the probability of an outcome, and that carry
the derivative of the law: a score in a `box`, exp(s - stopped s), whose derivative is that of s
and whose second derivative is right, too; or the probability itself, summed over lanes.

Source: Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator (ICML 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ..effects import box, weak
from .flow import FROM, UP_TO, Flow, Pair, Symbol
from .lanes import Lane, Value, along, over, rows_first, spread, union


def valued(value: Any, surrogate: Any) -> Any:
    """`value`, with the derivatives of `surrogate`."""
    return jax.lax.stop_gradient(value) + weak(1.0, surrogate)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["array", "log"],
    meta_fields=["own", "factor", "weight", "idle"],
)
@dataclass(frozen=True)
class Score:
    """What a draw multiplies by: an array with an axis for each axis of independent elements.

    Attributes:
      array: scores, which are summed over the elements that a term depends on together; or
        with `own`, a lane of outcomes, whatever `factor` makes factors of.
      own: the lane that the draw has made, or None.
      factor: from the summed array, whose first axis is `own` if there is one, to factors.
      weight: the same for the value, without derivative; None where factors have the value.
      log: of a draw with worlds the log density of its value in each; then the array has what
        terms are multiplied by there.
      idle: what the array is where the draw is not made; None: the first outcome is sure.
    """

    array: Value
    own: Lane | None = None
    factor: Callable[[Any], Any] = box
    weight: Callable[[Any], Any] | None = None
    idle: float | None = 0.0
    log: Value | None = None


def reduced(array: Any, pairs: frozenset[Pair], rank: int) -> Any:
    """Scores for a term of `rank` axes: summed over the elements that are in it together."""
    elements = {element: (axis, relation) for axis, element, relation in pairs}
    kept = [e for e in range(array.ndim) if e in elements]
    if len(kept) < array.ndim:
        array = jnp.sum(array, tuple(e for e in range(array.ndim) if e not in elements))
    for place, element in enumerate(kept):
        relation = elements[element][1]
        if relation == UP_TO:
            array = jnp.cumsum(array, place)
        elif relation == FROM:
            array = jnp.flip(jnp.cumsum(jnp.flip(array, place), place), place)
    order = sorted(range(len(kept)), key=lambda place: elements[kept[place]][0])
    array = jnp.transpose(array, order)
    axes = [elements[kept[place]][0] for place in order]
    return jnp.expand_dims(array, [i for i in range(rank) if i not in axes])


class Scored(Protocol):
    """What knows the scores of choices, and keeps the products that terms have in common."""

    products: dict[tuple, Any]

    def score(self, symbol: Symbol) -> Score: ...


class Factors(NamedTuple):
    """What a term is multiplied by; None for one.

    Attributes:
      total: the sum of the scores of choices with one outcome, whose boxes are one box.
      factor: the product of the factors of choices with lanes of their own.
      weight: the same without derivatives, for the value; `factor` itself where it has it.
      amounts: of choices with worlds, the sum of their amounts in each world.
    """

    total: Value | None = None
    factor: Value | None = None
    weight: Value | None = None
    amounts: Value | None = None


def credited(term: Value, flow: Flow, scope: Scored, rank: int) -> Any:
    """A term with the derivatives of the laws of all choices that it depends on.

    Its mean over the lanes, weighted by their probabilities.
    """
    found = _factors(tuple(sorted(flow.items(), key=_symbol)), scope, rank)
    total, factor, weight = found.total, found.factor, found.weight
    if found.amounts is not None:
        happens = _happens(found.amounts, rank)
        factor = _joined(jnp.multiply, factor, _joined(jnp.add, found.amounts, happens))
        weight = _joined(jnp.multiply, weight, happens)
    lanes = union([value for value in (term, total, factor) if value is not None])
    value = surrogate = spread(term, lanes)
    if total is not None:
        surrogate = surrogate * box(spread(total, lanes))
    if factor is None or weight is None:
        return surrogate
    # what has no probability counts for nothing, unless a number can say how much it would
    chance = spread(weight, lanes)
    impossible = (chance == 0) & ~jnp.isfinite(value)
    surrogate = jnp.where(impossible, 0.0, surrogate) * spread(factor, lanes)
    everywhere = tuple(range(len(lanes)))
    surrogate = jnp.sum(surrogate, everywhere)
    if weight is factor:
        return surrogate
    return valued(jnp.sum(jnp.where(impossible, 0.0, value) * chance, everywhere), surrogate)


def _symbol(item: tuple[Symbol, frozenset[Pair]]) -> Symbol:
    return item[0]


def _factors(flow: tuple, scope: Scored, rank: int) -> Factors:
    """The factors of terms with this flow, made of those with one choice less."""
    if not flow:
        return Factors()
    if (flow, rank) not in scope.products:
        before = _factors(flow[:-1], scope, rank)
        symbol, pairs = flow[-1]
        scope.products[flow, rank] = _one_more(before, scope.score(symbol), pairs, rank)
    return scope.products[flow, rank]


def _one_more(before: Factors, score: Score, pairs: frozenset[Pair], rank: int) -> Factors:
    def summed(array: Value) -> Value:
        return along(lambda a: reduced(a, pairs, rank), array)

    found = summed(score.array)
    if score.log is not None:
        # amounts have the boxes of the draws after theirs, so that each pair of draws counts
        # once in second derivatives
        earlier = before.amounts
        if earlier is not None:
            boxed = _joined(jnp.multiply, earlier, along(box, summed(score.log)))
            found = _joined(jnp.add, boxed, found)
        return before._replace(amounts=found)
    if score.own is None:
        return before._replace(total=_joined(jnp.add, before.total, found))
    factor = _own(score.factor, found, score.own)
    weight = factor if score.weight is None else _own(score.weight, found, score.own)
    product = _joined(jnp.multiply, before.factor, factor)
    if before.weight is before.factor and weight is factor:
        return before._replace(factor=product, weight=product)
    weight = _joined(jnp.multiply, before.weight, weight)
    return before._replace(factor=product, weight=weight)


def _happens(amounts: Value, rank: int) -> Value:
    """One in the world that happens, the first, and zero in the others."""
    world = amounts.lanes[-1]
    happens = (jnp.arange(world.size) == 0).astype(amounts.array.dtype)
    return Value(happens.reshape(world.size, *(1,) * rank), (world,))


def _joined(op: Callable[[Any, Any], Any], one: Value | None, other: Value) -> Value:
    """`op` of two values that have the same rank, for all outcomes of either."""
    if one is None:
        return other
    lanes = union([one, other])
    return Value(op(spread(one, lanes), spread(other, lanes)), lanes)


def _own(fn: Callable[[Any], Any], summed: Value, own: Lane) -> Value:
    """`fn` with the draw's own lane in front, for each outcome of the others."""
    others = tuple(lane for lane in summed.lanes if lane != own)
    place = summed.lanes.index(own)
    if place == len(others) == 0:
        return Value(fn(summed.array), summed.lanes)
    moved = Value(jnp.moveaxis(summed.array, place, len(others)), others)
    array = over(fn, [moved], others)
    return Value(jnp.moveaxis(array, len(others), place), summed.lanes)


def rows_of(score: Score, axis: int, relation: str) -> tuple[Any, Any]:
    """The arrays of a score with the rows of `axis` in front, of each what belongs to it."""

    def front(array: Any) -> Any:
        if relation == UP_TO:
            array = jnp.cumsum(array, axis)
        elif relation == FROM:
            array = jnp.flip(jnp.cumsum(jnp.flip(array, axis), axis), axis)
        return jnp.moveaxis(array, axis, 0)

    log = None if score.log is None else rows_first(along(front, score.log))
    return rows_first(along(front, score.array)), log


def with_array(score: Score, array: Any, log: Any = None) -> Score:
    """The same score of other arrays."""
    if score.log is not None:
        score = replace(score, log=replace(score.log, array=log))
    return replace(score, array=replace(score.array, array=array))
