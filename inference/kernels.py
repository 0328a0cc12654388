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

    Leaves `target` invariant: the ratio is `regenerate`'s weight (Hastings 1970).

    Raises:
      AddressNotFound: the selection names no choice of the model.
      InvalidArgument: the selection names an observed choice.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh, start, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> def fair_after(kernel):  # start at the target, make a step
    ...     s = start(target)(unit())
    ...     return jnp.exp(s.log_weight) * kernel(s.value)["fair"]
    >>> mass = integrate(fair_after)(mh(target, "fair"))
    >>> print(f"{mass:.4f}")  # p(fair, heads) = 1/2 * 1/2, as before the step
    0.2500
    """
    chosen = target.selection(selection)

    def kernel(trace: Trace) -> Trace:
        changed, log_ratio, _ = target.regenerate(trace, chosen)
        return accept(trace, changed, log_ratio)

    return kernel


def cycle(*kernels: Kernel) -> Kernel:
    """The kernels one after the other. Invariant if each is; `cycle()` stays put.

    >>> import numpyro.distributions as dist
    >>> from inference import cycle
    >>> from ppl import draw, law
    >>> up = lambda x: x + draw(dist.Bernoulli(0.5))
    >>> law(cycle(up, up))(0).masses.tolist()
    [0.25, 0.5, 0.25]
    """

    def kernel(trace: Trace) -> Trace:
        for each in kernels:
            trace = each(trace)
        return trace

    return kernel


def mixture(kernels: Sequence[Kernel], weights: Any = None) -> Kernel:
    """One of the kernels, chosen with fixed `weights`. Invariant if each is.

    Args:
      weights: probabilities, of shape (number of kernels,); all the same if left out.
        They may not depend on the state.

    Raises:
      InvalidDistribution: raised at the first run, when they do not add up to one.

    >>> from inference import mixture
    >>> from ppl import law
    >>> moves = mixture([lambda x: x, lambda x: x + 1], [0.25, 0.75])
    >>> law(moves)(5).values.tolist(), law(moves)(5).masses.tolist()
    ([5, 6], [0.25, 0.75])
    """
    n = len(kernels)
    weights = jnp.full(n, 1.0 / n) if weights is None else jnp.asarray(weights)

    def kernel(trace: Trace) -> Trace:
        return jax.lax.switch(draw(dist.Categorical(weights)), list(kernels), trace)

    return kernel


def iterate(kernel: Kernel, n: int) -> Kernel:
    """`n` applications of `kernel`, by `lax.scan`. Invariant if it is.

    `n` is a Python int; the state keeps its shapes and dtypes.

    >>> import numpyro.distributions as dist
    >>> from inference import iterate
    >>> from ppl import draw, law
    >>> up = lambda x: x + draw(dist.Bernoulli(0.5))
    >>> law(iterate(up, 3))(0).masses.round(4).tolist()
    [0.125, 0.375, 0.375, 0.125]
    """

    def kernels(trace: Trace) -> Trace:
        return jax.lax.scan(lambda t, _: (kernel(t), None), trace, None, length=n)[0]

    return kernels
