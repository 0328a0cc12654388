"""Independent runs of an algorithm of particles, one after the other in one compiled program.

A run estimates the evidence by its mean weight, whatever it does inside; so runs are particles
themselves, and what differs between them is what the result may be off by.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, Trace, errors
from ppl.addresses import flatten, nest
from ppl.arguments import Arguments

from ..estimated.algorithms import Algorithm
from ..kernel import Kernel
from ..results.degeneracy import parts
from ..results.particles import Particles
from ..smc.nested import STATUS, Nested
from ..smc.particles import History
from ..validation.same import check_trace
from ..validation.settings import shown
from ..weighted import Weighted
from .host_loop import Hosted
from .resumable_loop import driven
from .told_steps import STEPS, independent, told

RUNS = 16
"""The error of an error from r runs is 1 / sqrt(2 (r - 1)) of it: of 16, a fifth."""


def makes_particles(algorithm: Any) -> bool:
    """Whether an algorithm makes particles, and is no kernel.

    It is a step; an `Algorithm`; or a random program that can be called without arguments.

    >>> from inference import by_importance
    >>> from inference.running.independent_runs import makes_particles
    >>> makes_particles(by_importance(5)), makes_particles(lambda: None)
    (True, True)
    >>> makes_particles(lambda trace: trace)
    False
    """
    if isinstance(algorithm, (*STEPS, Algorithm)):
        return True
    if isinstance(algorithm, (Kernel, type)) or not callable(algorithm):
        return False
    try:
        inspect.signature(algorithm).bind()
    except (TypeError, ValueError):
        return False
    return True


def particles_of(
    key: jax.Array, target: Target, algorithm: Any, runs: int | None, progress: bool,
    checkpoint: str | os.PathLike | None,
) -> Particles:  # fmt: skip
    """The particles of independent runs: one if they are independent anyway, or 16.

    Raises:
      InvalidArgument: the algorithm makes no particles, or those of another target.
      CheckpointError: the checkpoint is damaged, or of another run.
    """
    if isinstance(algorithm, Algorithm):
        algorithm = algorithm(target)
    alone = isinstance(algorithm, STEPS) and independent(algorithm)
    count = (1 if alone else RUNS) if runs is None else runs
    programs = Hosted.of(_kept(algorithm, target, count))
    found, status = driven(programs, key, progress, checkpoint, "runs", 1)
    found = jax.tree.map(np.asarray, found)
    if not found["same"].all():
        raise errors.InvalidArgument(
            "The particles were made for another target.", where=errors.caller(),
            given="particles with other arguments or observations",
            expected=f"those of the target of the run, {target}",
            fix="make the algorithm of the target of the run: annealed(target, ...)",
        )  # fmt: skip
    log_weight, latents = found["particles"].log_weight, flatten(found["particles"].value)
    families = np.arange(log_weight.size).reshape(log_weight.shape) if alone else None
    own = {} if found["nested"] is None else of_nested(found["nested"])
    if own:
        log_weight, kept = _equal_runs(log_weight, own["log_evidences"])
        latents = {path: x[:, kept] for path, x in latents.items()}
    ordered = nest({path: latents[path] for path in target.latents})
    return Particles(ordered, log_weight, target, status, families, history=found["history"], **own)


@lru_cache(maxsize=16)
def _runs(algorithm: Callable, target: Target, count: int) -> Callable[[], dict[str, Any]]:
    """So many runs, stacked: kept for a second call with the same algorithm."""
    return lambda: jax.lax.map(lambda _: one_run(algorithm, target), jnp.arange(count))


def _kept(algorithm: Callable, target: Target, count: int) -> Callable[[], dict[str, Any]]:
    try:
        return _runs(algorithm, target, count)
    except TypeError:  # a callable that cannot be hashed is staged each time
        return _runs.__wrapped__(algorithm, target, count)


def one_run(algorithm: Any, target: Target) -> dict[str, Any]:
    """One run: the latents of its particles, weighted, and what it tells of itself."""
    if isinstance(algorithm, STEPS):
        result, history = told(algorithm)
    else:
        result = algorithm()
        history = next(parts(result, History), None)
    particles = next(parts(result, Weighted), None)
    islands = particles is not None and isinstance(particles.value, Weighted)
    if particles is None or islands or jnp.ndim(particles.log_weight) > 1:
        raise errors.InvalidArgument(
            "The algorithm makes islands, whose particles have two axes." if islands
            else "The algorithm makes no particles.",
            where=(errors.defined(algorithm), errors.caller()),
            given="particles that are populations" if islands else shown(result),
            expected="weighted particles of the target",
            fix="then(..., merged)" if islands
            else "a step such as annealed(target, ...), or lambda: nested_sampling(target, 200)",
        )  # fmt: skip
    if not jnp.ndim(particles.log_weight):
        particles = jax.tree.map(lambda x: jnp.asarray(x)[None], particles)
    latents, same = latents_of(target, particles.value)
    nested = next(parts(result, Nested), None)
    kept = {} if history is None else {"ess": history.ess, "log_evidence": history.log_evidence}
    about = None if nested is None else (nested.log_evidence, nested.standard_error, nested.status)
    return {
        "particles": Weighted(latents, particles.log_weight), "same": same, "history": kept,
        "nested": about,
    }  # fmt: skip


def of_nested(about: tuple) -> dict[str, Any]:
    """What nested sampling tells of its evidence, and how often it ended before it should."""
    evidences, own, status = (np.atleast_1d(np.asarray(x)) for x in about)
    early = int((status == STATUS.index("out of iterations")).sum())
    notes = {"out of iterations": early} if early else {}
    return {"log_evidences": evidences, "evidence_errors": own, "notes": notes}


def _equal_runs(log_weight: np.ndarray, evidences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log weights of runs that count alike, and which particles have a weight in any.

    The log of an evidence by nested sampling is unbiased, and its exponential is not, so that a run
    that overestimates it deserves no more weight.
    """
    kept = np.asarray((log_weight > -np.inf).any(0))
    if not kept.any() or not np.isfinite(evidences).all():
        return log_weight, np.ones(len(kept), bool)
    shift = evidences.mean() - evidences + np.log(kept.sum() / len(kept))
    return (log_weight[:, kept] + shift[:, None]).astype(log_weight.dtype), kept


def latents_of(target: Target, value: Any) -> tuple[dict[str, Any], jax.Array]:
    """The latents of particles, and whether they have the arguments and data of the target.

    Raises:
      InvalidArgument: they are no traces or latents of it.
    """
    if isinstance(value, Trace):
        check_trace("The algorithm", target, value, stacked=True)
        arguments = Arguments.of(target.args, {}, target.model.fixed)
        mine = jax.tree.map(lambda x: x[0], (value.arguments, value.choices))
        same = [_equal(a, b) for a, b in zip(
            jax.tree.leaves(arguments), jax.tree.leaves(mine[0]), strict=True)]  # fmt: skip
        seen = flatten(mine[1])
        whole = {p: x for p, x in target.observed.items() if not jax.tree.leaves(x)[1:]}
        same += [_equal(x, seen[path]) for path, x in whole.items()]
        return jax.vmap(target.choices)(value), jnp.all(jnp.asarray([True, *same]))
    names = set(flatten(value)) if isinstance(value, Mapping) else set()
    if names != set(target.latents):
        raise errors.InvalidArgument(
            "The particles are no latents of the target.",
            where=errors.caller(),
            given="; ".join(map(errors.show, names)) or type(value).__name__,
            expected="traces of the target, or dicts of " + "; ".join(
                map(errors.show, target.latents)),
            fix="of a filter of states: filter_series(target, address, n), or run_particles",
        )  # fmt: skip
    return dict(value), jnp.asarray(True)


def _equal(a: Any, b: Any) -> jax.Array:
    if jnp.issubdtype(jnp.result_type(a), jax.dtypes.extended):
        return jnp.asarray(True)
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.shape != b.shape:
        return jnp.asarray(False)
    return jnp.all((a == b) | ((a != a) & (b != b)))
