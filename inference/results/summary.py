"""Summaries: numbers that say where the draws lie, and what they are worth.

R-hat, effective sample sizes and Monte Carlo standard errors are arviz-stats'
(rank-normalised: Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021, Bayesian
Analysis 16). That of a standard deviation is that of the mean of the squares around the
mean, over twice itself: the effective size of the values themselves, which arviz-stats
takes, is too large where chains alternate, as those of NUTS do. What they are not defined
for is said in words: a scalar that never moves has no effective sample size.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from html import escape
from typing import Any

import numpy as np

from ppl import errors, notebook

from ..validation.settings import check_number
from .checks import FEWEST
from .verdict import Verdict, array_stats

TAIL = (0.05, 0.95)
"""The quantiles of tail ESS (Vehtari et al. 2021, section 4.3)."""

Layout = tuple[str, str, tuple[tuple[str, str, str], ...]]
"""What the leading axes are called; and the columns after the interval: title, key, kind."""

DRAWS: Layout = ("chains", "draws", (
    ("mcse mean", "mcse_mean", "error"), ("mcse sd", "mcse_sd", "error"),
    ("ESS bulk", "ess_bulk", "size"), ("ESS tail", "ess_tail", "size"), ("R-hat", "rhat", "ratio"),
))  # fmt: skip
PARTICLES: Layout = ("runs", "particles", (
    ("mcse mean", "mcse_mean", "error"), ("mcse sd", "mcse_sd", "error"), ("ESS", "ess", "size"),
))  # fmt: skip

_AXES: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
_SHOWN = 20
_EPS = np.finfo(np.float64).eps
Columns = Iterable[tuple[list[str], np.ndarray]]


def diagnose(columns: Columns, fixed: Collection[str] = frozenset()) -> dict[str, dict[str, Any]]:
    """Per scalar what does not depend on an interval, and a note on what is degenerate.

    Those that are `fixed` by their supports are constants, but for rounding.
    """
    rows: dict[str, dict[str, Any]] = {}
    for names, given in columns:
        x = np.asarray(given, np.float64)
        chains, draws, n = x.shape
        inexact = np.issubdtype(given.dtype, np.inexact)
        eps = np.finfo(given.dtype).eps if inexact else 0.0
        notes = [_note(x[..., i], inexact) for i in range(n)]
        for i, name in enumerate(names):
            whole = notes[i].split(" ")[-1] not in ("NaN", "infinite", "draws")
            if name in fixed and whole and _equal(x[..., i], eps):
                notes[i] = "fixed by its support"
        found = {
            key: np.full(n, np.nan)
            for key in ("mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "rhat")
        }
        if chains * draws:
            with np.errstate(invalid="ignore"):  # of infinite values
                found["mean"] = x.mean((0, 1))
        found["sd"][[i for i in range(n) if notes[i].startswith(("constant", "fixed"))]] = 0.0
        moves = [i for i in range(n) if notes[i] == "" or notes[i].startswith(("chain", "each"))]
        if moves and chains * draws > 1:
            found["sd"][moves] = _deviation(x[..., moves])
        moves = [i for i in moves if not notes[i].startswith("each")]  # no variance in a chain
        if moves and draws >= FEWEST:
            some, stats = x[..., moves], array_stats()
            # chains that never move, values whose squares are too large
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                found["mcse_mean"][moves] = stats.mcse(some, **_AXES, method="mean")
                squares = (some - some.mean((0, 1))) ** 2
                of_squares = stats.mcse(squares, **_AXES, method="mean")
                found["mcse_sd"][moves] = of_squares / (2 * found["sd"][moves])
                found["ess_bulk"][moves] = stats.ess(some, **_AXES, method="bulk")
                found["ess_tail"][moves] = stats.ess(some, **_AXES, method="tail", prob=TAIL)
                if chains > 1:
                    rhat = stats.rhat(some, **_AXES, method="rank")
                    # halves of chains without variance, but for rounding
                    found["rhat"][moves] = np.where(rhat > 1 / np.sqrt(_EPS), np.inf, rhat)
        for i, name in enumerate(names):
            rows[name] = {key: float(value[i]) for key, value in found.items()}
            rows[name]["note"] = notes[i]
    return rows


def _deviation(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # values whose squares are too large
        return x.std((0, 1), ddof=1)


def _equal(x: np.ndarray, eps: float) -> bool:
    """Whether all values are the same, but for some rounding."""
    return bool(np.ptp(x) <= 64 * eps * np.abs(x).max())


def _note(x: np.ndarray, continuous: bool) -> str:
    """What is degenerate about the draws of one scalar; empty when nothing is.

    Of a few draws a chain no more can be said.
    """
    if not x.size:
        return "no draws"
    nans, infinite = int(np.isnan(x).sum()), int(np.isinf(x).sum())
    if nans or infinite:
        return f"{nans} NaN" if nans else f"{infinite} infinite"
    if x.shape[1] < FEWEST:
        return ""
    if np.ptp(x) == 0:
        return "constant"
    stuck = np.flatnonzero(np.ptp(x, 1) == 0)
    if len(stuck) == len(x):
        return "each chain constant"
    # a chain of a rare event may well see it never; one of a continuous value may not
    if continuous and stuck.size:
        return f"chain{'s' * (stuck.size > 1)} {', '.join(str(i + 1) for i in stuck)} constant"
    return ""


class Summary(Mapping[str, dict]):
    """Rows of numbers by the name of a scalar; prints as a table.

    A row has `mean`; `sd`; the ends of the equal-tailed interval, named by their
    quantiles (`5%`, `95%`); `mcse_mean` and `mcse_sd`, the Monte Carlo standard errors
    of the mean and of the sd; `ess_bulk` and `ess_tail`, effective sample sizes;
    `rhat`, rank-normalised; and `note`, text that is empty unless the draws are
    degenerate ("constant", "fixed by its support", "3 NaN"). What is not defined is NaN: a
    constant scalar has no ESS. Discrete scalars have the same columns. Only printing
    abbreviates. Of `Particles` there is `ess` in the place of the last three: how many
    independent draws know the mean as well.

    Attributes:
      prob: the probability of the interval.
      verdict: as of `Draws.verdict`.
      told: of particles, the log evidence and the effective number of them, in words.

    >>> import numpy as np
    >>> from inference import Draws, Summary
    >>> x = np.tile([0.0, 1.0, 2.0, 3.0, 4.0], (2, 1))
    >>> summary: Summary = Draws({"mu": x, "tau": np.ones_like(x)}).summary(prob=0.5)
    >>> row = summary["mu"]
    >>> row["mean"], row["25%"], row["75%"], summary["tau"]["note"]
    (2.0, 1.0, 3.0, 'constant')
    """

    def __init__(
        self, rows: dict[str, dict], prob: float, shape: tuple[int, int], verdict: Verdict,
        layout: Layout = DRAWS, told: str = "",
    ):  # fmt: skip
        self._rows = rows
        self.prob = prob
        self.shape = shape
        self.verdict = verdict
        self.layout, self.told = layout, told

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

    def _repr_html_(self) -> str:
        """What a notebook shows: the cells of the text in a table, and the verdict."""
        (head, *rows), caption, hidden = self._table()
        shown = [notebook.table(rows, caption=caption, head=head)]
        shown += [f"<p>{escape(text)}</p>" for text in (hidden, self.told) if text]
        return "\n".join([*shown, self.verdict._repr_html_()])

    def _table(self) -> tuple[list[list[str]], str, str]:
        """The head and the rows as text, what they are of, and how many rows are left out."""
        low, high = quantile_names(self.prob)
        (chains, draws), (several, each, columns) = self.shape, self.layout
        head = ["", "mean", "sd", low, high, *(title for title, _, _ in columns), ""]
        hidden = max(0, len(self) - _SHOWN) if len(self) > _SHOWN + 5 else 0
        names = list(self)[: len(self) - hidden]
        table = [head, *(_cells(name, self._rows[name], low, high, columns) for name in names)]
        caption = (
            f"{chains} {several if chains != 1 or several == 'chains' else several[:-1]} x {draws} "
            f"{each}; {low} and {high} are the ends of the "
            f"equal-tailed {100 * self.prob:g}% interval"
        )
        more = f"... {hidden} more rows: summary()['{list(self)[-1]}']" if hidden else ""
        return table, caption, more

    def __str__(self) -> str:
        table, caption, hidden = self._table()
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines, count = [caption], len(self.layout[2])
        for first, *cells, note in table:
            shown = [cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=False)]
            if note and set(cells[-count:]) == {"-"}:  # in the place of what is not defined
                span = sum(widths[-count - 1 : -1]) + 2 * (count - 1)
                shown[-count:], note = [note.rjust(span)], ""
            lines.append("  ".join([first.ljust(widths[0]), *shown, note]).rstrip())
        if hidden:
            lines.append(hidden)
        return "\n".join([*lines, *([self.told] if self.told else []), str(self.verdict)])


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
    check_number("prob", prob, above=0, below=1, fix=0.9)
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


def _cells(name: str, row: Mapping[str, Any], low: str, high: str, columns: Any) -> list[str]:
    """A row as text: values to three digits of the sd, errors to two of their own."""
    name = name if len(name) <= 18 else f"{name[:6]}...{name[-9:]}"
    digits = _digits(row["sd"], 3)
    values = [_number(row[key], digits) for key in ("mean", "sd", low, high)]
    known = {"size": 0, "ratio": 3}
    rest = [
        _number(row[key], known[kind] if kind in known else _digits(row[key], 2))
        for _, key, kind in columns
    ]
    return [name, *values, *rest, row["note"]]


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
