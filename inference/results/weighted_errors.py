"""Moments of weighted particles, and their errors, from parts that are independent.

Particles of different *families* are independent of each other: families are the runs of an
algorithm; or, where no particle depends on another, the particles; or those that descend from one
particle of a filter's first step. An estimate changes by its influence function when a little of
the weight is added at a point, so its error is that of a sum of what the families add:

    se^2 = G / (G - 1) * sum over the G families of (sum over its particles of W_i phi(x_i))^2

for normalised weights W. The influence phi is x - mean for the mean, ((x - mean)^2 - sd^2) / (2 sd)
for the standard deviation, and 1 - 1 / (N W) for the log of the evidence.

Source: for particles, Geweke (Econometrica 1989); for families by ancestors, Chan and Lai (Annals
of Statistics 2013); for runs, the delta method for a ratio of means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Families:
    """Which particles are independent of which.

    Attributes:
      weights: normalised, of shape (runs, n).
      of: the family of each particle, numbers from 0 to runs * n - 1, of the same shape; None
        where the runs are the families.
    """

    weights: np.ndarray
    of: np.ndarray | None

    @property
    def count(self) -> int:
        """How many families there were."""
        return len(self.weights) if self.of is None else self.weights.size

    @property
    def alone(self) -> bool:
        """Whether every particle is a family: no particle depends on another."""
        return self.of is not None and len(np.unique(self.of)) == self.of.size

    @property
    def left(self) -> int:
        """How many families have any weight."""
        if self.of is None:
            return int((self.weights.sum(1) > 0).sum())
        return len(np.unique(self.of[self.weights > 0]))

    def error(self, parts: np.ndarray) -> np.ndarray:
        """The standard error of the sum of parts (runs, n, k); infinite if there is one family.

        NaN of one run that tells no families.
        """
        k = parts.shape[-1]
        if self.count < 2:
            return np.full(k, np.nan)
        if self.left < 2:
            return np.full(k, np.inf)
        return np.sqrt(self.count / (self.count - 1) * (self.sums(parts) ** 2).sum(0))

    def sums(self, parts: np.ndarray) -> np.ndarray:
        """What the families add: (families, k)."""
        if self.of is None:
            return parts.sum(1)
        flat = parts.reshape(-1, parts.shape[-1])
        if self.alone:
            return flat
        families, at = np.unique(self.of.ravel(), return_inverse=True)
        found = np.zeros((len(families), flat.shape[-1]))
        np.add.at(found, at.ravel(), flat)
        return found

    def evidence_error(self) -> float:
        """The standard error of the log of the mean weight, to first order.

        NaN of families by ancestors: the filter tells it (`log_evidence_error`).
        """
        if self.of is not None and not self.alone:
            return float("nan")
        return float(self.error(self.weights[..., None] - 1 / self.weights.size)[0])


def moments(x: np.ndarray, families: Families) -> dict[str, np.ndarray]:
    """Of columns (runs, n, k): mean, sd, their standard errors, and what the mean is worth.

    `ess` is the number of independent draws of the posterior whose mean has this error.

    >>> import numpy as np
    >>> from inference.results.weighted_errors import Families, moments
    >>> x = np.array([0.0, 1.0, 1.0, 2.0]).reshape(1, 4, 1)
    >>> found = moments(x, Families(np.full((1, 4), 0.25), np.arange(4)[None]))
    >>> print(f"{found['mean'][0]:.2f} {found['sd'][0]:.3f} {found['ess'][0]:.1f}")
    1.00 0.707 3.0
    """
    weights = families.weights[..., None]
    counts = weights > 0
    x = np.where(counts, np.asarray(x, np.float64), 0.0)  # what has no weight may be anything
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean = (weights * x).sum((0, 1)) if counts.any() else np.full(x.shape[-1], np.nan)
        centred = np.where(counts, x - mean, 0.0)
        sd = np.sqrt((weights * centred**2).sum((0, 1)))
        of_mean = families.error(weights * centred)
        of_sd = families.error(weights * (centred**2 - sd**2)) / (2 * sd)
        ess = (sd / of_mean) ** 2
    return {"mean": mean, "sd": sd, "mcse_mean": of_mean, "mcse_sd": of_sd, "ess": ess}


def quantiles(x: np.ndarray, weights: np.ndarray, at: tuple[float, ...]) -> np.ndarray:
    """The least values below which there is so much of the weight: shape (len(at), k).

    >>> import numpy as np
    >>> from inference.results.weighted_errors import quantiles
    >>> quantiles(np.array([3.0, 1.0, 2.0])[:, None], np.array([0.5, 0.25, 0.25]), (0.25, 0.6)).T
    array([[1., 3.]])
    """
    flat, weights = x.reshape(weights.size, -1), weights.ravel()
    found = np.full((len(at), flat.shape[1]), np.nan)
    counts = weights > 0
    if not counts.any():
        return found
    weights = weights[counts]
    for i in range(flat.shape[1]):
        column = np.asarray(flat[counts, i], np.float64)
        order = np.argsort(column)
        below = np.cumsum(weights[order])
        places = np.searchsorted(below, np.asarray(at) * below[-1] * (1 - 1e-12))
        found[:, i] = column[order][np.minimum(places, len(order) - 1)]
    return found


def effective(weights: np.ndarray) -> float:
    """1 / sum of the squares of weights that add up to one; 0 where all are zero."""
    squares = float((weights**2).sum())
    return 0.0 if squares == 0 else float(weights.sum() ** 2 / squares)


def distinct(x: np.ndarray, weights: np.ndarray) -> float:
    """The effective number of distinct values, by their weights together."""
    counts = weights.ravel() > 0
    _, at = np.unique(x.ravel()[counts], return_inverse=True)
    return effective(np.bincount(at.ravel(), weights.ravel()[counts]))
