"""The score function: what comes after a choice multiplies its score, less a baseline.

Source: Williams (Machine Learning 1992); leave-one-out: Kool, van Hoof and Welling, Buy 4
REINFORCE samples, get a baseline for free (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ..addresses import nest
from ..effects import box
from .lanes import Lane, Value, along
from .nodes import DrawNode
from .scores import Score
from .strategies import Made, Site

Baseline = float | Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class LeaveOneOut:
    """`samples` values side by side; the baseline of each is the mean over the others."""

    samples: int


@dataclass(frozen=True)
class Reinforce:
    """See `ppl.reinforce`."""

    baseline: Baseline | LeaveOneOut | None = None
    scored = True
    biased = False

    @property
    def several(self) -> bool:
        return isinstance(self.baseline, LeaveOneOut)

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        if isinstance(self.baseline, LeaveOneOut):
            return _side_by_side(site, self.baseline.samples)
        value = site.sampled()
        log = site.log_density(value)
        if self.baseline is None:
            return Made(value, Score(log))
        baseline = self.baseline
        if callable(baseline):
            before = site.before()
            levels = along(
                lambda *values: baseline(nest(dict(zip(before, values, strict=True)))),
                *before.values(),
            )
        else:
            levels = Value(jnp.asarray(baseline, float))
        return Made(value, Score(log), along(lambda s, b: (1 - box(s)) * b, log, levels))


def _side_by_side(site: Site, n: int) -> Made:
    lane = Lane(site.node.number, n)
    value = site.sampled(lane)
    return Made(value, Score(site.log_density(value), lane, _left_out, _shares))


def _left_out(scores: Any) -> Any:
    """Each value's box, and what it takes from it that the others' boxes are no news."""
    n = scores.shape[0]
    boxes = box(scores)
    others = 1 - boxes
    return (boxes + (jnp.sum(others, 0) - others) / (n - 1)) / n


def _shares(scores: Any) -> Any:
    return jnp.full(scores.shape, 1 / scores.shape[0], scores.dtype)
