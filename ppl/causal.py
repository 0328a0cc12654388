"""Causal transformations of models: interventions and counterfactuals.

Both act on the staged program, so an intervention reaches into loops, branches
and maps, its value sliced along their axes. Terms: Pearl, *Causality* (2009).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from . import errors
from .addresses import Masked, flatten, nest, not_found
from .effects import call_p, factor_p, sample_p
from .generative import GenerativeFunction
from .graph import dependencies
from .program import CHOICE, DRAW, FACTOR, Choice, Factor, Path, Program, Step, bodies
from .sites import Site, check_value
from .walk import Result, Rule, walk

COUNTERFACTUAL = "counterfactual"


def do(model: GenerativeFunction, interventions: Mapping[str, Any]) -> GenerativeFunction:
    """p(choices | do(values)): the model with some of its choices set to constants.

    The truncated factorisation: the choices named are no longer choices and have no
    density; all others keep their distribution given what they depend on. A value
    is stacked along the loops around its choice, as in a trace; it may lie outside
    the support, since it replaces the distribution. A value of a choice in a branch
    that is not taken has no effect.

    Args:
      model: a generative function.
      interventions: nested dict of values; changing them recompiles nothing.

    Raises:
      InvalidArgument: an intervention is a `Masked` value, or no dict.
      AddressNotFound, ShapeError, DtypeError: an intervention does not fit (raised when the
        model's arguments are known).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import gen, law, sample
    >>> from ppl.causal import do
    >>> @gen
    ... def sprinkler():
    ...     rain = sample("rain", dist.Bernoulli(0.25))
    ...     on = sample("on", dist.Bernoulli(jnp.where(rain == 1, 0.0, 0.5)))
    ...     return sample("wet", dist.Bernoulli(jnp.maximum(rain, on) * 1.0))
    >>> seen = law(sprinkler.simulate)()
    >>> made = law(lambda: do(sprinkler, {"on": 1}).simulate().choices)()
    >>> made.values["rain"].tolist(), made.masses.tolist()
    ([0, 1], [0.75, 0.25])
    """
    fn = _Do(model, _values(interventions))
    return GenerativeFunction(fn, model.fixed, f"do({model.name}, {_names(fn.values)})")


def twin(model: GenerativeFunction, interventions: Mapping[str, Any]) -> GenerativeFunction:
    """p(factual choices) p(counterfactual choices | what both worlds share).

    The factual world is the model. In the counterfactual world the interventions
    hold; a choice that does not depend on them, directly or through others, has
    the factual value, and one that does is made anew at `("counterfactual", *address)`.
    The factual choices have the law of `model`; the shared and counterfactual ones
    that of `do(model, interventions)`. Returns both return values. Condition on
    what was seen in the factual world to ask what would have been.

    What a choice depends on is `ppl.graph.dependencies`, which works by address: in
    a loop, all steps of an address are shared or none. `factor` and `observe` are
    evidence about the factual world and count there only.

    Raises:
      InvalidArgument: the model makes draws without addresses, which have no
        identity across the worlds; or an intervention is `Masked`.
      AddressNotFound, ShapeError, DtypeError: as for `do`.
      DuplicateAddress, PrefixClash: the model itself uses the address "counterfactual".

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, sample
    >>> from ppl.causal import twin
    >>> @gen
    ... def model():
    ...     skill = sample("skill", dist.Normal(0.0, 1.0))
    ...     course = sample("course", dist.Bernoulli(0.5))
    ...     return sample("grade", dist.Normal(skill + course, 1.0))
    >>> list(twin(model, {"course": 1}).sites())
    [('skill',), ('course',), ('grade',), ('counterfactual', 'grade')]
    """
    fn = _Twin(model, _values(interventions))
    return GenerativeFunction(fn, model.fixed, f"twin({model.name}, {_names(fn.values)})")


def _values(interventions: Mapping[str, Any]) -> dict[str, Any]:
    values = flatten(interventions)
    for path, value in values.items():
        if isinstance(value, Masked):
            raise errors.InvalidArgument(
                f"The intervention on {errors.show(path)} is partial.",
                where=errors.caller(),
                given="a Masked value",
                expected="values for all elements of the choice",
                fix="split the choice into two addresses and intervene on one of them",
            )
    return nest({path: jax.numpy.asarray(value) for path, value in values.items()})


def _names(values: Mapping[str, Any]) -> str:
    return "; ".join(errors.show(path) for path in flatten(values)) or "{}"


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["model", "values"], meta_fields=[]
)
@dataclass(frozen=True, eq=False)
class _Do:
    """Run a model with some choices replaced."""

    model: GenerativeFunction
    values: dict[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = self.model._prepare(args, kwargs)
        fixed = _check(run.sites, self.values, self.model.name)
        outs, _, _ = walk(run.staged.program, run.operands, _World(), fixed)
        return run.staged.rebuild(outs)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["model", "values"], meta_fields=[]
)
@dataclass(frozen=True, eq=False)
class _Twin:
    """Run a model, and again with some choices replaced, the unaffected ones shared."""

    model: GenerativeFunction
    values: dict[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = self.model._prepare(args, kwargs)
        program = run.staged.program
        if DRAW in program.effects:
            raise errors.InvalidArgument(
                f"twin({self.model.name}, ...) cannot share a draw without an address.",
                where=(f"draw at {_first_draw(program)}",),
                given="draw() in the model",
                expected="a model all of whose randomness has addresses",
                fix='give it an address: sample("name", distribution)',
            )
        fixed = _check(run.sites, self.values, self.model.name)
        affected = set(dependencies(self.model, *args, **kwargs).descendants(*fixed))
        outs, found, _ = walk(program, run.operands, _World(), {})
        shared = {p: v for p, v in found.get("choices", {}).items() if p not in affected}
        rule = _World((COUNTERFACTUAL,), evidence=False)
        others, _, _ = walk(program, run.operands, rule, {**shared, **fixed})
        return run.staged.rebuild(outs), run.staged.rebuild(others)


def _check(known: Mapping[Path, Site], values: Mapping[str, Any], name: str) -> dict[Path, Any]:
    """The interventions by path, their shapes and dtypes checked (they are traced here)."""
    found = flatten(values)
    for path in found:
        if path not in known:
            raise not_found(path, known, "The intervention", (name,))
    return {path: check_value(known[path], v, "The intervention") for path, v in found.items()}


def _first_draw(program: Program) -> str:
    for step in program.steps:
        if DRAW in step.effects:
            inner = bodies(step)
            return next((_first_draw(b) for b in inner if DRAW in b.effects), step.source)
    return "<unknown>"


class _World(Rule):
    """Make the choices again, below `prefix`, except those that have a value.

    Puts out the values. Without `evidence`, factors are dropped.
    """

    handles = frozenset({CHOICE, FACTOR})

    def __init__(self, prefix: Path = (), evidence: bool = True):
        self.prefix = prefix
        self.evidence = evidence

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            if self.evidence:
                _again(step, args[0])
            return [], {}, {}
        assert isinstance(step, Choice)
        value = inputs.get(step.path)
        if value is None:
            spec = step.spec
            (value,) = sample_p.bind(
                *args,
                tree=spec.tree,
                shape=spec.shape,
                dtype=spec.dtype,
                kind=spec.kind,
                support=spec.support,
                address=(*self.prefix, *step.path),
                source=step.source,
            )
        return [value], {"choices": {step.path: value}}, {}


def _again(step: Factor, amount: Any) -> None:
    """The factor once more, belonging to the generative function it belonged to."""
    jaxpr = jax.make_jaxpr(lambda a: factor_p.bind(a, source=step.source))(amount)
    call_p.bind(amount, jaxpr=jaxpr, address=step.path, source=step.source)
