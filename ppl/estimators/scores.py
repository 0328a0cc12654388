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
from typing import Any

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


def credited(term: Value, flow: Flow, scores: Callable[[Symbol], Score], rank: int) -> Any:
    """A term with the derivatives of the laws of all choices that it depends on.

    Its mean over the lanes, weighted by their probabilities.
    """
    plain: list[Value] = []  # scores of one outcome, whose boxes are one box
    multiplied: list[Value] = []
    weighted: list[Value] = []
    worlds: list[tuple[int, Value, Value]] = []
    exact = True

    def summed(array: Value, pairs: frozenset[Pair]) -> Value:
        return along(lambda a: reduced(a, pairs, rank), array)

    for symbol, pairs in flow.items():
        score = scores(symbol)
        found = summed(score.array, pairs)
        if score.log is not None:
            worlds.append((symbol.draw, found, summed(score.log, pairs)))
        elif score.own is None:
            plain.append(found)
        else:
            factor = _own(score.factor, found, score.own)
            multiplied.append(factor)
            weight = score.weight
            weighted.append(factor if weight is None else _own(weight, found, score.own))
            exact = exact and weight is None
    if worlds:
        multiplied.append(_of_worlds(worlds))
        world = multiplied[-1].lanes[-1]
        happens = (jnp.arange(world.size) == 0).astype(multiplied[-1].array.dtype)
        weighted.append(Value(happens.reshape(world.size, *(1,) * rank), (world,)))
        exact = False
    lanes = union([term, *plain, *multiplied])
    value = surrogate = spread(term, lanes)
    if plain:
        total = spread(plain[0], lanes)
        for more in plain[1:]:
            total = total + spread(more, lanes)
        surrogate = surrogate * box(total)
    for factor, weight in zip(multiplied, weighted, strict=True):
        factor, weight = spread(factor, lanes), spread(weight, lanes)
        # what has no probability counts for nothing, unless a number can say how much it would
        impossible = (weight == 0) & ~jnp.isfinite(value)
        surrogate = jnp.where(impossible, 0, surrogate) * factor
        value = jnp.where(impossible, 0, value) * weight
    everywhere = tuple(range(len(lanes)))
    surrogate = jnp.sum(surrogate, everywhere) if lanes else surrogate
    if exact:
        return surrogate
    return valued(jnp.sum(value, everywhere), surrogate)


def _of_worlds(found: list[tuple[int, Value, Value]]) -> Value:
    """What a term is multiplied by in each world: one where things happen, and amounts.

    The amounts of a draw have the boxes of the draws after it, so that each pair of draws
    counts once in second derivatives.
    """
    found = sorted(found, key=lambda each: each[0])
    world = found[0][1].lanes[-1]
    total = Value((jnp.arange(world.size) == 0).astype(found[0][1].array.dtype), (world,))
    for i, (_, amounts, _) in enumerate(found):
        later = [log for _, _, log in found[i + 1 :]]
        boxed = along(lambda a, *logs: a * box(sum(logs)) if logs else a, amounts, *later)
        total = along(jnp.add, total, boxed)
    return total


def _own(fn: Callable[[Any], Any], summed: Value, own: Lane) -> Value:
    """`fn` with the draw's own lane in front, for each outcome of the others."""
    others = tuple(lane for lane in summed.lanes if lane != own)
    place = summed.lanes.index(own)
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
