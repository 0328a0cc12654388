"""The error for a step of a program that cannot be summed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ppl import errors
from ppl.program import Branch, Choice, Draw, Factor, Path, Step
from ppl.sites import Site


class Choices(Protocol):
    """Choices that are summed out.

    Attributes:
      places: their addresses.
      sites: all choices of the program.
      way, expected: how a choice may depend on what is summed out.
    """

    @property
    def places(self) -> frozenset[Path]: ...

    @property
    def sites(self) -> Mapping[Path, Site]: ...

    @property
    def way(self) -> str: ...

    @property
    def expected(self) -> str: ...


_NAMES = {Factor: "A factor", Draw: "A draw", Branch: "A branch"}


def refused(step: Step, choices: Choices, given: str = "") -> errors.InvalidArgument:
    """The error for a step that what is summed out cannot go through."""
    names = "; ".join(map(errors.show, sorted(choices.places)))
    inside = sorted(step.paths & choices.places) or sorted(step.paths & choices.sites.keys())
    path = step.path if isinstance(step, Choice) else inside[0] if inside else None
    first = min(choices.places)
    shown = f"{errors.show(path)} at {choices.sites[path].source}" if path else step.source
    what = errors.show(path) if path else _NAMES.get(type(step), "A construct")
    fix = f"leave {names} to the particles, or let this depend on it so"
    if not isinstance(step, (Choice, Draw, Factor, Branch)):
        given = given or f"a {type(step).__name__.lower()}, with it inside or as input"
        fix = "make one choice of an array: dist.Normal(loc, scale) with a loc of shape (k,)"
    if isinstance(step, Factor):
        fix = "make data choices, and observe them by address, instead of observe or factor"
    return errors.InvalidArgument(
        f"{what} does not depend {choices.way} on {names}, summed out.",
        where=(shown, f"{errors.show(first)} at {choices.sites[first].source}", errors.caller()),
        given=given or "a score or parameter that depends on it",
        expected=choices.expected,
        fix=fix,
    )
