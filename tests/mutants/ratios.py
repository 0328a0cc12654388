"""Log ratios term by term, one of which may be wrong, and decisions by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw
from semantics.contracts.moves import check_move

from .registry import Entry, Kind


def total(terms: Mapping[str, Any], wrong: str) -> jax.Array:
    """The sum of the terms, without the one that is `wrong`."""
    return jnp.asarray(sum(term for name, term in terms.items() if name != wrong))


def taken(log_ratio: jax.Array) -> jax.Array:
    """Each True with probability min(1, ratio)."""
    return draw(dist.Bernoulli(jnp.exp(jnp.minimum(log_ratio, 0.0)))) == 1


def moves(family: str, make_move: Callable, on: Any, ratio: Callable) -> Callable[..., Entry]:
    """`entry(kind, wrong, says)`: a move with `ratio(wrong, target, trace, u)`."""

    def entry(kind: Kind, wrong: str, says: str) -> Entry:
        check = partial(check_move, make_move, on, ratio=partial(ratio, wrong))
        return Entry(family, wrong or "correct", says, check, kind)

    return entry


def library(family: str, make_move: Callable, on: Any) -> Entry:
    """The same move, with the ratio that the library takes."""
    says = "by the library's ratio"
    return Entry(family, "library", says, partial(check_move, make_move, on), "correct")
