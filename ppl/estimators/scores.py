"""What a choice multiplies the terms of a result by that depend on it.

A term is multiplied by factors that are one, or the probability of an outcome, and that carry
the derivative of the law: a score in a `box`, exp(s - stopped s), whose derivative is that of s
and whose second derivative is right, too; or the probability itself, summed over lanes.

Source: Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator (ICML 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .. import errors, jumps
from ..effects import box, weak
from .flow import FROM, UP_TO, Flow, Pair, Symbol
from .lanes import Lane, Value, along, elsewhere, happening, others, over, rows_first, spread, union


def valued(value: Any, surrogate: Any) -> Any:
    """`value`, with the derivatives of `surrogate`."""
    return jax.lax.stop_gradient(value) + weak(1.0, surrogate)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["array", "log"],
    meta_fields=["own", "factor", "weight", "idle", "parted"],
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
      parted: of a draw with worlds, whether first derivatives only are taken.
      idle: what the array is where the draw is not made; None: the first outcome is sure.
    """

    array: Value
    own: Lane | None = None
    factor: Callable[[Any], Any] = box
    weight: Callable[[Any], Any] | None = None
    idle: float | None = 0.0
    log: Value | None = None
    parted: bool = False


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

    @property
    def whole(self) -> Any: ...

    def score(self, symbol: Symbol) -> Score: ...


class Factors(NamedTuple):
    """What a term is multiplied by; None for one.

    Attributes:
      total: the sum of the scores of choices with one outcome, whose boxes are one box.
      factor: the product of the factors of choices with lanes of their own.
      weight: the same without derivatives, for the value; `factor` itself where it has it.
      amounts: of choices with worlds, the sum of their amounts in each world.
      parted: whether other worlds have no derivative.
    """

    total: Value | None = None
    factor: Value | None = None
    weight: Value | None = None
    amounts: Value | None = None
    parted: bool = False


def credited(term: Value, flow: Flow, scope: Scored, rank: int) -> Any:
    """A term with the derivatives of the laws of all choices that it depends on.

    Its mean over the lanes, weighted by their probabilities.
    """
    found = _factors(tuple(sorted(flow.items(), key=_symbol)), scope, rank)
    if found.parted and found.amounts is not None:
        return _parted(term, found, found.amounts, scope.whole)
    total, factor, weight = found.total, found.factor, found.weight
    if found.amounts is not None:
        happens = _happens(found.amounts, rank)
        factor = _joined(jnp.multiply, factor, _joined(jnp.add, found.amounts, happens))
        weight = _joined(jnp.multiply, weight, happens)
    return _weighted(term, total, factor, weight)


def _weighted(term: Value, total: Value | None, factor: Value | None, weight: Value | None) -> Any:
    """The sum of a term over its lanes, with the box of `total` and times a factor."""
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


def _parted(term: Value, found: Factors, amounts: Value, whole: Any) -> Any:
    """A term whose other worlds have no derivative: their amounts are zero, and so theirs would be
    in a first one."""
    total, own, weight = (
        None if v is None else happening(v) for v in (found.total, found.factor, found.weight)
    )
    one = happening(amounts)
    factor = _joined(jnp.multiply, own, Value(1 + one.array, one.lanes))
    here = _weighted(happening(term), total, factor, factor if weight is own else weight)
    values, amounts = elsewhere(term), others(amounts)
    if found.factor is not None:
        values = _joined(jnp.multiply, elsewhere(found.factor), values)
    lanes = union([values, amounts])
    value = spread(values, lanes)
    value = jnp.where(jnp.isfinite(value), value, 0.0)
    return here + jnp.sum(_once(value, spread(amounts, lanes), whole), tuple(range(len(lanes))))


@jax.custom_jvp
def _once(value: Any, amount: Any, whole: Any) -> Any:
    """Zero, whose derivative is `value` times that of `amount`, and which has no second one.

    Raises:
      GradientThroughDraw: another derivative of the derivative is taken, with respect to anything
        that `whole` depends on.
    """
    return jnp.zeros(jnp.broadcast_shapes(jnp.shape(value), jnp.shape(amount)), amount.dtype)


@_once.defjvp
def _first(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    value, amount, whole = primals
    seen = jumps.watched(whole, _refuse)
    # whatever it is, one: so that it is not left out as something that nothing reads
    one = jnp.where(jnp.isnan(seen), 1.0, 1.0).astype(amount.dtype)
    return _once(*primals), one * value * tangents[1]


def _refuse() -> None:
    raise errors.GradientThroughDraw(
        "A derivative of a first derivative, of which worlds have no more.",
        where=errors.caller(),
        given="measure_valued(order=1)",
        expected="one derivative: jax.grad, jax.jvp, jax.vjp",
        fix="measure_valued(), whose derivatives of all orders are unbiased",
    )


def _symbol(item: tuple[Symbol, frozenset[Pair]]) -> Symbol:
    return item[0]


def _factors(flow: tuple, scope: Scored, rank: int) -> Factors:
    """The factors of terms with this flow, made of those with one choice less."""
    if not flow:
        return Factors()
    if (flow, rank) not in scope.products:
        last = _drawn_at_once(flow[-1][0])
        here = [item for item in flow if _drawn_at_once(item[0]) == last]
        before = _factors(tuple(item for item in flow if item not in here), scope, rank)
        parts = [(scope.score(symbol), pairs) for symbol, pairs in here]
        scope.products[flow, rank] = _one_more(before, parts, rank)
    return scope.products[flow, rank]


def _drawn_at_once(symbol: Symbol) -> tuple:
    """The same for a row of an array that a loop reads, and for the rows before it."""
    names = [step[0] for step in symbol.steps]
    return symbol.draw, symbol.steps[: names.index("slice") if "slice" in names else None]


def _one_more(before: Factors, parts: list[tuple[Score, frozenset[Pair]]], rank: int) -> Factors:
    """The factors with those of one draw, the sums of whose rows are `parts`."""
    score = parts[0][0]

    def summed(arrays: list[tuple[Value, frozenset[Pair]]]) -> Value:
        each = [along(lambda a, p=pairs: reduced(a, p, rank), array) for array, pairs in arrays]
        return reduce(partial(_joined, jnp.add), each)

    found = summed([(part.array, pairs) for part, pairs in parts])
    if score.log is not None:
        # amounts have the boxes of the draws after theirs, so that each pair of draws counts
        # once in second derivatives
        logs = [(part.log, pairs) for part, pairs in parts if part.log is not None]
        earlier = before.amounts
        if earlier is not None and score.parted:
            found = _joined(jnp.add, earlier, found)
        elif earlier is not None:
            boxed = _joined(jnp.multiply, earlier, along(box, summed(logs)))
            found = _joined(jnp.add, boxed, found)
        return before._replace(amounts=found, parted=score.parted)
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
