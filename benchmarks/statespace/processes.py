"""Evidence and gradient of a Matérn-3/2 process at times that are not regular.

In double precision, of scale, standard deviation and noise together. Peers must give the same
number first. Growth is told by the time of the processor, since a machine is shared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve

from inference.gaussian.matern import Matern32
from inference.gaussian.process import gp

from ..measure import Figure
from ..vi.environments import begun
from ..vi.turns import here, medians
from .problem import data

HERE = Path(__file__).parent
GOALS = {("scan", "tinygp"): 1 / 5, ("scan", "dynamax"): 1 / 20, ("blocks", "tinygp"): 1 / 1.5}
"""The largest part of a peer's time, at 10,000 values and more."""
FIRST = {"scan": 3.0, "blocks": 12.0}
"""The longest first call, in seconds of the processor."""
LONGEST = {"dynamax": 100_000}
"""What a peer has memory for: reverse mode keeps all matrices of its loop."""


def ours(along: str) -> Callable:
    def density(p, times, values):
        kernel = Matern32(scale=p[0], sigma=p[1])
        return gp(kernel, times, noise=p[2], along=along).log_prob(values)

    return density


def dense(p, times, values):
    gaps = jnp.abs(times[:, None] - times) * math.sqrt(3) / p[0]
    k = p[1] ** 2 * (1 + gaps) * jnp.exp(-gaps) + p[2] * jnp.eye(times.size)
    root = jnp.linalg.cholesky(k)
    square = values @ cho_solve((root, True), values)
    return -0.5 * (square + values.size * math.log(2 * math.pi)) - jnp.log(jnp.diag(root)).sum()


def by_hand(p, times, values):
    """A Kalman filter in one scan, in numbers of their own, which JAX differentiates."""
    rate, variance = math.sqrt(3) / p[0], p[1] ** 2

    def step(carry, now):
        m0, m1, p00, p01, p11, total = carry
        x, y = now
        decay = jnp.exp(-x)
        a, b, c, d = decay * (1 + x), decay * x, -decay * x, decay * (1 - x)
        # less the stationary covariance, the covariance only moves
        p00, p11 = p00 - variance, p11 - variance
        m0, m1 = a * m0 + b * m1, c * m0 + d * m1
        q00 = a * (a * p00 + b * p01) + b * (a * p01 + b * p11) + variance
        q01 = a * (c * p00 + d * p01) + b * (c * p01 + d * p11)
        q11 = c * (c * p00 + d * p01) + d * (c * p01 + d * p11) + variance
        s, e = q00 + p[2], y - m0
        k0, k1 = q00 / s, q01 / s
        total = total - 0.5 * (jnp.log(2 * math.pi * s) + e * e / s)
        after = m0 + k0 * e, m1 + k1 * e, q00 - k0 * q00, q01 - k0 * q01, q11 - k1 * q01, total
        return after, None

    zero = jnp.zeros(())
    start = zero, zero, variance, zero, variance, zero
    gaps = jnp.diff(times, prepend=times[:1])
    return jax.lax.scan(step, start, (rate * gaps, values))[0][-1]


def checked(name: str, right: Any, value: float, slope: Any) -> None:
    """To 1e-8 of themselves: sums of up to a million terms, each with some units of rounding."""
    np.testing.assert_allclose(value, right[0], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(slope, right[1], rtol=1e-7, err_msg=name)


def first_call(f: Callable, args: tuple) -> float:
    """Seconds of the processor: traced, compiled and run."""
    start = time.process_time()
    jax.block_until_ready(f(*args))
    return time.process_time() - start


def figures(quick: bool, peers: bool) -> Iterator[Figure]:
    sizes = (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    jax.config.update("jax_enable_x64", True)
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(3)))
    costs: dict[tuple[str, int], float] = {}
    for n in sizes:
        args, runs = data(n), {}
        right = None
        for along in ("scan", "blocks"):
            run = jax.jit(jax.value_and_grad(ours(along)))
            spent = first_call(run, args)
            goal = FIRST[along] if along == "blocks" or n <= 10_000 else None
            name = f"{along}, first call, n = {n:,}"
            yield Figure(name, "", "CPU s", spent, None, goal, absolute=True)
            right = right or run(*args)
            checked(along, right, *run(*args))
            runs[along] = here(partial(run, *args))
        assert right is not None
        others = {"by hand": by_hand} | ({"dense": dense} if n <= 1000 else {})
        for name, density in others.items():
            other = jax.jit(jax.value_and_grad(density))
            checked(name, right, *other(*args))
            runs[name] = here(partial(other, *args))
        for name in ("tinygp", "smolgp", "dynamax") if peers else ():
            if n > LONGEST.get(name, n):
                continue
            peer = begun(name, str(HERE / f"of_{name}.py"), n)
            if peer is not None:
                checked(name, right, peer.facts["value"], peer.facts["slope"])
                runs[name] = peer
        found = medians(list(runs.values()), 3 if quick or n > 100_000 else 7)
        cost = {name: each.cpu for name, each in zip(runs, found, strict=True)}
        for along in ("scan", "blocks"):
            costs[along, n] = cost[along]
            for name in runs:
                if name not in ("scan", "blocks"):
                    goal = GOALS.get((along, name)) if n >= 10_000 else None
                    yield Figure(f"{along}, n = {n:,}", name, "CPU ms", cost[along], cost[name],
                                 goal)  # fmt: skip
        for run in runs.values():
            getattr(run, "close", lambda: None)()
    few, many = sizes[1], sizes[-1]
    for along in ("scan", "blocks") if many > few else ():
        growth = math.log(costs[along, many] / costs[along, few]) / math.log(many / few)
        yield Figure(f"{along}, growth from {few:,} to {many:,}", "", "exponent", growth, None,
                     1.10, absolute=True)  # fmt: skip
