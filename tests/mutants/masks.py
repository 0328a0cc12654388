"""A mask with one flag a row, for as many rows as a row has elements, and what can be wrong.

A flag stands for a row. Aligned from the right, as arrays are broadcast, it would stand for a
column; both fit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Masked, Target, draw, gen, sample
from semantics import check_equivalent

from .registry import Entry, Kind

FAIR = 0.25
HEADS = jnp.array([[[0.5, 0.25], [0.75, 0.125]], [[0.875, 0.5], [0.25, 0.625]]])
DATA = jnp.array([[1, 0], [1, 1]])
SEEN = jnp.array([True, False])


@gen
def rows():
    fair = sample("fair", dist.Bernoulli(FAIR))
    sample("y", dist.Bernoulli(HEADS[fair]).to_event(1))


def posterior(mask: Any) -> jax.Array:
    """A draw of the latent given what the mask keeps."""
    target = Target(rows, (), {"y": DATA if mask is None else Masked(DATA, mask)})
    logs = jnp.stack([target.log_density({"fair": fair}) for fair in range(2)])
    return draw(dist.CategoricalProbs(jax.nn.softmax(logs)))


def by_hand() -> jax.Array:
    """Given the first row alone."""
    likely = HEADS[:, 0, 0] * (1 - HEADS[:, 0, 1])
    masses = jnp.array([1 - FAIR, FAIR]) * likely
    return draw(dist.CategoricalProbs(masses / masses.sum()))


def _entry(kind: Kind, name: str, says: str, mask: Any) -> Entry:
    check = partial(check_equivalent, partial(posterior, mask), by_hand)
    return Entry("masks", name, says, check, kind)


ENTRIES = (
    _entry("correct", "rows", "a flag stands for a row", SEEN),
    _entry("equivalent", "elements", "a flag for each element", SEEN[:, None] & (DATA >= 0)),
    _entry("mutant", "transposed", "a flag stands for a column", SEEN & (DATA >= 0)),
    _entry("mutant", "no mask", "rows that are left out count", None),
)
