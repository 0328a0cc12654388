"""The choices of a guide, drawn so that they move with its arguments, or stay where they are.

`expectation` differentiates a choice by the strategy that it is given from outside. An objective
that is right for one kind of derivative only draws by itself: its choices then have no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ppl import GenerativeFunction, draw, errors, reinforce, reparam
from ppl.addresses import nest
from ppl.estimators.pathwise import maker
from ppl.execute import Execute, Given, fresh
from ppl.program import CHOICE, DRAW, FACTOR, Choice, Step
from ppl.walk import Result, Rule, walk, zero

from ..targets.stochastic import Stochastic


def still(args: Any) -> Any:
    """The same arguments, with no derivative; of a guide or target, its arrays.

    What a function closes over has its derivative all the same: parameters are arguments.
    """
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if _varies(x) else x, args)


def moving(guide: GenerativeFunction | Stochastic, args: tuple) -> dict[str, Any]:
    """What the guide makes, each choice by `reparam()`.

    The draws have no addresses, so no other strategy can be given to them.

    Raises:
      NoStrategy: a choice cannot move: it is discrete, or its distribution has no such function.
      InvalidArgument: the density of the guide is only estimated.
    """
    check_exact(guide, "An objective whose guide moves", args)
    if isinstance(guide, Stochastic):
        if not guide.moves:
            raise errors.NoStrategy(
                f"The draws of {guide.name} do not move with its parameters.",
                where=errors.caller(),
                given=f"{guide.name}, which draws discrete choices on the way",
                expected="a guide that moves, as mean_field, full_rank or flow",
                fix="the plain objective: leave out landing=True, or doubly=True",
            )
        return guide.simulate(*args).choices
    for site in guide.sites(*args).values():
        if maker(site.spec.tree.unflatten(list(site.spec.leaves))) is None:
            raise errors.NoStrategy(
                f"The guide's choice {errors.show(site.path)} does not move with its parameters.",
                where=(f"{errors.show(site.path)} at {site.source}", errors.caller()),
                given=f"{site.kind} on {site.support}",
                expected="a continuous choice that reparam() takes",
                fix="the plain objective: leave out landing=True, or doubly=True",
            )
    assert isinstance(guide, GenerativeFunction)
    return _made(guide, args, _moved)[0]


def held(guide: GenerativeFunction | Stochastic, args: tuple) -> tuple[dict[str, Any], Any]:
    """What the guide makes, and its score, neither with a derivative."""
    guide, args = still((guide, args))
    if isinstance(guide, Stochastic) or DRAW in guide._prepare(args, {}).staged.program.effects:
        trace = guide.simulate(*args)
        return jax.lax.stop_gradient((trace.choices, trace.score))
    return _made(guide, args, _kept)


def check_exact(guide: GenerativeFunction | Stochastic, what: str, args: tuple) -> None:
    """Raise `InvalidArgument` where the density of a guide is only estimated."""
    if isinstance(guide, Stochastic):
        if guide.exact:
            return
        given = f"{guide.name}, a density by an algorithm"
    elif DRAW in guide._prepare(args, {}).staged.program.effects:
        given = f"{guide.name}, which draws without addresses"
    else:
        return
    raise errors.InvalidArgument(
        f"{what} needs the guide's density.",
        where=errors.caller(),
        given=given,
        expected="a generative function all of whose randomness has addresses",
        fix="elbo(target, guide), or iwelbo(target, guide, particles)",
    )


def _made(
    guide: GenerativeFunction, args: tuple, make: Callable[[Choice, list], Any]
) -> tuple[dict[str, Any], Any]:
    run = guide._prepare(args, {}).check_arguments()
    if FACTOR in run.staged.program.effects:
        guide.simulate(*args)  # says what to do
    rule = _Making(make, Execute(sums=("score",)))
    _, found, sums = walk(run.staged.program, run.operands, rule, {})
    values = found.get("choices", {})
    return nest({path: values[path] for path in run.sites}), sums.get("score", zero())


class _Making(Rule):
    """Make every choice, and score it."""

    handles = frozenset({CHOICE})
    sums = ("score",)

    def __init__(self, make: Callable[[Choice, list], Any], execute: Execute):
        self.make = make
        self.execute = execute

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        assert isinstance(step, Choice)
        return self.execute.visit(step, args, {step.path: Given(self.make(step, args))})


def _moved(step: Choice, args: list) -> Any:
    return draw(step.spec.tree.unflatten(args), reparam())


def _kept(step: Choice, args: list) -> Any:
    """A draw by the strategy that costs nothing where parameters have no derivative."""
    return fresh(step, args, reinforce())


def _varies(x: Any) -> bool:
    """Whether there can be a derivative with respect to it."""
    return hasattr(x, "dtype") or isinstance(x, float)
