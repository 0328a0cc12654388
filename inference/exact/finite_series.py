"""A loop of finite states that is seen through one choice, as one choice of an array.

Its steps are laid out side by side: the weights of pairs of states, once if they are the same in
all steps, and those of what is seen; then the sum over all paths is `markov.mass`, which has a
pass back of its own. Other loops are gone through step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import constraints

from ppl import seed
from ppl.effects import sample_p
from ppl.estimators.flow import Known, Symbol, flows_through
from ppl.estimators.nodes import graph_of
from ppl.execute import Execute
from ppl.program import Choice, Loop, Path
from ppl.randomness import bind_parameters
from ppl.walk import walk

from . import states
from .elimination import only_kept, put_out
from .markov import Markov, mass, state_after
from .mixed import chosen, drawn_of, table_given
from .reads import aval_of
from .several import Several
from .states import Form
from .tables import Lane, Table, aligned, log_weights, summed


@dataclass(frozen=True, eq=False)
class Plan:
    """A loop with one choice that is kept.

    Attributes:
      form: of its state.
      sums: how its other choices are summed out.
    """

    step: Loop
    choice: Choice
    form: Form
    sums: Any

    @property
    def path(self) -> Path:
        return self.choice.path

    def in_time(self, rows: Any) -> Any:
        """Rows in the order of the steps, or back."""
        return jax.tree.map(lambda x: x[::-1], rows) if self.step.reverse else rows


def along(
    sums: Any, step: Loop, args: list, law: Any, inputs: Any, form: Form
) -> tuple[list, Any] | None:
    """The outputs of a loop and the law after it; None if it is not such a loop."""
    choice = _only_kept(sums, step, args, form)
    if choice is None:
        return None
    plan = Plan(step, choice, form, sums)
    split = step.constants + step.carries
    own = dict(inputs)
    seen = own.pop(choice.path, None)
    present = None if seen is None else seen.counts
    laid = _laid_out(plan, args[: step.constants], args[step.constants : split], args[split:],
                     own, law, present)  # fmt: skip
    if laid is None:
        return None
    spec = choice.spec
    if sums.given:
        assert seen is not None
        value = jnp.asarray(seen.value, spec.dtype)
    else:
        emitted = Emissions(plan, laid)
        leaves, params = bind_parameters(emitted, choice.source, sums.sites[choice.path].kind)
        (value,) = sample_p.bind(*leaves, **params, address=choice.path, source=choice.source)
    chain = laid.chain(plan, value)
    last = state_after(chain)
    lanes = tuple(form.lane(i) for i in form.blocks[0][0])
    table = Table(lanes, (), last.reshape([lane.size for lane in lanes]))
    _, values = states.unpack([(table.logs, None)], laid.leaves, replace(form, exact=False))
    evidence = law.evidence + mass(chain) if sums.given else law.evidence
    outs = [value if slot == choice.outputs[0] else sums.lost(put_out(step), aval)
            for slot, aval in _outputs(step)]  # fmt: skip
    return [*values, *outs], replace(law, tables=[table], evidence=evidence)


def _outputs(step: Loop) -> list[tuple[int, Any]]:
    slots = step.body.outputs[step.carries :]
    avals = [aval_of(step.body, slot) for slot in slots]
    return [(slot, jax.ShapeDtypeStruct((step.length, *a.shape), a.dtype))
            for slot, a in zip(slots, avals, strict=True)]  # fmt: skip


def _only_kept(sums: Any, step: Loop, args: list, form: Form) -> Choice | None:
    """The choice of a loop that is kept, if it is the only one and nothing else reads it."""
    found = only_kept(step, args, sums)
    plain = set(range(step.carries)) - {i for group in form.groups for i in group.leaves}
    simple = (
        not plain  # all of the state is summed out
        and not form.lost
        and len(form.blocks) == 1
        and not form.blocks[0][1]
        and not any(group.plates for group in form.groups)
        and (not sums.given or sums.reduce is summed)
    )
    return found if simple else None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["start", "first", "rest", "arguments", "present", "leaves", "before"],
    meta_fields=["rows"],
)
@dataclass(frozen=True, eq=False)
class Laid:
    """The steps of a loop side by side.

    Attributes:
      start: the table of the state before the first step.
      first, rest: log weights and chances of pairs of states, of the first step and of the
        others; of these once if they are all the same.
      arguments: of the choice that is kept, of the first step and of the others, with rows
        where `rows` says that they differ.
      present: which elements of it are there, or None.
      leaves: what the state's values are, for each outcome.
      before: what simulation needs: the law of the values at the start, these, and all operands.
    """

    start: tuple
    first: tuple
    rest: tuple
    arguments: tuple
    present: Any
    leaves: list
    before: tuple
    rows: tuple[bool, ...]

    def chain(self, plan: Plan, value: Any) -> Markov:
        """The chain of states, given what was seen of them."""
        values, present = plan.in_time((value, self.present))
        one, others = self.arguments
        some = lambda i: None if present is None else present[i]  # noqa: E731
        logs, chances = _both(self.start, self.first)
        logs, chances = summed(logs, chances, 0)
        likely = _emission(plan, one, values[0], some(0))
        if likely[0] is not None:
            logs = logs + likely[0]
        if likely[1] is not None:
            chances = likely[1] if chances is None else chances * likely[1]
        k, n = len(logs), len(values) - 1
        axes = [0 if row else None for row in self.rows]
        seen, shown = jax.vmap(
            lambda v, p, *xs: _emission(plan, list(xs), v, p),
            (0, None if present is None else 0, *axes),
        )(values[1:], some(slice(1, None)), *others)
        seen = jnp.zeros((n, k)) if seen is None else seen
        return Markov(logs, chances, self.rest[0], self.rest[1], seen, shown)


def _both(start: tuple, pairs: tuple) -> tuple[Any, Any]:
    """Log weights and chances of a state and the next one, from those of either."""
    logs, chances = start[0][:, None], None if start[1] is None else start[1][:, None]
    if pairs[0] is not None:
        logs = logs + pairs[0]
    if pairs[1] is not None:
        chances = pairs[1] if chances is None else chances * pairs[1]
    k = len(start[0])
    return jnp.broadcast_to(logs, (k, k)), None if chances is None else jnp.broadcast_to(
        chances, (k, k)
    )


def _emission(plan: Plan, args: list, value: Any, present: Any) -> tuple[Any, Any]:
    """Log densities of what is seen, for each state, or probabilities."""
    table = table_given(plan.choice.spec, value, args, present)
    lanes = tuple(plan.form.lane(i) for i in plan.form.blocks[0][0])
    sizes = [lane.size for lane in lanes]

    def over_states(x: Any) -> Any:
        if x is None:
            return None
        return jnp.broadcast_to(aligned(x, table.lanes, lanes), sizes).reshape(-1)

    return over_states(table.logs), over_states(table.chances)


def _laid_out(
    plan: Plan, constants: list, init: list, xs: list, inputs: Any, law: Any, present: Any
) -> Laid | None:
    sums, form, step = plan.sums, plan.form, plan.step
    tables, first = states.pack(law.tables, init, form, sums.reduce)
    if any(not table.lanes for table in tables):
        return None
    (start,) = tables
    logs = jnp.zeros_like(log_weights(start)) if start.logs is None else start.logs
    begun = logs.reshape(-1), None if start.chances is None else start.chances.reshape(-1)
    rows = plan.in_time((list(xs), inputs))
    one = _Step(plan, constants)
    row = jax.tree.map(lambda x: x[0], rows)
    try:
        again = jax.eval_shape(one, first, row)
    except _Other:
        return None
    depends = _dependence(one, first, row, again)
    if any(any(each) for each in depends["leaves"]):
        return None
    found = one(first, row)
    leaves = found["leaves"]
    others = jax.tree.map(lambda x: x[1:], rows)
    varies = {name: [by_row for _, by_row in each] for name, each in depends.items()}
    same = one(leaves, row)
    each = jax.vmap(one, (None, 0))(leaves, others) if any(
        any(flags) for flags in varies.values()) else same  # fmt: skip

    def picked(name: str) -> list:
        return [b if v else a
                for a, b, v in zip(same[name], each[name], varies[name], strict=True)]  # fmt: skip

    logs, chances = one.pair(picked("pairs"))
    if any(varies["pairs"]) and logs is not None and chances is not None:
        n = step.length - 1
        logs, chances = (x if x.ndim == 3 else jnp.broadcast_to(x, (n, *x.shape))
                         for x in (logs, chances))  # fmt: skip
    arguments = one.args(found["args"]), one.args(picked("args"))
    before = (law.tables, init, constants, list(xs))
    return Laid(
        begun, one.pair(found["pairs"]), (logs, chances), arguments, present, leaves, before,
        tuple(varies["args"]),
    )  # fmt: skip


class _Other(Exception):
    """A loop that is seen in another way."""


class _Step:
    """One step of the loop, as arrays: weights of pairs, arguments of what is kept, values."""

    def __init__(self, plan: Plan, constants: list):
        self.plan, self.constants = plan, constants
        self.static: tuple = ()

    def __call__(self, leaves: list, row: tuple) -> dict[str, list]:
        plan, sums, form = self.plan, self.plan.sums, self.plan.form
        x, inputs = row
        old = tuple(form.lane(i)._replace(name=(*form.name, i, "old")) for i in form.blocks[0][0])
        zeros = jnp.zeros([lane.size for lane in old])
        _, values = states.unpack([(zeros, None)], leaves, replace(form, exact=False))
        renamed = {form.lane(i): lane for i, lane in zip(form.blocks[0][0], old, strict=True)}
        values = [replace(v, lanes=tuple(renamed[n] for n in v.lanes)) for v in values]
        body = plan.step.body
        env: dict[int, Any] = dict(body.constants)
        env.update(zip(body.inputs, [*self.constants, *values, *x], strict=True))
        tables: list[Table] = []
        kept: list = []
        for step in body.steps:
            args = [env[slot] for slot in step.inputs]
            if isinstance(step, Choice) and step is not plan.choice:
                value, more = sums._summed(step, args, inputs.get(step.path))
                tables += more
                env[step.outputs[0]] = value
            elif isinstance(step, Choice):
                kept = args
                env[step.outputs[0]] = jnp.zeros(step.spec.shape, step.spec.dtype)
            elif any(map(sums.is_symbol, args)):
                avals = [aval_of(body, slot) for slot in step.inputs]
                outs = sums.through(step.evaluate, avals, args)
                env.update(zip(step.outputs, outs, strict=True))
            else:
                env.update(zip(step.outputs, step.evaluate(*args), strict=True))
        after = [env[slot] for slot in body.outputs[: plan.step.carries]]
        ((members, _),) = form.blocks
        pairs = replace(form, name=(*form.name, "next"), blocks=((members, old),))
        found, new = states.pack(tables, after, pairs, sums.reduce)
        if len(found) != 1:
            raise _Other
        k = 1
        for lane in old:
            k *= lane.size
        arrays = [None if x is None else x.reshape(k, k) for x in (found[0].logs, found[0].chances)]
        kept = [self._of_states(v, after) if isinstance(v, Several) else v for v in kept]
        self.static = (
            [x is None for x in arrays],
            [(v.lanes, v.axes) if isinstance(v, Several) else None for v in kept],
        )
        return {
            "pairs": [x for x in arrays if x is not None],
            "args": [v.at if isinstance(v, Several) else v for v in kept],
            "leaves": new,
        }

    def _of_states(self, value: Several, after: list) -> Several:
        """An argument of what is seen, which depends on the next state alone, by its lanes."""
        form = self.plan.form
        lanes: list[Lane] = []
        at, own = value, list(value.lanes)
        for i, group in enumerate(form.groups):
            mine = sorted({n for j in group.leaves for n in getattr(after[j], "lanes", ())})
            here = [n for n in own if n in mine]
            if not here:
                continue
            if len(mine) != 1 or mine[0].size != group.size:
                raise _Other
            lanes.append(form.lane(i))
            own.remove(mine[0])
            names = [form.lane(i) if n == mine[0] else n for n in at.lanes]
            at = replace(at, lanes=tuple(names))
        if own:
            raise _Other
        return at

    def pair(self, arrays: list) -> tuple:
        each = iter(arrays)
        return tuple(None if gone else next(each) for gone in self.static[0])

    def args(self, arrays: list) -> list:
        return [x if like is None else Several(x, *like)
                for x, like in zip(arrays, self.static[1], strict=True)]  # fmt: skip


def _dependence(one: Callable, leaves: list, row: tuple, like: dict) -> dict[str, list]:
    """For each output whether it depends on the state's values before, and on the row."""
    first, tree = jax.tree.flatten(leaves)
    second, other = jax.tree.flatten(row)

    def flat(*xs: Any) -> list:
        return jax.tree.leaves(
            one(tree.unflatten(xs[: len(first)]), other.unflatten(xs[len(first) :]))
        )

    graph = graph_of(jax.make_jaxpr(flat)(*first, *second))
    flows = [{Symbol(0): frozenset()}] * len(first) + [{Symbol(1): frozenset()}] * len(second)
    found = flows_through(graph, flows, frozenset(), Known({}))
    flags = iter([(Symbol(0) in flow, Symbol(1) in flow) for flow in found])
    return {name: [next(flags) for _ in like[name]] for name in sorted(like)}


class Emissions(dist.Distribution):
    """The law of what is seen of a chain of finite states, at all steps of a loop."""

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("laid",)
    pytree_aux_fields = ("plan",)

    def __init__(self, plan: Plan, laid: Laid):
        self.plan, self.laid = plan, laid
        shape = (plan.step.length, *plan.choice.spec.shape)
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> Any:
        spec = self.plan.choice.spec
        support: Any = spec.tree.unflatten(spec.leaves).support
        return constraints.independent(support, len(self.event_shape) - support.event_dim)

    def log_prob(self, value: Any) -> jax.Array:
        return mass(self.laid.chain(self.plan, value))

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        assert sample_shape == ()
        first, second = jax.random.split(key)
        return seed(self._run)(first, second)

    def _run(self, key: Any) -> jax.Array:
        """The loop itself, from a state drawn from the law before it."""
        tables, init, constants, xs = self.laid.before
        step = self.plan.step
        marks = drawn_of(tables, key)
        state = [chosen(v, marks) if isinstance(v, Several) else v for v in init]

        def body(carry: list, x: list) -> tuple[list, Any]:
            outs, found, _ = walk(step.body, [*constants, *carry, *x], Execute(sums=()), {})
            return outs[: step.carries], found["choices"][self.plan.path]

        state = [jnp.asarray(v, aval_of(step.body, slot).dtype) for v, slot in
                 zip(state, step.body.inputs[step.constants :], strict=False)]  # fmt: skip
        return lax.scan(body, state, xs, length=step.length, reverse=step.reverse)[1]
