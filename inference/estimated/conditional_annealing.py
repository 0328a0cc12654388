"""Annealing given one of its particles, which first goes back through the reversed kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import Target, Trace, draw

from ..kernel import check_maker
from ..smc.annealing import (
    MakeKernel,
    annealed,
    begun,
    check_powers,
    levels,
    on_latents,
    powered,
    schedule,
    traces_of,
)
from ..smc.particles import over, reweight
from ..smc.resample import when_ess_below
from ..smc.schemes import multinomial
from ..validation.settings import check_count, check_number
from ..weighted import Step, Weighted, each, lift, spawn, then, unit
from .algorithms import Algorithm, beside, check_known, with_held


def by_annealing(
    n: int,
    kernel: MakeKernel,
    powers: int | Sequence[float] | jax.Array = 16,
    *,
    reverse: MakeKernel,
    threshold: float = 0.5,
) -> Algorithm:
    """`annealed(target, n, kernel, powers)`, and the same around a trace, which has gone through
    the kernels backwards first.

    Args:
      n, kernel, powers, threshold: as for `annealed`, which resamples by `multinomial`.
      reverse: from a target to the kernel that is the reversal of `kernel` there: `kernel`
        itself where that is reversible (`mh`, `gibbs` of one block, `random_walk`, `hmc`), or
        `cycle(b, a)` for `cycle(a, b)`. Another one gives another density than the samples
        have; `semantics.check_kernel` of the two after each other does not show it, but
        `Kernel.reverse` of its matrix does.

    Raises:
      InvalidArgument: as for `annealed`, where it meets a target.

    Source: Andrieu, Doucet and Holenstein (2010), section 2.4, for the samplers of Del Moral,
    Doucet and Jasra, Sequential Monte Carlo samplers (JRSS B 2006).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import by_annealing, log_evidence, mh
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> again = lambda t: mh(t, "fair")
    >>> way = by_annealing(2, again, (0.0, 0.4, 1.0), reverse=again)
    >>> def inverse(fair):
    ...     found = way.given(target, target.at({"fair": fair})[0])
    ...     return jnp.exp(-log_evidence(found))
    >>> mean = 0.4 * integrate(inverse)(1) + 0.6 * integrate(inverse)(0)  # over the posterior
    >>> print(f"{1 / mean:.4f}")  # the evidence
    0.6250
    """
    check_count("n", n)
    check_number("threshold", threshold, least=0, most=1, fix=0.5)
    check_maker(kernel)
    check_maker(reverse)
    check_powers(powers)

    def step(target: Target) -> Step:
        return annealed(target, n, kernel, powers, threshold=threshold, scheme=multinomial)

    def given(target: Target, trace: Trace) -> Weighted:
        check_known(target)
        raised = schedule(target, powers)
        again = when_ess_below(threshold, _keeping_first) if threshold and n > 1 else then()

        def back(after: Any, power: Any) -> tuple[Any, Any]:
            return on_latents(target, reverse, power)(after), after

        first, path = lax.scan(back, target.choices(trace), raised[1:], reverse=True)

        def stage(row: tuple) -> Step:
            before, power, after = row
            more = reweight(lambda x: powered(levels(target, x), power - before))
            move = each(lift(on_latents(target, kernel, power)))

            def moved(s: Weighted) -> Weighted:
                held = Weighted(after, s.log_weight[0])
                return with_held(held, move(_others(s))) if n > 1 else spawn(1)(held)

            return then(more, again, moved)

        held = Weighted(first, powered(levels(target, first), raised[0]))
        began = beside(held, n, each(begun(target, raised[0])), unit())
        rows = raised[:-1], raised[1:], path
        return then(over(stage, rows), traces_of(target))(began)

    return Algorithm(f"by_annealing({n})", step, given)


def _others(s: Weighted) -> Weighted:
    return jax.tree.map(lambda leaf: leaf[1:], s)


def _keeping_first(weights: jax.Array) -> jax.Array:
    """Multinomial ancestors, given that the first particle is its own."""
    others = draw(dist.CategoricalProbs(weights).expand([len(weights) - 1]))
    return jnp.concatenate([jnp.zeros(1, others.dtype), others])
