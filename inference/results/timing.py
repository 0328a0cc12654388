"""What a run spent its time on: programs that were compiled, and all of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Compilation:
    """A program that a run compiled.

    Attributes:
      program: "begin" (states of finite density), "freeze" (parameters after warm-up), or "steps".
      seconds: by the clock, until it began to run.
      why: "new", or how its arguments differ from those that it was compiled for before.
    """

    program: str
    seconds: float
    why: str


@dataclass(frozen=True)
class Timing:
    """Seconds of a run by the clock, and what was compiled in them.

    A run on other data of equal shapes compiles nothing.

    Attributes:
      seconds: of the whole run, with what is done on the host; after a checkpoint, since then.
      compiled: the programs that it compiled, in order.

    >>> from inference.results.timing import Compilation, Timing
    >>> Timing(2.5, (Compilation("steps", 1.5, "new"), Compilation("begin", 0.5, "new")))
    Timing(2.5 s, 2.0 s of them for 2 compilations)
    """

    seconds: float
    compiled: tuple[Compilation, ...]

    @property
    def compiling(self) -> float:
        """Seconds that compilations took."""
        return sum(each.seconds for each in self.compiled)

    def __repr__(self) -> str:
        if not self.compiled:
            return f"Timing({self.seconds:.1f} s, nothing compiled)"
        count = len(self.compiled)
        return (
            f"Timing({self.seconds:.1f} s, {self.compiling:.1f} s of them for {count} "
            f"compilation{'s' if count > 1 else ''})"
        )
