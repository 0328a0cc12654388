"""Slice samplers: a level below the log density, and a bracket that shrinks to the point.

A bracket shrinks towards the current point, which lies in the slice, so that it ends. Where
the tries are used up before, the sampler stays: the moves that are left are still symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Selection, Target, Trace, dependencies, draw, errors, select
from ppl.addresses import flatten, nest
from ppl.distributions import elementwise
from ppl.execute import fresh
from ppl.program import CHOICE, FACTOR, Choice, Path, Step
from ppl.walk import Result, Rule, walk

from ..kernel import Kernel, Stats
from ..recipe import made_again
from ..validation.objects import check_target
from ..validation.settings import check_count, check_number, check_option
from .metric import Metric
from .prologue import Prologue
from .scored_position import ScoredPosition, on_scored_positions

LogDensity = Callable[[jax.Array], jax.Array]

TRIES = 100
"""Most points that are tried in one slice; half of a bracket is lost each time, on average."""


class _Bracket(NamedTuple):
    low: jax.Array
    high: jax.Array
    at: jax.Array
    log_density: jax.Array
    tries: jax.Array


def _shrunk(
    log_density: LogDensity, level: Any, bracket: _Bracket, tries: int
) -> tuple[jax.Array, _Bracket]:
    """Points of the bracket, uniform, until one is above the level; whether one was.

    `bracket.at` is the first; each refused one becomes the end on its side of 0.
    """

    def refused(b: _Bracket) -> jax.Array:
        return ~(b.log_density > level) & (b.tries < tries)

    def again(b: _Bracket) -> _Bracket:
        low, high = jnp.where(b.at < 0, b.at, b.low), jnp.where(b.at < 0, b.high, b.at)
        at = low + (high - low) * draw(dist.Uniform(jnp.zeros((), low.dtype), 1.0))
        return _Bracket(low, high, at, log_density(at), b.tries + 1)

    end = jax.lax.while_loop(refused, again, bracket)
    return end.log_density > level, end


@made_again
def slice_sample(
    target: Target,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    along: Literal["coordinates", "direction"] = "coordinates",
    width: float = 2.5,
    most: int = 10,
) -> Kernel:
    """Slice sampling on lines, by stepping out and shrinking; leaves `target` invariant.

    In unconstrained space: each coordinate in turn, or along one random direction (Neal 2003,
    figures 3 and 5). There is no step size to tune; the warm-up finds the standard deviation
    of each coordinate, which the width is a multiple of.

    Statistics: `steps` (evaluations of the density), `refused` (whether the tries of a line
    were used up, which is a fault of the density).

    Args:
      selection: continuous latents; all latents if left out.
      along: "coordinates", or one "direction", uniform on the sphere.
      width: of the first bracket, in standard deviations.
      most: a bracket has at most this many times the width.

    Raises:
      InvalidArgument: a selected latent has no unconstrained space, or a setting is out of
        range.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import sample_posterior
    >>> from inference.mcmc.slices import slice_sample
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> draws = sample_posterior(jax.random.key(0), target, slice_sample(target))
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    check_count("most", most)
    check_option("along", along, ("coordinates", "direction"))
    check_number("width", width, above=0, fix=2.5)
    begun = Prologue(target, selection, width, False, lambda n: None, lambda n: width)
    space = begun.space
    n, dtype = space.size, space.dtype

    def lines(metric: Metric) -> jax.Array:
        """Of shape (number of lines, n)."""
        if along == "coordinates":
            return metric.step_size * jnp.diag(metric.deviations)
        noise = draw(dist.Normal(jnp.zeros(n, dtype), 1.0))
        return (metric.step_size * metric.deviations * noise / jnp.linalg.norm(noise))[None]

    def step(metric: Metric, point: ScoredPosition) -> tuple[ScoredPosition, Stats]:
        log_density = space.log_density(point.rest)

        def one(state: tuple, line: jax.Array) -> tuple[tuple, tuple]:
            z, value = state
            t, value, evaluations, refused = _on_line(
                lambda t: log_density(z + t * line), value, most
            )
            return (z + t * line, value), (evaluations, refused)

        ends, (evaluations, refused) = jax.lax.scan(
            one, (point.z, point.log_density), lines(metric).astype(dtype)
        )
        return ScoredPosition(point.rest, *ends), {
            "steps": evaluations.sum(),
            "refused": refused.any(),
        }

    return begun.kernel("slice", step, on_scored_positions(space))


def _on_line(log_density: LogDensity, value: jax.Array, most: int) -> tuple:
    """From 0, where the log density is `value`, to a point of the slice, in widths.

    Returns the point, the log density there, the number of evaluations, and whether the tries
    were used up.
    """
    level = value - draw(dist.Exponential(jnp.ones((), value.dtype)))
    u = draw(dist.Uniform(jnp.zeros(3, value.dtype), 1.0))
    left = jnp.floor(most * u[1]).astype(int)  # of the widths to add, those that go left

    def out(direction: float, end: jax.Array, more: jax.Array) -> tuple[jax.Array, jax.Array]:
        def inside(state: tuple) -> jax.Array:
            _, more, height = state
            return (more > 0) & (height > level)

        def further(state: tuple) -> tuple:
            end, more, _ = state
            return end + direction, more - 1, log_density(end + direction)

        end, rest, _ = jax.lax.while_loop(inside, further, (end, more, log_density(end)))
        return end, 1 + more - rest

    low, some = out(-1.0, -u[0], left)
    high, others = out(1.0, 1 - u[0], most - 1 - left)
    at = low + (high - low) * u[2]
    first = _Bracket(low, high, at, log_density(at), jnp.ones((), int))
    found, end = _shrunk(log_density, level, first, TRIES)
    at, value = jnp.where(found, end.at, 0.0), jnp.where(found, end.log_density, value)
    return at, value, some + others + end.tries, ~found


# -- elliptical ------------------------------------------------------------------------------

GAUSSIAN = (
    dist.Normal,
    dist.MultivariateNormal,
    dist.LowRankMultivariateNormal,
    dist.MatrixNormal,
    dist.GaussianRandomWalk,
)


@made_again
def elliptical_slice(
    target: Target, selection: Selection | str | tuple[str, ...] | None = None
) -> Kernel:
    """Slice sampling on ellipses through the current point and a draw of the Gaussian prior.

    Leaves `target` invariant (Murray, Adams and MacKay 2010, figure 2). The selected latents
    are Gaussian given the others, with means and covariances that do not depend on the selected
    ones. There is nothing to tune, and no gradient.

    Statistics: `steps` (evaluations of the density), `refused` (whether the tries were used up,
    which is a fault of the density).

    Args:
      selection: latents with Gaussian priors; all latents if left out.

    Raises:
      InvalidArgument: the prior of a selected latent is not Gaussian, or not given by the rest.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import sample_posterior
    >>> from inference.mcmc.slices import elliptical_slice
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> draws = sample_posterior(jax.random.key(0), target, elliptical_slice(target))
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    check_target(target)
    chosen = None if selection is None else target.selection(selection)
    paths = [path for path in target.latents if chosen is None or chosen(path)]
    _check_gaussian(target, paths)
    these = select(*paths)

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        means, others = prior_draw(target, trace, paths)
        here = {path: value - means[path] for path, value in _at(trace, paths).items()}

        def on_ellipse(angle: jax.Array) -> Trace:
            c, s = jnp.cos(angle), jnp.sin(angle)
            found = {p: means[p] + c * here[p] + s * (others[p] - means[p]) for p in paths}
            values = {p: v.astype(target.sites[p].dtype) for p, v in found.items()}
            return target.moved(trace, nest(values))[0]

        def log_likelihood(trace: Trace) -> jax.Array:
            return trace.score - target.model.project(trace, these)

        value = log_likelihood(trace)
        level = value - draw(dist.Exponential(jnp.ones((), value.dtype)))
        angle = 2 * jnp.pi * draw(dist.Uniform(jnp.zeros((), value.dtype), 1.0))

        def log_density(angle: jax.Array) -> jax.Array:
            return log_likelihood(on_ellipse(angle))

        first = _Bracket(angle - 2 * jnp.pi, angle, angle, log_density(angle), jnp.ones((), int))
        found, end = _shrunk(log_density, level, first, TRIES)
        moved = on_ellipse(end.at)
        kept = jax.tree.map(lambda a, b: a if a is b else jnp.where(found, b, a), trace, moved)
        return kept, {"steps": end.tries, "refused": ~found}

    return Kernel("elliptical slice", step, target=target)


class _Prior(Rule):
    """At each of some Gaussian choices: its mean, and a fresh draw. All values are given."""

    handles = frozenset({CHOICE, FACTOR})

    def __init__(self, paths: list[Path]):
        self.paths = frozenset(paths)

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        if not isinstance(step, Choice):
            return [], {}, {}
        value = inputs[step.path]
        if not step.scored or step.path not in self.paths:
            return [value], {}, {}
        mean = jnp.broadcast_to(step.spec.tree.unflatten(args).mean, step.spec.shape)
        return [value], {"mean": {step.path: mean}, "fresh": {step.path: fresh(step, args)}}, {}


def prior_draw(
    target: Target, trace: Trace, paths: list[Path]
) -> tuple[dict[Path, jax.Array], dict[Path, jax.Array]]:
    """The means of Gaussian choices given the rest of a trace, and a draw of them; by path."""
    run = target.model._prepare((trace.arguments,), {})
    given = flatten(trace.choices)
    _, found, _ = walk(run.staged.program, run.operands, _Prior(paths), given)
    return found["mean"], found["fresh"]


def _at(trace: Trace, paths: list[Path]) -> dict[Path, Any]:
    values = flatten(trace.choices)
    return {path: values[path] for path in paths}


def _check_gaussian(target: Target, paths: list[Path]) -> None:
    if not paths:
        raise errors.InvalidArgument(
            "There is no latent choice to move.", where=errors.caller(),
            given=f"a selection of {target.model.name}", expected="at least one latent",
            fix="select one, or leave it out",
        )  # fmt: skip
    graph = dependencies(target.model, *target.args)
    for path in paths:
        site = target.sites[path]
        name = errors.show(path)
        above = [p for p in graph.parents[path] if p in paths]
        gap, each = target.gaps.get(path), elementwise(site.distribution)
        if gap is not None and gap.seen.ndim > len(site.axes) + len(each.batch_shape):
            what, given = f"Of vectors of {name} parts are data.", "Masked(..., impute=True)"
            fix = "impute whole vectors, or use slice_sample or nuts"
        elif not isinstance(_base(site.distribution), GAUSSIAN):
            what, given = f"The prior of {name} is not Gaussian.", site.kind
            fix = "select others, or use slice_sample or nuts"
        elif site.conditional:
            what, given = f"{name} is not always there, so it has no prior of its own.", site.kind
            fix = "select others, or use mh"
        elif above:
            what = f"The prior of {name} depends on what is selected with it."
            given = "parents: " + "; ".join(errors.show(p) for p in above)
            fix = "move them in turn by cycle, or sample standard normals and transform them"
        else:
            continue
        raise errors.InvalidArgument(
            what, where=(f"{name} at {site.source}", errors.caller()), given=given,
            expected="Gaussian latents whose means and covariances the other choices give",
            fix=fix,
        )  # fmt: skip


def _base(distribution: Any) -> Any:
    while isinstance(distribution, (dist.Independent, dist.ExpandedDistribution)):
        distribution = distribution.base_dist
    return distribution
