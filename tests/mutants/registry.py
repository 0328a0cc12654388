"""The kill matrix: what is deliberately wrong, and by which public check it is found."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from semantics import Verdict
from semantics.report import joined

Kind = Literal["mutant", "correct", "equivalent"]


@dataclass(frozen=True, eq=False)
class Entry:
    """One version of an algorithm.

    Attributes:
      family: the algorithm.
      name: short and unique in its family.
      says: how it differs from the correct version.
      check: the public check of it, as a `functools.partial`, called without arguments.
      by: what checks it, by its public name; by default the name of the check.
      kind: "mutant" (the check must fail), "correct", or "equivalent" (another algorithm
        with the same property; the check must pass).
    """

    family: str
    name: str
    says: str
    check: functools.partial[Any]
    kind: Kind = "mutant"
    by: str = ""

    @property
    def checked_by(self) -> str:
        return self.by or self.check.func.__name__

    @functools.cached_property
    def verdict(self) -> Verdict:
        """What the check says, computed once."""
        found = self.check()
        if isinstance(found, Verdict):
            return found
        failed = [verdict for verdict in found if not verdict.passed]
        return failed[0] if failed else joined(self.checked_by, found)

    def __str__(self) -> str:
        return f"{self.family}/{self.name}"


def family(
    name: str, check: Callable, make: Callable, *args: Any, **how: Any
) -> Callable[[Kind, str, str], Entry]:
    """`entry(kind, wrong, says)`: the check of `make(target, wrong=wrong)`."""

    def entry(kind: Kind, wrong: str, says: str) -> Entry:
        made = functools.partial(check, functools.partial(make, wrong=wrong), *args, **how)
        return Entry(name, wrong or "correct", says, made, kind)

    return entry
