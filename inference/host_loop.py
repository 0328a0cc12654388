"""Random programs whose long loops the host drives: `seed(f)(key)`, in blocks of steps.

What `f` does before, between and after its outermost loops is compiled as it is; of a loop, one
block of steps is, whose number is an argument. So a block is the same program however many steps
it has, and the host may show, save and stop between two of them. Every step has the randomness
that `seed` gives it: steps and their keys are those of the staged program (`ppl.program`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.program import DRAW, Draw, Loop, Step
from ppl.randomness import Seed, checked_key, program_of
from ppl.staging import Staged
from ppl.walk import construct, walk

_BUFFER = 1024  # steps
_BUFFER_BYTES = 2**26

Slots = dict[int, Any]
"""Values of the staged program by their number."""


@dataclass(frozen=True, eq=False)
class HostLoop:
    """The programs of a random program: what is around its loops, and a block of each loop.

    Attributes:
      staged: the random program.
      loops: its outermost loops that draw, in order.
      around: the steps before, between and after them: one more than there are loops.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.host_loop import HostLoop
    >>> from ppl import draw, seed
    >>> def walk():
    ...     def step(x, _):
    ...         x = x + draw(dist.Normal(0.0, 1.0))
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, None, length=5)
    >>> programs = HostLoop.of(walk)
    >>> slots, keys = programs.begin(jax.random.key(0))
    >>> carry, *fixed = programs.operands(0, slots, keys)
    >>> for start, count in ((0, 2), (2, 3)):
    ...     carry, rows = programs.block(0)(*fixed, carry, start, count)
    >>> abs(carry[0] - seed(walk)(jax.random.key(0))[0]).item() < 1e-6
    True
    """

    staged: Staged
    loops: tuple[Loop, ...]
    around: tuple[tuple[Step, ...], ...]

    @classmethod
    def of(cls, f: Callable[[], Any]) -> HostLoop:
        """The programs of `f`; the same ones if it is the same function.

        Raises:
          OutsideModel: `f` makes addressed choices without being a generative function.
        """
        return _parted(program_of(f, (), {})[0])

    def begin(self, key: jax.Array) -> tuple[Slots, Any]:
        """What is known before the first loop, and the keys (or base randomness) of all steps.

        Raises:
          InvalidKey: `key` is not one PRNG key.
        """
        constants = dict(self.staged.program.constants)
        keys = _keys(self)(checked_key(key))
        return self.past(0, constants, keys), keys

    def past(self, part: int, slots: Slots, keys: Any) -> Slots:
        """The slots after the steps around `part`: before the first loop, or after one."""
        steps = self.around[part]
        read = {i: slots[i] for step in steps for i in step.inputs if i in slots}
        mine = {step.name: keys[step.name] for step in steps if DRAW in step.effects}
        return {**slots, **_between(self, part)(read, mine)}

    def operands(self, loop: int, slots: Slots, keys: Any) -> tuple[list, list, list, Any]:
        """The carry of a loop, what its steps share, what each has of its own, and its keys."""
        step = self.loops[loop]
        split = step.constants + step.carries
        args = [slots[i] for i in step.inputs]
        return args[step.constants : split], args[: step.constants], args[split:], keys[step.name]

    def block(self, loop: int) -> Callable[..., tuple[list, list]]:
        """`(shared, own, keys, carry, start, count) -> (carry, rows)`, in a buffer of rows."""
        return _block(self, loop)

    def buffer(self, loop: int) -> int:
        """How many steps a block has at most."""
        avals = self.staged.program.avals
        rows = [avals[i] for i in self.rows(loop)]
        size = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in rows)
        return max(1, min(_BUFFER, _BUFFER_BYTES // max(1, size), self.loops[loop].length))

    def rows(self, loop: int) -> tuple[int, ...]:
        """The slots of what a loop gives for each of its steps."""
        step = self.loops[loop]
        return step.outputs[step.carries :]

    def finished(self, loop: int, slots: Slots, carry: list, rows: list) -> Slots:
        """The slots with what a loop gave, and rows in the order of its inputs."""
        step = self.loops[loop]
        if step.reverse:
            rows = [x[::-1] for x in rows]
        return {**slots, **dict(zip(step.outputs, [*carry, *rows], strict=True))}

    @cached_property
    def ends_by_rows(self) -> bool:
        """Whether nothing after the last loop is computed from its rows.

        Then some of its rows make a result, too: fewer rows, beside what its last step left.
        """
        rows = {*self.rows(len(self.loops) - 1)}
        return not any(rows & {*step.inputs} for step in self.around[-1])

    def result(self, slots: Slots) -> Any:
        """What the random program returns."""
        return self.staged.rebuild([slots[i] for i in self.staged.program.outputs])


@lru_cache(maxsize=16)
def _parted(staged: Staged) -> HostLoop:
    loops: list[Loop] = []
    around: list[list[Step]] = [[]]
    for step in staged.program.steps:
        if isinstance(step, Loop) and DRAW in step.effects:
            loops.append(step)
            around.append([])
        else:
            around[-1].append(step)
    return HostLoop(staged, tuple(loops), tuple(map(tuple, around)))


@lru_cache(maxsize=64)
def _keys(programs: HostLoop) -> Callable:
    return jax.jit(lambda key: Seed().enter(programs.staged.program, key))


@lru_cache(maxsize=64)
def _between(programs: HostLoop, part: int) -> Callable[[Slots, Any], Slots]:
    """The steps around `part`, from the slots they read to those they write for others."""
    steps = programs.around[part]
    rule = Seed()
    read = {i for step in _later(programs, part) for i in step.inputs}
    read.update(programs.staged.program.outputs)

    def run(slots: Slots, keys: Any) -> Slots:
        made: Slots = {}
        for step in steps:
            args = [made[i] if i in made else slots[i] for i in step.inputs]
            if DRAW not in step.effects:
                outs = step.evaluate(*args)
            elif isinstance(step, Draw):
                outs = rule.visit(step, args, keys)[0]
            else:
                outs = construct(step, args, rule, keys)[0]
            made.update(zip(step.outputs, outs, strict=True))
        return {i: x for i, x in made.items() if i in read}

    return jax.jit(run)


def _later(programs: HostLoop, part: int) -> Iterable[Step]:
    for loop, steps in zip(programs.loops[part:], programs.around[part + 1 :], strict=True):
        yield loop
        yield from steps


@lru_cache(maxsize=64)
def _block(programs: HostLoop, loop: int) -> Callable[..., tuple[list, list]]:
    step, rule = programs.loops[loop], Seed()
    avals = [programs.staged.program.avals[i] for i in programs.rows(loop)]
    buffer = programs.buffer(loop)

    def block(shared, own, keys, carry, start, count):
        def one(i: Any, state: tuple) -> tuple:
            carry, kept = state
            row = start + i
            row = step.length - 1 - row if step.reverse else row
            x, mine = jax.tree.map(lambda leaf: leaf[row], (own, keys))
            outs, _, _ = walk(step.body, [*shared, *carry, *x], rule, mine)
            rows = zip(kept, outs[step.carries :], strict=True)
            return outs[: step.carries], [b.at[i].set(y) for b, y in rows]

        kept = [jnp.zeros((buffer, *x.shape[1:]), x.dtype) for x in avals]
        return jax.lax.fori_loop(0, count, one, (list(carry), kept))

    return jax.jit(block)


def on_host(x: Any) -> np.ndarray:
    """All of an array, on this host, what is on other processes' devices too."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        from jax.experimental import multihost_utils  # only where there are several processes

        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
