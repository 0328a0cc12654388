"""When a fit may stop: the objective is known not to have grown by more than so much."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

FIRST = 500
"""Steps before the first look."""

FALSE_STOPS = 0.05


def looks(most: int) -> list[int]:
    """After how many steps to look: each time half as many again.

    >>> from inference.running.stopping import looks
    >>> looks(2000)
    [500, 750, 1125, 1688]
    """
    found, at = [], float(FIRST)
    while at < most:
        found.append(math.ceil(at))
        at *= 1.5
    return found


def settled(values: np.ndarray, look: int, tolerance: float) -> bool:
    """Whether the last quarter's mean is known to be less than `tolerance` above the one before.

    Known with an error probability whose sum over all looks is `FALSE_STOPS` = 0.05: the estimates
    of different steps are independent given the iterates, so their means are taken for normal.
    That is the rate of stopping at a look where the mean objective still grows by the tolerance,
    or more, from a quarter of the steps to the next.

    Args:
      values: the objective's estimates so far, at least 8.
      look: the number of this look, from 0.
      tolerance: in units of the objective.

    >>> import numpy as np
    >>> from inference.running.stopping import settled
    >>> noise = np.random.default_rng(0).normal(size=10_000)
    >>> settled(noise, 0, 0.1), settled(noise + np.arange(10_000) / 1e4, 0, 0.1)
    (True, False)
    """
    n = len(values) // 4
    before, last = values[-2 * n : -n].astype(float), values[-n:].astype(float)
    error = math.sqrt((before.var(ddof=1) + last.var(ddof=1)) / n)
    rate = FALSE_STOPS * 6 / (math.pi * (look + 1)) ** 2  # sums to it over all looks
    return bool(last.mean() - before.mean() - NormalDist().inv_cdf(rate) * error < tolerance)
