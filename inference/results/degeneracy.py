"""Whether particles can be used: at which step, and by what observation, few of them were left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ppl import errors

from ..smc.particles import History
from ..smc.resample import effective_sample_size
from ..validation.settings import check_number
from ..weighted import Weighted, log_evidence
from .verdict import Verdict

FLOOR = 0.01
"""Of the particles, how many must count; two of them in any case."""


def degeneracy(found: Any, observations: Any = None, *, floor: float = FLOOR) -> Verdict:
    """Whether enough particles counted after every step; else the step and what was seen there.

    It fails on the first of: weights that are not finite; weights that are all zero (the
    evidence is zero, and the particles are no posterior); an effective number of particles below
    this fraction of them, or below two. Passing does not prove that the particles are where
    the posterior is: a mode that none of them found is not missed.

    Args:
      found: what a filter or an annealing gives, with its `history`; or `Weighted` particles,
        which tell of the last step alone; or a `ParticleRun`.
      observations: what each step observed, arrays with T rows, to be named.
      floor: the fraction, from 0 to 1.

    Returns:
      A `Verdict`, which is true if nothing is amiss; its `name` is the step (from 0) and its
      observation, its `value` the effective number, or the evidence.

    Raises:
      InvalidArgument: there are no particles in what was found, there are fewer observations than
        steps, or the floor is no fraction.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import degeneracy, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 0.5))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 30.0, 1.0])}
    >>> found = seed(lambda: particle_filter(walk, 0.0, ys, 1000))(jax.random.key(0))
    >>> verdict = degeneracy(found, ys)
    >>> bool(verdict), verdict.check, verdict.name
    (False, 'ess', 'step 1, "y" = 30')
    """
    check_number("floor", floor, least=0, most=1, fix=FLOOR)
    particles, history = next(parts(found, Weighted), None), next(parts(found, History), None)
    if particles is None or np.ndim(particles.log_weight) != 1:
        raise errors.InvalidArgument(
            "There are no particles to judge.", where=errors.caller(),
            given=f"a {type(found).__name__}", expected="what a filter or an annealing gives",
            fix="particles.verdict()" if hasattr(found, "resampled")
            else "degeneracy(seed(lambda: particle_filter(...))(key))",
        )  # fmt: skip
    n = particles.log_weight.shape[0]
    if history is None:
        masses = np.asarray(log_evidence(particles))[None]
        ess = np.asarray(effective_sample_size(particles.log_weight))[None]
    else:
        masses, ess = np.asarray(history.log_evidence), np.asarray(history.ess)
        if observations is None:
            observations = getattr(found, "observations", None)
        check_rows(observations, len(ess))

    def at(step: int) -> str:
        if history is None:
            return "the end"
        seen = shown(observations, step)
        return f"step {step}" + (f", {seen}" if seen else "")

    def failed(check: str, step: int, value: float, text: str, todo: str) -> Verdict:
        return Verdict(False, check, at(step), value, f"not usable: at {at(step)}, {text}: {todo}")

    step = _first(np.isnan(masses) | (masses == math.inf))
    if step is not None:
        value = float(masses[step])
        todo = "look for overflow in the density of the step"
        return failed("finite", step, value, f"the log evidence is {value:g}", todo)
    step = _first(masses == -math.inf)
    if step is not None:
        todo = "widen the model, or propose by the observation"
        return failed("evidence", step, 0.0, "all weights are zero, and so is the evidence", todo)
    step, bound = int(np.argmin(ess)), least(n, floor)
    if below(ess, bound)[step]:
        text = f"{ess[step]:.1f} of {n} particles count (fewer than {bound:g})"
        todo = "take more particles, smaller steps, or a proposal that looks at what is seen"
        return failed("ess", step, float(ess[step]), text, todo)
    told = f"at least {ess[step]:.0f} of {n} particles count at each of {len(ess)} steps"
    if history is None:
        told = f"{ess[step]:.0f} of {n} particles count"
    return Verdict(True, "", "", math.nan, f"nothing amiss: {told}")


def check_rows(observations: Any, steps: int) -> None:
    """Every step has its observation; a run that was interrupted has some that it did not see.

    Raises:
      InvalidArgument: there are fewer rows than steps.
    """
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(observations)}
    if any(not length or length[0] < steps for length in lengths):
        raise errors.InvalidArgument(
            "There are fewer observations than steps.", where=errors.caller(),
            given=f"first axes of {sorted(lengths)}", expected=f"{steps} rows in each array",
            fix="observations=ys, with ys as the filter has them",
        )  # fmt: skip


def least(n: int, floor: float) -> float:
    """How many of n particles must count: this fraction, and two if there are two."""
    return max(floor * n, min(2, n))


def below(ess: np.ndarray, bound: float) -> np.ndarray:
    """Where the effective number is below a bound, by more than it is rounded."""
    return ess < bound * (1 - 64 * np.finfo(ess.dtype).eps)


def parts(found: Any, kind: type) -> Iterator[Any]:
    """The records of a kind in a result, or in that of a run, in order; not those inside them."""
    run = getattr(found, "result", None)
    if run is not None:
        found = (run, found.history)
    leaves = jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, kind))
    return (x for x in leaves if isinstance(x, kind))


def shown(observations: Any, step: int) -> str:
    """What a step observed, on one line: `"y" = 9.3`; of long arrays, the ends."""
    if observations is None:
        return ""
    rows = []
    for path, leaf in jax.tree.leaves_with_path(observations):
        if not all(isinstance(key, jax.tree_util.DictKey) for key in path):
            names = ""
        else:
            names = errors.show(str(key.key) for key in path)
        value = np.asarray(leaf)[step]
        text = (
            f"{value:.6g}"
            if value.ndim == 0
            else np.array2string(
                value, precision=4, threshold=6, edgeitems=2, separator=", "
            ).replace("\n", "")
        )
        rows.append(f"{names} = {text}" if names else text)
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return ", ".join(rows[:3]) + more


def _first(where: np.ndarray) -> int | None:
    return int(np.argmax(where)) if where.any() else None
