"""Verdicts: whether draws can be used, what is amiss, and what to do about each of it.

The checks themselves are in `checks`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ppl import notebook


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
class Finding:
    """One thing that a check found, and what to do about it.

    Attributes:
      check: the name of the check.
      name: the scalar, or the kernel, that it is about; empty if it is about all.
      value: its number.
      text: what was found.
      action: what to do next.
      fails: whether the draws cannot be used for it; else it is a note.

    >>> from inference.results.verdict import Finding
    >>> print(Finding("rhat", "mu", 1.5, 'R-hat of "mu" is 1.5', "more warm-up"))
    R-hat of "mu" is 1.5: more warm-up
    """

    check: str
    name: str
    value: float
    text: str
    action: str
    fails: bool = True

    def __str__(self) -> str:
        return f"{self.text}: {self.action}"


@dataclass(frozen=True)
class Verdict:
    """Whether the draws can be used: true when they pass every check.

    What fails is named, the most serious first, each with what to do: draws that are not
    finite; float32 too coarse for the log density or a support (`inference.results.precision`);
    a scalar that never moves (but for what a support fixes); too few chains or draws;
    divergences; R-hat above 1.01, and whether the chains have settled apart; bulk or tail ESS
    below 100 a chain (Vehtari et al. 2021); BFMI below 0.3 (Betancourt 2016). A note does not
    fail: trajectories that reached their greatest depth. Passing does not prove convergence.

    Attributes:
      converged: whether all checks pass.
      check: the first that failed: "finite", "precision", "constant", "divergences",
        "rhat", "ess", "bfmi"; empty when all pass.
      name: the scalar (or kernel) that it is about.
      value: its number.
      line: the first line of `str`, which has a line for each finding.
      findings: all that was found, in order; each has a `check`, a `name`, a `value`, a `text`
        and an `action`, and `fails`, or is a note.

    >>> import numpy as np
    >>> from inference import Draws, Verdict
    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> verdict: Verdict = Draws({"mu": x}).verdict()
    >>> bool(verdict), verdict.check
    (True, '')
    >>> apart = x + np.array([[0.0], [0.0], [9.0], [9.0]])
    >>> verdict = Draws({"mu": apart, "tau": np.ones((4, 1000))}).verdict()
    >>> for finding in verdict.findings:
    ...     print(finding.check, finding.name, finding.action, sep="; ")
    constant; tau; add a kernel that moves it
    rhat; mu; cross between modes, by parallel_tempering, or by annealed particles
    ess; mu; first make the chains agree
    """

    converged: bool
    check: str
    name: str
    value: float
    line: str
    findings: tuple[Finding, ...] = ()

    def __bool__(self) -> bool:
        return self.converged

    def __str__(self) -> str:
        return "\n".join([self.line, *(f"  {kind}: {x}" for kind, x in self._others())])

    def _others(self) -> list[tuple[str, Finding]]:
        """What the first line does not say: what fails also, and notes."""
        first = 0 if self.converged else 1
        return [("also" if x.fails else "note", x) for x in self.findings[first:]]

    def _repr_html_(self) -> str:
        """What a notebook shows: the first line, and a row for each other finding."""
        rows = [(kind, x.text, x.action) for kind, x in self._others()]
        head = ("", "found", "what to do")
        others = "\n" + notebook.table(rows, head=head) if rows else ""
        return f"<p>{escape(self.line)}</p>{others}"
