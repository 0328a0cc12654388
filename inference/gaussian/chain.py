"""A chain of Gaussian states, each observed through one number or more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import errors

from .entries import FEW, entries


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chain:
    """x_t = A_t x_{t-1} + b_t + w_t, w_t ~ N(0, Q_t); y_t = H_t x_t + c_t + v_t, v_t ~ N(0, R_t).

    The state that is given is the one *before* the first step: n observations have n
    transitions, and entry t of each array leads into observation t. A start *at* the first
    observation is a first transition that is the identity, with no noise. Observations are one
    number each, or p of them, as `present` has one axis or two.

    Attributes:
      mean, covariance: of the state before the first step, `(d,)` and `(d, d)`.
      transition, noise: A and Q, `(n, d, d)`.
      observation: H, `(d,)` or `(n, d)` of one number; `(p, d)` or `(n, p, d)` of p.
      variance: R, `(n,)`; of p numbers `(n, p)`, or `(n, p, p)` if they are not independent. It
        may be zero or singular: what has no noise is observed exactly.
      present: 1 where there is an observation and 0 where it is left out, `(n,)` or `(n, p)`.
      offset: b, `(n, d)`; None for zero.
      level: c, of the shape of the observations; None for zero.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.chain import Chain
    >>> from inference.gaussian.evidence import evidence
    >>> one = jnp.ones((1, 1, 1))
    >>> walk = Chain(jnp.zeros(1), jnp.eye(1), one, one, jnp.ones(1), jnp.ones(1), jnp.ones(1))
    >>> round(float(evidence(walk, jnp.zeros(1))), 4)  # log N(0; 0, 1 + 1 + 1)
    -1.4682
    """

    mean: jax.Array
    covariance: jax.Array
    transition: jax.Array
    noise: jax.Array
    observation: jax.Array
    variance: jax.Array
    present: jax.Array
    offset: jax.Array | None = None
    level: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Steps:
    """Steps with times behind, where vectors are contiguous, and a row for each number seen.

    A and Q are `(d, d, n)`, H is `(p, d, n)` or `(p, d, 1)`, R is `(p, n)` or `(p, p, n)`, b is
    `(d, n)` or None; `present` and `values`, which are less c, are `(p, n)`.
    """

    transition: jax.Array
    noise: jax.Array
    observation: jax.Array
    variance: jax.Array
    present: jax.Array
    values: jax.Array
    offset: jax.Array | None

    @property
    def dimension(self) -> int:
        return self.transition.shape[0]

    @property
    def width(self) -> int:
        """How many numbers are seen at once."""
        return self.values.shape[0]

    @property
    def count(self) -> int:
        return self.values.shape[1]

    def by_entry(self, x: jax.Array, rank: int) -> Any:
        """`x` by its entries, if both states and observations have few rows."""
        return entries(x, rank, max(self.dimension, self.width) <= FEW)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Course:
    """What a series is made of, from which its steps are made piece by piece.

    Attributes:
      mean, covariance: of the state before the first step.
      shared: what is the same at all times.
      rows: arrays `(..., n)` of the rest. Where all are zero, nothing is seen.
    """

    mean: jax.Array
    covariance: jax.Array
    shared: Any
    rows: Any

    @property
    def count(self) -> int:
        return jax.tree.leaves(self.rows)[0].shape[-1]


def given(shared: jax.Array | None, rows: Steps) -> Steps:
    """The steps of a chain are its rows, but for an observation that is always the same."""
    return rows if shared is None else dataclasses.replace(rows, observation=shared)


def course_of(chain: Chain, values: jax.Array) -> Course:
    """A chain that is observed at these values, all in the dtype of the values; of `given`."""
    cast = lambda x: jnp.asarray(x, values.dtype)  # noqa: E731
    behind = lambda x: jnp.moveaxis(cast(x), 0, -1)  # noqa: E731
    if values.shape != chain.present.shape:
        raise errors.InvalidArgument(
            "A chain has a value for each of its observations.", where=errors.caller(),
            given=f"values of shape {values.shape}", expected=f"shape {chain.present.shape}",
            fix="values=jnp.zeros(chain.present.shape), and present=False where there is none",
        )  # fmt: skip
    if chain.level is not None:
        values = values - cast(chain.level)
    h, variance, present = cast(chain.observation), cast(chain.variance), cast(chain.present)
    if present.ndim == 1:  # one number is a row of one
        h = h[..., None, :]
        variance, present, values = (x[:, None] for x in (variance, present, values))
    always = h[..., None] if h.ndim == 2 else None
    rows = Steps(
        transition=behind(chain.transition),
        noise=behind(chain.noise),
        observation=None if always is not None else behind(h),  # type: ignore[arg-type]
        variance=behind(variance),
        present=behind(present),
        values=behind(values),
        offset=None if chain.offset is None else behind(chain.offset),
    )
    return Course(cast(chain.mean), cast(chain.covariance), always, rows)
