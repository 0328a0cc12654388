"""How a draw becomes finitely many outcomes: its support, or quadrature nodes."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.linalg

from . import errors
from .constants import constants
from .distributions import elementwise, log_density

_NORMAL = NormalDist()
_FEWEST = {"gauss": 1, "midpoint": 1, "trapezoid": 2}


class Quadrature(NamedTuple):
    """How continuous draws become finite: nodes per scalar, and the rule.

    `"gauss"` takes Gauss-Hermite (normal family) or Gauss-Legendre (through the
    inverse distribution function) nodes, `"midpoint"` the middles of equal cells of the
    uniform, `"trapezoid"` equidistant points between `bounds` in unconstrained space,
    which do not move with the parameters.
    """

    nodes: int
    rule: str = "gauss"
    bounds: tuple[float, float] = (-8.0, 8.0)


def check_rule(rule: str, nodes: Any) -> None:
    """Raise where there is no such rule, or none with so many nodes."""
    if rule not in _FEWEST:
        raise errors.InvalidArgument(
            "Unknown quadrature rule.", where=errors.caller(), given=repr(rule),
            expected=", ".join(f'"{each}"' for each in _FEWEST), fix='rule="gauss"',
        )  # fmt: skip
    counts = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    whole = all(isinstance(n, (int, np.integer)) and n >= _FEWEST[rule] for n in counts)
    if nodes is not None and not (whole and len(counts) == 2):
        raise errors.InvalidArgument(
            "A quadrature needs a number of nodes, or two.", where=errors.caller(),
            given=f"nodes={nodes!r}, rule={rule!r}",
            expected=f"whole numbers of at least {_FEWEST[rule]}",
            fix="nodes=16, or nodes=(16, 24)",
        )  # fmt: skip


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


@constants
def gauss(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss's rule for standard normal or uniform base randomness: exact
    for polynomials of degree below 2n. Weights smaller than every float are zero.

    Nodes are the eigenvalues of the Jacobi matrix (Golub and Welsch 1969) after one step of
    Newton's method; weights are one over sums of squares of orthonormal polynomials, in which
    nothing cancels, and which are rescaled as they grow.
    """
    k = np.arange(1, n + 1)
    off = np.sqrt(k) if kind == "normal" else k / np.sqrt(4.0 * k * k - 1)
    x: Any = scipy.linalg.eigvalsh_tridiagonal(np.zeros(n), off[:-1])
    x = (x - x[::-1]) / 2
    step, _ = _orthonormal(x, off)
    x = x - step
    x = (x - x[::-1]) / 2
    _, log_weight = _orthonormal(x, off)
    w = np.exp(log_weight)
    x, w = (x, w) if kind == "normal" else ((x + 1) / 2, w)
    return x, w / w.sum()


_LARGE = 1e100


def _orthonormal(x: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton's step to the roots of the last of the polynomials p of the three-term recurrence
    off[k] p[k+1] = x p[k] - off[k-1] p[k-1], and minus log of the sum of the others' squares."""
    before, p, total, log_scale = np.zeros_like(x), np.ones_like(x), np.ones_like(x), 0.0
    for k, beta in enumerate(off):
        before, p = p, (x * p - (off[k - 1] if k else 0.0) * before) / beta
        if k == len(off) - 1:
            break
        total = total + p * p
        shrink = np.where(np.abs(p) > _LARGE, 1 / _LARGE, 1.0)
        before, p, total = before * shrink, p * shrink, total * shrink * shrink
        log_scale = log_scale - np.log(shrink)
    return off[-1] * p * before / total, -np.log(total) - 2 * log_scale


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


def value_on_grid(d: Any, z: Any) -> Any:
    """The value at unconstrained position z, elementwise."""
    return dist.biject_to(elementwise(d).support)(z)


def log_weight_on_grid(d: Any, z: Any) -> tuple[Any, Any]:
    """A value at unconstrained position z and its log density there, elementwise."""
    inner = elementwise(d)
    bijection = dist.biject_to(inner.support)
    value = bijection(z)
    return value, log_density(inner, value) + bijection.log_abs_det_jacobian(z, value)
