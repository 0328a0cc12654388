"""How heavy the tail of importance weights is: the k-hat of Pareto-smoothed importance sampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .verdict import array_stats


def khat(log_weights: Any) -> float | None:
    """The shape k of the generalised Pareto law fitted to the largest weights; None: not known.

    Moments of the weights below 1/k are finite. Above 0.7 (or 1 - 1/log10(n), if less) estimates
    that are weighted so are unreliable. -inf where all weights are equal, but for rounding. Where
    weights in the tail are tied, as they are after resampling or for a guide of few outcomes, a
    law with a density does not fit them: then k is not known.

    Args:
      log_weights: of independent draws, of shape (n,).

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling (JMLR
    2024); the fit is that of arviz-stats.

    >>> import numpy as np
    >>> from inference.results.khat import khat
    >>> x = np.random.default_rng(0).normal(size=4000)
    >>> k = khat(x**2 / 2 * 0.8)  # of weights with density ~ w^(-1 - 1/0.8): k = 0.8
    >>> bool(abs(k - 0.8) < 0.2), khat(np.zeros(100)), khat(np.repeat(x[:50], 20))
    (True, -inf, None)
    """
    given = np.asarray(log_weights)
    logs = given.astype(np.float64)
    if logs.size < 25 or not np.all(np.isfinite(logs) | (logs == -np.inf)):
        return None
    eps = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
    even = max(1e-6, 1e3 * eps * max(1.0, float(np.abs(logs).max(initial=0.0))))
    if np.isfinite(logs).all() and np.ptp(logs) <= even:
        return -math.inf
    # as many as the fit looks at, and the one that they are compared with
    tail = np.sort(logs)[-math.ceil(min(0.2 * logs.size, 3 * math.sqrt(logs.size))) - 1 :]
    if tail[0] == -np.inf or _tied(tail, eps):
        return None
    return float(array_stats().psislw(-logs)[1])  # which takes them with the other sign


def _tied(tail: np.ndarray, eps: float) -> bool:
    """Whether more values are the same than rounding makes so."""
    alike, width = len(tail) - len(np.unique(tail)), np.ptp(tail)
    if not alike or width == 0:
        return bool(alike)
    # a difference of two log densities of this size or more is rounded to so much
    step = 4 * eps * max(1.0, float(np.abs(tail).max()))
    by_rounding = len(tail) ** 2 / 2 * step / width
    return alike > 0.1 * len(tail) + 3 * by_rounding


def reliable(k: float, n: int) -> bool:
    """Whether estimates from n weights with this tail are.

    >>> from inference.results.khat import reliable
    >>> reliable(0.6, 1000), reliable(0.69, 1000), reliable(0.69, 100_000)
    (True, False, True)
    """
    return k <= min(0.7, 1 - 1 / math.log10(n))
