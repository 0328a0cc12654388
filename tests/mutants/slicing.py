"""Slice samplers: on lines (Neal 2003) and on ellipses (Murray, Adams and MacKay 2010)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Target, Trace, draw, gen, sample
from semantics.contracts.sampled import check_kernel_sampled

from .registry import family

KEY = jax.random.key(6)
MEAN, SCALE = 0.8, 1.2
WIDTH, MOST = 1.0, 2


@gen
def bimodal():
    x = sample("x", dist.Normal(MEAN, SCALE))
    sample("y", dist.Normal(x**2, 0.7))


BIMODAL = Target(bimodal, (), {"y": 1.0})


def uniform(low: Any = 0.0, high: Any = 1.0) -> jax.Array:
    return low + (high - low) * draw(dist.Uniform(0.0, 1.0))


# -- on lines ----------------------------------------------------------------------------------


def line(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Stepping out at most `MOST` widths, and shrinking; with one thing `wrong`."""

    def log_density(x: jax.Array) -> jax.Array:
        return target.log_density({"x": x})

    def stepped(end: Any, by: float, times: Any, level: Any) -> Any:
        def inside(state: tuple) -> Any:
            return (state[1] > 0) & (log_density(state[0]) > level)

        return jax.lax.while_loop(inside, lambda s: (s[0] + by, s[1] - 1), (end, times))[0]

    def kernel(trace: Trace) -> Trace:
        x = trace["x"]
        below = draw(dist.Exponential(1.0))
        level = log_density(x) - (2 * below if wrong == "level" else below)
        left = jnp.floor(MOST * uniform()).astype(int)
        if wrong == "left first":
            left = jnp.asarray(MOST - 1)
        low = x - WIDTH * (0.0 if wrong == "position" else uniform())
        high = low + WIDTH
        low = stepped(low, -WIDTH, left, level)
        high = stepped(high, WIDTH, MOST - 1 - left, level)

        def refused(state: tuple) -> Any:
            return ~(log_density(state[2]) > level)

        def again(state: tuple) -> tuple:
            low, high, new = state
            if wrong != "no shrinking":
                low, high = jnp.where(new < x, new, low), jnp.where(new < x, high, new)
            return low, high, uniform(low, high)

        first = (low, high, uniform(low, high))
        if wrong == "no test":
            new = first[2]
        elif wrong == "one try":
            new = jnp.where(refused(first), x, first[2])
        else:
            new = jax.lax.while_loop(refused, again, first)[2]
        return target.update(trace, {"x": new})[0]

    return kernel


# -- on ellipses -------------------------------------------------------------------------------


def ellipse(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Angles of the ellipse through the point and a draw of the prior; one thing `wrong`."""
    prior = dist.Normal(MEAN, SCALE)
    mean = 0.0 if wrong == "not centred" else MEAN

    def log_likelihood(x: jax.Array) -> jax.Array:
        density = target.log_density({"x": x})
        return density if wrong == "prior twice" else density - prior.log_prob(x)

    def kernel(trace: Trace) -> Trace:
        x = trace["x"]
        other = SCALE * draw(dist.Normal(0.0, 1.0))
        level = log_likelihood(x) - draw(dist.Exponential(1.0))

        def at(angle: jax.Array) -> jax.Array:
            return mean + (x - mean) * jnp.cos(angle) + other * jnp.sin(angle)

        def refused(state: tuple) -> Any:
            return ~(log_likelihood(at(state[2])) > level)

        def again(state: tuple) -> tuple:
            low, high, angle = state
            low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
            return low, high, uniform(low, high)

        angle = uniform(0.0, 2 * jnp.pi)
        low = jnp.zeros(()) if wrong == "bracket" else angle - 2 * jnp.pi
        high = jnp.asarray(2 * jnp.pi) if wrong == "bracket" else angle
        if wrong != "no test":
            angle = jax.lax.while_loop(refused, again, (low, high, angle))[2]
        return target.update(trace, {"x": at(angle)})[0]

    return kernel


_line = family("slice", check_kernel_sampled, line, BIMODAL, KEY, steps=3)
_ellipse = family("elliptical slice", check_kernel_sampled, ellipse, BIMODAL, KEY, steps=3)

ENTRIES = (
    _line("correct", "", "stepping out and shrinking"),
    _line("equivalent", "no shrinking", "the bracket stays as it is when a point is refused"),
    _line("equivalent", "one try", "stays where the first point is below the level"),
    _line("mutant", "no test", "the first point of the bracket, whatever its level"),
    _line("mutant", "position", "the bracket starts at the current point"),
    _line("mutant", "left first", "all steps out go to the left"),
    _line("mutant", "level", "the level is not uniform below the density"),
    _ellipse("correct", "", "as published"),
    _ellipse("mutant", "prior twice", "the level has the prior, which the ellipse has too"),
    _ellipse("mutant", "not centred", "the mean of the prior left out"),
    _ellipse("mutant", "bracket", "the bracket of angles starts at the current point"),
    _ellipse("mutant", "no test", "the first angle, whatever its level"),
)
