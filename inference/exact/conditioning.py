"""The joint normal law of what is summed out: parts of it, and the law given more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from .linear import Block, GaussianLaw, Tilt, places
from .normals import alone, log_normal

MOST_ONE_BY_ONE = 8
"""Observations of so many numbers are taken one number at a time, longer ones at once."""


def grown(law: GaussianLaw, block: Block, covariance: Any, simulated: Any) -> GaussianLaw:
    """The law with a new block that is independent of the others."""
    n, m, dtype = law.mean.size, block.size, law.mean.dtype
    whole = jnp.zeros((n + m, n + m), dtype).at[:n, :n].set(law.covariance)
    whole = whole.at[n:, n:].set(covariance.astype(dtype))
    if law.simulated is not None:
        simulated = jnp.concatenate([law.simulated, simulated])
    mean = jnp.concatenate([law.mean, jnp.zeros(m, dtype)])
    return replace(law, blocks=(*law.blocks, block), mean=mean, covariance=whole,
                   simulated=simulated)  # fmt: skip


def part(law: GaussianLaw, kept: tuple[Block, ...]) -> GaussianLaw:
    """The law of some of the blocks."""
    at = places(law.blocks, kept)
    simulated = None if law.simulated is None else law.simulated[at]
    return replace(law, blocks=kept, mean=law.mean[at], covariance=law.covariance[at][:, at],
                   simulated=simulated)  # fmt: skip


def tilted(law: GaussianLaw, at: Any, by: Any, tilt: Tilt) -> GaussianLaw:
    """The law times a tilt of `at + by e`, to first order in the tilt."""
    crossed = law.covariance @ by.T
    here = at + by @ (law.mean if law.simulated is None else law.mean + law.simulated)
    slope = tilt.slope.reshape(-1).astype(law.mean.dtype)
    evidence = law.evidence + slope @ here
    mean = law.mean + crossed @ slope
    covariance = law.covariance
    if tilt.bend is not None:
        bend = diagonal(tilt.bend.astype(mean.dtype))
        bend = (bend + bend.T) / 2
        off = here - tilt.centre.reshape(-1)
        second = by @ crossed + off[:, None] * off
        evidence = evidence + 0.5 * jnp.sum(bend * second)
        mean = mean + crossed @ (bend @ off)
        covariance = covariance + crossed @ bend @ crossed.T
    return replace(law, mean=mean, covariance=covariance, evidence=evidence)


def diagonal(each: jax.Array) -> jax.Array:
    """Matrices `(..., k, k)` along the diagonal of one."""
    k = each.shape[-1]
    each = each.reshape(-1, k, k)
    n = len(each)
    whole = jnp.zeros((n, k, n, k), each.dtype).at[jnp.arange(n), :, jnp.arange(n), :].set(each)
    return whole.reshape(n * k, n * k)


def conditioned(law: GaussianLaw, by: Any, factor: Any, seen: Any, present: Any) -> GaussianLaw:
    """The law given that `by e` plus `factor` times standard normals is `seen`, where present."""
    if seen.size > MOST_ONE_BY_ONE:
        return _at_once(law, by, factor, seen, present)
    there = jnp.ones(seen.shape, bool) if present is None else present
    if seen.size == 1:
        return _one(law, by[0], jnp.sum(factor**2), seen[0], there[0])
    # the noise as a part of e: its numbers are not independent
    n, k = law.mean.size, seen.size
    covariance = jnp.eye(n + k, dtype=law.covariance.dtype).at[:n, :n].set(law.covariance)
    mean = jnp.concatenate([law.mean, jnp.zeros(k, law.mean.dtype)])
    whole = replace(law, mean=mean, covariance=covariance)
    rows, none = jnp.concatenate([by, factor], -1), jnp.zeros((), by.dtype)
    for row, value, is_there in zip(rows, seen, there, strict=True):
        whole = _one(whole, row, none, value, is_there)
    return replace(whole, mean=whole.mean[:n], covariance=whole.covariance[:n, :n])


def _one(law: GaussianLaw, row: Any, noise: Any, value: Any, present: Any) -> GaussianLaw:
    """The law given one number; where that is certain before, it tells nothing or is impossible."""
    crossed = law.covariance @ row
    variance = row @ crossed + noise
    error = jnp.where(present, value - row @ law.mean, 0.0)
    some = (variance > 0) & present
    safe = jnp.where(some, variance, 1 / (2 * math.pi))
    gain = jnp.where(some, crossed / safe, 0.0)
    log = -0.5 * (jnp.log(2 * math.pi * safe) + jnp.where(some, error**2 / safe, 0.0))
    log = jnp.where(some | (error == 0), log, -jnp.inf)
    # Joseph's form, a sum of squares, which stays positive under rounding
    left = jnp.eye(law.mean.size, dtype=gain.dtype) - gain[:, None] * row
    covariance = left @ law.covariance @ left.T + noise * gain[:, None] * gain
    mean = law.mean + gain * error
    return replace(law, mean=mean, covariance=(covariance + covariance.T) / 2,
                   evidence=law.evidence + log)  # fmt: skip


def _at_once(law: GaussianLaw, by: Any, factor: Any, seen: Any, present: Any) -> GaussianLaw:
    noise, error = factor @ factor.T, seen - by @ law.mean
    if present is not None:  # rows of nothing, with a noise that is neither seen nor counted
        by, error = jnp.where(present[:, None], by, 0.0), jnp.where(present, error, 0.0)
        noise = alone(noise, present)
    crossed = by @ law.covariance
    root = jnp.linalg.cholesky(crossed @ by.T + noise)
    white = solve_triangular(root, error, lower=True)
    half = solve_triangular(root, crossed, lower=True)
    gain = solve_triangular(root, half, lower=True, trans=1).T
    log = log_normal(white, root, present)
    left = jnp.eye(law.mean.size, dtype=gain.dtype) - gain @ by
    covariance = left @ law.covariance @ left.T + gain @ noise @ gain.T
    return replace(law, mean=law.mean + gain @ error, covariance=(covariance + covariance.T) / 2,
                   evidence=law.evidence + log)  # fmt: skip
