"""A walk that sums choices out of a program along its own structure, loops and all.

Some values are symbols: functions of what is summed out. What a symbol is, how code acts on it,
and what a choice made from one is, is said by the sums over a kind of choices (`Sums`). The law of
what is summed out is not held as a whole: what nothing reads any more is forgotten, and a loop
carries on what its state depends on. Choices that are kept are made again, so that the walk is
part of a model, each from its law given those before; or they are given, and the law is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from ppl import errors
from ppl.distributions import elementwise
from ppl.effects import sample_p
from ppl.execute import Execute
from ppl.masks import leading
from ppl.program import (
    CHOICE,
    FACTOR,
    Branch,
    Choice,
    Factor,
    Loop,
    Map,
    Path,
    Program,
    Pure,
    Remat,
    Step,
    While,
)
from ppl.randomness import bind_parameters
from ppl.walk import construct

from ..targets.series import Again
from .reads import aval_of, reads_of
from .refused import Choices, refused

Inputs = dict[Path, Any]


class Sums(Choices, Protocol):
    """What a kind of choices that can be summed out says of itself.

    Attributes:
      given: whether the other choices are given; else they are made.
    """

    @property
    def given(self) -> bool: ...

    def is_symbol(self, value: Any) -> bool: ...

    def lost(self, why: str, aval: Any) -> Any:
        """A symbol that nothing may use."""
        ...

    def ready(
        self, step: Step, avals: Sequence[Any], args: list, law: Any
    ) -> tuple[list, Any]:
        """The arguments of a step in a form that it can go on with, and the law with that."""
        ...

    def through(self, f: Callable, avals: Sequence[Any], args: list) -> list: ...

    def choice(self, step: Choice, args: list, law: Any, given: Any) -> tuple[Any, Any]:
        """The value of a choice that is summed out, or made from symbols; and the law given it."""
        ...

    def factor(self, step: Factor, args: list, law: Any) -> Any: ...

    def forget(self, law: Any, values: list, outside: frozenset) -> Any:
        """The law without what none of the values depends on, nor anything outside."""
        ...

    def nothing(self) -> Any:
        """The law before any choice."""
        ...

    def reach(self, law: Any, values: list) -> tuple[Any, Any]:
        """The part of the law that has to do with some values, and the rest."""
        ...

    def names(self, values: list) -> frozenset:
        """The names of what values depend on."""
        ...

    def form(self, law: Any, values: list, avals: list, outside: frozenset, name: tuple) -> Any:
        """How a law and values are packed, which a loop carries on; has `merged(other)`."""
        ...

    def pack(self, law: Any, values: list, form: Any) -> Any: ...

    def unpack(self, packed: Any, form: Any) -> tuple[list, Any]: ...

    def along(
        self, step: Loop, args: list, law: Any, inputs: Inputs, form: Any
    ) -> tuple[list, Any] | None:
        """The outputs of a loop and the law after it, of all steps at once; None if it cannot."""
        ...

    def both(self, law: Any, rest: Any) -> Any:
        """Two parts of a law together."""
        ...

    def each(
        self, step: Map, args: list, law: Any, inputs: Inputs, outside: frozenset, run: Callable
    ) -> tuple[list, Any]:
        """Independent copies of a program."""
        ...  # fmt: skip


def run(
    program: Program,
    operands: Sequence[Any],
    law: Any,
    sums: Sums,
    inputs: Inputs,
    outside: frozenset = frozenset(),
) -> tuple[list, Any]:
    """The outputs of a program, and the law of what is summed out given all that it made.

    Args:
      inputs: what is given, by address: values of choices (`Given`), and for summed ones what
        the algebra takes.
      outside: what of the law is read outside of the program.
    """
    env: dict[int, Any] = dict(program.constants)
    env.update(zip(program.inputs, operands, strict=True))
    for step, gone in zip(program.steps, _last_reads(program), strict=True):
        args = [env[i] for i in step.inputs]
        for slot in gone:
            env.pop(slot, None)
        around = outside | sums.names(list(env.values()))
        args, law = sums.ready(step, [aval_of(program, i) for i in step.inputs], args, law)
        outs, law = _step(step, args, program, law, sums, inputs, around)
        env.update((s, v) for s, v in zip(step.outputs, outs, strict=True) if s not in gone)
        if any(map(sums.is_symbol, [*args, *outs])):
            law = sums.forget(law, list(env.values()), outside)
    return [env[i] for i in program.outputs], law


@lru_cache(maxsize=1024)
def _last_reads(program: Program) -> tuple[frozenset[int], ...]:
    """For each step the slots that nothing reads after it."""
    needed = set(program.outputs)
    found: list[frozenset[int]] = []
    for step in reversed(program.steps):
        slots = {*step.inputs, *step.outputs}
        found.append(frozenset(slots - needed))
        needed |= slots
    return tuple(reversed(found))


def _step(
    step: Step,
    args: list,
    program: Program,
    law: Any,
    sums: Sums,
    inputs: Inputs,
    outside: frozenset,
) -> tuple[list, Any]:
    symbols = any(map(sums.is_symbol, args))
    if not symbols and not step.paths & sums.places:
        return _as_it_is(step, args, sums, inputs), law
    if isinstance(step, Pure):
        return sums.through(step.evaluate, [aval_of(program, i) for i in step.inputs], args), law
    if isinstance(step, Choice):
        value, law = sums.choice(step, args, law, inputs.get(step.path))
        return [value], law
    if isinstance(step, Factor):
        return [], sums.factor(step, args, law)
    inner = {path: inputs[path] for path in step.paths if path in inputs}
    if isinstance(step, Remat):
        return run(step.body, args, law, sums, inner, outside)
    if isinstance(step, Branch):
        return _branch(step, args, law, sums, inner, outside)
    if isinstance(step, Loop):
        return _loop(step, args, law, sums, inner, outside)
    if isinstance(step, Map):
        return sums.each(step, args, law, inner, outside, run)
    if isinstance(step, While):
        raise errors.UnsupportedControlFlow(
            "A choice in a `while_loop` cannot be summed out, nor what depends on it in one.",
            where=(*_places(step, sums), errors.caller()),
            expected="scan, or fori_loop of static length",
            fix="bound the loop: lax.scan with a flag that says which steps count",
        )
    raise refused(step, sums)


def _places(step: Step, sums: Sums) -> list[str]:
    """Where the choices of a step are, those that are summed out first."""
    summed = sorted(step.paths & sums.places) or sorted(sums.places)
    return [f"{errors.show(path)} at {sums.sites[path].source}" for path in summed[:1]]


def _as_it_is(step: Step, args: list, sums: Sums, inputs: Inputs) -> list:
    """A step that has nothing to do with what is summed out."""
    if not step.effects & {CHOICE, FACTOR}:
        return step.evaluate(*args)
    rule: Any = Execute(sums=()) if sums.given else _Again()
    if isinstance(step, (Choice, Factor)):
        return rule.visit(step, args, inputs)[0]
    return construct(step, args, rule, inputs)[0]


class _Again(Again):
    """Make choices again, with their missing elements left out of the density."""

    def visit(self, step: Step, args: list, inputs: Any) -> Any:
        given = inputs.get(step.path) if isinstance(step, Choice) else None
        if given is None:
            return super().visit(step, args, inputs)
        assert isinstance(step, Choice)
        d = elementwise(step.spec.tree.unflatten(args))
        present = jnp.broadcast_to(leading(given.counts, len(d.batch_shape)), d.batch_shape)
        leaves, params = bind_parameters(d.mask(present), step.source, errors.show(step.path))
        return sample_p.bind(*leaves, **params, address=step.path, source=step.source), {}, {}


def _branch(
    step: Branch, args: list, law: Any, sums: Sums, inputs: Inputs, outside: frozenset
) -> tuple[list, Any]:
    index, operands = args[0], args[1:]
    if sums.is_symbol(index):
        raise refused(step, sums, "a choice between branches")
    mine, rest = sums.reach(law, operands)
    name = (*step.name, "branch")
    avals = [aval_of(step.branches[0], slot) for slot in step.branches[0].outputs]
    forms = []

    def taken(branch: Program, form: Any = None) -> Callable:
        paths = branch.paths

        def go(law: Any, operands: list, inputs: Inputs) -> Any:
            some = {path: inputs[path] for path in paths if path in inputs}
            outs, after = run(branch, operands, law, sums, some, outside)
            if form is None:
                forms.append(sums.form(after, outs, avals, outside, name))
                return 0
            return sums.pack(after, outs, form)

        return go

    for branch in step.branches:
        jax.eval_shape(lambda b=branch: taken(b)(mine, operands, inputs))
    form = forms[0]
    for other in forms[1:]:
        form = form.merged(other)
    runs = [taken(branch, form) for branch in step.branches]
    packed = lax.switch(index, [lambda r=r: r(mine, operands, inputs) for r in runs])
    outs, after = sums.unpack(packed, form)
    return outs, sums.both(after, rest)


FEWEST = 3
"""Loops of fewer steps are gone through step by step."""


def only_kept(step: Loop, args: list, sums: Sums) -> Choice | None:
    """The one choice of a loop that is kept, if nothing else in the loop reads it, and what the
    loop puts out is the choice itself, or depends on what is summed out."""
    body = step.body
    if not all(isinstance(each, (Pure, Choice)) for each in body.steps):
        return None
    kept = [s for s in body.steps if isinstance(s, Choice) and s.path not in sums.places]
    if len(kept) != 1 or sums.names(args[: step.constants]) or step.length < FEWEST:
        return None
    (value,) = kept[0].outputs
    read = {slot for each in body.steps for slot in each.inputs} | {*body.outputs[: step.carries]}
    state = range(step.constants, step.constants + step.carries)
    labels = [frozenset({()}) if i in state else frozenset() for i in range(len(body.inputs))]
    found = reads_of(body, labels, sums.places)[step.carries :]
    outs = zip(body.outputs[step.carries :], found, strict=True)
    alone = value not in read and all(label or slot == value for slot, label in outs)
    return kept[0] if alone else None


MOST_FORMS = 8
"""How often the form of a state may grow, beyond once for each of its values."""


def fixed_form(form: Any, after: Callable[[Any], Any]) -> Any:
    """The smallest form, from this one on, of a state and of what a step makes of it; or None.

    `after` takes the form of a state to that of the next.
    """
    for _ in range(MOST_FORMS + len(form.avals)):
        grown = form.merged(after(form))
        if grown == form:
            return form
        form = grown
    return None


def _loop(
    step: Loop, args: list, law: Any, sums: Sums, inputs: Inputs, outside: frozenset
) -> tuple[list, Any]:
    split = step.constants + step.carries
    constants, init, xs = args[: step.constants], args[step.constants : split], args[split:]
    if any(map(sums.is_symbol, xs)):
        raise refused(step, sums, "a loop that reads it row by row")
    mine, rest = sums.reach(law, [*constants, *init])
    kept = outside | sums.names(constants)
    body, name = step.body, (*step.name, "state")
    avals = [aval_of(body, slot) for slot in body.inputs[step.constants : split]]

    def once(packed: Any, row: Any, form: Any) -> tuple[list, list, Any]:
        x, sub = row
        values, law = sums.unpack(packed, form)
        outs, law = run(body, [*constants, *values, *x], law, sums, sub, kept)
        return outs[: step.carries], outs[step.carries :], law

    rows = (list(xs), inputs)
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)

    def following(form: Any) -> Any:
        found: list = []

        def shape(packed: Any, row: Any) -> int:
            carry, _, law = once(packed, row, form)
            found.append(sums.form(law, carry, avals, kept, name))
            return 0

        packed = jax.eval_shape(lambda: sums.pack(mine, init, form))
        jax.eval_shape(shape, packed, first)
        return found[0]

    form = fixed_form(sums.form(mine, init, avals, kept, name), following)
    if form is None:
        raise _grows(step, sums)
    at_once = sums.along(step, args, mine, inputs, form)
    if at_once is not None:
        return at_once[0], sums.both(at_once[1], rest)
    symbolic: list[bool] = []

    def body_of(packed: Any, row: Any) -> tuple[Any, list]:
        carry, ys, law = once(packed, row, form)
        symbolic[:] = [sums.is_symbol(y) for y in ys]
        return sums.pack(law, carry, form), [y for y in ys if not sums.is_symbol(y)]

    packed, ys = lax.scan(
        body_of,
        sums.pack(mine, init, form),
        rows,
        length=step.length,
        reverse=step.reverse,
        unroll=step.unroll,
    )
    values, after = sums.unpack(packed, form)
    plain = iter(ys)
    why = put_out(step)
    stacked = [jax.ShapeDtypeStruct((step.length, *a.shape), a.dtype)
               for a in (aval_of(body, slot) for slot in body.outputs[step.carries :])]  # fmt: skip
    outs = [sums.lost(why, aval) if s else next(plain)
            for s, aval in zip(symbolic, stacked, strict=True)]  # fmt: skip
    return [*values, *outs], sums.both(after, rest)


def put_out(step: Step) -> str:
    """What a loop puts out that depends on what is summed out, for messages."""
    names = ", ".join(map(errors.show, sorted(step.paths)))
    return f"what a loop with {names} puts out" if names else "what a loop puts out"


def _grows(step: Step, sums: Sums) -> errors.InvalidArgument:
    names = sorted(step.paths & sums.places) or sorted(sums.places)
    first = names[0]
    return errors.InvalidArgument(
        "The state of a loop depends on more and more choices that are summed out.",
        where=(f"{errors.show(first)} at {sums.sites[first].source}", errors.caller()),
        given=f"a loop whose state grows by {errors.show(first)} in each step",
        expected="a state that depends on a fixed number of the last choices",
        fix="make the next state by one choice, whose probabilities depend on the last; for one "
        "further back carry each on by itself: (z, last), not one array of them",
    )
