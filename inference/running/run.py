"""Running a kernel on a target: chains, warm-up, blocks, checkpoints.

The host drives jitted blocks of steps and does everything else between them: progress,
checkpoints, Ctrl-C, and looking for values that are no numbers. Step i of a chain uses
key i of the chain, so that neither the sizes of blocks nor what happens between them can
change a draw.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, Trace, errors, seed
from ppl.addresses import flatten, nest
from ppl.randomness import checked_key

from ..kernel import Kernel, as_kernel
from ..kernels import iterate
from ..results.draws import Draws
from ..targets.fingerprints import fingerprint, fingerprints, of_arrays
from ..targets.missing import imputing
from ..validation.objects import check_target
from ..validation.same import check_same
from ..validation.settings import check_count, check_flag
from .block_size import BlockSize
from .blocks import Source, source_of
from .chains import Chains
from .checkpoint import Checkpoint, checked_folder
from .progress import bar
from .starting import given_values, initial_trace, not_finite
from .warm_up import WarmUp, step_sizes

_BUFFER = 1024  # steps
_BUFFER_BYTES = 2**26
_ATTEMPTS = 100


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
    key = checked_key(key)
    for name, value, least in (
        ("draws", draws, 1), ("warmup", warmup, 0), ("thin", thin, 1), ("chains", chains, 1),
    ):  # fmt: skip
        check_count(name, value, least)
    check_flag("progress", progress)
    if checkpoint is not None:
        checked_folder(checkpoint)
    check_target(target)
    kernel = _lifted(kernel)
    fix = f"make the kernel of the target of the run: {kernel.name.split()[0]}(target, ...)"
    check_same(f"The kernel {kernel.name}", kernel.target, target, "the target of the run", fix)
    kernel = imputing(kernel, target)
    run = _Run(target, kernel, draws, warmup, thin, Chains(chains, batch_size, mesh))
    how, given = given_values(target, initial, chains)
    run.start(key, how, given)
    if checkpoint is not None:
        run.resume(checkpoint, how, given)
    with bar(progress) as advance:
        while run.warmed < warmup:
            run.warm_block()
            advance("warm-up", run.warmed, warmup)
        status = "complete"
        try:
            while run.kept < draws:
                run.draw_block()
                advance("sampling", run.kept, draws)
        except KeyboardInterrupt:
            if not run.kept:
                raise
            status = f"interrupted after {run.kept} of {draws} draws"
    return run.result(status)


class _Run:
    """The state of a run on the host, and its jitted blocks."""

    def __init__(
        self, target: Target, kernel: Kernel, draws: int, warmup: int, thin: int, chains: Chains
    ):
        self.target, self.kernel, self.chains = target, kernel, chains
        self.draws, self.warmup, self.thin = draws, warmup, thin
        self.warmed = self.kept = 0
        self.collected: list[dict] = []
        self.block_size = BlockSize()
        self.store: Checkpoint | None = None
        self.told = WarmUp()

    def start(self, key: jax.Array, how: str, given: dict) -> None:
        """Keys, and states of finite density.

        Raises:
          NonFiniteStart: none was found.
          InvalidArgument: the kernel does not map states to states.
        """
        n, members = self.chains.n, self.kernel.members
        source, data = source_of(self.target, self.kernel, str(jax.random.key_impl(key)))
        self.source, self.data = source, self.chains.share(data)
        starts, warm, draw = jnp.swapaxes(
            jax.vmap(lambda k: jax.random.split(k, 3))(jax.random.split(key, n)), 0, 1
        )
        self.keys = [np.asarray(jax.random.key_data(k)) for k in (warm, draw)]
        if members is not None:
            starts = jax.vmap(lambda k: jax.random.split(k, members))(starts)
        given = {path: np.asarray(value) for path, value in flatten(given).items()}
        begin = _begin(source, self.chains, how, self.warmup)
        for attempt in range(1, _ATTEMPTS + 1):
            own = (np.asarray(jax.random.key_data(starts)), given)
            state, tuning, finite = begin(self.chains.put(own), (self.data,))
            ok = self.chains.get(finite)
            if ok.all():
                self._compile(state, tuning)
                return
            again = jax.vmap(lambda k, i=attempt: jax.random.fold_in(k, i))(starts.ravel())
            starts = jnp.where(ok, starts, again.reshape(starts.shape))
        chain = int(np.argmin(ok.reshape(n, -1).all(1)))
        mine = starts[chain] if members is None else starts[chain][int(np.argmin(ok[chain]))]
        values = nest({path: value[chain] for path, value in given.items()})
        trace = seed(partial(initial_trace, self.target, how))(mine, values)
        raise not_finite(self.target, trace, chain, _ATTEMPTS)

    def _compile(self, state: Any, tuning: Any) -> None:
        """Make the blocks, after checking that the kernel keeps the kind of its state."""
        self.state, self.tuning = state, tuning
        self.freeze = _freeze(self.source, self.chains)
        self.frozen = self.freeze((tuning,), (self.data,))
        size = self._checked()
        room = max(1, _BUFFER_BYTES // max(1, size * self.chains.n))
        longest = max(self.draws, self.warmup)
        # a power of two, so that other numbers of draws find the same program
        self.buffer = min(1 << (longest - 1).bit_length(), _BUFFER, room)
        self.warm = _steps(self.source, self.chains, 1, self.buffer)
        self.draw = _steps(self.source, self.chains, self.thin, self.buffer)

    def _checked(self) -> int:
        """Bytes of one draw, after checking that a step keeps the kind of the state.

        Raises:
          InvalidArgument: it does not.
        """
        state, parameters = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (self.state, self.frozen)
        )
        after, rows = _kinds(self.source).eval_shape(self.data, state, parameters)
        same = jax.tree.structure(after) == jax.tree.structure(state)
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=False)
        wrong = [(a, b) for a, b in pairs if (a.shape, a.dtype) != (b.shape, b.dtype)]
        if not same or wrong:
            raise errors.InvalidArgument(
                f"The kernel {self.kernel.name} returns another kind of state than it was given.",
                where=errors.caller(),
                given=_shapes(wrong) if same else f"{type(after).__name__}: {after}",
                expected="a trace of the target in, a trace of the target out",
                fix="return the trace that target.update, regenerate or accept gave",
            )
        return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in rows.values())

    def warm_block(self) -> None:
        """Some steps of warm-up more.

        Raises:
          NonFiniteDraw: a value is no finite number.
        """
        count = self.block_size.next(min(self.buffer, self.warmup - self.warmed))
        self.told.add(self._advance(self.warm, self.warmed, count, True))
        self.warmed += count
        if self.warmed == self.warmup:
            self.frozen = self.freeze((self.tuning,), (self.data,))
        self._save()

    def draw_block(self) -> None:
        """Some draws more.

        Raises:
          NonFiniteDraw: a value is no finite number.
        """
        count = self.block_size.next(min(self.buffer, self.draws - self.kept))
        block = self._advance(self.draw, self.kept, count, False)
        self.collected.append(block)
        if self.store is not None and jax.process_index() == 0:
            self.store.save_draws(self.kept, block)
        self.kept += count
        self._save()

    def _arguments(self, start: int, count: int, warming: bool) -> tuple[tuple, tuple]:
        keys = self.chains.put(self.keys[0 if warming else 1])
        own = (keys, self.tuning, self.frozen, self.state)
        return own, (np.asarray(start), np.asarray(count), np.asarray(warming), self.data)

    def _advance(self, block: Callable, start: int, count: int, warming: bool) -> dict:
        """Run a block; its latents and statistics by name."""
        result = self.block_size.timed(block, self._arguments(start, count, warming))
        choices, stats = self.chains.get(result[2])
        names = {"choice:" + "\n".join(path): x for path, x in choices.items()}
        names.update({"stat:" + name: x for name, x in stats.items()})
        found = {name: x[:, :count] for name, x in names.items()}
        self._check_finite(found, f"{'warm-up step' if warming else 'draw'} ", start)
        self.tuning, self.state = result[:2]
        return found

    def _check_finite(self, block: dict[str, np.ndarray], what: str, start: int) -> None:
        for name, x in block.items():
            if not name.startswith("choice:") or not np.issubdtype(x.dtype, np.inexact):
                continue
            bad = ~np.isfinite(x)
            if bad.any():
                chain, draw, *_ = (int(i[0]) for i in np.nonzero(bad))
                path = tuple(name.removeprefix("choice:").split("\n"))
                error = errors.NonFiniteDraw(
                    f"The run made a value of {errors.show(path)} that is no finite number.",
                    where=(
                        f"chain {chain}, {what}{start + draw} (both from 0), "
                        f"{errors.show(path)} at {self.target.sites[path].source}",
                        errors.caller(),
                    ),
                    given=f"{x[chain, draw]}",
                    expected="finite values: a kernel may not put a chain outside the support",
                    fix="error.draws has the draws before; correct the kernel's proposal there",
                )
                error.draws = self.result("stopped at a value that is no number")
                raise error

    def resume(self, path: str | os.PathLike, how: str, given: dict) -> None:
        """Go on from the checkpoint in the folder `path`, if there is one."""
        arguments = self._arguments(0, 1, True)
        programs = [block.lower(*arguments).as_text() for block in (self.warm, self.draw)]
        settings = {"draws": self.draws, "warmup": self.warmup, "thin": self.thin}
        identity = {
            **fingerprints(self.target),
            "chains": str(self.chains.n),
            **{name: str(value) for name, value in settings.items()},
            "key": of_arrays(self.keys),
            "start": how if not given else f"values, {of_arrays(given)[:12]}",
            "kernel": self.kernel.name,
            "program": fingerprint(*(text.encode() for text in programs)),
        }
        self.store = Checkpoint(path, identity)
        leaves, tree = jax.tree.flatten((self.state, self.tuning, self.frozen))
        found = self.store.load(leaves)
        if found is not None:
            own, self.warmed, self.kept = found
            self.told = WarmUp(self.store.more)
            self.state, self.tuning, self.frozen = self.chains.put(jax.tree.unflatten(tree, own))
            if self.kept:
                self.collected = [self.store.draws(self.kept)]

    def _save(self) -> None:
        if self.store is not None:
            leaves = self.chains.get(jax.tree.leaves((self.state, self.tuning, self.frozen)))
            if jax.process_index() == 0:
                self.store.save_state(leaves, self.warmed, self.kept, self.told.sums)

    def result(self, status: str) -> Draws:
        blocks = self.collected
        names = blocks[0] if blocks else {}
        arrays = {n: np.concatenate([b[n] for b in blocks], 1) for n in names}
        choices, stats = {}, {}
        for name, x in arrays.items():
            kind, _, rest = name.partition(":")
            if kind == "stat":
                stats[rest] = x
                continue
            if self.kernel.members is not None and self.kernel.draws is not None:
                x = np.swapaxes(x, 1, 2)  # members of a population are chains of their own
                x = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
            choices[tuple(rest.split("\n"))] = x
        # jit sorts dicts; the model's own order reads better
        ordered = nest({path: choices[path] for path in self.target.latents if path in choices})
        tuned = self.told.tuned(self.kernel, self.chains.get(self.frozen), self.warmup)
        stats |= step_sizes(self.kernel, tuned, (self.chains.n, self.kept))
        return Draws(ordered, stats, self.target, status, tuned)


# Compiled programs are kept for the next run of a kernel of the same recipe on equal shapes.


@lru_cache(maxsize=64)
def _known(kernel: Callable) -> Kernel:
    return as_kernel(kernel)


def _lifted(kernel: Callable) -> Kernel:
    try:
        return _known(kernel)
    except TypeError:  # a callable that cannot be hashed is compiled each time
        return as_kernel(kernel)


@lru_cache(maxsize=16)
def _kinds(source: Source) -> Any:
    """Of a state and parameters: the state after a step, and its latents."""

    def kinds(data: list, state: Any, parameters: Any) -> tuple[Any, dict]:
        programs = source.blocks(data)
        return programs.after(state, parameters), programs.latents(state)

    return jax.jit(kinds)


@lru_cache(maxsize=16)
def _begin(source: Source, chains: Chains, how: str, warmup: int) -> Callable:
    def begin(keys: jax.Array, given: dict, data: list) -> tuple:
        return source.blocks(data).begin(keys, given, how, warmup)

    return jax.jit(chains.over(begin))


@lru_cache(maxsize=16)
def _freeze(source: Source, chains: Chains) -> Callable:
    def freeze(tuning: Any, data: list) -> Any:
        return source.blocks(data).kernel.warm().freeze(tuning)

    return jax.jit(chains.over(freeze))


@lru_cache(maxsize=16)
def _steps(source: Source, chains: Chains, thin: int, buffer: int) -> Callable:
    def steps(
        key: jax.Array, tuning: Any, frozen: Any, state: Any, start: Any, count: Any,
        warming: Any, data: list,
    ) -> tuple:  # fmt: skip
        programs = source.blocks(data)
        if thin > 1:
            programs = replace(programs, kernel=iterate(programs.kernel, thin))
        return programs.steps(buffer)(key, tuning, frozen, state, start, count, warming)

    return jax.jit(chains.over(steps))


def _shapes(pairs: list[tuple]) -> str:
    return "; ".join(f"{b.dtype}{list(b.shape)} for {a.dtype}{list(a.shape)}" for a, b in pairs)
