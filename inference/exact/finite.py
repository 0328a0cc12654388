"""Finite choices summed out: what `elimination` needs to know of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import distributions, quadrature
from ppl.chances import probability
from ppl.effects import factor_p, sample_p
from ppl.program import Choice, Factor, Loop, Map, Path, Step
from ppl.randomness import bind_parameters
from ppl.sites import Site

from . import finite_series, plates, states
from .mixed import Mixed, has_chances, of_elements, table_given
from .refused import refused
from .several import Several, Unsaid, is_symbol, table_of, through
from .states import Form
from .tables import (
    Lane,
    Plate,
    Reduce,
    Table,
    connected,
    lanes_of,
    log_weights,
    summed,
    total,
    without,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FiniteLaw:
    """The law of what is summed out, given what was made: a product of tables.

    Attributes:
      tables: its factors. Where choices are made, it adds up to one.
      evidence: where choices are given, log of what was taken out of the tables so far.
    """

    tables: list[Table]
    evidence: Any = 0.0


@dataclass(frozen=True, eq=False)
class Finite:
    """The sums over finite choices.

    Attributes:
      places: the choices that are summed out.
      sites: all choices of the program.
      given: whether the others are given.
      reduce: how outcomes are taken together.
      together: choices of which all elements are one choice.
      alike: names of plates, by those of other plates that they are.
    """

    places: frozenset[Path]
    sites: dict[Path, Site]
    given: bool = False
    reduce: Reduce = summed
    together: frozenset[tuple] = frozenset()
    alike: Mapping[Plate, Plate] = field(default_factory=dict)
    way: str = "in a way that can be summed over"
    expected: str = "choices and factors whose parameters depend on it"

    # -- symbols ---------------------------------------------------------------------

    def is_symbol(self, value: Any) -> bool:
        return is_symbol(value)

    def lost(self, why: str, aval: Any) -> Unsaid:
        del aval
        return Unsaid(why)

    def names(self, values: list) -> frozenset:
        return frozenset(lane for v in values if isinstance(v, Several) for lane in v.lanes)

    def ready(
        self, step: Step, avals: Sequence[Any], args: list, law: Any
    ) -> tuple[list, Any]:
        return args, law

    def through(self, f: Callable, avals: Sequence[Any], args: list) -> list:
        return through(f, avals, args)

    # -- choices and factors -----------------------------------------------------------

    def choice(self, step: Choice, args: list, law: FiniteLaw, given: Any) -> tuple[Any, FiniteLaw]:
        if any(isinstance(value, Unsaid) for value in args):
            why = next(value.why for value in args if isinstance(value, Unsaid))
            raise refused(step, self, f"a parameter made of {why}")
        if step.path in self.places:
            value, tables = self._summed(step, args, given)
            return value, replace(law, tables=[*law.tables, *tables])
        return self._kept(step, args, law, given)

    def _summed(self, step: Choice, args: list, tilt: Any) -> tuple[Several, list[Table]]:
        """All outcomes of a choice, and its law, times exp(tilt)."""
        spec, source = step.spec, step.source
        like = spec.tree.unflatten(spec.leaves)
        each, shape = outcomes_of(self.sites[step.path]), quadrature.elements(like)
        if each is None or shape is None:
            raise refused(step, self, f"a choice from {self.sites[step.path].kind}")
        each = each.astype(spec.dtype)
        avals = list(spec.leaves)
        if step.path in self.together or math.prod(shape) == 1:
            count = math.prod(shape)
            lane = Lane(step.path, len(each) ** count, (), source)
            digits = np.stack(np.meshgrid(*[each] * count, indexing="ij"), -1) if count else each
            values = Several(jnp.asarray(digits.reshape(lane.size, *spec.shape)), (lane,))
        else:
            lane = self._lane(step, args, len(each), shape)
            rows = np.broadcast_to(each.reshape(-1, *[1] * len(shape)), (len(each), *shape))
            own = [i for i, n in enumerate(shape) if n > 1]
            axes = tuple(zip(lane.plates, own, strict=True))
            values = Several(jnp.asarray(rows), (lane,), axes)
        exact = has_chances(like)
        of = partial(of_elements, spec, probability if exact else distributions.log_density)
        value = jax.ShapeDtypeStruct(spec.shape, spec.dtype)
        (found,) = through(of, [value, *avals], [values, *args])
        table = table_of(*((None, found) if exact else (found, None)), lane)
        tables = [table]
        if tilt is not None:
            tables = [replace(table, of=None), Table((lane,), lane.plates, _flat(tilt, lane))]
        return values, tables

    def _lane(self, step: Choice, args: list, size: int, shape: tuple[int, ...]) -> Lane:
        """The lane of a choice of many elements, with the plates of what they are made from."""
        spec = step.spec
        of = partial(of_elements, spec, distributions.log_density)
        value = jnp.zeros(spec.shape, spec.dtype)
        (found,) = through(partial(of, value), list(spec.leaves), args)
        theirs = {axis: plate for plate, axis in found.axes} if is_symbol(found) else {}
        own = [(i, n) for i, n in enumerate(shape) if n > 1]
        plates = [theirs.get(i, Plate((*step.path, i), n)) for i, n in own]
        plates = [self.alike.get(plate, plate) for plate in plates]
        return Lane(step.path, size, tuple(plates), step.source)

    def _kept(self, step: Choice, args: list, law: FiniteLaw, given: Any) -> tuple[Any, FiniteLaw]:
        """A choice that is not summed out, but made from what is."""
        spec, present = step.spec, getattr(given, "counts", None)
        if self.given:
            value = jnp.asarray(given.value, spec.dtype)
            table = table_given(spec, value, args, present)
            return value, replace(law, tables=[*law.tables, table])
        mine, _ = connected(law.tables, self.names(args))
        mixed = Mixed.of(spec, args, mine, present)
        leaves, params = bind_parameters(mixed, step.source, self.sites[step.path].kind)
        (value,) = sample_p.bind(*leaves, **params, address=step.path, source=step.source)
        after = replace(law, tables=[*law.tables, mixed.given(value)[-1]])
        return value, _less(after, mixed.by_plates(value))

    def factor(self, step: Factor, args: list, law: FiniteLaw) -> FiniteLaw:
        if isinstance(args[0], Unsaid):
            raise refused(step, self, f"a factor made of {args[0].why}")
        after = replace(law, tables=[*law.tables, table_of(args[0])])
        if self.given:
            return after
        mine, _ = connected(after.tables, self.names(args))
        amount = total(mine, summed)
        factor_p.bind(amount, source=step.source)
        return _less(after, amount)

    # -- the law -------------------------------------------------------------------------

    def nothing(self) -> FiniteLaw:
        return FiniteLaw([], jnp.zeros((), jnp.result_type(float)))

    def forget(self, law: FiniteLaw, values: list, outside: frozenset) -> FiniteLaw:
        live = self.names(values) | outside
        dead = [lane for lane in lanes_of(law.tables) if lane not in live]
        if not dead:
            return law
        return _settled(law, without(law.tables, dead, self.reduce))

    def reach(self, law: FiniteLaw, values: list) -> tuple[FiniteLaw, FiniteLaw]:
        mine, rest = connected(law.tables, self.names(values))
        return replace(law, tables=mine), FiniteLaw(rest, jnp.zeros_like(law.evidence))

    def both(self, law: FiniteLaw, rest: FiniteLaw) -> FiniteLaw:
        return FiniteLaw([*rest.tables, *law.tables], law.evidence + rest.evidence)

    def evidence(self, law: FiniteLaw) -> jax.Array:
        """The log of the mass of all that was given; nothing is left to be summed."""
        return law.evidence + total(law.tables, self.reduce)

    # -- loops, branches and plates --------------------------------------------------------

    def form(
        self, law: FiniteLaw, values: list, avals: list, outside: frozenset, name: tuple
    ) -> Form:
        return states.form(law.tables, values, avals, outside, name)

    def pack(self, law: FiniteLaw, values: list, form: Form) -> Any:
        tables, leaves = states.pack(law.tables, values, form, self.reduce)
        law = _settled(law, tables)
        if self.given:
            law = _lowered(law)
        return law.evidence, states.arrays_of(law.tables, form), leaves

    def unpack(self, packed: Any, form: Form) -> tuple[list, FiniteLaw]:
        evidence, arrays, leaves = packed
        tables, values = states.unpack(arrays, leaves, form)
        return values, FiniteLaw(tables, evidence)

    def along(
        self, step: Loop, args: list, law: FiniteLaw, inputs: Any, form: Form
    ) -> tuple[list, FiniteLaw] | None:
        return finite_series.along(self, step, args, law, inputs, form)

    def each(
        self, step: Map, args: list, law: FiniteLaw, inputs: Any, outside: frozenset, run: Callable
    ) -> tuple[list, FiniteLaw]:
        return plates.each(self, step, args, law, inputs, outside, run)


def _less(law: FiniteLaw, amount: jax.Array) -> FiniteLaw:
    """The law with the last table divided by exp(amount), element by element if it has any."""
    *tables, last = law.tables
    amount = jnp.where(jnp.isfinite(amount), amount, 0.0)
    if not amount.ndim:
        amount = amount / math.prod(plate.size for plate in last.plates)
    return replace(
        law, tables=[*tables, replace(last, logs=log_weights(last) - amount, chances=None)]
    )


def _settled(law: FiniteLaw, tables: list[Table]) -> FiniteLaw:
    """The law with these tables, those without lanes as part of the evidence."""
    left = [table for table in tables if table.lanes]
    done = [log_weights(table) for table in tables if not table.lanes]
    return FiniteLaw(left, sum(done, law.evidence))


def _lowered(law: FiniteLaw) -> FiniteLaw:
    """The law with the largest number of each table taken out, so that none drifts away."""
    evidence, tables = law.evidence, []
    for table in law.tables:
        if table.logs is None:
            tables.append(table)
            continue
        top = jax.lax.stop_gradient(jnp.max(table.logs, tuple(range(len(table.lanes)))))
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        tables.append(replace(table, logs=table.logs - top))
        evidence = evidence + jnp.sum(top)
    return FiniteLaw(tables, evidence)


def outcomes_of(site: Site) -> np.ndarray | None:
    """The values that an element can take in any branch that makes the choice, or None."""
    found = [quadrature.outcomes(d) for d in (site.distribution, *site.others)]
    return None if any(each is None for each in found) else np.unique(np.concatenate(found))


def _flat(tilt: jax.Array, lane: Lane) -> jax.Array:
    """What is given for the outcomes of a choice, as a table has it."""
    return jnp.reshape(tilt, (lane.size, *(plate.size for plate in lane.plates)))
