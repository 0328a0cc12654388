"""Numbers that say what the draws are worth: summaries, and a verdict in one line.

R-hat, effective sample sizes and Monte Carlo standard errors are arviz-stats'
(rank-normalised: Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021, Bayesian
Analysis 16). What they are not defined for is said in words: a scalar that never
moves has no effective sample size.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl import errors

RHAT, ESS_PER_CHAIN, BFMI = 1.01, 100, 0.3
"""Vehtari et al. 2021, sections 3.3 and 4.1 (400 draws' worth over four chains);
Betancourt 2016 for BFMI, as in Stan."""

TAIL = (0.05, 0.95)
"""The quantiles of tail ESS (Vehtari et al. 2021, section 4.3)."""

_AXES: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
_SHOWN = 20
Columns = Iterable[tuple[list[str], np.ndarray]]


def _stats() -> Any:
    return importlib.import_module("arviz_stats.base").array_stats  # slow to import: seconds


# -- numbers -------------------------------------------------------------------------------


def diagnose(columns: Columns) -> dict[str, dict[str, Any]]:
    """Per scalar what does not depend on an interval, and a note on what is degenerate."""
    rows: dict[str, dict[str, Any]] = {}
    for names, given in columns:
        x = np.asarray(given, np.float64)
        chains, draws, n = x.shape
        notes = [_note(x[..., i], np.issubdtype(given.dtype, np.inexact)) for i in range(n)]
        found = {
            key: np.full(n, np.nan)
            for key in ("mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "rhat")
        }
        if chains * draws:
            with np.errstate(invalid="ignore"):  # of infinite values
                found["mean"] = x.mean((0, 1))
        moves = [i for i in range(n) if notes[i] == "" or notes[i].startswith("chain")]
        still = [i for i in range(n) if notes[i] == "constant"]
        found["sd"][still] = 0.0
        if moves:
            some, stats = x[..., moves], _stats()
            found["sd"][moves] = some.std((0, 1), ddof=1)
            with np.errstate(invalid="ignore", divide="ignore"):  # of chains that never move
                found["mcse_mean"][moves] = stats.mcse(some, **_AXES, method="mean")
                found["mcse_sd"][moves] = stats.mcse(some, **_AXES, method="sd")
                found["ess_bulk"][moves] = stats.ess(some, **_AXES, method="bulk")
                found["ess_tail"][moves] = stats.ess(some, **_AXES, method="tail", prob=TAIL)
                if chains > 1:
                    found["rhat"][moves] = stats.rhat(some, **_AXES, method="rank")
        for i, name in enumerate(names):
            rows[name] = {key: float(value[i]) for key, value in found.items()}
            rows[name]["note"] = notes[i]
    return rows


def _note(x: np.ndarray, continuous: bool) -> str:
    """What is degenerate about the draws of one scalar; empty when nothing is."""
    if not x.size:
        return "no draws"
    nans, infinite = int(np.isnan(x).sum()), int(np.isinf(x).sum())
    if nans or infinite:
        return f"{nans} NaN" if nans else f"{infinite} infinite"
    if np.ptp(x) == 0:
        return "constant"
    stuck = np.flatnonzero(np.ptp(x, 1) == 0)
    # a chain of a rare event may well see it never; one of a continuous value may not
    if continuous and stuck.size:
        return f"chain{'s' * (stuck.size > 1)} {', '.join(str(i + 1) for i in stuck)} constant"
    return ""


def bfmi(energy: np.ndarray) -> np.ndarray:
    """The estimated Bayesian fraction of missing information, for each chain.

    Of energies (chains, draws): E[(E_n - E_{n-1})^2] / Var[E] (Betancourt 2016,
    arXiv:1604.00695, section 4), by arviz-stats.
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # constant energy has none
        return np.asarray(_stats().bfmi(np.asarray(energy, np.float64), **_AXES))


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


# -- the verdict ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Whether the draws can be used: true when they pass every check; `str` is one line.

    It fails on the first of: draws that are not finite; a scalar that never moves;
    divergences; R-hat above 1.01; bulk or tail ESS below 100 a chain (Vehtari et al.
    2021); BFMI below 0.3 (Betancourt 2016). Passing them does not prove convergence.

    Attributes:
      converged: whether all checks pass.
      check: the one that failed: "finite", "constant", "divergences", "rhat", "ess",
        "bfmi"; empty when all pass.
      name: the scalar (or kernel) that it is about.
      value: its number.
      line: what `str` gives.

    >>> import numpy as np
    >>> from inference import Draws
    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(Draws({"mu": x}).verdict())
    True
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
    name, value = _extreme(rows, ("rhat",), max)
    if value > RHAT:
        text = f'R-hat of "{name}" is {value:.3f} > {RHAT}'
        return failed("rhat", name, value, text, "the chains disagree; more warmup and draws")
    least = ESS_PER_CHAIN * chains
    name, value = _extreme(rows, ("ess_bulk", "ess_tail"), min)
    if value < least:
        kind = "bulk" if rows[name]["ess_bulk"] == value else "tail"
        text = f'{kind} ESS of "{name}" is {value:.0f} < {least} ({ESS_PER_CHAIN} a chain)'
        todo = f"draw about {math.ceil(least / value)} times as many, or thin as much"
        return failed("ess", name, value, text, todo)
    lowest = {}
    for full, x in energy.items():
        each = bfmi(x)
        at = int(np.argmin(each))
        lowest[full] = float(each[at])
        if not each[at] >= BFMI:
            text = f"BFMI of chain {at + 1} is {each[at]:.2f} < {BFMI} ({full})"
            todo = "reparameterise heavy tails, or give more warmup"
            return failed("bfmi", full, float(each[at]), text, todo)
    told = [f"{len(rows)} scalars, {chains} chains x {draws} draws"]
    if rows:
        told.append(f"R-hat <= {_extreme(rows, ('rhat',), max)[1]:.3f}")
        told.append(f"ESS >= {value:.0f}")
    if diverging:
        told.append("no divergences")
    if lowest:
        told.append(f"BFMI >= {min(lowest.values()):.2f}")
    return Verdict(True, "", "", math.nan, f"converged: {'; '.join(told)}{suffix}")


def _extreme(rows: Mapping[str, Mapping[str, Any]], keys: tuple[str, ...], which: Any):
    """`(name, value)` of the largest or smallest number in some columns."""
    return which(
        ((name, row[key]) for name, row in rows.items() for key in keys),
        key=lambda pair: pair[1],
        default=("", math.nan),
    )


# -- the table -------------------------------------------------------------------------------


class Summary(Mapping[str, dict]):
    """Rows of numbers by the name of a scalar; prints as a table.

    A row has `mean`; `sd`; the ends of the equal-tailed interval, named by their
    quantiles (`5%`, `95%`); `mcse_mean` and `mcse_sd`, the Monte Carlo standard errors
    of the mean and of the sd; `ess_bulk` and `ess_tail`, effective sample sizes;
    `rhat`, rank-normalised; and `note`, text that is empty unless the draws are
    degenerate ("constant", "3 NaN"). What is not defined is NaN: a constant scalar has
    no ESS. Discrete scalars have the same columns. Only printing abbreviates.

    Attributes:
      prob: the probability of the interval.
      verdict: as of `Draws.verdict`.

    >>> import numpy as np
    >>> from inference import Draws
    >>> x = np.tile([0.0, 1.0, 2.0, 3.0, 4.0], (2, 1))
    >>> summary = Draws({"mu": x, "tau": np.ones_like(x)}).summary(prob=0.5)
    >>> row = summary["mu"]
    >>> row["mean"], row["25%"], row["75%"], summary["tau"]["note"]
    (2.0, 1.0, 3.0, 'constant')
    """

    def __init__(
        self, rows: dict[str, dict], prob: float, shape: tuple[int, int], verdict: Verdict
    ):
        self._rows = rows
        self.prob = prob
        self.shape = shape
        self.verdict = verdict

    def __getitem__(self, name: str) -> dict:
        if name not in self._rows:
            guess = errors.near(name, self._rows)
            raise errors.AddressNotFound(
                f'The summary has no scalar "{name}".',
                where=errors.caller(),
                given=f'"{name}"',
                expected="one of: " + "; ".join(self._rows),
                fix=f'did you mean "{guess}"?' if guess else "elements count from 1: theta[1]",
            )
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        low, high = quantile_names(self.prob)
        chains, draws = self.shape
        head = ["", "mean", "sd", low, high, "mcse mean", "mcse sd", "ESS bulk", "ESS tail",
                "R-hat", ""]  # fmt: skip
        hidden = max(0, len(self) - _SHOWN) if len(self) > _SHOWN + 5 else 0
        names = list(self)[: len(self) - hidden]
        table = [head, *(_cells(name, self._rows[name], low, high) for name in names)]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        lines = [
            f"{chains} chains x {draws} draws; {low} and {high} are the ends of the "
            f"equal-tailed {100 * self.prob:g}% interval"
        ]
        for first, *cells, note in table:
            shown = [cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=False)]
            if note and set(cells[-5:]) == {"-"}:  # in the place of what is not defined
                span = sum(widths[-6:-1]) + 2 * 4
                shown[-5:], note = [note.rjust(span)], ""
            lines.append("  ".join([first.ljust(widths[0]), *shown, note]).rstrip())
        if hidden:
            lines.append(f"... {hidden} more rows: summary()['{list(self)[-1]}']")
        return "\n".join([*lines, str(self.verdict)])


def quantile_names(prob: float) -> tuple[str, str]:
    """The columns of the ends of the equal-tailed interval: ("5%", "95%") for 0.9."""
    return f"{50 * (1 - prob):g}%", f"{50 * (1 + prob):g}%"


def summarize(
    diagnosed: Mapping[str, Mapping[str, Any]],
    columns: Columns,
    prob: float,
    shape: tuple[int, int],
    verdict: Verdict,
) -> Summary:
    """Diagnosed scalars, with the equal-tailed interval of probability `prob`."""
    if not 0 < prob < 1:
        raise errors.InvalidArgument(
            "The probability of an interval is between 0 and 1.", where=errors.caller(),
            given=prob, expected="0 < prob < 1", fix="summary(prob=0.9)",
        )  # fmt: skip
    low, high = quantile_names(prob)
    rows = {}
    for names, x in columns:
        ends = np.full((2, len(names)), np.nan)
        if x.size:
            with np.errstate(invalid="ignore"):  # between infinite values
                values = np.asarray(x, np.float64)
                ends = np.quantile(values, [(1 - prob) / 2, (1 + prob) / 2], (0, 1))
        for i, name in enumerate(names):
            row = diagnosed[name]
            between = {low: float(ends[0, i]), high: float(ends[1, i])}
            rest = {key: row[key] for key in row if key not in ("mean", "sd")}
            rows[name] = {"mean": row["mean"], "sd": row["sd"], **between, **rest}
    return Summary(rows, prob, shape, verdict)


def _cells(name: str, row: Mapping[str, Any], low: str, high: str) -> list[str]:
    """A row as text: values to three digits of the sd, errors to two of their own."""
    name = name if len(name) <= 18 else f"{name[:6]}...{name[-9:]}"
    digits = _digits(row["sd"], 3)
    values = [_number(row[key], digits) for key in ("mean", "sd", low, high)]
    errs = [_number(row[key], _digits(row[key], 2)) for key in ("mcse_mean", "mcse_sd")]
    sizes = [_number(row[key], 0) for key in ("ess_bulk", "ess_tail")]
    return [name, *values, *errs, *sizes, _number(row["rhat"], 3), row["note"]]


def _digits(size: float, significant: int) -> int:
    """Decimals that show `significant` digits of a number of this size."""
    if not math.isfinite(size) or size == 0:
        return significant
    return max(0, significant - 1 - math.floor(math.log10(abs(size))))


def _number(x: float, digits: int) -> str:
    if math.isnan(x):
        return "-"
    text = f"{x:.{digits}f}"
    return text if digits <= 6 and len(text) <= 9 else f"{x:.1e}"
