"""Whether draws can be used: the verdict in one line, and what it rests on."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .precision import X64, Limit

RHAT, ESS_PER_CHAIN, BFMI = 1.01, 100, 0.3
"""Vehtari et al. 2021, sections 3.3 and 4.1 (400 draws' worth over four chains);
Betancourt 2016 for BFMI, as in Stan."""


def array_stats() -> Any:
    """arviz-stats on arrays; imported when it is needed, which takes seconds."""
    return importlib.import_module("arviz_stats.base").array_stats


def bfmi(energy: np.ndarray) -> np.ndarray:
    """The estimated Bayesian fraction of missing information, for each chain.

    Of energies (chains, draws): E[(E_n - E_{n-1})^2] / Var[E] (Betancourt 2016,
    arXiv:1604.00695, section 4), by arviz-stats.
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # constant energy has none
        return np.asarray(
            array_stats().bfmi(np.asarray(energy, np.float64), chain_axis=0, draw_axis=1)
        )


@dataclass(frozen=True, eq=False)
class Divergences:
    """Transitions whose simulated trajectory left the level set of its energy.

    Attributes:
      count: int array of shape (chains,).
      where: int array of shape (n, 2): the (chain, draw) indices, from 0.

    >>> import numpy as np
    >>> from inference import Draws
    >>> diverging = np.zeros((2, 3), bool)
    >>> diverging[1, 2] = True
    >>> found = Draws({"mu": np.eye(2, 3)}, {"nuts/diverging": diverging}).divergences()
    >>> found
    Divergences(count=[0, 1], where=[[1, 2]])
    """

    count: np.ndarray
    where: np.ndarray

    def __repr__(self) -> str:
        return f"Divergences(count={self.count.tolist()}, where={self.where.tolist()})"


def divergences(stats: Mapping[str, np.ndarray]) -> Divergences:
    """The draws at which any of the kernels diverged."""
    any_kernel = np.logical_or.reduce([np.asarray(x, bool) for x in stats.values()])
    return Divergences(any_kernel.sum(1), np.argwhere(any_kernel))


@dataclass(frozen=True)
class Verdict:
    """Whether the draws can be used: true when they pass every check; `str` is one line.

    It fails on the first of: draws that are not finite; float32 too coarse for the log density
    or for a support (`inference.results.precision`); a scalar that never moves; divergences;
    R-hat above 1.01; bulk or tail ESS below 100 a chain (Vehtari et al. 2021); BFMI below 0.3
    (Betancourt 2016). Passing them does not prove convergence.

    Attributes:
      converged: whether all checks pass.
      check: the one that failed: "finite", "precision", "constant", "divergences", "rhat",
        "ess", "bfmi"; empty when all pass.
      name: the scalar (or kernel) that it is about.
      value: its number.
      line: what `str` gives.

    >>> import numpy as np
    >>> from inference import Draws, Verdict
    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> verdict: Verdict = Draws({"mu": x}).verdict()
    >>> bool(verdict), verdict.check
    (True, '')
    >>> print(Draws({"mu": x, "tau": np.ones((4, 1000))}).verdict())
    not converged: "tau" is constant (1 in all 4000 draws): add a kernel that moves it
    """

    converged: bool
    check: str
    name: str
    value: float
    line: str

    def __bool__(self) -> bool:
        return self.converged

    def __str__(self) -> str:
        return self.line


def judge(
    rows: Mapping[str, Mapping[str, Any]],
    shape: tuple[int, int],
    diverging: Mapping[str, np.ndarray],
    energy: Mapping[str, np.ndarray],
    status: str = "complete",
    limit: Limit | None = None,
) -> Verdict:
    """The verdict on diagnosed scalars and the kernels' statistics."""
    suffix = "" if status == "complete" else f" (the run: {status})"

    def failed(check: str, name: str, value: float, text: str, todo: str) -> Verdict:
        return Verdict(False, check, name, value, f"not converged: {text}: {todo}{suffix}")

    chains, draws = shape
    n = chains * draws
    for name, row in rows.items():
        if row["note"].split(" ")[-1] in ("NaN", "infinite", "draws"):
            return failed(
                "finite", name, row["mean"],
                f'"{name}" has {row["note"]}' + (f" among {n} draws" if n else ""),
                "look for overflow in its density, or a start outside the support"
                if n else "run it",
            )  # fmt: skip
    if limit is not None:  # the cause of much of what follows
        about = f"{limit.name}: " if limit.name else ""
        return failed(
            "precision", limit.name, limit.value, f"float32 is too coarse: {about}{limit.text}", X64
        )
    for name, row in rows.items():
        if row["note"] == "constant":
            value = row["mean"]
            text = f'"{name}" is constant ({value:g} in all {n} draws)'
            return failed("constant", name, value, text, "add a kernel that moves it")
    for name, row in rows.items():
        if row["note"]:
            todo = "make smaller steps, or start it elsewhere"
            return failed("constant", name, row["mean"], f'"{name}": {row["note"]}', todo)
    if diverging:
        count = int(divergences(diverging).count.sum())
        if count:
            name = ", ".join(k for k, x in diverging.items() if np.any(x))
            return failed(
                "divergences", name, count,
                f"{count} of {n} transitions diverged ({name})",
                "raise target_accept, or reparameterise (centred or not)",
            )  # fmt: skip
    if rows and (chains < 2 or draws < 4):
        text = f"{chains} chain{'s' * (chains != 1)} of {draws} draws say nothing"
        return failed("rhat", "", math.nan, text, "R-hat needs 2 chains of 4 draws; use 4 of 1000")
    name, value = _worst(rows, ("rhat",), 1)
    if rows and not value <= RHAT:
        text = f'R-hat of "{name}" is {value:.4f} > {RHAT}'
        return failed("rhat", name, value, text, "the chains disagree; more warmup and draws")
    least = ESS_PER_CHAIN * chains
    name, value = _worst(rows, ("ess_bulk", "ess_tail"), -1)
    if rows and not value >= least:
        kind = "tail" if rows[name]["ess_tail"] == value else "bulk"
        text = f'{kind} ESS of "{name}" is {value:.0f} < {least} ({ESS_PER_CHAIN} a chain)'
        times = "more" if math.isnan(value) else f"about {math.ceil(least / value)} times as many"
        return failed("ess", name, value, text, f"draw {times}, or thin as much")
    lowest = {}
    for full, x in energy.items():
        each = bfmi(x)
        at = int(np.argmin(each))
        lowest[full] = float(each[at])
        if not each[at] >= BFMI:
            text = f"BFMI of chain {at + 1} is {each[at]:.2f} < {BFMI} ({full})"
            todo = "reparameterise heavy tails, or give more warmup"
            return failed("bfmi", full, float(each[at]), text, todo)
    scalars = f"{len(rows)} scalar{'s' * (len(rows) != 1)}"
    told = [f"{scalars}, {chains} chains x {draws} draws"]
    if rows:
        told.append(f"R-hat <= {_worst(rows, ('rhat',), 1)[1]:.3f}")
        told.append(f"ESS >= {value:.0f}")
    if diverging:
        told.append("no divergences")
    if lowest:
        told.append(f"BFMI >= {min(lowest.values()):.2f}")
    return Verdict(True, "", "", math.nan, f"converged: {'; '.join(told)}{suffix}")


def _worst(
    rows: Mapping[str, Mapping[str, Any]], keys: tuple[str, ...], sign: int
) -> tuple[str, float]:
    """`(name, value)` of the largest (sign 1) or smallest (-1) number; a NaN is worst."""
    return max(
        ((name, row[key]) for name, row in rows.items() for key in keys),
        key=lambda pair: math.inf if math.isnan(pair[1]) else sign * pair[1],
        default=("", math.nan),
    )
