"""Many data sets of one model at once: a simulation study in one compiled program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors
from ppl.randomness import checked_key

from ..kernel import Kernel, check_maker, kernel_for
from ..results.draws import Draws
from ..targets.fingerprints import of_arrays
from ..targets.missing import imputing
from ..validation.objects import check_on_host, check_target
from ..validation.settings import shown
from .blocks import Source
from .chains import Chains
from .run import Run
from .sampling import OUTSIDE, check_run
from .starting import given_values

MOST = 512
"""Chains in lockstep where it is not said how many."""


def sample_posteriors(
    key: jax.Array,
    targets: Sequence[Target],
    make: Callable[[Target], Any],
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
) -> list[Draws]:
    """`sample_posterior` of each of many targets, all at once: `chains` chains of each.

    They are targets of one model, with arguments and observations of equal shapes: data sets of
    a simulation study, say. One program runs all chains of all of them, and is compiled once, for
    any number of draws and for other data. Each chain has a warm-up of its own.

    Args:
      key: one PRNG key. Which draws a target has depends on its place, too.
      make: from a target to its kernel, such as `nuts`, or a function that gives it settings. It
        is called with targets whose data are traced, and may compute settings from them. A
        function that is kept finds the programs of the call before.
      batch_size: how many of the chains, of all targets together, run in lockstep. If left out,
        some hundreds: of more chains some trajectory is always long, and all others wait for it.
      draws, warmup, thin, chains, initial, mesh, progress, checkpoint: as in `sample_posterior`.
        Chains are split over devices, and given values are one value for all chains, or have an
        axis of all of them in front, those of one target after those of the one before.

    Returns:
      The draws of each target, in order. If Ctrl-C stops the run while it samples, those so far.

    Raises:
      InvalidArgument: there are no targets; they differ in more than numbers; or `make` makes no
        kernel of the target that it is given.
      NonFiniteStart, NonFiniteDraw, CheckpointError, InvalidKey: as in `sample_posterior`, with
        the place of the target.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import nuts, sample_posteriors
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> targets = [Target(model, (), {"y": y}) for y in (-2.0, 0.0, 2.0)]
    >>> found = sample_posteriors(jax.random.key(0), targets, nuts, draws=250, warmup=250)
    >>> [round(float(each["mu"].mean())) for each in found]
    [-1, 0, 1]
    """
    check_on_host("A run of chains", OUTSIDE, key, initial, targets)
    key = checked_key(key)
    check_run(draws, warmup, thin, chains, progress, checkpoint)
    check_maker(make)
    targets = _alike(targets)
    # of two, since a function that looks at no target makes the kernel of some of them
    kernel, *_ = [imputing(kernel_for(target, make), target) for target in targets[:2]]
    n = chains * len(targets)
    split = Chains(n, _usual(n) if batch_size is None else batch_size, mesh)
    run = _DataSets(targets, make, kernel, draws, warmup, thin, split)
    how, given = given_values(targets[0], initial, split.n)
    return run.all(key, how, given, progress, checkpoint)


class _DataSets(Run):
    """A run whose chains have data of their own, an equal number of them in a row the same."""

    def __init__(
        self, targets: list[Target], make: Callable[[Target], Any], kernel: Kernel, *how: Any
    ):
        super().__init__(targets[0], kernel, *how)
        self.targets, self.make = targets, make

    @property
    def each(self) -> int:
        """Chains of one data set."""
        return self.chains.n // len(self.targets)

    def prepare(self, impl: str) -> None:
        leaves, tree = jax.tree.flatten(self.targets[0])
        make = self.make

        def of(data: list) -> tuple[Target, Kernel]:
            target = jax.tree.unflatten(tree, data)
            return target, imputing(kernel_for(target, make), target)

        self.source = Source((make, tree), impl, of)
        every = zip(*map(jax.tree.leaves, self.targets), strict=True)
        rows = [jnp.repeat(jnp.stack(list(map(jnp.asarray, x))), self.each, 0) for x in every]
        self.example, self.own, self.shared = leaves, (self.chains.put(rows),), ()

    def place(self, chain: int) -> tuple[Target, str]:
        number, chain = divmod(chain, self.each)
        return self.targets[number], f"target {number}, chain {chain}"

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), "targets": of_arrays(self.own)}

    def result(self, status: str) -> list[Draws]:
        return [
            self.of(target, slice(i * self.each, (i + 1) * self.each), status)
            for i, target in enumerate(self.targets)
        ]


def _usual(n: int) -> int:
    """A size of batches that divides `n`, so that no smaller one is compiled beside it, where
    there is one that is neither small nor large."""
    return max((size for size in range(MOST // 4, MOST + 1) if n % size == 0), default=MOST)


def _alike(targets: Any) -> list[Target]:
    """The targets as a list.

    Raises:
      InvalidArgument: there are none, or they differ in more than numbers.
    """
    if isinstance(targets, Target) or not isinstance(targets, Sequence) or not targets:
        raise errors.InvalidArgument(
            "There are no targets.", where=errors.caller(), given=shown(targets),
            expected="a list of targets of one model",
            fix='[Target(model, (), {"y": y}) for y in data]',
        )  # fmt: skip
    for target in targets:
        check_target(target)
    first = _kind(targets[0])
    for i, target in enumerate(targets):
        kind = _kind(target)
        if kind != first or type(target) is not Target:
            raise errors.InvalidArgument(
                f"Target {i} differs from the first one in more than numbers.",
                where=errors.caller(), given=_told(target), expected=_told(targets[0]),
                fix="targets of one model, with arguments and observations of equal shapes",
            )  # fmt: skip
    return list(targets)


def _kind(target: Target) -> tuple[Any, list]:
    leaves, tree = jax.tree.flatten(target)
    return tree, [(np.shape(x), jnp.result_type(x)) for x in leaves]


def _told(target: Target) -> str:
    """A target for people: where its model is defined, and the kinds of what it is given."""

    def kinds(tree: Any) -> str:
        return ", ".join(f"{jnp.result_type(x)}{list(np.shape(x))}" for x in jax.tree.leaves(tree))

    seen = [f"{errors.show(path)} {kinds(value)}" for path, value in target.observed.items()]
    return (
        f"{target.model.name} at {errors.defined(target.model.fn)} of ({kinds(target.args)}), "
        f"observed {', '.join(seen) or 'nothing'}"
    )
