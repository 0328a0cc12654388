"""Targets whose density is only estimated: their models draw without addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors
from .program import DRAW, Draw, Program, bodies

if TYPE_CHECKING:
    from .target import Target


def estimating_draw(target: Target) -> Draw | None:
    """A draw that makes the density an estimate; None where the density is known.

    >>> import numpyro.distributions as dist
    >>> from ppl import Target, draw, gen, sample
    >>> from ppl.estimates import estimating_draw
    >>> @gen
    ... def model():
    ...     sample("x", dist.Normal(draw(dist.Normal(0.0, 1.0)), 1.0))
    >>> estimating_draw(Target(model)).place.split()[:2]
    ['draw', '#0']
    """
    found = _draws(target.model._prepare(target.args, {}).staged.program)
    named = [step for step in found if step.source.startswith('"')]  # of a model run inside
    return next(iter(named + found), None)


def _draws(program: Program) -> list[Draw]:
    found: list[Draw] = []
    for step in program.steps:
        if isinstance(step, Draw):
            found.append(step)
        elif DRAW in step.effects:
            found += [step for body in bodies(step) for step in _draws(body)]
    return found


def check_density_exact(target: Target, what: str) -> None:
    """Raise `InvalidArgument` if the density, which `what` needs, is only estimated."""
    found = estimating_draw(target)
    if found is not None:
        raise errors.InvalidArgument(
            f"{what} needs a density, and that of {target.model.name} is only estimated.",
            where=(found.place, errors.caller()),
            given="a draw that has no address in the model",
            expected="a model all of whose randomness has addresses, or is summed out exactly",
            fix="move the latents by mh, propose or random_walk, which keep the estimate of a "
            "state, or by correlated on an auxiliary_marginal",
        )
