"""Evidence about a mean when no range is known, but a bound of the standard deviation is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from .e_values import _numbers, combine, multiply

_STAKES = 2.0 ** -np.arange(1, 17)
"""Times 1 / deviation; the best one of n draws is near sqrt(2 log(1/alpha) / n)."""


def finite_variance_mean(x: ArrayLike, mean: ArrayLike, deviation: ArrayLike) -> np.ndarray:
    """Log e-process: E[x_i | x_1 ... x_(i-1)] = mean, for standard deviations up to `deviation`.

    Whatever the tails: with f(y) = log(1 + y + y^2 / 2) for y >= 0, and -f(-y) below, the mean of
    exp(f(b (x - mean))) is at most 1 + b^2 s^2 / 2, so that the product over i of
    exp(f(b (x_i - mean)) - b^2 s^2 / 2) is an e-process for each stake b; it is averaged over
    stakes of both signs.

    Args:
      x: shape (..., n); `mean` and `deviation` broadcast against it.

    Source: Catoni (AIHP 2012); Wang and Ramdas, Catoni-style confidence sequences for heavy-tailed
    mean estimation (SPA 2023), proposition 8.

    >>> import numpy as np
    >>> heavy = np.random.default_rng(0).standard_t(3, size=4000)
    >>> log_es = finite_variance_mean(heavy, [[0.0], [0.5]], 3**0.5)
    >>> bool(log_es[0] < 5), bool(log_es[1] > 50)
    (True, True)
    """
    names = ("x", x), ("mean", mean), ("deviation", deviation)
    x, mean, deviation = (_numbers(name, value) for name, value in names)
    z = (x - mean) / deviation
    sides = []
    for stake in (*_STAKES, *-_STAKES):
        y = stake * z
        gain = np.sign(y) * np.log1p(np.abs(y) + y**2 / 2)
        sides.append(multiply(gain - stake**2 / 2))
    return combine(np.stack(sides, -1))


def finite_variance_effect(n: int, alpha: float, deviation: float) -> float:
    """The shift of the mean from which on n draws are rejected, but for one case in a hundred.

    The log wealth of a stake b grows by b shift - b^2 deviation^2 a draw, with deviation b
    deviation; the best of the stakes is within a factor of two of the best of all, which keeps 8/9
    of its growth. Taken as normal.

    >>> round(finite_variance_effect(10_000, 1e-8, 1.0), 3)
    0.129
    """
    needed = math.log(1 / alpha) + math.log(2 * len(_STAKES))
    z, kept = 2.326, 8 / 9
    u = (z + math.sqrt(z**2 + 4 * kept * needed)) / (2 * kept)
    return 2 * deviation * u / math.sqrt(n)
