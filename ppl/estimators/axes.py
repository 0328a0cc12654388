"""Which axes of a result are axes of an operand: slice n of one is made of slice n of the other.

For each primitive of JAX that people's programs are made of, the pairs of such axes. A
primitive without a rule mixes everything, which costs variance where credit is given by
element (`ppl.estimators.flow`), and is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Pairs = dict[int, int]
"""Axes of an operand, and the axes of the result that they become."""

_WORDS = (
    "abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
    "clz complex conj convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp "
    "exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le lgamma "
    "log log1p logistic lt max min mul ne neg nextafter not or polygamma population_count pow "
    "real reduce_precision regularized_incomplete_beta rem round rsqrt select_n shift_left "
    "shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub "
    "tan tanh xor zeta random_gamma_grad eq_to le_to lt_to guard box weak "
)
ELEMENTWISE = frozenset(_WORDS.split())
_REDUCED = "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor"
_REDUCTIONS = frozenset(f"{_REDUCED} argmax argmin".split())
_ALONG = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})


def pairs_of(
    name: str, params: dict, operands: Sequence[Any], results: Sequence[Any]
) -> list[list[Pairs]]:
    """For each result, for each operand, the axes that correspond.

    `operands` and `results` have shapes. Axes of size one are never paired.
    """
    rule = _RULES.get(name)
    if name in ELEMENTWISE:
        rule = _elementwise
    elif name in _REDUCTIONS:
        rule = _reduction
    if rule is None:
        return [[{} for _ in operands] for _ in results]
    found = rule(params, [tuple(o.shape) for o in operands], [tuple(r.shape) for r in results])
    return [
        [
            {i: o for i, o in pairs.items() if operand.shape[i] == result.shape[o] != 1}
            for pairs, operand in zip(row, operands, strict=True)
        ]
        for row, result in zip(found, results, strict=True)
    ]


Shapes = Sequence[tuple[int, ...]]
_Rule = Callable[[dict, Shapes, Shapes], list[list[Pairs]]]


def _same(rank: int, but: Sequence[int] = ()) -> Pairs:
    return {i: i for i in range(rank) if i not in but}


def _elementwise(_: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    rank = len(results[0])
    return [[_same(rank) if len(o) == rank else {} for o in operands] for _ in results]


def _reduction(p: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    gone = p["axes"]
    kept = [i for i in range(len(operands[0])) if i not in gone]
    return [[dict(zip(kept, range(len(kept)), strict=True))] for _ in results]


def _broadcast(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    places = p["broadcast_dimensions"]
    return [[dict(enumerate(places)), *({} for _ in operands[1:])]]


def _reshape(_: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    """Axes before and after which there are as many elements as in the operand."""

    def places(shape: tuple[int, ...]) -> dict[tuple[int, int], int]:
        before, found = 1, {}
        for axis, size in enumerate(shape):
            if size != 1:
                found[before, size] = axis
            before *= size
        return found

    given, made = places(operands[0]), places(results[0])
    return [[{axis: made[key] for key, axis in given.items() if key in made}]]


def _transpose(p: dict, *_: Any) -> list[list[Pairs]]:
    return [[{i: o for o, i in enumerate(p["permutation"])}]]


def _squeeze(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    rank = len(operands[0])
    gone = {d % rank for d in p["dimensions"]}
    kept = [i for i in range(rank) if i not in gone]
    return [[dict(zip(kept, range(len(kept)), strict=True))]]


def _whole_axes(_: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    """Of a slice or padding: axes that are kept whole."""
    whole = [i for i, (a, b) in enumerate(zip(operands[0], results[0], strict=True)) if a == b]
    return [[{i: i for i in whole}, *({} for _ in operands[1:])]]


def _update(_: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    whole = [i for i, (a, b) in enumerate(zip(operands[1], results[0], strict=True)) if a == b]
    pairs = {i: i for i in whole}
    return [[pairs, pairs, *({} for _ in operands[2:])]]


def _pad(p: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    whole = [i for i, config in enumerate(p["padding_config"]) if config == (0, 0, 0)]
    return [[{i: i for i in whole}, {}]]


def _concatenate(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    pairs = _same(len(operands[0]), (p["dimension"],))
    return [[pairs for _ in operands]]


def _stack(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    pairs = {i: i + (i >= p["axis"]) for i in range(len(operands[0]))}
    return [[pairs for _ in operands]]


def _unstack(p: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    pairs = {i + (i >= p["axis"]): i for i in range(len(operands[0]) - 1)}
    return [[pairs] for _ in results]


def _split(p: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    return [[_same(len(operands[0]), (p["axis"],))] for _ in results]


def _tile(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    return [[{i: i for i in range(len(operands[0])) if p["reps"][i] == 1}]]


def _reverse(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    return [[_same(len(operands[0]), p["dimensions"])]]


def _along(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    return [[_same(len(operands[0]), (p["axis"],))]]


def _sort(p: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    pairs = _same(len(operands[0]), (p["dimension"],))
    return [[pairs for _ in operands] for _ in results]


def _top_k(_: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    return [[_same(len(operands[0]) - 1)] for _ in results]


def _dot(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    (left, right), (left_batch, right_batch) = p["dimension_numbers"]
    places = len(left_batch)
    rows: list[Pairs] = []
    for shape, gone, batch in ((operands[0], left, left_batch), (operands[1], right, right_batch)):
        pairs = {axis: i for i, axis in enumerate(batch)}
        for axis in range(len(shape)):
            if axis not in gone and axis not in batch:
                pairs[axis] = places
                places += 1
        rows.append(pairs)
    return [rows]


def _gather(p: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    rank = len(results[0])
    batch_places = [i for i in range(rank) if i not in numbers.offset_dims]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    windows = [i for i in range(len(operands[0])) if i not in gone]
    operand = {
        axis: place
        for axis, place in zip(windows, numbers.offset_dims, strict=True)
        if axis not in numbers.start_index_map and sizes[axis] == operands[0][axis]
    }
    # the last axis of the indices is the vector of one
    indices = dict(enumerate(batch_places))
    for axis, index_axis in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        operand[axis] = batch_places[index_axis]
    return [[operand, indices]]


def _convolution(p: dict, operands: Shapes, _: Shapes) -> list[list[Pairs]]:
    numbers = p["dimension_numbers"]
    if p["batch_group_count"] != 1:
        return [[{}, {}]]
    batch = {numbers.lhs_spec[0]: numbers.out_spec[0]}
    features = {numbers.rhs_spec[0]: numbers.out_spec[1]}
    return [[batch, features]]


def _called(p: dict, operands: Shapes, results: Shapes) -> list[list[Pairs]]:
    """Of a call, one with a derivative of its own too: the axes that correspond on all ways."""
    inner = (p["call_jaxpr"] if "call_jaxpr" in p else p["jaxpr"]).jaxpr
    columns = [_ways(inner, source, len(shape)) for source, shape in enumerate(operands)]
    return [[column[i] for column in columns] for i in range(len(results))]


def _ways(jaxpr: Any, source: int, rank: int) -> list[Pairs]:
    """For each result of `jaxpr`, the axes of input number `source` that it has."""
    known: dict[Any, Pairs] = {jaxpr.invars[source]: _same(rank)}
    for eqn in jaxpr.eqns:
        given = [None if hasattr(atom, "val") else known.get(atom) for atom in eqn.invars]
        if all(pairs is None for pairs in given):
            continue
        operands, outs = [v.aval for v in eqn.invars], [v.aval for v in eqn.outvars]
        rows = pairs_of(eqn.primitive.name, eqn.params, operands, outs)
        for var, row in zip(eqn.outvars, rows, strict=True):
            found = [
                {axis: step[at] for axis, at in pairs.items() if at in step}
                for pairs, step in zip(given, row, strict=True)
                if pairs is not None
            ]
            known[var] = dict(set.intersection(*(set(pairs.items()) for pairs in found)))
    return [{} if hasattr(v, "val") else known.get(v, {}) for v in jaxpr.outvars]


def _row(_: dict, operands: Shapes, __: Shapes) -> list[list[Pairs]]:
    return [[{i + 1: i for i in range(len(operands[0]) - 1)}]]


def _rows(_: dict, operands: Shapes, __: Shapes) -> list[list[Pairs]]:
    pairs = {i: i + 1 for i in range(len(operands[0]))}
    return [[pairs for _ in operands]]


_RULES: dict[str, _Rule] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "slice": _whole_axes,
    "dynamic_slice": _whole_axes,
    "dynamic_update_slice": _update,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "split": _split,
    "tile": _tile,
    "rev": _reverse,
    "sort": _sort,
    "top_k": _top_k,
    "dot_general": _dot,
    "gather": _gather,
    "conv_general_dilated": _convolution,
    **dict.fromkeys(("jit", "pjit", "custom_jvp_call", "custom_vjp_call"), _called),
    "row": _row,
    "rows": _rows,
    **dict.fromkeys(_ALONG, _along),
}
