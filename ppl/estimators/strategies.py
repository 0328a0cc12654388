"""What a strategy is: how the derivative with respect to a choice's law is estimated.

A strategy makes the value of a draw, or several values side by side, and its score. It is a
frozen record with one method, `make(site)`; `expectation` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from .. import distributions, errors, jumps
from ..chances import probability
from ..effects import draw_p
from ..keys import sizes, with_levels
from ..staging import read_by
from .coupling import coupled
from .lanes import WORLDS, Lane, Value, along, happening
from .nodes import DrawNode
from .scores import Score


@dataclass(frozen=True)
class Site:
    """What a strategy is given.

    Attributes:
      node: the draw.
      parameters: the leaves of its distribution, with the lanes that they have.
      apart: whether every term depends on the elements of the value one by one.
      first_world: the place of its own worlds among all, if it makes any.
      worlds: how many worlds there are in the program.
      parted: whether worlds have first derivatives only.
      reached: the worlds in which parameters may be others than in the one that happens.
      before: gives the values of the choices made so far, by address.
    """

    node: DrawNode
    parameters: list[Value]
    apart: bool
    first_world: int = 0
    worlds: int = 0
    parted: bool = False
    reached: frozenset[int] = frozenset()
    before: Callable[[], dict[tuple[str, ...], Value]] = dict

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value, the `vmap`s around the draw in front."""
        return sizes(self.node.spec) + self.node.spec.shape

    def sampled(self, lane: Lane | None = None) -> Value:
        """A value from the distribution, without derivative; or one for each place of `lane`."""

        def one(_: Any, *leaves: Any) -> Any:
            return self.draw_once(*map(_stopped, leaves))

        places = Value(jnp.zeros(())) if lane is None else Value(jnp.zeros(lane.size), (lane,))
        if not self.reached or not any(p.lanes[-1:] == (self.world,) for p in self.parameters):
            return along(one, places, *self.parameters)
        here = [happening(p) for p in self.parameters]
        return coupled(self, along(one, places, *here))

    def draw_once(self, *leaves: Any) -> Any:
        """The draw itself, left to the surrounding random program."""
        spec, node = self.node.spec, self.node
        return draw_p.bind(
            *leaves,
            tree=spec.tree,
            shape=spec.shape,
            dtype=spec.dtype,
            kind=spec.kind,
            support=spec.support,
            levels=spec.levels,
            source=node.source,
            address=node.address,
        )

    @property
    def world(self) -> Lane:
        """The lane of worlds."""
        return Lane(WORLDS, self.worlds)

    def same_where_not_reached(self, value: Value) -> Value:
        """The value, in worlds that do not reach its parameters, as in the one that happens."""
        if value.lanes[-1:] != (self.world,) or len(self.reached) + 1 == self.worlds:
            return value
        place, rank = len(value.lanes) - 1, jnp.ndim(value.array)
        reached = np.isin(np.arange(self.worlds), list(self.reached))
        reached = np.expand_dims(reached, [i for i in range(rank) if i != place])
        here = jax.lax.slice_in_dim(value.array, 0, 1, axis=place)
        return Value(jnp.where(reached, value.array, here), value.lanes)

    def log_density(self, value: Value) -> Value:
        """The log density of each independent element of a value.

        Its derivative says nothing of a support that moves: that is refused.
        """
        bounds = ends_of(self.node)

        def each(x: Any, *leaves: Any) -> Any:
            watched = [
                jumps.watched(leaf, self.refuse_moving_support) if i in bounds else leaf
                for i, leaf in enumerate(leaves)
            ]
            return self.by_element(distributions.log_density, watched, x)

        return along(each, value, *self.parameters)

    def refuse_moving_support(self) -> None:
        raise errors.GradientThroughDraw(
            f"The support of {self.node.spec.kind} moves with a parameter, which a score does "
            "not see.",
            where=self.node.place,
            given="a derivative with respect to an end of the support",
            expected="a support that stays, or a value that moves with it",
            fix="reparam() for this choice",
        )

    def probability(self, value: Value) -> Value:
        """The probability of each independent element of a value, of a discrete choice."""
        return along(
            lambda x, *leaves: self.by_element(probability, list(leaves), x),
            value,
            *self.parameters,
        )

    def probabilities(self, leaves: list, table: Any) -> Any:
        """The probabilities of the outcomes in `table`, of each element, in the last axis."""

        def one(d: Any) -> Any:
            def at(x: Any) -> Any:
                value = jnp.full(d.batch_shape, x, self.node.spec.dtype)
                return probability(d, value)

            return jnp.moveaxis(jax.vmap(at)(jnp.asarray(table)), 0, -1)

        return self.by_element(one, leaves)

    def by_element(self, fn: Callable, leaves: list, *values: Any) -> Any:
        """`fn(distribution of the elements, values)`, under the `vmap`s around the draw."""
        spec = self.node.spec

        def one(leaves: list, values: tuple) -> Any:
            d = distributions.elementwise(spec.tree.unflatten(leaves))
            return jax.tree.map(
                lambda x: jnp.broadcast_to(x, d.batch_shape + jnp.shape(x)[len(d.batch_shape) :]),
                fn(d, *values),
            )

        return with_levels(one, spec)(leaves, values)


def _stopped(leaf: Any) -> Any:
    """Without derivative; a whole number that is known stays known, and its outcomes with it."""
    kind = jnp.result_type(leaf)
    return jax.lax.stop_gradient(leaf) if jnp.issubdtype(kind, jnp.inexact) else leaf


@lru_cache(maxsize=4096)
def ends_of(node: DrawNode) -> frozenset[int]:
    """Which parameters of a draw are ends of its support."""

    def ends(*leaves: Any) -> list:
        support = node.spec.tree.unflatten(list(leaves)).support
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        return [x for x in vars(support).values() if isinstance(x, jax.Array)]

    found = {node.inputs[i] for i in read_by(ends, *node.spec.leaves)}
    # some distributions have an end twice, once in their support
    return frozenset(i for i, slot in enumerate(node.inputs) if slot in found)


class Made(NamedTuple):
    """What a strategy makes of a draw.

    Attributes:
      value: the value, or several with a lane of the draw's own.
      score: what terms that depend on it are multiplied by; None where it moves by itself.
      control: for each element a term that has mean zero whatever the parameters are.
    """

    value: Value
    score: Score | None = None
    control: Value | None = None


class Strategy(Protocol):
    """What `expectation` takes for a choice.

    Attributes:
      several: whether there are several values side by side. A strategy that gives all elements
        one probability where a term depends on some of them together says `together = True`.
      scored: whether terms are multiplied by a score.
      biased: whether derivatives are.
    """

    @property
    def several(self) -> bool: ...

    @property
    def scored(self) -> bool: ...

    @property
    def biased(self) -> bool: ...

    def worlds(self, node: DrawNode, apart: bool) -> int:
        """How many values, beside the one drawn, are followed through the program."""
        ...

    def make(self, site: Site) -> Made: ...
