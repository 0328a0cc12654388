"""The compiled programs of runs, kept for the next run of a kernel of the same recipe on equal
shapes. Each takes what a chain has of its own, and then what all chains share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax

from ..kernels import iterate
from .blocks import Source
from .chains import Chains


@lru_cache(maxsize=16)
def kinds_of(source: Source) -> Any:
    """Of a state and parameters: the state after a step, and its latents."""

    def kinds(data: list, state: Any, parameters: Any) -> tuple[Any, dict]:
        programs = source.blocks(data)
        return programs.after(state, parameters), programs.latents(state)

    return jax.jit(kinds)


@lru_cache(maxsize=16)
def begin_of(source: Source, chains: Chains, how: str, warmup: int) -> Callable:
    def begin(keys: jax.Array, given: dict, data: list) -> tuple:
        return source.blocks(data).begin(keys, given, how, warmup)

    return jax.jit(chains.over(begin))


@lru_cache(maxsize=16)
def freeze_of(source: Source, chains: Chains) -> Callable:
    def freeze(tuning: Any, data: list) -> Any:
        return source.blocks(data).kernel.warm().freeze(tuning)

    return jax.jit(chains.over(freeze))


@lru_cache(maxsize=16)
def steps_of(source: Source, chains: Chains, thin: int, buffer: int) -> Callable:
    def steps(
        key: jax.Array, tuning: Any, frozen: Any, state: Any, data: list, start: Any,
        count: Any, warming: Any,
    ) -> tuple:  # fmt: skip
        programs = source.blocks(data)
        if thin > 1:
            programs = replace(programs, kernel=iterate(programs.kernel, thin))
        return programs.steps(buffer)(key, tuning, frozen, state, start, count, warming)

    return jax.jit(chains.over(steps))
