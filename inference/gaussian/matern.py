"""Matérn kernels of half-integer order: the state is f and its first derivatives.

With λ = sqrt(2ν) / scale, the state is f^(i) / λ^i, so A and Q are functions of λ dt alone.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.constants import constants

from .entries import matrices
from .hyperparameters import as_float, check_parameters, record
from .kernel import Kernel
from .moments import each_moment

_FAR = 60.0
"""Gaps, times λ, after which exp(-2 λ dt) is zero in any precision."""


@constants
def _constants(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The coefficients of A, Q and P of order d, with λ = 1 and variance 1.

    A(x) = exp(-x) Σ_k a[k] x^k; Q(x) = Σ_m q[m] x^(m+1) ∫_0^1 v^m exp(-2 x v) dv.
    """
    drift = np.eye(d, k=1)  # (s + 1)^d, in companion form
    drift[-1] = [-math.comb(d, k) for k in range(d)]
    step, powers = drift + np.eye(d), [np.eye(d)]  # a nilpotent one
    for k in range(1, d):
        powers.append(powers[-1] @ step / k)
    a = np.stack(powers)
    response = a[:, :, -1]  # of the state to a unit of white noise: exp(-u) Σ_k response[k] u^k
    q = np.zeros((2 * d - 1, d, d))
    for k in range(d):
        for m in range(d):
            q[k + m] += np.outer(response[k], response[m])
    whole = np.array([math.factorial(m) / 2.0 ** (m + 1) for m in range(2 * d - 1)])
    p = np.einsum("m,mij->ij", whole, q)
    return a, q / p[0, 0], p / p[0, 0]


def _transition(d: int, x: jax.Array) -> jax.Array:
    a = _constants(d)[0]
    x = jnp.minimum(as_float(x), 700.0)  # zero from there on
    decay, powers = jnp.exp(-x), [x**k for k in range(d)]
    return matrices([[decay * _sum(a[:, i, j], powers) for j in range(d)] for i in range(d)])


def _noise(d: int, x: jax.Array, variance: Any) -> jax.Array:
    q = _constants(d)[1]
    x = jnp.minimum(as_float(x), _FAR)
    moments = each_moment(2 * x, 2 * d - 2)
    parts = [variance * x ** (m + 1) * moment for m, moment in enumerate(moments)]
    half = [[_sum(q[:, i, j], parts) for j in range(i + 1)] for i in range(d)]
    return matrices([[half[max(i, j)][min(i, j)] for j in range(d)] for i in range(d)])


def _sum(coefficients: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    """Of those that are not zero."""
    found = [float(c) * part for c, part in zip(coefficients, parts, strict=True) if c]
    return sum(found[1:], found[0])


class _Matern(Kernel):
    """What kernels of all orders share; a subclass gives the order."""

    scale: Any
    sigma: Any

    def _check(self) -> None:
        check_parameters(self, scale=self.scale)
        check_parameters(self, 0.0, sigma=self.sigma)

    def _in_units(self, dt: Any) -> jax.Array:
        return as_float(dt) * (math.sqrt(2 * self.dimension - 1) / self.scale)

    @property
    def rank(self) -> int | None:
        return None

    def transition(self, dt: Any) -> jax.Array:
        return _transition(self.dimension, self._in_units(dt))

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        return _noise(self.dimension, self._in_units(dt), jnp.asarray(self.sigma) ** 2)

    def start(self, at: Any) -> jax.Array:
        return jnp.asarray(self.sigma) ** 2 * _constants(self.dimension)[2]

    def observation(self) -> jax.Array:
        return jnp.eye(self.dimension)[0]

    def error(self) -> Any:
        return 0.0


@record
class Matern12(_Matern):
    """k(s, t) = sigma² exp(-r), r = |s - t| / scale: the Ornstein-Uhlenbeck process.

    Raises:
      InvalidArgument: a hyperparameter is not positive.

    >>> from inference.gaussian.matern import Matern12
    >>> round(float(Matern12(scale=2.0).covariance(0.0, 2.0)), 6)  # exp(-1)
    0.367879
    """

    scale: Any
    sigma: Any = 1.0

    @property
    def dimension(self) -> int:
        return 1


@record
class Matern32(_Matern):
    """k(s, t) = sigma² (1 + r) exp(-r), r = sqrt(3) |s - t| / scale: differentiable once.

    Raises:
      InvalidArgument: a hyperparameter is not positive.

    >>> from inference.gaussian.matern import Matern32
    >>> round(float(Matern32(scale=3**0.5).covariance(0.0, 1.0)), 6)  # 2 exp(-1)
    0.735759
    """

    scale: Any
    sigma: Any = 1.0

    @property
    def dimension(self) -> int:
        return 2


@record
class Matern52(_Matern):
    """k(s, t) = sigma² (1 + r + r²/3) exp(-r), r = sqrt(5) |s - t| / scale.

    Its paths are differentiable twice.

    Raises:
      InvalidArgument: a hyperparameter is not positive.

    >>> from inference.gaussian.matern import Matern52
    >>> round(float(Matern52(scale=5**0.5).covariance(0.0, 3.0)), 6)  # 7 exp(-3)
    0.348509
    """

    scale: Any
    sigma: Any = 1.0

    @property
    def dimension(self) -> int:
        return 3


@record
class Matern72(_Matern):
    """k(s, t) = sigma² (1 + r + 2r²/5 + r³/15) exp(-r), r = sqrt(7) |s - t| / scale.

    Its paths are differentiable three times.

    Raises:
      InvalidArgument: a hyperparameter is not positive.

    >>> from inference.gaussian.matern import Matern72
    >>> round(float(Matern72(scale=7**0.5).covariance(0.0, 1.0)), 6)  # 37/15 exp(-1)
    0.907436
    """

    scale: Any
    sigma: Any = 1.0

    @property
    def dimension(self) -> int:
        return 4
