"""The compiled programs of runs, kept for the next run of a kernel of the same recipe on equal
shapes. Each takes what a chain has of its own, and then what all chains share.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from ..kernels import iterate
from ..results.effort import effort
from ..results.timing import Compilation
from .blocks import Source
from .chains import Chains

LOG = logging.getLogger(__name__)


class Compiled:
    """`jax.jit` of a program that runs from the host, with an account of its compilations."""

    def __init__(self, name: str, program: Callable):
        self.name = name
        self.jitted: Any = jax.jit(program, compiler_options=effort(2))
        self.kinds: list[str] = []  # of the arguments that it was compiled for last

    def __call__(self, arguments: tuple, made: list[Compilation]) -> Any:
        """The program's result; if it was compiled for that, `made` has one more."""
        known, before = self.jitted._cache_size(), time.perf_counter()
        result = self.jitted(*arguments)
        if self.jitted._cache_size() > known:
            kinds, old = _kinds(arguments), self.kinds
            why = _change(old, kinds) if old else "new"
            self.kinds = kinds
            made.append(Compilation(self.name, time.perf_counter() - before, why))
            LOG.info("compiled %s in %.1f s: %s", self.name, made[-1].seconds, why)
        return result

    def text(self, arguments: tuple) -> str:
        """The program for such arguments, as it is handed to the compiler."""
        return self.jitted.lower(*arguments).as_text()


def _kinds(arguments: tuple) -> list[str]:
    return [f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in jax.tree.leaves(arguments)]


def _change(old: list[str], new: list[str]) -> str:
    """How arguments differ, for people; those that differ alike are named once."""
    if len(old) != len(new):
        return f"{len(new)} arrays, where there were {len(old)}"
    pairs = dict.fromkeys((b, a) for a, b in zip(old, new, strict=True) if a != b)
    told = [f"{b} for {a}" for b, a in pairs]
    return ", ".join(told) or "arrays on other devices, or of other structures"


def keys_of(key: jax.Array, n: int, members: int | None) -> tuple[jax.Array, ...]:
    """Of n chains: keys to start from (of each member), and data of keys to warm up and to draw."""
    return _keys()(key, n, members)


@lru_cache(maxsize=1)
def _keys() -> Callable:
    # whole numbers are right at any level
    return jax.jit(_split, static_argnums=(1, 2), compiler_options=effort(0))


def _split(key: jax.Array, n: int, members: int | None) -> tuple[jax.Array, ...]:
    each = jax.vmap(lambda k: jax.random.split(k, 3))(jax.random.split(key, n))
    starts, warm, draw = each[:, 0], each[:, 1], each[:, 2]
    if members is not None:
        starts = jax.vmap(lambda k: jax.random.split(k, members))(starts)
    return starts, jax.random.key_data(warm), jax.random.key_data(draw)


@lru_cache(maxsize=16)
def kinds_of(source: Source) -> Any:
    """Of a state and parameters: the state after a step, and its latents."""

    def kinds(data: list, state: Any, parameters: Any) -> tuple[Any, dict]:
        programs = source.blocks(data)
        return programs.after(state, parameters), programs.latents(state)

    return jax.jit(kinds)


@lru_cache(maxsize=16)
def begin_of(source: Source, chains: Chains, how: str, warmup: int) -> Compiled:
    def begin(keys: jax.Array, given: dict, data: list) -> tuple:
        return source.blocks(data).begin(keys, given, how, warmup)

    return Compiled("begin", chains.over(begin))


@lru_cache(maxsize=16)
def freeze_of(source: Source, chains: Chains) -> Compiled:
    def freeze(tuning: Any, data: list) -> Any:
        return source.blocks(data).kernel.warm().freeze(tuning)

    return Compiled("freeze", chains.over(freeze))


@lru_cache(maxsize=16)
def steps_of(source: Source, chains: Chains, thin: int, buffer: int) -> Compiled:
    def steps(
        key: jax.Array, tuning: Any, frozen: Any, state: Any, data: list, start: Any,
        count: Any, warming: Any,
    ) -> tuple:  # fmt: skip
        programs = source.blocks(data)
        if thin > 1:
            programs = replace(programs, kernel=iterate(programs.kernel, thin))
        return programs.steps(buffer)(key, tuning, frozen, state, start, count, warming)

    return Compiled("steps", chains.over(steps))
