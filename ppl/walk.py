"""One walk over a staged program; every interpreter is a rule for its effects.

`walk` runs the steps of a program in order. What happens at a draw, a choice or
a factor is the rule's; how that goes through loops, branches, maps, `checkpoint`
and custom derivatives is decided here once: per-address inputs are sliced along
the axes of the loops, per-address outputs are stacked, sums are added up (however long
a loop, to the last digit), and what a branch not taken would have put out is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from . import arithmetic, errors, summation
from .after_loops import Halves, copies, halves
from .effects import CUSTOM, guard
from .program import (
    Branch,
    Choice,
    Custom,
    Draw,
    Factor,
    Loop,
    Map,
    Path,
    Program,
    Remat,
    Step,
    While,
)

Tree = dict[Path, Any]
Result = tuple[list, dict[str, Tree], dict[str, Any]]


class Rule:
    """What an interpreter does at the effects it handles. Final classes implement
    `visit`; the rest has defaults.

    Attributes:
      handles: the effects that this rule interprets; others are left in place.
      sums: names of the scalars that it adds up.
    """

    handles: frozenset[str] = frozenset()
    sums: tuple[str, ...] = ()

    def enter(self, program: Program, inputs: Any) -> Any:
        """Called once per execution of a block; may derive the inputs of its steps."""
        return inputs

    def inside(self, step: Step, inputs: Any) -> Any:
        """The part of the inputs that goes into a construct, its own axis in front."""
        return {path: inputs[path] for path in step.paths if path in inputs}

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        """Values of the step's outputs, per-address outputs, contributions to sums."""
        raise NotImplementedError

    def into_branch(self, step: Branch, i: int, inner: Any) -> Any:
        """The part of a construct's inputs that goes into branch `i`."""
        paths = step.branches[i].paths
        return {path: leaf for path, leaf in inner.items() if path in paths}

    def absent(self, step: Branch, i: int, inner: Any) -> dict[str, Any]:
        """Contribution to the sums, when branch `i` is taken, of what it does not have."""
        return {}

    def waits(self, step: Step, inputs: Any) -> bool:
        """Whether a step in a loop may be visited after the loop, for all iterations at once:
        its values are given with the axis of the loop, and it is visited for the sums alone."""
        return False

    def while_loop(self, step: While, args: list, inputs: Any) -> Result:
        raise errors.UnsupportedControlFlow(
            "This interpreter cannot go through a `while_loop` of unknown length.",
            where=step.source,
            expected="scan, or fori_loop of static length",
            fix="bound the loop: lax.scan with a flag that says which steps count",
        )


def add(total: dict, more: dict) -> dict:
    """Sum of two dicts of scalars; a missing name is zero.

    What two names share (all that is scored is weighed, say) is added up once.
    """
    joined = dict(total)
    done: dict[tuple[int, int], Any] = {}
    for name, value in more.items():
        if name in total:
            pair = id(total[name]), id(value)
            if pair not in done:
                done[pair] = arithmetic.add(total[name], value)
            joined[name] = done[pair]
        else:
            joined[name] = value
    return joined


def zero() -> jax.Array:
    """The zero of scores and weights."""
    return jnp.zeros((), jnp.result_type(float))


def scalar(value: Any) -> Any:
    """A contribution in the dtype of scores, summed over its axes."""
    total = value.sum() if jnp.ndim(value) else value
    dtype = jax.dtypes.canonicalize_dtype(float)
    return total if jax.typeof(total).dtype == dtype else lax.convert_element_type(total, dtype)


def walk(program: Program, operands: Sequence[Any], rule: Rule, inputs: Any) -> Result:
    """Run `program` on `operands` under `rule`.

    Returns its outputs, the per-address outputs (by kind, then path), and sums.
    """
    env: dict[int, Any] = dict(program.constants)
    env.update(zip(program.inputs, operands, strict=True))
    inputs = rule.enter(program, inputs)
    found: dict[str, Tree] = {}
    sums: dict[str, Any] = {}
    for step in program.steps:
        args = [env[i] for i in step.inputs]
        if not step.effects & rule.handles:
            outs = step.evaluate(*args)
        elif isinstance(step, (Draw, Choice, Factor)):
            outs, more, amounts = rule.visit(step, args, inputs)
            merge(found, more)
            sums = add(sums, amounts)
        else:
            outs, more, amounts = construct(step, args, rule, inputs)
            merge(found, more)
            sums = add(sums, amounts)
        env.update(zip(step.outputs, outs, strict=True))
    return [env[i] for i in program.outputs], found, sums


def merge(found: dict[str, Tree], more: dict[str, Tree]) -> None:
    for kind, tree in more.items():
        found.setdefault(kind, {}).update(tree)


def construct(step: Step, args: list, rule: Rule, inputs: Any) -> Result:
    """Walk through one construct."""
    inner = rule.inside(step, inputs)
    if isinstance(step, Loop):
        return _loop(step, args, rule, inner)
    if isinstance(step, Map):
        return _map(step, args, rule, inner)
    if isinstance(step, Branch):
        return _branch(step, args, rule, inner)
    if isinstance(step, While):
        return rule.while_loop(step, args, inner)
    if isinstance(step, Remat):
        run = jax.checkpoint(
            lambda ops, sub: walk(step.body, ops, rule, sub),
            policy=step.policy,
            prevent_cse=step.prevent_cse,
        )
        return run(args, inner)
    assert isinstance(step, Custom)
    outs, found, sums = walk(step.body, args, rule, inner)

    def protect(x):
        return guard(x, step.source, CUSTOM)

    return [protect(o) for o in outs], found, {k: protect(v) for k, v in sums.items()}


def _loop(step: Loop, args: list, rule: Rule, inner: Any) -> Result:
    split = step.constants + step.carries
    constants, init, xs = args[: step.constants], args[step.constants : split], args[split:]
    if step.first == 1:  # no loop
        x, sub = jax.tree.map(lambda leaf: leaf[0], (list(xs), inner))
        outs, _, sums = walk(step.body, [*constants, *init, *x], rule, sub)
        return outs[: step.carries], {}, sums
    if step.first is not None:
        xs, inner = jax.tree.map(lambda leaf: leaf[: step.first], (xs, inner))

    length = step.length if step.first is None else step.first
    two = None
    if step.first is None and length:
        two = halves(
            step.body,
            length * copies([jnp.asarray(x) for x in (*constants, *init, *xs)]),
            frozenset(step.body.inputs[: step.constants]),
            frozenset(step.body.inputs[split:]),
            lambda each: rule.waits(each, inner),
        )
    if two is not None and not two.ordered:
        return _without_order(step, two, constants, init, xs, rule, inner)
    program = step.body if two is None else two.first

    def body(state, slices):
        carry, totals = state
        x, sub = slices
        outs, found, sums = walk(program, [*constants, *carry, *x], rule, sub)
        more = {n: summation.plus(t, sums[n]) if n in sums else t for n, t in totals.items()}
        return (outs[: step.carries], more), (outs[step.carries :], found)

    totals = {name: summation.nothing(zero()) for name in rule.sums}
    (carry, totals), (ys, found) = lax.scan(
        body,
        (list(init), totals),
        (list(xs), inner),
        length=length,
        reverse=step.reverse,
        unroll=step.unroll,
    )
    sums = {name: total.value for name, total in totals.items()}
    if two is not None:
        ys, stacked = ys[: len(ys) - len(two.stacked)], ys[len(ys) - len(two.stacked) :]
        of = dict(zip(two.stacked, stacked, strict=True))
        of |= dict(zip(step.body.inputs[split:], xs, strict=True))
        fixed = dict(zip(step.body.inputs[: step.constants], constants, strict=True))
        more, late = _at_once(two.second, fixed, of, length, rule, inner)
        merge(found, more)
        sums = add(sums, late)
    return [*carry, *ys], found if step.first is None else {}, sums


def _without_order(
    step: Loop, two: Halves, constants: list, init: list, xs: list, rule: Rule, inner: Any
) -> Result:
    """A loop whose first half only hands values on: each goes one iteration further."""
    split = step.constants + step.carries
    carried, slices = step.body.inputs[step.constants : split], step.body.inputs[split:]
    fixed = dict(zip(step.body.inputs[: step.constants], constants, strict=True))
    made = tuple(sorted({*two.first.outputs} - {*carried, *slices, *fixed}))

    def values(sub: Any) -> Result:
        return walk(replace(two.first, inputs=(), outputs=made), [], rule, sub)

    of_first = {path: inner[path] for path in two.first.paths if path in inner}
    outs, found, _ = jax.vmap(values, axis_size=step.length)(of_first)
    stacked = {**dict(zip(slices, xs, strict=True)), **dict(zip(made, outs, strict=True))}

    def all_along(slot: Any) -> jax.Array:
        """The values of a slot in all iterations."""
        if slot in carried and slot not in stacked:
            i = carried.index(slot)
            first, after = jnp.asarray(init[i]), two.first.outputs[i]
            if after == slot:
                stacked[slot] = jnp.broadcast_to(first, (step.length, *first.shape))
            elif step.reverse:
                stacked[slot] = jnp.concatenate([all_along(after)[1:], first[None]])
            else:
                stacked[slot] = jnp.concatenate([first[None], all_along(after)[:-1]])
        if slot in fixed:
            return jnp.broadcast_to(fixed[slot], (step.length, *jnp.shape(fixed[slot])))
        return stacked[slot]

    last = 0 if step.reverse else -1
    carry = [all_along(slot)[last] for slot in two.first.outputs[: step.carries]]
    ys = [all_along(slot) for slot in step.body.outputs[step.carries :]]
    of = {slot: all_along(slot) for slot in two.second.inputs if slot not in fixed}
    more, sums = _at_once(two.second, fixed, of, step.length, rule, inner)
    merge(found, more)
    return [*carry, *ys], found, sums


def _at_once(
    program: Program, fixed: dict, stacked: dict, length: int, rule: Rule, inner: Any
) -> tuple[dict[str, Tree], dict[str, Any]]:
    """What the second half of a loop puts out and adds up, over all iterations."""
    operands = [fixed[slot] if slot in fixed else stacked[slot] for slot in program.inputs]
    run = jax.vmap(
        lambda ops, sub: walk(program, ops, rule, sub)[1:],
        in_axes=([None if slot in fixed else 0 for slot in program.inputs], 0),
        axis_size=length,
    )
    inner = {path: inner[path] for path in program.paths if path in inner}
    found, sums = run(operands, inner)
    return found, {name: summation.total(terms) for name, terms in sums.items()}


def _map(step: Map, args: list, rule: Rule, inner: Any) -> Result:
    run = jax.vmap(
        lambda ops, sub: walk(step.body, ops, rule, sub),
        in_axes=(list(step.in_axes), 0),
        axis_size=step.size,
        axis_name=step.axis_name,
    )
    outs, found, sums = run(args, inner)
    return outs, found, {name: value.sum(0) for name, value in sums.items()}


def _branch(step: Branch, args: list, rule: Rule, inner: Any) -> Result:
    index, operands = args[0], args[1:]

    def taken(i: int, branch: Program):
        def run(operands, inner):
            outs, found, sums = walk(branch, operands, rule, rule.into_branch(step, i, inner))
            sums = add(sums, rule.absent(step, i, inner))
            return outs, found, {name: zero() + sums.get(name, 0) for name in rule.sums}

        return run

    runs = [taken(i, branch) for i, branch in enumerate(step.branches)]
    if not isinstance(index, jax.core.Tracer):
        shapes = [jax.eval_shape(run, operands, inner)[1] for run in runs]
        chosen = min(max(int(index), 0), len(runs) - 1)
        outs, found, sums = runs[chosen](operands, inner)
        return outs, _fill(found, shapes), sums
    shapes = [jax.eval_shape(run, operands, inner)[1] for run in runs]

    def padded(run):
        def filled(operands, inner):
            outs, found, sums = run(operands, inner)
            return [jnp.asarray(o) for o in outs], _fill(found, shapes), sums

        return filled

    return lax.switch(index, [padded(run) for run in runs], operands, inner)


def _fill(found: dict[str, Tree], shapes: list[dict[str, Tree]]) -> dict[str, Tree]:
    """`found` with zeros wherever only another branch puts something out."""
    full: dict[str, Tree] = {kind: dict(tree) for kind, tree in found.items()}
    for shape in shapes:
        for kind, tree in shape.items():
            mine = full.setdefault(kind, {})
            for path, leaf in tree.items():
                if path not in mine:
                    mine[path] = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), leaf)
    return full
