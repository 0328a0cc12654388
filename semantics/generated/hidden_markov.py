"""Hidden Markov programs, and their forward and backward algorithms in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .finite import Nested, Program, Shape, thawed
from .printing import Block, Loop, Site


def hidden_markov(states: int, symbols: int, length: int) -> Shape:
    """A chain `x` from state 0 with a table for each step, seen through `y`.

    >>> from semantics.generated.hidden_markov import hidden_markov
    >>> hidden_markov(3, 2, 3).observed
    (('y',),)
    """
    body = Block((Site("x", states, ("z", "i")), Site("y", symbols, ("x",))), "x")
    return Shape(Block((Loop("z", "scan", length, body),), "z"), (("y",),))


@dataclass(frozen=True)
class StateSpace:
    """A hidden Markov program with positive tables, and its forward algorithm in numpy.

    Attributes:
      program: of a shape of `hidden_markov`, with all of `y` observed.
    """

    program: Program

    @property
    def transition(self) -> np.ndarray:
        """Probabilities [t, from, to]; the state before the first step is 0."""
        return np.moveaxis(_normalised(dict(self.program.counts)["x"]), 1, 0)

    @property
    def likelihood(self) -> np.ndarray:
        """The probability [t, state] of the symbol observed at step t."""
        emission = _normalised(dict(self.program.counts)["y"])
        return emission[:, thawed(self.program.observations)["y"]].T

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.likelihood)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest likelihood of a step: the bounds of its weights."""
        return float(self.likelihood.min()), float(self.likelihood.max())

    @property
    def evidence(self) -> float:
        """p(y), by the forward algorithm (Rabiner 1989, equations 19-21)."""
        return float(self._forward()[-1].sum())

    @property
    def marginals(self) -> np.ndarray:
        """p(x_t | y) as [t, state], by forward and backward (Rabiner 1989, equation 27)."""
        forward, transition, likelihood = self._forward(), self.transition, self.likelihood
        backward = np.ones_like(forward)
        for t in reversed(range(len(forward) - 1)):
            backward[t] = transition[t + 1] @ (likelihood[t + 1] * backward[t + 1])
        return forward * backward / self.evidence

    def _forward(self) -> np.ndarray:
        """p(x_t, y_1..t) as [t, state]."""
        rows = [self.transition[0, 0] * self.likelihood[0]]
        for transition, likelihood in zip(self.transition[1:], self.likelihood[1:], strict=True):
            rows.append(rows[-1] @ transition * likelihood)
        return np.array(rows)


def _normalised(table: Nested) -> np.ndarray:
    counts = np.asarray(table, float)
    return counts / counts.sum(-1, keepdims=True)
