"""A choice that all copies of a program make, as one choice of an array.

What the copies have in common is summed out, so the values of all copies depend on each other:
their law is the sum, over what is common, of the product over the copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import seed
from ppl.effects import factor_p, sample_p
from ppl.execute import Execute, Given
from ppl.program import FACTOR, Choice, Loop, Map, Path, Step
from ppl.randomness import bind_parameters
from ppl.walk import construct

from .mixed import chosen, drawn_of
from .plate_copies import Copies, side_by_side
from .several import Several
from .tables import Reduce, Table, log_weights, total


@dataclass(frozen=True, eq=False)
class Plan:
    """Copies that make one choice, or that only score.

    Attributes:
      shape: of the choice in all copies.
    """

    step: Map
    choice: Choice | None
    shape: tuple[int, ...]
    sums: Any
    run: Callable

    def after(
        self, args: list, law: Any, inputs: Any, outside: frozenset, value: Any = None
    ) -> tuple[list, Any]:
        """The outputs of the copies, and the law after them, not normalised, given the value."""
        sums = replace(self.sums, given=True)
        if self.choice is not None:
            present = getattr(inputs.get(self.choice.path), "counts", None)
            inputs = {**inputs, self.choice.path: Given(value, counts=present)}
        copies = Copies.of(sums, self.step, args, law)
        return side_by_side(sums, copies, law, inputs, outside, self.run)

    def mass(self, law: Any) -> jax.Array:
        return law.evidence + total(law.tables, self.sums.reduce)


def planned(sums: Any, step: Map, run: Callable) -> Plan | None:
    """How copies are made at once; None if they make several choices, or some in branches."""
    kept = step.paths - sums.places
    if not kept:
        return Plan(step, None, (), sums, run)
    if len(kept) > 1 or FACTOR in step.effects:
        return None
    found = _found(step, *kept)
    if found is None:
        return None
    return Plan(step, found[1], found[0], sums, run)


def _found(step: Step, path: Path) -> tuple[tuple[int, ...], Choice] | None:
    """The shape of a choice in the loops of a step, and the choice; None in a branch."""
    if isinstance(step, Choice):
        return step.spec.shape, step
    if not isinstance(step, (Map, Loop)):
        return None
    inner = next(each for each in step.body.steps if path in each.paths)
    found = _found(inner, path)
    size = step.size if isinstance(step, Map) else step.length
    return None if found is None else ((size, *found[0]), found[1])


def made(plan: Plan, args: list, law: Any, inputs: Any, outside: frozenset) -> tuple[list, Any]:
    """The outputs of the copies, whose choice is made or which score, and the law after them."""
    mine, rest = plan.sums.reach(law, args)
    mine = replace(mine, evidence=jnp.zeros_like(law.evidence))
    value = None
    if plan.choice is not None:
        choice = plan.choice
        together = Together(plan, args, mine.tables, inputs)
        kind = plan.sums.sites[choice.path].kind
        leaves, params = bind_parameters(together, choice.source, kind)
        (value,) = sample_p.bind(*leaves, **params, address=choice.path, source=choice.source)
    outs, after = plan.after(args, mine, inputs, outside, value)
    if plan.choice is None:
        factor_p.bind(plan.mass(after), source=plan.step.source)
    tables = _normalised(after.tables, plan.sums.reduce)
    return outs, plan.sums.both(replace(law, tables=tables), rest)


def _normalised(tables: list[Table], reduce: Reduce) -> list[Table]:
    """The tables, of which one is divided by their sum, if that is a number."""
    amount = total(tables, reduce)
    amount = jnp.where(jnp.isfinite(amount), amount, 0.0)
    *others, one = sorted(tables, key=lambda table: -len(table.plates))
    for plate in one.plates:
        amount = amount / plate.size
    logs = jnp.zeros_like(log_weights(one)) if one.logs is None else one.logs
    return [*others, replace(one, logs=logs - amount, of=None)]


class Together(dist.Distribution):
    """The law of a choice in all copies, given the law of what these read, which adds up to one."""

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("args", "tables", "inputs")
    pytree_aux_fields = ("plan",)

    def __init__(self, plan: Plan, args: list, tables: list[Table], inputs: Any):
        self.plan, self.args, self.tables, self.inputs = plan, args, tables, inputs
        super().__init__((), plan.shape, validate_args=False)

    @property
    def support(self) -> Any:
        assert self.plan.choice is not None
        spec = self.plan.choice.spec
        support: Any = spec.tree.unflatten(spec.leaves).support
        return constraints.independent(support, len(self.event_shape) - support.event_dim)

    def log_prob(self, value: Any) -> jax.Array:
        law = replace(self.plan.sums.nothing(), tables=self.tables)
        return self.plan.mass(self.plan.after(self.args, law, self.inputs, frozenset(), value)[1])

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        assert sample_shape == ()
        first, second = jax.random.split(key)
        marks = drawn_of(self.tables, first)
        args = [chosen(v, marks) if isinstance(v, Several) else v for v in self.args]
        return seed(self._run)(second, args)

    def _run(self, args: list) -> jax.Array:
        assert self.plan.choice is not None
        outputs = construct(self.plan.step, args, Execute(sums=()), {})[1]
        return outputs["choices"][self.plan.choice.path]
