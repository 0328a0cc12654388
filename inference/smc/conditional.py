"""Conditional sequential Monte Carlo: a particle filter that keeps one path, and its kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Masked, Selection, Target, Trace, draw, errors
from ppl.addresses import flatten, nest
from ppl.program import DRAW, FACTOR

from ..kernel import Kernel, Stats
from ..targets.series import Series
from ..validation.objects import check_proposal, check_target
from ..validation.settings import check_count, check_flag, check_number
from ..weighted import Step, Weighted, collapse, each, log_evidence, normalized, spawn
from .filtering import Filtered, Path
from .particles import History, advance, recorded
from .resample import effective_sample_size, when_few
from .smoothing import genealogy
from .step_models import check_model, check_rows, check_series, check_state, next_state


def conditional_filter(
    model: GenerativeFunction,
    init: Any,
    observations: Mapping[str, Any],
    path: Mapping[str, Any],
    n: int,
    *,
    xs: Any = None,
    proposal: GenerativeFunction | None = None,
    ancestor_sampling: bool = True,
    threshold: float = 1.0,
) -> Filtered:
    """A particle filter given that one of its paths is `path`, which particle 0 follows.

    A random program. If `path` has the law of the latents given the observations, then so has
    `collapse(genealogy(filtered))`, for any n (Andrieu, Doucet and Holenstein 2010, theorem 5);
    and e^(-log evidence) has the mean 1 / p(observations). Memory is that of all paths.

    Others are resampled independently of each other (multinomial): the schemes that make
    them depend on one another would have to be made conditional each in its own way.

    Args:
      model, init, observations, xs, proposal: as for `particle_filter`; neither the model nor
        the proposal may draw without addresses.
      path: all latents of the steps, arrays with T rows.
      n: number of particles, with the one that follows the path.
      ancestor_sampling: whether the path gets a new past at each resampling, by the weights of
        the particles times the density of what comes next on the path (Lindsten, Jordan and
        Schön 2014). Only pasts from which the path goes on through the same states count, so
        that it is right for states of any kind, but does little for those that
        remember more than the last choices.
      threshold: particles are resampled when the effective number of them is below this
        fraction of n; always with 1.

    Raises:
      InvalidArgument: `n` is less than 2, series of other lengths, a threshold that is no
        fraction, partial observations, or a model or proposal whose density is only estimated.
      MissingChoice, AddressNotFound, ShapeError, DtypeError: the path does not fit the model.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import collapse, conditional_filter, genealogy
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys, old = {"y": jnp.array([0.5, 1.0, 2.0])}, {"z": jnp.array([0.2, 0.9, 1.7])}
    >>> run = seed(lambda: conditional_filter(walk, 0.0, ys, old, 50))
    >>> found = run(jax.random.key(0))
    >>> bool((found.path.choices["z"][:, 0] == old["z"]).all())
    True
    >>> new = seed(lambda: collapse(genealogy(found)).value["z"])(jax.random.key(1))
    >>> new.shape
    (3,)
    """
    check_model(model)
    _check_settings(n, threshold, ancestor_sampling)
    check_state(init)
    flatten(path)
    if proposal is not None:
        check_proposal(proposal)
    fix = "give the path one row for each observation"
    check_series(observations, (dict(path), xs), "A conditional filter", fix)
    observations = check_rows(model, init, xs, observations)
    rows = dict(observations), dict(path), xs
    first, later = (jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf)[i], rows) for i in _SPLIT)
    _check_densities(model, proposal, init, first)

    def onward(state: Any, row: tuple) -> tuple[Trace, jax.Array]:
        """The path's step from a state, and its log density."""
        observed, mine, x = row
        return Target(model, (state, x), observed).at(mine)

    def grown(row: tuple, before: Weighted, ancestors: jax.Array) -> Weighted:
        """All particles a step further, the first along the path."""
        observed, mine, x = row
        own, rest = (jax.tree.map(lambda leaf, i=i: leaf[i], before) for i in _SPLIT)
        trace, score = onward(own.value, row)
        made = _log_made(trace, mine, proposal, (own.value, x, observed))
        held = Weighted(_kept(trace), own.log_weight + score - made)
        others = each(advance(model, observed, x, proposal=proposal, value=_kept))(rest)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), held, others)
        return Weighted((*both.value, ancestors), both.log_weight)

    def make(row: tuple) -> Step:
        def resampled(s: Weighted) -> Weighted:
            states, _ = s.value
            others = draw(dist.CategoricalProbs(normalized(s.log_weight)).expand([n - 1]))
            parent = jnp.zeros((), others.dtype)
            if ancestor_sampling:
                trace, score = jax.vmap(lambda state: onward(state, row))(states)
                score = jnp.where(_as_first(trace.retval[0]), score, -jnp.inf)
                parent = draw(dist.CategoricalProbs(normalized(s.log_weight + score)))
            even = jnp.full_like(s.log_weight, log_evidence(s))
            return Weighted((states, jnp.concatenate([parent[None], others])), even)

        again = resampled if threshold == 1 else when_few(threshold, resampled)

        def step(s: Weighted) -> Weighted:
            chosen = again(Weighted((s.value, jnp.arange(n)), s.log_weight))
            states, ancestors = chosen.value
            before = jax.tree.map(lambda leaf: leaf[ancestors], states)
            return grown(row, Weighted(before, chosen.log_weight), ancestors)

        return step

    def states_of(s: Weighted) -> Weighted:
        return Weighted(s.value[0], s.log_weight)

    def seen(s: Weighted) -> Path:
        states, choices, ancestors = s.value
        return Path(choices, states, ancestors, s.log_weight)

    # nothing to resample before the first step, where all are in one state
    began = grown(first, spawn(n)(Weighted(init, jnp.zeros(()))), jnp.arange(n))
    end, found = recorded(make, later, seen, states_of)(states_of(began))
    mass, ess = log_evidence(began), effective_sample_size(began.log_weight)
    whole = jax.tree.map(
        lambda a, b: jnp.concatenate([a[None], b]),
        History(mass, ess, seen(began)),
        found,
    )
    return Filtered(end, History(whole.log_evidence, whole.ess), whole.record)


_SPLIT = 0, slice(1, None)


def _kept(trace: Trace) -> tuple:
    return next_state(trace), trace.choices


def _as_first(reached: Any) -> jax.Array:
    """Which of the stacked states are the first of them."""
    same = [(leaf == leaf[0]).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(reached)]
    return jnp.all(jnp.array(same), 0)


def _log_made(
    trace: Trace, mine: Mapping[str, Any], proposal: GenerativeFunction | None, given: tuple
) -> jax.Array:
    """The log density with which a particle would have made these latents."""
    latents, log_density = flatten(mine), jnp.zeros(())
    if proposal is not None:
        guessed = {path: latents.pop(path) for path in proposal.sites(*given) if path in latents}
        log_density = proposal.assess(nest(guessed), *given)[0]
    if latents:
        left = Selection(lambda path: path in latents, (), "what the model makes")
        log_density += trace.model.project(trace, left)
    return log_density


def particle_gibbs(
    target: Target,
    address: str | tuple[str, ...],
    n: int,
    *,
    ancestor_sampling: bool = True,
    threshold: float = 1.0,
) -> Kernel:
    """Draw a series of latents anew, by a particle filter that keeps the current one.

    Leaves `target` invariant for any n (Andrieu, Doucet and Holenstein 2010, theorem 5). The
    series is that of a `scan` in the model; its step is the filter's, its carry the state, and
    what it reads from outside is the trace's. So it goes in a `cycle` with kernels on the
    parameters. With ancestor sampling few particles serve long series.

    Statistics: `moved`, the fraction of steps with a new value.

    Args:
      address: of a latent in a `lax.scan` of the model, or that of the call
        `sample(address, scan(step)(init, xs))`; other choices of the steps, missing data
        among them, stay.
      n, ancestor_sampling, threshold: as for `conditional_filter`.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: it is observed; its choices are not those of one `scan`; something
        outside of the `scan` depends on them; they decide which other choices there are; or
        the model draws without addresses.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import cycle, mh, particle_gibbs, sample_posterior
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
    >>> kernel = cycle(particle_gibbs(target, "z", 10), mh(target, "scale"))
    >>> draws = sample_posterior(jax.random.key(0), target, kernel, chains=2, draws=10, warmup=5)
    >>> draws["z"].shape
    (2, 10, 4)
    """
    check_target(target)
    _check_settings(n, threshold, ancestor_sampling)
    series = Series.of(target, address)

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        values = flatten(trace.choices)
        old, given = (
            nest(series.in_order({path: values[path] for path in paths}))
            for paths in (series.paths, series.given)
        )
        model, init, xs = series.call(trace.arguments, values)
        found = conditional_filter(
            model, init, given, old, n, xs=xs,
            ancestor_sampling=ancestor_sampling, threshold=threshold,
        )  # fmt: skip
        made = flatten(collapse(genealogy(found)).value)
        new = series.in_order({path: made[path] for path in series.paths})
        differ = [(new[p] != values[p]).reshape(len(new[p]), -1).any(1) for p in series.paths]
        moved = jnp.any(jnp.array(differ), 0).mean()
        return target.moved(trace, nest(new))[0], {"moved": moved}

    return Kernel(f"particle_gibbs {errors.show(series.paths[0][:1])}", step, target=target)


def _check_settings(n: int, threshold: float, ancestor_sampling: bool) -> None:
    check_count("n", n, least=2)
    check_number("threshold", threshold, least=0, most=1, fix=1.0)
    check_flag("ancestor_sampling", ancestor_sampling)


def _check_densities(
    model: GenerativeFunction, proposal: GenerativeFunction | None, init: Any, row: tuple
) -> None:
    """Raise unless the weight of the path's step can be computed from its choices."""
    observed, _, x = row
    for name, value in flatten(observed).items():
        if isinstance(value, Masked):
            raise errors.InvalidArgument(
                f"The observation of {errors.show(name)} is partial.", where=errors.caller(),
                given="a Masked value", expected="all latents, missing data too, in the path",
                fix="give the data as they are on the path; particle_gibbs does that",
            )  # fmt: skip
    parts: list[tuple] = [(model, (init, x), {DRAW})]
    if proposal is not None:
        parts.append((proposal, (init, x, observed), {DRAW, FACTOR}))
    for part, args, banned in parts:
        found = part._prepare(args, {}).staged.program.effects & banned
        if found:
            raise errors.InvalidArgument(
                f"The density of {part.name} is only estimated.",
                where=(errors.defined(part.fn), errors.caller()),
                given="draws without addresses" if DRAW in found else "factor/observe",
                expected="a density that is known, for the path's own step",
                fix="give the draws addresses" if DRAW in found else "score in the model",
            )
