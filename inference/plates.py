"""Plates: elements of a `vmap` that are conditionally independent, moved all at once.

If a choice and everything whose density depends on it lie in the same iteration of one
`vmap`, the target is, given the rest of the trace, a product over the iterations. Then
each element may be accepted (or drawn) on its own, at the cost of one evaluation of the
iterations for all elements together. Whether that is so is read off the staged program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Selection, Target, Trace, draw, errors, select
from ppl.addresses import as_path, flatten, nest
from ppl.change import body_outputs, cost, cut
from ppl.execute import Given
from ppl.masks import leading
from ppl.program import DRAW, FACTOR, Branch, Loop, Map, Path, Program, Step, bodies
from ppl.sites import sites
from ppl.walk import walk, zero

from .kernel import Kernel, Stats


def mh_each(
    target: Target,
    address: str | tuple[str, ...],
    proposal: GenerativeFunction | None = None,
) -> Kernel:
    """Metropolis-Hastings on every element of a `vmap`ped choice, each accepted on its own.

    Leaves `target` invariant: given the rest, the elements are independent, and element i is
    accepted with the ratio of iteration i alone (Hastings 1970, on each factor of the product).

    Statistics: `accept`, the mean acceptance probability of the elements.

    Args:
      address: a latent in a `ppl.vmap` (or `repeat`) whose iterations hold all that depends
        on it. Its elements are the iterations.
      proposal: `proposal(value, i)` of one element's value and its index, with one choice, the
        new value. Left out, elements are drawn from the model. Draws without addresses are
        allowed: the estimate with which a value was proposed is kept.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: the choice is observed; its elements are not conditionally independent;
        it decides which other choices there are; the model draws without addresses; or the
        proposal does not make one choice like an element.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.plates import mh_each
    >>> from ppl import Target, gen, sample, vmap
    >>> from semantics import kernel_matrix
    >>> @gen
    ... def toss(p):
    ...     fair = sample("fair", dist.Bernoulli(p))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> coins = gen(lambda: sample("coins", vmap(toss)(jnp.array([0.5, 0.25]))))
    >>> target = Target(coins, (), {"coins": {"heads": jnp.array([1, 0])}})
    >>> pi, kernel = kernel_matrix(lambda t: mh_each(t, ("coins", "fair")), target)
    >>> kernel.is_reversible(pi, 1e-6)
    True
    """
    path = latent(target, address)
    check_density_known(target, path)
    plate = Plate.of(target, path)
    name = () if proposal is None else _proposed(target, path, proposal)

    def redrawn(trace: Trace) -> tuple[Any, Any]:
        """New values from the model, and the log ratio of all else in each iteration."""
        new = flatten(target.regenerate(trace, path)[0].choices)[path]
        return new, _change(plate, trace, new, ~select(path))

    def proposed(trace: Trace, proposal: GenerativeFunction) -> tuple[Any, Any]:
        """New values from the proposal, and the log ratio of each iteration."""
        old, index = flatten(trace.choices)[path], jnp.arange(plate.size)
        forward = jax.vmap(proposal.simulate)(old, index)
        new = flatten(forward.choices)[name]
        assess = lambda to, x, i: proposal.assess(nest({name: to}), x, i)[0]  # noqa: E731
        ratio = _change(plate, trace, new, None)
        return new, ratio + jax.vmap(assess)(old, new, index) - forward.score

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        old = flatten(trace.choices)[path]
        new, log_ratio = redrawn(trace) if proposal is None else proposed(trace, proposal)
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        probability = jax.lax.stop_gradient(jnp.exp(jnp.minimum(log_ratio, 0.0)))
        taken = draw(dist.Bernoulli(probability)) == 1
        kept = jnp.where(leading(taken, old.ndim), new, old)
        return target.moved(trace, nest({path: kept}))[0], {"accept": probability.mean()}

    return Kernel(f"mh_each {errors.show(path)}", step)


def _change(plate: Plate, trace: Trace, new: Any, counted: Selection | None) -> jax.Array:
    """The change of each iteration's log density."""
    old = flatten(trace.choices)[plate.path]
    return plate.log_densities(trace, new, counted) - plate.log_densities(trace, old, counted)


def _proposed(target: Target, path: Path, proposal: GenerativeFunction) -> Path:
    """The address of the one choice of a per-element proposal."""
    site = target.sites[path]
    element = jnp.zeros(site.shape[1:], site.dtype)
    found = proposal.sites(element, jnp.zeros((), int))
    made = list(found.values())
    fits = len(made) == 1 and (made[0].shape, made[0].dtype) == (element.shape, element.dtype)
    if not fits or made[0].conditional or site.conditional:
        raise errors.InvalidArgument(
            f"The proposal for an element of {errors.show(path)} does not make one like it.",
            where=(f"{errors.show(path)} at {site.source}", errors.defined(proposal.fn)),
            given="; ".join(str(each) for each in made) or "no choice",
            expected=f"one choice that is always made, {element.dtype}{list(element.shape)}, "
            "for an element that is always there",
            fix='gen(lambda value, i: sample("to", distribution))',
        )
    return made[0].path


# -- which elements are independent ----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Plate:
    """The `vmap` that has a latent and all that depends on it in the same iteration.

    Attributes:
      target: the target.
      path: the address of the latent.
      size: the number of iterations.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.plates import Plate
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


# -- what a kernel on single choices needs ---------------------------------------------------


def latent(target: Target, address: str | tuple[str, ...]) -> Path:
    """The address of one latent choice, as a path.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: it is observed, or the address is that of several choices.
    """
    target.selection(address)  # names a choice, and no observed one
    path = as_path(address)
    if path not in target.sites:
        below = [p for p in target.latents if p[: len(path)] == path]
        raise errors.InvalidArgument(
            f"{errors.show(path)} is the address of a call, not of one choice.",
            where=(f"{errors.show(below[0])} at {target.sites[below[0]].source}", errors.caller()),
            given=errors.show(path),
            expected="one of: " + "; ".join(errors.show(p) for p in below),
            fix=f"name one choice: {below[0]}",
        )
    return path


def check_density_known(target: Target, path: Path) -> None:
    """Raise `InvalidArgument` unless the density can be compared at other values of a choice.

    It cannot if the model draws without addresses: the density of the state is an estimate,
    and making it again for the comparison would move the target (Andrieu and Roberts 2009).
    Nor if the choice decides which other choices there are.
    """
    site = target.sites[path]
    where = (f"{errors.show(path)} at {site.source}", errors.caller())
    program = target.model._prepare(target.args, {}).staged.program
    if DRAW in program.effects:
        raise errors.InvalidArgument(
            "The model draws without addresses, so that its density is only estimated.",
            where=where,
            given=f"a kernel that compares densities at several values of {errors.show(path)}",
            expected="a model all of whose randomness has addresses",
            fix="use mh, propose or metropolize, which keep the estimate of the state; or give "
            "the draws addresses",
        )
    if presence_varies(program, lambda other: other == path):
        raise errors.InvalidArgument(
            f"{errors.show(path)} decides which other choices there are.",
            where=where,
            given="a branch with other choices, taken by its value",
            expected="a choice that only changes densities",
            fix="use mh, or propose with a proposal that also makes those choices",
        )


def presence_varies(
    program: Program, touched: Callable[[Path], bool], here: list[bool] | None = None
) -> frozenset[Path]:
    """The choices that a change of the `touched` ones can make, or make absent.

    `here` tells which inputs of the program differ.
    """
    flags = [False] * len(program.inputs) if here is None else here
    found: set[Path] = set()
    for step in program.steps:
        if not bodies(step) or not step.paths:
            continue
        inputs = body_outputs(replace(program, outputs=step.inputs), flags, touched)
        if isinstance(step, Branch):
            if inputs[0]:
                each = [sites(branch) for branch in step.branches]
                made = set().union(*each)  # choices: draws have no presence
                found |= {p for p in made if not all(p in s and not s[p].conditional for s in each)}
            inputs = inputs[1:]
        elif isinstance(step, Loop):
            inputs = _carried(step, inputs, touched)
        for body in bodies(step):
            found |= presence_varies(body, touched, inputs)
    return frozenset(found)


def _carried(step: Loop, inputs: list[bool], touched: Callable[[Path], bool]) -> list[bool]:
    """Which inputs of a loop's body differ in some iteration."""
    while True:
        outs = body_outputs(step.body, inputs, touched)
        more = list(inputs)
        for i in range(step.carries):
            more[step.constants + i] |= outs[i]
        if more == inputs:
            return inputs
        inputs = more
