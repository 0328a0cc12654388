"""`Weighted` values denote measures; steps map them to one another.

A `Weighted(value, log_weight)` denotes the measure <<s>>(f) = E[mean_i e^(w_i) f(x_i)],
over its leading particle axis if it has one. A *step* is a random program from
`Weighted` to `Weighted`; it is proper from g to g' when <<s>> = g implies
<<step(s)>> = g' (Ścibior et al., POPL 2018). Everything here keeps that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Target, draw


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Weighted:
    """A value (or particles, stacked in front) with unnormalised log weights."""

    value: Any
    log_weight: jax.Array


Step = Callable[[Weighted], Weighted]


def unit() -> Weighted:
    """The unit measure on the one-point space: where every algorithm starts."""
    return Weighted((), jnp.zeros((), float))


def then(*steps: Step) -> Step:
    """Composition, left to right; `then()` is the identity. Proper if each step is."""

    def composed(weighted: Weighted) -> Weighted:
        for step in steps:
            weighted = step(weighted)
        return weighted

    return composed


def each(step: Step) -> Step:
    """`step` on every particle, independently. Proper from g to g' if `step` is."""
    return lambda weighted: jax.vmap(step)(weighted)


def lift(kernel: Callable[[Any], Any]) -> Step:
    """A kernel that leaves g invariant, as a proper step from g to g (weight kept)."""
    return lambda weighted: Weighted(kernel(weighted.value), weighted.log_weight)


def start(target: Target) -> Step:
    """From the unit measure to `target`: latents from the model, weighted by the rest."""

    def begin(weighted: Weighted) -> Weighted:
        trace, log_weight = target.generate()
        return Weighted(trace, weighted.log_weight + log_weight)

    return begin


def spawn(n: int) -> Step:
    """`n` copies of one weighted value, as particles; the measure stays the same."""
    if n < 1:
        from ppl import errors

        raise errors.InvalidArgument(
            "A population needs at least one particle.", where=errors.caller(), given=n,
            expected="n >= 1", fix="spawn(100)",
        )  # fmt: skip

    def copies(weighted: Weighted) -> Weighted:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *jnp.shape(x))), weighted)

    return copies


def importance(target: Target, n: int) -> Step:
    """`n` independent weighted draws: `then(spawn(n), each(start(target)))`."""
    return then(spawn(n), each(start(target)))


def log_evidence(weighted: Weighted) -> jax.Array:
    """log of the total mass: an unbiased estimate on the natural scale."""
    w = weighted.log_weight
    if w.ndim == 0:
        return w
    return jax.nn.logsumexp(w) - jnp.log(w.shape[0]).astype(w.dtype)


def normalized(log_weights: jax.Array) -> jax.Array:
    """Weights that add up to one; uniform when all are zero (the evidence stays zero)."""
    top = jnp.max(log_weights)
    shifted = jnp.exp(log_weights - jnp.where(jnp.isfinite(top), top, 0.0))
    total = shifted.sum()
    n = log_weights.shape[0]
    return jnp.where(total > 0, shifted / jnp.where(total > 0, total, 1), 1 / n)


def collapse(weighted: Weighted) -> Weighted:
    """One particle, chosen by weight, carrying the mean weight; the measure stays the same."""
    i = draw(dist.Categorical(normalized(weighted.log_weight)))
    return Weighted(jax.tree.map(lambda x: x[i], weighted.value), log_evidence(weighted))
