"""Choices of finitely many values, summed out: the forward algorithm, along any program.

All values of what is summed out are gone through side by side: what depends on it is a stack of
values, one for each outcome. A choice that is not summed, but made from such a stack, is drawn
from the mixture over the outcomes, whose weights are then those given it (Rabiner 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import distributions, samplers
from ppl.effects import factor_p, sample_p
from ppl.program import Branch, Choice, Factor, Path, Program, Pure, Remat, Spec
from ppl.quadrature import elements, outcomes
from ppl.randomness import bind_parameters
from ppl.sites import Site


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Stack:
    """A value for each outcome of what is summed out, on an axis in front."""

    at: jax.Array


def table_of(site: Site) -> Any:
    """All values of a choice, stacked in front, if they are finitely many and known."""
    each, shape = outcomes(site.distribution), elements(site.distribution)
    if each is None or shape is None:
        return None
    count = math.prod(shape)
    digits = np.stack(np.meshgrid(*[each] * count, indexing="ij"), -1) if count else each[:0]
    return digits.reshape(len(each) ** count, *shape).astype(site.dtype)


def reads_of(
    program: Program, given: Sequence[frozenset], summed: frozenset[Path]
) -> list[frozenset]:
    """What the outputs of a program are made from, of its inputs' labels and summed choices."""
    nothing: frozenset = frozenset()
    env = dict.fromkeys(program.constants, nothing)
    env.update(zip(program.inputs, given, strict=True))
    for step in program.steps:
        args = [env[i] for i in step.inputs]
        if isinstance(step, Pure):
            outs = [nothing.union(*(args[i] for i in reads)) for reads in step.reads]
        elif isinstance(step, Choice):
            outs = [frozenset({step.path}) & summed]
        elif isinstance(step, Branch) and not args[0]:
            each = [reads_of(branch, args[1:], summed) for branch in step.branches]
            outs = [nothing.union(*same) for same in zip(*each, strict=True)]
        elif isinstance(step, Remat):
            outs = reads_of(step.body, args, summed)
        else:
            outs = [nothing.union(*args, step.paths & summed)] * len(step.outputs)
        env.update(zip(step.outputs, outs, strict=True))
    return [env[i] for i in program.outputs]


def normalised(log_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log probabilities, and the log of what the weights add up to, which may be -inf.

    >>> import jax.numpy as jnp
    >>> from inference.exact.finite_latents import normalised
    >>> logs, total = normalised(jnp.log(jnp.array([1.0, 3.0])))
    >>> jnp.exp(logs).round(4).tolist(), round(float(jnp.exp(total)), 4)
    ([0.25, 0.75], 4.0)
    """
    total = jax.nn.logsumexp(log_weights)
    return log_weights - jnp.where(jnp.isfinite(total), total, 0.0), total


@dataclass(frozen=True, eq=False)
class FiniteLatents:
    """The algebra in which choices have these values along the axis of outcomes.

    Its law are the log probabilities of the outcomes, given the choices made so far. Those
    that differ only in choices yet to be made are alike, and `counts` has by how many values
    a choice divides them.
    """

    places: Mapping[Path, jax.Array]
    sites: Mapping[Path, Site]
    counts: Mapping[Path, int]
    way: str = "in a way that can be summed over"
    expected: str = "choices and factors, outside of loops, and no choice between branches"

    def is_symbol(self, value: Any) -> bool:
        return isinstance(value, Stack)

    def kind_of(self, value: Any) -> bool:
        return isinstance(value, Stack)

    def kinds(self, program: Program, given: list) -> list[bool]:
        labels = [frozenset({()}) if stacked else frozenset() for stacked in given]
        return [bool(label) for label in reads_of(program, labels, frozenset(self.places))]

    def of_kind(self, value: Any, kind: bool, law: jax.Array) -> Any:
        if isinstance(value, Stack) or not kind:
            return value if isinstance(value, Stack) else jnp.asarray(value)
        return Stack(jnp.broadcast_to(value, (law.size, *jnp.shape(value))))

    def through(self, f: Callable, avals: Sequence[Any], args: list) -> list:
        return [Stack(out) for out in _mapped(f, args)]

    def factor(self, step: Factor, args: list, law: jax.Array) -> jax.Array:
        after, total = normalised(law + args[0].at)
        factor_p.bind(total, source=step.source)
        return after

    def choice(self, step: Choice, args: list, law: jax.Array) -> tuple[Any, jax.Array]:
        spec = step.spec
        if step.path in self.places:
            values = Stack(self.places[step.path])
            (logs,) = _mapped(lambda v, *ls: [_log_density(spec, ls, v)], [values, *args])
            return values, law + logs + math.log(self.counts[step.path])
        mixture = Mixed(spec, tuple(v.at if isinstance(v, Stack) else v for v in args),
                        tuple(isinstance(v, Stack) for v in args), law)  # fmt: skip
        leaves, params = bind_parameters(mixture, step.source, self.sites[step.path].kind)
        (value,) = sample_p.bind(*leaves, **params, address=step.path, source=step.source)
        return value, normalised(law + mixture.logs(value))[0]


def _mapped(f: Callable, args: list) -> list:
    """`f`, whose result is a list, at all outcomes."""
    axes = [0 if isinstance(value, Stack) else None for value in args]
    bare = [value.at if isinstance(value, Stack) else value for value in args]
    return jax.vmap(lambda *xs: f(*xs), axes)(*bare)


def _log_density(spec: Spec, leaves: Sequence[Any], value: Any) -> jax.Array:
    return jnp.asarray(distributions.total_log_density(spec.tree.unflatten(leaves), value))


class Mixed(dist.Distribution):
    """The mixture of a choice's laws over the outcomes of what its parameters depend on."""

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("leaves", "log_weights")
    pytree_aux_fields = ("spec", "stacked")

    def __init__(self, spec: Spec, leaves: tuple, stacked: tuple, log_weights: jax.Array):
        self.spec, self.leaves, self.stacked = spec, leaves, stacked
        self.log_weights = log_weights
        super().__init__(batch_shape=(), event_shape=spec.shape, validate_args=False)

    @property
    def support(self) -> Any:
        support: Any = self.spec.tree.unflatten(self.spec.leaves).support
        left = len(self.spec.shape) - support.event_dim
        return constraints.independent(support, left) if left else support

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return not self.event_shape and self._outcomes() is not None

    def enumerate_support(self, expand: bool = True) -> Any:
        return jnp.asarray(self._outcomes())

    def _outcomes(self) -> Any:
        return outcomes(self.spec.tree.unflatten(self.spec.leaves))

    def _args(self) -> list:
        return [Stack(v) if s else v for v, s in zip(self.leaves, self.stacked, strict=True)]

    def logs(self, value: Any) -> jax.Array:
        """The log density under each outcome."""
        return _mapped(lambda *ls: [_log_density(self.spec, ls, value)], self._args())[0]

    def log_prob(self, value: Any) -> jax.Array:
        return normalised(self.log_weights + self.logs(value))[1]

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        assert sample_shape == ()
        first, second = jax.random.split(key)
        i = jax.random.categorical(first, self.log_weights)
        one = [v[i] if s else v for v, s in zip(self.leaves, self.stacked, strict=True)]
        d = self.spec.tree.unflatten(one)
        found = distributions.base(d)
        if found is None:
            return samplers.sample(d, second, self.spec.kind).astype(self.spec.dtype)
        given = distributions.standard(found[0], second, self.spec.shape, jnp.result_type(float))
        return jnp.broadcast_to(found[2](given), self.spec.shape).astype(self.spec.dtype)
