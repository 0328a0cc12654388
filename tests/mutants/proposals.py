"""Proposals with known and estimated densities, mixtures of moves, and the terms they lose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from hypothesis import strategies as st

from inference import Move, cycle, metropolize
from inference.choose import choose
from inference.mcmc.proposals import propose
from inference.move import accept
from ppl import Target, Trace, draw, gen, sample
from semantics import Measure, check_kernel

from .ratios import total
from .registry import Entry, Kind

Kernel = Callable[[Trace], Trace]
PRIOR = jnp.array([0.2, 0.3, 0.5])
STEPS = jnp.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])


@gen
def pair():
    b = sample("b", dist.Categorical(PRIOR))
    a = sample("a", dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[b]))
    sample("y", dist.Bernoulli(0.1 + 0.3 * a + 0.2 * b))


PAIR = Target(pair, (), {"y": 1})


@gen
def skewed(latents):
    """A step of `b` that is not reversible."""
    sample("b", dist.Categorical(STEPS[latents["b"]]))


@gen
def two_steps(latents):
    """`b` by two such steps, and `a` by chance that depends on both: densities are estimates."""
    middle = draw(dist.Categorical(STEPS[latents["b"]]))
    b = sample("b", dist.Categorical(STEPS[middle]))
    lamp = draw(dist.Bernoulli(0.2 + 0.3 * b))
    sample("a", dist.Bernoulli(0.3 + 0.2 * lamp))


def by_hand(target: Target, wrong: str = "", proposal=skewed) -> Kernel:
    """Metropolis-Hastings with a proposal on part of the latents, with one thing `wrong`."""

    def kernel(trace: Trace) -> Trace:
        x = target.choices(trace)
        forward = proposal.simulate(x)
        new_x = {**x, **forward.choices}
        changed, difference, _ = target.update(trace, forward.choices)
        old = {name: x[name] for name in forward.choices}
        score = forward.score
        if wrong == "re-estimated":
            score = proposal.assess(forward.choices, x)[0]
        terms = {
            "target": difference,
            "backward": proposal.assess(old, x if wrong == "from here" else new_x)[0],
            "forward": -score,
        }
        return accept(trace, changed, total(terms, wrong))

    return kernel


# -- a target whose density is estimated -------------------------------------------------------

EMIT = jnp.array([[0.9, 0.2], [0.3, 0.7], [0.4, 0.1]])


@gen
def marginal():
    """The middle is summed out by chance: pseudo-marginal."""
    b = sample("b", dist.Categorical(PRIOR))
    middle = draw(dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[b]))
    sample("y", dist.Bernoulli(EMIT[b, middle]))


class Marginal:
    """The target, and its exact measure by hand."""

    target = Target(marginal, (), {"y": 1})

    def __repr__(self) -> str:
        return "the model `marginal`"

    def posterior(self) -> Measure:
        on = [0.1, 0.5, 0.9]
        emit = EMIT.tolist()
        return Measure(
            {
                ((("b",), b),): float(PRIOR[b]) * ((1 - on[b]) * emit[b][0] + on[b] * emit[b][1])
                for b in range(3)
            }
        )


MARGINAL = st.builds(Marginal)


def estimated(target: Target, wrong: str = "") -> Kernel:
    """Metropolis-Hastings on a target whose density is estimated, with one thing `wrong`."""

    def kernel(trace: Trace) -> Trace:
        x = target.choices(trace)
        forward = skewed.simulate(x)
        new, _ = target.generate(forward.choices)
        old = target.log_density(x) if wrong == "old re-estimated" else trace.score
        if wrong == "new re-estimated":
            difference = target.log_density(forward.choices) - old
        else:
            difference = new.score - old
        backward = skewed.assess(x, forward.choices)[0]
        return accept(trace, new, difference + backward - forward.score)

    return kernel


def twice(target: Target, wrong: str) -> Kernel:
    """Two steps: the estimate that the first one keeps is used by the second."""
    return cycle(estimated(target, wrong), estimated(target, wrong))


# -- a mixture of moves whose weights depend on the state --------------------------------------

FLIP = Move(gen(lambda x: None), lambda x, u: ({"a": 1 - x["a"], "b": x["b"]}, u))
STEP = Move(skewed, lambda x, u: ({"a": x["a"], "b": u["b"]}, {"b": x["b"]}))
MOVES = (FLIP, STEP)


def weights(x: dict) -> jax.Array:
    """More flips the larger b is, more steps where a is on."""
    return jnp.stack([1.0 + x["b"], 0.5 + 2.0 * x["a"]])


def mixed(target: Target, wrong: str = "") -> Kernel:
    """One of two moves by weights of the state, with one thing `wrong` in the ratio."""

    def kernel(trace: Trace) -> Trace:
        x = target.choices(trace)
        i = draw(dist.Categorical(weights(x) / weights(x).sum()))

        def made(move: Move) -> Callable:
            def run(trace: Trace) -> tuple:
                forward = move.proposal.simulate(x)
                new_x, new_u = move.involution(x, forward.choices)
                changed, difference, _ = target.update(trace, new_x)
                backward = move.proposal.assess(new_u, new_x)[0]
                return changed, difference + backward - forward.score

            return run

        changed, ratio = jax.lax.switch(i, [made(move) for move in MOVES], trace)
        now = weights(target.choices(changed))
        if wrong == "not normalised":
            log_weights = jnp.log(now[i]) - jnp.log(weights(x)[i])
        else:
            log_weights = jnp.log(now[i] / now.sum()) - jnp.log(weights(x)[i] / weights(x).sum())
        sign = {"no weights": 0.0, "inverted": -1.0}.get(wrong, 1.0)
        return accept(trace, changed, ratio + sign * log_weights)

    return kernel


def _entry(family: str, kind: Kind, name: str, says: str, make: Callable, on: Any = PAIR) -> Entry:
    return Entry(family, name, says, partial(check_kernel, make, on), kind)


def _wrong(family: str, make: Callable, name: str, says: str, on: Any = PAIR) -> Entry:
    return _entry(family, "mutant", name, says, partial(make, wrong=name), on)


def _proposed(target: Target) -> Kernel:
    return propose(target, skewed)


def _proposed_twice(target: Target) -> Kernel:
    return propose(target, two_steps)


def _chosen(target: Target) -> Kernel:
    return metropolize(choose(MOVES, weights), target)


ESTIMATE = partial(by_hand, proposal=two_steps)

ENTRIES = (
    _entry("proposals", "correct", "propose", "a skewed step of one choice", _proposed),
    _entry("proposals", "equivalent", "by hand", "the ratio term by term", by_hand),
    _wrong("proposals", by_hand, "backward", "the reverse density left out"),
    _wrong("proposals", by_hand, "forward", "the forward density left out"),
    _wrong("proposals", by_hand, "target", "the target left out"),
    _wrong("proposals", by_hand, "from here", "the reverse density given the old state"),
    _entry("estimates", "correct", "propose", "a proposal of estimated density", _proposed_twice),
    _wrong("estimates", ESTIMATE, "re-estimated", "the proposal's density estimated again"),
    _wrong("estimates", ESTIMATE, "backward", "the estimated reverse density left out"),
    _entry("estimates", "correct", "target", "a target of estimated density", _proposed, MARGINAL),
    _entry("estimates", "equivalent", "by hand", "the old estimate kept", estimated, MARGINAL),
    _wrong(
        "estimates", estimated, "old re-estimated", "the state's density estimated again", MARGINAL
    ),
    _wrong(
        "estimates",
        twice,
        "new re-estimated",
        "accepted by another estimate than is kept",
        MARGINAL,
    ),
    _entry("mixed moves", "correct", "choose", "weights of the state, as one move", _chosen),
    _entry("mixed moves", "equivalent", "by hand", "the ratio term by term", mixed),
    _wrong("mixed moves", mixed, "no weights", "accepted without the weights of the moves"),
    _wrong("mixed moves", mixed, "inverted", "the ratio of the weights upside down"),
    _wrong("mixed moves", mixed, "not normalised", "weights that do not add up to one"),
)
