"""Steps whose finite choices are summed out: the state holds their values with probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, errors
from ppl.program import Path
from ppl.sites import Site

from .belief_steps import NAME, avals_of, form_of_state, named, remembered, taken, values_of
from .elimination import Sums
from .finite import Finite, FiniteLaw
from .finite_plan import planned
from .several import Several, Unsaid
from .states import Form, Group
from .tables import Couples, Lane, Plate, check_size


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Enumerated:
    """A state of which some leaves have finitely many values: the i-th with e^log_probs[i].

    Attributes:
      state: as of the model; leaves that depend on what is summed out have their values on an
        axis of length K in front.
      log_probs: shape (K,).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Enumerated, rao_blackwell
    >>> from ppl import gen, sample
    >>> @gen
    ... def weather(rain, _):
    ...     rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, 0.75, 0.25)))
    ...     sample("wet", dist.Bernoulli(jnp.where(rain == 1, 1.0, 0.5)))
    ...     return rain, None
    >>> step, start = rao_blackwell(weather, "rain", 1)
    >>> trace, _ = step.generate({"wet": 1}, start, None)
    >>> today: Enumerated = trace.retval[0]
    >>> dry, wet = jnp.exp(today.log_probs)
    >>> print(today.state, f"{dry:.4f} {wet:.4f}")  # 1/8 to 3/4
    [0 1] 0.1429 0.8571
    """

    state: Any
    log_probs: jax.Array


def enumerated(
    model: GenerativeFunction, summed: tuple[Path, ...], init: Any, x: Any
) -> tuple[GenerativeFunction, Enumerated]:
    """The step with these finite choices summed out, and the state before the first step."""
    known = Form(NAME, (), (), (), _shapes(jax.tree.leaves(init)))

    def look(sums: Finite) -> _Forward:
        of = _Forward(model, summed, known, sums.together, tuple(sums.alike.items()))
        form = form_of_state(known, lambda form: replace(of, form=form).following(init, x))
        if form is None:
            raise of.unheld("the next state", before=True)
        return replace(of, form=form)

    held = remembered(model, init, x, summed)
    forward = planned(Finite(frozenset(summed), model.sites(init, x), together=held), look)[1]
    step = GenerativeFunction(forward, model.fixed, f"rao_blackwell({model.name})")
    start = forward.start(init)
    step.sites(start, x)  # what is refused is refused here
    return step, start


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model"],
    meta_fields=["summed", "form", "together", "alike"],
)
@dataclass(frozen=True, eq=False)
class _Forward:
    """A step of the forward algorithm.

    Attributes:
      form: of the state, whose leaves that depend on summed choices are one group.
      together, alike: as those of `Finite`.
    """

    model: GenerativeFunction
    summed: tuple[Path, ...]
    form: Form
    together: frozenset[Path]
    alike: tuple[tuple[Plate, Plate], ...]

    def __call__(self, before: Enumerated, x: Any) -> tuple[Enumerated, Any]:
        (state, y), law, sums = self.taken(before, x)
        values = values_of(state)
        form = replace(self.form, avals=_shapes(map(_at_first, values)))
        # the forward recursion: probabilities of what the next state depends on
        evidence, arrays, leaves = sums.pack(law, values, form)
        logs = arrays[0][0] + evidence if arrays else jnp.reshape(evidence, 1)
        after, beside = jax.tree.structure(state), jax.tree.structure(y)
        return Enumerated(after.unflatten(leaves), logs), beside.unflatten(values_of(y))

    def start(self, init: Any) -> Enumerated:
        """A state that is known."""
        leaves, tree = jax.tree.flatten(init)
        for i in self._stacked:
            leaf = jnp.asarray(leaves[i])
            leaves[i] = jnp.broadcast_to(leaf, (self._size, *leaf.shape))
        return Enumerated(tree.unflatten(leaves), jnp.full(self._size, -math.log(self._size)))

    def taken(self, before: Enumerated, x: Any) -> tuple[tuple[Any, Any], FiniteLaw, Sums]:
        """A step of the model: what it returns, and the law of what that depends on."""
        leaves, tree = jax.tree.flatten(before.state)
        if jnp.shape(before.log_probs) != (self._size,):
            raise errors.ShapeError(
                "The probabilities of a state are not as many as its values.",
                where=(errors.defined(self.model.fn), errors.caller()),
                given=f"shape {jnp.shape(before.log_probs)}",
                expected=f"shape {(self._size,)}",
                fix="step, start = rao_blackwell(model, summed, init), and replace log_probs",
            )
        one = [leaf[0] if i in self._stacked else leaf for i, leaf in enumerate(leaves)]
        if self._stacked:
            packed = jnp.zeros(()), [(before.log_probs, None)], leaves
        else:
            packed = before.log_probs[0], [], leaves
        return taken(self.model, tree.unflatten(one), x, packed, self.form, self._sums)

    def following(self, init: Any, x: Any) -> Form:
        """The form of the state after one that is known."""
        result, law, sums = self.taken(self.start(init), x)
        old = {self.form.lane(i) for i in range(len(self.form.groups))}
        held: dict[Lane, None] = {}
        for name, value in named(result):
            lanes = value.lanes if isinstance(value, Several) else ()
            before = not old.isdisjoint(lanes)
            if before or isinstance(value, Unsaid) or (lanes and name.startswith("y")):
                raise self.unheld(name, before=before)
            for lane in lanes:
                if lane.plates:  # a choice in each copy of a vmap
                    raise Couples(lane)
            held.update(dict.fromkeys(lanes))
        check_size(tuple(held))
        avals = avals_of(jax.tree.leaves(init))
        return _one_group(sums.form(law, values_of(result[0]), avals, frozenset(), NAME))

    def unheld(self, name: str, *, before: bool) -> errors.InvalidArgument:
        """The error for what a state of this kind does not hold."""
        names = "; ".join(map(errors.show, self.summed))
        return errors.InvalidArgument(
            f"A step returns what its state cannot hold once {names} is summed out.",
            where=(errors.defined(self.model.fn), errors.caller()),
            given=f"{name}, which depends on " + ("that of the step before" if before else "it"),
            expected="a state that depends on the step's own summed choices, and a y that "
            "depends on none",
            fix="make the next state by one choice, whose probabilities depend on the last",
        )

    @property
    def _stacked(self) -> tuple[int, ...]:
        """The leaves of the state that depend on summed choices."""
        return self.form.groups[0].leaves if self.form.groups else ()

    @property
    def _size(self) -> int:
        return self.form.groups[0].size if self.form.groups else 1

    def _sums(self, sites: dict[Path, Site]) -> Finite:
        return Finite(frozenset(self.summed), sites, together=self.together, alike=dict(self.alike))


def _shapes(values: Iterable[Any]) -> tuple[tuple[tuple[int, ...], Any], ...]:
    return tuple((aval.shape, aval.dtype) for aval in avals_of(values))


def _one_group(form: Form) -> Form:
    """The form in which all that depends on what is summed out has the same outcomes."""
    if not form.groups:
        return form
    leaves = tuple(sorted(i for group in form.groups for i in group.leaves))
    size = math.prod(group.size for group in form.groups)
    whole = Group(leaves, size, (), ((),) * len(leaves), form.groups[-1].source)
    return replace(form, groups=(whole,), blocks=(((0,), ()),), exact=False)


def _at_first(value: Any) -> Any:
    """A value of the state as it is at the first of its outcomes."""
    return value.at[(0,) * len(value.lanes)] if isinstance(value, Several) else value
