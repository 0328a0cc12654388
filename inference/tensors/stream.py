"""Entries that come in chunks: what earlier ones told stays, and may be looked at again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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
from .stages import LOOK, change
from .sweep import State
from .trimming import NEEDED, begun_again, untold


@dataclass(frozen=True)
class _How:
    """Settings of the sweeps; see `more_entries`."""

    sweeps: int
    rate: float
    damping: float
    tolerance: float
    progress: bool


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
    `revisit` brings them there.

    Args:
      rows, y: the new entries, and what they are.
      sweeps: how many, at most.
      learn, rate, damping, progress: as for `message_passing`, without a fall of the rate.
      tolerance: of how much the last sweeps moved the bound, in nats for each entry: below it
        they have converged, and stop.
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
    how = _how(found, sweeps, learn, rate, damping, tolerance, progress)
    rows = in_order(rows, found.tensor.names)
    values = _checked(found, rows, y)
    grid, by = together(found.rows, rows), found.tensor.noise.by
    rows = placed(rows, grid)
    told = [spread_out(chunk.told, chunk.rows, grid, by) for chunk in found.chunks]
    old = tuple(
        replace(chunk, rows=placed(chunk.rows, grid), told=each)
        for chunk, each in zip(found.chunks, told, strict=True)
    )
    held = spread_out(found.held, found.rows, grid, by)
    chunk = Chunk(rows, values, nothing_told(found.tensor, rows.sizes), jnp.zeros(()))
    on = replace(found, chunks=(*old, chunk), held=held)
    if rows.sizes != found.rows.sizes:
        beliefs = believed(found.tensor, found.beliefs, grid, on.told)
        on = replace(on, beliefs=beliefs)
    return _better(on, how, key)


def revisit(
    found: Factorization,
    *,
    sweeps: int = 100,
    learn: bool = True,
    rate: float = 0.1,
    damping: float | None = None,
    tolerance: float = 1e-4,
    progress: bool = True,
    key: jax.Array | None = None,
) -> Factorization:
    """The factorization after sweeps over the entries of all chunks at once, from where it is.

    Where it settles, a run over all entries from there would stay; there may be several such
    places. The chunks are one after that. A sweep costs what one of all entries costs.

    Args:
      sweeps, learn, rate, damping, tolerance, progress, key: as for `more_entries`.

    Raises:
      InvalidArgument: a setting is out of range.
      InvalidKey: `key` is not one PRNG key.
      NonFiniteStep: the bound is no finite number.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing, more_entries, revisit
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 20)
    >>> first = Target(cp(1, {"x": Matern32(0.5)}), (entries({"x": x[::2]}),), {"y": x[::2] ** 2})
    >>> found = message_passing(jax.random.key(0), first, sweeps=30)
    >>> more = more_entries(found, entries({"x": x[1::2]}), x[1::2] ** 2)
    >>> again = revisit(more)
    >>> len(more.chunks), len(again.chunks), again.rows.count
    (2, 1, 20)
    """
    how = _how(found, sweeps, learn, rate, damping, tolerance, progress)
    return _better(replace(found, chunks=(_one(found.chunks),)), how, key)


def _one(chunks: tuple[Chunk, ...]) -> Chunk:
    """All entries, and what all of them told; they have the same coordinates."""
    index = jnp.concatenate([chunk.rows.index for chunk in chunks])
    y = jnp.concatenate([chunk.y for chunk in chunks])
    told, constant = chunks[0].told, chunks[0].constant
    for chunk in chunks[1:]:
        told, constant = told + chunk.told, constant + chunk.constant
    return Chunk(replace(chunks[0].rows, index=index), y, told, constant)


def _better(found: Factorization, how: _How, key: Any) -> Factorization:
    """After sweeps over the last chunk; with components begun again, if the bound is larger."""
    with_more = None if key is None else _with_all(found, checked_key(key))
    as_it_is = _again(found, how)
    if with_more is None or as_it_is.status.startswith("interrupted"):
        return as_it_is
    try:
        other = _again(with_more, how)
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
    at, variance = found.rows.coordinates, jnp.var(y)
    tensor, beliefs = begun_again(key, found.tensor, prior, found.beliefs, at, variance, off)
    chunks = tuple(replace(chunk, told=less(chunk.told)) for chunk in found.chunks)
    return replace(found, tensor=tensor, beliefs=beliefs, chunks=chunks, held=less(found.held))


def _again(found: Factorization, how: _How) -> Factorization:
    """Sweeps over the last chunk, with what all others have told held."""
    *others, chunk = found.chunks
    held, constant = found.held, found.constant
    for other in others:
        held, constant = held + other.told, constant + other.constant
    state = going_on(found.tensor, chunk.rows, chunk.y, _state(found, chunk), chunk.told)
    run, bounds = first_run(found.tensor, state), []
    status = f"not converged after {how.sweeps} more sweeps"
    with bar(how.progress) as advance:
        try:
            for done in range(how.sweeps):
                made = sweep_and_learn(run, chunk.rows, chunk.y, held, how.damping, how.rate)
                bound = float(made.state.bound)
                if not math.isfinite(bound):
                    raise _not_finite(done, bound, found)
                run = made
                bounds.append(bound + float(constant))
                advance("more sweeps", done + 1, how.sweeps)
                if len(bounds) > LOOK and change(bounds) / chunk.rows.count < how.tolerance:
                    status = f"converged after {len(bounds)} more sweeps"
                    break
        except KeyboardInterrupt:
            if not bounds:
                raise
            status = f"interrupted after {len(bounds)} more sweeps"
    state = run.state
    own = state.likely - state.beliefs.average(state.told)
    again = replace(chunk, told=state.told, constant=own)
    return replace(
        found, tensor=run.tensor, beliefs=state.beliefs, chunks=(*others, again),
        bounds=np.concatenate([found.bounds, bounds]), status=status,
    )  # fmt: skip


def _state(found: Factorization, chunk: Chunk) -> State:
    nothing = jnp.zeros_like(chunk.y)
    none = jnp.asarray(-jnp.inf)
    return State(found.beliefs, chunk.told, nothing, nothing, none, none)


def _not_finite(step: int, bound: float, found: Factorization) -> errors.NonFiniteStep:
    error = errors.NonFiniteStep(
        f"Sweep {step} of these (from 0) has an evidence bound that is no finite number.",
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


def _how(
    found: Factorization, sweeps: Any, learn: Any, rate: Any, damping: Any, tolerance: Any,
    progress: Any,
) -> _How:  # fmt: skip
    check_count("sweeps", sweeps)
    check_flag("learn", learn)
    check_flag("progress", progress)
    check_number("rate", rate, above=0, fix=0.05)
    check_number("tolerance", tolerance, least=0, fix=1e-4)
    return _How(sweeps, learn * rate, damping_of(found.tensor, damping), tolerance, progress)
