"""Gibbs sampling of finite choices by enumeration, and what can be wrong with a conditional.

Each choice in turn is drawn from its conditional given all others: p(trace with value k),
normalised over k (Geman and Geman 1984).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Target, Trace, draw, select
from ppl.addresses import nest
from semantics import check_kernel
from semantics.generated.finite import Path

from .cases import FORK, positive
from .registry import family


def gibbs(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """A sweep over the latent choices, with one thing `wrong`."""
    tables = target.args[0]
    paths = target.latents[::-1] if wrong in ("in reverse", "child") else target.latents
    forgotten = {"child": "b", "collapsed": "b", "observation": "c"}.get(wrong)

    def values(path: Path) -> jax.Array:
        size = tables[path[-1]].shape[-1]
        return jnp.arange(size - 1 if wrong == "support" else size)

    def conditional(trace: Trace, path: Path) -> jax.Array:
        def log_density(value: jax.Array) -> jax.Array:
            changed = target.update(trace, nest({path: value}))[0]
            if forgotten is not None and path != (forgotten,):
                return changed.score - target.model.project(changed, select(forgotten))
            return changed.score

        return jax.nn.softmax(jax.vmap(log_density)(values(path)))

    def redraw(trace: Trace, path: Path, probabilities: jax.Array) -> Trace:
        if wrong == "most probable":
            value = jnp.argmax(probabilities)
        else:
            value = draw(dist.CategoricalProbs(probabilities))
        changed = target.update(trace, nest({path: value}))[0]
        return replace(changed, score=trace.score) if wrong == "score" else changed

    def kernel(trace: Trace) -> Trace:
        cache = {path: conditional(trace, path) for path in paths} if wrong == "cache" else {}
        for path in paths:
            trace = redraw(trace, path, cache.get(path, conditional(trace, path)))
        return trace

    return kernel


_entry = family("Gibbs", check_kernel, gibbs, positive(FORK))

ENTRIES = (
    _entry("correct", "", "each conditional given the others now"),
    _entry("equivalent", "in reverse", "the choices in the opposite order"),
    _entry("equivalent", "collapsed", "`a` from its conditional without `b`, and then `b`"),
    _entry("mutant", "cache", "stale cache: all conditionals from the state before the sweep"),
    _entry("mutant", "child", "the conditional forgets a latent child, which is not drawn next"),
    _entry("mutant", "observation", "the conditional forgets a child that is observed"),
    _entry("mutant", "support", "support off by one: the last value is left out"),
    _entry("mutant", "most probable", "the most probable value, not a draw"),
    _entry("mutant", "score", "stale cache: the trace keeps its old score"),
)
