"""The stages of a fit on the host: several starts, a climb, components taken out, a last climb."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors

from ..running.checkpoint import Checkpoint, checked_folder
from ..targets.fingerprints import of_arrays, plain
from .beliefs import nothing_told
from .entries import Entries
from .factorization import Chunk, Factorization
from .forms import CP
from .learning import Run, first_run, started, sweep_and_learn
from .model import Tensor
from .noise import Likelihood
from .trimming import NEEDED, shares, switched_off

TRIAL = 20
"""Sweeps of each start, after which the best one goes on; and of each component taken out."""

LOOK = 10
"""Sweeps over which the bound is looked at, and between which a checkpoint is written."""

STARTS, CLIMB, TRIM, AGAIN, OVER = range(5)


def change(bounds: list[float]) -> float:
    """By how much the last sweeps moved the bound, up or down, in the mean."""
    return float(np.mean(np.abs(np.diff(bounds[-1 - LOOK :]))))


@dataclass(frozen=True)
class At:
    """Where a fit is.

    Attributes:
      stage, item, step: of which stage; of which start or component; how many sweeps of it.
      done: sweeps in all.
      run: the state; None before the first sweep of a start.
      kept: the best start so far, or what taking out a component has to beat.
      bounds: of the run that goes on.
      tried: of each start, at its end.
      order: components to take out.
      trimmed: whether one was.
      converged: whether the last climb has.
    """

    stage: int
    item: int = 0
    step: int = 0
    done: int = 0
    run: Run | None = None
    kept: Run | None = None
    bounds: tuple[float, ...] = ()
    tried: tuple[float, ...] = ()
    order: tuple[int, ...] = ()
    trimmed: bool = False
    converged: bool = False


class Fit:
    """Message passing, sweep by sweep; see `message_passing`."""

    def __init__(
        self,
        key: jax.Array,
        target: Target,
        tensor: Tensor,
        rows: Entries,
        y: jax.Array,
        rate: float,
        damping: float,
        sweeps: int,
        starts: int,
        tolerance: float,
    ):
        self.key, self.target, self.first, self.rows, self.y = key, target, tensor, rows, y
        self.rate, self.damping, self.sweeps, self.starts = rate, damping, sweeps, starts
        self.tolerance = tolerance
        # a bound that is only near the evidence does not tell what is needed
        bounded = isinstance(tensor.form, CP) and not isinstance(tensor.noise, Likelihood)
        self.trims = tensor.ranks[0] if bounded and rate and tensor.ranks[0] > 1 else 0
        self.total = TRIAL * (self.trims + (starts if starts > 1 else 0)) + sweeps
        self.held = nothing_told(tensor, rows.sizes)
        self.store: Checkpoint | None = None
        self.at = At(STARTS if starts > 1 else CLIMB)

    @property
    def over(self) -> bool:
        return self.at.stage == OVER

    @property
    def status(self) -> str:
        return (
            f"{'converged' if self.at.converged else 'not converged'} after {self.at.done} sweeps"
        )

    def _begin(self, start: int) -> Run:
        state = started(jax.random.fold_in(self.key, start), self.first, self.rows, self.y)
        return first_run(self.first, state)

    def forward(self) -> None:
        """One sweep more."""
        at = self.at
        run = self._begin(at.item) if at.run is None else at.run
        made = sweep_and_learn(run, self.rows, self.y, self.held, self.damping, self._rate())
        bound = float(made.state.bound)
        if not math.isfinite(bound) and at.stage != TRIM:
            raise self._not_finite(bound)
        after = replace(at, run=made, step=at.step + 1, done=at.done + 1)
        onward = {STARTS: self._of_starts, TRIM: self._of_trims}.get(at.stage, self._of_climb)
        self.at = onward(after, bound)  # at once, as Ctrl-C may come between any two lines
        if self.at.done % LOOK == 0 or self.over:
            self._save()

    def _of_starts(self, at: At, bound: float) -> At:
        if at.step < TRIAL:
            return at
        best = not at.tried or bound > max(at.tried)
        kept, tried, item = at.run if best else at.kept, (*at.tried, bound), at.item + 1
        if item < self.starts:
            return replace(at, item=item, step=0, run=None, kept=kept, tried=tried)
        return replace(at, stage=CLIMB, item=0, step=0, run=kept, tried=tried, bounds=(max(tried),))

    def _of_climb(self, at: At, bound: float) -> At:
        at = replace(at, bounds=(*at.bounds, bound))
        settled = len(at.bounds) > LOOK and at.step >= LOOK
        converged = settled and change(list(at.bounds)) / self.y.size < self.tolerance
        if not converged and at.step < self.sweeps:
            return at
        at = replace(at, converged=converged)
        order = self._needed(at) if converged and at.stage == CLIMB and self.trims else ()
        if len(order) < 2:
            return replace(at, stage=OVER)
        assert at.run is not None
        run = switched_off(at.run, order[0])
        return replace(at, stage=TRIM, item=0, step=0, run=run, kept=at.run, order=order)

    def _of_trims(self, at: At, bound: float) -> At:
        if at.step < TRIAL and math.isfinite(bound):
            return at
        if bound > at.bounds[-1]:
            at = replace(at, kept=at.run, bounds=(*at.bounds, bound), trimmed=True)
        assert at.kept is not None
        if at.item + 1 < len(at.order):
            run = switched_off(at.kept, at.order[at.item + 1])
            return replace(at, item=at.item + 1, step=0, run=run)
        return replace(at, stage=AGAIN if at.trimmed else OVER, item=0, step=0, run=at.kept)

    def _needed(self, at: At) -> tuple[int, ...]:
        """Components that are not off, the smallest first."""
        assert at.run is not None
        share = np.asarray(shares(at.run.state.beliefs.means, self.rows.index, self.y))
        share = share[: self.first.ranks[0]]
        return tuple(int(r) for r in np.argsort(share) if share[r] > NEEDED)

    def _rate(self) -> float:
        """Of learning: in the climb it falls to a tenth, as half a wave."""
        at = self.at
        if at.stage == STARTS:
            return self.rate
        share = min(1.0, at.step / self.sweeps) if at.stage == CLIMB else 1.0
        return self.rate * (0.55 + 0.45 * math.cos(math.pi * share))

    def result(self, status: str) -> Factorization:
        run: Any = self.at.kept if self.at.stage == TRIM else self.at.run
        state = run.state
        constant = state.likely - state.beliefs.average(state.told)
        chunk = Chunk(self.rows, self.y, state.told, constant)
        return Factorization(
            self.target.model, run.tensor, state.beliefs, (chunk,), self.held, jnp.zeros(()),
            np.asarray(self.at.bounds), status, self.at.tried,
        )  # fmt: skip

    def _not_finite(self, bound: float) -> errors.NonFiniteStep:
        done = self.at.done
        error = errors.NonFiniteStep(
            f"Sweep {done} (from 0) has an evidence bound that is no finite number.",
            where=errors.caller(), given=f"{bound}", expected="a finite number",
            fix="standardise y; a smaller rate, or damping=0.5; scales of kernels of the size of "
            "the coordinates",
        )  # fmt: skip
        if self.at.run is not None and self.at.bounds:
            error.fitted = self.result(f"stopped at sweep {done}, which is no number")
        return error

    def resume(self, path: str | os.PathLike) -> None:
        """Go on from the checkpoint in the folder, if there is one."""
        checked_folder(path)
        identity = {
            "jax": jax.__version__,
            "sizes": f"{self.sweeps} sweeps, {self.starts} starts",
            "settings": f"rate {self.rate}, damping {self.damping}, tolerance {self.tolerance}",
            "key": of_arrays(jax.random.key_data(self.key)),
            "data": of_arrays(jax.tree.leaves((self.rows, self.y))),
            "begin": of_arrays(jax.tree.leaves(self.first)),
            "program": f"{self.first.form}, {self.first.names}, effects {self.first.effects}, "
            f"noise by {self.first.noise.by}",
        }
        self.store = Checkpoint(path, identity)
        like = self._begin(0)
        leaves, tree = jax.tree.flatten((like, like))
        found = self.store.load(leaves)
        if found is None:
            return
        saved, _, done = found
        run, kept = jax.tree.unflatten(tree, [jnp.asarray(plain(x)) for x in saved])
        more = self.store.more
        stage, item, step, trimmed, converged, begun, any_kept = more["where"].tolist()
        self.at = At(
            stage, item, step, done, run if begun else None, kept if any_kept else None,
            tuple(more["bounds"].tolist()), tuple(more["tried"].tolist()),
            tuple(more["order"].tolist()), bool(trimmed), bool(converged),
        )  # fmt: skip

    def _save(self) -> None:
        if self.store is None or jax.process_index() != 0:
            return
        at = self.at
        whole = at.run if at.run is not None else at.kept
        where = at.stage, at.item, at.step, at.trimmed, at.converged
        more = {
            "bounds": np.asarray(at.bounds, float),
            "tried": np.asarray(at.tried, float),
            "order": np.asarray(at.order, int),
            "where": np.asarray([*where, at.run is not None, at.kept is not None], int),
        }
        pair = jax.tree.leaves((whole, at.kept if at.kept is not None else whole))
        self.store.save_state(pair, 0, at.done, more)
