"""What finite choices were, given the rest: by derivatives of the sum over them.

Each outcome's weight is multiplied by exp(tilt), at tilts of zero. The derivative of the log of
the sum over all outcomes is the probability of each outcome. If the derivative of each sum marks
one of its terms instead, drawn by their weights or the largest, those of the whole are marks of
one joint draw, or of the likeliest outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import GenerativeFunction, Trace, draw, quadrature
from ppl.effects import guard
from ppl.execute import Given
from ppl.program import Path

from .elimination import run
from .finite import Finite, outcomes_of
from .outcomes import Outcomes
from .tables import Reduce, drawn, largest, summed


@dataclass(frozen=True, eq=False)
class FiniteGiven:
    """A model whose other choices are given.

    Attributes:
      values: the other choices.
      inner: the model, if more is to be restored in it.
    """

    prepared: Any
    sums: Finite
    values: dict[Path, Given]
    inner: GenerativeFunction | None

    def drawn(self) -> Trace:
        """A joint draw."""
        marks = self._marks(drawn(_gumbel))
        # its law moves with what it is made from, but the draw does not: no derivative is zero
        source = self.prepared.sites[min(marks)].source if marks else ""
        given = [*self.prepared.operands, *(old.value for old in self.values.values())]
        floats = [x for x in given if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
        still = sum((0.0 * jnp.sum(jnp.tanh(guard(x, source))) for x in floats), 0.0)
        return self._trace({path: mark + still for path, mark in marks.items()})

    def likeliest(self) -> Trace:
        return self._trace(self._marks(largest))

    def laws(self) -> dict[Path, Any]:
        return {path: self._law(path, mark) for path, mark in self._marks(summed).items()}

    def _shape(self, path: Path) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """The loops around a summed choice, its outcomes, and its elements side by side."""
        site = self.prepared.sites[path]
        around = tuple(size for _, size in site.axes)
        each, inner = self._outcomes(path), quadrature.elements(site.distribution) or ()
        if path in self.sums.together or math.prod(inner) == 1:
            return around, len(each) ** math.prod(inner), ()
        return around, len(each), inner

    def _outcomes(self, path: Path) -> np.ndarray:
        return np.asarray(outcomes_of(self.prepared.sites[path]))

    def _marks(self, reduce: Reduce) -> dict[Path, jax.Array]:
        """The derivative with respect to the tilts of each choice's outcomes."""
        sums = replace(self.sums, given=True, reduce=reduce)
        program, operands = self.prepared.staged.program, self.prepared.operands
        tilts = {}
        for path in sums.places:
            around, count, inner = self._shape(path)
            tilts[path] = jnp.zeros((*around, count, *inner))

        def mass(tilts: dict[Path, jax.Array]) -> jax.Array:
            _, law = run(program, operands, sums.nothing(), sums, {**self.values, **tilts})
            return sums.evidence(law)

        return jax.grad(mass)(tilts)

    def _trace(self, marks: dict[Path, jax.Array]) -> Trace:
        """The model's trace in which each summed choice has the outcome that is marked."""
        found = {path: Given(self._value(path, mark)) for path, mark in marks.items()}
        given = {path: Given(old.value) for path, old in self.values.items()}
        return self.prepared.at({**given, **found})[0]

    def _value(self, path: Path, mark: jax.Array) -> jax.Array:
        site = self.prepared.sites[path]
        around, _, inner = self._shape(path)
        each = jnp.asarray(self._outcomes(path), site.dtype)
        place, made = jnp.argmax(mark, len(around)), jnp.any(mark != 0, len(around))
        count = math.prod(site.spec.shape)
        if inner or count <= 1:
            return jnp.where(made, each[place], 0).reshape(site.shape)  # 0: a branch not taken
        digits = jnp.unravel_index(place, (len(each),) * count)
        found = each[jnp.stack(digits, -1)]
        return jnp.where(made[..., None], found, 0).reshape(site.shape)

    def _law(self, path: Path, mark: jax.Array) -> Any:
        """The law of each element of a choice, from the probabilities of its outcomes."""
        site = self.prepared.sites[path]
        around, _, inner = self._shape(path)
        each, count, front = self._outcomes(path), math.prod(site.spec.shape), len(around)
        if inner or count <= 1:
            probs = jnp.moveaxis(mark, front, -1)
        else:
            grid = mark.reshape(*around, *(len(each),) * count)
            axes = [tuple(front + j for j in range(count) if j != i) for i in range(count)]
            probs = jnp.stack([jnp.sum(grid, gone) for gone in axes], front)
        probs = probs.reshape(*site.shape, len(each))
        if site.kind.startswith("Bernoulli"):
            return dist.BernoulliProbs(probs[..., 1], validate_args=False)
        if np.array_equal(each, np.arange(len(each))):
            return dist.CategoricalProbs(probs, validate_args=False)
        return Outcomes(jnp.asarray(each, site.dtype), probs)


def _gumbel(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return draw(dist.Gumbel(jnp.zeros(shape, dtype), 1.0))
