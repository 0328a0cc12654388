"""`python -m tests.mutants.table` writes docs/kill_matrix.md: every mutant and what finds it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import jax

from .matrix import ENTRIES
from .registry import Entry

PAGE = Path(__file__).parents[2] / "docs" / "kill_matrix.md"

HEAD = """\
# Kill matrix

Each row is a deliberate bug: a correct algorithm with one thing wrong. A public check of
`semantics` must find it, and must pass the correct version, and versions that look wrong but
are not. `tests/test_kill_matrix.py` runs all of them; `python -m tests.mutants.table` writes
this page. *Error found* is the largest departure on the (shrunk) program that the check
shows, relative to the mass for measures, or log e for e-values; *n* is the number of paths,
points or samples looked at on it.

{mutants} mutants, all found.

| family | bug | killed by | method | error found | n |
| --- | --- | --- | --- | ---: | ---: |
"""

PASSING = """
Versions that must pass: {count}, all do. "Equivalent" ones differ from the published algorithm,
and have the same property.

| family | version | kind | checked by | method | largest error | n |
| --- | --- | --- | --- | --- | ---: | ---: |
"""


def page(entries: Iterable[Entry]) -> str:
    """The page, from the verdicts of all entries."""
    entries = list(entries)
    mutants = [row(entry) for entry in entries if entry.kind == "mutant"]
    others = [row(entry) for entry in entries if entry.kind != "mutant"]
    return "".join(
        [HEAD.format(mutants=len(mutants)), *mutants, PASSING.format(count=len(others)), *others]
    )


def row(entry: Entry) -> str:
    """The line of one entry, from its verdict."""
    return line([*known(entry), *_found(entry)])


def known(entry: Entry) -> tuple[str, ...]:
    """The cells of an entry that need no verdict."""
    kind = () if entry.kind == "mutant" else (entry.kind,)
    return entry.family, entry.says, *kind, _code(entry)


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |\n".replace("n'", "n′")


def _code(entry: Entry) -> str:
    return f"`{entry.checked_by}`"


def _found(entry: Entry) -> list[str]:
    verdict = entry.verdict
    return [verdict.method, f"{verdict.error:.2g}", str(verdict.n)]


def columns(text: str) -> list[tuple[str, ...]]:
    """What of the page does not depend on rounding: all columns but the last two."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|"))[:-2] for line in lines]


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    PAGE.write_text(page(ENTRIES))
