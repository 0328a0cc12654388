"""Errors that say what went wrong, where, what was expected, and what to do.

Every error of the library is a :class:`PPLError` and also the builtin exception
that a caller would naturally catch (`KeyError`, `ValueError`, ...). The message
has at most twelve lines: what; where (the address and the *user's* file and
line, never a line of a library); given against expected; and one concrete fix.
`docs/errors.md` has a row for each class.
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Iterable
from functools import lru_cache

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)
_OURS = tuple(os.path.join(_ROOT, name) + os.sep for name in ("ppl", "inference", "semantics"))
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


@lru_cache(maxsize=4096)
def is_users(filename: str) -> bool:
    if filename.startswith(_OURS) or any(mark in filename for mark in _SITE):
        return False
    return not (filename.startswith(_STDLIB) or filename.startswith("<frozen"))


def place(filename: str, line: int | None) -> str:
    return f"{filename.removeprefix(os.getcwd() + os.sep)}:{line}"


def caller() -> str:
    """`file:line` of the innermost frame that is the user's own code.

    Frames of this library, of installed packages and of the standard library
    are passed over; `<unknown>` when nothing is left.
    """
    frame = sys._getframe(1)
    while frame is not None:
        # records have an __init__ that was made from a string, which is no file
        made = frame.f_code.co_filename == "<string>" and frame.f_code.co_name == "__init__"
        if is_users(frame.f_code.co_filename) and not made:
            return place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return "<unknown>"


def place_in(error: BaseException) -> str:
    """`file:line` of the innermost user frame in the traceback of `error`."""
    found, tb = "<unknown>", error.__traceback__
    while tb is not None:
        if is_users(tb.tb_frame.f_code.co_filename):
            found = place(tb.tb_frame.f_code.co_filename, tb.tb_lineno)
        tb = tb.tb_next
    return found


def defined(fn: object) -> str:
    """`file:line` where a function is defined; the caller's place when that is unknown."""
    code = getattr(inspect.unwrap(fn), "__code__", None) if callable(fn) else None
    return place(code.co_filename, code.co_firstlineno) if code is not None else caller()


def show(address: Iterable[str]) -> str:
    """An address path as a user would type it: `"a"` or `"a", "b"`."""
    return ", ".join(f'"{part}"' for part in address)


def near(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most resembles (in any case), if any does."""
    lowered = {each.lower(): each for each in known}
    match = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[match[0]] if match else None


class PPLError(Exception):
    """What, where, given against expected, and the fix, in at most 12 lines.

    Attributes:
      what: one sentence.
      where: places, each `address` and/or `file:line`.
      given, expected: the two sides of the mismatch, when there is one.
      fix: one concrete thing to do.

    >>> import numpyro.distributions as dist
    >>> from ppl import PPLError, gen, sample
    >>> model = gen(lambda: sample("slope", dist.Normal(0.0, 1.0)))
    >>> try:
    ...     model.generate({"slpe": 1.0})
    ... except PPLError as error:
    ...     print(f"{error.what} {error.fix}")
    The constraint names "slpe", which is no choice of the model. did you mean "slope"?
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | Iterable[str] = (),
        given: object = None,
        expected: object = None,
        fix: str | None = None,
    ):
        self.what = what
        self.where = (where,) if isinstance(where, str) else tuple(where)
        self.given = given
        self.expected = expected
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  where:    {place}" for place in self.where[:4]]
        if self.given is not None:
            lines.append(f"  given:    {_clip(self.given)}")
        if self.expected is not None:
            lines.append(f"  expected: {_clip(self.expected)}")
        if self.fix is not None:
            lines.append(f"  fix:      {_clip(self.fix, 400)}")
        return "\n".join(lines)


def _clip(value: object, width: int = 300) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."


class AddressNotFound(PPLError, KeyError):
    """A constraint, selection, initial value or path names no choice of the model."""

    __str__ = PPLError.__str__  # KeyError would print the repr of its argument


class MissingChoice(PPLError, KeyError):
    """`assess` was not given a value for a choice that the model makes."""

    __str__ = PPLError.__str__


class DuplicateAddress(PPLError, ValueError):
    """Two choices that can both happen have the same address."""


class PrefixClash(PPLError, ValueError):
    """An address is both a choice and the prefix of other choices."""


class InvalidAddress(PPLError, TypeError):
    """An address is not a non-empty string or tuple of non-empty strings."""


class SupportError(PPLError, ValueError):
    """A value lies outside the support of its distribution, or is not a number."""


class InvalidDistribution(PPLError, ValueError):
    """A distribution's parameters are invalid, or it is no distribution at all."""


class ShapeError(PPLError, ValueError):
    """A value has another shape than its choice; nothing is broadcast."""


class DtypeError(PPLError, TypeError):
    """A value has another kind of dtype than its choice; nothing is cast lossily."""


class PythonControlFlow(PPLError, TypeError):
    """Python `if`, `while`, `int()`, ... used the value of a traced variable."""


class OutsideModel(PPLError, RuntimeError):
    """`sample`, `factor` or `observe` ran outside a generative function."""


class UnsupportedControlFlow(PPLError, TypeError):
    """Randomness inside a construct that cannot carry it (choices in `while_loop`)."""


class MissingSeed(PPLError, RuntimeError):
    """A random program was run as if it were deterministic; it needs `seed`."""


class InvalidKey(PPLError, TypeError):
    """What should be one PRNG key is not one."""


class ExcludedBranch(PPLError, ValueError):
    """A choice is constrained in a branch that other values exclude."""


class GradientThroughDraw(PPLError, TypeError):
    """A derivative was asked for through randomness, where it would be wrong."""


class CannotIntegrate(PPLError, TypeError):
    """A draw has neither finitely many outcomes nor a quadrature rule in use."""


class BranchMismatch(PPLError, TypeError):
    """Two branches make the same choice with different shapes, dtypes or supports."""


class CannotSimulate(PPLError, TypeError):
    """A program that scores, or a distribution without a working sampler, cannot be simulated."""


class InvalidArgument(PPLError, ValueError):
    """An argument of the library's own functions is not what it must be."""


class StaticArgument(PPLError, TypeError):
    """An argument or result that is no array cannot be traced and is not hashable."""


class TapeMismatch(PPLError, ValueError):
    """A tape given to `replay` does not fit the program's draws."""


class MissingExecutable(PPLError, RuntimeError):
    """A program of the system that is needed is not installed."""


class NonFiniteStart(PPLError, ValueError):
    """A chain found no start with a finite log density and gradient.

    `rows` has (address, value, support, log density, gradient) for each address, those at
    fault first.
    """

    def __init__(self, what: str, *, rows: Iterable[tuple] = (), **parts):
        super().__init__(what, **parts)
        self.rows = list(rows)

    def __str__(self) -> str:
        lines = [
            f"  {name}: {value} on {support}, log density {density:.6g}"
            + (f", gradient {gradient}" if gradient else "")
            for name, value, support, density, gradient in self.rows
        ]
        more = [f"  ... and {len(lines) - 5} more addresses: error.rows"] if len(lines) > 6 else []
        shown = lines if not more else lines[:5]
        what, *rest = super().__str__().split("\n")
        return "\n".join([what, *shown, *more, *rest])


class NonFiniteDraw(PPLError, FloatingPointError):
    """A run made a value that is no finite number; `draws` has what was kept before.

    Attributes:
      draws: the draws collected up to the block in which it happened.
    """

    draws: object = None


class NonFiniteStep(PPLError, FloatingPointError):
    """A step of a fit has a value or a gradient that is no finite number.

    Attributes:
      fitted: the fit up to the step before.
    """

    fitted: object = None


class CheckpointError(PPLError, ValueError):
    """A checkpoint is damaged, or is of another run."""


class MissingPackage(PPLError, ImportError):
    """A package of an optional extra is needed and not installed."""


class UnrolledDraws(PPLError, UserWarning):
    """A warning: so many draws are written out one by one that compiling takes long."""


class BiasedStrategy(PPLError, ValueError):
    """A strategy whose derivatives are biased is used where that was not asked for."""


class NoStrategy(PPLError, ValueError):
    """No strategy, or not the one given, estimates a derivative through a choice."""


class CannotEnumerate(NoStrategy):
    """A choice has infinitely many outcomes, or too many to compute side by side."""


class GuideMismatch(PPLError, ValueError):
    """A guide does not make the latents of a target: other choices, shapes or supports."""
