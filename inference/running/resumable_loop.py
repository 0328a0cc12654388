"""One loop of a random program on the host: block by block, saved after each, gone on from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..targets.fingerprints import fingerprint, of_arrays, plain
from .block_size import BlockSize
from .checkpoint import Checkpoint
from .host_loop import Hosted, Slots, on_host
from .progress import bar


class ResumableLoop:
    """The state on the host of loop number `loop`, of which `done` steps are done.

    >>> import jax, numpyro.distributions as dist
    >>> from inference.running.resumable_loop import ResumableLoop
    >>> from inference.running.host_loop import Hosted
    >>> from ppl import draw
    >>> def walk():
    ...     step = lambda x, _: (x + draw(dist.Normal(0.0, 1.0)), x)
    ...     return jax.lax.scan(step, 0.0, None, length=20)
    >>> programs = Hosted.of(walk)
    >>> resumable = ResumableLoop(programs, 0, *programs.begin(jax.random.key(0)))
    >>> resumable.block()
    >>> resumable.done, resumable.over
    (16, False)
    """

    def __init__(self, programs: Hosted, loop: int, slots: Slots, keys: Any, first: int = 16):
        self.programs, self.loop, self.slots = programs, loop, slots
        state, self.fixed = programs.start(loop, slots, keys)
        # the state, how many steps are done, and their rows: assigned at once, as Ctrl-C may
        # come between any two lines
        self.at: tuple[Any, int, list[list[np.ndarray]]] = state, 0, []
        self.run, self.block_size = programs.block(loop), BlockSize(first)
        self.store: Checkpoint | None = None

    @property
    def done(self) -> int:
        return self.at[1]

    @property
    def over(self) -> bool:
        return self.programs.loops[self.loop].done(*self.at[:2])[1]

    def block(self) -> None:
        """Some steps more."""
        loop, (state, start, blocks) = self.programs.loops[self.loop], self.at
        left = loop.buffer if loop.length is None else loop.length - start
        count = self.block_size.next(min(loop.buffer, left))
        state, rows = self.block_size.timed(self.run, self._arguments(state, start, count))
        done, _ = loop.done(state, start + count)
        new = [on_host(x)[: done - start] for x in rows]
        if self.store is not None:
            leaves = [on_host(x) for x in jax.tree.leaves(state)]
            if jax.process_index() == 0:
                # what the store counts on is a chain axis in front
                kept = {f"row {i}": x[None] for i, x in enumerate(new)}
                self.store.save_draws(start, {**kept, "steps": np.zeros((1, done - start))})
                self.store.save_state(leaves, 0, done)
        self.at = state, done, [*blocks, new]

    def _arguments(self, state: Any, start: int, count: int) -> tuple:
        return self.fixed, state, np.asarray(start), np.asarray(count)

    def resume(self, folder: Path, key: jax.Array) -> None:
        """Go on from the checkpoint in the folder, if there is one."""
        state, start, _ = self.at
        text = self.run.text(*self._arguments(state, start, 1))
        shapes = [f"{x.dtype}{list(x.shape)}" for x in map(plain, jax.tree.leaves(state))]
        identity = {
            "jax": jax.__version__,
            "sizes": f"{self.programs.loops[self.loop].length} steps of {', '.join(shapes)}",
            "key": of_arrays(jax.random.key_data(key)),
            "data": of_arrays(jax.tree.map(on_host, self.fixed[:-1])),  # last are the keys
            "begin": of_arrays(jax.tree.map(on_host, state)),
            "program": fingerprint(text.encode()),
        }
        self.store = Checkpoint(folder, identity)
        leaves, tree = jax.tree.flatten(state)
        found = self.store.load(leaves)
        if found is not None:
            saved, _, done = found
            state = jax.tree.unflatten(tree, [jnp.asarray(x) for x in saved])
            rows = self.store.draws(done)
            self.at = state, done, [[rows[f"row {i}"][0] for i in range(len(rows) - 1)]]

    def finished(self) -> Slots:
        """The slots after the loop, with the rows of the steps that are done."""
        state, _, blocks = self.at
        rows = []
        for i, aval in enumerate(self.programs.loops[self.loop].avals):
            none = np.zeros((0, *aval.shape[1:]), aval.dtype)
            rows.append(np.concatenate([none, *(block[i] for block in blocks)]))
        return self.programs.finished(self.loop, self.slots, state, rows)


def driven(
    programs: Hosted, key: jax.Array, progress: bool, checkpoint: str | os.PathLike | None,
    called: str = "steps", first: int = 16,
) -> tuple[Any, str]:  # fmt: skip
    """What the programs return, and "complete", or after how many steps they were interrupted.

    Args:
      called: what a step of a loop is.
      first: how many of them the first block has.
    """
    slots, keys = programs.begin(key)
    status = "complete"
    several = len(programs.loops) > 1
    with bar(progress) as advance:
        for i, loop in enumerate(programs.loops):
            resumable = ResumableLoop(programs, i, slots, keys, first)
            if checkpoint is not None:
                resumable.resume(Path(checkpoint, str(i)) if several else Path(checkpoint), key)
            phase = f"{called} of loop {i + 1}" if several else called
            try:
                while not resumable.over:
                    resumable.block()
                    advance(phase, resumable.done, loop.length)
            except KeyboardInterrupt:
                last = i == len(programs.loops) - 1
                if not (last and resumable.done and programs.ends_by_rows):
                    raise
                of = f" of {loop.length}" if loop.length else ""
                status = f"interrupted after {resumable.done}{of} {called}"
            slots = programs.past(i + 1, resumable.finished(), keys)
    return programs.result(slots), status
