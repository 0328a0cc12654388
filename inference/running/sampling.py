"""Running a kernel on a target: chains, warm-up, blocks, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax

from ppl import Target, Trace
from ppl.randomness import checked_key

from ..kernel import Kernel, as_kernel
from ..results.draws import Draws
from ..targets.missing import imputing
from ..validation.objects import check_on_host, check_target
from ..validation.same import check_same
from ..validation.settings import check_count, check_flag
from .chains import Chains
from .checkpoint import checked_folder
from .run import Run
from .starting import given_values

OUTSIDE = "call it outside of jit, as it compiles itself; sample_posteriors for many data sets"


def sample_posterior(
    key: jax.Array,
    target: Target,
    kernel: Callable[[Trace], Trace],
    *,
    draws: int = 1000,
    warmup: int = 1000,
    thin: int = 1,
    chains: int = 4,
    initial: str | Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> Draws:
    """Draws of the target's latents from `chains` chains of `kernel`.

    Each chain runs `warmup` steps, in which the kernel may tune its parameters, then
    `draws * thin` steps with the parameters fixed, of which every `thin`-th is kept.

    Args:
      key: one PRNG key; the same key gives the same draws, whatever is shown or saved.
      kernel: a `Kernel`, or any random program from traces to traces, that leaves
        `target` invariant.
      initial: where to start: `"uniform"` in (-2, 2) of the unconstrained space where
        there is one, from the prior elsewhere (the default); `"prior"`; or values of
        some latents, of the shape of the choice or with a chain axis in front.
      batch_size: how many chains run in lockstep; all when left out. Chains whose
        steps take very different times (NUTS) may be faster one by one.
      mesh: chains are split over its first axis, each device running its own.
      progress: a bar, on a terminal only.
      checkpoint: a folder, saved to after each block; a run that finds one of itself
        there goes on from it, to the same draws bit for bit.

    Returns:
      Draws with chain and draw axes in front. If Ctrl-C stops the run while it samples,
      the draws so far, and `status` says so.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      InvalidArgument: a count is not positive, devices do not divide the chains, or the kernel
        was made for another target: another model, other arguments or other data.
      NonFiniteStart: no start with a finite density was found, before any loop compiles.
      NonFiniteDraw: a value is no finite number; it names chain, draw and address, and
        has the draws before the block.
      CheckpointError: the checkpoint is damaged, or of another run.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh, sample_posterior
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> draws = sample_posterior(jax.random.key(0), target, mh(target, "fair"))
    >>> fair = draws.summary()["fair"]
    >>> bool(abs(fair["mean"] - 0.4) < 5 * fair["mcse_mean"])
    True
    """
    check_on_host("A run of chains", OUTSIDE, key, initial, target)
    key = checked_key(key)
    check_run(draws, warmup, thin, chains, progress, checkpoint)
    check_target(target)
    kernel = _lifted(kernel)
    fix = f"make the kernel of the target of the run: {kernel.name.split()[0]}(target, ...)"
    check_same(f"The kernel {kernel.name}", kernel.target, target, "the target of the run", fix)
    kernel = imputing(kernel, target)
    run = Run(target, kernel, draws, warmup, thin, Chains(chains, batch_size, mesh))
    how, given = given_values(target, initial, chains)
    return run.all(key, how, given, progress, checkpoint)


def check_run(
    draws: int, warmup: int, thin: int, chains: int, progress: bool, checkpoint: Any
) -> None:
    """Raise `InvalidArgument` unless the settings of a run are in range."""
    for name, value, least in (
        ("draws", draws, 1), ("warmup", warmup, 0), ("thin", thin, 1), ("chains", chains, 1),
    ):  # fmt: skip
        check_count(name, value, least)
    check_flag("progress", progress)
    if checkpoint is not None:
        checked_folder(checkpoint)


@lru_cache(maxsize=64)
def _known(kernel: Callable) -> Kernel:
    return as_kernel(kernel)


def _lifted(kernel: Callable) -> Kernel:
    try:
        return _known(kernel)
    except TypeError:  # a callable that cannot be hashed is compiled each time
        return as_kernel(kernel)
