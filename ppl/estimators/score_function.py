"""The score function: what comes after a choice multiplies its score, less a baseline.

Source: Williams (Machine Learning 1992); leave-one-out: Kool, van Hoof and Welling, Buy 4
REINFORCE samples, get a baseline for free (2019); learned: Mnih and Gregor, Neural variational
inference and learning in belief networks (ICML 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..addresses import nest
from ..effects import box, weak
from .lanes import Lane, Value, along
from .nodes import DrawNode
from .scores import Score
from .strategies import Made, Site

Baseline = float | Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Fixed:
    """The derivative of the law is left out: none where parameters are whole numbers, or held.

    Elsewhere that is biased, and is said so.
    """

    biased: bool = False
    several = False
    scored = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        return Made(site.sampled())


@dataclass(frozen=True)
class LeaveOneOut:
    """`samples` values side by side; the baseline of each is the mean over the others."""

    samples: int


@dataclass(frozen=True, eq=False)
class Learned:
    """A baseline with parameters, which climb minus half of its mean squared error."""

    baseline: Callable[[Any, dict[str, Any]], Any]
    parameters: Any


@dataclass(frozen=True)
class Reinforce:
    """See `ppl.reinforce`."""

    baseline: Baseline | LeaveOneOut | Learned | None = None
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
        if isinstance(self.baseline, Learned):
            learned = self.baseline

            def level(known: dict[str, Any]) -> Any:
                return learned.baseline(learned.parameters, jax.lax.stop_gradient(known))

            levels = _before(site, level)
            # the derivative with respect to a zero added to a score is what the score is
            # multiplied by, the advantage; that of the level then is the error's share
            score = along(lambda s, b: s + weak(1.0, b), log, levels)
            levels = along(jax.lax.stop_gradient, levels)
        elif callable(self.baseline):
            score, levels = log, _before(site, self.baseline)
        else:
            score, levels = log, Value(jnp.asarray(self.baseline, float))
        return Made(value, Score(score), along(lambda s, b: (1 - box(s)) * b, score, levels))


def _before(site: Site, level: Callable[[dict[str, Any]], Any]) -> Value:
    """A function of the choices before."""
    before = site.before()

    def at(*values: Any) -> Any:
        return level(nest(dict(zip(before, values, strict=True))))

    return along(at, *before.values())


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
