"""The checks of weighted particles: each looks at one thing, and says what to do about it.

A check is a function of `Particles` to findings; `PARTICLE_CHECKS` has them, the most serious
first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .degeneracy import FLOOR, below, least
from .khat import khat, reliable
from .precision import X64
from .verdict import Finding, Verdict
from .weighted_errors import distinct, effective

if TYPE_CHECKING:
    from .particles import Particles

LEAST = 100
"""Independent draws that a mean must be worth: its error is a tenth of the sd."""

Check = Callable[["Particles"], Iterator[Finding]]


def finite(found: Particles) -> Iterator[Finding]:
    """Weights and values are numbers."""
    bad = np.isnan(found.log_weight) | (found.log_weight == np.inf)
    if bad.any():
        text = f"{int(bad.sum())} of {bad.size} weights are no finite number"
        yield Finding("finite", "", int(bad.sum()), text, "look for overflow in the density")
    for name, row in found.rows.items():
        if row["note"].split(" ")[-1] in ("NaN", "infinite"):
            text = f'"{name}" has {row["note"]}'
            yield Finding("finite", name, row["mean"], text, "look for overflow in its density")
            return


def weighted(found: Particles) -> Iterator[Finding]:
    """Some weight is above zero."""
    dead = (found.log_weight == -np.inf).all(1)
    if dead.all():
        text = "all weights are zero, and so is the evidence"
        action = "widen the model, or propose by the observations"
        yield Finding("evidence", "", 0.0, text, action)


def ended(found: Particles) -> Iterator[Finding]:
    """Runs ended as they should."""
    for note, count in found.notes.items():
        text = f"{count} of {found.shape[0]} runs ended {note}"
        yield Finding("ended", note, count, text, "raise max_iterations")


def precise(found: Particles) -> Iterator[Finding]:
    """Single precision is enough for the log density and for the supports."""
    if found.limit is not None:
        text = f"float32 is too coarse: {found.limit.text}"
        yield Finding("precision", found.limit.name, found.limit.value, text, X64)


def steady(found: Particles) -> Iterator[Finding]:
    """Enough particles counted after every step of every run."""
    ess = found.history.get("ess")
    if ess is None or not ess.size:
        return
    n, bound = found.shape[1], least(found.shape[1], FLOOR)
    worst = np.unravel_index(int(np.argmin(ess)), ess.shape)
    if below(ess, bound)[worst]:
        run, step = (int(i) for i in worst)
        few = int(below(ess, bound).any(1).sum())
        where = f"at step {step} of run {run + 1}" if len(ess) > 1 else f"at step {step}"
        text = f"{where}, {ess[worst]:.1f} of {n} particles count (fewer than {bound:g})"
        text += f"; so it is in {few} runs" if few > 1 else ""
        action = "take more particles, smaller steps, or a proposal that looks at what is seen"
        yield Finding("steps", f"step {step}", float(ess[worst]), text, action)


def told(found: Particles) -> Iterator[Finding]:
    """There is something independent that tells the error."""
    families = found.independent
    if not found.weights.sum() > 0:  # nor not-a-number
        return
    if families.count < 2:
        text = "one run of particles that depend on each other does not tell its error"
        yield Finding("error", "", math.nan, text, "take several runs: chains=16")
    elif found.families is not None and not families.alone and families.left < 10:
        text = f"the particles descend from {families.left} of the first step"
        action = "take more particles, or several runs"
        yield Finding("ancestors", "", families.left, text, action)


def agreeing(found: Particles) -> Iterator[Finding]:
    """No run has most of the evidence."""
    runs = found.shape[0]
    if runs < 2 or found.independent.alone or found.log_evidences is not None:
        return
    shares = found.weights.sum(1)
    counting = effective(shares)
    if shares.any() and counting < runs / 2:
        most = int(np.argmax(shares))
        text = (
            f"the evidences of the runs disagree: run {most + 1} has {shares[most]:.0%} of all, "
            f"and {counting:.1f} of {runs} runs count"
        )
        action = "take more particles, more powers, or a kernel that moves further"
        yield Finding("runs", f"run {most + 1}", counting, text, action)


def light_tailed(found: Particles) -> Iterator[Finding]:
    """Weights of independent particles have a tail that estimates can bear."""
    if not found.independent.alone:
        return
    logs = found.log_weight.ravel()
    k = khat(logs)
    if k is not None and not reliable(k, logs.size):
        text = f"the weights have a heavy tail (Pareto k-hat {k:.2f} > 0.7)"
        action = "propose from nearer the posterior (a fit, laplace), or go there by annealed"
        yield Finding("khat", "", k, text, action)


def moving(found: Particles) -> Iterator[Finding]:
    """Every scalar has more than one value; one that is continuous has many."""
    still = [name for name, row in found.rows.items() if row["note"] == "constant"]
    if still:
        name = still[0]
        text = f'"{name}" is constant ({found.rows[name]["mean"]:g} in all particles that count)'
        action = "take more particles, or a kernel that moves it"
        yield Finding("constant", name, found.rows[name]["mean"], text + _more(still), action)
    copies: dict[str, float] = {}
    for names, x in found.columns():
        if np.issubdtype(x.dtype, np.inexact):
            for i, name in enumerate(names):
                if not found.rows[name]["note"]:
                    copies[name] = distinct(x[..., i], found.weights)
    few = {name: count for name, count in copies.items() if count < LEAST <= found.ess}
    if few:
        name = min(few, key=lambda n: few[n])
        text = f'{few[name]:.0f} distinct values of "{name}" count: the rest are copies'
        action = "move particles after they are resampled, more often or further"
        yield Finding("copies", name, few[name], text + _more(list(few)), action)


def enough(found: Particles) -> Iterator[Finding]:
    """Particles, and the mean of every scalar, are worth enough independent draws."""
    if found.weights.any() and found.ess < LEAST:
        text = f"{found.ess:.1f} of {found.weights.size} particles count (fewer than {LEAST})"
        action = "take more particles, or a proposal nearer the posterior"
        yield Finding("ess", "", found.ess, text, action)
        return
    worth = {name: row["ess"] for name, row in found.rows.items() if not row["note"]}
    few = {name: ess for name, ess in worth.items() if ess < LEAST}
    if few:
        name = min(few, key=lambda n: few[n])
        text = f'the mean of "{name}" is worth {few[name]:.0f} independent draws'
        text += f" (fewer than {LEAST})"
        action = "take more particles, or a kernel that moves further between resamplings"
        yield Finding("ess", name, few[name], text + _more(list(few)), action)


PARTICLE_CHECKS: tuple[Check, ...] = (
    finite, weighted, ended, precise, steady, told, agreeing, light_tailed, moving, enough,
)  # fmt: skip


def judge_particles(found: Particles) -> Verdict:
    """The verdict: what each check found, in their order; or, if nothing fails, the numbers.

    Passing does not prove that the particles are where the posterior is: a mode that none of them
    found is not missed.

    >>> import numpy as np
    >>> from inference import Particles
    >>> x = np.random.default_rng(0).normal(size=(1, 1000))
    >>> print(Particles({"mu": x}, 2 * x**2, families=np.arange(1000)[None]).verdict().check)
    khat
    """
    suffix = "" if found.status == "complete" else f" (the run: {found.status})"
    findings = tuple(finding for check in PARTICLE_CHECKS for finding in check(found))
    if findings:
        first = findings[0]
        line = f"not usable: {first}{suffix}"
        return Verdict(False, first.check, first.name, first.value, line, findings)
    return Verdict(True, "", "", math.nan, f"nothing amiss: {_passed(found)}{suffix}")


def _passed(found: Particles) -> str:
    runs, n = found.shape
    rows = [row for row in found.rows.values() if not row["note"]]
    text = f"{len(found.rows)} scalar{'s' * (len(found.rows) != 1)}, "
    text += f"{runs} run{'s' * (runs != 1)} x {n} particles"
    if rows:
        text += f"; means worth {min(row['ess'] for row in rows):.0f} draws or more"
    return text


def _more(names: Any) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
