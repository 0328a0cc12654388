"""Kernels that are laws of linear stochastic differential equations, and their algebra.

A kernel has a state x and a process f = H x. Over a gap dt the state becomes A(dt) x + w, where
w is normal with covariance Q(dt), and is independent of what was before. That is exact, at gaps
of any length (Hartikainen & Särkkä 2010). Sums, products and multiples of kernels are kernels.
"""

from __future__ import annotations

import abc
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from ppl import errors

from ..validation.settings import shown
from .hyperparameters import check_parameters, is_number, record


class Kernel(abc.ABC):
    """The law of a process on a line, whose state is Markov.

    Subclasses are frozen dataclasses of their hyperparameters, and pytrees. A time or a gap has
    any shape; matrices come with two axes behind it.

    >>> from inference.gaussian.matern import Matern12, Matern32
    >>> k = 2.0 * Matern12(scale=1.0) + Matern32(scale=3.0)
    >>> round(float(k.covariance(1.0, 1.0)), 6), k.dimension
    (3.0, 3)
    """

    @property
    @abc.abstractmethod
    def dimension(self) -> int:
        """How many numbers the state has."""

    @property
    @abc.abstractmethod
    def rank(self) -> int | None:
        """How many values determine all others; None if no number of them does."""

    @abc.abstractmethod
    def _check(self) -> None:
        """Raise `InvalidArgument` for hyperparameters that are known to be wrong."""

    @abc.abstractmethod
    def transition(self, dt: Any) -> jax.Array:
        """A, for which E[x(t + dt) | x(t)] = A x(t); the identity at dt = 0."""

    @abc.abstractmethod
    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        """Q, the covariance of x(t + dt) given x(t): zero at dt = 0, and precise near it.

        Args:
          at: the time t, on which only products with a kernel that is not stationary depend.
        """

    @abc.abstractmethod
    def start(self, at: Any) -> jax.Array:
        """The covariance of the state at a time, before any datum; its mean is zero."""

    @abc.abstractmethod
    def observation(self) -> jax.Array:
        """H, of shape `(dimension,)`, for which f(t) = H x(t)."""

    @abc.abstractmethod
    def error(self) -> Any:
        """By how much `covariance` may differ from the kernel it is named for, at most."""

    def stationary(self) -> jax.Array:
        """P, the covariance of the state at any time.

        Raises:
          InvalidArgument: the law differs from time to time: it has a `start(at)`.
        """
        return self.start(None)

    def covariance(self, s: Any, t: Any) -> jax.Array:
        """k(s, t) = H A(t - s) P(s) H', for s before t; and k(t, s).

        Args:
          s, t: times whose shapes broadcast: `k.covariance(s[:, None], t)` is a matrix.
        """
        s, t = jnp.asarray(s, float), jnp.asarray(t, float)
        h, first = self.observation(), jnp.minimum(s, t)
        forward = self.transition(jnp.maximum(s, t) - first)
        return jnp.einsum("i,...ij,...jk,k->...", h, forward, self.start(first), h)

    def __add__(self, other: Any) -> Kernel:
        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: Any) -> Kernel:
        if isinstance(other, Kernel):
            return Product(self, other)
        return Scaled(self, other) if is_number(other) else NotImplemented

    def __rmul__(self, other: Any) -> Kernel:
        return Scaled(self, other) if is_number(other) else NotImplemented


def check_kernel(kernel: Any) -> None:
    """Raise `InvalidArgument` unless `kernel` is a kernel of this room, all of single numbers."""
    if not isinstance(kernel, Kernel):
        raise errors.InvalidArgument(
            "A kernel was expected.", where=errors.caller(), given=shown(kernel),
            expected="the law of a process on a line", fix="Matern32(scale=1.0)",
        )  # fmt: skip
    for path, leaf in jax.tree_util.tree_leaves_with_path(kernel):
        if not is_number(leaf):
            raise errors.InvalidArgument(
                "A hyperparameter of a kernel is one number.", where=errors.caller(),
                given=f"{jax.tree_util.keystr(path)[1:]}={shown(leaf)}",
                expected="one number each", fix="jax.vmap over kernels, to have many",
            )  # fmt: skip


@record
class Sum(Kernel):
    """k(s, t) = a(s, t) + b(s, t): the states side by side.

    >>> from inference.gaussian.kernel import Sum
    >>> from inference.gaussian.matern import Matern12
    >>> k = Sum(Matern12(1.0), Matern12(2.0))
    >>> round(float(k.covariance(0.0, 1.0)), 6)  # exp(-1) + exp(-1/2)
    0.97441
    """

    a: Kernel
    b: Kernel

    def _check(self) -> None:
        check_kernel(self.a)
        check_kernel(self.b)

    @property
    def dimension(self) -> int:
        return self.a.dimension + self.b.dimension

    @property
    def rank(self) -> int | None:
        ranks = (self.a.rank, self.b.rank)
        return None if None in ranks else sum(r for r in ranks if r is not None)

    def transition(self, dt: Any) -> jax.Array:
        return _side_by_side(self.a.transition(dt), self.b.transition(dt))

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return _side_by_side(self.a.noise(dt, at), self.b.noise(dt, at))

    def start(self, at: Any) -> jax.Array:
        return _side_by_side(self.a.start(at), self.b.start(at))

    def observation(self) -> jax.Array:
        return jnp.concatenate([self.a.observation(), self.b.observation()])

    def error(self) -> Any:
        return self.a.error() + self.b.error()


def _side_by_side(a: jax.Array, b: jax.Array) -> jax.Array:
    outer = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(x, (*outer, *x.shape[-2:])) for x in (a, b))
    corner = jnp.zeros((*outer, a.shape[-1], b.shape[-1]), jnp.result_type(a, b))
    above, below = [a, corner], [jnp.swapaxes(corner, -1, -2), b]
    return jnp.concatenate([jnp.concatenate(above, -1), jnp.concatenate(below, -1)], -2)


@record
class Product(Kernel):
    """k(s, t) = a(s, t) b(s, t): the state is the Kronecker product of the states.

    Its noise is Qa ⊗ Pb + (A Pa A') ⊗ Qb, a sum of covariances, so that nothing cancels.

    >>> from inference.gaussian.kernel import Product
    >>> from inference.gaussian.matern import Matern12
    >>> k = Product(Matern12(1.0), Matern12(2.0))
    >>> round(float(k.covariance(0.0, 1.0)), 6)  # exp(-3/2)
    0.22313
    """

    a: Kernel
    b: Kernel

    def _check(self) -> None:
        check_kernel(self.a)
        check_kernel(self.b)

    @property
    def dimension(self) -> int:
        return self.a.dimension * self.b.dimension

    @property
    def rank(self) -> int | None:
        a, b = self.a.rank, self.b.rank
        return None if a is None or b is None else a * b

    def transition(self, dt: Any) -> jax.Array:
        return _kronecker(self.a.transition(dt), self.b.transition(dt))

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        forward = self.a.transition(dt)
        moved = forward @ self.a.start(at) @ jnp.swapaxes(forward, -1, -2)
        after = self.b.start(None if at is None else at + dt)
        return _kronecker(self.a.noise(dt, at), after) + _kronecker(moved, self.b.noise(dt, at))

    def start(self, at: Any) -> jax.Array:
        return _kronecker(self.a.start(at), self.b.start(at))

    def observation(self) -> jax.Array:
        return jnp.kron(self.a.observation(), self.b.observation())

    def error(self) -> Any:
        a, b = self.a.error(), self.b.error()
        return _largest(self.a) * b + _largest(self.b) * a + a * b if _approximate(self) else 0.0


def _kronecker(a: jax.Array, b: jax.Array) -> jax.Array:
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    rows, columns = a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1]
    return product.reshape(*product.shape[:-4], rows, columns)


def _approximate(kernel: Kernel) -> bool:
    errors_of = (getattr(kernel, "a", None), getattr(kernel, "b", None))
    return any(part is not None and not _is_zero(part.error()) for part in errors_of)


def _is_zero(value: Any) -> bool:
    return isinstance(value, float) and value == 0.0


def _largest(kernel: Kernel) -> Any:
    h = kernel.observation()
    return h @ kernel.stationary() @ h


@record
class Scaled(Kernel):
    """k(s, t) = factor · a(s, t).

    Raises:
      InvalidArgument: the factor is negative.

    >>> from inference.gaussian.kernel import Scaled
    >>> from inference.gaussian.matern import Matern12
    >>> round(float(Scaled(Matern12(1.0), 4.0).covariance(0.0, 1.0)), 6)  # 4 exp(-1)
    1.471518
    """

    a: Kernel
    factor: Any

    def _check(self) -> None:
        check_kernel(self.a)
        check_parameters(self, 0.0, factor=self.factor)

    @property
    def dimension(self) -> int:
        return self.a.dimension

    @property
    def rank(self) -> int | None:
        return self.a.rank

    def transition(self, dt: Any) -> jax.Array:
        return self.a.transition(dt)

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return self.factor * self.a.noise(dt, at)

    def start(self, at: Any) -> jax.Array:
        return self.factor * self.a.start(at)

    def observation(self) -> jax.Array:
        return self.a.observation()

    def error(self) -> Any:
        found = self.a.error()
        return found if _is_zero(found) else self.factor * found
