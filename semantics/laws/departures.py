"""Departures from a law: how far what was computed is from what the law says, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from .cases import Case
from .stacked import eps, shown

EXACT = 4500
"""Rounding of an enumeration, in units of the float's epsilon: 1e-12 in float64."""
ROUNDING = 64
"""Rounding of an equation, in epsilons for each log density, its size and its sensitivity."""
DRAWS = "it draws without addresses"


class LeftOut(Exception):
    """A law that does not apply to a model, and why."""


class Found:
    """The departure that a law has found closest to its threshold, or beyond, and where."""

    def __init__(self, case: Case):
        self.method, self.size, self.n = case.method, case.size, 0
        self.limit = (EXACT if case.exact else ROUNDING) * eps()
        self.error, self.threshold, self.witness = 0.0, self.limit, ""

    def equal(self, what: str, got: Any, want: Any, traces: Any = None) -> None:
        """Compare trees of arrays whose first axis runs over the traces."""
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            a, b = (np.asarray(x, float) for x in (a, b))
            self.n += len(a)
            with np.errstate(invalid="ignore"):
                error = np.where(a == b, 0.0, np.abs(a - b) / (self.size + np.abs(a) + np.abs(b)))
            error = np.where(np.isnan(error), np.inf, error)
            if error.size:
                i = np.unravel_index(np.argmax(error), error.shape)
                where = "" if traces is None else f", at {shown(traces, i[0])}"
                words = f"{what} is {a[i]:.9g}, expected {b[i]:.9g}{where}"
                self.departs(float(error[i]), self.limit, words)

    def departs(self, error: float, threshold: float, words: str) -> None:
        if error / threshold > self.error / self.threshold:
            self.error, self.threshold, self.witness = error, threshold, words

    def measures(self, what: str, got: Mapping, want: Mapping) -> None:
        """Compare the masses of choices, given as rows of numbers."""
        for row in {**got, **want}:
            a, b = got.get(row, 0.0), want.get(row, 0.0)
            words = f"the mass of {row} under {what} is {a:.9g}, expected {b:.9g}"
            self.departs(abs(a - b) if a == a else np.inf, self.limit, words)
        self.n += len(want)
