"""Missing data: elements that a mask leaves out, drawn anew beside every kernel.

A trace of a target that observes part of an array holds a value for the rest. A kernel that
moves latents given those values leaves them as they are, so that a chain would be
conditioned on what was drawn for them at its start. Drawing them anew, given the latents,
after each step is a Gibbs step for them (Tanner and Wong 1987), and exact where nothing
depends on them.
"""

from __future__ import annotations

from functools import lru_cache

import jax

from ppl import Target, Trace
from ppl.missing import check_nothing_depends, partly_observed

from ..kernel import Kernel
from ..kernels import cycle
from ..recipe import made_again


@lru_cache(maxsize=16)
def imputing(kernel: Kernel, target: Target) -> Kernel:
    """`kernel`, then new values for the missing elements; `kernel` itself if there are none.

    Raises:
      InvalidArgument: something depends on missing elements.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh
    >>> from inference.targets.missing import imputing
    >>> from ppl import Masked, Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0).expand([2]))
    >>> seen = Masked(jnp.array([1.0, 0.0]), jnp.array([True, False]))
    >>> target = Target(model, (), {"y": seen})
    >>> imputing(mh(target, "mu"), target).name
    'cycle'
    """
    if not partly_observed(target):
        return kernel
    check_nothing_depends(target)

    return cycle(kernel, _imputation(target, kernel.members, kernel.draws))


@made_again
def _imputation(target: Target, members: int | None, draws: int | None) -> Kernel:
    """New values for the missing elements, given all latents."""

    def one(trace: Trace) -> Trace:
        return target.generate(target.choices(trace))[0]

    drawn = one if members is None else jax.vmap(one)
    return Kernel(
        "imputation",
        lambda _, traces: (drawn(traces), {}),
        members=members,
        draws=draws,
        target=target,
    )
