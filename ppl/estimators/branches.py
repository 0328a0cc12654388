"""Branches: what differs between them is made alike, and one is taken, or all for their lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .blocks import Results, Scope, State, results
from .flow import Symbol
from .lanes import Value, along, filled, union
from .nodes import BranchNode
from .scores import Score, with_array


def branch(node: BranchNode, through: bool, state: State, scope: Scope) -> None:
    """Run the branches of `node`; `through` says that parts of its results are needed as such.

    Where outcomes of the index are computed side by side, so are all branches, as in `vmap`.
    """
    index = state.number(node.inputs[0])
    wants = [
        (number or (part and not through), part and through)
        for number, part in state.plan.wants(node.outputs)
    ]

    def body(i: int) -> Callable[[], Results]:
        graph = node.branches[i]
        numbers, parts = state.hand(graph.inputs, node.inputs[1:])

        def taken() -> Results:
            inner = Scope(scope)
            found = state.plan.run(graph, numbers, parts, inner, state.plan)
            return results(found, graph.outputs, wants, inner)

        return taken

    bodies = [body(i) for i in range(len(node.branches))]
    shapes = [jax.eval_shape(taken) for taken in bodies]
    alike = [lambda taken=taken: _alike(taken(), shapes) for taken in bodies]
    if index.lanes:
        found = _selected(index, [taken() for taken in alike])
    else:
        found = lax.switch(index.array, alike)
    found.take(node.outputs, state, scope)


def _alike(found: Results, shapes: Sequence[Results]) -> Results:
    """The results of one branch with the lanes, scores and controls that all branches have."""
    numbers = []
    for value, *same in zip(found.numbers, *(shape.numbers for shape in shapes), strict=True):
        numbers.append(None if value is None else filled(value, union(same)))
    scores: dict[Symbol, Score] = {}
    controls: dict[int, Any] = {}
    for shape in shapes:
        for symbol, score in shape.scores.items():
            scores[symbol] = found.scores.get(symbol) or _idle(score)
        for draw, amount in shape.controls.items():
            controls[draw] = found.controls.get(draw, jnp.zeros(amount.shape, amount.dtype))
    return Results(numbers, found.parts, scores, controls)


def _idle(score: Score) -> Score:
    """The score of a draw that is not made: one outcome, without a score."""
    idle = score.idle
    if idle is not None:
        return jax.tree.map(lambda x: jnp.full(x.shape, idle, x.dtype), score)
    assert score.own is not None
    like = score.array.array
    place = score.array.lanes.index(score.own)
    first = (jnp.arange(score.own.size) == 0).astype(like.dtype)
    first = jnp.expand_dims(first, [i for i in range(len(like.shape)) if i != place])
    return with_array(score, jnp.broadcast_to(first, like.shape))


def _selected(index: Value, each: Sequence[Results]) -> Results:
    """For each outcome of the index, the results of the branch that it takes."""

    def choose(*options: Value) -> Value:
        def pick(i: Any, *arrays: Any) -> Any:
            out = arrays[-1]
            for k in reversed(range(len(arrays) - 1)):
                out = jnp.where(i <= k, arrays[k], out)
            return out

        return along(pick, index, *options)

    numbers = [
        None if same[0] is None else choose(*same)
        for same in zip(*(found.numbers for found in each), strict=True)
    ]
    scores = {}
    for symbol, score in each[0].scores.items():
        same = [found.scores[symbol] for found in each]
        log = None if score.log is None else choose(*(one.log for one in same))  # type: ignore[arg-type]
        scores[symbol] = replace(score, array=choose(*(one.array for one in same)), log=log)
    controls = {draw: sum(found.controls[draw] for found in each) for draw in each[0].controls}
    return Results(numbers, each[0].parts, scores, controls)
