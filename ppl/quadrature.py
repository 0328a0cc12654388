"""How a draw becomes finitely many outcomes: its support, or quadrature nodes."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .distributions import log_density

_NORMAL = NormalDist()


def elements(d: Any) -> tuple[int, ...] | None:
    """Shape of the independent scalar parts of one value (None: not such a product)."""
    if isinstance(d, dist.Independent):
        return elements(d.base_dist)
    return tuple(d.batch_shape) if not d.event_shape else None


def outcomes(d: Any) -> Any:
    """The values that each scalar element can take, if they are finitely many and known."""
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        d = d.base_dist
    if isinstance(d, (dist.BernoulliProbs, dist.BernoulliLogits)):
        return np.arange(2)
    if isinstance(d, dist.CategoricalProbs):
        return np.arange(jnp.shape(d.probs)[-1])
    if isinstance(d, dist.CategoricalLogits):
        return np.arange(jnp.shape(d.logits)[-1])
    if not getattr(d, "has_enumerate_support", False) or d.event_shape:
        return None
    try:
        with jax.ensure_compile_time_eval():
            values = d.enumerate_support(expand=False)
            return np.asarray(values).reshape(len(values), -1)[:, 0]
    except Exception:  # numpyro needs concrete bounds and raises various errors without them
        return None


def gauss(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for standard normal or uniform base randomness (Golub-Welsch)."""
    if kind == "normal":
        x, w = np.polynomial.hermite_e.hermegauss(n)
        return x, w / w.sum()
    x, w = np.polynomial.legendre.leggauss(n)
    return 0.5 * (x + 1), 0.5 * w


def midpoints(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The middles of n cells of equal probability."""
    u = (np.arange(n) + 0.5) / n
    x = np.array([_NORMAL.inv_cdf(each) for each in u]) if kind == "normal" else u
    return x, np.full(n, 1 / n)


def sinh_grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Trapezoid rule on the line after x = sinh(t): doubly exponential decay at the ends.

    More points reach further out as well as closer together, so that comparing two
    counts sees what either neglects.
    """
    width = min(7.0, 1.4 * math.log(n))
    t, h = np.linspace(-width, width, n, retstep=True)
    return np.sinh(t), h * np.cosh(t)


def log_weight_on_grid(d: Any, z: Any) -> tuple[Any, Any]:
    """A value at unconstrained position z and its log density there, elementwise."""
    inner = d
    while isinstance(inner, dist.Independent):
        inner = inner.base_dist
    bijection = dist.biject_to(inner.support)
    value = bijection(z)
    return value, log_density(inner, value) + bijection.log_abs_det_jacobian(z, value)
