"""Plates: elements of a `vmap` that are conditionally independent, moved all at once.

If a choice and everything whose density depends on it lie in the same iteration of one
`vmap`, the target is, given the rest of the trace, a product over the iterations. Then
each element may be accepted (or drawn) on its own, at the cost of one evaluation of the
iterations for all elements together. Whether that is so is read off the staged program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax

from ppl import Selection, Target, Trace, errors
from ppl.addresses import flatten
from ppl.change import cost, cut
from ppl.execute import Given
from ppl.program import FACTOR, Loop, Map, Path, Program, Step
from ppl.walk import walk, zero


@dataclass(frozen=True, eq=False)
class Plate:
    """The `vmap` that has a latent and all that depends on it in the same iteration.

    Attributes:
      target: the target.
      path: the address of the latent.
      size: the number of iterations.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.targets.plates import Plate
    >>> from ppl import Target, gen, sample, vmap
    >>> toss = gen(lambda p: sample("x", dist.Bernoulli(p)))
    >>> target = Target(gen(lambda: sample("v", vmap(toss)(jnp.array([0.5, 0.25])))))
    >>> plate = Plate.of(target, ("v", "x"))
    >>> trace, _ = target.generate({"v": {"x": jnp.array([0, 0])}})
    >>> jnp.exp(plate.log_densities(trace, jnp.array([1, 1]))).round(4).tolist()
    [0.5, 0.25]
    """

    target: Target
    path: Path
    size: int

    @staticmethod
    def of(target: Target, path: Path) -> Plate:
        """The plate of a latent.

        Raises:
          InvalidArgument: its elements are not conditionally independent, as far as the
            program tells.
        """
        program = target.model._prepare(target.args, {}).staged.program
        found = _region(program, path)
        if isinstance(found, str):
            site = target.sites[path]
            raise errors.InvalidArgument(
                f"The elements of {errors.show(path)} are not known to be independent given "
                "the rest.",
                where=(f"{errors.show(path)} at {site.source}", errors.caller()),
                given=found,
                expected="a choice that one ppl.vmap holds, with everything that depends on it",
                fix="put the element and its data into one function, "
                'sample("name", vmap(function)(...)); or move the elements one by one',
            )
        return Plate(target, path, found[1].size)

    def log_densities(
        self, trace: Trace, values: Any, counted: Selection | None = None
    ) -> jax.Array:
        """The log density of each iteration, up to what the latent does not change.

        Args:
          values: the latent's, of shape (size, ...); the rest is the trace's.
          counted: which addresses count; all when left out.

        Returns:
          An array of shape (size,).
        """
        run = self.target.model._prepare((trace.arguments,), {})
        found = _region(run.staged.program, self.path)
        assert not isinstance(found, str)
        before, region = found
        old = {path: Given(value) for path, value in flatten(trace.choices).items()}
        reads = walk(before, run.operands, run.rule(sums=()), _some(old, before))[0]
        inner = {**_some(old, region), self.path: Given(values)}
        rule = run.rule(sums=("weight",), weighed=counted)

        def one(operands: list, choices: dict) -> jax.Array:
            return zero() + walk(region.body, operands, rule, choices)[2].get("weight", 0.0)

        axes = (list(region.in_axes), 0)
        return jax.vmap(one, axes, axis_size=region.size)(reads, inner)


def _some(values: dict[Path, Given], part: Program | Step) -> dict[Path, Given]:
    return {path: given for path, given in values.items() if path in part.paths}


def _region(program: Program, path: Path) -> tuple[Program, Map] | str:
    """What computes the inputs of the plate, and its part that the choice changes; or why
    there is no plate."""
    whole = next(step for step in program.steps if path in step.paths)
    if not isinstance(whole, Map):
        kind = "a scan" if isinstance(whole, Loop) else "no vmap, or one inside other control flow"
        return f"it is in {kind}"
    # an axis without a name is a plain object; one with a name may couple the iterations
    if whole.axis_name is not None and type(whole.axis_name) is not object:
        return f"its vmap has a named axis, {whole.axis_name!r}"
    small = cut(program, frozenset(), lambda other: other == path).program
    at = next(i for i, step in enumerate(small.steps) if path in step.paths)
    for step in (*small.steps[:at], *small.steps[at + 1 :]):
        if FACTOR in step.effects or cost(replace(small, steps=(step,))):
            place = "; ".join(errors.show(p) for p in sorted(step.paths)) or "a factor"
            return f"outside of its vmap, {place} at {step.source} depends on it"
    region = small.steps[at]
    assert isinstance(region, Map)
    return replace(small, outputs=region.inputs, steps=small.steps[:at]), region
