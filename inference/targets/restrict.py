"""The prior where the likelihood is above a level, as a program.

The model is run again by one rule: latent choices are made as they are, what is observed is
given and its density added up with the factors, and one factor of 0 or -inf at the end says
whether the sum is above the level. So it is a `Target` like any other, without observations,
and the likelihood is not in its density, where it would not cancel in single precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp

from ppl import GenerativeFunction, Masked, Target, errors, factor
from ppl.addresses import flatten
from ppl.distributions import log_density
from ppl.effects import sample_p
from ppl.program import CHOICE, DRAW, FACTOR, Choice, Factor, Step
from ppl.walk import Result, Rule, scalar, walk


def restricted(target: Target, above: Any) -> Target:
    """The target of density p(latents) where log p(observations | latents) > above, else 0.

    Factors count as observations. A kernel that leaves it invariant moves the live points of
    nested sampling (Skilling 2006).

    Args:
      above: a number, which may be traced; changing it recompiles nothing.

    Raises:
      InvalidArgument: the target has no likelihood, observes part of an array, or the model
        draws without addresses, so that its likelihood is only estimated.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.targets.restrict import restricted
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.25))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> likely = restricted(Target(coin, (), {"heads": 1}), jnp.log(0.6))
    >>> [jnp.exp(likely.log_density({"fair": fair})).item() for fair in (0, 1)]
    [0.75, 0.0]
    """
    _check(target)
    return Target(_made(target.model), (above, target.observations, *target.args))


def _check(target: Target) -> None:
    model = target.model
    effects = model._prepare(target.args, {}).staged.program.effects
    if DRAW in effects:
        raise errors.InvalidArgument(
            "The model draws without addresses, so that its likelihood is only estimated.",
            where=errors.caller(), given=f"the likelihood of {model.name}",
            expected="a model all of whose randomness has addresses",
            fix='give the draws addresses: sample("name", distribution)',
        )  # fmt: skip
    if any(isinstance(value, Masked) for value in target.observed.values()):
        raise errors.InvalidArgument(
            "The target observes part of an array, whose likelihood is not a choice's density.",
            where=errors.caller(), given="a Masked observation", expected="whole choices",
            fix="split the choice into two addresses, one of them observed",
        )  # fmt: skip
    if not target.observed and FACTOR not in effects:
        raise errors.InvalidArgument(
            "The target has no likelihood to be above a level.",
            where=errors.caller(), given="neither observations nor factors",
            expected="observed choices, or factors",
            fix="give observations: Target(model, args, observations)",
        )  # fmt: skip


@lru_cache(maxsize=256)
def _made(model: GenerativeFunction) -> GenerativeFunction:
    """The restricted model; the same for the same model, so that nothing compiles again."""
    fixed = frozenset(i + 2 if isinstance(i, int) else i for i in model.fixed)
    return GenerativeFunction(partial(_run, model), fixed, f"restricted {model.name}")


def _run(model: GenerativeFunction, above: Any, observations: Mapping[str, Any], *args: Any) -> Any:
    run = model._prepare(args, {})
    program, given = run.staged.program, flatten(observations)
    outs, _, sums = walk(program, run.operands, _Restricted(), given)
    factor(jnp.where(sums["level"] > above, 0.0, -jnp.inf))
    return run.staged.rebuild(outs)


class _Restricted(Rule):
    """Make every latent choice again; add up the densities of what is given, and factors."""

    handles = frozenset({CHOICE, FACTOR})
    sums = ("level",)

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            return [], {}, {"level": scalar(args[0])}
        assert isinstance(step, Choice)
        spec = step.spec
        if step.path in inputs:
            value = inputs[step.path]
            density = scalar(log_density(spec.tree.unflatten(args), value))
            return [value], {}, {"level": density}
        how = {name: getattr(spec, name) for name in ("tree", "shape", "dtype", "kind", "support")}
        (value,) = sample_p.bind(*args, **how, address=step.path, source=step.source)
        return [value], {}, {}
