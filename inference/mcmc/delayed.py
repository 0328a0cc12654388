"""Delayed acceptance: a cheap target screens what an expensive one decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl import Target, Trace, errors
from ppl.addresses import flatten

from ..kernel import Kernel, Stats, Tuning, as_kernel
from ..move import accepted
from ..validation.objects import check_target
from ..validation.same import check_same

FIRST = "first/"


class Screened(NamedTuple):
    """The same latents as traces of the target and of the cheap one."""

    trace: Trace
    cheap: Trace


def delayed_acceptance(kernel: Callable[[Any], Any], cheap: Target, target: Target) -> Kernel:
    """`kernel` moves within `cheap`; `target` then accepts or refuses. Keeps `target`.

    For a kernel that is reversible for the cheap target (`mh`, `random_walk`, `hmc`,
    `slice_sample`, ..., `metropolize`; not a `cycle` of them), the move from x to x' is
    accepted with probability min(1, p(x') c(x) / (p(x) c(x'))), for the densities p and c.
    With one Metropolis step this is delayed acceptance (Christen and Fox 2005); in general,
    Liu's surrogate transitions (Liu 2001, section 9.4.3). Where the kernel stays, the target
    is not evaluated (but under `vmap` it is).

    Statistics: `accept` (of the second stage), and those of the kernel, as `first/...`. The
    kernel's tuning is that of its own statistics.

    Args:
      kernel: on traces of `cheap`, reversible for it.
      cheap: its latents are those of `target`; an approximation of any quality.

    Raises:
      InvalidArgument: the two targets have different latents.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import sample_posterior
    >>> from inference.mcmc.delayed import delayed_acceptance
    >>> from inference.mcmc.random_walk import random_walk
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model(scale):
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, scale))
    >>> target, cheap = Target(model, (1.0,), {"y": 2.0}), Target(model, (1.3,), {"y": 2.0})
    >>> kernel = delayed_acceptance(random_walk(cheap), cheap, target)
    >>> draws = sample_posterior(jax.random.key(0), target, kernel)
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    check_target(cheap)
    check_target(target)
    first = as_kernel(kernel)
    fix = f"delayed_acceptance(kernel, cheap, target): {first.name.split()[0]}(cheap, ...)"
    check_same(f"The kernel {first.name}", first.target, cheap, "the cheap target", fix)
    _check_latents(cheap, target)

    def step(parameters: Any, at: Any) -> tuple[Any, Stats]:
        inner, stats = first.step(parameters, first.enter(at.cheap))
        moved = first.leave(inner)
        stayed = [jnp.all(a == b) for a, b in _pairs(cheap, at.cheap, moved)]

        def same(_: Trace) -> tuple[Trace, jax.Array]:
            return at.trace, jnp.zeros_like(at.trace.score)

        def new(moved: Trace) -> tuple[Trace, jax.Array]:
            trace, difference = target.moved(at.trace, cheap.choices(moved))
            return trace, difference - (moved.score - at.cheap.score)

        trace, log_ratio = jax.lax.cond(jnp.all(jnp.array(stayed)), same, new, moved)
        screened: Any = Screened(trace, moved)
        kept, probability = accepted(at, screened, log_ratio)
        return kept, {"accept": probability, **{FIRST + k: v for k, v in stats.items()}}

    def update(tuning: Any, at: Screened, stats: Stats) -> Any:
        mine = {k.removeprefix(FIRST): v for k, v in stats.items() if k.startswith(FIRST)}
        return first.warm().update(tuning, first.enter(at.cheap), mine)

    def valid(at: Screened) -> jax.Array:
        finite = jnp.isfinite(at.trace.score) & jnp.isfinite(at.cheap.score)
        return finite if first.valid is None else finite & first.valid(first.enter(at.cheap))

    own = first.tuning
    tuning = own and Tuning(
        init=lambda at, n: own.init(first.enter(at.cheap), n),
        parameters=own.parameters,
        update=update,
        freeze=own.freeze,
    )
    return Kernel(
        name=f"delayed {first.name}",
        step=step,
        parameters=first.parameters,
        tuning=tuning,
        enter=lambda trace: Screened(trace, cheap.at(target.choices(trace))[0]),
        leave=lambda at: at.trace,
        valid=valid,
        target=target,
    )


def _pairs(target: Target, old: Trace, new: Trace) -> list[tuple[Any, Any]]:
    before, after = flatten(target.choices(old)), flatten(target.choices(new))
    return [(before[path], after[path]) for path in before]


def _check_latents(cheap: Target, target: Target) -> None:
    if set(cheap.latents) != set(target.latents):
        known = "; ".join(errors.show(path) for path in target.latents)
        raise errors.InvalidArgument(
            "The cheap target has other latents than the target.", where=errors.caller(),
            given="; ".join(errors.show(path) for path in cheap.latents), expected=known,
            fix="make the same choices in both models",
        )  # fmt: skip
