"""Single-site Metropolis-Hastings on traces, and what can be wrong with its ratio.

One of the choices that the trace has is redrawn from the model, with those that appear.
With n and n' the numbers of choices, the log ratio is

    log p(t') - log p(t) + log q(discarded) - log q(fresh) + log n - log n'

(Wingate, Stuhlmüller and Goodman, AISTATS 2011; Ścibior et al., POPL 2018, section 7).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference.move import accept
from ppl import Target, Trace, draw, select
from ppl.addresses import flatten
from semantics import check_kernel, programs
from semantics.generated.finite import Path

from .cases import BRANCHES, FORK, OPTIONAL, positive
from .ratios import total
from .registry import Entry, Kind

PARTS = 12  # a uniform on so many values picks among one, two or three choices evenly


def single_site(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """The kernel, with one thing `wrong`."""
    movable = list(target.sites) if wrong == "observed" else target.latents

    def redraw(path: Path, trace: Trace) -> Trace:
        return target.model.regenerate(trace, select(path))[0]

    def kernel(trace: Trace) -> Trace:
        here = _present(trace, movable)
        share = draw(dist.DiscreteUniform(0, PARTS - 1)) if wrong == "reuse" else None
        if wrong == "any address":
            site = draw(dist.CategoricalProbs(jnp.full(len(movable), 1 / len(movable))))
        elif share is not None:
            site = jnp.argmax(jnp.cumsum(here) > share * here.sum() // PARTS)
        else:
            site = draw(dist.CategoricalProbs(here / here.sum()))
        new = jax.lax.switch(site, [partial(redraw, path) for path in movable], trace)
        if wrong == "always":
            return new
        there = _present(new, movable)
        ratio = _ratio(target, trace, new, movable, site, wrong)
        lengths = jnp.log(here.sum()) - jnp.log(there.sum())
        sign = {"inverted": -1.0, "missing": 0.0, "any address": 0.0}.get(wrong, 1.0)
        ratio = (1 + ratio) * lengths if wrong == "multiplied" else ratio + sign * lengths
        if share is not None:
            taken = share + 0.5 < PARTS * jnp.exp(ratio)
            return jax.tree.map(lambda a, b: jnp.where(taken, b, a), trace, new)
        return accept(trace, new, jax.nn.log_sigmoid(ratio) if wrong == "Barker" else ratio)

    return kernel


def _ratio(
    target: Target, trace: Trace, new: Trace, movable: list[Path], site: jax.Array, wrong: str
) -> jax.Array:
    """log p(t') - log p(t) + log q(discarded) - log q(fresh)."""
    chosen = jnp.arange(len(movable)) == site
    before, after = _present(trace, movable), _present(new, movable)
    fresh = _density(target, new, movable, after & (chosen | ~before))
    discarded = _density(target, trace, movable, before & (chosen | ~after))
    terms = {
        "new score": trace.score - discarded + fresh if wrong == "not rescored" else new.score,
        "old score": -trace.score,
        "discarded": discarded,
        "fresh": -fresh,
    }
    return total(terms, wrong)


def _present(trace: Trace, paths: list[Path]) -> jax.Array:
    flags = flatten(trace.present)
    return jnp.stack([jnp.asarray(flags.get(path, True)) for path in paths])


def _density(target: Target, trace: Trace, paths: list[Path], which: jax.Array) -> jax.Array:
    """The log density of some of the choices."""
    each = [target.model.project(trace, select(path)) for path in paths]
    return jnp.where(which, jnp.stack(each), 0.0).sum()


CASES = positive(OPTIONAL, FORK, BRANCHES)
ALL = programs.discrete(shapes=("pair", "branch", "mask"))
SOME = programs.discrete(shapes=("branch",))


def _entry(kind: Kind, wrong: str, says: str) -> Entry:
    cases = {"mutant": CASES, "correct": ALL, "equivalent": SOME}[kind]
    make = partial(single_site, wrong=wrong)
    return Entry("trace MH", wrong or "correct", says, partial(check_kernel, make, cases), kind)


ENTRIES = (
    _entry("correct", "", "as published"),
    _entry("equivalent", "Barker", "accepted with probability r / (1 + r)"),
    _entry("equivalent", "any address", "absent choices may be picked too; no lengths then"),
    _entry("mutant", "inverted", "lengths inverted: n'/n"),
    _entry("mutant", "missing", "lengths left out"),
    _entry("mutant", "multiplied", "log ratio multiplied by lengths, not added"),
    _entry("mutant", "not rescored", "kept choices keep their old density"),
    _entry("mutant", "fresh", "density of the fresh choices left out"),
    _entry("mutant", "discarded", "density of the discarded choices left out"),
    _entry("mutant", "new score", "density of the new trace left out"),
    _entry("mutant", "old score", "density of the old trace left out"),
    _entry("mutant", "observed", "observed choices are redrawn too"),
    _entry("mutant", "always", "every proposal accepted"),
    _entry("mutant", "reuse", "one uniform picks the choice and accepts"),
)
