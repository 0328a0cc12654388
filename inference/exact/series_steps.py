"""The steps of a loop of Gaussian states, as matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl.estimators.flow import Known, Symbol, flows_through
from ppl.estimators.nodes import graph_of
from ppl.program import Choice, Loop, Pure

from ..gaussian.chain import Steps
from ..gaussian.entries import FEW
from . import gaussian_states as states
from .by_entries import ByEntries, is_known
from .factored import covariances, factor_of
from .gaussian_choices import innermost
from .gaussian_states import Form
from .linear import Block, GaussianLaw, Linear, at_of, spread
from .reads import aval_of


@dataclass(frozen=True, eq=False)
class OneStep:
    """One step of a loop, as matrices: of the state, and of what is seen.

    Attributes:
      choice: what is seen.
      constants: what all steps read; `closed` are values of the body itself, by slot.
    """

    sums: Any
    step: Loop
    choice: Choice
    form: Form
    constants: list
    closed: dict[int, Any]

    def __call__(self, x: list) -> dict[str, jax.Array]:
        body, form = self.step.body, self.form
        size = sum(form.size(i) for i in form.linear)
        state = Block(form.name, size)
        zeros = [jnp.zeros(shape, dtype) for shape, dtype in form.avals]
        empty = jnp.zeros(size), jnp.zeros((size, size)), jnp.zeros(()), None, zeros
        values, law = states.unpack(empty, form)
        outputs = body.outputs[: self.step.carries]
        env, spreads = self._run(values, x, replace(law, blocks=(state,)), {})
        after = [env[slot] for slot in outputs]
        read = [v for v in (*after, env["seen"][0]) if isinstance(v, Linear)]
        blocks = tuple(dict.fromkeys((state, *(block for v in read for block in v.blocks))))
        at, by = _stacked(after, blocks)
        transition, kicks = by[:, :size], by[:, size:]
        as_made = [path for path, slot in self._summed() if outputs == (slot,)]
        alone = spreads.get(Block(as_made[0], size)) if as_made and len(blocks) == 2 else None
        noise = _covariance(kicks, blocks[1:], spreads) if alone is None else alone
        made = {"transition": transition, "noise": noise, "offset": at}
        # what is seen, as a function of the next state if it is one
        following = Block((*form.name, "next"), size)
        eye, start, instead = jnp.eye(size), 0, {}
        for i, slot in enumerate(outputs):
            count = form.size(i)
            shape, dtype = form.avals[i]
            rows = eye[start : start + count].reshape(*shape, size).astype(dtype)
            instead[slot] = Linear(jnp.zeros(shape, dtype), rows, (following,))
            start += count
        other, _ = self._run(values, x, replace(law, blocks=(state,)), instead)
        mean, root = other["seen"]
        if isinstance(mean, Linear) and mean.blocks == (following,):
            made["observation"], made["level"] = mean.by.reshape(mean.at.size, size), mean.at
        else:
            mean = env["seen"][0]
            level, rows = _stacked([mean], blocks)
            k = level.size
            made = {
                "transition": jnp.block([[transition, jnp.zeros((size, k))],
                                         [rows[:, :size], jnp.zeros((k, k))]]),
                "noise": _covariance(
                    jnp.concatenate([kicks, rows[:, size:]]), blocks[1:], spreads
                ),
                "offset": jnp.concatenate([at, level]),
                "observation": jnp.concatenate([jnp.zeros((k, size)), jnp.eye(k)], 1),
            }  # fmt: skip
        like = self.choice.spec.tree.unflatten(self.choice.spec.leaves)
        if isinstance(innermost(like), dist.Normal):
            made["variance"] = jnp.diagonal(root) ** 2
        else:
            found = spreads.get(SEEN)
            made["variance"] = root @ root.T if found is None else found
        return made

    def _summed(self) -> list[tuple[Any, int]]:
        """The choices that are summed out, and their slots."""
        choices = [s for s in self.step.body.steps if isinstance(s, Choice)]
        return [(s.path, s.outputs[0]) for s in choices if s is not self.choice]

    def _run(self, values: list, x: list, law: GaussianLaw, instead: dict) -> tuple[dict, dict]:
        """All values of a step, under "seen" the mean and the factor of what is kept; and the
        covariances of blocks and of what is kept, where they need no factor."""
        sums, body = replace(self.sums, given=True), self.step.body
        env: dict[Any, Any] = dict(self.closed)
        env.update(zip(body.inputs, [*self.constants, *values, *x], strict=True))
        known: dict[int, Any] = {}
        spreads: dict[Any, Any] = {}
        for step in body.steps:
            args = [env[slot] for slot in step.inputs]
            avals = [aval_of(body, slot) for slot in step.inputs]
            if isinstance(step, Choice):
                place = factor_of(step.spec)
                covariance = None if place is None else known.get(step.inputs[place])
                if place is not None and covariance is not None:
                    size = covariance.shape[-1]
                    spreads[SEEN if step is self.choice else Block(step.path, size)] = covariance
                    args[place] = jnp.eye(size, dtype=covariance.dtype)
            if step is self.choice:
                env["seen"] = sums._parts(step, args, None)
                outs = [jnp.zeros(step.spec.shape, step.spec.dtype)]
            elif isinstance(step, Choice):
                value, law = sums.choice(step, args, law, None)
                outs = [value]
            elif any(map(sums.is_symbol, args)):
                outs = sums.through(step.evaluate, avals, args)
            else:
                outs = step.evaluate(*args)
            if isinstance(step, Pure):
                found = covariances(step.evaluate, avals)
                known.update((step.outputs[i], f(*map(at_of, args))) for i, f in found.items()
                             if not sums.is_symbol(outs[i]))  # fmt: skip
            env.update((slot, instead.get(slot, out))
                       for slot, out in zip(step.outputs, outs, strict=True))  # fmt: skip
        return env, spreads


SEEN = "seen"
"""What is kept, among blocks."""


def _covariance(by: jax.Array, blocks: tuple[Block, ...], spreads: dict) -> jax.Array:
    """Of what depends on blocks, which are standard normals or have these covariances."""
    total, at = jnp.zeros((len(by),) * 2, by.dtype), 0
    for block in blocks:
        part = by[:, at : at + block.size]
        total = total + (part @ spreads[block] if block in spreads else part) @ part.T
        at += block.size
    return total


def _stacked(values: list, blocks: tuple[Block, ...]) -> tuple[jax.Array, jax.Array]:
    """Values one after another, flat, and how they depend on these blocks."""
    at, by, n = [], [], sum(block.size for block in blocks)
    for value in values:
        if isinstance(value, Linear):
            at.append(value.at.reshape(-1))
            by.append(spread(value.by, value.blocks, blocks).reshape(-1, n))
        else:
            at.append(jnp.reshape(value, -1))
            by.append(jnp.zeros((at[-1].size, n)))
    return jnp.concatenate(at), jnp.concatenate(by)


def which_vary(one: OneStep, first: list) -> frozenset[str]:
    """The matrices that are not the same in all steps."""
    names = sorted(jax.eval_shape(lambda *x: one(list(x)), *first))
    graph = graph_of(jax.make_jaxpr(lambda *x: [one(list(x))[name] for name in names])(*first))
    flows = flows_through(graph, [{Symbol(0): frozenset()}] * len(first), frozenset(), Known({}))
    return frozenset(name for name, flow in zip(names, flows, strict=True) if flow)


def laid_out(one: OneStep, vary: frozenset[str], rows: list, length: int) -> dict[str, jax.Array]:
    """The matrices of all steps, once where they are the same in all; no offsets that are zero."""
    first = [x[0] for x in rows]
    like = jax.eval_shape(lambda *x: one(list(x)), *first)
    names = sorted(like)
    made = None
    if max(like["transition"].shape[0], like["observation"].shape[0]) <= FEW:
        made = ByEntries(lambda *x: list(map(one(list(x)).get, names)), *first)
    if made is None or not made.able:
        found = one(first)
        if vary:
            each = jax.vmap(one, axis_size=length)(rows)
            found = {name: each[name] if name in vary else found[name] for name in found}
    else:
        found = _by_entries(made, names, like, vary, rows, length)
    if found["variance"].ndim == 2 and "variance" not in vary:
        found["variance"] = found["variance"][None]
    return found


def _by_entries(
    made: ByEntries, names: list[str], like: dict, vary: frozenset[str], rows: list, length: int
) -> dict[str, jax.Array]:
    known: dict[tuple[str, tuple], Any] = {}

    def entries(*x: Any) -> dict[tuple[str, tuple], Any]:
        """Of matrices, those that are not known."""
        found = {}
        for name, matrix in zip(names, made(*x), strict=True):
            for index in np.ndindex(matrix.shape):
                into = known if is_known(matrix[index]) else found
                into[name, index] = matrix[index]
        return found

    first = entries(*(x[0] for x in rows))
    each = jax.vmap(entries, axis_size=length)(*rows) if vary else {}

    def matrix(name: str) -> jax.Array:
        shape, kind = like[name].shape, like[name].dtype
        of = each if name in vary else first
        size = (length,) if name in vary else ()
        flat = [jnp.broadcast_to(jnp.asarray(known.get((name, i), of.get((name, i))), kind), size)
                for i in np.ndindex(shape)]  # fmt: skip
        return jnp.moveaxis(jnp.stack(flat), 0, -1).reshape(*size, *shape)

    def is_zero(name: str) -> bool:
        return all(known.get((name, i), 1) == 0 for i in np.ndindex(like[name].shape))

    return {name: matrix(name) for name in names
            if name not in ("offset", "level") or not is_zero(name)}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pieces:
    """Steps of a loop, made of what they read as they are gone through: `gaussian.evidence.Make`.

    Attributes:
      one: without its values, which are given.
    """

    one: OneStep
    vary: frozenset[str]

    def __call__(self, shared: tuple, rows: tuple) -> Steps:
        constants, closed, first = shared
        xs, present, values, valid = rows
        n, kind = valid.shape[-1], values.dtype
        # steps that only fill up a piece read what the first one does
        own = [jnp.moveaxis(jnp.where(valid > 0, x, start[..., None]), -1, 0)
               for x, start in zip(xs, first, strict=True)]  # fmt: skip
        slots = dict(zip(self.one.closed, closed, strict=True))
        one = replace(self.one, constants=constants, closed=slots)
        found = laid_out(one, self.vary, own, n)

        def each(name: str, rank: int) -> jax.Array:
            x = jnp.asarray(found[name], kind)
            x = jnp.moveaxis(x, 0, -1) if x.ndim > rank else x[..., None]
            return jnp.broadcast_to(x, (*x.shape[:-1], n))

        seen = found["variance"]
        independent = seen.ndim == (2 if "variance" in self.vary else 1)
        sees = jnp.asarray(found["observation"], kind)
        level = each("level", 1) if "level" in found else 0.0
        return Steps(
            transition=each("transition", 2) * valid,  # so that nothing grows where nothing is seen
            noise=each("noise", 2),
            observation=jnp.moveaxis(sees, 0, -1) if sees.ndim == 3 else sees[..., None],
            variance=each("variance", 1 if independent else 2),
            present=present,
            values=values - level,
            offset=each("offset", 1) if "offset" in found else None,
        )
