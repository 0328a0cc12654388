"""What a run does on its devices, for one chain: to begin, and a block of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Target, Trace, seed
from ppl.addresses import flatten, nest
from ppl.arguments import Arguments

from ..kernel import Kernel
from .starting import initial_trace


@dataclass(frozen=True, eq=False)
class Blocks:
    """The programs of a run of `kernel` on `target`, with keys given as data of kind `impl`.

    States leave these programs without the arguments in their traces, which all chains
    share, and get them back inside.
    """

    target: Target
    kernel: Kernel
    impl: Any

    def begin(self, keys: jax.Array, given: dict, how: str, warmup: int) -> tuple:
        """The state and tuning to start from, and whether they are finite."""
        keys = jax.random.wrap_key_data(keys, impl=self.impl)
        begin = seed(lambda values: initial_trace(self.target, how, nest(values)))
        if self.kernel.members is None:
            trace = begin(keys, given)
        else:
            trace = jax.vmap(begin, (0, None))(keys, given)
        state = self.kernel.enter(trace)
        finite = jnp.isfinite(trace.score)
        if self.kernel.valid is not None:
            finite = finite & self.kernel.valid(state)
        return bare(state), self.kernel.warm().init(state, warmup), finite

    def steps(self, buffer: int) -> Callable[..., tuple]:
        """`(key, tuning, frozen, state, start, count, warming) -> (tuning, state, kept)`.

        `count` steps from number `start` on, and in buffers of `buffer` the latents and
        statistics after each. While warming, parameters are those of the tuning, which
        each step updates; after that they are `frozen`, and the tuning is not looked at.
        """
        kernel, tune = self.kernel, self.kernel.warm()

        def steps(key, tuning, frozen, state, start, count, warming):
            key = jax.random.wrap_key_data(key, impl=self.impl)

            def one(key: jax.Array, tuning: Any, state: Any) -> tuple:
                now = jax.lax.cond(warming, lambda: tune.parameters(tuning), lambda: frozen)
                state, stats = seed(kernel.step)(jax.random.fold_in(key, 0), now, state)
                tuning = jax.lax.cond(
                    warming,
                    lambda: seed(tune.update)(jax.random.fold_in(key, 1), tuning, state, stats),
                    lambda: tuning,
                )
                return tuning, state, (flatten(self.read(state)), stats)

            def step(i: Any, carry: tuple) -> tuple:
                tuning, state, kept = carry
                tuning, state, row = one(jax.random.fold_in(key, start + i), tuning, state)
                return tuning, state, jax.tree.map(lambda b, x: b.at[i].set(x), kept, row)

            state = self.whole(state)
            rows = jax.eval_shape(one, key, tuning, state)[2]
            kept = jax.tree.map(lambda x: jnp.zeros((buffer, *x.shape), x.dtype), rows)
            tuning, state, kept = jax.lax.fori_loop(0, count, step, (tuning, state, kept))
            return tuning, bare(state), kept

        return steps

    def after(self, state: Any, parameters: Any) -> Any:
        """The state after one step with a fixed key, to compare its kind."""
        key = jax.random.key(0, impl=self.impl)
        return bare(seed(self.kernel.step)(key, parameters, self.whole(state))[0])

    def latents(self, state: Any) -> dict:
        """The latents of a state that has left, by path."""
        return flatten(self.read(self.whole(state)))

    def read(self, state: Any) -> dict:
        """The latents of a state; with a member axis in front if it is a population."""
        kernel, target = self.kernel, self.target
        if kernel.read is not None:
            return kernel.read(state)
        trace = kernel.leave(state)
        if kernel.members is None:
            return target.choices(trace)
        return jax.tree.map(lambda x: x[: kernel.draws], jax.vmap(target.choices)(trace))

    def whole(self, state: Any) -> Any:
        """The state with the target's arguments in its traces again."""
        arguments = Arguments.of(self.target.args, {}, self.target.model.fixed)
        n = self.kernel.members
        if n is not None:
            arguments = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *jnp.shape(x))), arguments)
        return _with_arguments(state, arguments)


@dataclass(frozen=True)
class Source:
    """What programs are compiled for: all of a run but its data, which are their arguments.

    Attributes:
      kind: what made the kernel, and the structures of target and parameters; or, of a kernel
        that cannot be made again, the kernel and the target, whose data are in the programs.
      impl: of keys.
      make: the programs' target and kernel, of the data.
    """

    kind: Hashable
    impl: str
    make: Callable[[list], tuple[Target, Kernel]] = field(compare=False)

    def blocks(self, data: list) -> Blocks:
        return Blocks(*self.make(data), self.impl)


def source_of(target: Target, kernel: Kernel, impl: str) -> tuple[Source, list]:
    """The source of the programs of a run, and their data: other data of equal shapes and kinds
    find the same programs."""
    recipe = kernel.recipe
    if recipe is None or type(target) is not Target:
        return Source((target, kernel), impl, lambda data: (target, kernel)), []
    data, tree = jax.tree.flatten((target, kernel.parameters))

    def make(data: list) -> tuple[Target, Kernel]:
        again, parameters = jax.tree.unflatten(tree, data)
        return again, recipe.make(again, parameters)

    return Source((recipe, tree), impl, make), data


def bare(state: Any) -> Any:
    """The state without the arguments in its traces."""
    return _with_arguments(state, None)


def _with_arguments(state: Any, arguments: Any) -> Any:
    def replaced(x: Any) -> Any:
        return dataclasses.replace(x, arguments=arguments) if isinstance(x, Trace) else x

    return jax.tree.map(replaced, state, is_leaf=lambda x: isinstance(x, Trace))
