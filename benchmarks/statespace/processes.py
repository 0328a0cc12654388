"""Evidence and gradient of a Matérn-3/2 process at times that are not regular.

In double precision, of scale, standard deviation and noise together. Peers must give the same
number first. Growth is told by the time of the processor, since a machine is shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from inference.gaussian.matern import Matern32
from inference.gaussian.process import gp

from ..measure import Figure
from .costs import costs, first_call, peers, slopes
from .problem import data, prepare

WAYS = ("scan", "blocks")
PEERS = ("tinygp", "smolgp", "dynamax")
GOALS = {("scan", "tinygp"): 1 / 5, ("scan", "dynamax"): 1 / 20, ("blocks", "tinygp"): 1 / 1.5}
"""The largest part of a peer's time, at 10,000 values and more."""
FIRST = {"scan": 3.0, "blocks": 12.0}
"""The longest first call, in seconds of the processor."""
LONGEST = {"dynamax": 100_000, "by hand": 100_000, "dense": 1_000}
"""What there is memory and time for: reverse mode keeps all that is made in a loop."""


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


def figures(quick: bool, installed: bool) -> Iterator[Figure]:
    sizes = (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    prepare()
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(3)))
    growing: dict[tuple[str, int], float] = {}
    for n in sizes:
        args = data(n)
        runs = {along: slopes(ours(along), *args) for along in WAYS}
        for along in WAYS:
            goal = FIRST[along] if along == "blocks" or n <= 10_000 else None
            name = f"{along}, first call, n = {n:,}"
            yield Figure(name, "", "CPU s", first_call(runs[along]), None, goal, absolute=True)
        for name, density in {"by hand": by_hand, "dense": dense}.items():
            if n <= LONGEST[name]:
                runs[name] = slopes(density, *args)
        able = [name for name in PEERS if n <= LONGEST.get(name, n)] if installed else []
        others = peers({name: f"of_{name}.py" for name in able}, n)
        cost = costs(runs, 3 if quick or n > 100_000 else 7, others)
        for along in WAYS:
            growing[along, n] = cost[along]
            for name in cost:
                if name not in WAYS:
                    goal = GOALS.get((along, name)) if n >= 10_000 else None
                    yield Figure(f"{along}, n = {n:,}", name, "CPU ms", cost[along], cost[name],
                                 goal)  # fmt: skip
    few, many = sizes[1], sizes[-1]
    for along in WAYS if many > few else ():
        growth = math.log(growing[along, many] / growing[along, few]) / math.log(many / few)
        yield Figure(f"{along}, growth from {few:,} to {many:,}", "", "exponent", growth, None,
                     1.10, absolute=True)  # fmt: skip
