"""Steps whose finite choices are summed out: the state holds their values with probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, errors
from ppl.program import Path

from ..smc.step_models import check_pair, check_structure
from .finite_latents import FiniteLatents, Stack, reads_of, table_of
from .symbolic import run

_BEFORE = ()  # the label of what the state before makes, which is no address


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Enumerated:
    """A state of which some leaves have finitely many values: the i-th with e^log_probs[i].

    Attributes:
      state: as of the model; leaves that depend on what is summed out have their values on an
        axis of length K in front.
      log_probs: shape (K,).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Enumerated, rao_blackwell
    >>> from ppl import gen, sample
    >>> @gen
    ... def weather(rain, _):
    ...     rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, 0.75, 0.25)))
    ...     sample("wet", dist.Bernoulli(jnp.where(rain == 1, 1.0, 0.5)))
    ...     return rain, None
    >>> step, start = rao_blackwell(weather, "rain", 1)
    >>> trace, _ = step.generate({"wet": 1}, start, None)
    >>> today: Enumerated = trace.retval[0]
    >>> dry, wet = jnp.exp(today.log_probs)
    >>> print(today.state, f"{dry:.4f} {wet:.4f}")  # 1/8 to 3/4
    [0 1] 0.1429 0.8571
    """

    state: Any
    log_probs: jax.Array


def enumerated(
    model: GenerativeFunction, summed: tuple[Path, ...], init: Any, x: Any
) -> tuple[GenerativeFunction, Enumerated]:
    """The step with these finite choices summed out, and the state before the first step."""
    leaves, tree = jax.tree.flatten(init)
    stacked, kept = _depends(model, summed, init, x)
    sites = model.sites(init, x)
    size = math.prod(len(table_of(sites[path])) for path in kept)
    rows = [
        jnp.broadcast_to(jnp.asarray(leaf), (size, *jnp.shape(leaf))) if s else leaf
        for leaf, s in zip(leaves, stacked, strict=True)
    ]
    fn = _Forward(model, summed, stacked, kept)
    step = GenerativeFunction(fn, model.fixed, f"rao_blackwell({model.name})")
    start = Enumerated(jax.tree.unflatten(tree, rows), jnp.full(size, -math.log(size)))
    step.sites(start, x)  # what is refused is refused here
    return step, start


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model"],
    meta_fields=["summed", "stacked", "kept"],
)
@dataclass(frozen=True, eq=False)
class _Forward:
    """A step of the forward algorithm. Outcomes are those of the state before, and of all summed
    choices, a grid in that order; `kept` choices are those that the next state depends on."""

    model: GenerativeFunction
    summed: tuple[Path, ...]
    stacked: tuple[bool, ...]
    kept: tuple[Path, ...]

    def __call__(self, before: Enumerated, x: Any) -> tuple[Enumerated, Any]:
        leaves, tree = jax.tree.flatten(before.state)
        pairs = list(zip(leaves, self.stacked, strict=True))
        one = jax.tree.unflatten(tree, [leaf[0] if s else leaf for leaf, s in pairs])
        prepared = self.model._prepare((one, x), {})
        tables = {path: table_of(prepared.sites[path]) for path in self.summed}
        size = math.prod(len(tables[path]) for path in self.kept)
        if jnp.shape(before.log_probs) != (size,):
            raise errors.ShapeError(
                "The probabilities of a state are not as many as its values.",
                where=(errors.defined(self.model.fn), errors.caller()),
                given=f"shape {jnp.shape(before.log_probs)}",
                expected=f"shape {(size,)}",
                fix="step, start = rao_blackwell(model, summed, init), and replace log_probs",
            )
        grid = (size, *map(len, tables.values()))
        first, *digits = np.indices(grid).reshape(len(grid), -1)
        places = {
            path: jnp.asarray(table)[i]
            for (path, table), i in zip(tables.items(), digits, strict=True)
        }
        law = before.log_probs[first] - sum(math.log(n) for n in grid[1:])
        operands: list = list(prepared.operands)
        at = len(operands) - len(prepared.arguments.leaves)
        for i, (leaf, s) in enumerate(pairs):
            if s:
                operands[at + i] = Stack(leaf[first])
        counts = {path: len(table) for path, table in tables.items()}
        algebra = FiniteLatents(places, prepared.sites, counts)
        outs, law = run(prepared.staged.program, operands, law, algebra)
        new, y = prepared.staged.rebuild(outs)
        gone = [i for i, path in enumerate((None, *tables)) if path not in self.kept]
        # the forward recursion: probabilities of what the next state depends on
        law = jax.nn.logsumexp(law.reshape(grid), tuple(gone)).reshape(-1)
        same = tuple(0 if i in gone else slice(None) for i in range(len(grid)))

        def values(leaf: Any, s: bool) -> Any:
            """One of each that are alike."""
            if not isinstance(leaf, Stack):
                return jnp.broadcast_to(leaf, (size, *jnp.shape(leaf))) if s else leaf
            shape = leaf.at.shape[1:]
            return leaf.at.reshape(*grid, *shape)[same].reshape(size, *shape)

        after = jax.tree.leaves(new, is_leaf=lambda leaf: isinstance(leaf, Stack))
        rows = [values(leaf, s) for leaf, s in zip(after, self.stacked, strict=True)]
        return Enumerated(jax.tree.unflatten(tree, rows), law), y


@dataclass(frozen=True)
class _Result:
    """A leaf of a step's result: what it is made from."""

    label: frozenset


def _depends(
    model: GenerativeFunction, summed: tuple[Path, ...], state: Any, x: Any
) -> tuple[tuple[bool, ...], tuple[Path, ...]]:
    """Which leaves of the state depend on summed choices, and on which of a step's own."""
    prepared = model._prepare((state, x), {})
    leaves = jax.tree.leaves(state)
    at = len(prepared.operands) - len(prepared.arguments.leaves)
    labels: list[frozenset] = [frozenset()] * len(prepared.operands)
    where = (errors.defined(model.fn), errors.caller())
    names = "; ".join(map(errors.show, summed))
    while True:
        found = reads_of(prepared.staged.program, labels, frozenset(summed))
        result: Any = prepared.staged.rebuild([_Result(label) for label in found])
        check_result(result, state, model)
        made = [getattr(leaf, "label", frozenset()) for leaf in jax.tree.leaves(result[0])]
        grown = [frozenset({_BEFORE}) if label else frozenset() for label in made]
        if grown == labels[at : at + len(leaves)]:
            break
        labels[at : at + len(leaves)] = grown
    paths = jax.tree.leaves_with_path(result)
    for path, leaf in paths:
        label = getattr(leaf, "label", frozenset())
        first, *rest = path
        name = ("the next state", "y")[first.idx] + jax.tree_util.keystr(tuple(rest))
        if (first.idx == 0 and _BEFORE in label) or (first.idx == 1 and label):
            raise errors.InvalidArgument(
                f"A step returns what its state cannot hold once {names} is summed out.",
                where=where,
                given=f"{name}, which depends on "
                + ("that of the step before" if _BEFORE in label else "it"),
                expected="a state that depends on the step's own summed choices, and a y that "
                "depends on none",
                fix="make the next state by one choice, whose probabilities depend on the last",
            )
    kept = frozenset().union(*made)
    return tuple(bool(label) for label in made), tuple(p for p in summed if p in kept)


def check_result(result: Any, state: Any, model: GenerativeFunction) -> None:
    """Raise unless a step returns a state like the one it was given, and something beside it."""
    check_pair(result, model)
    check_structure(result[0], state, model)
