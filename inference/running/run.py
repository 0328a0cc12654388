"""A run on the host: it drives jitted blocks of steps and does everything else between them.

That is progress, checkpoints, Ctrl-C, and looking for values that are no numbers. Step i of a
chain uses key i of the chain, so that neither the sizes of blocks nor what happens between them
can change a draw.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors, seed
from ppl.addresses import flatten, nest

from ..kernel import Kernel
from ..results.draws import Draws
from ..results.timing import Compilation, Timing
from ..targets.fingerprints import fingerprint, fingerprints, of_arrays
from .block_size import BlockSize
from .blocks import source_of
from .chains import Chains
from .checkpoint import Checkpoint
from .programs import Compiled, begin_of, freeze_of, keys_of, kinds_of, steps_of
from .progress import bar
from .starting import initial_trace, not_finite
from .warm_up import WarmUp, step_sizes

_BUFFER = 1024  # steps
_BUFFER_BYTES = 2**26
_ATTEMPTS = 100


class Run:
    """The state of a run on the host, and its jitted blocks."""

    def __init__(
        self, target: Target, kernel: Kernel, draws: int, warmup: int, thin: int, chains: Chains
    ):
        self.target, self.kernel, self.chains = target, kernel, chains
        self.draws, self.warmup, self.thin = draws, warmup, thin
        self.warmed = self.kept = 0
        self.arrays: dict[str, np.ndarray] = {}
        self.block_size = BlockSize()
        self.store: Checkpoint | None = None
        self.told = WarmUp()
        self.begun = time.perf_counter()
        self.compiled: list[Compilation] = []

    def all(
        self,
        key: jax.Array,
        how: str,
        given: dict,
        progress: bool,
        checkpoint: str | os.PathLike | None,
    ) -> Any:
        """The run from its start, or from a checkpoint, to its end: its result."""
        self.start(key, how, given)
        if checkpoint is not None:
            self.resume(checkpoint, how, given)
        with bar(progress) as advance:
            while self.warmed < self.warmup:
                self.warm_block()
                advance("warm-up", self.warmed, self.warmup)
            status = "complete"
            try:
                while self.kept < self.draws:
                    self.draw_block()
                    advance("sampling", self.kept, self.draws)
            except KeyboardInterrupt:
                if not self.kept:
                    raise
                status = f"interrupted after {self.kept} of {self.draws} draws"
        return self.result(status)

    def prepare(self, impl: str) -> None:
        """The source of its programs, and their data: of each chain, or of all.

        A program takes what each chain has of its own, then what they share.
        """
        self.source, data = source_of(self.target, self.kernel, impl)
        self.example, self.own, self.shared = data, (), (self.chains.share(data),)

    def place(self, chain: int) -> tuple[Target, str]:
        """The target of a chain, and how the chain is called."""
        return self.target, f"chain {chain}"

    def start(self, key: jax.Array, how: str, given: dict) -> None:
        """Keys, and states of finite density.

        Raises:
          NonFiniteStart: none was found.
          InvalidArgument: the kernel does not map states to states.
        """
        n, members = self.chains.n, self.kernel.members
        self.prepare(str(jax.random.key_impl(key)))
        starts, *keys = keys_of(key, n, members)
        self.keys = [np.asarray(each) for each in keys]
        given = {path: np.asarray(value) for path, value in flatten(given).items()}
        begin = begin_of(self.source, self.chains, how, self.warmup)
        for attempt in range(1, _ATTEMPTS + 1):
            own = (np.asarray(jax.random.key_data(starts)), given)
            given_to = (*self.chains.put(own), *self.own), self.shared
            state, tuning, finite = begin(given_to, self.compiled)
            ok = self.chains.get(finite)
            if ok.all():
                self._compile(state, tuning)
                return
            again = jax.vmap(lambda k, i=attempt: jax.random.fold_in(k, i))(starts.ravel())
            starts = jnp.where(ok, starts, again.reshape(starts.shape))
        chain = int(np.argmin(ok.reshape(n, -1).all(1)))
        mine = starts[chain] if members is None else starts[chain][int(np.argmin(ok[chain]))]
        values = nest({path: value[chain] for path, value in given.items()})
        target, called = self.place(chain)
        trace = seed(partial(initial_trace, target, how))(mine, values)
        raise not_finite(target, trace, called, _ATTEMPTS)

    def _compile(self, state: Any, tuning: Any) -> None:
        """Make the blocks, after checking that the kernel keeps the kind of its state."""
        self.state, self.tuning = state, tuning
        self.freeze = freeze_of(self.source, self.chains)
        self.frozen = self._frozen()
        size = self._checked()
        room = max(1, _BUFFER_BYTES // max(1, size * self.chains.n))
        longest = max(self.draws, self.warmup)
        # a power of two, so that other numbers of draws find the same program
        self.buffer = min(1 << (longest - 1).bit_length(), _BUFFER, room)
        self.warm = steps_of(self.source, self.chains, 1, self.buffer)
        self.draw = steps_of(self.source, self.chains, self.thin, self.buffer)

    def _frozen(self) -> Any:
        """The parameters that warm-up has come to."""
        return self.freeze(((self.tuning, *self.own), self.shared), self.compiled)

    def _checked(self) -> int:
        """Bytes of one draw, after checking that a step keeps the kind of the state.

        Raises:
          InvalidArgument: it does not.
        """
        state, parameters = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (self.state, self.frozen)
        )
        after, rows = kinds_of(self.source).eval_shape(self.example, state, parameters)
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
            self.frozen = self._frozen()
        self._save()

    def draw_block(self) -> None:
        """Some draws more.

        Raises:
          NonFiniteDraw: a value is no finite number.
        """
        count = self.block_size.next(min(self.buffer, self.draws - self.kept))
        block = self._advance(self.draw, self.kept, count, False)
        self._collect(block)
        if self.store is not None and jax.process_index() == 0:
            self.store.save_draws(self.kept, block)
        self.kept += count
        self._save()

    def _arguments(self, start: int, count: int, warming: bool) -> tuple[tuple, tuple]:
        keys = self.chains.put(self.keys[0 if warming else 1])
        own = (keys, self.tuning, self.frozen, self.state, *self.own)
        return own, (*self.shared, np.asarray(start), np.asarray(count), np.asarray(warming))

    def _advance(self, block: Compiled, start: int, count: int, warming: bool) -> dict:
        """Run a block; its latents and statistics by name."""
        result = self.block_size.timed(
            block, (self._arguments(start, count, warming), self.compiled)
        )
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
                called = self.place(chain)[1]
                error = errors.NonFiniteDraw(
                    f"The run made a value of {errors.show(path)} that is no finite number.",
                    where=(
                        f"{called}, {what}{start + draw} (all from 0), "
                        f"{errors.show(path)} at {self.target.sites[path].source}",
                        errors.caller(),
                    ),
                    given=f"{x[chain, draw]}",
                    expected="finite values: a kernel may not put a chain outside the support",
                    fix="error.draws has the draws before; correct the kernel's proposal there",
                )
                error.draws = self.result("stopped at a value that is no number")
                raise error

    def fingerprints(self) -> dict[str, str]:
        """What it is a run on."""
        return fingerprints(self.target)

    def resume(self, path: str | os.PathLike, how: str, given: dict) -> None:
        """Go on from the checkpoint in the folder `path`, if there is one."""
        arguments = self._arguments(0, 1, True)
        programs = [block.text(arguments) for block in (self.warm, self.draw)]
        settings = {"draws": self.draws, "warmup": self.warmup, "thin": self.thin}
        identity = {
            **self.fingerprints(),
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
                of_before, kept, self.kept = self.store.draws(self.kept), self.kept, 0
                self._collect(of_before)
                self.kept = kept

    def _collect(self, block: dict[str, np.ndarray]) -> None:
        """Keep some draws more, in arrays for all of them: no block stays on a device, and the
        result is never there twice. What is not yet drawn takes no memory."""
        for name, x in block.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((x.shape[0], self.draws, *x.shape[2:]), x.dtype)
            self.arrays[name][:, self.kept : self.kept + x.shape[1]] = x

    def _save(self) -> None:
        if self.store is not None:
            leaves = self.chains.get(jax.tree.leaves((self.state, self.tuning, self.frozen)))
            if jax.process_index() == 0:
                self.store.save_state(leaves, self.warmed, self.kept, self.told.sums)

    def result(self, status: str) -> Any:
        """The draws so far."""
        return self.of(self.target, slice(None), status)

    def of(self, target: Target, chains: slice, status: str) -> Draws:
        """The draws so far of some of the chains, which are those of `target`."""
        arrays = {name: x[chains, : self.kept] for name, x in self.arrays.items()}
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
        ordered = nest({path: choices[path] for path in target.latents if path in choices})
        frozen = jax.tree.map(lambda x: x[chains], self.chains.get(self.frozen))
        told = WarmUp({name: x[:, chains] for name, x in self.told.sums.items()})
        tuned = told.tuned(self.kernel, frozen, self.warmup)
        n = len(range(self.chains.n)[chains])
        stats |= step_sizes(self.kernel, tuned, (n, self.kept))
        timing = Timing(time.perf_counter() - self.begun, tuple(self.compiled))
        return Draws(ordered, stats, target, status, tuned, timing=timing)


def _shapes(pairs: list[tuple]) -> str:
    return "; ".join(f"{b.dtype}{list(b.shape)} for {a.dtype}{list(a.shape)}" for a, b in pairs)
