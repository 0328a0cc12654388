"""A step of a model from a state that is not known, but has a law.

It is what one step of a loop is to `elimination`: leaves of the state are symbols, and so are
those of the next state, with the law of what they depend on. A belief is that law, packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction
from ppl.program import Path

from ..smc.step_models import check_pair, check_structure
from .elimination import Sums, fixed_form, run
from .reads import reads_of

NAME = ("", "state")
"""Names what the state depends on: no address of a choice has an empty part."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """A value that a step returns, which may be a symbol."""

    value: Any


def taken(
    model: GenerativeFunction,
    state: Any,
    x: Any,
    packed: Any,
    form: Any,
    kind: Callable[[dict], Sums],
) -> tuple[Any, Any, Sums]:
    """What a step returns, of `Leaf`s, and the law of what is summed out given all it made.

    Args:
      state: of arrays that are like the values.
      packed, form: the values of the state and the law of what they depend on.
      kind: the sums over a program with these choices.

    Raises:
      InvalidArgument: the step returns no pair, or a state of another structure.
    """
    prepared = model._prepare((state, x), {})
    sums, program = kind(prepared.sites), prepared.staged.program
    values, law = sums.unpack(packed, form)
    operands = list(prepared.operands)
    at = len(operands) - len(prepared.arguments.leaves)
    operands[at : at + len(values)] = values
    outs, law = run(program, operands, law, sums, {})
    result = prepared.staged.rebuild([Leaf(out) for out in outs])
    check_pair(result, model)
    check_structure(result[0], state, model)
    return result, law, sums


def remembered(
    model: GenerativeFunction, state: Any, x: Any, summed: tuple[Path, ...]
) -> frozenset[Path]:
    """The summed choices that the next state is made from."""
    prepared = model._prepare((state, x), {})
    nothing: list[frozenset] = [frozenset()] * len(prepared.operands)
    found = reads_of(prepared.staged.program, nothing, frozenset(summed))
    result: Any = prepared.staged.rebuild([Leaf(labels) for labels in found])
    check_pair(result, model)
    leaves = [leaf.value for leaf in jax.tree.leaves(result[0]) if isinstance(leaf, Leaf)]
    return frozenset().union(*leaves)


def form_of_state(form: Any, step: Callable[[Any], Any]) -> Any:
    """As `elimination.fixed_form`, where `step` is gone through for its shapes alone."""

    def after(form: Any) -> Any:
        found: list = []

        def look() -> int:
            found.append(step(form))
            return 0

        jax.eval_shape(look)
        return found[0]

    return fixed_form(form, after)


def values_of(tree: Any) -> list:
    """The values of the leaves."""
    return [leaf.value if isinstance(leaf, Leaf) else leaf for leaf in jax.tree.leaves(tree)]


def named(result: tuple[Any, Any]) -> Iterator[tuple[str, Any]]:
    """What a step returns, each value with its name."""
    paths = [path for path, _ in jax.tree.leaves_with_path(result)]
    for (first, *rest), value in zip(paths, values_of(result), strict=True):
        yield ("the next state", "y")[first.idx] + jax.tree_util.keystr(tuple(rest)), value


def avals_of(values: Iterable[Any]) -> list[jax.ShapeDtypeStruct]:
    """The shapes and dtypes of values."""
    return [jax.ShapeDtypeStruct(jnp.shape(value), jnp.result_type(value)) for value in values]
