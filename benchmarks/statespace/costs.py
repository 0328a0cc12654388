"""Programs that compute the same numbers, timed in turns by the time of the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..vi.environments import begun
from ..vi.turns import Peer, here, medians

HERE = Path(__file__).parent


def slopes(density: Callable, *args: Any) -> Callable[[], Any]:
    """A density and its gradient by all that is in the first argument, compiled when called."""
    return partial(jax.jit(jax.value_and_grad(density)), *args)


def values(density: Callable, *args: Any) -> Callable[[], Any]:
    """A density alone, compiled when called."""
    return partial(jax.jit(density), *args)


def first_call(run: Callable[[], Any]) -> float:
    """Seconds of the processor: traced, compiled and run."""
    start = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - start


def peers(scripts: Mapping[str, str], n: int) -> dict[str, Peer]:
    """Those of the peers that can be had, each a script of this folder, with n values."""
    found = {name: begun(name, str(HERE / script), n) for name, script in scripts.items()}
    return {name: peer for name, peer in found.items() if peer is not None}


def costs(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    others: Mapping[str, Peer] | None = None,
) -> dict[str, float]:
    """Milliseconds of the processor of a call of each; peers end with it.

    Raises:
      AssertionError: one does not give the numbers of the first.
    """
    others = others or {}
    try:
        right = _parts(next(iter(runs.values()))())
        for name, run in runs.items():
            _check(name, right, _parts(run()))
        for name, peer in others.items():
            _check(name, right, [np.asarray(peer.facts["value"]), np.asarray(peer.facts["slope"])])
        samplers = {**{name: here(run) for name, run in runs.items()}, **others}
        found = medians(list(samplers.values()), rounds)
    finally:
        for peer in others.values():
            peer.close()
    return {name: cost.cpu for name, cost in zip(samplers, found, strict=True)}


def _parts(found: Any) -> list[np.ndarray]:
    """The value, and the gradient in one row if there is one."""
    value, *slope = found if isinstance(found, tuple) else (found,)
    rows = [np.ravel(leaf) for leaf in jax.tree.leaves(slope)]
    return [np.asarray(value), *([np.concatenate(rows)] if rows else [])]


def _check(name: str, right: list[np.ndarray], found: list[np.ndarray]) -> None:
    """Sums of up to a million terms, each with some units of rounding: 1e-8 of the value.

    An entry of a gradient is a difference of sums as large as the largest: 1e-7 of that.
    """
    for part, due, rtol in zip(found, right, (1e-8, 1e-7)[: len(right)], strict=True):
        atol = rtol * float(np.abs(due).max())
        np.testing.assert_allclose(part, due, 0, atol, equal_nan=False, err_msg=name)
