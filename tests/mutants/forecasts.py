"""Forecasts of a series with drawn states, and what can be wrong with them.

Each step has a state and a datum, and the datum depends on the one before it too: what comes next
depends on the last state and on the last datum, both of which are known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference.results.forecast import continued
from inference.results.predictive import replicate
from ppl import Target, draw, gen, sample
from semantics import check_equivalent

from .registry import Entry, Kind

MOVES = jnp.array([0.25, 0.75])
HEADS = jnp.array([[0.125, 0.5], [0.625, 0.875]])


@gen(static_argnames="n")
def series(n):
    def step(before, _):
        z, y = before
        z = sample("z", dist.Bernoulli(MOVES[z]))
        y = sample("y", dist.Bernoulli(HEADS[z, y]))
        return (z, y), None

    jax.lax.scan(step, (0, 0), None, length=n)


TARGET = Target(series, (3,), {"y": jnp.array([1, 0, 1])})
LATENTS = {"z": jnp.array([0, 1, 1])}


def next_datum() -> jax.Array:
    """After the last state and the last datum, by hand."""
    z = draw(dist.Bernoulli(MOVES[1]))
    return draw(dist.Bernoulli(HEADS[z, 1]))


def forecast() -> jax.Array:
    """The library's."""
    return continued(TARGET, (4,))(LATENTS)["values"][("y",)][3]


def generated(wrong: str) -> Any:
    """By `generate` on the longer series, with one thing `wrong`."""
    if wrong == "redrawn past":
        return replicate(TARGET, (4,))(LATENTS)["y"][3]
    step = {"z": LATENTS["z"][-1], "y": TARGET.observations["y"][-1]}
    if wrong == "redrawn states":
        z = series.simulate(3)["z"][-1]
    elif wrong == "last state again":
        return draw(dist.Bernoulli(HEADS[step["z"], step["y"]]))
    else:
        z = step["z"]
    return draw(dist.Bernoulli(HEADS[draw(dist.Bernoulli(MOVES[z])), step["y"]]))


def _entry(kind: Kind, name: str, says: str, f: Callable[[], Any]) -> Entry:
    return Entry("forecasts", name, says, partial(check_equivalent, f, next_datum), kind)


ENTRIES = (
    _entry("correct", "continued", "what was observed and drawn is kept", forecast),
    _entry(
        "mutant", "redrawn past", "the past that was observed is drawn anew",
        partial(generated, "redrawn past"),
    ),
    _entry(
        "mutant", "redrawn states", "the states that were drawn are drawn anew",
        partial(generated, "redrawn states"),
    ),
    _entry(
        "mutant", "last state again", "the last state is that of the next step",
        partial(generated, "last state again"),
    ),
)  # fmt: skip
