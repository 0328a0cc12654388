"""Choices that are Gaussian, with means affine in one Gaussian vector e, summed out.

Each scalar of a summed choice is an element of e, and what depends on it is `at + by e`. A
choice that is not summed, but made from such a value, is drawn from its predictive law, and e
is conditioned on it (Kalman 1960). How code depends on e is read off it, by `ppl.affine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve
from numpyro.distributions.transforms import ReshapeTransform

from ppl import errors
from ppl.affine import AFFINE, CONSTANT, Order, orders
from ppl.effects import sample_p
from ppl.program import Branch, Choice, Factor, Path, Program, Pure, Remat
from ppl.randomness import bind_parameters
from ppl.sites import Site

from .symbolic import aval_of, refused


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Affine:
    """The value `at + by e`; `by` has the axis of e behind those of the value.

    >>> import jax.numpy as jnp
    >>> from inference.exact.linear_gaussian import Affine, LinearGaussian
    >>> z = Affine(jnp.array(1.0), jnp.array([2.0, 0.0]))
    >>> (y,) = LinearGaussian({}, {}).through(lambda z: [3 * z + 4], [z.at], [z])
    >>> float(y.at), y.by.tolist()
    (7.0, [6.0, 0.0])
    """

    at: jax.Array
    by: jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["at"], meta_fields=["why"])
@dataclass(frozen=True, eq=False)
class Curved:
    """A value that depends on e in another way, which nothing may use."""

    at: Any
    why: str


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Law:
    """e ~ N(mean, covariance), given the choices made so far.

    >>> import jax.numpy as jnp
    >>> from inference.exact.linear_gaussian import Law
    >>> law = Law(jnp.zeros(1), 3.0 * jnp.eye(1))
    >>> seen = law.given(jnp.eye(1), 2.0 * jnp.eye(1), jnp.eye(1), jnp.ones(1))
    >>> seen.mean.tolist(), seen.covariance.tolist()  # e + noise is 1, of variances 3 and 1
    ([0.75], [[0.75]])
    """

    mean: jax.Array
    covariance: jax.Array

    def given(self, by: Any, factor: Any, noise: Any, innovation: Any) -> Law:
        """The law given that `by e` plus noise is `innovation` more than its mean.

        `noise` is the covariance of the noise, and `factor` a lower factor of that of the sum.
        In Joseph's form, a sum of squares, which stays positive under rounding.
        """
        crossed = by @ self.covariance
        gain = (crossed / factor**2 if _is_one(factor) else cho_solve((factor, True), crossed)).T
        left = jnp.eye(self.mean.size, dtype=gain.dtype) - gain @ by
        after = left @ self.covariance @ left.T + gain @ noise @ gain.T
        return Law(self.mean + gain @ innovation, (after + after.T) / 2)


def _is_one(matrix: Any) -> bool:
    """Whether a matrix is one number, for which there is no need of a library's routines."""
    return matrix.shape == (1, 1)


def _root(covariance: jax.Array) -> jax.Array:
    """A lower factor."""
    return jnp.sqrt(covariance) if _is_one(covariance) else jnp.linalg.cholesky(covariance)


def is_symbol(value: Any) -> bool:
    return isinstance(value, (Affine, Curved))


def at_of(value: Any) -> Any:
    return value.at if is_symbol(value) else value


def orders_of(program: Program, given: Sequence[Order], summed: frozenset[Path]) -> list[Order]:
    """How a program's outputs depend on the summed choices and on what its inputs do."""
    env: dict[int, Order] = dict.fromkeys(program.constants, CONSTANT)
    env.update(zip(program.inputs, given, strict=True))
    for step in program.steps:
        args = [env[i] for i in step.inputs]
        if isinstance(step, Pure):
            outs = _pure_orders(step, program, tuple(args))
        elif isinstance(step, Choice):
            outs = [AFFINE if step.path in summed else CONSTANT]
        elif isinstance(step, Branch) and not args[0].degree:
            each = [orders_of(branch, args[1:], summed) for branch in step.branches]
            outs = [max(same) for same in zip(*each, strict=True)]
        elif isinstance(step, Remat):
            outs = orders_of(step.body, args, summed)
        else:
            mixed = max(args, default=CONSTANT).degree or step.paths & summed
            why = f"{type(step).__name__.lower()} at {step.source}"
            outs = [Order(2, why) if mixed else CONSTANT] * len(step.outputs)
        env.update(zip(step.outputs, outs, strict=True))
    return [env[i] for i in program.outputs]


@lru_cache(maxsize=4096)
def _pure_orders(step: Pure, program: Program, given: tuple[Order, ...]) -> list[Order]:
    return orders(step.evaluate, [aval_of(program, i) for i in step.inputs], given)


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The algebra in which choices are the elements of e at these positions."""

    places: Mapping[Path, tuple[int, int]]
    sites: Mapping[Path, Site]
    way: str = "in a linear and Gaussian way"
    expected: str = (
        "Normal or MultivariateNormal choices, whose means are affine in what is summed out, "
        "and all else independent of it"
    )

    def is_symbol(self, value: Any) -> bool:
        return is_symbol(value)

    def kind_of(self, value: Any) -> Order:
        if isinstance(value, Curved):
            return Order(2, value.why)
        return AFFINE if isinstance(value, Affine) else CONSTANT

    def kinds(self, program: Program, given: list) -> list[Order]:
        return orders_of(program, given, frozenset(self.places))

    def of_kind(self, value: Any, kind: Order, law: Law) -> Any:
        at = jnp.asarray(at_of(value))
        if kind.degree == 2:
            return Curved(at, kind.why)
        if kind.degree == 1 and not is_symbol(value):
            return Affine(at, jnp.zeros((*at.shape, law.mean.size), at.dtype))
        return value if is_symbol(value) else at

    def through(self, f: Callable, avals: Sequence[Any], args: list) -> list:
        given = [self.kind_of(value) for value in args]
        out = orders(f, avals, given)
        moving = [i for i, order in enumerate(given) if order == AFFINE]

        def affine(*at: Any) -> tuple[list, list]:
            full = [at_of(value) for value in args]
            for i, value in zip(moving, at, strict=True):
                full[i] = value
            outs = f(*full)
            return [v for v, order in zip(outs, out, strict=True) if order == AFFINE], outs

        if not any(order == AFFINE for order in out):
            outs, pairs = affine(*[args[i].at for i in moving])[1], iter(())
        else:
            at, push, outs = jax.linearize(affine, *[args[i].at for i in moving], has_aux=True)
            by = jax.vmap(push, -1, -1)(*[args[i].by for i in moving])
            pairs = iter(zip(at, by, strict=True))

        def symbol(value: Any, order: Order) -> Any:
            if order.degree == 2:
                return Curved(value, order.why)
            return Affine(*next(pairs)) if order.degree else value

        return [symbol(value, order) for value, order in zip(outs, out, strict=True)]

    def factor(self, step: Factor, args: list, law: Law) -> Law:
        raise refused(step, self)

    def choice(self, step: Choice, args: list, law: Law) -> tuple[Any, Law]:
        spec, dtype = step.spec, law.mean.dtype
        mean, factor = self._parts(step, args)
        by = jnp.zeros((factor.shape[0], law.mean.size), dtype)
        if is_symbol(mean):
            mean, by = mean.at, mean.by.astype(dtype)
        factor = factor.astype(dtype)
        if step.path in self.places:
            by = by.at[:, slice(*self.places[step.path])].set(factor)
            by = by.astype(spec.dtype).reshape(*spec.shape, law.mean.size)
            return Affine(mean.astype(spec.dtype).reshape(spec.shape), by), law
        mean, noise = mean + by @ law.mean, factor @ factor.T
        root = _root(by @ law.covariance @ by.T + noise)
        predictive = _normal(mean.astype(spec.dtype), root.astype(spec.dtype), spec.shape)
        leaves, params = bind_parameters(predictive, step.source, errors.show(step.path))
        (value,) = sample_p.bind(*leaves, **params, address=step.path, source=step.source)
        innovation = value.reshape(-1).astype(dtype) - mean
        return value, law.given(by, root, noise, innovation)

    def _parts(self, step: Choice, args: list) -> tuple[Any, Any]:
        """The mean of a choice, of shape (k,), and a factor of its covariance, (k, k)."""
        spec = step.spec
        if type(_innermost(spec.tree.unflatten(spec.leaves))) not in _NOISE:
            raise refused(step, self, f"a choice from {self.sites[step.path].kind}")
        f = partial(_mean_and_factor, spec)
        mean, factor = orders(f, spec.leaves, [self.kind_of(value) for value in args])
        if factor.degree:
            raise refused(step, self, "a scale that depends on it")
        if mean.degree == 2:
            raise refused(step, self, f"a mean that is not affine in it, but made by `{mean.why}`")
        found, known = self.through(f, spec.leaves, args)
        return found, known


def _innermost(d: Any) -> Any:
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        d = d.base_dist
    return d


_NOISE: dict[type, Callable] = {
    dist.Normal: lambda d, e: d.scale * e,
    dist.MultivariateNormal: lambda d, e: (d.scale_tril @ e[..., None])[..., 0],
}
"""The deviation from the mean, from standard normals."""


def _mean_and_factor(spec: Any, *leaves: Any) -> list:
    d = _innermost(spec.tree.unflatten(leaves))
    mean = jnp.broadcast_to(d.loc, spec.shape).reshape(-1)
    each = jnp.eye(mean.size, dtype=spec.dtype).reshape(mean.size, *spec.shape)
    columns = jax.vmap(partial(_NOISE[type(d)], d))(each)
    return [mean, columns.reshape(mean.size, mean.size).T]


def _normal(mean: jax.Array, factor: jax.Array, shape: tuple[int, ...]) -> dist.Distribution:
    """The normal law of an array of this shape."""
    if shape == ():
        return dist.Normal(mean[0], factor[0, 0])
    flat = dist.MultivariateNormal(mean, scale_tril=factor)
    if len(shape) == 1:
        return flat
    return dist.TransformedDistribution(flat, ReshapeTransform(shape, mean.shape))
