"""Entries that come in chunks: what earlier ones told stays, and may be looked at again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors
from ppl.randomness import checked_key

from ..running.progress import bar
from ..validation.settings import check_count, check_flag, check_number, shown
from .beliefs import Told, nothing_told
from .entries import Entries
from .factorization import Chunk, Factorization
from .forms import CP
from .grid import believed, placed, spread_out, together
from .learning import first_run, going_on, sweep_and_learn
from .model import in_order, tensor_of
from .noise import Likelihood
from .passing import damping_of
from .stages import change
from .sweep import State
from .trimming import NEEDED, begun_again, untold


def more_entries(
    found: Factorization,
    rows: Entries,
    y: Any,
    *,
    sweeps: int = 20,
    learn: bool = True,
    rate: float = 0.05,
    damping: float | None = None,
    tolerance: float = 1e-4,
    progress: bool = True,
    key: jax.Array | None = None,
) -> Factorization:
    """The factorization given more entries, at old coordinates or new ones.

    The sites of earlier entries stay as they are; those of the new ones are found by sweeps over
    these alone. So a stream costs what its chunks cost, but sites of few entries, found when little
    was known of the other modes, stay too: beliefs may be well off those of all entries at once.
    `revisit` goes there slowly, to the same place where there is only one.

    Args:
      rows, y: the new entries, and what they are.
      sweeps, learn, rate, damping, progress: as for `message_passing`, without a fall of the rate.
      tolerance: of how much the last sweeps moved the bound, in nats for each entry: below it
        the status says that it has converged. All sweeps are made.
      key: one PRNG key, with which components of a CP model that are off, as earlier entries had
        no need of them, are begun again; they stay if the bound is larger with them. None to
        leave them off, as they are with a `Likelihood`, whose bound does not tell.

    Raises:
      InvalidArgument: rows are no entries of the model's modes, or y does not fit them.
      InvalidKey: `key` is not one PRNG key.
      NonFiniteStep: the bound is no finite number.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing, more_entries
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 20)
    >>> first = Target(cp(1, {"x": Matern32(0.5)}), (entries({"x": x[::2]}),), {"y": x[::2] ** 2})
    >>> found = message_passing(jax.random.key(0), first, sweeps=30)
    >>> more = more_entries(found, entries({"x": x[1::2]}), x[1::2] ** 2)
    >>> more.target.args[0].count, more.rows.sizes
    (20, (20,))
    """
    rows = in_order(rows, found.tensor.names)
    values = _checked(found, rows, y)
    _check_settings(sweeps, learn, rate, tolerance, progress)
    grid = together(found.rows, rows)
    rows = placed(rows, grid)
    old = tuple(
        replace(chunk, rows=placed(chunk.rows, grid), told=spread_out(chunk.told, chunk.rows, grid))
        for chunk in found.chunks
    )
    held = spread_out(found.held, found.rows, grid)
    chunk = Chunk(rows, values, nothing_told(found.tensor, rows.sizes), jnp.zeros(()))
    on = replace(found, chunks=(*old, chunk), held=held)
    if rows.sizes != found.rows.sizes:
        beliefs = believed(found.tensor, found.beliefs, grid, on.told.modes)
        on = replace(on, beliefs=beliefs)
    damping = damping_of(found.tensor, damping)

    def swept(begin: Factorization) -> Factorization:
        return _again(begin, len(old), sweeps, learn * rate, damping, tolerance, progress)

    return _better(on, swept, key)


def revisit(
    found: Factorization,
    *,
    rounds: int = 1,
    sweeps: int = 5,
    learn: bool = True,
    rate: float = 0.05,
    damping: float | None = None,
    tolerance: float = 1e-4,
    progress: bool = True,
    key: jax.Array | None = None,
) -> Factorization:
    """The factorization after each chunk's sites have been found again, given all others.

    Where it settles, a run over all entries at once would stay; there may be several such places.

    Args:
      rounds: how often the chunks are gone through.
      sweeps: over each chunk.
      learn, rate, damping, tolerance, progress, key: as for `more_entries`.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      NonFiniteStep: the bound is no finite number.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing, revisit
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 10)
    >>> target = Target(cp(1, {"x": Matern32(0.5)}), (entries({"x": x}),), {"y": x**2})
    >>> found = message_passing(jax.random.key(0), target, sweeps=30)
    >>> revisit(found, rounds=2).bound > found.bound - 1e-6
    True
    """
    check_count("rounds", rounds)
    _check_settings(sweeps, learn, rate, tolerance, progress)
    damping = damping_of(found.tensor, damping)

    def gone_through(begin: Factorization) -> Factorization:
        for _ in range(rounds):
            for at in range(len(begin.chunks)):
                begin = _again(begin, at, sweeps, learn * rate, damping, tolerance, progress)
        return begin

    return _better(found, gone_through, key)


def _better(
    found: Factorization, on: Callable[[Factorization], Factorization], key: Any
) -> Factorization:
    """What goes on as it is; or with components begun again, if that has the larger bound."""
    with_more = None if key is None else _with_all(found, checked_key(key))
    as_it_is = on(found)
    if with_more is None or as_it_is.status.startswith("interrupted"):
        return as_it_is
    try:
        other = on(with_more)
    except errors.NonFiniteStep:  # a trial that failed is no fault of what goes on without it
        return as_it_is
    return other if other.bound > as_it_is.bound else as_it_is


def _with_all(found: Factorization, key: jax.Array) -> Factorization | None:
    """With all components at work; None if they are, or where a bound does not tell of them."""
    prior, bounded = tensor_of(found.prior), not isinstance(found.tensor.noise, Likelihood)
    if not isinstance(found.tensor.form, CP) or prior is None or not bounded:
        return None
    width = found.tensor.ranks[0] + found.tensor.effects
    off = np.zeros(width, bool)
    off[: found.tensor.ranks[0]] = np.asarray(found.relevance()) < NEEDED
    if not off.any():
        return None

    def less(told: Told) -> Told:
        return replace(told, modes=tuple(untold(sites, off) for sites in told.modes))

    y = jnp.concatenate([chunk.y for chunk in found.chunks])
    tensor, beliefs = begun_again(key, found.tensor, prior, found.beliefs, found.rows, y, off)
    chunks = tuple(replace(chunk, told=less(chunk.told)) for chunk in found.chunks)
    return replace(found, tensor=tensor, beliefs=beliefs, chunks=chunks, held=less(found.held))


def _again(
    found: Factorization, at: int, sweeps: int, rate: float, damping: float, tolerance: float,
    progress: bool,
) -> Factorization:  # fmt: skip
    """Sweeps over one chunk, with what all others have told held."""
    chunk = found.chunks[at]
    held = found.told - chunk.told
    constant = found.constant + sum(each.constant for each in found.chunks) - chunk.constant
    state = going_on(found.tensor, chunk.rows, chunk.y, _state(found, chunk), chunk.told)
    run, bounds = first_run(found.tensor, state), list(found.bounds)
    place = f"chunk {at + 1} of {len(found.chunks)}"
    status = f"not converged after {sweeps} sweeps over {place}"
    with bar(progress) as advance:
        try:
            for done in range(sweeps):
                made = sweep_and_learn(run, chunk.rows, chunk.y, held, damping, rate)
                bound = float(made.state.bound)
                if not math.isfinite(bound):
                    raise _not_finite(done, bound, found)
                run = made
                bounds.append(bound + float(constant))
                advance("more entries", done + 1, sweeps)
        except KeyboardInterrupt:
            if run.state.bound == -jnp.inf:
                raise
            status = f"interrupted in {place}"
    made = bounds[len(found.bounds) :]
    if len(made) > 1 and change(made) / chunk.rows.count < tolerance:
        status = f"converged after {len(made)} sweeps over {place}"
    state = run.state
    own = state.likely - state.beliefs.average(state.told)
    again = replace(chunk, told=state.told, constant=own)
    chunks = (*found.chunks[:at], again, *found.chunks[at + 1 :])
    return replace(
        found, tensor=run.tensor, beliefs=state.beliefs, chunks=chunks,
        bounds=np.asarray(bounds), status=status,
    )  # fmt: skip


def _state(found: Factorization, chunk: Chunk) -> State:
    nothing = jnp.zeros_like(chunk.y)
    none = jnp.asarray(-jnp.inf)
    return State(found.beliefs, chunk.told, nothing, nothing, none, none)


def _not_finite(step: int, bound: float, found: Factorization) -> errors.NonFiniteStep:
    error = errors.NonFiniteStep(
        f"Sweep {step} over a chunk (from 0) has an evidence bound that is no finite number.",
        where=errors.caller(), given=f"{bound}", expected="a finite number",
        fix="a smaller rate, or damping=0.5; more entries in the first chunk",
    )  # fmt: skip
    error.fitted = found
    return error


def _checked(found: Factorization, rows: Entries, y: Any) -> jax.Array:
    values = np.asarray(y)
    if values.shape != (rows.count,) or values.dtype.kind not in "fiub":
        raise errors.InvalidArgument(
            "There is not one number for each new entry.", where=errors.caller(),
            given=shown(y), expected=f"shape ({rows.count},)", fix="y of the rows that are there",
        )  # fmt: skip
    if not np.isfinite(values).all():
        raise errors.InvalidArgument(
            "A new entry is no finite number.", where=errors.caller(), given=shown(y),
            expected="finite numbers", fix="leave out the entries that are missing",
        )  # fmt: skip
    return jnp.asarray(values, found.chunks[-1].y.dtype)


def _check_settings(sweeps: Any, learn: Any, rate: Any, tolerance: Any, progress: Any) -> None:
    check_count("sweeps", sweeps)
    check_flag("learn", learn)
    check_flag("progress", progress)
    check_number("rate", rate, above=0, fix=0.05)
    check_number("tolerance", tolerance, least=0, fix=1e-4)
