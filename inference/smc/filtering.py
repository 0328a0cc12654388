"""Particle filters and smoothers of state-space models, made of the pieces in `particles`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Trace, errors

from ..validation.objects import check_callable, check_proposal
from ..validation.settings import check_count, check_flag, shown
from ..weighted import Step, Weighted, each, spawn, then
from .ordering import sort_by
from .particles import History, advance, recorded, reweight
from .resample import Scheme, check_resampling, resample, when_few
from .schemes import multinomial, systematic
from .step_models import (
    check_model,
    check_rows,
    check_series,
    check_state,
    check_states,
    next_state,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Path:
    """All particles of a filter, for smoothing; T observations and n particles.

    Attributes:
      choices: of each step, observed ones included: arrays (T, n, ...).
      states: after each step: arrays (T, n, ...).
      ancestors: shape (T, n), the particle of the step before that each came from.
      log_weight: shape (T, n), after each step, up to a constant for each step.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Path, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0])}
    >>> run = seed(lambda: particle_filter(walk, 0.0, ys, 5, history=True).path)
    >>> path: Path = run(jax.random.key(0))
    >>> path.choices["z"].shape, path.ancestors.shape
    ((2, 5), (2, 5))
    """

    choices: Any
    states: Any
    ancestors: jax.Array
    log_weight: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ancestry:
    """Where the particles of a filter come from; n particles.

    Attributes:
      eves: shape (n,), which particle of the first step each descends from.
      resamplings: shape (), how often the particles were resampled.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Ancestry, multinomial, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0, 0.2])}
    >>> run = seed(lambda: particle_filter(walk, 0.0, ys, 5, scheme=multinomial, threshold=1.0))
    >>> found: Ancestry = run(jax.random.key(0)).ancestry
    >>> found.eves.shape, int(found.resamplings)
    ((5,), 2)
    """

    eves: jax.Array
    resamplings: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Filtered:
    """What a particle filter gives.

    Attributes:
      particles: the last states, weighted; `log_evidence(particles)` is that of the data.
      history: after each observation the log evidence so far, the effective number of
        particles, and what was recorded.
      path: with `history=True` a `Path`, which smoothing needs; else nothing.
      ancestry: with `scheme=multinomial` an `Ancestry`, which tells the error of the evidence
        (`log_evidence_error`); else nothing.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Filtered, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0])}
    >>> found: Filtered = seed(lambda: particle_filter(walk, 0.0, ys, 100))(jax.random.key(0))
    >>> found.particles.value.shape, found.history.ess.shape
    ((100,), (2,))
    """

    particles: Weighted
    history: History
    path: Path | None = None
    ancestry: Ancestry | None = None


def particle_filter(
    model: GenerativeFunction,
    init: Any,
    observations: Mapping[str, Any],
    n: int,
    *,
    xs: Any = None,
    proposal: GenerativeFunction | None = None,
    lookahead: Callable[[Any, Any, Mapping[str, Any]], jax.Array] | None = None,
    scheme: Scheme = systematic,
    threshold: float = 0.5,
    order: Callable[[Any], jax.Array] | None = None,
    record: Callable[[Weighted], Any] = lambda weighted: None,
    history: bool = False,
) -> Filtered:
    """Filter a series: the bootstrap filter, guided with a proposal, auxiliary with a lookahead.

    A random program. The mean of e^(log weight) over the last particles is an unbiased
    estimate of the probability of the observations, whatever the options (Gordon, Salmond
    and Smith 1993; Pitt and Shephard 1999; Del Moral 2004). Memory is that of n states.

    Args:
      model: one step, `(state, x) -> (state, y)`, from a state to the next.
      init: the state before the first step, the same for all particles.
      observations: what each step observes, arrays with T rows.
      n: number of particles.
      xs: inputs of the steps, arrays with T rows.
      proposal: as for `advance`.
      lookahead: `(state, x, observed) -> log potential`: how promising a state is for the
        next observation. Particles are resampled by it, and it is divided out again. Those of
        -inf cannot explain it, and are dropped.
      scheme, threshold: resampling by `when_ess_below(threshold, scheme)`, before each step
        but the first; always with a threshold of 1 and weights that differ.
      order: from a state to a number by which particles are sorted before they are resampled,
        as by `sort_by`: less error in one dimension, and estimates that change little when
        all that is random does (see `correlated`).
      record: from the particles after each step to what is to be kept.
      history: whether all states are kept, for smoothing.

    Raises:
      InvalidArgument: `n` is less than 1; series of other lengths, or of no rows; the model is no
        generative function, or returns no pair, or another tree than the state.
      ShapeError, DtypeError: the next state is unlike the state, a potential or ancestors are
        not one for each particle; and as for `advance`.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import log_evidence, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0])}
    >>> run = seed(lambda: log_evidence(particle_filter(walk, 0.0, ys, 100).particles))
    >>> logs = jax.vmap(run)(jax.random.split(jax.random.key(0), 400))
    >>> exact = dist.MultivariateNormal(jnp.zeros(2), jnp.array([[2.0, 1.0], [1.0, 3.0]]))
    >>> ratios = jnp.exp(logs - exact.log_prob(ys["y"]))  # 1 on average, from 100 particles
    >>> bool(abs(ratios.mean() - 1.0) < 5 * ratios.std() / 400**0.5)
    True
    """
    check_model(model)
    check_count("n", n)
    check_resampling(threshold, scheme)
    check_state(init)
    if proposal is not None:
        check_proposal(proposal)
    check_flag("history", history)
    if order is not None:
        check_callable("order", order, "a function from a state to a number", "leave it out")
    if lookahead is not None:
        expected = "a function (state, x, observed) -> log potential"
        check_callable("lookahead", lookahead, expected, "leave it out")
    check_callable("record", record, "a function of the particles", "leave it out")
    fix = "particle_filter(model, init, {'y': ys}, n), with ys of shape (T, ...)"
    check_series(observations, xs, "A filter", fix)
    observations = check_rows(model, init, xs, observations)

    def keep(trace: Trace) -> tuple:
        return next_state(trace), trace.choices if history else None

    ordered = then() if order is None else sort_by(partial(_of_state, order))

    def make(row: tuple) -> Step:
        observed, x = row
        again = when_few(threshold, then(ordered, _counted, lambda s: resample(s, scheme)))
        if lookahead is not None:
            look = partial(_look, lookahead, x, observed)
            again = then(reweight(look), again, reweight(partial(_taken_out, look)))
        grow = each(advance(model, observed, x, proposal=proposal, value=keep))

        def step(s: Weighted) -> Weighted:
            states, born = s.value
            chosen = again(Weighted((states, jnp.arange(n), born), s.log_weight))
            before, ancestors, born = chosen.value
            grown = grow(Weighted(before, chosen.log_weight))
            return Weighted((*grown.value, ancestors, born), grown.log_weight)

        return step

    def carried(s: Weighted) -> Weighted:
        states, _, _, born = s.value
        return Weighted((states, born), s.log_weight)

    def seen(s: Weighted) -> tuple:
        states, choices, ancestors, _ = s.value
        path = Path(choices, states, ancestors, s.log_weight) if history else None
        return record(Weighted(states, s.log_weight)), path

    rows = dict(observations), xs
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], rows)
    # the narrowest zero: weights are of the type that the model gives them
    began = spawn(n)(Weighted(init, jnp.zeros((), jnp.float32)))
    # what is known of pairs of particles holds if ancestors are independent
    born = Ancestry(jnp.arange(n), jnp.zeros(n, int)) if scheme is multinomial else None
    began = Weighted((began.value, born), began.log_weight)
    after = jax.eval_shape(lambda: carried(make(first)(began)))
    check_states(after.value[0], began.value[0], model)
    began = jax.tree.map(lambda x, like: x.astype(like.dtype), began, after)
    end, found = recorded(make, rows, seen, carried)(began)
    mine, path = found.record
    states, born = end.value
    ancestry = None if born is None else replace(born, resamplings=born.resamplings[0])
    particles = Weighted(states, end.log_weight)
    return Filtered(particles, History(found.log_evidence, found.ess, mine), path, ancestry)


def _counted(s: Weighted) -> Weighted:
    """Particles that know that they are resampled once more."""
    states, slots, born = s.value
    if born is not None:
        born = replace(born, resamplings=born.resamplings + 1)
    return Weighted((states, slots, born), s.log_weight)


def _of_state(f: Callable, particle: tuple) -> Any:
    return f(particle[0])


def _look(lookahead: Callable, x: Any, observed: Any, particle: tuple) -> jax.Array:
    return lookahead(particle[0], x, observed)


def _taken_out(look: Callable, particle: tuple) -> jax.Array:
    """What divides a potential out again; a weight of zero stays one."""
    potential = jnp.asarray(look(particle))
    return jnp.where(potential == -jnp.inf, potential, -potential)


def check_filtered(filtered: Any) -> None:
    """Raise `InvalidArgument` unless `filtered` is what a filter gives."""
    if not isinstance(filtered, Filtered):
        raise errors.InvalidArgument(
            "What a filter gives was expected.", where=errors.caller(), given=shown(filtered),
            expected="a Filtered", fix="filtered = seed(lambda: particle_filter(...))(key)",
        )  # fmt: skip
