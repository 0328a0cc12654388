"""Pseudo-marginal inference: latents integrated out by an unbiased estimate of their mass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Masked, Selection, Target, dependencies, errors
from ppl.addresses import flatten, nest
from ppl.arguments import Arguments
from ppl.language import factor, inline
from ppl.program import CHOICE, DRAW, FACTOR, Choice, Path
from ppl.program import Step as ProgramStep
from ppl.staging import without_dead_draws
from ppl.walk import Result, Rule, walk

from ..smc.filtering import Filtered, particle_filter
from ..smc.particles import History, Telling
from ..smc.resample import Scheme, check_resampling
from ..smc.schemes import systematic
from ..smc.smoothing import genealogy
from ..targets.series import Series, again
from ..validation.objects import check_callable, check_target
from ..validation.settings import check_count
from ..weighted import Step, Weighted, log_evidence, unit


def filter_series(
    target: Target,
    address: str | tuple[str, ...],
    n: int,
    *,
    scheme: Scheme = systematic,
    threshold: float = 0.5,
    order: Callable[[Any], jax.Array] | None = None,
) -> Step:
    """From the unit measure to `target`, by a particle filter of a series of latents.

    Proper: n weighted traces, whose mean weight is an unbiased estimate of the evidence (Del
    Moral 2004). The series is that of a `scan` in the model, and has all of its latents; all
    else is observed.

    Args:
      address: of a latent in a `lax.scan` of the model, or that of the call
        `sample(address, scan(step)(init, xs))`.
      n, scheme, threshold, order: as for `particle_filter`; `order` is of the list of the arrays
        in the carry of the scan.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: it is no series (see `particle_gibbs`), or not all of the latents;
        something outside of it is observed in part; or `n` is less than 1.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import filter_series, log_evidence, multinomial, unit
    >>> from ppl import Target, gen, integrate, sample, scan
    >>> @gen
    ... def weather(rain, _):
    ...     rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, 0.75, 0.25)))
    ...     sample("wet", dist.Bernoulli(jnp.where(rain == 1, 1.0, 0.5)))
    ...     return rain, None
    >>> days = gen(lambda: sample("days", scan(weather, 2)(1)))
    >>> target = Target(days, (), {"days": {"wet": jnp.array([1, 1])}})
    >>> step = filter_series(target, "days", 2, scheme=multinomial)
    >>> evidence = integrate(lambda: jnp.exp(log_evidence(step(unit()))))()
    >>> print(f"{evidence:.4f}")  # 3/4 * (3/4 + 1/8) + 1/4 * 1/2 * (1/4 + 3/8)
    0.7344
    """
    check_count("n", n)
    check_resampling(threshold, scheme)
    if order is not None:
        check_callable("order", order, "a function from a state to a number", "leave it out")
    _, call, finished = series_of(target, address)

    def recorded(weighted: Weighted) -> tuple[Weighted, History]:
        model, init, xs, given = call()
        run = particle_filter(
            model, init, given, n, xs=xs, scheme=scheme, threshold=threshold, order=order,
            history=True,
        )  # fmt: skip
        found = finished(run)
        history = History(run.history.log_evidence, run.history.ess)
        return Weighted(found.value, weighted.log_weight + found.log_weight), history

    return Telling(recorded)


def series_of(target: Target, address: Selection | str | Path) -> tuple[Series, Callable, Callable]:
    """What a filter of a series of a target runs on, and how its particles are the target's.

    Returns:
      The series; `() -> (model, init, xs, observations)`, as `particle_filter` takes; and, from a
      `Filtered` with its path, to weighted traces of the target.

    Raises:
      AddressNotFound, InvalidArgument: as for `filter_series`.
    """
    check_target(target)
    series = Series.of(target, address)
    check_rest(target, series)
    seen = target.observed
    arguments = Arguments.of(target.args, {}, target.model.fixed)
    everything = Target(target.model, target.args)

    def call() -> tuple:
        given = series.in_order(nest({path: seen[path] for path in series.given}))
        return *series.call(arguments, seen), given

    def whole(path: Any) -> dict[Path, Any]:
        return {**seen, **flatten(series.in_order(path))}

    def finished(found: Filtered) -> Weighted:
        paths = genealogy(found)
        traces = jax.vmap(lambda path: everything.at(nest(whole(path)))[0])(paths.value)
        one = jax.tree.map(lambda leaf: leaf[0], paths.value)
        return Weighted(traces, paths.log_weight + series.log_rest(arguments, whole(one)))

    return series, call, finished


def check_rest(target: Target, series: Series, kept: frozenset[Path] = frozenset()) -> None:
    """Raise unless the series has all latents but the kept, and the rest is known."""
    other = [path for path in target.latents if path not in kept.union(series.paths)]
    other += [
        path
        for path, value in target.observed.items()
        if isinstance(value, Masked) and path not in series.given
    ]
    if other:
        path = other[0]
        raise errors.InvalidArgument(
            f"The filter makes one series, but {errors.show(path)} is latent, too.",
            where=(f"{errors.show(path)} at {target.sites[path].source}", errors.caller()),
            given="latents outside of " + "; ".join(map(errors.show, series.paths)),
            expected="a target whose latents are those of the series",
            fix=f"observe {errors.show(path)}; or marginal(target, {path[-1]!r}, using)",
        )


def marginal(
    target: Target, keep: Selection | str | tuple[str, ...], using: Callable[[Target], Step]
) -> Target:
    """The target of the kept latents, its density estimated without bias by a step.

    At each value of the kept latents the others are integrated out by `using(rest)`, where
    `rest` is `target` with the kept latents observed. A trace keeps the estimate that it was
    made with, so Metropolis-Hastings on the result leaves the exact marginal posterior
    invariant, for any number of particles (Andrieu and Roberts 2009); with a particle filter
    it is particle marginal Metropolis-Hastings (Andrieu, Doucet and Holenstein 2010).

    `mh`, `mhg`, `metropolize` and `random_walk` apply. Kernels that need the density itself or
    its gradient, such as `gibbs`, `hmc` and `nuts`, do not apply to estimates, and say so.

    Where no draw of the step matters for its mass, the density is no estimate, and all kernels
    apply: `filter_beliefs` with one particle and all latents of the series summed out is the
    forward algorithm, or a Kalman filter, and `nuts` takes its gradient.

    Args:
      keep: latents; how they are made may not depend on the others.
      using: from a target to a proper step from the unit measure to it: `filter_series`,
        `importance`, `annealed`, or one's own.

    Returns:
      A target with all observations inside: its choices are the kept latents.

    Raises:
      AddressNotFound: the selection names no choice of the model.
      InvalidArgument: the selection names an observed choice; the kept latents depend on others;
        or the model draws without addresses.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import filter_series, marginal, mhg, sample_posterior
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def walk():
    ...     scale = sample("scale", dist.HalfNormal(1.0))
    ...     def step(z, _):
    ...         z = sample("z", dist.Normal(z, scale))
    ...         sample("y", dist.Normal(z, 1.0))
    ...         return z, None
    ...     jax.lax.scan(step, 0.0, None, length=4)
    >>> target = Target(walk, (), {"y": jnp.array([0.5, 1.0, 2.0, 1.5])})
    >>> scales = marginal(target, "scale", lambda rest: filter_series(rest, "z", 20))
    >>> near = gen(lambda x: sample("scale", dist.LogNormal(jnp.log(x["scale"]), 0.5)))
    >>> kernel = mhg(scales, near, lambda x, u: (u, x))  # the new and the old change places
    >>> draws = sample_posterior(jax.random.key(0), scales, kernel, chains=2, draws=10, warmup=5)
    >>> draws["scale"].shape
    (2, 10)
    """
    check_target(target)
    check_using(using)
    chosen = target.selection(keep)
    kept = frozenset(path for path in target.latents if chosen(path))
    check_kept(target, kept)
    fn = _Marginal(target.model, target.observations, kept, using)
    name = f"marginal({target.model.name}, {'; '.join(map(errors.show, sorted(kept)))})"
    return Target(GenerativeFunction(fn, target.model.fixed, name), target.args)


def check_using(using: Callable[[Target], Step]) -> None:
    """Raise `InvalidArgument` unless `using` may be a function from targets to steps."""
    expected = "by_importance(n), by_filter(address, n), or a function from a target to a step"
    check_callable("using", using, expected, "using=lambda rest: importance(rest, 100)")


def check_kept(target: Target, kept: frozenset[Path]) -> None:
    """Raise unless the kept latents can be made first."""
    first = min(kept)
    where = (f"{errors.show(first)} at {target.sites[first].source}", errors.caller())
    if DRAW in target.model._prepare(target.args, {}).staged.program.effects:
        raise errors.InvalidArgument(
            "The model draws without addresses, so that its density is only estimated.",
            where=where,
            given="draw() in the model",
            expected="a model all of whose randomness has addresses",
            fix='give it an address: sample("name", distribution)',
        )
    above = dependencies(target.model, *target.args).ancestors(*kept)
    for path in above:
        known = path in target.observed and not isinstance(target.observed[path], Masked)
        if path not in kept and not known:
            raise errors.InvalidArgument(
                f"Kept latents depend on {errors.show(path)}, which is to be integrated out.",
                where=(f"{errors.show(path)} at {target.sites[path].source}", *where),
                given="kept: " + "; ".join(map(errors.show, sorted(kept))),
                expected="latents that are made from kept or observed choices",
                fix=f"keep {errors.show(path)}, too",
            )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "observations"],
    meta_fields=["kept", "using"],
)
@dataclass(frozen=True, eq=False)
class _Marginal:
    """Make the kept latents, and score them by the estimated mass of the rest."""

    model: GenerativeFunction
    observations: Mapping[str, Any]
    kept: frozenset[Path]
    using: Callable[[Target], Step]

    def __call__(self, *args: Any) -> None:
        target = Target(self.model, args, self.observations)

        def log_density(values: Mapping[str, Any]) -> jax.Array:
            return log_evidence(self.using(rest(target, values))(unit()))

        # what is left is no estimate if none of its draws matters
        scored(target, self.kept, without_dead_draws(log_density))


def rest(target: Target, values: Mapping[str, Any]) -> Target:
    """The target with these latents observed, too."""
    seen = {**flatten(target.observations), **flatten(values)}
    return Target(target.model, target.args, nest(seen))


def scored(
    target: Target, kept: frozenset[Path], log_density: Callable[[dict], jax.Array]
) -> dict[str, Any]:
    """In a model: make the kept latents as the target's model does, and give them a density.

    Whatever made them, their measure has then this log density, or this estimate of one.
    """
    prior = GenerativeFunction(
        Prior(target.model, target.observations, kept), target.model.fixed, "prior"
    )
    values = inline(prior(*target.args))
    estimate = log_density(values)
    density, _ = prior.assess(values, *target.args)
    # off the support both are -inf
    factor(jnp.where(jnp.isfinite(density), estimate - density, -jnp.inf))
    return values


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "observations"],
    meta_fields=["kept"],
)
@dataclass(frozen=True, eq=False)
class Prior:
    """The part of a model that makes the kept latents; it returns them.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.estimated.pseudo_marginal import Prior
    >>> from ppl import GenerativeFunction, gen, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> prior = GenerativeFunction(Prior(coin, {}, frozenset({("fair",)})))
    >>> list(prior.sites())
    [('fair',)]
    """

    model: GenerativeFunction
    observations: Mapping[str, Any]
    kept: frozenset[Path]

    def __call__(self, *args: Any) -> dict:
        run = self.model._prepare(args, {})
        rule = _Keep(self.kept)
        seen = {p: v for p, v in flatten(self.observations).items() if not isinstance(v, Masked)}
        return nest(walk(run.staged.program, run.operands, rule, seen)[1]["choices"])


class _Keep(Rule):
    """Make the kept choices again. Others have the value that is given, or none that counts."""

    handles = frozenset({CHOICE, FACTOR})

    def __init__(self, kept: frozenset[Path]):
        self.kept = kept

    def visit(self, step: ProgramStep, args: list, inputs: Any) -> Result:
        if not isinstance(step, Choice):  # a factor
            return [], {}, {}
        if step.path not in self.kept:
            blank = jnp.zeros(step.spec.shape, step.spec.dtype)
            return [inputs.get(step.path, blank)], {}, {}
        value = again(step, args)
        return [value], {"choices": {step.path: value}}, {}
