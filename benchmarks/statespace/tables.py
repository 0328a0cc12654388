"""Functional tensors: what a sweep costs, how that grows, and a fit beside decompositions of bins.

A table of 13,572 entries at 428 x 501 x 1,461 coordinates. A sweep goes through all modes, with
the gradient of the evidence bound in all hyperparameters. tensorly decomposes the means of bins.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from inference import tensors
from inference.gaussian import Matern32
from inference.tensors.beliefs import nothing_told
from inference.tensors.learning import first_run, started, sweep_and_learn
from ppl import Target

from ..measure import Figure
from ..vi.environments import begun
from .costs import HERE
from .problem import prepare
from .table_problem import COUNT, NOISE, table

NAMES = ("temperature", "pressure", "day")
GOALS = {"CP, rank 3": 0.05, "Tucker, rank 5": 0.15}


def entries(at: np.ndarray) -> tensors.Entries:
    return tensors.entries({name: at[:, k] for k, name in enumerate(NAMES)})


def models() -> dict:
    kernels = {name: Matern32(0.3) for name in NAMES}
    return {"CP, rank 3": tensors.cp(3, kernels), "Tucker, rank 5": tensors.tucker(5, kernels)}


def sweep_of(model, count: int, sweeps: int) -> tuple[float, float]:
    """CPU seconds of the first call, and of a sweep after it."""
    at, y, *_ = table(count)
    rows, y = entries(at), jnp.asarray(y)
    run = first_run(model.fn, started(jax.random.key(0), model.fn, rows, y))
    held = nothing_told(model.fn, rows.sizes)

    def again(run):
        return jax.block_until_ready(sweep_and_learn(run, rows, y, held, 1.0, 0.1))

    start = time.process_time()
    run = again(run)
    first, spent = time.process_time() - start, []
    for _ in range(sweeps):
        start = time.process_time()
        run = again(run)
        spent.append(time.process_time() - start)
    return first, float(np.median(spent))


def figures(quick: bool, installed: bool) -> Iterator[Figure]:
    prepare()
    sweeps = 5 if quick else 15
    for name, model in models().items():
        first, each = sweep_of(model, COUNT, sweeps)
        yield Figure(f"first sweep, {name}", "", "CPU s", first, None)
        goal = GOALS[name]
        yield Figure(f"sweep with gradient, {name}", "", "CPU s", each, None, goal, absolute=True)
        if not quick:
            _, many = sweep_of(model, 10 * COUNT, sweeps)
            power = math.log(many / each) / math.log(10)
            title = f"sweep, {name}, growth to {10 * COUNT:,} entries"
            yield Figure(title, "", "exponent", power, None, 1.0, absolute=True)
    yield from beside_tensorly(installed)


def beside_tensorly(installed: bool) -> Iterator[Figure]:
    at, y, new, held = table()
    for form in ("CP", "Tucker"):
        model = models()["CP, rank 3"]
        if form == "Tucker":
            model = tensors.tucker(3, {name: Matern32(0.3) for name in NAMES})
        target = Target(model, (entries(at),), {"y": jnp.asarray(y)})
        start = time.process_time()
        found = tensors.message_passing(jax.random.key(0), target, sweeps=60, starts=1)
        spent = time.process_time() - start
        error = np.asarray(found.predict(entries(new)).predictor) - held
        rmse = float(np.sqrt(np.mean(error**2)))
        peer = begun("tensorly", str(HERE / "of_tensorly.py"), form) if installed else None
        theirs, cost = None, None
        if peer is not None:
            theirs, cost = peer.facts["rmse"], peer(1).cpu / 1e3
            peer.close()
        title = f"{form}, rank 3, held-out RMSE (noise {NOISE})"
        yield Figure(title, "tensorly" if peer else "", "", rmse, theirs, 1.0)
        yield Figure(f"{form}, rank 3, fit", "tensorly" if peer else "", "CPU s", spent, cost)
