"""Markov kernels on traces: random programs `trace -> trace` that keep a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Selection, Target, Trace, draw

from .move import accept

Kernel = Callable[[Trace], Trace]


def mh(target: Target, selection: Selection | str | tuple[str, ...]) -> Kernel:
    """Metropolis-Hastings that redraws the selected latents from the model.

    Leaves `target` invariant: the ratio is `regenerate`'s weight.
    """
    chosen = target.selection(selection)

    def kernel(trace: Trace) -> Trace:
        changed, log_ratio, _ = target.regenerate(trace, chosen)
        return accept(trace, changed, log_ratio)

    return kernel


def cycle(*kernels: Kernel) -> Kernel:
    """The kernels one after the other. Invariant if each is."""

    def kernel(trace: Trace) -> Trace:
        for each in kernels:
            trace = each(trace)
        return trace

    return kernel


def mixture(kernels: Sequence[Kernel], weights: Any = None) -> Kernel:
    """One of the kernels, chosen with fixed `weights`. Invariant if each is."""
    n = len(kernels)
    weights = jnp.full(n, 1.0 / n) if weights is None else jnp.asarray(weights)

    def kernel(trace: Trace) -> Trace:
        return jax.lax.switch(draw(dist.Categorical(weights)), list(kernels), trace)

    return kernel


def iterate(kernel: Kernel, n: int) -> Kernel:
    """`n` applications of `kernel`, by `lax.scan`."""

    def kernels(trace: Trace) -> Trace:
        return jax.lax.scan(lambda t, _: (kernel(t), None), trace, None, length=n)[0]

    return kernels
