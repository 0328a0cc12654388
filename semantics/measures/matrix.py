"""Markov kernels on finitely many states, as matrices in exact or float64 arithmetic.

K(x, y) is the weight of going from x to y, so measures are row vectors. As in `measure`,
the entries are all `Fraction` or all `float`, and a float in either the kernel or the
measure makes the result float. Exact matrices are numpy arrays of objects, so each
operation is written once for both. A step is possible iff its entry is > 0: no tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from .measure import Measure, MeasureError, Weight, ZeroMass, dirac, number, total

# A row may be the result of a whole float program: allow a million roundings of 2^-53.
ROW_SUM_TOLERANCE = 1e6 * 2.0**-53


class InvalidKernel(MeasureError):
    """The states, rows or weights do not make a kernel, or two kernels do not fit."""


class NotUnique(MeasureError):
    """A chain has several stationary probability measures."""


def _array(rows: Iterable[Iterable[Any]]) -> np.ndarray:
    """float64, or fractions as objects; one float makes all of them floats."""
    if isinstance(rows, np.ndarray) and rows.dtype.kind == "f":
        return rows.astype(np.float64)
    entries = [[number(entry) for entry in row] for row in rows]
    exact = all(isinstance(entry, Fraction) for row in entries for entry in row)
    if len({len(row) for row in entries}) > 1:
        raise InvalidKernel("the rows have different lengths.", given=[len(r) for r in entries])
    return np.array(entries, dtype=object if exact else np.float64)


def _same(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    exact = all(array.dtype == object for array in arrays)
    return arrays if exact else tuple(array.astype(np.float64) for array in arrays)


def _is_one(mass: Weight) -> bool:
    return abs(mass - 1) <= (0 if isinstance(mass, Fraction) else ROW_SUM_TOLERANCE)


@dataclass(frozen=True, eq=False)
class Kernel:
    """K(x, ·), a measure on `states` for each state x; row i of `rows` is that of state i.

    Args:
      states: n different hashable values, n >= 1.
      rows: n x n numbers >= 0, nested sequences or an array.
      markov: whether each row is stated to be a probability measure (float rows: up to
        1e-10, see `ROW_SUM_TOLERANCE`). False admits any finite rows, substochastic too.

    Called with a state it returns that row as a measure, so it can be given to `bind`.
    Methods that take a measure refuse one with weight outside `states`, and as `on` the
    zero measure (`ZeroMass`).

    Raises:
      InvalidKernel: states repeat, the shape is wrong, an entry is negative or infinite,
        or a row of a Markov kernel does not add up to one.
      InvalidMeasure: an entry is no real number.

    >>> from fractions import Fraction
    >>> from semantics.measures.matrix import Kernel
    >>> Kernel("ab", [[Fraction(1, 3), Fraction(2, 3)], [1, 0]])("a")
    Measure({'a': 1/3, 'b': 2/3})
    """

    states: tuple[Hashable, ...]
    rows: np.ndarray
    markov: bool = True

    def __init__(
        self, states: Iterable[Hashable], rows: Iterable[Iterable[Any]], *, markov: bool = True
    ):
        states = tuple(states)
        try:
            repeated = len(set(states)) < len(states)
        except TypeError:
            raise InvalidKernel("a state is not hashable.", given=states) from None
        if repeated or not states:
            raise InvalidKernel("a kernel needs states, each listed once.", given=states)
        array = _array(rows)
        n = len(states)
        if array.shape != (n, n):
            raise InvalidKernel("the matrix is not n x n.", given=array.shape, expected=(n, n))
        for state, row in zip(states, array, strict=True):
            if not all(0 <= entry < math.inf for entry in row):
                what = f"the row of {state!r} has an entry that is not finite and nonnegative."
                raise InvalidKernel(what, value=state, given=row.tolist())
            if markov and not _is_one(total(row)):
                what, fix = f"the row of {state!r} does not add up to one.", "or pass markov=False"
                raise InvalidKernel(what, value=state, given=total(row), expected=1, fix=fix)
        array.flags.writeable = False
        object.__setattr__(self, "states", states)
        object.__setattr__(self, "rows", array)
        object.__setattr__(self, "markov", markov)

    @staticmethod
    def of(
        states: Iterable[Hashable],
        kernel: Callable[[Any], Measure[Any]],
        *,
        markov: bool = True,
    ) -> Kernel:
        """The matrix of a function from states to measures on the states.

        Raises:
          InvalidKernel: as the constructor, or a step leaves the states.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import uniform
        >>> walk = Kernel.of(range(3), lambda x: uniform([max(x - 1, 0), min(x + 1, 2)]))
        >>> walk(0)
        Measure({0: 1/2, 1: 1/2})
        """
        states = tuple(states)
        rows = []
        for state in states:
            law = kernel(state)
            for value in law.support:
                if value not in states:
                    what = f"a step from {state!r} leaves the states, to {value!r}."
                    raise InvalidKernel(what, value=value, fix="list that state too")
            rows.append([law[value] for value in states])
        return Kernel(states, rows, markov=markov)

    @staticmethod
    def identity(states: Iterable[Hashable]) -> Kernel:
        """The kernel that stays put, the unit of `then`.

        >>> from semantics.measures.matrix import Kernel
        >>> Kernel.identity("ab")("a")
        Measure({'a': 1})
        """
        return Kernel.of(states, dirac)

    @staticmethod
    def mixture(kernels: Sequence[Kernel], weights: Sequence[Any]) -> Kernel:
        """Σ_i w_i K_i: one of the kernels, chosen with probabilities that ignore the state.

        Raises:
          InvalidKernel: the weights are not one probability for each kernel that add up to
            one, or the kernels have different states.

        >>> from fractions import Fraction
        >>> from semantics.measures.matrix import Kernel
        >>> stay, swap = Kernel.identity("ab"), Kernel("ab", [[0, 1], [1, 0]])
        >>> Kernel.mixture([stay, swap], [Fraction(1, 4), Fraction(3, 4)])("a")
        Measure({'a': 1/4, 'b': 3/4})
        """
        chosen = _array([weights])[0]
        fits = len(kernels) == len(chosen) and (chosen >= 0).all()
        if not fits or not _is_one(total(chosen)):
            what = "the weights of a mixture are not probabilities, one for each kernel."
            raise InvalidKernel(what, given=list(weights), expected=f"{len(kernels)} numbers")
        kernels[0]._must_match(*kernels)
        chosen, *matrices = _same(chosen, *(each.rows for each in kernels))
        rows = np.tensordot(chosen, np.stack(matrices), 1)
        return Kernel(kernels[0].states, rows, markov=all(each.markov for each in kernels))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Kernel):
            return NotImplemented
        return self.states == other.states and np.array_equal(self.rows, other.rows)

    def __hash__(self) -> int:
        return hash((self.states, tuple(map(tuple, self.rows.tolist()))))

    def __call__(self, state: Hashable) -> Measure[Any]:
        """K(state, ·)."""
        return Measure(dict(zip(self.states, self.rows[self._index(state)], strict=True)))

    @property
    def exact(self) -> bool:
        """Whether all entries are fractions."""
        return self.rows.dtype == object

    def _index(self, state: Hashable) -> int:
        if state not in self.states:
            raise InvalidKernel(f"{state!r} is not a state.", value=state, given=self.states)
        return self.states.index(state)

    def _vector(self, pi: Measure[Any]) -> np.ndarray:
        for state in pi.support:
            self._index(state)
        return _array([[pi[state] for state in self.states]])[0]

    def _must_match(self, *others: Kernel) -> None:
        for each in others:
            if self.states != each.states:
                what = "two kernels have different states, or in a different order."
                raise InvalidKernel(what, given=each.states, expected=self.states)

    def then(self, other: Kernel) -> Kernel:
        """(K L)(x, z) = Σ_y K(x, y) L(y, z): the composition, this kernel first.

        Raises:
          InvalidKernel: the kernels have different states.

        >>> from semantics.measures.matrix import Kernel
        >>> turn = Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        >>> turn.then(turn)("a")
        Measure({'c': 1})
        """
        self._must_match(other)
        first, second = _same(self.rows, other.rows)
        return Kernel(self.states, first @ second, markov=self.markov and other.markov)

    def _flow(self, pi: Measure[Any]) -> np.ndarray:
        vector, rows = _same(self._vector(pi), self.rows)
        return vector[:, None] * rows

    def joint(self, pi: Measure[Any]) -> Measure[tuple[Any, Any]]:
        """(π ⊗ K)(x, y) = π(x) K(x, y), on pairs: the flow of π along K.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import uniform
        >>> Kernel("ab", [[0, 1], [1, 0]]).joint(uniform("ab"))
        Measure({('a', 'b'): 1/2, ('b', 'a'): 1/2})
        """
        pairs = ((x, y) for x in self.states for y in self.states)
        return Measure(dict(zip(pairs, self._flow(pi).flat, strict=True)))

    def push(self, pi: Measure[Any]) -> Measure[Any]:
        """(π K)(y) = Σ_x π(x) K(x, y): the law after one step from π.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import dirac
        >>> Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]]).push(dirac("c"))
        Measure({'a': 1})
        """
        return Measure(dict(zip(self.states, self._flow(pi).sum(axis=0), strict=True)))

    def reverse(self, pi: Measure[Any]) -> Kernel:
        """K*(y, x) = π(x) K(x, y) / (π K)(y): where the chain was before, started at π.

        The joint law of (x, y) is the same read from either end. If π is invariant, this
        is the usual time reversal, π(x) K(x, y) / π(y). Where (π K)(y) = 0 any row
        would do; the convention here is to stay at y. Markov even if K is not.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import uniform
        >>> turn = Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        >>> turn.reverse(uniform("abc"))("a")
        Measure({'c': 1})
        """
        flow = self._flow(pi)
        after = flow.sum(axis=0)
        stay = Kernel.identity(self.states).rows
        rows = [flow[:, j] / a if a > 0 else stay[j] for j, a in enumerate(after)]
        return Kernel(self.states, rows)

    def invariance_error(self, pi: Measure[Any]) -> Weight:
        """sup_A |(π K)(A) - π(A)|, in total variation: zero iff π is invariant.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import Measure
        >>> turn = Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        >>> turn.invariance_error(Measure({"a": 1, "b": 1, "c": 3}))
        Fraction(2, 1)
        """
        return self.push(pi).total_variation(pi)

    def is_invariant(self, pi: Measure[Any], tolerance: Weight = 0) -> bool:
        """Whether π K = π, up to `tolerance` in total variation (floats need one).

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import uniform
        >>> Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]]).is_invariant(uniform("abc"))
        True
        """
        return self.invariance_error(pi) <= tolerance

    def reversibility_error(self, pi: Measure[Any]) -> Weight:
        """max over x, y of |π(x) K(x, y) - π(y) K(y, x)|: zero iff detailed balance holds.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import uniform
        >>> turn = Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        >>> turn.reversibility_error(uniform("abc"))  # invariant, but not reversible
        Fraction(1, 3)
        """
        flow = self._flow(pi)
        return number(abs(flow - flow.T).max())

    def is_reversible(self, pi: Measure[Any], tolerance: Weight = 0) -> bool:
        """Whether π(x) K(x, y) = π(y) K(y, x) for all x, y, up to `tolerance`.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import uniform
        >>> Kernel("ab", [[0, 1], [1, 0]]).is_reversible(uniform("ab"))
        True
        """
        return self.reversibility_error(pi) <= tolerance

    @cached_property
    def _reach(self) -> np.ndarray:
        """reach[i, j]: whether j can be reached from i in one step or more (Warshall)."""
        reach = (self.rows > 0).astype(bool)
        for k in range(len(reach)):
            reach |= np.outer(reach[:, k], reach[k])
        return reach

    def _chosen(self, on: Measure[Any] | None) -> list[int]:
        if on is None:
            return list(range(len(self.states)))
        if not on.support:
            raise ZeroMass("the zero measure names no states.")
        return sorted(self._index(state) for state in on.support)

    def is_irreducible(self, on: Measure[Any] | None = None) -> bool:
        """Whether each state is reached from each, in one step or more.

        `on` limits both ends to the support of a measure; the way may go through any state.

        >>> from semantics.measures.matrix import Kernel
        >>> from semantics.measures.measure import uniform
        >>> trap = Kernel("abc", [[0, 1, 0], [1, 0, 0], [1, 0, 0]])
        >>> trap.is_irreducible(), trap.is_irreducible(uniform("ab"))
        (False, True)
        """
        chosen = self._chosen(on)
        return bool(self._reach[np.ix_(chosen, chosen)].all())

    def period(self, state: Hashable) -> int:
        """gcd of the numbers of steps in which the chain can return; zero if it cannot.

        >>> from semantics.measures.matrix import Kernel
        >>> Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]]).period("a")
        3
        """
        start, reach = self._index(state), self._reach
        members: list[int] = np.flatnonzero(reach[start] & reach[:, start]).tolist()
        # Over the edges u -> v of the class, the gcd of steps[u] + 1 - steps[v] (Denardo 1977).
        steps, fringe, period = {start: 0}, [start], 0
        for u in fringe:
            for v in members:
                if self.rows[u, v] > 0:
                    if v not in steps:
                        steps[v] = steps[u] + 1
                        fringe.append(v)
                    period = math.gcd(period, steps[u] + 1 - steps[v])
        return period

    def is_aperiodic(self, on: Measure[Any] | None = None) -> bool:
        """Whether each state (of the support of `on`, if given) has period one.

        >>> from semantics.measures.matrix import Kernel
        >>> Kernel("abc", [[0, 1, 0], [0, 0, 1], [1, 0, 0]]).is_aperiodic()
        False
        """
        return all(self.period(self.states[i]) == 1 for i in self._chosen(on))

    def stationary(self) -> Measure[Any]:
        """The one probability measure π with π K = π.

        By elimination without subtractions (Grassmann, Taksar and Heyman 1985): exact on
        fractions, and on floats each weight is right to a few roundings, small ones too.

        Raises:
          InvalidKernel: the kernel is not Markov.
          NotUnique: the chain has several closed classes of states (one of each is named).

        >>> from fractions import Fraction
        >>> from semantics.measures.matrix import Kernel
        >>> half = Fraction(1, 2)
        >>> Kernel("abc", [[0, 1, 0], [half, 0, half], [1, 0, 0]]).stationary()
        Measure({'a': 2/5, 'b': 2/5, 'c': 1/5})
        """
        if not self.markov:
            raise InvalidKernel("only a Markov kernel has a stationary probability measure.")
        reach = self._reach
        # A state is in a closed class iff it can come back from wherever it can go.
        recurrent = [i for i in range(len(reach)) if reach[reach[i], i].all()]
        chosen = np.flatnonzero(reach[recurrent[0]])
        others = [self.states[i] for i in recurrent if i not in chosen]
        if others:
            first, fix = self.states[chosen[0]], "take the states of one class only"
            what = f"{first!r} and {others[0]!r} lie in different closed classes of the chain."
            raise NotUnique(what, value=others[0], fix=fix)
        a = self.rows[np.ix_(chosen, chosen)].copy()
        for k in range(len(a) - 1, 0, -1):
            a[:k, k] /= a[k, :k].sum()
            a[:k, :k] += np.outer(a[:k, k], a[k, :k])
        weights = np.ones(len(a), dtype=a.dtype)
        for k in range(1, len(a)):
            weights[k] = weights[:k] @ a[:k, k]
        found = zip((self.states[i] for i in chosen), weights, strict=True)
        return Measure(dict(found)).normalized()
