"""Conditional message passing: sweeps from several starts, on the host, with learning."""

from __future__ import annotations

import math
import os
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors
from ppl.addresses import Masked
from ppl.randomness import checked_key

from ..running.checkpoint import Checkpoint, checked_folder
from ..running.progress import bar
from ..targets.fingerprints import of_arrays, plain
from ..validation.objects import check_target
from ..validation.settings import check_count, check_flag, check_number
from .beliefs import nothing_told
from .entries import Entries
from .factorization import Chunk, Factorization
from .learning import Run, first_run, started, sweep_and_learn
from .model import Tensor, in_order, tensor_of
from .noise import Likelihood

TRIAL = 20
"""Sweeps of each start, after which the best one goes on."""

LOOK = 10
"""Sweeps over which the bound is looked at, and between which a checkpoint is written."""


def message_passing(
    key: jax.Array,
    target: Target,
    *,
    sweeps: int = 200,
    learn: bool = True,
    rate: float = 0.2,
    damping: float | None = None,
    starts: int = 3,
    tolerance: float = 1e-4,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> Factorization:
    """The posterior of a functional tensor model, in which its modes are independent.

    Of all laws that are products over the modes, the core, the constant and the noise's
    precision, it climbs to one whose evidence bound no single part can raise: the law of a mode
    is a Gaussian process with sites, folded in time linear in its coordinates. Hyperparameters
    go up the slope of the bound meanwhile: scales and variances of each kernel, degrees of
    freedom, parameters of a `Likelihood`. Components that are not needed lose their variance.

    Without damping and learning, no sweep lowers the bound of normal and of Student-t noise. For
    a `Likelihood` predictors are taken as normal, and the bound is a number near it.

    Args:
      key: one PRNG key, for where the starts begin.
      target: a model made by `cp` or `tucker`, whose choice "y" alone is observed.
      sweeps: how many, at most, after those of the starts.
      learn: whether hyperparameters are learned; if not, they are those of the model.
      rate: by how much the log of a hyperparameter changes in a sweep, about. It falls to a
        tenth of that on the way.
      damping: the share of the way that natural parameters go in a sweep; 1 by default, and 0.5
        for a `Likelihood`.
      starts: how many; after 20 sweeps each the one with the largest bound goes on.
      tolerance: of how much a sweep still moves the bound, in nats for each entry: below it, in
        the mean of ten sweeps, the fit has converged, and stops.
      progress: a bar, on a terminal only.
      checkpoint: a folder, written to every 10 sweeps; a run that finds one of itself there goes
        on from it, to the same bits.

    Returns:
      A `Factorization`; if Ctrl-C stops it, of the sweeps so far, and `status` says so.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      InvalidArgument: the model is no functional tensor, another choice than "y" is observed, or
        a setting is out of range.
      NonFiniteStep: the bound is no finite number; `error.fitted` has the sweeps before.
      CheckpointError: the checkpoint is damaged, or of another run.

    Source: Fang, Yu, Liu & Zhe (ICLR 2024), whose sites these are, but for a bound, and with the
    mean of the product of two others where they have the product of means; hyperparameters by
    the slope of the evidence of each mode, with its sites held.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 20)
    >>> rows = entries({"x": x, "z": x[::-1]})
    >>> model = cp(1, {"x": Matern32(0.5), "z": Matern32(0.5)})
    >>> target = Target(model, (rows,), {"y": jnp.sin(3 * x) * x[::-1]})
    >>> found = message_passing(jax.random.key(0), target, sweeps=30)
    >>> bool(jnp.abs(found.predict(rows).mean - target.observations["y"]).max() < 0.05)
    True
    """
    tensor, rows, y = checked(target)
    key = checked_key(key)
    check_count("sweeps", sweeps)
    check_count("starts", starts)
    check_flag("learn", learn)
    check_flag("progress", progress)
    check_number("rate", rate, above=0, fix=0.2)
    check_number("tolerance", tolerance, least=0, fix=1e-4)
    damping = damping_of(tensor, damping)
    run = _Run(key, target, tensor, rows, y, learn * rate, damping, sweeps, starts)
    if checkpoint is not None:
        run.resume(checkpoint)
    status = f"not converged after {sweeps} sweeps"
    with bar(progress) as advance:
        try:
            while run.done < run.total:
                run.forward()
                advance("message passing", run.done, run.total)
                if run.gain() < tolerance:
                    status = f"converged after {run.done} sweeps"
                    break
        except KeyboardInterrupt:
            if run.run is None or not run.bounds:
                raise
            status = f"interrupted after {run.done} sweeps"
    return run.result(status)


def change(bounds: list[float]) -> float:
    """By how much the last sweeps moved the bound, up or down, in the mean."""
    return float(np.mean(np.abs(np.diff(bounds[-1 - LOOK :]))))


def damping_of(tensor: Tensor, damping: Any) -> float:
    """The damping that is asked for, or that which suits the noise."""
    if damping is None:
        return 0.5 if isinstance(tensor.noise, Likelihood) else 1.0
    check_number("damping", damping, above=0, most=1, fix=0.5)
    return float(damping)


def checked(target: Any) -> tuple[Tensor, Entries, jax.Array]:
    """The program, the entries and what they are, of a target that message passing takes.

    Raises:
      InvalidArgument: as for `message_passing`.
    """
    check_target(target)
    tensor = tensor_of(target.model)
    if tensor is None:
        raise errors.InvalidArgument(
            "Message passing is for functional tensors.",
            where=(f"model {target.model.name}", errors.caller()),
            given=f"the generative function {target.model.name}",
            expected="a model made by `cp` or `tucker`",
            fix="nuts, or fit, for other models",
        )  # fmt: skip
    if list(target.observed) != [("y",)] or isinstance(target.observed["y",], Masked):
        raise errors.InvalidArgument(
            'Message passing takes a target that observes "y", all of it.',
            where=errors.caller(),
            given=", ".join(errors.show(path) for path in target.observed) or "nothing observed",
            expected='Target(model, (rows,), {"y": values})',
            fix="leave out the entries that are missing; choices that are known: nuts",
        )  # fmt: skip
    leaves = jax.tree.leaves((target.args, target.observations, tensor))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise errors.InvalidArgument(
            "Message passing runs on the host, and is no part of a compiled program.",
            where=errors.caller(), given="a target with traced arguments or observations",
            expected="known numbers", fix="a loop over fits, of which the second compiles nothing",
        )  # fmt: skip
    y = target.observations["y"]
    return tensor, in_order(target.args[0], tensor.names), jnp.asarray(y)


class _Run:
    """The state of message passing on the host."""

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
    ):
        self.key, self.target, self.first, self.rows, self.y = key, target, tensor, rows, y
        self.rate, self.damping, self.sweeps, self.starts = rate, damping, sweeps, starts
        self.trial = TRIAL if starts > 1 else 0
        self.total = self.trial * starts + sweeps
        self.held = nothing_told(tensor, rows.sizes)
        self.run: Run | None = None
        self.best: Run | None = None
        self.bounds: list[float] = []
        self.tried: list[float] = []
        self.done = 0
        self.store: Checkpoint | None = None

    def _begin(self, start: int) -> Run:
        state = started(jax.random.fold_in(self.key, start), self.first, self.rows, self.y)
        return first_run(self.first, state)

    def forward(self) -> None:
        """One sweep more."""
        at = self.done - self.trial * self.starts
        start, step = divmod(self.done, self.trial) if at < 0 else (self.starts, at)
        if at < 0 and step == 0:
            run, bounds = self._begin(start), []
        elif at == 0:
            run = self.best if self.best is not None else self._begin(0)
            bounds = [max(self.tried)] if self.tried else []
        else:
            run, bounds = self.run, self.bounds
        rate = self.rate if at < 0 else self._rate(at)
        made = sweep_and_learn(run, self.rows, self.y, self.held, self.damping, rate)
        bound = float(made.state.bound)
        if not math.isfinite(bound):
            raise self._not_finite(bound)
        # assigned at once, as Ctrl-C may come between any two lines
        self.run, self.bounds, self.done = made, [*bounds, bound], self.done + 1
        if at < 0 and step == self.trial - 1:
            if not self.tried or bound > max(self.tried):
                self.best = made
            self.tried = [*self.tried, bound]
        if self.done % LOOK == 0 or self.done == self.total:
            self._save()

    def _rate(self, step: int) -> float:
        """Of learning: it falls to a tenth, as half a wave."""
        return self.rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, step / self.sweeps)))

    def gain(self) -> float:
        """By how much a sweep moves the bound of an entry; infinite while that is not known."""
        if self.done <= self.trial * self.starts or len(self.bounds) <= LOOK:
            return math.inf
        return change(self.bounds) / self.y.size

    def result(self, status: str) -> Factorization:
        run: Any = self.run
        state = run.state
        constant = state.likely - state.beliefs.average(state.told)
        chunk = Chunk(self.rows, self.y, state.told, constant)
        return Factorization(
            self.target.model, run.tensor, state.beliefs, (chunk,), self.held, jnp.zeros(()),
            np.asarray(self.bounds), status, tuple(self.tried),
        )  # fmt: skip

    def _not_finite(self, bound: float) -> errors.NonFiniteStep:
        error = errors.NonFiniteStep(
            f"Sweep {self.done} (from 0) has an evidence bound that is no finite number.",
            where=errors.caller(), given=f"{bound}", expected="a finite number",
            fix="standardise y; a smaller rate, or damping=0.5; scales of kernels of the size of "
            "the coordinates",
        )  # fmt: skip
        if self.run is not None and self.bounds:
            error.fitted = self.result(f"stopped at sweep {self.done}, which is no number")
        return error

    def resume(self, path: str | os.PathLike) -> None:
        """Go on from the checkpoint in the folder, if there is one."""
        checked_folder(path)
        identity = {
            "jax": jax.__version__,
            "sizes": f"{self.sweeps} sweeps, {self.starts} starts",
            "settings": f"rate {self.rate}, damping {self.damping}",
            "key": of_arrays(jax.random.key_data(self.key)),
            "data": of_arrays(jax.tree.leaves((self.rows, self.y))),
            "begin": of_arrays(jax.tree.leaves(self.first)),
            "program": f"{self.first.form}, {self.first.names}, effects {self.first.effects}",
        }
        self.store = Checkpoint(path, identity)
        like = self._begin(0)
        leaves, tree = jax.tree.flatten((like, like))
        found = self.store.load(leaves)
        if found is None:
            return
        saved, _, done = found
        pair = jax.tree.unflatten(tree, [jnp.asarray(plain(x)) for x in saved])
        more = self.store.more
        self.run, self.best, self.done = pair[0], pair[1], done
        self.bounds, self.tried = more["bounds"].tolist(), more["tried"].tolist()

    def _save(self) -> None:
        if self.store is None or jax.process_index() != 0:
            return
        pair = jax.tree.leaves((self.run, self.best if self.best is not None else self.run))
        more = {"bounds": np.asarray(self.bounds), "tried": np.asarray(self.tried)}
        self.store.save_state(pair, 0, self.done, more)
