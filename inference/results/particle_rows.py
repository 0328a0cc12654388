"""The rows of a summary of weighted particles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from .summary import Columns, quantile_names
from .weighted_errors import Families, moments, quantiles


def rows_of(columns: Columns, families: Families, fixed: Collection[str]) -> dict[str, dict]:
    """By scalar: mean, sd, their errors, what the mean is worth, and a note.

    Those that are `fixed` by their supports are constants.
    """
    rows: dict[str, dict[str, Any]] = {}
    counts = families.weights > 0
    for names, x in columns:
        found = moments(x, families)
        for i, name in enumerate(names):
            note = _note(x[..., i][counts], name in fixed)
            rows[name] = {key: float(value[i]) for key, value in found.items()}
            if note:
                rows[name] |= {"mcse_mean": np.nan, "mcse_sd": np.nan, "ess": np.nan, "note": note}
            rows[name]["note"] = note
    return rows


def _note(x: np.ndarray, fixed: bool) -> str:
    """What is degenerate about the particles that count; empty when nothing is."""
    if not x.size:
        return "no weight"
    nans, infinite = int(np.isnan(x).sum()), int(np.isinf(x).sum())
    if nans or infinite:
        return f"{nans} NaN" if nans else f"{infinite} infinite"
    if fixed:
        return "fixed by its support"
    return "constant" if np.ptp(x.astype(np.float64)) == 0 else ""


def with_interval(
    rows: Mapping[str, Mapping[str, Any]], columns: Columns, weights: np.ndarray, prob: float
) -> dict[str, dict[str, Any]]:
    """The rows with the ends of the equal-tailed interval, after mean and sd."""
    low, high = quantile_names(prob)
    found = {}
    for names, x in columns:
        ends = quantiles(x, weights, ((1 - prob) / 2, (1 + prob) / 2))
        for i, name in enumerate(names):
            row = rows[name]
            rest = {key: row[key] for key in row if key not in ("mean", "sd")}
            between = {low: float(ends[0, i]), high: float(ends[1, i])}
            found[name] = {"mean": row["mean"], "sd": row["sd"], **between, **rest}
    return found
