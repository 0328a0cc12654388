"""Moves between models of different dimension: reversible jump on padded arrays.

A model with a number k of components, of at most K, has its components as the rows of
arrays of length K, of which the first k are present:

    k = sample("k", dist.DiscreteUniform(1, K))
    jax.vmap(lambda j: lax.cond(j < k, component, nothing))(jnp.arange(K))

All states of all models then have one shape, and a jump is one involution of the padded
space, which works under `jit`. An absent row is 0, and so are absent auxiliary choices. A jump
from k to k + 1 draws as many numbers as a row has, and turns them into the new row (Green's
dimension matching); the zeros of the row that was absent go where the drawn numbers were, and
come back in the reverse jump. So the map is one to one on the padded space, and its Jacobian is
that of the coordinates that do change.

Source: Green, Reversible jump Markov chain Monte Carlo (Biometrika 1995); Richardson and Green,
On Bayesian analysis of mixtures with an unknown number of components (JRSS B 1997).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import GenerativeFunction, Selection, gen, sample
from ppl.addresses import as_path, as_selection, flatten, nest

from ..move import Move, check_move, log_abs_det, log_det_of
from ..validation.objects import check_callable, check_model
from ..validation.settings import check_count
from .components import (
    check_match,
    checked,
    poured,
    put_row,
    row_at,
    rows_of,
    swap_rows,
    uniform_row,
)

Address = str | tuple[str, ...]
Row = Any


def birth_death(
    number: Address,
    parts: Selection | Address,
    newborn: GenerativeFunction,
    *,
    least: int = 1,
) -> Move:
    """A new row is born anywhere among the present ones, or any row dies.

    Birth and death are as probable, except at the ends, where only one can be. A newborn takes
    the place of a row, which becomes the last; the last row takes the place of one that died.

    Args:
      number: the address of the number of present rows, an integer.
      parts: the addresses whose leading axis is that of the rows. Rows from the number on
        must be absent.
      newborn: from the latents to the choices of a new row: the addresses of `parts`, without
        the leading axis.
      least: the smallest number of rows that the model allows.

    Raises:
      InvalidArgument: raised when the move is used, by the addresses and shapes it meets.

    Source: Green (1995), section 3.2.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import metropolize
    >>> from inference.mcmc.jumps import birth_death
    >>> from ppl import Target, draw, gen, law, sample
    >>> @gen
    ... def bits():  # none, one or two bits, seen by a Poisson count
    ...     k = sample("k", dist.DiscreteUniform(0, 2))
    ...     row = lambda j: jax.lax.cond(j < k, lambda: sample("x", dist.Bernoulli(0.5)), lambda: 0)
    ...     sample("y", dist.Poisson(1.0 + jax.vmap(row)(jnp.arange(2)).sum()))
    >>> target = Target(bits, (), {"y": 1})
    >>> fair = gen(lambda latents: sample("x", dist.Bernoulli(0.5)))
    >>> kernel = metropolize(birth_death("k", "x", fair, least=0), target)
    >>> trace, _ = target.at({"k": 0, "x": jnp.zeros(2, int)})
    >>> after = law(lambda: kernel(trace)["k"])()
    >>> after.values.tolist(), after.masses.round(4).tolist()  # a birth is accepted by chance
    ([0, 1], [0.5661, 0.4339])
    """

    check_count("least", least, least=0)
    check_model(newborn)

    def split(row: Row, u: dict) -> tuple[Row, Row]:
        return row, nest(checked(u, flatten(row), newborn.fn))

    jump = _Jump(as_path(number), as_selection(parts), split, lambda *rows: rows, least, pairs=0)
    return jump.move(lambda latents, row: newborn(latents))


def split_merge(
    number: Address,
    parts: Selection | Address,
    auxiliary: GenerativeFunction,
    split: Callable[[Row, dict], tuple[Row, Row]],
    merge: Callable[[Row, Row], tuple[Row, dict]],
    *,
    least: int = 1,
) -> Move:
    """One row becomes two, or two become one; `merge` is the inverse of `split`.

    Each row, and each ordered pair of rows, is as probable. Split and merge are as probable,
    except at the ends, where only one can be. A merge whose u the auxiliary never draws is
    refused, so `merge` need not care which pairs can come from a split.

    Args:
      number, parts, least: as of `birth_death`; `least` is 1 or more.
      auxiliary: from a row, a nested dict without the leading axis, to the choices u, as many
        numbers as a row has.
      split: `(row, u) -> (first, second)`.
      merge: `(first, second) -> (row, u)`.

    Raises:
      InvalidArgument: raised when the move is used, by the addresses and shapes it meets.

    Source: Richardson and Green (1997), section 3.2; the log Jacobian by JAX.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.mcmc.jumps import split_merge
    >>> from ppl import gen, sample
    >>> share = gen(lambda row: sample("share", dist.Uniform(0.0, 1.0)))
    >>> def split(row, u):
    ...     x, share = row["x"], u["share"]
    ...     return {"x": x * share}, {"x": x * (1 - share)}
    >>> def merge(first, second):
    ...     x = first["x"] + second["x"]
    ...     return {"x": x}, {"share": first["x"] / x}
    >>> move = split_merge("k", "x", share, split, merge)
    >>> x = {"k": jnp.array(1), "x": jnp.array([4.0, 0.0])}
    >>> u = {"grows": jnp.array(1), "of": jnp.array(0), "at": jnp.array(1)}
    >>> u["new"] = {"share": jnp.array(0.25)}
    >>> there, back = move.involution(x, u)
    >>> int(there["k"]), there["x"].tolist(), float(back["new"]["share"])  # 0 is the filler
    (2, [1.0, 3.0], 0.0)
    >>> round(float(jnp.exp(move.log_det(x, u))), 4)  # |d(4 s, 4 (1 - s)) / d(4, s)| is 4
    4.0
    """
    check_count("least", least)
    check_model(auxiliary)
    check_callable("split", split, "a function (row, u) -> (first, second)", "split=split")
    check_callable("merge", merge, "a function (first, second) -> (row, u)", "merge=merge")
    jump = _Jump(as_path(number), as_selection(parts), split, merge, least, pairs=1)
    return jump.move(lambda latents, row: auxiliary(row))


def one_row(number: Address, parts: Selection | Address, move: Move) -> Move:
    """A move of one row, in place: any of those present. `move` has rows for its latents.

    Args:
      number, parts: as of `birth_death`.
      move: its proposal and involution take a row, a nested dict without the leading axis.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Move
    >>> from inference.mcmc.jumps import one_row
    >>> from ppl import gen, sample
    >>> step = gen(lambda row: sample("by", dist.Normal(0.0, 1.0)))
    >>> walk = Move(step, lambda row, u: ({"x": row["x"] + u["by"]}, {"by": -u["by"]}))
    >>> x = {"k": jnp.array(2), "x": jnp.array([1.0, 2.0, 0.0])}
    >>> u = {"at": jnp.array(1), "u": {"by": jnp.array(0.5)}}
    >>> one_row("k", "x", walk).involution(x, u)[0]["x"].tolist()
    [1.0, 2.5, 0.0]
    """
    check_move(move)
    path, chosen = as_path(number), as_selection(parts)

    @gen
    def proposal(latents):
        k, rows, most = rows_of(latents, path, chosen)
        at = sample("at", uniform_row(k, most))
        sample("u", move.proposal(nest(row_at(rows, at))))

    def involution(x: dict, u: dict) -> tuple[dict, dict]:
        _, rows, _ = rows_of(x, path, chosen)
        row = row_at(rows, u["at"])
        there, back = move.involution(nest(row), u["u"])
        new = put_row(rows, u["at"], checked(there, row, move.involution))
        return nest({**flatten(x), **new}), {"at": u["at"], "u": back}

    def of_row(x: dict, u: dict) -> Any:
        _, rows, _ = rows_of(x, path, chosen)
        return log_det_of(move, nest(row_at(rows, u["at"])), u["u"])

    return Move(proposal, involution, of_row)


@dataclass(frozen=True)
class _Jump:
    """One row and u become two rows, or the other way; birth is the split that keeps the row."""

    number: tuple[str, ...]
    parts: Selection
    split: Callable[[Row, dict], tuple[Row, Row]]
    merge: Callable[[Row, Row], tuple[Row, dict]]
    least: int
    pairs: int  # whether the row that stays is picked, too

    def move(self, auxiliary: Callable[[dict, Row], Any]) -> Move:
        @gen
        def proposal(latents):
            k, rows, most = rows_of(latents, self.number, self.parts)
            middle = jnp.where(k < most, 0.5, 0.0)
            grows = sample("grows", dist.Bernoulli(jnp.where(k <= self.least, 1.0, middle)))
            of = sample("of", uniform_row(k + grows - 1, most)) if self.pairs else 0
            sample("at", uniform_row(k + grows, most))

            def new():
                sample("new", auxiliary(latents, nest(row_at(rows, of))))
                return 0

            lax.cond(grows == 1, new, lambda: 0)

        return Move(proposal, self.involution, self.log_det)

    def involution(self, x: dict, u: dict) -> tuple[dict, dict]:
        k, rows, _ = rows_of(x, self.number, self.parts)
        at, of, last, new = u["at"], u.get("of", 0), k + u["grows"] - 1, flatten(u["new"])
        check_match(row_at(rows, 0), new)

        def grow() -> tuple[dict, dict]:
            first, second = self._split(row_at(rows, of), new)
            spare = row_at(rows, last)
            more = put_row(rows, last, second)
            more = put_row(more, of, first) if self.pairs else more
            return swap_rows(more, at, last), poured(spare, new)

        def shrink() -> tuple[dict, dict]:
            fewer = swap_rows(rows, at, last)
            row, back = self._merge(row_at(fewer, of), row_at(fewer, last), new)
            fewer = put_row(fewer, last, poured(new, row_at(rows, last)))
            return (put_row(fewer, of, row) if self.pairs else fewer), back

        rows, new = lax.cond(u["grows"] == 1, grow, shrink)
        number = k + jnp.where(u["grows"] == 1, 1, -1).astype(k.dtype)
        back = {**u, "grows": 1 - u["grows"], "new": nest(new)}
        return nest({**flatten(x), **rows, self.number: number}), back

    def log_det(self, x: dict, u: dict) -> jax.Array:
        """Of the split or of the merge alone: all else changes places."""
        if not self.pairs:
            return jnp.zeros(())
        k, rows, _ = rows_of(x, self.number, self.parts)
        at, of, last = u["at"], u["of"], k + u["grows"] - 1
        swapped = swap_rows(rows, at, last)
        return lax.cond(
            u["grows"] == 1,
            lambda: log_abs_det(self.split, nest(row_at(rows, of)), u["new"]),
            lambda: log_abs_det(self.merge, nest(row_at(swapped, of)), nest(row_at(swapped, last))),
        )

    def _split(self, row: dict, new: dict) -> tuple[dict, dict]:
        first, second = self.split(nest(row), nest(new))
        return checked(first, row, self.split), checked(second, row, self.split)

    def _merge(self, first: dict, second: dict, new: dict) -> tuple[dict, dict]:
        row, back = self.merge(nest(first), nest(second))
        return checked(row, first, self.merge), checked(back, new, self.merge)
