"""Counting and timing: equations, FLOPs, and interleaved repeats."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Figure:
    """One comparison; `goal` is the largest ratio (or value of ours) that meets the goals."""

    name: str
    against: str
    unit: str
    ours: float
    theirs: float | None
    goal: float | None = None
    absolute: bool = False

    @property
    def ratio(self) -> float | None:
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.theirs else 1.0 if not self.ours else float("inf")

    @property
    def missed(self) -> bool:
        value = self.ours if self.absolute else self.ratio
        return self.goal is not None and value is not None and value > self.goal

    def row(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "against": self.against,
            "unit": self.unit,
            "ours": self.ours,
            "theirs": self.theirs,
            "ratio": self.ratio,
        }


def count(jaxpr: Any) -> int:
    """Equations at any depth; a `jit` counts as its body."""
    total = 0
    for eqn in jaxpr.eqns:
        total += eqn.primitive.name not in ("jit", "pjit")
        for value in eqn.params.values():
            for each in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    total += count(inner)
    return total


def equations(f: Callable, *args: Any) -> int:
    """Number of equations of `f`."""
    return count(jax.make_jaxpr(f)(*args).jaxpr)


def flops(f: Callable, *args: Any) -> float:
    """FLOPs that XLA counts in the compiled program (the body of a loop once)."""
    cost = jax.jit(f).lower(*args).compile().cost_analysis()
    cost = cost[0] if isinstance(cost, (list, tuple)) else cost
    return float((cost or {}).get("flops", 0.0))


def interleaved(
    runs: Sequence[Callable[[], Any]], repeats: int = 15, seconds: float = 1.0
) -> list[list[float]]:
    """Seconds per call of each, measured in turns; one list of samples per run.

    A sample is a loop of calls long enough for the clock. At least seven rounds are
    made, then as many as fit into `seconds`, up to `repeats`.
    """
    loops = []
    for run in runs:
        jax.block_until_ready(run())
        start = time.perf_counter()
        jax.block_until_ready(run())
        once = time.perf_counter() - start
        loops.append(max(1, min(200, int(2e-3 / max(once, 1e-7)))))
    samples: list[list[float]] = [[] for _ in runs]
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        for r in range(repeats):
            if r >= 7 and time.perf_counter() - begin > seconds:
                break
            order = range(len(runs)) if r % 2 == 0 else reversed(range(len(runs)))
            for i in order:
                start = time.perf_counter()
                for _ in range(loops[i]):
                    jax.block_until_ready(runs[i]())
                samples[i].append((time.perf_counter() - start) / loops[i])
    finally:
        gc.enable()
    return samples


def medians(*runs: Callable[[], Any], repeats: int = 15, seconds: float = 1.0) -> list[float]:
    """Median seconds per call of each run, interleaved."""
    return [statistics.median(s) for s in interleaved(runs, repeats, seconds)]


def best(*runs: Callable[[], Any], repeats: int = 15, seconds: float = 1.0) -> list[float]:
    """Least seconds per call of each run, interleaved."""
    return [min(s) for s in interleaved(runs, repeats, seconds)]


def stages(f: Callable, *args: Any) -> tuple[float, float, float]:
    """Seconds to trace, lower and compile `f`, which must not have been run before."""
    times = [time.perf_counter()]
    traced = jax.jit(f).trace(*args)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1], times[3] - times[2]


def first_call(f: Callable, *args: Any) -> float:
    """Seconds of the first call of `jit(f)`."""
    start = time.perf_counter()
    jax.block_until_ready(jax.jit(f)(*args))
    return time.perf_counter() - start
