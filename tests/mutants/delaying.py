"""Delayed acceptance on finite programs (Christen and Fox 2005), and what can be wrong with it.

A cheap target, here one with flattened tables, screens a redrawn choice; the second stage
accepts by the ratio of the target over that of the cheap one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from inference import cycle
from inference import mh as library_mh
from inference.mcmc.delayed import delayed_acceptance
from inference.move import accept, accepted
from ppl import Target, Trace
from semantics import check_kernel

from .cases import FORK, positive
from .registry import Entry, Kind


def cheap_target(target: Target) -> Target:
    """The same program with the square roots of its tables, normalised."""
    roots = jax.tree.map(jnp.sqrt, target.args[0])
    tables = jax.tree.map(lambda r: r / r.sum(-1, keepdims=True), roots)
    return Target(target.model, (tables,), target.observations)


def delayed(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Each latent in turn: redrawn from the cheap program, screened, and decided."""
    cheap = cheap_target(target)

    def one(address: tuple[str, ...], trace: Trace) -> Trace:
        here = cheap.at(target.choices(trace))[0]
        new, first, _ = cheap.regenerate(here, address)
        there, _ = accepted(here, new, first)
        moved, difference = target.moved(trace, cheap.choices(there))
        second = difference - (there.score - here.score)
        if wrong == "first stage":
            second = difference
        elif wrong == "inverse":
            second = difference + (there.score - here.score)
        elif wrong == "ratio of the first stage":  # with the density of the proposal
            second = difference - jnp.where(there.score == here.score, 0.0, first)
        elif wrong == "no second stage":
            return moved
        return accept(trace, moved, second)

    def kernel(trace: Trace) -> Trace:
        for address in target.latents:
            trace = one(address, trace)
        return trace

    return kernel


def library(target: Target) -> Callable[[Trace], Trace]:
    cheap = cheap_target(target)
    return cycle(*[delayed_acceptance(library_mh(cheap, a), cheap, target) for a in target.latents])


def unsymmetric(target: Target) -> Callable[[Trace], Trace]:
    """The library's, around a cycle, which is not reversible."""
    cheap = cheap_target(target)
    both = cycle(*[library_mh(cheap, address) for address in target.latents])
    return delayed_acceptance(both, cheap, target)


def _entry(kind: Kind, name: str, says: str, make: Callable | None = None) -> Entry:
    wrong = "" if name == "correct" else name
    made = partial(delayed, wrong=wrong) if make is None else make
    check = partial(check_kernel, made, positive(FORK))
    return Entry("delayed acceptance", name, says, check, kind)


ENTRIES = (
    _entry("correct", "correct", "screened by a flattened target"),
    _entry("correct", "library", "the library's `delayed_acceptance`", library),
    _entry("mutant", "first stage", "the first stage's ratio is missing from the second"),
    _entry("mutant", "inverse", "the first stage's ratio multiplies the second"),
    _entry("mutant", "ratio of the first stage", "the proposal's density counts in both stages"),
    _entry("mutant", "no second stage", "the cheap target decides"),
    _entry("mutant", "cycle", "a cycle, which is not reversible, in the first stage", unsymmetric),
)
