"""Nested sampling: the evidence as an integral over the prior volume above a likelihood.

Live points are draws of the prior where the likelihood is above a level. The lowest of them
die, the level rises to theirs, and survivors are copied and moved in their place; each death
among m live points shrinks the volume by a factor whose law is Beta(m, 1), whatever the model
is. That is all that is used, so the errors of the volumes are those of the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import Target, draw, errors

from ..kernel import Kernel, check_maker, kernel_for
from ..targets.restrict import restricted
from ..validation.objects import check_callable, check_target
from ..validation.settings import check_count, check_number
from ..weighted import Weighted, log_evidence, normalized
from .adaptive import Tune
from .annealing import levels
from .slice_and_hop import others, slice_and_hop

MakeKernel = Callable[[Target], Callable[[Any], Any]]
"""From the prior above a level, as a target, to a kernel that leaves it invariant."""

STATUS = ("converged", "plateau", "out of iterations")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Nested:
    """What `nested_sampling` gives.

    Attributes:
      particles: latents of the dead points in the order of their deaths, and the live ones at
        the end, weighted: `log_evidence(particles)` is the evidence, normalised weights are
        the posterior. Room that was not needed has weight zero.
      log_evidence: a scalar, in nats. Its error is nearly normal; that of its exponential is not.
      standard_error: of `log_evidence`, from the volumes; that of the kernel is not in it.
      information: H, from the prior to the posterior, in nats.
      iterations: how often points died or were made.
      status: an index into `STATUS`: "converged"; "plateau" (no live point is more likely than
        the lowest ones); or "out of iterations", when much of the evidence may be missing.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Nested, mh, nested_sampling
    >>> from inference.smc.nested import STATUS
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def model():
    ...     sample("x", dist.Bernoulli(0.5))
    ...     sample("y", dist.Bernoulli(0.3))
    >>> run = seed(lambda: nested_sampling(Target(model, (), {"y": 1}), 4, lambda t: mh(t, "x")))
    >>> found: Nested = run(jax.random.key(0))  # of one likelihood: no point need die
    >>> print(f"{jnp.exp(found.log_evidence):.4f} {found.standard_error:.4f}")
    0.3000 0.0000
    >>> STATUS[found.status], found.iterations.item()
    ('plateau', 0)
    """

    particles: Weighted
    log_evidence: jax.Array
    standard_error: jax.Array
    information: jax.Array
    iterations: jax.Array
    status: jax.Array


class _Dead(NamedTuple):
    """Dead points in order: latents, log likelihoods, log weights, and of how many each died.

    `among` is 0 where there is none yet.
    """

    latents: Any
    levels: jax.Array
    log_weights: jax.Array
    among: jax.Array


class _Run(NamedTuple):
    """The first `vacant` of the n live points are no points."""

    latents: Any
    levels: jax.Array
    vacant: jax.Array
    above: jax.Array  # the level that live points are above
    log_volume: jax.Array
    log_total: jax.Array  # of the weights of the dead
    dead: _Dead
    count: jax.Array
    iterations: jax.Array


def nested_sampling(
    target: Target,
    n: int,
    kernel: MakeKernel | None = None,
    *,
    batch: int = 1,
    tune: Tune | None = None,
    fraction: float = 1e-3,
    max_iterations: int | None = None,
) -> Nested:
    """The evidence of `target` and its posterior, from n live points that climb the likelihood.

    A random program. In each iteration the `batch` lowest of n points die, and as many copies
    of survivors, moved by the kernel, take their places. It ends when the volume left, times
    the largest likelihood in it, is below a fraction of the evidence.

    Points of equal likelihood die together, each of one point fewer than the one before
    (Fowlie, Handley and Su 2021), so that likelihoods with plateaus are right, too; the places
    are filled in the iterations that follow, `batch` at a time, before more points die.

    The kernel must forget where the copy began: the error that is reported is that of the
    volumes alone, sqrt(H / n) or less for long runs (Skilling 2006), by the first-order effect of
    each volume on the evidence and the variance of the mean of the live points at the end.

    Args:
      n: live points, at least 2.
      kernel: from the prior above a level to a kernel on its traces; the level is traced. If left
        out, slices along 5 d random directions, d being the number of coordinates, with hops
        between modes (`inference.smc.slice_and_hop`).
      batch: how many die at once, less than n. More is faster where points are moved together,
        and less precise when it is near n.
      tune: the kernel's parameters from the live points at each level: `particle_metric`, or a
        function of one's own. The kernel that is left out has its own.
      fraction: of the evidence that may be left, between 0 and 1.
      max_iterations: 40 n / batch if left out: a volume of e^-40. Memory grows with it.

    A log likelihood that is no number counts as -inf: of no weight.

    Raises:
      InvalidArgument: an argument is not as above; the target has no likelihood or observes part
        of an array; the model draws without addresses; the kernel is on populations; or, when it
        is left out, a latent has no unconstrained space.

    Source: Skilling, Nested sampling for general Bayesian computation (Bayesian Analysis 2006).

    >>> import jax, numpyro.distributions as dist
    >>> from inference import nested_sampling
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 0.1))
    >>> target = Target(model, (), {"y": 2.0})
    >>> run = jax.jit(seed(lambda: nested_sampling(target, 200, batch=20)))
    >>> found = run(jax.random.key(0))
    >>> exact = dist.Normal(0.0, 1.01**0.5).log_prob(2.0)
    >>> bool(abs(found.log_evidence - exact) < 5 * found.standard_error)
    True
    """
    most = _checked(n, batch, fraction, max_iterations)
    check_target(target)
    if kernel is not None:
        check_maker(kernel)
    if tune is not None:
        check_callable("tune", tune, "a function of a kernel and particles", "tune=particle_metric")
    if kernel is None and tune is not None:
        raise errors.InvalidArgument(
            "The kernel that is left out tunes itself.", where=errors.caller(),
            given="tune without a kernel", expected="both, or neither",
            fix="nested_sampling(target, n, random_walk, tune=particle_metric)",
        )  # fmt: skip
    if kernel is None:
        kernel, tune = slice_and_hop, others
    restricted(target, 0.0)

    def begun() -> tuple[Any, jax.Array]:
        latents = target.choices(target.generate()[0])
        return latents, _level(target, latents)

    latents, level = jax.vmap(lambda _: begun())(jnp.arange(n))
    least, zero = jnp.full((), -jnp.inf, level.dtype), jnp.zeros((), level.dtype)
    room = most * batch + n
    dead = _Dead(  # filled with what is in the support
        jax.tree.map(lambda x: jnp.broadcast_to(x[0], (room, *x.shape[1:])), latents),
        jnp.full(room, least),
        jnp.full(room, least),
        jnp.zeros(room, level.dtype),
    )
    none = jnp.zeros((), int)
    first = _Run(latents, level, none, least, zero, least, dead, none, none)

    def goes_on(run: _Run) -> jax.Array:
        left = (run.iterations < most) & (run.count <= room - n)
        return left & ~_flat(run, batch) & ~_converged(run, fraction)

    def iteration(run: _Run) -> _Run:
        run = lax.cond(run.vacant > 0, lambda r: r, lambda r: _died(r, batch), run)
        return _filled(run, target, kernel, tune, batch)

    return _result(lax.while_loop(goes_on, iteration, first), batch, fraction)


def _level(target: Target, latents: Any) -> jax.Array:
    """The log likelihood; what is no number is not likely."""
    level = levels(target, latents)
    return jnp.where(jnp.isnan(level), -jnp.inf, level)


# -- an iteration ----------------------------------------------------------------------------


def _flat(run: _Run, batch: int) -> jax.Array:
    """Whether all points that are full in number would die."""
    return (run.vacant == 0) & ((run.levels < run.levels.max()).sum() < batch)


def _converged(run: _Run, fraction: float) -> jax.Array:
    alive = jnp.arange(len(run.levels)) >= run.vacant
    left = run.log_volume + jnp.max(jnp.where(alive, run.levels, -jnp.inf))
    return left < math.log(fraction) + jnp.logaddexp(run.log_total, left)


def _died(run: _Run, batch: int) -> _Run:
    """The lowest points, and all that are no higher, die; the volume shrinks by the mean logs."""
    n = len(run.levels)
    order = jnp.argsort(run.levels)
    latents, level = jax.tree.map(lambda x: x[order], (run.latents, run.levels))
    above = level[batch - 1]
    dies = level <= above
    among = jnp.arange(n, 0, -1).astype(level.dtype)  # each dies of those that are left
    volumes = run.log_volume - jnp.where(dies, jnp.cumsum(1 / among), 0.0)
    log_weights = level + volumes + jnp.log(jnp.expm1(1 / among))
    places = jnp.where(dies, run.count + jnp.arange(n), len(run.dead.levels))
    dead = jax.tree.map(
        lambda old, new: old.at[places].set(new, mode="drop"),
        run.dead,
        _Dead(latents, level, log_weights, among),
    )
    died = dies.sum()
    total = log_evidence(Weighted((), jnp.where(dies, log_weights, -jnp.inf))) + math.log(n)
    return run._replace(
        latents=latents,
        levels=level,
        vacant=died,
        above=above,
        log_volume=volumes.min(),
        log_total=jnp.logaddexp(run.log_total, total),
        dead=dead,
        count=run.count + died,
    )


def _filled(run: _Run, target: Target, kernel: MakeKernel, tune: Tune | None, batch: int) -> _Run:
    """Copies of survivors, moved above the level, in the last vacant places."""
    n = len(run.levels)
    log_alive = jnp.where(jnp.arange(n) >= run.vacant, 0.0, -jnp.inf).astype(run.levels.dtype)
    moves = _on_latents(restricted(target, run.above), kernel)
    if tune is not None:
        moves = moves.tuned(tune(moves, Weighted(run.latents, log_alive)))
    chosen = draw(dist.DiscreteUniform(run.vacant, n - 1).expand([batch]))
    new = jax.vmap(moves)(jax.tree.map(lambda x: x[chosen], run.latents))
    places = run.vacant - 1 - jnp.arange(batch)
    places = jnp.where(places < 0, n, places)
    latents, level = jax.tree.map(
        lambda old, x: old.at[places].set(x, mode="drop"),
        (run.latents, run.levels),
        (new, jax.vmap(lambda x: _level(target, x))(new)),
    )
    return run._replace(
        latents=latents,
        levels=level,
        vacant=jnp.maximum(run.vacant - batch, 0),
        iterations=run.iterations + 1,
    )


def _on_latents(target: Target, make: MakeKernel) -> Kernel:
    """The kernel of a target, from latents to latents.

    Raises:
      InvalidArgument: it is a kernel on populations.
    """
    made = kernel_for(target, make)
    if made.members is not None:
        raise errors.InvalidArgument(
            "Nested sampling needs a kernel on single traces.", where=errors.caller(),
            given=f"{made.name}, on populations of {made.members}",
            expected="a kernel on one trace", fix="move each point by slice_sample or mh",
        )  # fmt: skip
    return replace(
        made,
        enter=lambda latents: made.enter(target.at(latents)[0]),
        leave=made.read or (lambda state: target.choices(made.leave(state))),
    )


# -- the end ---------------------------------------------------------------------------------


def _result(run: _Run, batch: int, fraction: float) -> Nested:
    n = len(run.levels)
    alive = jnp.arange(n) >= run.vacant
    number = alive.sum().astype(run.levels.dtype)
    log_live = jnp.where(alive, run.levels + run.log_volume - jnp.log(number), -jnp.inf)
    latents, level, log_weights = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b]),
        (run.dead.latents, run.dead.levels, run.dead.log_weights),
        (run.latents, run.levels, log_live),
    )
    particles = Weighted(latents, log_weights + math.log(len(log_weights)))
    total = log_evidence(particles)
    possible = total > -jnp.inf
    weights = jnp.where(possible, normalized(log_weights), 0.0)
    information = (weights * jnp.where(weights > 0, level - total, 0.0)).sum()
    error = volume_error(weights[:-n], run.dead.among, weights[-n:], number)
    converged, flat = _converged(run, fraction), _flat(run, batch)
    return Nested(
        particles=particles,
        log_evidence=total,
        standard_error=jnp.where(possible, error, jnp.inf),
        information=information,
        iterations=run.iterations,
        status=jnp.where(converged, 0, jnp.where(flat, 1, 2)),
    )


def volume_error(
    dead: jax.Array, among: jax.Array, live: jax.Array, number: jax.Array
) -> jax.Array:
    """The standard error of the log evidence, to first order in the logs of the shrinkages.

    The log of the j-th shrinkage has variance 1 / m_j^2 and moves the log evidence by all the
    weight behind j, less what its own weight gains: w_j / (e^(1/m_j) - 1) (the law of Skilling
    2006, section 4, without simulation). The mean of the live points adds its own variance.

    Args:
      dead: normalised weights of the dead, in order; `among`: the m_j, 0 where there is no point.
      live: normalised weights of the live, of which `number` are points.

    >>> import jax.numpy as jnp
    >>> from inference.smc.nested import volume_error
    >>> none, flat = jnp.zeros(0), jnp.full(4, 0.25)
    >>> volume_error(none, none, flat, jnp.array(4.0)).item()  # the prior, and no difference
    0.0
    """
    left = live.sum()
    behind = left + jnp.flip(jnp.cumsum(jnp.flip(dead))) - dead
    m = jnp.maximum(among, 1.0)
    effect = behind - dead / jnp.expm1(1 / m)
    volumes = jnp.where(among > 0, (effect / m) ** 2, 0.0).sum()
    here, mean = live > 0, left / number  # the others are no points, or not likely
    spread = jnp.where(here, (live - mean) ** 2, 0.0).sum() + (number - here.sum()) * mean**2
    return jnp.sqrt(volumes + spread * number / jnp.maximum(number - 1, 1))


def _checked(n: int, batch: int, fraction: float, max_iterations: int | None) -> int:
    """The most iterations.

    Raises:
      InvalidArgument: a number is not one that can be.
    """
    check_count("n", n, least=2)
    check_count("batch", batch, most=n - 1)
    check_number("fraction", fraction, above=0, below=1, fix=1e-3)
    if max_iterations is not None:
        check_count("max_iterations", max_iterations)
        return max_iterations
    return -(-40 * n // batch)
