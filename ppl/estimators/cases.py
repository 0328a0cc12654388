"""Numbers that data choose among few, which are kept apart until they are summed.

The log density of a binary pixel x is one of two numbers, `where(x == 1, a, b)`. Where a and b are
made of the outcomes of a choice, and are the same for all images (`ppl.estimators.thin`), their sum
over pixels, for each image and each outcome, is a matrix product of `x == 1` and a, plus one of
`x != 1` and b: no array has an element for each image, outcome and pixel. What is done element by
element to make a and b is done for each *case*, once for all images.

This holds where no number is huge, which is looked at when the program runs; where one is, the sum
is computed as it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .flow import Known
from .lanes import WORLDS, Lane, Parted, Value, elsewhere, happening, spread, union
from .nodes import Operation
from .relaxed import smooth
from .thin import applied

_WORDS = (
    "abs add convert_element_type copy cos exp log1p logistic max min mul neg select_n sin "
    "stop_gradient sub tanh"
)
_SMOOTH = frozenset(_WORDS.split())
"""Elementwise operations whose derivatives are finite where operands and result are: those of a
case that no element is in are multiplied by zero, and not by infinity."""
_GROWING: dict[str, Callable[[float], float]] = {
    "exp": lambda x: math.exp(min(x, 700.0)),
    "log1p": lambda x: math.log1p(x) if x > -0.5 else -math.inf,
    "logistic": lambda x: 1 / (1 + math.exp(-max(x, -700.0))),
    "tanh": math.tanh,
}
_BOUNDS = (1e6, 40.0)
"""Sums are made case by case of numbers up to the first such that all made of them is finite."""
Range = tuple[float, float]
MOST_CASES = 4

Case = tuple[tuple[int, bool], ...]
"""Slots of conditions, and whether each of them holds."""
WHOLE: tuple[Case, ...] = ((),)
"""The cases of what is not chosen."""


class Seen(NamedTuple):
    """The cases, lanes and shape of an operand; along an axis of size one it is the same."""

    cases: tuple[Case, ...]
    lanes: tuple[Lane, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Waiting:
    """A number that is not made yet.

    Attributes:
      node: the operation that makes it.
      mask: the slot of the condition, where it chooses between cases of its own.
      cases: all that there are: each element is in one.
      lanes, shape: of the number in a case; an axis along which it is the same has size one.
    """

    node: Operation
    mask: int | None
    cases: tuple[Case, ...]
    lanes: tuple[Lane, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Numbers:
    """The numbers of slots; one that waits is made when it is asked for.

    With `parted`, numbers have derivatives in the world that happens only.
    """

    known: Known
    avals: dict[int, Any]
    made: dict[int, Value]
    parted: bool = False
    waiting: dict[int, Waiting] = field(default_factory=dict)

    def __getitem__(self, slot: int) -> Value:
        """The number of a slot, which may be thin."""
        if slot not in self.made and slot in self.waiting:
            (self.made[slot],) = self._made(self.waiting[slot].node)
        return self.made[slot]

    def __setitem__(self, slot: int, number: Value) -> None:
        self.made[slot] = number

    def run(self, node: Operation) -> None:
        """Make the results of an operation, or leave its result for later."""
        later = self._later(node)
        if later is not None:
            self.waiting[node.outputs[0]] = later
            return
        total = self._sum(node)
        outs = self._made(node) if total is None else [total]
        self.made.update(zip(node.outputs, outs, strict=True))

    def _made(self, node: Operation) -> list[Any]:
        given = [self[slot] for slot in node.inputs]
        if not self.parted or WORLDS not in [lane.draw for lane in union(given)]:
            return self._applied(node, given)
        here, rest = (self._applied(node, [of(v) for v in given]) for of in (happening, elsewhere))
        return [Parted(one, others) for one, others in zip(here, rest, strict=True)]

    def _applied(self, node: Operation, given: list[Value]) -> list[Value]:
        dtypes = [self.avals[slot].dtype for slot in node.inputs]
        arrays = smooth(node, [value.array for value in given], dtypes)
        if not union(given):
            return [Value(out) for out in node.evaluate(*arrays)]
        given = [Value(x, value.lanes) for x, value in zip(arrays, given, strict=True)]
        return applied(node, given, self.avals)

    # -- what waits ---------------------------------------------------------------------

    def _later(self, node: Operation) -> Waiting | None:
        """What is known of a result of few cases; None if it has more, or gains nothing."""
        if node.name not in _SMOOTH or len(node.outputs) != 1:
            return None
        shape = tuple(self.avals[node.outputs[0]].shape)
        operands, mask = node.inputs, None
        if node.name == "select_n" and len(operands) == 3 and self._is_mask(operands[0], shape):
            mask, *operands = operands
        each = [self._seen(slot) for slot in operands]
        known = [seen for seen in each if seen is not None]
        if len(known) < len(each):
            return None
        if mask is None:
            kinds = {seen.cases for seen in known if seen.cases != WHOLE}
            cases = kinds.pop() if len(kinds) == 1 else WHOLE
        else:
            found = [(i == 1, case) for i, seen in enumerate(known) for case in seen.cases]
            cases = tuple(((mask, holds), *case) for holds, case in found)
        sizes = zip(*(seen.shape for seen in known if len(seen.shape) == len(shape)), strict=True)
        thin = tuple(map(max, sizes))
        few = 1 < len(cases) <= MOST_CASES
        if not few or len(cases) * math.prod(thin) > math.prod(shape):
            return None
        return Waiting(node, mask, cases, union(known), thin)

    def _is_mask(self, slot: int, shape: tuple[int, ...]) -> bool:
        """Whether a slot has conditions that are the same for all outcomes."""
        value = self.made.get(slot)
        return value is not None and not value.lanes and jnp.shape(value.array) == shape != ()

    def _seen(self, slot: int) -> Seen | None:
        """What is known of an operand; None if it is parted, or a float where it should be none."""
        if slot in self.waiting:
            waiting = self.waiting[slot]
            return Seen(waiting.cases, waiting.lanes, waiting.shape)
        aval = self.avals[slot]
        if slot in self.known.fills:
            return Seen(WHOLE, (), (1,) * len(aval.shape))
        value = self.made[slot]
        if isinstance(value, Parted):
            return None
        floating = [jnp.issubdtype(x, jnp.floating) for x in (jnp.result_type(value.array), aval)]
        shape = jnp.shape(value.array)[len(value.lanes) :]
        return Seen(WHOLE, value.lanes, shape) if floating[0] == floating[1] else None

    # -- and its sum --------------------------------------------------------------------

    def _sum(self, node: Operation) -> Value | None:
        """The sum, case by case, of a number that waits; None if it gains nothing by that."""
        if node.name != "reduce_sum":
            return None
        (slot,), axes = node.inputs, node.params["axes"]
        if slot not in self.waiting or slot in self.made:
            return None
        waiting, aval = self.waiting[slot], self.avals[slot]
        same = [a for a, n in enumerate(waiting.shape) if n != aval.shape[a]]
        floating = jnp.issubdtype(aval.dtype, jnp.floating)
        if not waiting.lanes or not same or set(same) & set(axes) or not floating:
            return None
        bounds = [bound for bound in _BOUNDS if self._stays_finite(slot, bound)]
        if not bounds:
            return None

        def of_cases() -> Any:
            made: dict = {}
            each = [(self._mask(case), self._number(slot, case, made)) for case in waiting.cases]
            return sum(_summed(mask, number, waiting, axes) for mask, number in each)

        # so that nothing large is kept for a derivative
        @partial(jax.checkpoint, prevent_cse=False)
        def as_written() -> Any:
            return replace(self, made=dict(self.made))._made(node)[0].array

        leaves = [self.made[leaf].array for leaf in self._leaves(slot)]
        numbers = [x for x in leaves if not jnp.issubdtype(jnp.result_type(x), jnp.bool_)]
        finite = reduce(jnp.logical_and, [jnp.all(jnp.abs(x) <= bounds[0]) for x in numbers])
        return Value(lax.cond(finite, of_cases, as_written), waiting.lanes)

    def _mask(self, case: Case) -> Any:
        """Where a case holds."""
        flags = [(self.made[slot].array, holds) for slot, holds in case]
        return reduce(jnp.logical_and, [flag if holds else ~flag for flag, holds in flags])

    def _leaves(self, slot: int) -> list[int]:
        """The slots that the cases of one that waits are made of."""
        if slot not in self.waiting:
            return [] if slot in self.known.fills else [slot]
        waiting = self.waiting[slot]
        inputs = waiting.node.inputs[waiting.mask is not None :]
        return list(dict.fromkeys(leaf for i in inputs for leaf in self._leaves(i)))

    def _number(self, slot: int, case: Case, made: dict) -> Value:
        """A number in a case; it may be thin. `made` are those that have been made."""

        def start(slot: int) -> Value:
            aval = self.avals[slot]
            if slot not in self.known.fills:
                return self.made[slot]
            return Value(jnp.full((1,) * len(aval.shape), self.known.fills[slot], aval.dtype))

        def step(node: Operation, given: list[Value]) -> Value:
            return applied(node, given, self.avals)[0]

        return self._fold(slot, case, start, step, made)

    def _stays_finite(self, slot: int, bound: float) -> bool:
        """Whether all is far from overflow where no leaf is larger than `bound`."""
        most = float(jnp.finfo(self.avals[slot].dtype).max) ** 0.5
        small: list[bool] = []

        def start(slot: int) -> Range:
            fill = self.known.fills.get(slot)
            return (-bound, bound) if fill is None else (fill, fill)

        def step(node: Operation, given: list[Range]) -> Range:
            low, high = _range_of(node.name, given)
            small.append(-most < low and high < most)
            return low, high

        for case in self.waiting[slot].cases:
            self._fold(slot, case, start, step, {})
        return all(small)

    def _fold(self, slot: int, case: Case, start: Callable, step: Callable, made: dict) -> Any:
        """What a number is in a case, from its leaves by the operations that make it."""
        waiting = self.waiting.get(slot)
        if waiting is None:
            return start(slot)
        mine = {mask for one in waiting.cases for mask, _ in one}
        key = slot, frozenset(item for item in case if item[0] in mine)
        if key not in made:
            node = waiting.node
            if waiting.mask is None:
                given = [self._fold(i, case, start, step, made) for i in node.inputs]
                made[key] = step(node, given)
            else:
                taken = node.inputs[1 + dict(case)[waiting.mask]]
                made[key] = self._fold(taken, case, start, step, made)
        return made[key]


def _range_of(name: str, given: Sequence[Range]) -> Range:
    """The range of a result of an operation of `_SMOOTH`, from those of its operands."""
    if name == "select_n":
        given = given[1:]
    lows, highs = zip(*given, strict=True)
    low, high = lows[0], highs[0]
    if name in _GROWING:
        return _GROWING[name](low), _GROWING[name](high)
    if name == "neg":
        return -high, -low
    if name == "abs":
        return 0.0, max(-low, high)
    if name in ("sin", "cos"):
        return -1.0, 1.0
    if name == "add":
        return low + lows[1], high + highs[1]
    if name == "sub":
        return low - highs[1], high - lows[1]
    if name == "mul":
        products = [a * b for a in given[0] for b in given[1]]
        return min(products), max(products)
    if name in ("min", "max"):
        least = min if name == "min" else max
        return least(lows), least(highs)
    return min(lows), max(highs)


def _summed(mask: Any, number: Value, waiting: Waiting, axes: Sequence[int]) -> Any:
    """The sum over `axes` of a number where the mask is true, with all lanes."""
    if not number.lanes:
        total = jnp.sum(jnp.where(mask, number.array, 0.0), tuple(axes))
        return spread(Value(total), waiting.lanes)
    lanes = len(number.lanes)
    shape = (*(lane.size for lane in number.lanes), *waiting.shape)
    same = [a for a, n in enumerate(waiting.shape) if n == 1 and a not in axes]
    array = jnp.squeeze(jnp.broadcast_to(number.array, shape), [lanes + a for a in same])
    place = {a: lanes + i for i, a in enumerate(a for a in range(mask.ndim) if a not in same)}
    batch = [a for a in place if a not in axes]
    numbers = ([place[a] for a in axes], axes), ([place[a] for a in batch], batch)
    made = lax.dot_general(array, mask.astype(array.dtype), numbers, precision="highest")
    # batch, lanes, same
    order = {a: i for i, a in enumerate(batch)} | {
        a: len(batch) + lanes + i for i, a in enumerate(same)
    }
    front = range(len(batch), len(batch) + lanes)
    total = jnp.transpose(made, (*front, *(order[a] for a in sorted(order))))
    return spread(Value(total, number.lanes), waiting.lanes)
