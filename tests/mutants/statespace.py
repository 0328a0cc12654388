"""A Gaussian process seen by two instruments, filtered and smoothed, and what can be wrong with it.

The filter is that of Kalman (1960), for a state that moves over each gap between times; the law of
what is seen is also that of one normal vector, whose covariances are the kernel's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from inference import restore, sum_out
from inference.gaussian import Kernel, Matern32, Wiener, gp
from inference.gaussian import filter as folds
from inference.gaussian.evidence import evidence
from inference.gaussian.series import beliefs, chain_of_series
from ppl import Target, Trace, draw, gen, sample
from semantics import Verdict, check_kernel_sampled
from semantics.generated.closed_forms import linear_gaussian_posterior

from .registry import Entry, Kind

TIMES = np.array([0.2, 0.5, 0.5, 1.4, 1.7])
VALUES = np.array([[0.9, 0.4], [-0.3, 0.1], [0.2, 0.5], [1.1, 0.0], [0.6, 0.8]])
THERE = np.array([[True, True], [True, True], [True, False], [True, True], [False, True]])
NOISE = np.array([[0.3, 0.1], [0.1, 0.2]])  # of both instruments, together
BY = np.array([1.0, -0.5])  # what each sees, of the value
STATIONARY, WALK = Matern32(0.8, 1.2), Wiener(1.1, level=0.7)
EXACT = 1e-10
"""Some hundred operations on numbers of size 1 to 10, whose covariances have conditions of 1e3."""


def steps(kernel: Kernel, wrong: str = "") -> dict[str, np.ndarray]:
    """The start, and the transitions and noises that lead into each time; none into the first."""
    gaps = np.diff(TIMES, prepend=TIMES[0])
    start, noisy = np.asarray(kernel.start(TIMES[0])), gaps
    if wrong == "not stationary":
        start = np.zeros_like(start)
    if wrong == "after one step":
        gaps = noisy = np.append(gaps[1], gaps[1:])
    if wrong == "gap before":
        noisy = np.roll(gaps, 1)
    if wrong == "next gap":
        gaps = noisy = np.append(0.0, np.roll(gaps[1:], -1))
    if wrong == "zero gap":
        noisy = np.append(0.0, np.maximum(gaps[1:], 0.01))
    a = np.stack([kernel.transition(gap) for gap in gaps])
    if wrong == "transition transposed":
        a = np.swapaxes(a, -1, -2)
    q = np.stack([kernel.noise(gap) for gap in noisy])
    return {"start": start, "transition": a, "noise": q}


def sees(kernel: Kernel) -> np.ndarray:
    return BY[:, None] * np.asarray(kernel.observation())


# -- by hand --------------------------------------------------------------------------------------


def filtered(kernel: Kernel, wrong: str = "") -> tuple[float, list, list]:
    """log p(y); the law of the state at each time before its data, and after them."""
    made, h = steps(kernel, wrong), sees(kernel)
    mean, covariance = np.zeros(len(made["start"])), made["start"]
    before, after, total = [], [], 0.0
    for t, (a, q) in enumerate(zip(made["transition"], made["noise"], strict=True)):
        last, mean = mean, a @ mean
        covariance = a @ covariance @ a.T + q
        before.append((mean, covariance))
        there = THERE[t] | (wrong == "zero datum")
        if wrong == "repeats dropped" and t and TIMES[t] == TIMES[t - 1]:
            there = np.zeros(2, bool)
        rows = h[there]
        spread = rows @ covariance @ rows.T + NOISE[there][:, there]
        if wrong == "jitter":
            spread = spread + 1e-6 * np.eye(len(spread))
        seen = np.where(THERE[t], VALUES[t], 0.0)[there]
        error = seen - rows @ (last if wrong == "filtered mean" else mean)
        log_det = np.linalg.slogdet(spread)[1] * (0.5 if wrong == "half a log det" else 1.0)
        size = 1 if wrong == "one block" else len(error)
        square = error @ np.linalg.solve(spread, error)
        total -= 0.5 * (square + log_det + size * np.log(2 * np.pi))
        gain = np.linalg.solve(spread, rows @ covariance).T
        mean, covariance = mean + gain @ error, covariance - gain @ rows @ covariance
        after.append((mean, covariance))
    return total, before, after


def smoothed(wrong: str = "") -> np.ndarray:
    """Means and variances of the values, given all data (Rauch, Tung and Striebel 1965)."""
    _, before, after = filtered(STATIONARY)
    a, h = steps(STATIONARY)["transition"], np.asarray(STATIONARY.observation())
    found = [after[-1]]
    for t in range(len(TIMES) - 2, -1, -1):
        (mean, covariance), (ahead, spread) = after[t], before[t + 1]
        if wrong == "filtered covariance":
            spread = after[t + 1][1]
        gain = covariance @ a[t + 1].T @ np.linalg.pinv(spread)
        later = found[-1]
        mean = mean + gain @ (later[0] - ahead)
        found.append((mean, covariance + gain @ (later[1] - spread) @ gain.T))
    return np.array([(h @ m, h @ c @ h) for m, c in found[::-1]])


# -- the library ----------------------------------------------------------------------------------


def _chain() -> Any:
    made = steps(STATIONARY)
    start = jnp.zeros(2), made["start"], made["transition"], made["noise"]
    return chain_of_series(len(TIMES), *start, sees(STATIONARY), NOISE[None], present=THERE)


def _folded(along: str, wrong: str = "") -> float:
    """The evidence; lanes may be composed in the wrong order."""
    right = folds._composed
    backwards = lambda first, then: right(then, first)  # noqa: E731
    with mock.patch.object(folds, "_composed", backwards if wrong else right):
        return float(evidence(_chain(), VALUES, along))


def _believed() -> np.ndarray:
    found, h = beliefs(_chain(), VALUES), np.asarray(STATIONARY.observation())
    each = zip(found.mean[1:], found.covariance[1:], strict=True)
    return np.array([(h @ m, h @ c @ h) for m, c in each])


def _of_process() -> float:
    """In a model: values at the times without repeats, of which each instrument sees some."""
    times, index = np.unique(TIMES, return_inverse=True)

    @gen
    def model():
        f = sample("f", gp(STATIONARY, times))
        for t, there in enumerate(THERE):
            mean = (f[index[t]] * BY)[there]
            sample(f"y{t}", dist.MultivariateNormal(mean, NOISE[there][:, there]))

    data = {f"y{t}": VALUES[t][there] for t, there in enumerate(THERE)}
    return float(sum_out(model, "f").assess(data)[0])


# -- against one normal vector --------------------------------------------------------------------


def _dense(kernel: Kernel) -> tuple[np.ndarray, np.ndarray, float]:
    n, some = len(TIMES), THERE.ravel()
    covariance = np.asarray(kernel.covariance(TIMES[:, None], TIMES))
    design, noise = np.kron(np.eye(n), BY[:, None])[some], np.kron(np.eye(n), NOISE)
    noise = noise[some][:, some]
    return linear_gaussian_posterior(np.zeros(n), covariance, design, noise, VALUES.ravel()[some])


def check_evidence(found: Callable[[], float], kernel: Kernel) -> Verdict:
    error = abs(found() - _dense(kernel)[2])
    return Verdict("log evidence", error <= EXACT, "identity", error, EXACT, THERE.sum())


def check_laws(found: Callable[[], np.ndarray]) -> Verdict:
    mean, covariance, _ = _dense(STATIONARY)
    right = np.stack([mean, np.diag(covariance)], -1)
    error = float(np.max(np.abs(found() - right)))
    return Verdict("means and variances", error <= EXACT, "identity", error, EXACT, right.size)


# -- joint draws ----------------------------------------------------------------------------------


@gen
def walk():
    def step(z, _):
        z = sample("z", dist.Normal(z, 1.0))
        sample("y", dist.Normal(z, 2.0))
        return z, None

    jax.lax.scan(step, 0.0, None, length=4)


QUIET = sum_out(walk, "z")
SEEN = Target(walk, (), {"y": jnp.zeros(4)})
KEY = jax.random.key(17)


def redrawn(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """A kernel that draws all states again, whatever they were."""

    def kernel(_: Trace) -> Trace:
        y = target.observations["y"]
        if not wrong:
            return target.generate({"z": restore(QUIET, QUIET.generate({"y": y})[0])["z"]})[0]
        one = jnp.eye(1)
        chain = chain_of_series(4, jnp.zeros(1), 0 * one, one, one, one, 4 * jnp.ones(1))
        laws = beliefs(chain, y[:, None])
        sd = jnp.sqrt(laws.covariance[1:, 0, 0])
        return target.generate({"z": draw(dist.Normal(laws.mean[1:, 0], sd))})[0]

    return kernel


def _entry(kind: Kind, name: str, says: str, found: Callable, kernel: Any = STATIONARY) -> Entry:
    check = partial(check_evidence, found, kernel)
    return Entry("state space", name, says, check, kind, "linear_gaussian_posterior")


def _wrong(name: str, says: str, kernel: Any = STATIONARY) -> Entry:
    return _entry("mutant", name, says, lambda: filtered(kernel, name)[0], kernel)


def _smooth(kind: Kind, name: str, says: str, found: Callable) -> Entry:
    check = partial(check_laws, found)
    return Entry("smoothing", name, says, check, kind, "linear_gaussian_posterior")


def _joint(kind: Kind, name: str, says: str) -> Entry:
    check = partial(check_kernel_sampled, partial(redrawn, wrong=name), SEEN, KEY)
    return Entry("joint draws", name or "restored", says, check, kind)


ENTRIES = (
    _entry("correct", "scan", "step by step", partial(_folded, "scan")),
    _entry("correct", "tree", "all steps at once", partial(_folded, "tree")),
    _entry("correct", "blocks", "blocks of steps side by side", partial(_folded, "blocks")),
    _entry("correct", "roots", "by roots of covariances", partial(_folded, "roots")),
    _entry("correct", "in a model", "the process summed out of a model", _of_process),
    _entry("equivalent", "by hand", "the filter written out", lambda: filtered(STATIONARY)[0]),
    _entry("equivalent", "by hand, a walk", "of a process that is not stationary",
           lambda: filtered(WALK)[0], WALK),
    _entry("equivalent", "one step earlier", "a stationary state that starts one step earlier",
           lambda: filtered(STATIONARY, "after one step")[0]),
    _wrong("not stationary", "the first state has no variance"),
    _wrong("after one step", "the start is taken one step before the first datum", WALK),
    _wrong("gap before", "the noise of the gap before"),
    _wrong("next gap", "each step takes the gap after it"),
    _wrong("zero gap", "noise over a gap of zero"),
    _wrong("transition transposed", "the transition is transposed"),
    _wrong("filtered mean", "the innovation from the mean before the step"),
    _wrong("half a log det", "half of the log determinant is left out"),
    _wrong("one block", "log 2 pi once for both numbers"),
    _wrong("zero datum", "a missing value is a datum of zero"),
    _wrong("repeats dropped", "data at a time that was there are left out"),
    _wrong("jitter", "1e-6 more on each variance of what is seen"),
    _entry("mutant", "wrong order", "steps are composed in the wrong order",
           partial(_folded, "tree", "wrong order")),
    _smooth("correct", "library", "by `beliefs`", _believed),
    _smooth("equivalent", "by hand", "backward from the last state", smoothed),
    _smooth("mutant", "filtered covariance", "the next state's variance after its data, not before",
            partial(smoothed, "filtered covariance")),
    _joint("correct", "", "states drawn by `restore`"),
    _joint("mutant", "one by one", "each state drawn from its own law given all data"),
)  # fmt: skip
