"""Verdicts: what a check found, by which method, and what it would have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.strategies import SearchStrategy

from ppl import notebook

# programs are compiled while they are checked
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


class CheckFailed(AssertionError):
    """A check failed; the message is its verdict, with the witness.

    >>> from semantics import CheckFailed, Verdict
    >>> try:
    ...     Verdict("kernel", False, "exact", 0.1, 1e-12, 9, witness="at x = 1").require()
    ... except CheckFailed as failure:
    ...     print(failure)
    kernel: FAILED (exact, error 0.1 of at most 1e-12, n = 9)
    at x = 1
    """


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check. True when it passed.

    Attributes:
      check: what was checked.
      passed: whether it holds, as far as the method sees.
      method: `"exact"` (all paths of the program itself), `"quadrature"`, `"identity"`
        (an equation at given points), or `"e-value"`.
      error: the largest departure found; of an e-value, its natural log.
      threshold: what `error` must not exceed (of an e-value, not reach).
      n: paths, points or samples looked at, over all programs.
      effect: the smallest departure that would have been seen.
      programs: how many programs were checked.
      variance: of an estimator, the sum of the variances of its coordinates, exactly.
      witness: on failure, where it fails, and the (shrunk) program as code.

    >>> from semantics import Verdict
    >>> print(Verdict("kernel", True, "exact", error=1e-16, threshold=1e-12, n=24))
    kernel: passed (exact, error 1e-16 of at most 1e-12, n = 24)
    """

    check: str
    passed: bool
    method: str
    error: float
    threshold: float
    n: int
    effect: float | None = None
    programs: int = 1
    witness: str = field(default="", repr=False)
    variance: float | None = None

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        over = "" if self.programs == 1 else f"{self.programs} programs, "
        kind = "log e" if self.method == "e-value" else "error"
        spread = "" if self.variance is None else f", variance {self.variance:.3g}"
        line = (
            f"{self.check}: {outcome} ({self.method}, {over}{kind} {self.error:.2g} "
            f"of at most {self.threshold:.2g}, n = {self.n}{spread})"
        )
        return line if self.passed or not self.witness else f"{line}\n{self.witness}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the numbers of the text in a table, and the witness below."""
        kind = "log e" if self.method == "e-value" else "error"
        cells = {
            "check": self.check,
            "verdict": "passed" if self.passed else "FAILED",
            "method": self.method,
            "programs": "" if self.programs == 1 else str(self.programs),
            kind: f"{self.error:.2g}",
            "at most": f"{self.threshold:.2g}",
            "n": str(self.n),
            "variance": "" if self.variance is None else f"{self.variance:.3g}",
        }
        some = {name: cell for name, cell in cells.items() if cell}
        shown = notebook.table([tuple(some.values())], head=tuple(some))
        if self.passed or not self.witness:
            return shown
        return f"{shown}\n{notebook.lines(self.witness)}"

    def require(self) -> Verdict:
        """The verdict itself, if it passed.

        Raises:
          CheckFailed: it did not.
        """
        if not self.passed:
            raise CheckFailed(str(self))
        return self


def joined(check: str, verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for several: the first failure, or the one closest to its threshold."""
    found = list(verdicts)
    failed = [v for v in found if not v.passed]
    worst = failed[0] if failed else max(found, key=lambda v: v.error / v.threshold)
    return replace(worst, check=check, n=sum(v.n for v in found))


def over(
    programs: SearchStrategy, judge: Callable[[Any], Verdict], max_examples: int = 100
) -> Verdict:
    """`judge` on generated programs: the worst verdict, or the failure on a minimal program.

    The programs are the same in every run. A failure is shrunk by Hypothesis; its witness
    ends with the program as code.
    """
    seen: list[Verdict] = []

    @settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=_SLOW,
        phases=(Phase.generate, Phase.shrink),
    )
    @given(programs)
    def every(case: Any) -> None:
        verdict = judge(case)
        if not verdict.passed:
            raise _Found(replace(verdict, witness=f"{verdict.witness}\n{_code(case)}".strip()))
        seen.append(verdict)

    try:
        every()
    except _Found as failure:
        return replace(failure.verdict, programs=len(seen) + 1)
    return replace(joined(seen[0].check, seen), programs=len(seen))


class _Found(Exception):
    """A program on which the check fails."""

    def __init__(self, verdict: Verdict):
        super().__init__(str(verdict))
        self.verdict = verdict


def _code(case: Any) -> str:
    """A generated program, or several, as runnable code."""
    parts = case if isinstance(case, tuple) else (case,)
    return "\n".join(part.code() if hasattr(part, "code") else repr(part) for part in parts)


def table(verdicts: Iterable[Verdict], title: str = "") -> Any:
    """The verdicts as a `rich` table.

    >>> from rich.console import Console
    >>> from semantics import Verdict, table
    >>> passed = Verdict("kernel", True, "exact", error=1e-16, threshold=1e-12, n=24)
    >>> Console(width=60).print(table([passed]).columns[0].header)
    check
    """
    from rich.table import Table

    shown = Table(title=title or None)
    for heading in ("check", "verdict", "method", "error", "at most", "n"):
        shown.add_column(heading, justify="left" if heading in ("check", "verdict") else "right")
    for v in verdicts:
        style = None if v.passed else "red"
        row = (v.check, "passed" if v.passed else "FAILED", v.method)
        shown.add_row(*row, f"{v.error:.2g}", f"{v.threshold:.2g}", str(v.n), style=style)
    return shown
