"""The programs of `gaussian_programs` as arithmetic, and what is wanted of them by dense matrices.

A program is a function of one vector e of standard normals, one for each number that is summed
out, with loops and copies written out and the branch that is taken. All means are affine in e, and
their matrices are its values at zero and at unit vectors. All is analytic in the numbers of the
program, and plain NumPy: so a derivative along a direction is the imaginary part of what comes of
a step of 1e-30 i, right to rounding (Squire and Trapp, SIAM Review 1998).
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from gaussian_parts import COPIES, MATRICES, ROUNDS, SHAPES, Program
from gaussian_programs import MOST, Case
from scipy.special import gammaln

STEP = 1e-30


class Row(NamedTuple):
    """A kept choice: what is seen less its mean, and a root of its covariance, where present."""

    error: np.ndarray
    root: np.ndarray


class Unrolled:
    """How parts are carried out, given the standard normals and what is kept.

    Attributes:
      used: how many standard normals are used so far.
      summed: values of what is summed out, by address and place in loops and copies.
      made: which kept choices are made.
      rows: those of them that are Gaussian.
      prior: the log density of what is summed out.
      others: that of what is kept and not Gaussian.
    """

    numpy = np

    def __init__(self, e: np.ndarray, kept: dict, masks: dict):
        self.e, self.kept, self.masks, self.used = e, kept, masks, 0
        self.summed: dict = {}
        self.made: set = set()
        self.rows: list[Row] = []
        self.prior: Any = 0.0
        self.others: Any = 0.0
        self.under: tuple = ()
        self.place: tuple = ()

    def normal(self, name: str, how: str, mean: Any, scale: Any) -> Any:
        path = (*self.under, name)
        mean = np.broadcast_to(mean, (2,)) if how == "copies" else mean
        root = matrix(how, scale, mean.shape)
        if name.startswith("z"):
            own = self.e[self.used : self.used + len(root)]
            self.used += len(root)
            self.prior += -0.5 * (own @ own + len(root) * np.log(2 * np.pi)) - log_det(root)
            self.summed[path, self.place] = mean + (root @ own).reshape(mean.shape)
            return self.summed[path, self.place]
        value = self.kept[path][self.place]
        self.made.add((path, self.place))
        there = np.ones(mean.shape, bool)
        if path in self.masks:
            mask = self.masks[path][self.place]
            there &= ~mask.reshape(mask.shape + (1,) * (there.ndim - mask.ndim))
        there = np.ravel(there)
        self.rows.append(Row(np.ravel(value - mean)[there], root[there]))
        return value

    def other(self, name: str, how: str, mean: Any) -> Any:
        path = (*self.under, name)
        value = self.kept[path][self.place]
        self.made.add((path, self.place))
        volume = np.exp(mean) + gammaln(value + 1.0) if how else np.log1p(np.exp(mean))
        self.others += value * mean - volume
        return value

    def call(self, name: str, f: Any) -> Any:
        before, self.under = self.under, (*self.under, name)
        found = f()
        self.under = before
        return found

    def wrap(self, how: str, f: Any) -> Any:
        return f()

    def branch(self, test: Any, yes: Any, no: Any) -> Any:
        return yes() if test else no()

    def copies(self, f: Any, rows: Any) -> Any:
        return np.stack([self.at(i, f, row_of(rows, i)) for i in range(COPIES)])

    def loop(self, step: Any, state: Any, rows: Any, reverse: bool) -> Any:
        for i in reversed(range(ROUNDS)) if reverse else range(ROUNDS):
            state = self.at(i, step, state, row_of(rows, i))
        return state

    def at(self, i: int, f: Any, *args: Any) -> Any:
        before, self.place = self.place, (*self.place, i)
        found = f(*args)
        self.place = before
        return found

    def put(self, values: Any, i: Any, value: Any) -> Any:
        found = np.array(values)
        found[i] = value
        return found


def row_of(rows: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], rows)


def matrix(how: str, scale: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A square root of the covariance of a law's numbers in a row."""
    if how not in MATRICES:
        return np.diag(np.ravel(np.broadcast_to(scale, shape)))
    root = np.linalg.inv(scale).T if how == "precision" else scale
    return np.kron(np.eye(2), root) if len(SHAPES[how]) == 2 else root


def log_det(x: np.ndarray) -> Any:
    """log |det x|, of a matrix that may be complex; -inf for a singular one."""
    sign, log = np.linalg.slogdet(x)
    return log + (np.log(sign * np.sign(sign.real)) if np.isfinite(log) else 0.0)


class Dense(NamedTuple):
    """What is summed out, given what is kept.

    Attributes:
      density: the log density of what is kept.
      mean, covariance: of all numbers that are summed out and made, in a row.
      score: the log density of everything, at the mean; infinite if a variance is zero.
      summed, made: places of what is summed out, and of the kept choices that are made.
    """

    density: Any
    mean: np.ndarray
    covariance: np.ndarray
    score: Any
    summed: list
    made: set


def dense(case: Case, theta: Any, numbers: dict, kept: dict, masks: dict) -> Dense:
    """By the law of e, standard normals, given y = c + H e + noise of covariance R."""

    def arithmetic(e: np.ndarray) -> Unrolled:
        run = Unrolled(e, kept, masks)
        Program(run, theta, numbers).block(case.parts, {})
        return run

    def both(run: Unrolled) -> tuple:
        z = [np.ravel(run.summed[at]) for at in sorted(run.summed)]
        return np.concatenate(z), np.concatenate([row.error for row in run.rows])

    first = arithmetic(np.zeros(MOST))
    at, error = both(first)
    each = [both(arithmetic(e)) for e in np.eye(MOST)[: first.used]]
    by = np.stack([z - at for z, _ in each], 1)
    h = np.stack([error - other for _, other in each], 1)
    noise = block_diagonal([row.root @ row.root.T for row in first.rows])
    weighed = np.linalg.solve(noise, h)
    precision = np.eye(first.used) + h.T @ weighed
    mean = np.linalg.solve(precision, weighed.T @ error)
    square = error @ np.linalg.solve(noise, error) - mean @ precision @ mean
    volume = len(error) * np.log(2 * np.pi) + log_det(noise)
    density = first.others - 0.5 * (square + volume + log_det(precision))
    left = error - h @ mean
    seen = -0.5 * (left @ np.linalg.solve(noise, left) + volume)
    score = first.others + seen + arithmetic(np.pad(mean, (0, MOST - first.used))).prior
    covariance = by @ np.linalg.inv(precision) @ by.T
    return Dense(density, at + by @ mean, covariance, score, sorted(first.summed), first.made)


def block_diagonal(blocks: list) -> np.ndarray:
    n = sum(map(len, blocks))
    found, at = np.zeros((n, n), np.result_type(float, *blocks)), 0
    for block in blocks:
        found[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return found


def slope(case: Case, direction: tuple, theta: Any, numbers: dict, real: dict, rest: dict,
          masks: dict) -> float:  # fmt: skip
    """The derivative of the log density along a direction of (theta, numbers, real)."""
    moved = jax.tree.map(lambda x, d: x + 1j * STEP * d, (theta, numbers, real), direction)
    theta, numbers, real = moved
    return dense(case, theta, numbers, {**real, **rest}, masks).density.imag / STEP
