"""Strategies for the ancestors of a particle filter: how their law's derivative is estimated.

What comes after a resampling multiplies the score of its ancestors. It is close to what comes
after in another filter, which is drawn independently: so that is its baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw
from ppl.effects import box, draw_p
from ppl.estimators.lanes import along
from ppl.estimators.nodes import DrawNode
from ppl.estimators.score_function import Fixed
from ppl.estimators.scores import Score
from ppl.estimators.strategies import Made, Site, Strategy
from ppl.keys import with_levels
from ppl.program import DRAW, Draw, Step
from ppl.randomness import program_of
from ppl.walk import Result, Rule, walk

Scheme = Callable[[jax.Array], jax.Array]
"""Normalised weights, of shape (n,), to n ancestors."""


@dataclass(frozen=True)
class Foreseen:
    """The score function, with the baseline that an `_Expecting` brings along."""

    several = False
    scored = True
    biased = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        value = site.sampled()
        log = site.log_density(value)

        def each(*leaves: Any) -> Any:
            level = with_levels(lambda leaves, x: leaves[-1] + x, site.node.spec)
            return level(list(leaves), jnp.zeros(site.shape))

        level = along(each, *site.parameters)
        return Made(value, Score(log), along(lambda s, b: (1 - box(s)) * b, log, level))


class _Expecting(dist.ExpandedDistribution):
    """n independent choices, and what is expected to come after them.

    Taken apart, it has the expectation as its last leaf, which a strategy finds among the
    parameters; put together again, it is the distribution alone, so that nothing else sees it.
    """

    def __init__(self, base: dist.Distribution, n: int, expected: jax.Array):
        super().__init__(base, (n,))
        self.expected = expected

    def tree_flatten(self) -> tuple[tuple, int]:
        return (self.base_dist, self.expected), self.batch_shape[0]

    @classmethod
    def tree_unflatten(cls, n: int, children: tuple) -> dist.Distribution:
        return dist.ExpandedDistribution(children[0], (n,))


def by(strategy: Strategy) -> Scheme:
    """`multinomial`, with a strategy for the ancestors."""
    return lambda weights: draw(dist.CategoricalProbs(weights).expand([len(weights)]), strategy)


def expecting(level: jax.Array) -> Scheme:
    """`multinomial`, with the score function for the ancestors, less the expected level."""
    return lambda weights: draw(
        _Expecting(dist.CategoricalProbs(weights), len(weights), level), Foreseen()
    )


def drawn_by(strategy: Strategy, f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, a random program, with this strategy for all of its choices, which lose their names."""

    def again(*args: Any) -> Any:
        staged, arguments = program_of(f, args, {})
        return staged.rebuild(walk(staged.program, arguments.leaves, _Again(strategy), {})[0])

    return again


@dataclass(frozen=True)
class _Again(Rule):
    """Make the draws of a program again, each with this strategy."""

    strategy: Strategy
    handles = frozenset({DRAW})

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        assert isinstance(step, Draw)
        spec = step.spec
        value = draw_p.bind(
            *args,
            tree=spec.tree,
            shape=spec.shape,
            dtype=spec.dtype,
            kind=spec.kind,
            support=spec.support,
            levels=spec.levels,
            source=step.source,
            strategy=self.strategy,
        )
        return [value], {}, {}


def apart(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, a random program, as a number: `expectation` takes no derivative of it or its law."""
    still = drawn_by(Fixed(), f)
    return lambda *args: jax.lax.stop_gradient(still(*jax.lax.stop_gradient(args)))
