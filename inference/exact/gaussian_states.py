"""What a loop or a branch hands on of Gaussian choices, and copies of a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl.program import Choice, Map, Pure

from . import picked, process_steps
from .linear import Bent, Block, GaussianLaw, Linear, Picked, places, spread
from .reads import aval_of
from .refused import refused


@dataclass(frozen=True)
class Form:
    """How values and the law of what they depend on are packed.

    Attributes:
      name: of the loop or branch.
      linear: which of the values are affine in what is summed out.
      bent: values that nothing may use, with why.
      outer: blocks of outside that are kept.
      avals: of all values.
    """

    name: tuple
    linear: tuple[int, ...]
    bent: tuple[tuple[int, str], ...]
    outer: tuple[Block, ...]
    avals: tuple[tuple[tuple[int, ...], Any], ...]

    def merged(self, other: Form) -> Form:
        """The smallest form that holds what either holds."""
        bent = dict((*self.bent, *other.bent))
        linear = sorted({*self.linear, *other.linear} - bent.keys())
        outer = tuple(dict.fromkeys((*self.outer, *other.outer)))
        return replace(self, linear=tuple(linear), bent=tuple(sorted(bent.items())), outer=outer)

    def size(self, i: int) -> int:
        count = 1
        for n in self.avals[i][0]:
            count *= n
        return count


def form(law: Any, values: list, avals: list, outside: frozenset, name: tuple) -> Form:
    shapes = tuple((tuple(a.shape), a.dtype) for a in avals)
    linear = tuple(i for i, v in enumerate(values) if isinstance(v, Linear))
    bent = tuple((i, v.why) for i, v in enumerate(values) if isinstance(v, Bent))
    return Form(name, linear, bent, tuple(b for b in law.blocks if b in outside), shapes)


def pack(law: Any, values: list, form: Form) -> Any:
    """The state's part of the law, and the values' means, given what was made.

    Where nothing is simulated the state is measured from its mean, so that nothing grows but
    what the state itself does.
    """
    bent = dict(form.bent)
    kept = places(law.blocks, form.outer)
    dtype, n = law.mean.dtype, law.mean.size
    rows = [jnp.eye(n, dtype=dtype)[kept]]
    leaves = []
    for i, value in enumerate(values):
        shape, kind = form.avals[i]
        if i in bent:
            leaves.append(jnp.zeros(shape, kind))
            continue
        at = value.at if isinstance(value, (Linear, Bent)) else value
        at = jnp.broadcast_to(jnp.asarray(at, kind), shape)
        if i in form.linear:
            by = jnp.zeros((form.size(i), n), dtype)
            if isinstance(value, Linear):
                by = spread(value.by, value.blocks, law.blocks).reshape(-1, n).astype(dtype)
            rows.append(by)
            if law.simulated is None:
                at = at + (by @ law.mean).reshape(shape).astype(kind)
        leaves.append(at)
    onto = jnp.concatenate(rows)
    mean = onto @ law.mean
    if law.simulated is None:
        mean = mean.at[len(kept) :].set(0.0)
    simulated = None if law.simulated is None else onto @ law.simulated
    return mean, onto @ law.covariance @ onto.T, law.evidence, simulated, leaves


def unpack(packed: Any, form: Form) -> tuple[list, GaussianLaw]:
    mean, covariance, evidence, simulated, leaves = packed
    bent = dict(form.bent)
    size = sum(form.size(i) for i in form.linear)
    state = Block(form.name, size)
    blocks = (*form.outer, state) if form.linear else form.outer
    values: list[Any] = []
    at = 0
    for i, leaf in enumerate(leaves):
        if i in bent:
            values.append(Bent(leaf, bent[i]))
        elif i in form.linear:
            count = form.size(i)
            by = jnp.eye(size, dtype=leaf.dtype)[at : at + count]
            values.append(Linear(leaf, by.reshape(*leaf.shape, size), (state,)))
            at += count
        else:
            values.append(leaf)
    return values, GaussianLaw(blocks, mean, covariance, evidence, simulated)


def each(
    sums: Any, step: Map, args: list, law: Any, inputs: Any, outside: frozenset, run: Callable
) -> tuple[list, Any]:
    """Copies of a program: side by side if they have nothing of what is summed out in common."""
    if any(isinstance(value, Bent) for value in args):
        why = next(value.why for value in args if isinstance(value, Bent))
        raise refused(step, sums, f"a vmap of what is not affine in it, but made by `{why}`")
    if any(isinstance(value, (Linear, Picked)) for value in args):
        if all(isinstance(inner, (Pure, Choice)) for inner in step.body.steps):
            return _all_together(sums, step, args, law, inputs)
        alone = replace(law, processes=())
        outs, after = _one_by_one(sums, step, args, alone, inputs, outside, run)
        return outs, replace(after, processes=law.processes)
    static: list = []

    def one(operands: list, sub: Any) -> tuple[list, Any]:
        before = replace(sums.nothing(), evidence=jnp.zeros_like(law.evidence))
        outs, after = run(step.body, operands, before, sums, sub, frozenset())
        outs, after = sums.settled(f"the end of a vmap at {step.source}", outs, after)
        after = sums.forget(after, outs, frozenset())
        static[:] = [v if not isinstance(v, Linear) else replace(v, at=None, by=None) for v in outs]
        bare = [v.at if isinstance(v, Bent) else v for v in outs]
        parts = [(v.at, v.by) if isinstance(v, Linear) else v for v in bare]
        return parts, after

    copies = jax.vmap(one, (list(step.in_axes), 0), axis_size=step.size, axis_name=step.axis_name)
    parts, after = copies(args, inputs)
    blocks = {b: b._replace(size=step.size * b.size) for b in after.blocks}
    outs = [_outer(part, like, blocks) for part, like in zip(parts, static, strict=True)]
    inner = replace(
        after,
        blocks=tuple(blocks.values()),
        mean=_flat(after.mean, after.blocks),
        covariance=_diagonal(after.covariance, after.blocks),
        evidence=jnp.sum(after.evidence),
        simulated=None if after.simulated is None else _flat(after.simulated, after.blocks),
    )
    return outs, sums.both(inner, law)


def _parts(x: jax.Array, blocks: tuple[Block, ...], axis: int) -> list[jax.Array]:
    ends, found = 0, []
    for block in blocks:
        found.append(jax.lax.slice_in_dim(x, ends, ends + block.size, axis=axis))
        ends += block.size
    return found


def _flat(x: jax.Array, blocks: tuple[Block, ...]) -> jax.Array:
    """Numbers of all copies (n, size), each block's together."""
    parts = [part.reshape(-1) for part in _parts(x, blocks, 1)]
    return jnp.concatenate(parts) if parts else jnp.zeros((0,), x.dtype)


def _diagonal(x: jax.Array, blocks: tuple[Block, ...]) -> jax.Array:
    """The covariance of all copies (n, size, size), which are independent."""
    n, size = x.shape[0], x.shape[1]
    full = jnp.zeros((n, size, n, size), x.dtype)
    full = full.at[jnp.arange(n), :, jnp.arange(n), :].set(x)
    order = jnp.asarray(_order(n, blocks), int)
    return full.reshape(n * size, n * size)[order][:, order]


def _order(n: int, blocks: tuple[Block, ...]) -> list[int]:
    size, start, order = sum(b.size for b in blocks), 0, []
    for block in blocks:
        order += [i * size + start + j for i in range(n) for j in range(block.size)]
        start += block.size
    return order


def _outer(part: Any, like: Any, blocks: dict) -> Any:
    """A value of all copies, of which each depends on its own part of the blocks."""
    if isinstance(like, Bent):
        return Bent(part, like.why)
    if not isinstance(like, Linear):
        return part
    at, by = part
    n = len(at)
    columns = []
    for block, each_ in zip(like.blocks, _parts(by, like.blocks, by.ndim - 1), strict=True):
        full = jnp.zeros((*each_.shape[:-1], n, block.size), by.dtype)
        full = full.at[jnp.arange(n), ..., jnp.arange(n), :].set(each_)
        columns.append(full.reshape(*each_.shape[:-1], n * block.size))
    return Linear(at, jnp.concatenate(columns, -1), tuple(blocks[b] for b in like.blocks))


def _all_together(sums: Any, step: Map, args: list, law: Any, inputs: Any) -> tuple[list, Any]:
    """The choices of all copies, each as one array."""
    body = step.body
    env: dict[int, tuple[Any, bool]] = {slot: (v, False) for slot, v in body.constants.items()}
    for slot, value, axis in zip(body.inputs, args, step.in_axes, strict=True):
        env[slot] = (_to_front(value, axis), axis is not None)
    for inner in body.steps:
        given = [env[slot] for slot in inner.inputs]
        values, mapped = [v for v, _ in given], [m for _, m in given]
        copies = (step.size, tuple(mapped))
        if isinstance(inner, Pure):
            f = jax.vmap(lambda *xs, e=inner.evaluate: e(*xs), [0 if m else None for m in mapped],
                         axis_size=step.size) if any(mapped) else inner.evaluate  # fmt: skip
            avals = [_stacked(aval_of(body, slot), step.size if m else None)
                     for slot, m in zip(inner.inputs, mapped, strict=True)]  # fmt: skip
            keeps = partial(picked.keeps, f, avals)
            values, law = process_steps.fitting(sums, keeps, inner.source, values, law)
            outs = sums.through(f, avals, values)
            env.update((slot, (out, any(mapped)))
                       for slot, out in zip(inner.outputs, outs, strict=True))  # fmt: skip
        else:
            assert isinstance(inner, Choice)
            keeps = partial(process_steps.is_kept, sums, inner, copies)
            values, law = process_steps.fitting(sums, keeps, inner.source, values, law)
            value, law = sums.choice(inner, values, law, inputs.get(inner.path), copies)
            env[inner.outputs[0]] = (value, True)
    outs = []
    for slot in body.outputs:
        value, mapped = env[slot]
        outs.append(value if mapped else _repeated(value, step.size))
    return outs, law


def _to_front(value: Any, axis: int | None) -> Any:
    if axis is None:
        return value
    if isinstance(value, Linear):
        moved = [jnp.moveaxis(x, axis, 0) for x in (value.at, value.by)]
        return Linear(moved[0], moved[1], value.blocks)
    if isinstance(value, Picked):
        at, by, rows = (jnp.moveaxis(x, axis, 0) for x in (value.at, value.by, value.rows))
        return Picked(at, by, rows, value.block)
    return jnp.moveaxis(value, axis, 0)


def _stacked(aval: Any, size: int | None) -> Any:
    shape = aval.shape if size is None else (size, *aval.shape)
    return jax.ShapeDtypeStruct(shape, aval.dtype)


def _repeated(value: Any, size: int) -> Any:
    def grown(x: Any) -> Any:
        return jnp.broadcast_to(x, (size, *jnp.shape(x)))

    if isinstance(value, Linear):
        return Linear(grown(value.at), grown(value.by), value.blocks)
    if isinstance(value, Picked):
        return Picked(grown(value.at), grown(value.by), grown(value.rows), value.block)
    return grown(value)


def _one_by_one(
    sums: Any, step: Map, args: list, law: Any, inputs: Any, outside: frozenset, run: Callable
) -> tuple[list, Any]:
    """The copies in a loop, whose state is the law of what they have in common."""
    outer = frozenset(law.blocks)
    held = form(law, [], [], outer, (*step.name, "copies"))
    rows: list[Any] = []
    for value, axis in zip(args, step.in_axes, strict=True):
        if axis is None:
            rows.append(None)
        elif isinstance(value, Linear):
            rows.append((jnp.moveaxis(value.at, axis, 0), jnp.moveaxis(value.by, axis, 0)))
        else:
            rows.append(jnp.moveaxis(value, axis, 0))
    lost: list[bool] = []

    def one(packed: Any, row: tuple) -> tuple[Any, list]:
        xs, sub = row
        _, before = unpack(packed, held)
        given = []
        for value, axis, x in zip(args, step.in_axes, xs, strict=True):
            if axis is None:
                given.append(value)
            else:
                given.append(Linear(x[0], x[1], value.blocks) if isinstance(value, Linear) else x)
        outs, after = run(step.body, given, before, sums, sub, outer | outside)
        lost[:] = [sums.is_symbol(v) for v in outs]
        return pack(after, [], held), [v for v in outs if not sums.is_symbol(v)]

    packed, plain = jax.lax.scan(one, pack(law, [], held), (rows, inputs), length=step.size)
    _, after = unpack(packed, held)
    values, why = iter(plain), f"what a vmap at {step.source} puts out"
    avals = [step.body.avals[slot] for slot in step.body.outputs]
    outs = [Bent(jnp.zeros((step.size, *a.shape), a.dtype), why) if gone else next(values)
            for gone, a in zip(lost, avals, strict=True)]  # fmt: skip
    return outs, after
