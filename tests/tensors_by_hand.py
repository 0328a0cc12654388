"""Message passing for functional tensors by dense matrices, and what may be wrong with it.

A predictor is a sum of terms: a weight times one number of each mode's vector, whose last number
is the constant 1. So components, a core, main effects and the constant are all alike, and a
mode's law is that of one normal vector, with the covariances that the kernel's formula gives.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import digamma, gammaln

ONE = -1  # the place of the constant


def terms(form: str, ranks: tuple[int, ...], effects: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which numbers each term multiplies `(S, K)`, and the kind of its weight `(S,)`."""
    many = len(ranks)
    if form == "cp":
        found = [((r,) * many, "known") for r in range(ranks[0])]
    else:
        found = [(index, "core") for index in itertools.product(*map(range, ranks))]
    if effects:
        for k, rank in enumerate(ranks):
            found.append((tuple(rank if j == k else ONE for j in range(many)), "known"))
        found.append(((ONE,) * many, "level"))
    return np.array([index for index, _ in found]), np.array([kind for _, kind in found])


@dataclass
class Dense:
    """The state of message passing.

    Attributes:
      covariances: of each mode, a list of the prior covariances of its functions, `(n, n)`.
      index, y: the entries.
      means, seconds: of each mode, `(n, p)` and `(n, p, p)`.
      weights: means of the terms' weights; `spread` their covariance.
      shape, rate: of the precisions' laws, and of their prior in `prior`: one, or one for each
        coordinate of the mode `by`.
    """

    form: str
    ranks: tuple[int, ...]
    effects: bool
    covariances: list[list[np.ndarray]]
    index: np.ndarray
    y: np.ndarray
    means: list[np.ndarray]
    seconds: list[np.ndarray]
    core: np.ndarray | None
    core_second: np.ndarray | None
    shape: np.ndarray
    rate: np.ndarray
    prior: tuple[float, float] = (1.0, 0.01)
    level: float = 10.0
    by: int | None = None
    wrong: str = ""
    damping: float = 1.0
    divergences: dict[Any, float] = field(default_factory=dict)
    sites: dict[Any, tuple] = field(default_factory=dict)
    bounds: list[float] = field(default_factory=list)
    laws: dict[int, tuple] = field(default_factory=dict)

    def __post_init__(self):
        self.terms, self.kinds = terms(self.form, self.ranks, self.effects)
        self.weights = np.ones(len(self.terms))
        self.spread = np.zeros((len(self.terms), len(self.terms)))
        if self.core is not None and self.core_second is not None:
            core = self.kinds == "core"
            self.weights[core] = self.core
            self.spread[np.ix_(core, core)] = self.core_second - np.outer(self.core, self.core)
        self.weights[self.kinds == "level"] = 0.0

    def _which(self) -> np.ndarray:
        """Which of the precisions each entry has."""
        return np.zeros(len(self.y), int) if self.by is None else self.index[:, self.by]

    def _vectors(self) -> tuple[list, list]:
        """Means and second moments with the constant behind, at each entry."""
        firsts, seconds = [], []
        for k, (mean, second) in enumerate(zip(self.means, self.seconds, strict=True)):
            at = self.index[:, k]
            one = np.ones((len(at), 1))
            first = np.concatenate([mean[at], one], 1)
            whole = np.concatenate([second[at], mean[at][:, None]], 1)
            firsts.append(first)
            seconds.append(np.concatenate([whole, first[:, :, None]], 2))
        return firsts, seconds

    def _products(self, but: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and second moment of the product of each term, `(N, S)` and `(N, S, S)`."""
        firsts, seconds = self._vectors()
        mean, second = np.ones((len(self.y), 1)), np.ones((len(self.y), 1, 1))
        for k, index in enumerate(self.terms.T):
            if k != but:
                mean = mean * firsts[k][:, index]
                second = second * seconds[k][:, index[:, None], index]
        return mean, second

    def sweep(self) -> None:
        for k in range(len(self.ranks)):
            self._mode(k)
        for kind in ("core", "level"):
            if (self.kinds == kind).any():
                self._weights(kind)
        self._precision()

    def _mode(self, k: int) -> None:
        tau = (self.shape / self.rate)[self._which()]
        mean, second = self._products(but=k)
        both = np.outer(self.weights, self.weights) + self.spread
        if self.wrong == "core":
            both = np.outer(self.weights, self.weights)
        p = self.means[k].shape[1]
        at = np.zeros((len(self.terms), p + 1))
        at[np.arange(len(self.terms)), self.terms[:, k]] = 1  # ONE is the last
        first = (mean * self.weights) @ at
        square = np.einsum("sr,nst,st,tq->nrq", at, second, both, at)
        n = len(self.means[k])
        precision, linear = np.zeros((n, p, p)), np.zeros((n, p))
        for row, c in enumerate(self.index[:, k]):
            precision[c] += tau[row] * square[row, :p, :p]
            linear[c] += tau[row] * (self.y[row] * first[row, :p] - square[row, :p, p])
        old = self.sites.get(k, (np.zeros_like(precision), np.zeros_like(linear)))
        damping = self.damping
        precision = old[0] + (1.0 if self.wrong == "damping" else damping) * (precision - old[0])
        linear = old[1] + damping * (linear - old[1])
        self.sites[k] = precision, linear
        if self.wrong == "ridge":
            precision = precision + np.eye(p)
        prior = np.zeros((p * n, p * n))
        for r, covariance in enumerate(self.covariances[k]):
            prior[r * n : (r + 1) * n, r * n : (r + 1) * n] = covariance
        curve = np.zeros((p, n, p, n))
        curve[:, np.arange(n), :, np.arange(n)] = precision
        curve, pull = curve.reshape(p * n, p * n), linear.T.reshape(-1)
        start = 0.3 * np.sin(np.arange(p * n)) if self.wrong == "prior mean" else np.zeros(p * n)
        left = np.linalg.solve(np.eye(p * n) + prior @ curve, prior)
        law = start + left @ (pull - curve @ start), (left + left.T) / 2
        self.laws[k] = law
        self.divergences[k] = _divergence(*law, prior)
        means, covariance = law[0].reshape(p, n).T, law[1].reshape(p, n, p, n)
        self.means[k] = means
        inner = covariance[:, np.arange(n), :, np.arange(n)]
        self.seconds[k] = inner + means[:, :, None] * means[:, None, :]

    def _weights(self, kind: str) -> None:
        tau, here = (self.shape / self.rate)[self._which()], self.kinds == kind
        mean, second = self._products()
        rest = self.weights * ~here
        curve = np.einsum("n,nst->st", tau, second[:, here][:, :, here])
        pull = (tau * self.y) @ mean[:, here]
        pull = pull - np.einsum("n,nst,t->s", tau, second[:, here], rest)
        old = self.sites.get(kind, (np.zeros_like(curve), np.zeros_like(pull)))
        curve = old[0] + self.damping * (curve - old[0])
        pull = old[1] + self.damping * (pull - old[1])
        self.sites[kind] = curve, pull
        variance = 1.0 if kind == "core" else self.level**2
        prior = variance * np.eye(here.sum())
        covariance = np.linalg.inv(np.linalg.inv(prior) + curve)
        self.weights[here] = covariance @ pull
        self.spread[np.ix_(here, here)] = covariance
        self.divergences[kind] = _divergence(self.weights[here], covariance, prior)

    def _precision(self) -> None:
        mean, second = self._products()
        both = np.outer(self.weights, self.weights) + self.spread
        squares = self.y**2 - 2 * self.y * (mean @ self.weights)
        squares = squares + np.einsum("nst,st->n", second, both)
        which, size = self._which(), len(self.shape)
        n = np.bincount(which, minlength=size)
        squares = np.bincount(which, squares, size)
        told = n / (1 if self.wrong == "tau" else 2), squares / 2
        old = self.sites.get("noise", (0.0, 0.0))
        told = tuple(a + self.damping * (b - a) for a, b in zip(old, told, strict=True))
        self.sites["noise"] = told
        a, b = self.prior
        self.shape, self.rate = a + told[0], b + told[1]
        log = digamma(self.shape) - np.log(self.rate)
        likely = n / 2 * (log - math.log(2 * math.pi)) - self.shape / self.rate * squares / 2
        apart = a * (np.log(self.rate) - math.log(b)) + gammaln(a) - gammaln(self.shape)
        apart += (self.shape - a) * digamma(self.shape) + (b - self.rate) * self.shape / self.rate
        self.bounds.append((likely - apart).sum() - sum(self.divergences.values()))


def _divergence(mean: np.ndarray, covariance: np.ndarray, prior: np.ndarray) -> float:
    inverse = np.linalg.inv(prior)
    logs = np.linalg.slogdet(prior)[1] - np.linalg.slogdet(covariance)[1]
    return (np.trace(inverse @ covariance) + mean @ inverse @ mean - len(mean) + logs) / 2


def at_new(law: tuple, old: np.ndarray, new: np.ndarray, covariance: Any, p: int) -> tuple:
    """Means and second moments of a mode's functions at new coordinates."""
    n = len(old)
    inner = covariance(old[:, None], old)
    weights = np.linalg.solve(inner, covariance(old[:, None], new)).T  # (m, n)
    left = covariance(new, new) - np.einsum("mn,nm->m", weights, covariance(old[:, None], new))
    means = np.einsum("mn,rn->mr", weights, law[0].reshape(p, n))
    found = np.einsum("mn,rnsl,ml->mrs", weights, law[1].reshape(p, n, p, n), weights)
    found = found + left[:, None, None] * np.eye(p)
    return means, found + means[:, :, None] * means[:, None, :]
