"""A Matérn-3/2 process that is summed out of a model, against its density without a model.

One model is a loop over gaps, whose state is made from the state before; what is summed out of it
is what `gp` knows to begin with. Another draws the process at once, and looks at it with noise.
The value alone and with its gradient, in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import gaussian, sum_out
from ppl import gen, sample, select

from ..measure import Figure
from . import processes
from .costs import costs, first_call, slopes, values
from .problem import data

GOAL = 1.2


@gen
def model(p, gaps):
    """The law of values after gaps in time, of a process in its stationary law at the start."""
    kernel = gaussian.Matern32(scale=p[0], sigma=p[1])

    def step(state, gap):
        law = dist.MultivariateNormal(kernel.transition(gap) @ state, kernel.noise(gap))
        state = sample("state", law)
        sample("y", dist.Normal(state[0], jnp.sqrt(p[2])))
        return state, None

    start = sample("start", dist.MultivariateNormal(jnp.zeros(2), kernel.start(0.0)))
    jax.lax.scan(step, start, gaps)


def loop(p, times, values):
    """The law is stationary, so that it may start a unit before the first time."""
    gaps = jnp.diff(times, prepend=times[:1] - 1.0)
    summed = sum_out(model, select("state", "start"), along="scan")
    return summed.assess({"y": values}, p, gaps)[0]


@gen
def noisy(p, times):
    f = sample("f", gaussian.gp(gaussian.Matern32(scale=p[0], sigma=p[1]), times, along="scan"))
    sample("y", dist.Normal(f, jnp.sqrt(p[2])))


def drawn(p, times, values):
    return sum_out(noisy, "f", along="scan").assess({"y": values}, p, times)[0]


def figures(quick: bool, _: bool) -> Iterator[Figure]:
    programs = {"loop": loop, "draw of gp": drawn, "gp": processes.ours("scan")}
    for n in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
        args = data(n)
        for what, kind in {"value": values, "value and gradient": slopes}.items():
            runs = {name: kind(density, *args) for name, density in programs.items()}
            first = {name: first_call(run) for name, run in runs.items()}
            cost = costs(runs, 7)
            for name in ("loop", "draw of gp"):
                title = f"{name} summed out, {what}, n = {n:,}"
                yield Figure(f"first call, {title}", "gp", "CPU s", first[name], first["gp"])
                goal = GOAL if n >= 10_000 else None
                yield Figure(title, "gp", "CPU ms", cost[name], cost["gp"], goal)
