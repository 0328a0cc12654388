"""Particles around a known one, densities that algorithms leave behind, and what they lose.

Importance sampling and annealing given one of their particles (Andrieu, Doucet and Holenstein
2010), as kernels; and Metropolis-Hastings whose proposal is importance sampling from another
target, with the two estimates of its density (Lew et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import (
    Weighted,
    annealed,
    by_annealing,
    by_importance,
    collapse,
    cycle,
    each,
    importance,
    log_evidence,
    marginalize,
    mh,
    normalize,
    propose,
    resample,
    spawn,
    start,
    temper,
    unit,
)
from inference.move import accept
from inference.targets.temper import heat
from ppl import Target, Trace, draw, gen, sample
from semantics import check_kernel

from .proposals import PAIR, PRIOR, STEPS, pair
from .ratios import total
from .registry import Entry, Kind

Kernel = Callable[[Trace], Trace]


def _with(held: Weighted, others: Weighted) -> Weighted:
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), held, others)


# -- importance sampling around a trace ------------------------------------------------------------


def around(target: Target, wrong: str = "", n: int = 3) -> Kernel:
    """One of n particles, of which the trace is the first, with one thing `wrong`."""

    def kernel(trace: Trace) -> Trace:
        log_weight = heat(target, trace)
        if wrong == "whole density":
            log_weight = trace.score
        if wrong == "never again":
            log_weight = -jnp.inf
        if wrong == "another's weight":
            log_weight = target.generate()[1]
        others = each(start(target))(spawn(n - 1)(unit()))
        s = _with(Weighted(trace, jnp.asarray(log_weight)), others)
        if wrong == "evenly":
            s = Weighted(s.value, jnp.zeros(n))
        return collapse(s).value

    return kernel


# -- annealing around a trace ----------------------------------------------------------------------


def first_b(target: Target) -> Kernel:
    return cycle(mh(target, "b"), mh(target, "a"))


def first_a(target: Target) -> Kernel:
    return cycle(mh(target, "a"), mh(target, "b"))


def on_a(target: Target) -> Kernel:
    return mh(target, "a")


@dataclass(frozen=True)
class Ladder:
    """Powers, and the kernels on the way there and back."""

    powers: tuple[float, ...]
    there: Callable[[Target], Kernel]
    back: Callable[[Target], Kernel]


TURNS = Ladder((0.2, 1.0), first_b, first_a)
LONG = Ladder((0.2, 0.6, 1.0), on_a, on_a)


def annealed_around(target: Target, trace: Trace, ladder: Ladder, wrong: str, n: int) -> Weighted:
    """n particles, of which the first has gone to the trace, with one thing `wrong`."""

    def moved(make: Callable[[Target], Kernel], power: float, x: dict) -> dict:
        tempered = temper(target, power)
        return tempered.choices(make(tempered)(tempered.at(x)[0]))

    def level(x: dict) -> jax.Array:
        return heat(target, target.at(x)[0])

    def begun(s: Weighted) -> Weighted:
        made, level = target.generate()
        return Weighted(target.choices(made), s.log_weight + powers[0] * level)

    def resampled(weights: jax.Array) -> jax.Array:
        if wrong == "never an ancestor":
            weights = weights.at[0].set(0.0) / weights[1:].sum()
        ancestors = draw(dist.CategoricalProbs(weights).expand([n]))
        return ancestors if wrong == "any ancestor" else ancestors.at[0].set(0)

    powers = ladder.powers
    back = ladder.there if wrong == "backwards in the same order" else ladder.back
    path = [target.choices(trace)]  # from the end
    for power in powers[:0:-1]:
        path.append(path[-1] if wrong == "not taken back" else moved(back, power, path[-1]))
    first = level(path[0] if wrong == "weighed at the end" else path[-1])
    s = Weighted(jax.tree.map(lambda x: x[None], path[-1]), powers[0] * first[None])
    if n > 1:
        others = each(begun)(spawn(n - 1)(unit()))
        s = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), s, others)
    for (low, high), after in zip(pairwise(powers), path[-2::-1], strict=True):
        s = Weighted(s.value, s.log_weight + (high - low) * jax.vmap(level)(s.value))
        s = resample(s, resampled) if n > 1 else s
        held = jax.tree.map(lambda x: x[0], s.value)
        if wrong == "moved on by chance":
            after = moved(ladder.there, high, held)
        if wrong == "left behind":
            after = held
        others = jax.tree.map(lambda x: x[1:], s.value)
        if n > 1:
            others = jax.vmap(partial(moved, ladder.there, high))(others)
        s = _with(Weighted(after, s.log_weight[0]), Weighted(others, s.log_weight[1:]))
    return s


def kept_in_place(target: Target, wrong: str = "") -> Kernel:
    """One of two particles, of which the first goes to the trace, at two steps of powers."""

    def kernel(trace: Trace) -> Trace:
        one = collapse(annealed_around(target, trace, LONG, wrong, 2)).value
        return target.at(one)[0]

    return kernel


AIM = Target(pair, (), {"y": 0})


def by_annealed(target: Target, wrong: str = "", ladder: Ladder = TURNS) -> Kernel:
    """Metropolis-Hastings by a particle annealed to another target, with one thing `wrong`."""

    def kernel(trace: Trace) -> Trace:
        x = target.choices(trace)
        s = annealed(AIM, 1, ladder.there, ladder.powers, threshold=0)(unit())
        made = collapse(s).value
        changed, difference, _ = target.update(trace, AIM.choices(made))
        here, score = AIM.at(x)
        around = annealed_around(AIM, here, ladder, wrong, 1)
        ratio = (score - log_evidence(around)) - (made.score - log_evidence(s))
        return accept(trace, changed, difference + ratio)

    return kernel


# -- importance sampling as a proposal -------------------------------------------------------------


@gen
def other(b):
    b = sample("b", dist.Categorical(STEPS[b]))
    sample("z", dist.Bernoulli(0.2 + 0.3 * b))


def beside(x: dict) -> Target:
    return Target(other, (x["b"],), {"z": 1})


@gen
def by_way(x):
    """`b` by two steps, of which the first is not kept."""
    middle = sample("middle", dist.Categorical(STEPS[x["b"]]))
    sample("b", dist.Categorical(jnp.roll(PRIOR, middle)))


def by_hand(target: Target, wrong: str = "", n: int = 2) -> Kernel:
    """Metropolis-Hastings by draws of importance sampling, with one thing `wrong`."""

    def drawn(t: Target) -> tuple[Trace, Any]:
        s = importance(t, n)(unit())
        one = collapse(s).value
        return one, one.score if wrong == "no evidence" else one.score - log_evidence(s)

    def given(t: Target, values: dict) -> Any:
        trace, score = t.at(values)
        others = each(start(t))(spawn(n - 1)(unit()))
        if wrong == "the given left out":
            return score - log_evidence(others)
        if wrong == "no evidence":
            return score
        if wrong == "a run without the given":
            return score - log_evidence(importance(t, n)(unit()))
        return score - log_evidence(_with(Weighted(trace, heat(t, trace)), others))

    def kernel(trace: Trace) -> Trace:
        x = target.choices(trace)
        made, forward = drawn(beside(x))
        new = {"b": made["b"]}
        if wrong == "drawn as if given":
            forward = given(beside(x), new)
        changed, difference, _ = target.update(trace, new)
        terms = {
            "target": difference,
            "backward": given(beside(target.choices(changed)), {"b": x["b"]}),
            "forward": -forward,
        }
        return accept(trace, changed, total(terms, wrong))

    return kernel


def summed_out(target: Target, wrong: str = "", n: int = 2) -> Kernel:
    """Metropolis-Hastings by a proposal with a choice that is not kept."""

    def rest(x: dict, b: Any) -> Target:
        return Target(by_way, (x,), {"b": b})

    def kernel(trace: Trace) -> Trace:
        x = target.choices(trace)
        made = by_way.simulate(x)
        there = rest(x, made["b"])
        known, _ = there.at({"middle": made["middle"]})
        held = Weighted(known, heat(there, known))
        forward = log_evidence(_with(held, each(start(there))(spawn(n - 1)(unit()))))
        if wrong == "drawn as if given":
            forward = log_evidence(importance(there, n)(unit()))
        if wrong == "the joint density":
            forward = made.score
        changed, difference, _ = target.update(trace, {"b": made["b"]})
        back = rest(target.choices(changed), x["b"])
        backward = log_evidence(importance(back, n)(unit()))
        return accept(trace, changed, difference + backward - forward)

    return kernel


def _entry(family: str, kind: Kind, name: str, says: str, make: Callable) -> Entry:
    return Entry(family, name, says, partial(check_kernel, make, PAIR), kind)


def _family(family: str, make: Callable, library: Callable, wrongs: dict[str, str]) -> tuple:
    mutants = (
        _entry(family, "mutant", name, says, partial(make, wrong=name))
        for name, says in wrongs.items()
    )
    return (
        _entry(family, "correct", "library", "the library's", library),
        _entry(family, "equivalent", "by hand", "term by term", make),
        *mutants,
    )


def _given(algorithm: Any) -> Callable[[Target], Kernel]:
    return lambda target: lambda trace: collapse(algorithm.given(target, trace)).value


def _proposed(proposal: Any) -> Callable[[Target], Any]:
    return lambda target: propose(target, proposal)


_by_turns = by_annealing(1, first_b, TURNS.powers, reverse=first_a, threshold=0)
_by_powers = by_annealing(1, on_a, LONG.powers, reverse=on_a, threshold=0)

ENTRIES = (
    *_family(
        "around a trace",
        around,
        _given(by_importance(3)),
        {
            "whole density": "the trace weighed by its density, not by that over its proposal's",
            "never again": "the trace is never chosen again",
            "another's weight": "the trace with the weight of a fresh draw",
            "evenly": "chosen without weights",
        },
    ),
    *_family(
        "annealing around a trace",
        kept_in_place,
        _given(by_annealing(2, on_a, LONG.powers, reverse=on_a, threshold=1.0)),
        {
            "never an ancestor": "the others do not descend from the trace",
        },
    ),
    _entry(
        "annealing around a trace",
        "equivalent",
        "any ancestor",
        "the trace's ancestor is drawn, too, but the trace is put back",
        partial(kept_in_place, wrong="any ancestor"),
    ),
    *_family(
        "annealing as a proposal",
        by_annealed,
        _proposed(normalize(lambda x: AIM, _by_turns)),
        {
            "backwards in the same order": "taken back by kernels in the order of the way there",
            "not taken back": "the trace is not taken back to the first power",
            "weighed at the end": "the first weight of the trace where it is in the end",
        },
    ),
    *_family(
        "annealing by three powers",
        partial(by_annealed, ladder=LONG),
        _proposed(normalize(lambda x: AIM, _by_powers)),
        {
            "moved on by chance": "the trace is moved on by fresh chance",
            "left behind": "the trace stays where it was taken back to",
        },
    ),
    *_family(
        "algorithms as proposals",
        by_hand,
        _proposed(normalize(beside, by_importance(2))),
        {
            "no evidence": "densities without the mean weight",
            "the given left out": "the mean weight of the others alone",
            "a run without the given": "the density of a given value by a run without it",
            "drawn as if given": "the density of a drawn value by another run around it",
            "forward": "the density of the drawn value left out",
            "backward": "the density of the given value left out",
        },
    ),
    *_family(
        "proposals with choices not kept",
        summed_out,
        _proposed(marginalize(by_way, "b", by_importance(2))),
        {
            "drawn as if given": "the density of a drawn value by a run without its own choices",
            "the joint density": "the density with that of the choices not kept",
        },
    ),
)
