"""Random programs whose long loops the host drives: `seed(f)(key)`, in blocks of steps.

What `f` does before, between and after its outermost loops is compiled as it is; of a loop, one
block of steps is, whose number is an argument. So a block is the same program however many steps
it has, and the host may show, save and stop between two of them. Every step has the randomness
that `seed` gives it: steps and their keys are those of the staged program (`ppl.program`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ppl.program import DRAW, Draw, Loop, Step, While
from ppl.randomness import Seed, checked_key, program_of
from ppl.staging import Staged
from ppl.walk import construct, walk

from .shared_programs import Shared

_BUFFER = 1024  # steps
_BUFFER_BYTES = 2**26
_RULE = Seed()

Slots: TypeAlias = dict[int, Any]
"""Values of the staged program by their number."""


@dataclass(frozen=True, eq=False)
class Scanned:
    """A `lax.scan`, of which the number of steps is known; `avals` are those of its rows."""

    step: Loop
    avals: tuple[Any, ...]

    @property
    def length(self) -> int:
        return self.step.length

    @property
    def buffer(self) -> int:
        """How many steps a block has at most."""
        size = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in self.avals)
        return max(1, min(_BUFFER, _BUFFER_BYTES // max(1, size), self.length))

    @property
    def rows(self) -> tuple[int, ...]:
        """The slots of what it gives for each step."""
        return self.step.outputs[self.step.carries :]

    def start(self, args: list, keys: Any) -> tuple[Any, Any]:
        """The state before the first step, and what does not change."""
        split = self.step.constants + self.step.carries
        carry = [_strong(x) for x in args[self.step.constants : split]]
        return carry, (args[: self.step.constants], args[split:], keys)

    def block(self, fixed: Any, state: Any, start: Any, count: Any) -> tuple[Any, list]:
        """`count` steps from number `start` on: the state after them, and a buffer of rows."""
        shared, own, keys = fixed

        def one(i: Any, carried: tuple) -> tuple:
            carry, kept = carried
            row = start + i
            row = self.length - 1 - row if self.step.reverse else row
            x, mine = jax.tree.map(lambda leaf: leaf[row], (own, keys))
            outs, _, _ = walk(self.step.body, [*shared, *carry, *x], _RULE, mine)
            rows = zip(kept, outs[self.step.carries :], strict=True)
            return outs[: self.step.carries], [b.at[i].set(y) for b, y in rows]

        kept = [jnp.zeros((self.buffer, *x.shape[1:]), x.dtype) for x in self.avals]
        return jax.lax.fori_loop(0, count, one, (list(state), kept))

    def done(self, state: Any, most: int) -> tuple[int, bool]:
        """How many steps are done, at most so many, and whether there are no more."""
        return most, most == self.length

    def outs(self, state: Any, rows: list) -> list:
        """What the loop gives, its rows in the order of its inputs."""
        return [*state, *(x[::-1] if self.step.reverse else x for x in rows)]


@dataclass(frozen=True, eq=False)
class Turned:
    """A `lax.while_loop`, which says itself when it is over; it has no rows."""

    step: While

    length = None
    buffer = 1 << 30
    avals: tuple[Any, ...] = ()
    rows: tuple[int, ...] = ()

    def start(self, args: list, keys: Any) -> tuple[Any, Any]:
        """The state before the first turn, and what does not change."""
        key, alive, carry = _first(self)(args, keys)
        state = jnp.zeros((), int), jax.random.key_data(key), alive, carry
        return state, (args, keys)

    def block(self, fixed: Any, state: Any, start: Any, count: Any) -> tuple[Any, list]:
        """`count` turns, or fewer if the loop is over: the state after them."""
        args, keys = fixed
        _, turn = _RULE.turns(self.step, args)

        def one(state: tuple) -> tuple:
            number, data, alive, carry = state
            key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))
            key, alive, carry = turn((key, alive, carry))
            return number + 1, jax.random.key_data(key), alive, carry

        def going(state: tuple) -> jax.Array:
            return state[2] & (state[0] < start + count)

        return jax.lax.while_loop(going, one, state), []

    def done(self, state: Any, most: int) -> tuple[int, bool]:
        """How many turns are done, at most so many, and whether there are no more."""
        return int(state[0]), not bool(state[2])

    def outs(self, state: Any, rows: list) -> list:
        """What the loop gives."""
        return state[3]


@dataclass(frozen=True, eq=False)
class Hosted:
    """The programs of a random program: what is around its loops, and a block of each loop.

    Attributes:
      staged: the random program.
      loops: its outermost loops that draw, in order.
      around: the steps before, between and after them: one more than there are loops.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.running.host_loop import Hosted
    >>> from ppl import draw, seed
    >>> def walk():
    ...     def step(x, _):
    ...         x = x + draw(dist.DiscreteUniform(1, 6))
    ...         return x, x
    ...     return jax.lax.scan(step, 0, None, length=5)[0]
    >>> programs = Hosted.of(walk)
    >>> slots, keys = programs.begin(jax.random.key(0))
    >>> state, fixed = programs.start(0, slots, keys)
    >>> for start, count in ((0, 2), (2, 3)):
    ...     state, rows = programs.block(0)(fixed, state, start, count)
    >>> state[0].item() == seed(walk)(jax.random.key(0)).item()
    True
    """

    staged: Staged
    loops: tuple[Scanned | Turned, ...]
    around: tuple[tuple[Step, ...], ...]

    @classmethod
    def of(cls, f: Callable[[], Any]) -> Hosted:
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

    def start(self, loop: int, slots: Slots, keys: Any) -> tuple[Any, Any]:
        """The state of a loop before its first step, and what does not change."""
        step = self.loops[loop].step
        return self.loops[loop].start([slots[i] for i in step.inputs], keys[step.name])

    def block(self, loop: int) -> Shared:
        """`(fixed, state, start, count) -> (state, rows)`, compiled once for its text."""
        return _block(self, loop)

    def finished(self, loop: int, slots: Slots, state: Any, rows: list) -> Slots:
        """The slots with what a loop gave."""
        outs = self.loops[loop].outs(state, rows)
        return {**slots, **dict(zip(self.loops[loop].step.outputs, outs, strict=True))}

    @cached_property
    def ends_by_rows(self) -> bool:
        """Whether nothing after the last loop is computed from its rows.

        Then some of its rows make a result, too: fewer rows, beside what its last step left.
        """
        rows = {*self.loops[-1].rows}
        return not any(rows & {*step.inputs} for step in self.around[-1])

    def result(self, slots: Slots) -> Any:
        """What the random program returns."""
        return self.staged.rebuild([slots[i] for i in self.staged.program.outputs])


@lru_cache(maxsize=64)
def _first(loop: Turned) -> Callable[[list, Any], tuple]:
    return Shared(lambda args, keys: _RULE.turns(loop.step, args)[0](keys))


@lru_cache(maxsize=16)
def _parted(staged: Staged) -> Hosted:
    avals = staged.program.avals
    loops: list[Scanned | Turned] = []
    around: list[list[Step]] = [[]]
    for step in staged.program.steps:
        if DRAW in step.effects and isinstance(step, Loop):
            loops.append(Scanned(step, tuple(avals[i] for i in step.outputs[step.carries :])))
        elif DRAW in step.effects and isinstance(step, While):
            loops.append(Turned(step))
        else:
            around[-1].append(step)
            continue
        around.append([])
    return Hosted(staged, tuple(loops), tuple(map(tuple, around)))


@lru_cache(maxsize=64)
def _keys(programs: Hosted) -> Callable:
    return Shared(lambda key: _RULE.enter(programs.staged.program, key))


@lru_cache(maxsize=64)
def _between(programs: Hosted, part: int) -> Callable[[Slots, Any], Slots]:
    """The steps around `part`, from the slots they read to those they write for others."""
    steps = programs.around[part]
    read = {i for later in programs.around[part + 1 :] for step in later for i in step.inputs}
    read.update(i for loop in programs.loops[part:] for i in loop.step.inputs)
    read.update(programs.staged.program.outputs)

    def run(slots: Slots, keys: Any) -> Slots:
        made: Slots = {}
        for step in steps:
            args = [made[i] if i in made else slots[i] for i in step.inputs]
            if DRAW not in step.effects:
                outs = step.evaluate(*args)
            elif isinstance(step, Draw):
                outs = _RULE.visit(step, args, keys)[0]
            else:
                outs = construct(step, args, _RULE, keys)[0]
            made.update(zip(step.outputs, outs, strict=True))
        return {i: x for i, x in made.items() if i in read}

    return Shared(run)


@lru_cache(maxsize=64)
def _block(programs: Hosted, loop: int) -> Shared:
    return Shared(programs.loops[loop].block)


def _strong(x: Any) -> jax.Array:
    """An array whose type is not that of a Python number: such as a block gives back."""
    x = jnp.asarray(x)
    return x.astype(x.dtype) if getattr(x, "weak_type", False) else x


def on_host(x: Any) -> np.ndarray:
    """All of an array, on this host, what is on other processes' devices too."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        from jax.experimental import multihost_utils  # only where there are several processes

        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
