"""Running an algorithm on a target: chains of a kernel, or runs of particles."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, overload

import jax

from ppl import Target, Trace, errors
from ppl.randomness import checked_key

from ..estimated.algorithms import Algorithm
from ..kernel import Kernel, as_kernel
from ..results.draws import Draws
from ..results.particles import Particles
from ..targets.missing import imputing
from ..validation.objects import check_on_host, check_target
from ..validation.same import check_same
from ..validation.settings import check_count, check_flag, shown
from ..weighted import Step
from .chains import Chains
from .checkpoint import checked_folder
from .independent_runs import makes_particles, particles_of
from .run import Run
from .starting import given_values

USUAL = {"draws": 1000, "warmup": 1000, "thin": 1}
OUTSIDE = "call it outside of jit, as it compiles itself; sample_posteriors for many data sets"


@overload
def sample_posterior(
    key: jax.Array,
    target: Target,
    algorithm: Callable[[Trace], Trace],
    *,
    draws: int | None = None,
    warmup: int | None = None,
    thin: int | None = None,
    chains: int | None = None,
    initial: str | Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> Draws: ...


@overload
def sample_posterior(
    key: jax.Array,
    target: Target,
    algorithm: Step | Algorithm | Callable[[], Any],
    *,
    chains: int | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> Particles: ...


def sample_posterior(
    key: jax.Array,
    target: Target,
    algorithm: Any,
    *,
    draws: int | None = None,
    warmup: int | None = None,
    thin: int | None = None,
    chains: int | None = None,
    initial: str | Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> Draws | Particles:
    """The posterior of the target's latents by an algorithm: a kernel, or one of particles.

    Of a kernel, 4 chains: each runs `warmup` steps, in which the kernel may tune its parameters,
    then `draws * thin` steps with the parameters fixed, of which every `thin`-th is kept.

    Of particles, 16 independent runs, which tell the error of all that is estimated; or one, where
    no particle depends on another, as in importance sampling. All is compiled, once for data of
    equal shapes. Of the settings they have `chains`, how many runs, `progress` and `checkpoint`.

    Args:
      key: one PRNG key; the same key gives the same draws, whatever is shown or saved.
      algorithm: a `Kernel`, or any random program from traces to traces, that leaves `target`
        invariant. Or what makes weighted particles of the target: a step as `importance`,
        `annealed`, `filter_series`, `smc2`, and all that `then` composes; an `Algorithm`, as
        `by_importance(1000, guide)`; or a random program without arguments, as
        `lambda: nested_sampling(target, 200)`.
      draws, warmup, thin: 1000, 1000 and 1 if left out.
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
      `Draws` with chain and draw axes in front; or `Particles`, with run and particle axes and
      log weights. If Ctrl-C stops the run while it samples, the draws (or the runs) so far, and
      `status` says so.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      InvalidArgument: a count is not positive, devices do not divide the chains, or the algorithm
        was made for another target: another model, other arguments or other data; or a setting of
        chains is given to particles.
      NonFiniteStart: no start with a finite density was found, before any loop compiles.
      NonFiniteDraw: a value is no finite number; it names chain, draw and address, and
        has the draws before the block.
      CheckpointError: the checkpoint is damaged, or of another run.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import importance, mh, sample_posterior
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> for algorithm in (mh(target, "fair"), importance(target, 1000)):
    ...     fair = sample_posterior(jax.random.key(0), target, algorithm).summary()["fair"]
    ...     print(bool(abs(fair["mean"] - 0.4) < 5 * fair["mcse_mean"]))
    True
    True
    """
    check_on_host("A run of chains", OUTSIDE, key, initial, target)
    key = checked_key(key)
    given = {"draws": draws, "warmup": warmup, "thin": thin}
    counts = {name: USUAL[name] if value is None else value for name, value in given.items()}
    many = 4 if chains is None else chains
    check_run(**counts, chains=many, progress=progress, checkpoint=checkpoint)
    check_target(target)
    if makes_particles(algorithm):
        more = {"initial": initial, "batch_size": batch_size, "mesh": mesh}
        _check_unset({**given, **more})
        return particles_of(key, target, algorithm, chains, progress, checkpoint)
    kernel = _lifted(algorithm)
    fix = f"make the kernel of the target of the run: {kernel.name.split()[0]}(target, ...)"
    check_same(f"The kernel {kernel.name}", kernel.target, target, "the target of the run", fix)
    kernel = imputing(kernel, target)
    run = Run(target, kernel, **counts, chains=Chains(many, batch_size, mesh))
    how, values = given_values(target, initial, many)
    return run.all(key, how, values, progress, checkpoint)


def _check_unset(settings: Mapping[str, Any]) -> None:
    """Raise `InvalidArgument` if a setting of chains is given to particles."""
    for name, value in settings.items():
        if value is not None:
            fix = "how many particles is a setting of the algorithm: annealed(target, 1000, ...)"
            raise errors.InvalidArgument(
                f"Particles have no setting {name}, which is of chains of a kernel.",
                where=errors.caller(), given=f"{name}={shown(value)}",
                expected="chains (how many runs), progress, checkpoint", fix=fix,
            )  # fmt: skip


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
