"""Message passing for a functional tensor, and what can be wrong with it.

What is right are the conditional laws of a mean-field family, by dense matrices in which
components, core, main effects and the constant are all terms of one sum (`tensors_by_hand`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tensors_by_hand import Dense, at_new

from inference import tensors
from inference.gaussian import Matern12
from inference.tensors.learning import started
from ppl import Target
from semantics import Verdict

from .registry import Entry, Kind

RNG = np.random.default_rng(11)
COLUMNS = {"a": RNG.uniform(0, 2, 12).round(1), "b": RNG.uniform(0, 3, 12).round(1)}
ROWS = tensors.entries(COLUMNS)
Y = np.sin(2 * COLUMNS["a"]) * COLUMNS["b"] + 0.1 * RNG.normal(size=12)
NEW = {"a": np.array([0.333, 4.0]), "b": np.array([1.777, -2.0])}
SCALES, RANKS, SWEEPS, DAMPING = {"a": 0.8, "b": 1.5}, (2, 1), 4, 0.5
EXACT = 1e-8
"""Some sweeps of inverses of matrices of 30 rows and condition 1e4, on numbers of size 1 to 100."""

MODEL = tensors.tucker(RANKS, {k: Matern12(v) for k, v in SCALES.items()}, effects=True)
TARGET = Target(MODEL, (ROWS,), {"y": jnp.asarray(Y)})
KEY = jax.random.key(2)


@functools.cache
def library() -> tensors.Factorization:
    return tensors.message_passing(
        KEY, TARGET, learn=False, sweeps=SWEEPS, starts=1, damping=DAMPING, tolerance=0.0
    )


def covariance(name: str) -> Callable:
    return lambda s, t: np.exp(-np.abs(s - t) / SCALES[name])


def dense(wrong: str = "") -> Dense:
    """All sweeps, from where the library starts."""
    beliefs = started(jax.random.fold_in(KEY, 0), MODEL.fn, ROWS, jnp.asarray(Y)).beliefs
    at = [np.asarray(c) for c in ROWS.coordinates]
    widths = [rank + 1 for rank in RANKS]
    covariances = [
        [covariance(name)(c[:, None], c)] * p for name, c, p in zip(SCALES, at, widths, strict=True)
    ]
    index, y = np.asarray(ROWS.index), Y
    if wrong == "test index":  # an entry that is held out, at the mean that it is predicted to have
        index, y = np.concatenate([index, index[:1]]), np.append(y, 0.0)
    found = Dense(
        "tucker", RANKS, True, covariances, index, y,
        [np.array(m) for m in beliefs.means], [np.array(s) for s in beliefs.seconds],
        np.array(beliefs.core[0]), np.array(beliefs.core[1]),
        np.atleast_1d(beliefs.precision.shape), np.atleast_1d(beliefs.precision.rate), wrong=wrong,
        damping=DAMPING,
    )  # fmt: skip
    for _ in range(SWEEPS):
        found.sweep()
    return found


def bounds_by_hand(wrong: str = "") -> np.ndarray:
    return np.array(dense(wrong).bounds)


def predictor_by_hand(wrong: str = "") -> np.ndarray:
    """Mean and variance of the predictor at new places: between others, and beyond them."""
    made, moments = dense(wrong), []
    for k, name in enumerate(SCALES):
        old, p = np.asarray(ROWS.coordinates[k]), RANKS[k] + 1
        mean, second = at_new(made.laws[k], old, NEW[name], covariance(name), p)
        if wrong == "neighbours":
            mean = np.stack([np.interp(NEW[name], old, m) for m in made.means[k].T], 1)
        if wrong == "backward":  # a decay that grows
            nearest = np.abs(NEW[name][:, None] - old).argmin(1)
            gap = np.abs(NEW[name] - old[nearest])
            mean = np.exp(gap / SCALES[name])[:, None] * made.means[k][nearest]
        moments.append((mean, second))
    made.means, made.seconds = ([m[i] for m in moments] for i in (0, 1))
    made.index, made.y = np.tile(np.arange(2)[:, None], 2), np.zeros(2)
    mean, second = made._products()
    both = np.outer(made.weights, made.weights) + made.spread
    found = mean @ made.weights
    return np.stack([found, np.einsum("nst,st->n", second, both) - found**2])


def check_bounds(found: Callable[[], Any]) -> Verdict:
    exact = bounds_by_hand()
    error = float(np.max(np.abs(found() - exact) / (1 + np.abs(exact))))
    return Verdict("evidence bounds", error <= EXACT, "identity", error, EXACT, SWEEPS)


def check_predictor(found: Callable[[], Any]) -> Verdict:
    error = float(np.max(np.abs(found() - predictor_by_hand())))
    return Verdict("predictor", error <= EXACT, "identity", error, EXACT, 2)


def _bounds(kind: Kind, name: str, says: str, found: Callable) -> Entry:
    check = partial(check_bounds, found)
    return Entry("functional tensors", name, says, check, kind, "dense matrices")


def _predictor(kind: Kind, name: str, says: str, found: Callable) -> Entry:
    check = partial(check_predictor, found)
    return Entry("functional tensors, predictions", name, says, check, kind, "dense matrices")


def _library_bounds() -> np.ndarray:
    return library().bounds


def _library_predictor() -> np.ndarray:
    found = library().predict(tensors.entries(NEW))
    return np.stack([found.predictor, found.uncertainty**2])


ENTRIES = (
    _bounds("correct", "message_passing", "by `message_passing`", _library_bounds),
    _bounds("mutant", "prior mean", "functions with a prior mean that is not zero",
            partial(bounds_by_hand, "prior mean")),
    _bounds("mutant", "ridge", "one more precision at each coordinate",
            partial(bounds_by_hand, "ridge")),
    _bounds("mutant", "core", "the square of the core's mean, for its mean square",
            partial(bounds_by_hand, "core")),
    _bounds("mutant", "tau", "the precision's shape grows by N, for N / 2",
            partial(bounds_by_hand, "tau")),
    _bounds("mutant", "damping", "damping of one natural parameter, not of both",
            partial(bounds_by_hand, "damping")),
    _predictor("correct", "predict", "by `predict`", _library_predictor),
    _predictor("mutant", "neighbours", "between coordinates, a line from neighbour to neighbour",
               partial(predictor_by_hand, "neighbours")),
    _predictor("mutant", "backward", "beyond coordinates, the transition of the way back",
               partial(predictor_by_hand, "backward")),
    _predictor("mutant", "test index", "an entry that is held out leaves a site",
               partial(predictor_by_hand, "test index")),
)  # fmt: skip
