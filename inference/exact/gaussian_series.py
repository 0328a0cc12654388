"""A loop of Gaussian states that is seen through one choice, as one choice of an array.

Its steps are laid out side by side as a chain x' = A x + b + w, y = H x + c + v, whose evidence
has a pass back of its own and can be folded in three ways (`inference.gaussian`). Other loops
are gone through step by step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl.effects import sample_p
from ppl.estimators.flow import Known, Symbol, flows_through
from ppl.estimators.nodes import graph_of
from ppl.masks import leading
from ppl.program import Choice, Loop, Program, Pure
from ppl.randomness import bind_parameters

from ..gaussian.chain import Chain
from ..gaussian.evidence import evidence
from ..gaussian.series import beliefs, chain_of_series, drawn_from
from . import gaussian_states as states
from .elimination import only_kept, put_out
from .factored import covariances, factor_of
from .gaussian_choices import innermost
from .gaussian_states import Form
from .linear import Block, GaussianLaw, Linear, at_of, spread
from .process_steps import is_process
from .reads import aval_of


def along(
    sums: Any, step: Loop, args: list, law: GaussianLaw, inputs: Any, form: Form
) -> tuple[list, GaussianLaw] | None:
    """The outputs of a loop and the law after it; None if it is not such a loop."""
    choice = _only_kept(sums, step, args, form)
    tilted = any(path in sums.places for path in inputs)
    long = any(isinstance(s, Choice) and is_process(s.spec) for s in step.body.steps)
    if choice is None or tilted or long or sums.simulate or form.outer:
        return None
    split = step.constants + step.carries
    constants, init, xs = args[: step.constants], args[step.constants : split], args[split:]
    mean, covariance, _, _, leaves = states.pack(law, init, form)
    at = jnp.concatenate([leaf.reshape(-1) for leaf in leaves])
    rows = xs if not step.reverse else [x[::-1] for x in xs]
    one = _Step(sums, step, choice, form, constants)
    laid = _laid_out(one, rows, step.length)
    shape, spec = (step.length, *choice.spec.shape), choice.spec
    given = inputs.get(choice.path)
    present = None if given is None or given.counts is None else given.counts
    if present is not None:
        present = jnp.broadcast_to(leading(present, len(shape)), shape).reshape(step.length, -1)
        present = present[::-1] if step.reverse else present
    d = laid["transition"].shape[-1] - at.size  # of what is seen, where the state is not enough
    grown = jnp.zeros((at.size + d,) * 2, covariance.dtype).at[: at.size, : at.size].set(covariance)
    start = jnp.concatenate([at + mean, jnp.zeros(d, mean.dtype)])
    chain = chain_of_series(step.length, start, grown, present=present, **laid)
    if sums.given:
        assert given is not None
        value = jnp.asarray(given.value, spec.dtype)
    else:
        seen = SeriesSeen(chain, shape, step.reverse, sums.fold)
        leaves_, params = bind_parameters(seen, choice.source, sums.sites[choice.path].kind)
        (value,) = sample_p.bind(*leaves_, **params, address=choice.path, source=choice.source)
    flat = in_time(value, step.reverse)
    last = beliefs(chain, flat, sums.fold)
    after = last.mean[-1, : at.size], last.covariance[-1, : at.size, : at.size]
    log = law.evidence + evidence(chain, flat, sums.fold) if sums.given else law.evidence
    at_end = jnp.split(after[0], _ends(form))
    ends = [x.reshape(form.avals[i][0]).astype(form.avals[i][1])
            for i, x in enumerate(at_end)]  # fmt: skip
    values, ended = states.unpack((jnp.zeros_like(after[0]), after[1], log, None, ends), form)
    body = step.body
    outs = [value if slot == choice.outputs[0]
            else sums.lost(put_out(step), _rows(body, slot, step.length))
            for slot in body.outputs[step.carries :]]  # fmt: skip
    return [*values, *outs], ended


def in_time(value: jax.Array, reverse: bool) -> jax.Array:
    """Rows of numbers in the order of the steps."""
    flat = value.reshape(len(value), -1)
    return flat[::-1] if reverse else flat


def _ends(form: Form) -> list[int]:
    found, at = [], 0
    for i in form.linear[:-1]:
        at += form.size(i)
        found.append(at)
    return found


def _rows(body: Program, slot: int, length: int) -> Any:
    aval = aval_of(body, slot)
    return jax.ShapeDtypeStruct((length, *aval.shape), aval.dtype)


def _only_kept(sums: Any, step: Loop, args: list, form: Form) -> Choice | None:
    """The choice of a loop that is kept, if it is the only one and nothing else reads it."""
    found = only_kept(step, args, sums)
    whole = form.linear == tuple(range(step.carries)) and not form.bent
    return found if whole else None


@dataclass(frozen=True, eq=False)
class _Step:
    """One step of the loop, as matrices: of the state, and of what is seen."""

    sums: Any
    step: Loop
    choice: Choice
    form: Form
    constants: list

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
        alone = spreads.get(Block(as_made[0], size)) if as_made else None
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
        env: dict[Any, Any] = dict(body.constants)
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


def _laid_out(one: _Step, rows: list, length: int) -> dict[str, jax.Array]:
    """The matrices of all steps, once where they are the same in all."""
    first = [x[0] for x in rows]
    found = one(first)
    names = sorted(found)
    graph = graph_of(jax.make_jaxpr(lambda *x: [one(list(x))[name] for name in names])(*first))
    flows = flows_through(graph, [{Symbol(0): frozenset()}] * len(first), frozenset(), Known({}))
    varies = {name: bool(flow) for name, flow in zip(names, flows, strict=True)}
    if any(varies.values()):
        each = jax.vmap(one, axis_size=length)(rows)
        found = {name: each[name] if varies[name] else found[name] for name in names}
    if found["variance"].ndim == 2 and not varies["variance"]:
        found["variance"] = found["variance"][None]
    return found


class SeriesSeen(dist.Distribution):
    """The law of what is seen of a chain of Gaussian states, an array of all its steps."""

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("chain",)
    pytree_aux_fields = ("shape_", "reverse", "fold")

    def __init__(self, chain: Chain, shape: tuple[int, ...], reverse: bool, fold: str):
        self.chain, self.shape_, self.reverse, self.fold = chain, shape, reverse, fold
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Any) -> jax.Array:
        return evidence(self.chain, in_time(jnp.asarray(value), self.reverse), self.fold)

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        assert sample_shape == ()
        n, d = self.chain.transition.shape[:2]
        first, second = jax.random.split(key)
        kind = self.chain.mean.dtype
        count = self.chain.present.shape[1]
        normals = jax.random.normal(first, (n + 1, d), kind)
        seen = drawn_from(normals, jax.random.normal(second, (n, count), kind), self.chain)[1]
        return (seen[::-1] if self.reverse else seen).reshape(self.event_shape)
