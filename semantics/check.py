"""`python -m semantics.check MODULE:NAME`: the contracts of a user's own model, as a table.

NAME is a `Target`, or a generative function: the model of a `Target` in the same module,
for which it then stands, or one without arguments. A model is checked for the laws of its
six methods; a target also for its default kernels. Exits with 0 if everything passed, 1 if
something failed, and 2 if there is nothing to check.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
from rich.console import Console

from inference import cycle, mh
from inference.kernels import Kernel
from ppl import Target, errors, paths
from ppl.program import Path

from .contracts.proper import check_kernel
from .contracts.sampled import check_kernel_sampled
from .laws.generative_function import METHODS, check_generative_function
from .report import Verdict, table

PATHS = 1 << 16
"""Kernels with more paths than this are sampled."""
SIZES = (200, 2000)
"""Starts of a sampled kernel; an error that these do not see is left to longer checks."""


class Subject(NamedTuple):
    """What is checked: a model with its arguments, and its target if there is one."""

    model: Any
    args: tuple
    target: Target | None


def find(name: str) -> Subject:
    """The target or generative function that `"module:name"` names.

    Args:
      name: a module that can be imported (the current directory is on the path), and a
        name in it.

    Raises:
      InvalidArgument: no such module or name, or it is neither a target nor a generative
        function, or one whose arguments are not known.

    >>> from semantics.check import find
    >>> find("examples.quickstart:target").model
    <generative function model>
    >>> find("examples.quickstart:modell")
    Traceback (most recent call last):
    ...
    ppl.errors.InvalidArgument: examples.quickstart has no 'modell'.
      given:    examples.quickstart:modell
      expected: a Target or a generative function: model, steps, target
      fix:      did you mean 'model'?
    """
    module_name, separator, wanted = name.partition(":")
    if not separator or not module_name or not wanted:
        raise errors.InvalidArgument(
            "What to check is not named as MODULE:NAME.",
            given=name,
            expected="a module and a name in it",
            fix="python -m semantics.check examples.quickstart:target",
        )
    module = _module(module_name)
    known = {each: value for each, value in vars(module).items() if _checkable(value)}
    found = vars(module).get(wanted)
    if not _checkable(found):
        guess = errors.near(wanted, known)
        absent = wanted not in vars(module)
        raise errors.InvalidArgument(
            f"{module_name} has no {wanted!r}."
            if absent
            else f"{wanted!r} is neither a Target nor a generative function.",
            given=name if absent else f"{type(found).__name__}: {found!r}",
            expected="a Target or a generative function: " + ", ".join(sorted(known)),
            fix=f"did you mean {guess!r}?" if guess else "name one of them",
        )
    if isinstance(found, Target):
        return Subject(found.model, found.args, found)
    targets = {key: value for key, value in known.items() if isinstance(value, Target)}
    for target in targets.values():
        if target.model is found:
            return Subject(found, target.args, target)
    if _needs_arguments(found):
        raise errors.InvalidArgument(
            f"The arguments of {wanted!r} are not known.",
            given=f"a generative function: {wanted}{_signature(found)}",
            expected="one without arguments, or the model of a Target in the same module",
            fix=f"define a Target({wanted}, (arguments, ...)) in {module_name} and name that",
        )
    return Subject(found, (), None)


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            stem = name.removesuffix(".py").replace(os.sep, ".")
            raise errors.InvalidArgument(
                f"There is no module {name!r}.",
                given=name,
                expected="a module that can be imported from here",
                fix="run it from the directory that holds the module, or install it"
                if stem == name
                else f"name the module, not its file: {stem}",
            ) from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> errors.PPLError:
    return errors.InvalidArgument(
        f"The module {name!r} cannot be imported.",
        where=errors.place_in(error),
        given=f"{type(error).__name__}: {error}",
        fix=f"make `python -c 'import {name}'` run",
    )


def _checkable(value: Any) -> bool:
    if isinstance(value, type):
        return False
    methods = all(callable(getattr(value, name, None)) for name in (*METHODS, "sites"))
    return isinstance(value, Target) or methods


def _signature(model: Any) -> str:
    return str(inspect.signature(getattr(model, "fn", model.simulate)))


def _needs_arguments(model: Any) -> bool:
    try:
        inspect.signature(getattr(model, "fn", model.simulate)).bind()
    except TypeError:
        return True
    return False


# -- what is checked -----------------------------------------------------------------------


def verdicts(subject: Subject) -> Iterator[Verdict]:
    """The laws of the model; then, of a target, its default kernels.

    >>> import numpyro.distributions as dist
    >>> from ppl import Target, gen, sample
    >>> from semantics.check import Subject, verdicts
    >>> coin = gen(lambda: sample("x", dist.Bernoulli(0.25)))
    >>> [v.check for v in verdicts(Subject(coin, (), Target(coin))) if v.passed][-2:]
    ['batching', 'mh("x")']
    """
    target = subject.target
    data = None if target is None else target.observations
    yield from check_generative_function(subject.model, *subject.args, constraints=data)
    if target is not None:
        yield from kernels(target)


def kernels(target: Target) -> Iterator[Verdict]:
    """`mh` of each latent, and one after the other, leave the target invariant.

    Enumerated if that is at most `PATHS` paths, else sampled from `SIZES` starts; where
    neither is defined (factors in a continuous model), the verdict says "left out".

    >>> import numpyro.distributions as dist
    >>> from ppl import Target, gen, sample
    >>> from semantics.check import kernels
    >>> coin = gen(lambda: sample("x", dist.Bernoulli(0.25)))
    >>> [verdict.check for verdict in kernels(Target(coin))]
    ['mh("x")']
    """
    for name, make in _default(target.latents).items():
        try:
            verdict = _check_kernel(make, target)
        except errors.PPLError as error:  # a model that no check of kernels is defined for
            name = f"{name} (left out: {error.what})"
            verdict = Verdict(name, True, "none", 0.0, 1.0, 0)
        yield replace(verdict, check=name)


def _default(latents: list[Path]) -> dict[str, Callable[[Target], Kernel]]:
    made: dict[str, Callable[[Target], Kernel]] = {
        f"mh({errors.show(path)})": partial(_mh, path=path) for path in latents
    }
    if len(latents) > 1:
        made["their cycle"] = lambda target: cycle(*(mh(target, path) for path in latents))
    return made


def _mh(target: Target, path: Path) -> Kernel:
    return mh(target, path)


def _check_kernel(make: Callable[[Target], Kernel], target: Target) -> Verdict:
    def run() -> Any:
        return make(target)(target.generate()[0]).score

    try:
        finite = jax.eval_shape(paths(run))[1].shape[0] <= PATHS
    except errors.CannotIntegrate:
        finite = False
    if finite:
        return check_kernel(make, target)
    return check_kernel_sampled(make, target, jax.random.key(0), sizes=SIZES)


# -- the command ---------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what is named, print the table, and return the exit code: 0, 1 or 2.

    In 64 bits, where rounding is far below every error in a formula.

    >>> from semantics.check import main
    >>> main(["examples.quickstart"])
    What to check is not named as MODULE:NAME.
      given:    examples.quickstart
      expected: a module and a name in it
      fix:      python -m semantics.check examples.quickstart:target
    2
    """
    parser = argparse.ArgumentParser(prog="python -m semantics.check", description=__doc__)
    parser.add_argument("name", metavar="MODULE:NAME", help="examples.quickstart:target")
    name = parser.parse_args(arguments).name
    jax.config.update("jax_enable_x64", True)
    try:
        subject = find(name)
    except errors.InvalidArgument as error:
        print(error)
        return 2
    found = list(verdicts(subject))
    _show(found, name)
    return 0 if all(found) else 1


def _show(found: Sequence[Verdict], title: str) -> None:
    """The table, and below it what was found wrong."""
    console = Console()
    console.print(table(found, title))
    for verdict in found:
        if not verdict.passed:
            console.print(str(verdict), markup=False, highlight=False)


if __name__ == "__main__":
    # nothing runs long here, so that compiling is what takes the time
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {flags}"
    sys.exit(main())
