"""Rao-Blackwellised steps: choices that are Gaussian or finite, given the others, summed out.

What remains of a step model is a step model of its other choices, whose state holds the law of
the rest: a mean and a covariance, or probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Selection, errors
from ppl.addresses import as_selection
from ppl.affine import AFFINE, CONSTANT, Order
from ppl.program import Path

from ..smc.step_models import check_state
from ..validation.objects import check_model
from .enumerated import Enumerated, check_result, enumerated
from .finite_latents import table_of
from .linear_gaussian import Affine, Law, LinearGaussian, is_symbol, orders_of
from .symbolic import run


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Belief:
    """A state of which some leaves are Gaussian: N(their values in `state`, `covariance`).

    Attributes:
      state: as of the model; the Gaussian leaves have their means.
      covariance: shape (d, d), of the d scalars of the Gaussian leaves in the order of
        `jax.tree.leaves`; singular where something is known.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Belief, rao_blackwell
    >>> from ppl import gen, sample
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> step, start = rao_blackwell(walk, "z", 0.0)
    >>> trace, _ = step.generate({"y": 1.0}, start, None)
    >>> belief: Belief = trace.retval[0]  # half way from 0 to 1
    >>> round(float(belief.state), 4), belief.covariance.round(4).tolist()
    (0.5, [[0.5]])
    """

    state: Any
    covariance: jax.Array


def rao_blackwell(
    model: GenerativeFunction,
    summed: Selection | str | tuple[str, ...],
    init: Any,
    x: Any = None,
) -> tuple[GenerativeFunction, Belief | Enumerated]:
    """The law of a step's other choices, with those of one kind summed out.

    A step model `(belief, x) -> (belief, y)`, exact: at each value of its choices its density
    is that of the model integrated over what is summed out, and the new belief is the law of
    the state given them. It has all the model's addresses but the summed, and goes wherever a
    step model does: into `particle_filter` with its proposals and resampling, `advance`,
    `conditional_filter`. Weights of particles that carry beliefs vary no more than those of
    particles that carry values.

    *Gaussian choices* make the state a `Belief`. They are Normal or MultivariateNormal, and
    their means affine in the summed choices and in what of the state depends on them; scales
    and coefficients may depend on other choices. So is any other choice that depends on them:
    observed or drawn, the belief is conditioned on it. The `y` has the mean of what is Gaussian.

    *Finite choices* make it an `Enumerated`. Other choices and factors may depend on them in
    any way; the next state, on those of its own step. Cost goes with the number of outcomes of
    all summed choices of a step, times that of the values of the state.

    Data that are missing at times go into a `lax.cond` on an input (or `ppl.mask`), and are
    observed by a `Masked` value. Branches are gone through, and may be chosen by another
    choice; loops only where nothing in them is summed out or depends on it.

    Args:
      model: one step, `(state, x) -> (state, y)`.
      summed: the choices to sum out.
      init: a state before the first step, known. For one that is not, `dataclasses.replace` the
        covariance of the `Belief`, or the values and `log_probs` of the `Enumerated`.
      x: an input of a step, as a filter will give it; only shapes and dtypes matter.

    Returns:
      The step model, and the belief before the first step.

    Raises:
      AddressNotFound: the selection names no choice of the model.
      InvalidArgument: a choice, a factor, a branch, the next state or `y` depends on what is
        summed out in another way; a summed choice is of another kind, of two, or in a loop; or
        the next state has another structure.
      ShapeError: raised at a step, when a covariance or `log_probs` is not of the state's size.

    Source: Doucet, de Freitas, Murphy and Russell, Rao-Blackwellised particle filtering for
    dynamic Bayesian networks (UAI 2000); Chen and Liu, Mixture Kalman filters (JRSS B 2000);
    Rabiner, A tutorial on hidden Markov models (1989).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import particle_filter, rao_blackwell
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(state, _):
    ...     z, jumps = state
    ...     jumps = sample("jumps", dist.Bernoulli(jnp.where(jumps == 1, 0.9, 0.1)))
    ...     z = sample("z", dist.Normal(z, jnp.where(jumps == 1, 2.0, 0.1)))
    ...     sample("y", dist.Normal(z, 0.5))
    ...     return (z, jumps), None
    >>> step, start = rao_blackwell(walk, "z", (0.0, 0))
    >>> list(step.sites(start, None))
    [('jumps',), ('y',)]
    >>> ys = {"y": jnp.array([0.1, 0.2, 3.1])}
    >>> found = seed(lambda: particle_filter(step, start, ys, 50))(jax.random.key(0))
    >>> found.particles.value.state[0].shape, found.particles.value.covariance.shape
    ((50,), (50, 1, 1))
    """
    check_model(model)
    check_state(init)
    chosen = as_selection(summed)
    sites = model.sites(init, x)
    chosen.check(sites)
    paths = tuple(path for path in sites if chosen(path))
    for path in paths:
        if sites[path].axes:
            raise errors.InvalidArgument(
                f"{errors.show(path)} is made in a loop, so that it cannot be summed out.",
                where=(f"{errors.show(path)} at {sites[path].source}", errors.caller()),
                given=", ".join(f"a {kind} of length {n}" for kind, n in sites[path].axes),
                expected="a choice of the step itself",
                fix="make one choice of an array: dist.Normal(loc, scale) with a loc of shape (k,)",
            )
    tables = [table_of(sites[path]) for path in paths]
    finite = [table is not None for table in tables]
    if all(finite):
        return enumerated(model, paths, init, x)
    if any(finite):
        kinds = [(path, sites[path].kind) for path in paths]
        raise errors.InvalidArgument(
            "Finite choices and Gaussian ones are not summed out together.",
            where=(*(f"{errors.show(p)} at {sites[p].source}" for p in paths[:2]), errors.caller()),
            given="; ".join(f"{errors.show(p)} of {kind}" for p, kind in kinds),
            expected="choices of one kind: a mixture of Gaussians grows with each step",
            fix="leave the finite ones to the particles",
        )
    name = f"rao_blackwell({model.name})"
    step = GenerativeFunction(_Marginal(model, paths), model.fixed, name)
    init = _in_floats(model, paths, init, x)
    leaves = [leaf for leaf, g in zip(*_gaussian(model, paths, init, x)[:2], strict=True) if g]
    d = sum(map(jnp.size, leaves))
    start = Belief(init, jnp.zeros((d, d), jnp.result_type(float, *leaves)))
    step.sites(start, x)  # what is refused is refused here
    return step, start


@partial(jax.tree_util.register_dataclass, data_fields=["model"], meta_fields=["summed"])
@dataclass(frozen=True, eq=False)
class _Marginal:
    """A step of beliefs: e is how far the Gaussian leaves, then the summed choices, are from
    their means, these in units of their scales."""

    model: GenerativeFunction
    summed: tuple[Path, ...]

    def __call__(self, belief: Belief, x: Any) -> tuple[Belief, Any]:
        state = _in_floats(self.model, self.summed, belief.state, x)
        leaves, gaussian, before = _gaussian(self.model, self.summed, state, x)
        prepared = self.model._prepare((state, x), {})
        ends, places = [0], {}
        for leaf, g in zip(leaves, gaussian, strict=True):
            ends.append(ends[-1] + (jnp.size(leaf) if g else 0))
        d = size = ends[-1]
        for path in self.summed:
            places[path] = size, size + math.prod(prepared.sites[path].spec.shape)
            size = places[path][1]
        prior = _checked(belief.covariance, d, self.model)
        law = Law(jnp.zeros(size, prior.dtype), jnp.eye(size, dtype=prior.dtype))
        law = Law(law.mean, law.covariance.at[:d, :d].set(prior))
        operands: list = list(prepared.operands)
        for i, (leaf, g) in enumerate(zip(leaves, gaussian, strict=True)):
            if g:
                at = jnp.asarray(leaf)
                by = jnp.eye(size, dtype=at.dtype)[ends[i] : ends[i + 1]]
                operands[before + i] = Affine(at, by.reshape(*at.shape, size))
        outs, law = run(
            prepared.staged.program, operands, law, LinearGaussian(places, prepared.sites)
        )
        new, y = jax.tree.map(
            lambda value: _expected(value, law), prepared.staged.rebuild(outs), is_leaf=is_symbol
        )
        found = jax.tree.leaves(prepared.staged.rebuild(outs)[0], is_leaf=is_symbol)
        rows = [v.by.reshape(-1, size).astype(prior.dtype) for v in found if is_symbol(v)]
        onto = jnp.concatenate([jnp.zeros((0, size), prior.dtype), *rows])
        return Belief(new, onto @ law.covariance @ onto.T), y


def _in_floats(model: GenerativeFunction, summed: tuple[Path, ...], state: Any, x: Any) -> Any:
    """The state with whole numbers that are to be Gaussian as floats."""
    leaves, gaussian, _ = _gaussian(model, summed, state, x)
    whole = [
        g and not jnp.issubdtype(jnp.result_type(v), jnp.inexact)
        for v, g in zip(leaves, gaussian, strict=True)
    ]
    cast = [jnp.asarray(v, float) if w else v for v, w in zip(leaves, whole, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), cast)


def _expected(value: Any, law: Law) -> Any:
    if not isinstance(value, Affine):
        return value
    return value.at + (value.by.astype(law.mean.dtype) @ law.mean).astype(value.at.dtype)


@dataclass(frozen=True)
class _Result:
    """A leaf of a step's result: how it depends on what is summed out."""

    order: Order


def _gaussian(
    model: GenerativeFunction, summed: tuple[Path, ...], state: Any, x: Any
) -> tuple[list, list[bool], int]:
    """The leaves of the state, which of them are Gaussian, and how many operands are before."""
    run = model._prepare((state, x), {})
    leaves = jax.tree.leaves(state)
    before = len(run.operands) - len(run.arguments.leaves)
    given = [CONSTANT] * len(run.operands)
    where = (errors.defined(model.fn), errors.caller())
    while True:
        found = orders_of(run.staged.program, given, frozenset(summed))
        result: Any = run.staged.rebuild([_Result(order) for order in found])
        check_result(result, state, model)
        after = jax.tree.leaves(result[0])
        _check_affine(result, where, summed)
        grown = [AFFINE if isinstance(v, _Result) and v.order.degree else CONSTANT for v in after]
        if grown == given[before : before + len(leaves)]:
            return leaves, [order == AFFINE for order in grown], before
        given[before : before + len(leaves)] = grown


def _check_affine(result: tuple, where: tuple[str, ...], summed: tuple[Path, ...]) -> None:
    for path, leaf in jax.tree.leaves_with_path(result):
        if isinstance(leaf, _Result) and leaf.order.degree == 2:
            first, *rest = path
            name = ("the next state", "y")[first.idx] + jax.tree_util.keystr(tuple(rest))
            names = "; ".join(map(errors.show, summed))
            raise errors.InvalidArgument(
                f"A step returns what is not affine in {names}, which is summed out.",
                where=where,
                given=f"{name}, made by `{leaf.order.why}`",
                expected="a state and a y that are affine in what is summed out",
                fix="leave it out of what is returned; or leave the choice to the particles",
            )


def _checked(covariance: Any, d: int, model: GenerativeFunction) -> Any:
    if jnp.shape(covariance) != (d, d):
        raise errors.ShapeError(
            "The covariance of a belief is not of the size of its Gaussian leaves.",
            where=(errors.defined(model.fn), errors.caller()),
            given=f"shape {jnp.shape(covariance)}",
            expected=f"shape {(d, d)}",
            fix="step, start = rao_blackwell(model, summed, init), and replace its covariance",
        )
    return covariance
