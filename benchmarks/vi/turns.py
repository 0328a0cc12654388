"""Timing in turns: of this process and of peers that run in interpreters of their own.

A sample is the clock's time and the processor's time of some calls of a compiled step. Processes
wait while another's turn lasts, so that all of them meet the same load of the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax


class Cost(NamedTuple):
    """Milliseconds of one call: on the clock, and of all cores together."""

    clock: float
    cpu: float


def here(run: Callable[[], object]) -> Callable[[int], Cost]:
    """A sampler of a function of this process, which is compiled when this returns."""
    jax.block_until_ready(run())

    def sample(calls: int) -> Cost:
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            jax.block_until_ready(run())
        spent = time.perf_counter() - clock, time.process_time() - cpu
        return Cost(*(1e3 * seconds / calls for seconds in spent))

    return sample


class Peer:
    """A script in another interpreter, which answers with times when asked.

    It is one of this folder, or the path of another, which may import what is here.

    `facts` is what it says of itself at first: equations, FLOPs, seconds to trace and to compile.
    Its threads sleep while they wait for each other: spinning would count as work.
    """

    def __init__(self, python: Path, script: str, *words: object):
        path = Path(__file__).parent / script
        self.process = subprocess.Popen(
            [str(python), str(path), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_WAIT_POLICY": "passive",
                "KMP_BLOCKTIME": "0",
                "PYTHONPATH": str(Path(__file__).parent),
            },
        )
        self.facts = self._answer()

    def __call__(self, calls: int) -> Cost:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return Cost(**self._answer())

    def close(self) -> None:
        self.process.communicate()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.communicate()[1][-2000:])
        return json.loads(line)


def medians(samplers: Sequence[Callable[[int], Cost]], rounds: int) -> list[Cost]:
    """The median cost of each, measured in turns of some 20 ms or one call."""
    calls = [max(1, min(50, int(20 / each(1).clock))) for each in samplers]
    found: list[list[Cost]] = [[] for _ in samplers]
    for r in range(rounds):
        order = range(len(samplers)) if r % 2 == 0 else reversed(range(len(samplers)))
        for i in order:
            found[i].append(samplers[i](calls[i]))
    return [Cost(*map(statistics.median, zip(*costs, strict=True))) for costs in found]
