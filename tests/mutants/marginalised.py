"""Latents summed out: in the particles of a filter, and by estimates that keep their randomness.

A mixture Kalman filter (Chen and Liu 2000): regimes are sampled, and each particle carries the
mean and variance of the rest given its regimes. What it must have is the measure of the
regimes' paths, each with the density of the data under the joint normal law that the path
gives them, computed here from that law at once.

A correlated pseudo-marginal kernel (Deligiannidis, Doucet and Pitt 2018) moves a latent together
with the randomness of its estimate. Here that takes four values, so that all is enumerated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import (
    Weighted,
    auxiliary_marginal,
    correlated,
    genealogy,
    importance,
    lift,
    multinomial,
    particle_filter,
    rao_blackwell,
    resample,
    spawn,
    start,
    then,
    unit,
)
from ppl import Target, Trace, draw, factor, gen, integrate, sample
from semantics import Verdict, check_kernel, check_proper
from semantics.compiling import QUICK

from .registry import Entry, Kind, family

MOVES = jnp.array([[0.7, 0.3], [0.4, 0.6]])
SLOPE, STEP, NOISE = jnp.array([0.9, -0.5]), jnp.array([0.3, 1.2]), jnp.array([0.4, 0.9])
DATA = jnp.array([0.8, -1.1])
START = 0.2


@gen
def regimes():
    """The regimes' paths, and the data given one, all at once."""

    def step(k, _):
        k = sample("k", dist.Categorical(MOVES[k]))
        return k, k

    _, path = jax.lax.scan(step, 0, None, length=len(DATA))
    mean, cov = jnp.full((), START), jnp.zeros((0, 0))
    means, last = [], jnp.zeros(0)
    for k in path:  # the law of z, a step longer each time
        mean, last = SLOPE[k] * mean, SLOPE[k] * last
        var = SLOPE[k] ** 2 * (cov[-1, -1] if means else 0.0) + STEP[k] ** 2
        cov = jnp.block([[cov, last[:, None]], [last[None], var[None, None]]])
        means, last = [*means, mean], cov[:, -1]
    noise = jnp.diag(NOISE[path] ** 2)
    sample("y", dist.MultivariateNormal(jnp.stack(means), cov + noise))


TARGET = Target(regimes, (), {"y": DATA})


def mixture_kalman(target: Target, wrong: str = "", n: int = 3) -> Callable[[Weighted], Weighted]:
    """The filter, from the unit measure to the regimes' paths; resampled before each step."""

    def step(weighted: Weighted) -> Weighted:
        s = spawn(n)(weighted)
        paths = jnp.zeros((n, len(DATA)), int)
        mean, var = jnp.full(n, START), jnp.zeros(n)
        for t, y in enumerate(DATA):
            if t:
                moved = resample(Weighted((paths, mean, var), s.log_weight), multinomial)
                s = Weighted((), moved.log_weight)
                kept = mean, var
                paths, mean, var = moved.value
                if wrong == "beliefs stay in their slots":
                    mean, var = kept
            before = paths[:, t - 1] if t else jnp.zeros(n, int)
            k = draw(dist.Categorical(MOVES[before]))
            paths = paths.at[:, t].set(k)
            k = before if wrong == "regime of the step before" else k
            mean, var = SLOPE[k] * mean, SLOPE[k] ** 2 * var + STEP[k] ** 2
            if wrong == "no noise of the step":
                var = var - STEP[k] ** 2
            total = var + NOISE[k] ** 2
            if wrong == "plug-in":
                total = NOISE[k] ** 2
            gain = var / total
            new = mean + gain * (y - mean), (1 - gain) * var
            at = new[0] if wrong == "weighed after the datum" else mean
            amount = dist.Normal(at, jnp.sqrt(total)).log_prob(y)
            if wrong == "variance for scale":
                amount = dist.Normal(at, total).log_prob(y)
            s = Weighted((), s.log_weight + amount)
            mean, var = new
            if wrong == "variance not updated":
                var = var / (1 - gain)
            if wrong == "mean not updated":
                mean = mean - gain * (y - mean) / (1 - gain)
        return Weighted({"k": paths}, s.log_weight)

    return step


def library(target: Target, wrong: str = "") -> Callable[[Weighted], Weighted]:
    """The same by `inference.rao_blackwell`."""

    @gen
    def switching(state, _):
        z, k = state
        k = sample("k", dist.Categorical(MOVES[k]))
        z = sample("z", dist.Normal(SLOPE[k] * z, STEP[k]))
        sample("y", dist.Normal(z, NOISE[k]))
        return (z, k), None

    marginal, start = rao_blackwell(switching, "z", (START, 0))

    def step(weighted: Weighted) -> Weighted:
        observed = {"y": target.observations["y"]}
        found = particle_filter(
            marginal, start, observed, 3, scheme=multinomial, threshold=1.0, history=True
        )
        paths = genealogy(found)
        return Weighted({"k": paths.value["k"]}, weighted.log_weight + paths.log_weight)

    return step


# -- finite latents summed out -------------------------------------------------------------------

STATES = jnp.array([[[0.8, 0.2], [0.3, 0.7]], [[0.1, 0.9], [0.6, 0.4]]])  # by regime
SEES = jnp.array([0.9, 0.25])
COINS = jnp.array([1, 0])


@gen
def hidden():
    """The regimes' paths, with the sum over all paths of the states, one by one."""

    def step(r, _):
        r = sample("r", dist.Categorical(MOVES[r]))
        return r, r

    _, path = jax.lax.scan(step, 0, None, length=len(COINS))
    total = 0.0
    for states in itertools.product((0, 1), repeat=len(COINS)):
        mass, before = 1.0, 0
        for r, k, y in zip(path, states, COINS, strict=True):
            mass = mass * STATES[r, before, k] * jnp.where(y == 1, SEES[k], 1 - SEES[k])
            before = k
        total = total + mass
    factor(jnp.log(total))


def forward(target: Target, wrong: str = "", n: int = 3) -> Callable[[Weighted], Weighted]:
    """Particles of regimes that carry probabilities of the states (Rabiner 1989)."""

    def step(weighted: Weighted) -> Weighted:
        s = spawn(n)(weighted)
        paths = jnp.zeros((n, len(COINS)), int)
        probs = jnp.tile(jnp.array([1.0, 0.0]), (n, 1))
        for t, y in enumerate(COINS):
            if t:
                moved = resample(Weighted((paths, probs), s.log_weight), multinomial)
                s = Weighted((), moved.log_weight)
                paths, probs = moved.value
            r = draw(dist.Categorical(MOVES[paths[:, t - 1] if t else jnp.zeros(n, int)]))
            paths = paths.at[:, t].set(r)
            if wrong != "states stay":
                moves = STATES[r].swapaxes(1, 2) if wrong == "transposed" else STATES[r]
                probs = jnp.einsum("ni,nij->nj", probs, moves)
            seen = jnp.where(y == 1, SEES, 1 - SEES)
            total = probs @ seen
            if wrong == "most probable state":
                total = seen[jnp.argmax(probs, 1)]
            if wrong == "mean of logs":
                total = jnp.exp(probs @ jnp.log(seen))
            s = Weighted((), s.log_weight + jnp.log(total))
            if wrong != "not conditioned":
                probs = probs * seen
            if wrong != "not normalised":
                probs = probs / probs.sum(1, keepdims=True)
        return Weighted({"r": paths}, s.log_weight)

    return step


def library_forward(target: Target, wrong: str = "") -> Callable[[Weighted], Weighted]:
    """The same by `inference.rao_blackwell`."""

    @gen
    def switching(state, _):
        k, r = state
        r = sample("r", dist.Categorical(MOVES[r]))
        k = sample("k", dist.Categorical(STATES[r, k]))
        sample("y", dist.Bernoulli(SEES[k]))
        return (k, r), None

    marginal, start = rao_blackwell(switching, "k", (0, 0))

    def step(weighted: Weighted) -> Weighted:
        found = particle_filter(
            marginal, start, {"y": COINS}, 3, scheme=multinomial, threshold=1.0, history=True
        )
        paths = genealogy(found)
        return Weighted({"r": paths.value["r"]}, weighted.log_weight + paths.log_weight)

    return step


_forward = family("forward algorithm in particles", check_proper, forward, Target(hidden))
_library_forward = family(
    "forward algorithm in particles", check_proper, library_forward, Target(hidden)
)


# -- estimates that keep their randomness --------------------------------------------------------

PRIOR = jnp.array([0.6, 0.4])
LAW = jnp.array([0.1, 0.2, 0.3, 0.4])  # of the randomness u
ESTIMATE = jnp.array([[0.2, 0.9, 0.4, 1.5], [1.2, 0.3, 0.8, 0.1]])  # by latent and u
TO = jnp.array([[0.3, 0.7], [0.6, 0.4]])  # the proposal, by the latent before


@gen
def estimated():
    theta = sample("theta", dist.Categorical(PRIOR))
    u = sample("u", dist.Categorical(LAW))
    factor(jnp.log(ESTIMATE[theta, u]))


def correlated_mh(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """A latent by a proposal, u anew or not by a coin: reversible for its law."""

    def kernel(trace: Trace) -> Trace:
        theta, u = trace["theta"], trace["u"]
        new = draw(dist.Categorical(TO[theta]))
        law = jnp.full(4, 0.25) if wrong == "irreversible" else LAW
        moved = jnp.where(draw(dist.Bernoulli(0.5)) == 1, draw(dist.Categorical(law)), u)
        before, after = ESTIMATE[theta, u], ESTIMATE[new, moved]
        if wrong == "old estimate again":
            before = ESTIMATE[theta, draw(dist.Categorical(LAW))]
        if wrong == "estimate at the old":
            after = ESTIMATE[new, u]
        ratio = PRIOR[new] * TO[new, theta] / (PRIOR[theta] * TO[theta, new])
        if wrong == "no proposal":
            ratio = PRIOR[new] / PRIOR[theta]
        if wrong != "no estimates":
            ratio = ratio * after / before
        if wrong == "law of u":
            ratio = ratio * LAW[moved] / LAW[u]
        taken = draw(dist.Bernoulli(jnp.minimum(ratio, 1.0))) == 1
        kept = jnp.where(taken | (wrong == "moved when refused"), moved, u)
        if wrong == "old u stays":
            kept = u
        return target.update(trace, {"theta": jnp.where(taken, new, theta), "u": kept})[0]

    return kernel


@gen
def coin():
    theta = sample("theta", dist.Bernoulli(0.4))
    k = sample("k", dist.Categorical(jnp.array([[0.75, 0.25], [0.25, 0.75]])[theta]))
    sample("y", dist.Bernoulli(jnp.array([0.9, 0.2])[k]))


def check_correlated(refresh: Callable[[jax.Array], jax.Array]) -> Verdict:
    """`inference.correlated` keeps the measure of the latent, its estimate and its normals.

    Three particles whose draws change at quartiles of their normals: with four nodes the rule
    of midpoints is exact. Departures of 1e-12 are seen: sums of 32,768 products.
    """
    kept = auxiliary_marginal(Target(coin, (), {"y": 1}), "theta", lambda t: importance(t, 3))

    def measure(step: Callable[[Weighted], Weighted]) -> jax.Array:
        s = step(unit())
        bent = jnp.sin(s.value.retval + 1).sum()
        of = jnp.stack([1.0, jnp.exp(s.value.score), bent, jnp.exp(s.value.score) * bent])
        return jnp.exp(s.log_weight) * (s.value["theta"] == jnp.arange(2))[:, None] * of

    def found(*steps: Callable[[Weighted], Weighted]) -> jax.Array:
        exact = integrate(partial(measure, then(*steps)), nodes=4, rule="midpoint")
        return jax.jit(exact, compiler_options=QUICK)()

    before = found(start(kept))
    after = found(start(kept), lift(correlated(kept, "theta", refresh)))
    error = float(jnp.abs(after - before).max())
    return Verdict("measure of all normals", error <= 1e-12, "exact", error, 1e-12, 2**15)


def anew(u: jax.Array) -> jax.Array:
    return draw(dist.Normal(0.0, 1.0).expand(u.shape))


def anew_and_added(u: jax.Array) -> jax.Array:
    return u + anew(u)


def _normals(kind: Kind, refresh: Callable, says: str) -> Entry:
    check = partial(check_correlated, refresh)
    name = refresh.__name__.replace("_", " ")
    return Entry("correlated pseudo-marginal", name, says, check, kind, "integrate")


_entry = family("Rao-Blackwellised filter", check_proper, mixture_kalman, TARGET)
_library = family("Rao-Blackwellised filter", check_proper, library, TARGET)

_estimated = family("correlated pseudo-marginal", check_kernel, correlated_mh, Target(estimated))

ENTRIES = (
    _entry("correct", "", "three particles, multinomial"),
    _library("correct", "library", "inference.rao_blackwell in a particle filter"),
    _entry("mutant", "beliefs stay in their slots", "regimes are resampled, beliefs are not"),
    _entry("mutant", "regime of the step before", "the belief moves by the regime before"),
    _entry("mutant", "no noise of the step", "the variance does not grow by the step's noise"),
    _entry("mutant", "plug-in", "weighed by the density at the mean of the state"),
    _entry("mutant", "weighed after the datum", "weighed by the mean after the datum"),
    _entry("mutant", "variance for scale", "the predictive variance for its scale"),
    _entry("mutant", "variance not updated", "the variance is not reduced by the datum"),
    _entry("mutant", "mean not updated", "the mean is not moved by the datum"),
    _forward("correct", "", "three particles, multinomial"),
    _library_forward("correct", "library", "inference.rao_blackwell of a finite choice"),
    _forward("mutant", "states stay", "the probabilities are not moved by the step"),
    _forward("mutant", "transposed", "moved by the transposed table"),
    _forward("mutant", "most probable state", "weighed at the most probable state"),
    _forward("mutant", "mean of logs", "weighed by the mean of the log densities"),
    _forward("mutant", "not conditioned", "the probabilities are not those given the datum"),
    _forward("mutant", "not normalised", "weights of data before count again"),
    _estimated("correct", "", "a latent by a proposal, the randomness anew or not"),
    _normals("correct", anew, "inference.correlated, normals drawn anew"),
    _normals("mutant", anew_and_added, "the normals walk, which does not keep their law"),
    _estimated("mutant", "irreversible", "the randomness moves by another law than its own"),
    _estimated("mutant", "no estimates", "the ratio of the estimates left out"),
    _estimated("mutant", "no proposal", "the ratio of the proposal left out"),
    _estimated("mutant", "law of u", "the law of the randomness counted in the ratio, too"),
    _estimated("mutant", "old estimate again", "the old estimate made again"),
    _estimated("mutant", "estimate at the old", "accepted by the estimate at the old randomness"),
    _estimated("mutant", "old u stays", "the old randomness kept with the new latent"),
    _estimated("mutant", "moved when refused", "the randomness moves when the latent is refused"),
)
