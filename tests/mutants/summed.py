"""Finite choices summed out, drawn back and maximised, and what can be wrong with each.

The log density of what is kept is the weight of a draw of what was summed out: one draw with that
weight is the target, exactly, if and only if both are right. A chain is seen through coins; a
plate has a choice in common (Rabiner 1989; Obermeyer et al. 2019).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import Weighted, most_likely, restore, sum_out
from inference.weighted import Step
from ppl import Target, Trace, draw, factor, gen, sample, select
from semantics import check_equivalent, check_kernel_sampled, check_proper

from .registry import Entry, Kind

MOVES = jnp.array([[0.8, 0.2], [0.1, 0.9]])
SHOWS = jnp.array([0.4, 0.6])
LEVELS = jnp.array([0.2, 0.5, 0.7])
FACTOR = 0.3
KEY = jax.random.key(13)


@gen
def chain():
    def step(z, _):
        z = sample("z", dist.Categorical(MOVES[z]))
        sample("y", dist.Bernoulli(SHOWS[z]))
        return z, None

    jax.lax.scan(step, 0, None, length=3)


@gen
def plate():
    k = sample("k", dist.Bernoulli(0.3))

    def one(level):
        z = sample("z", dist.Bernoulli(level * (1 + k) / 2))
        sample("y", dist.Bernoulli(0.2 + 0.5 * z))

    jax.vmap(one)(LEVELS)
    factor(FACTOR)


SEEN = {"y": jnp.array([1, 0, 1])}
CHAIN, PLATE = Target(chain, (), SEEN), Target(plate, (), SEEN)
LIKELY = jnp.where(SEEN["y"][:, None] == 1, SHOWS, 1 - SHOWS)
QUIET = {"chain": sum_out(chain, "z"), "plate": sum_out(plate, select("k", "z"))}


def _pick(weights: jax.Array) -> jax.Array:
    return draw(dist.CategoricalProbs(weights / weights.sum()))


def _one(choices: dict, log_weight: Any) -> Weighted:
    return Weighted({a: v[None] for a, v in choices.items()}, jnp.reshape(log_weight, 1))


# -- chains ---------------------------------------------------------------------------------------


def _forward(moves: jax.Array) -> tuple[list, Any]:
    """The law of each state given the data so far, and the log density of all data."""
    law, laws, log = jnp.array([1.0, 0.0]), [], 0.0
    for likely in LIKELY:
        law = (law @ moves) * likely
        log, law = log + jnp.log(law.sum()), law / law.sum()
        laws.append(law)
    return laws, log


def _backward() -> list:
    """The chance of all data after a step, by its state."""
    found = [jnp.ones(2)]
    for likely in LIKELY[:0:-1]:
        found.append(MOVES @ (likely * found[-1]))
    return found[::-1]


def by_filter(_: Target, wrong: str = "") -> Step:
    """The last state, and each before it given the next."""

    def step(_: Weighted) -> Weighted:
        moves = MOVES.T if wrong == "transposed" else MOVES
        laws, log = _forward(moves)
        z = [_pick(laws[-1])]
        for law, after in zip(laws[-2::-1], _backward()[-2::-1], strict=True):
            z.append(_pick(law * (after if wrong == "one by one" else moves[:, z[-1]])))
        return _one({"z": jnp.stack(z[::-1])}, log)

    return step


def by_messages(_: Target, wrong: str = "") -> Step:
    """The first state given all data, and each after it given the last."""

    def step(_: Weighted) -> Weighted:
        z: list = [0]
        for likely, after in zip(LIKELY, _backward(), strict=True):
            message = after * likely if wrong == "emission twice" else after
            z.append(_pick(MOVES[z[-1]] * likely * message))
        return _one({"z": jnp.stack(z[1:])}, _forward(MOVES)[1])

    return step


def _library(_: Target) -> Step:
    """The density of `sum_out`, with states by messages."""

    def step(unit: Weighted) -> Weighted:
        drawn = by_messages(CHAIN)(unit)
        return Weighted(drawn.value, QUIET["chain"].assess(SEEN)[0][None])

    return step


def _restored(target: Target) -> Callable[[Trace], Trace]:
    """A kernel that draws all states again, whatever they were."""

    def kernel(_: Trace) -> Trace:
        trace, _ = QUIET["chain"].generate(target.observations)
        return target.generate({"z": restore(QUIET["chain"], trace)["z"]})[0]

    return kernel


# -- a plate --------------------------------------------------------------------------------------

OUTCOMES = jnp.array(list(itertools.product((0, 1), repeat=4)))
"""Of the choice in common, and of the three elements."""


def _of_plate(wrong: str) -> Any:
    k = jnp.arange(2)
    ones = LEVELS[:, None] * (1 + k) / 2  # of each element, given the choice in common
    chances = jnp.stack([1 - ones, ones], -1)
    heads = 0.2 + 0.5 * k
    likely = jnp.where(SEEN["y"][:, None] == 1, heads, 1 - heads)
    prior, each = jnp.array([0.7, 0.3]), jnp.sum(chances * likely[:, None], -1)
    if wrong == "apart":
        return FACTOR + jnp.sum(jnp.log(each @ prior))
    if wrong == "one outcome":
        return FACTOR + jnp.log(prior @ jnp.prod(chances * likely[:, None], 0).sum(-1))
    if wrong == "jointly":
        return jax.nn.logsumexp(_of_all())
    total = jnp.log(prior @ jnp.prod(each, 0))
    return total + FACTOR * (2 if wrong == "factor twice" else 1)


def _of_all() -> jax.Array:
    """The log density of each outcome of all choices together."""
    one = lambda row: plate.assess({"k": row[0], "z": row[1:], **SEEN})[0]  # noqa: E731
    return jax.vmap(one)(OUTCOMES)


def by_plate(_: Target, wrong: str = "") -> Step:
    """A draw by enumeration, with the sum element by element."""

    def step(_: Weighted) -> Weighted:
        row = OUTCOMES[draw(dist.CategoricalLogits(_of_all()))]
        log = QUIET["plate"].assess(SEEN)[0] if wrong == "library" else _of_plate(wrong)
        return _one({"k": row[0], "z": row[1:]}, log)

    return step


# -- the likeliest states -------------------------------------------------------------------------


def by_hand(wrong: str = "") -> jax.Array:
    """Viterbi's path; the best way into each state is remembered."""
    reduce = jnp.sum if wrong == "sums" else jnp.max
    best, ways = MOVES[0] * LIKELY[0], []
    for likely in LIKELY[1:]:
        into = best[:, None] * MOVES
        ways.append(jnp.argmax(into, 0))
        best = reduce(into, 0) * likely
    path = [jnp.argmax(best)]
    for way in ways[::-1]:
        path.append(way[path[-1]])
    return jnp.stack(path[::-1])


def by_enumeration() -> jax.Array:
    rows = jnp.array(list(itertools.product((0, 1), repeat=3)))
    logs = jax.vmap(lambda z: chain.assess({"z": z, **SEEN})[0])(rows)
    return rows[jnp.argmax(logs)]


def _likeliest() -> jax.Array:
    return most_likely(QUIET["chain"], QUIET["chain"].generate(SEEN)[0])["z"]


def _chain(kind: Kind, name: str, says: str, make: Callable) -> Entry:
    return Entry("chains summed out", name, says, partial(check_proper, make, CHAIN), kind)


def _plate(kind: Kind, wrong: str, says: str) -> Entry:
    check = partial(check_proper, partial(by_plate, wrong=wrong), PLATE)
    return Entry("plates summed out", wrong or "by hand", says, check, kind)


def _path(kind: Kind, name: str, says: str, f: Callable) -> Entry:
    check = partial(check_equivalent, f, by_enumeration)
    return Entry("likeliest states", name, says, check, kind)


ENTRIES = (
    _chain("correct", "library", "the density of `sum_out`", _library),
    Entry("chains summed out", "restored", "states drawn by `restore`",
          partial(check_kernel_sampled, _restored, CHAIN, KEY), "correct"),
    _chain("equivalent", "by filter", "the last state, and each given the next", by_filter),
    _chain("equivalent", "by messages", "the first state, and each given the last", by_messages),
    _chain("mutant", "transposed", "the table of moves transposed",
           partial(by_filter, wrong="transposed")),
    _chain("mutant", "one by one", "states drawn one by one, each given all data",
           partial(by_filter, wrong="one by one")),
    _chain("mutant", "emission twice", "a backward message with its own emission, too",
           partial(by_messages, wrong="emission twice")),
    _plate("correct", "library", "the density of `sum_out`"),
    _plate("equivalent", "", "element by element, given the choice in common"),
    _plate("equivalent", "jointly", "over all outcomes of all elements together"),
    _plate("mutant", "apart", "the choice in common summed out in each element by itself"),
    _plate("mutant", "one outcome", "all elements have one outcome"),
    _plate("mutant", "factor twice", "a factor is scored once for each outcome"),
    _path("correct", "library", "by `most_likely`", _likeliest),
    _path("equivalent", "by hand", "by the best way into each state", by_hand),
    _path("mutant", "sums", "by sums over the ways into each state", partial(by_hand, "sums")),
)  # fmt: skip
