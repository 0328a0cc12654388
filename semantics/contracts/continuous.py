"""Kernels with continuous draws are invariant: pi K = pi, by quadrature in phase space.

With x ~ pi and x' = K(x), every bounded statistic s has E[s(x') - s(x)] = 0. The
expectation, over the start and over the kernel's own draws, is summed on a grid of
equidistant points in unconstrained space (the trapezoid rule, which converges faster than
any power of the spacing for smooth densities that vanish at both ends). An accept step is a
finite draw, which is summed over exactly; what is left of it is the kink of min(1, ratio).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Masked, Target, errors, integrate
from ppl.addresses import flatten
from ppl.masks import leading
from ppl.program import DRAW

from ..compiling import QUICK
from ..report import Verdict
from .proper import Making

Statistics = Callable[[Mapping[str, Any]], Any]

FLOOR = 1e-10
"""Departures below this are rounding: sums of at most 1e9 float64 terms, relative to their sum."""

RESOLVED = 1e-4
"""A threshold above this means that the grid is too coarse to decide."""

SCORE = "the departure of the trace's score"

MARGIN = 4.0
"""How many times the change between two grids the error of the finer one may be."""


def check_kernel_quadrature(
    make_kernel: Making,
    target: Target,
    *,
    nodes: tuple[int, int] = (200, 300),
    bounds: tuple[float, float] = (-8.0, 8.0),
    statistics: Statistics | None = None,
) -> Verdict:
    """E[s(Kx) - s(x)] = 0 for x from the target, by quadrature over x and the kernel's draws.

    For up to 3 or 4 continuous dimensions, those of the latents and of the kernel's own draws
    together; finite draws, accept steps included, are summed over exactly. Also that the new
    trace's score is the density of its choices, and that observed choices stay.

    The errors at the true kernel are those of the quadrature, and shrink when the grid is
    refined; a defect of the kernel does not. So the check passes if, on the finer grid,
    `error <= threshold = max(4 * change between the two grids, 4 * mass lost, 1e-10)`, over all
    statistics together. Quadrature errors that fall by a quarter or more from the first count
    to the second satisfy that. A defect that passes is at most the threshold and the finer
    grid's error together, of which the threshold is the larger by the same rule; a threshold
    above 1e-4 therefore fails the verdict, as not resolved: take more nodes, or other bounds.

    Args:
      make_kernel: from a target to a random program from traces to traces.
      target: its latents are scalars, or arrays of independent ones; continuous, unless
        `statistics` is given.
      nodes: points per scalar on the coarser and the finer grid.
      bounds: ends of the grid, in unconstrained space; the target and the kernel's draws
        must have nearly all their mass between them.
      statistics: from the latents to a tree of bounded smooth numbers. Without it: sine and
        cosine of each unconstrained scalar, of the sums of pairs of them, and of the joint
        log density (statistics of the latents alone are blind to a posterior that equals the
        prior).

    Departures are absolute errors of E[s], with |s| <= 1. `effect` is the threshold.

    Raises:
      CannotIntegrate: a draw is neither finite nor a scalar density, or there are too many.
      InvalidArgument: a latent has no fixed bijection to unconstrained space, or the second
        count of nodes is not larger than the first.

    Source: Trefethen and Weideman, The exponentially convergent trapezoidal rule (SIAM Review
    2014); Geweke, Getting it right (JASA 2004) for the statistics.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.move import accept
    >>> from ppl import Target, draw, gen, sample
    >>> from semantics import check_kernel_quadrature
    >>> def random_walk(target):
    ...     def kernel(trace):
    ...         x = trace["x"] + draw(dist.Normal(0.0, 1.0))
    ...         return accept(trace, *target.update(trace, {"x": x})[:2])
    ...     return kernel
    >>> normal = Target(gen(lambda: sample("x", dist.Normal(0.0, 1.0))))
    >>> check_kernel_quadrature(random_walk, normal).require().method
    'quadrature'
    """
    coarse, fine = nodes
    if not 2 <= coarse < fine:
        raise errors.InvalidArgument(
            "A quadrature check compares two grids.", where=errors.caller(), given=nodes,
            expected="two counts of nodes, the second larger", fix="nodes=(200, 300)",
        )  # fmt: skip
    first, _ = _departures(make_kernel, statistics, coarse, bounds, target)
    second, lost = _departures(make_kernel, statistics, fine, bounds, target)
    if not float(second[SCORE]) <= FLOOR:
        return Verdict(
            "fresh score", False, "quadrature", _size(second[SCORE]), FLOOR, fine, effect=FLOOR,
            witness="the kernel's trace has another score than its choices, or other observations",
        )  # fmt: skip
    lost = max(float(lost), _outside(target, fine, bounds))
    change = float(np.max([abs(first[name] - second[name]) for name in second]))
    worst = max(second, key=lambda name: _size(second[name]))
    error, threshold = _size(second[worst]), max(MARGIN * change, MARGIN * lost, FLOOR)
    witness = ""
    if error > threshold:
        witness = f"E[{worst}] changes by {float(second[worst]):.4g} under the kernel"
    elif not threshold <= RESOLVED:
        cause = "bounds" if lost > change else "nodes"
        witness = (
            f"not resolved: the grids differ by {change:.2g} and {lost:.2g} of the mass is "
            f"outside; give other {cause} (E[{worst}] changes by {error:.2g})"
        )
    return Verdict(
        "invariant", not witness, "quadrature", error, threshold, fine,
        effect=threshold, witness=witness,
    )  # fmt: skip


def stale(target: Target, trace: Any) -> jax.Array:
    """By how much a trace's score is not the density of its choices; infinite if an
    observation has moved. Where the model draws without addresses, only the latter."""
    moved = jnp.asarray(False)
    for path, value in target.observed.items():
        same = trace[path] == (value.value if isinstance(value, Masked) else value)
        free = ~leading(value.mask, same.ndim) if isinstance(value, Masked) else False
        moved = moved | ~jnp.all(same | free)
    difference: Any = 0.0
    if DRAW not in target.model._prepare(target.args, {}).staged.program.effects:
        score, _ = target.model.assess(trace.choices, *target.args)
        # a score of -inf is right where the density vanishes
        difference = jnp.where(trace.score == score, 0.0, jnp.abs(trace.score - score))
    return jnp.where(moved, jnp.inf, difference)


def _size(departure: jax.Array) -> float:
    """Its absolute value; NaN is a departure of any size."""
    return float(jnp.where(jnp.isnan(departure), jnp.inf, jnp.abs(departure)))


@partial(jax.jit, static_argnums=(0, 1, 2, 3), compiler_options=QUICK)
def _departures(
    make_kernel: Making,
    statistics: Statistics | None,
    nodes: int,
    bounds: tuple[float, float],
    target: Target,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """E[s(Kx) - s(x)] of every statistic, and the share of the mass that the kernel's draws
    have outside the grid."""
    kernel = make_kernel(target)

    def run():
        trace, log_weight = target.generate()
        new = kernel(trace)
        before = _named(target, statistics, target.choices(trace))
        after = _named(target, statistics, target.choices(new))
        found = {name: after[name] - before[name] for name in before}
        found[SCORE] = stale(target, new)
        weight = jnp.exp(log_weight)
        return weight, jax.tree.map(lambda value: jnp.where(weight > 0, weight * value, 0.0), found)

    rule = {"nodes": nodes, "rule": "trapezoid", "bounds": bounds}
    mass, sums = integrate(run, **rule)()
    evidence = integrate(lambda: jnp.exp(target.generate()[1]), **rule)()
    return jax.tree.map(lambda total: total / evidence, sums), jnp.abs(mass / evidence - 1)


def _outside(target: Target, nodes: int, bounds: tuple[float, float]) -> float:
    """The share of the target's mass outside of the grid, up to one and a half times its size."""
    (low, high), more = bounds, nodes // 4
    margin = more * (high - low) / (nodes - 1)
    wide = (low - margin, high + margin)
    inner, outer = _evidence(nodes, bounds, target), _evidence(nodes + 2 * more, wide, target)
    return abs(float(inner / outer - 1))


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _evidence(nodes: int, bounds: tuple[float, float], target: Target) -> jax.Array:
    run = integrate(
        lambda: jnp.exp(target.generate()[1]), nodes=nodes, rule="trapezoid", bounds=bounds
    )
    return run()


def _named(target: Target, statistics: Statistics | None, latents: Any) -> dict[str, jax.Array]:
    """The statistics at these latents, by name."""
    if statistics is not None:
        leaves = jax.tree.leaves_with_path(statistics(latents))
        scalars = {f"statistic{jax.tree_util.keystr(path)}": jnp.asarray(x) for path, x in leaves}
        return {
            f"{name}{list(map(int, index)) if index else ''}": value[index]
            for name, value in scalars.items()
            for index in np.ndindex(value.shape)
        }
    waves = {"log p": target.log_density(latents)}
    for path, z in flatten(target.unconstrain(latents)).items():
        for index in np.ndindex(z.shape):
            waves["/".join(path) + (str(list(map(int, index))) if index else "")] = z[index]
    alone = list(waves)[1:]
    waves |= {f"{a} + {b}": waves[a] + waves[b] for a, b in itertools.combinations(alone, 2)}
    return {
        f"{wave.__name__}({name})": wave(value)
        for name, value in waves.items()
        for wave in (jnp.sin, jnp.cos)
    }
