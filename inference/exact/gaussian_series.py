"""A loop of Gaussian states that is seen through one choice, as one choice of an array.

Its steps are laid out side by side as a chain x' = A x + b + w, y = H x + c + v, whose evidence
has a pass back of its own and can be folded in three ways (`inference.gaussian`). Other loops
are gone through step by step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl.effects import sample_p
from ppl.masks import leading
from ppl.program import Choice, Loop, Program
from ppl.randomness import bind_parameters

from ..gaussian.chain import Chain, Course
from ..gaussian.evidence import of_course
from ..gaussian.series import beliefs, chain_of_series, drawn_from
from . import gaussian_states as states
from .elimination import only_kept, put_out
from .gaussian_states import Form
from .linear import GaussianLaw
from .process_steps import is_process
from .reads import aval_of
from .series_steps import OneStep, Pieces, laid_out, which_vary


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
    one = OneStep(sums, step, choice, form, constants, dict(step.body.constants))
    first = [x[0] for x in rows]
    vary = which_vary(one, first)
    laid = laid_out(one, vary, rows, step.length)
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
    shared = constants, list(one.closed.values()), first
    pieces = Pieces(replace(one, constants=[], closed=dict.fromkeys(one.closed)), vary)
    seen = SeriesSeen(chain, shared, rows, pieces, shape, step.reverse, sums.fold)
    if sums.given:
        assert given is not None
        value = jnp.asarray(given.value, spec.dtype)
    else:
        leaves_, params = bind_parameters(seen, choice.source, sums.sites[choice.path].kind)
        (value,) = sample_p.bind(*leaves_, **params, address=choice.path, source=choice.source)
    flat = in_time(value, step.reverse)
    last = beliefs(chain, flat, sums.fold)
    after = last.mean[-1, : at.size], last.covariance[-1, : at.size, : at.size]
    log = law.evidence + seen.log_prob(value) if sums.given else law.evidence
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


class SeriesSeen(dist.Distribution):
    """The law of what is seen of a chain of Gaussian states, an array of all its steps."""

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("chain", "shared", "rows")
    pytree_aux_fields = ("pieces", "shape_", "reverse", "fold")

    def __init__(
        self,
        chain: Chain,
        shared: tuple,
        rows: list,
        pieces: Pieces,
        shape: tuple[int, ...],
        reverse: bool,
        fold: str,
    ):
        self.chain, self.shared, self.rows, self.pieces = chain, shared, rows, pieces
        self.shape_, self.reverse, self.fold = shape, reverse, fold
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Any) -> jax.Array:
        value, chain = in_time(jnp.asarray(value), self.reverse), self.chain
        value = jnp.asarray(value, jnp.result_type(value, 0.0))
        cast = lambda x: jnp.asarray(x, value.dtype)  # noqa: E731
        numbers, present = jnp.isfinite(value), cast(chain.present)
        behind = lambda x: jnp.moveaxis(x, 0, -1)  # noqa: E731
        seen = behind(jnp.where(numbers, value, 0.0))
        valid = jnp.ones(len(value), value.dtype)
        rows = [behind(x) for x in self.rows], behind(present), seen, valid
        course = Course(cast(chain.mean), cast(chain.covariance), self.shared, rows)
        found = of_course(self.pieces, self.fold, course)
        return jnp.where(jnp.all(numbers | (present <= 0)), found, -jnp.inf)

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        assert sample_shape == ()
        n, d = self.chain.transition.shape[:2]
        first, second = jax.random.split(key)
        kind = self.chain.mean.dtype
        count = self.chain.present.shape[1]
        normals = jax.random.normal(first, (n + 1, d), kind)
        seen = drawn_from(normals, jax.random.normal(second, (n, count), kind), self.chain)[1]
        return (seen[::-1] if self.reverse else seen).reshape(self.event_shape)
