"""SMC²: parameters of a state-space model by particles, each with a particle filter inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl import GenerativeFunction, Target, Trace, errors
from ppl.addresses import flatten, nest
from ppl.arguments import Arguments
from ppl.language import factor, inline
from ppl.program import Path
from ppl.summation import nothing, plus

from ..kernel import check_maker, kernel_for
from ..smc.particles import advance, over
from ..smc.resample import Scheme, check_resampling, when_ess_below
from ..smc.schemes import systematic
from ..targets.series import Series
from ..validation.objects import check_target
from ..validation.settings import as_numbers, check_count, shown
from ..weighted import Step, Weighted, each, lift, log_evidence, spawn, start, then
from .pseudo_marginal import Prior, check_kept, check_rest


def smc2(
    target: Target,
    address: str | tuple[str, ...],
    n: int,
    inner: int,
    make_kernel: Callable[[Target], Callable[[Any], Any]],
    *,
    moves: Sequence[int] | None = None,
    scheme: Scheme = systematic,
    threshold: float = 0.5,
) -> Step:
    """From the unit measure to the latents outside of a series, one observation at a time.

    Proper for the marginal of `target` on them (Chopin, Jacob and Papaspiliopoulos 2013): n
    particles of the parameters, each with a filter of `inner` particles that goes a step with
    every observation and weighs them by it. They are resampled when few of them count, and
    moved, after numbers of observations that are fixed, by a kernel on the target of the data
    so far, whose density is the filter's estimate (see `marginal`). The mean weight is an
    unbiased estimate of the evidence.

    A move runs a filter of all T steps. To move only when few particles count is not proper:
    whether they do depends on where they are, and a kernel keeps their law, not that of those
    among them for which it is so.

    Args:
      address: as for `filter_series`: that of the series, whose states the filters follow.
      n, inner: numbers of particles, of parameters and of states for each.
      make_kernel: from a target of the parameters with an estimated density to a kernel: of
        `mh`, `mhg`, `metropolize`, and what is composed of them.
      moves: after how many observations the parameters are moved, from 1 to T - 1; by default
        1, 2, 4, 8, ..., as the posterior of a regular model keeps its shape until there are
        several times as many data.
      scheme, threshold: resampling of both kinds of particles by `when_ess_below`.

    Returns:
      A step whose values are traces: their choices are the parameters, their return value the
      filter's last states, `Weighted` with mean weight one.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: it is no series (see `particle_gibbs`); the parameters depend on it; `n`
        or `inner` is less than 1; the threshold is no fraction; or a move is out of range.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh, smc2, unit
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def walk():
    ...     scale = sample("scale", dist.HalfNormal(1.0))
    ...     def step(z, _):
    ...         z = sample("z", dist.Normal(z, scale))
    ...         sample("y", dist.Normal(z, 1.0))
    ...         return z, None
    ...     jax.lax.scan(step, 0.0, None, length=4)
    >>> target = Target(walk, (), {"y": jnp.array([0.5, 1.0, 2.0, 1.5])})
    >>> step = smc2(target, "z", 20, 10, lambda t: mh(t, "scale"))
    >>> found = jax.jit(seed(lambda: step(unit())))(jax.random.key(0))
    >>> found.value["scale"].shape, found.value.retval.value[0].shape
    ((20,), (20, 10))
    """
    check_target(target)
    check_count("n", n)
    check_count("inner", inner)
    check_resampling(threshold, scheme)
    check_maker(make_kernel)
    series = Series.of(target, address)
    kept = frozenset(target.latents) - {*series.paths}
    check_kept(target, kept)
    check_rest(target, series, kept)
    length = target.sites[series.paths[0]].shape[0]
    after = _times(moves, length)
    again = when_ess_below(threshold, scheme)
    filters = _Filters(target.model, target.observations, kept, series.paths[0], inner, again)
    shifted = frozenset(i + 1 if isinstance(i, int) else i for i in target.model.fixed)
    model = GenerativeFunction(filters, shifted, f"filters of {target.model.name}")

    def until(t: Any) -> Target:
        """The target of the parameters and the first t observations."""
        return Target(model, (t, *target.args))

    def extended(t: Any) -> Step:
        def step(s: Weighted) -> Weighted:
            trace: Trace = s.value
            inside, more = filters.run(target.args, trace.choices).step(t, trace.retval)
            score = trace.score + more
            # what the score has no digits for stays with the states until it has
            told = score - trace.score
            left = jnp.where(jnp.isfinite(told), more - told, 0)
            grown = replace(
                trace,
                arguments=Arguments.of((t + 1, *target.args), {}, shifted),
                score=score,
                retval=replace(inside, log_weight=inside.log_weight + left),
            )
            return Weighted(grown, s.log_weight + told)

        return step

    def make(row: tuple) -> Step:
        t, moves_now = row

        def step(s: Weighted) -> Weighted:
            s = again(s)
            if moving.any():
                s = lax.cond(
                    moves_now, each(lift(kernel_for(until(t), make_kernel))), lambda s: s, s
                )
            return each(extended(t))(s)

        return step

    times = np.arange(1, length)
    moving = np.isin(times, after)
    rows = jnp.asarray(times), jnp.asarray(moving)
    return then(spawn(n), each(start(until(jnp.ones((), int)))), over(make, rows))


def _times(moves: Sequence[int] | None, length: int) -> list[int]:
    """After how many observations the parameters are moved."""
    if moves is None:
        return [1 << i for i in range(length.bit_length())]
    given = as_numbers(moves)
    fine = given.ndim == 1 and (given.size or (isinstance(moves, (list, tuple)) and not moves))
    if not fine or not np.isin(given, np.arange(1, length)).all():
        raise errors.InvalidArgument(
            "Parameters are moved between two observations.", where=errors.caller(),
            given=f"moves after {shown(moves)} of {length} observations",
            expected=f"ints from 1 to {length - 1}", fix="leave moves out",
        )  # fmt: skip
    return [int(t) for t in given]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "observations"],
    meta_fields=["kept", "address", "inner", "again"],
)
@dataclass(frozen=True, eq=False)
class _Filters:
    """Make the parameters, and score them by a filter of the first t observations.

    Returns the last states of the filter, weighted with mean one.
    """

    model: GenerativeFunction
    observations: Mapping[str, Any]
    kept: frozenset[Path]
    address: Path
    inner: int
    again: Step

    def __call__(self, t: Any, *args: Any) -> Weighted:
        prior = GenerativeFunction(
            Prior(self.model, self.observations, self.kept), self.model.fixed, "prior"
        )
        values = inline(prior(*args))
        run = self.run(args, values)

        def one(state: tuple, i: Any) -> tuple[tuple, None]:
            inside, total = state
            after, more = run.step(i, inside)
            new = after, plus(total, more)
            return jax.tree.map(lambda a, b: jnp.where(i < t, a, b), new, state), None

        none = nothing(jnp.zeros(()))
        (inside, total), _ = lax.scan(one, (run.begun(), none), jnp.arange(run.length))
        density, _ = prior.assess(values, *args)
        # off the support both are -inf
        factor(jnp.where(jnp.isfinite(density), total.value + run.log_rest() - density, -jnp.inf))
        return inside

    def run(self, args: tuple, values: Mapping[str, Any]) -> _Run:
        """The filter at these values of the parameters."""
        seen = nest({**flatten(self.observations), **flatten(values)})
        return _Run(Target(self.model, args, seen), self.address, self.inner, self.again)


class _Run:
    """The filter of a series, all else being observed."""

    def __init__(self, target: Target, address: Path, inner: int, again: Step):
        self.series = Series.of(target, address)
        self.target = target
        self.inner = inner
        self.again = again
        self.length = target.sites[address].shape[0]
        self.arguments = Arguments.of(target.args, {}, target.model.fixed)
        self.model, self.init, self.xs = self.series.call(self.arguments, target.observed_values)
        seen = target.observed
        self.given = self.series.in_order(nest({path: seen[path] for path in self.series.given}))

    def begun(self) -> Weighted:
        """All particles in the state before the first step."""
        return spawn(self.inner)(Weighted(self.init, jnp.zeros(())))

    def step(self, i: Any, s: Weighted) -> tuple[Weighted, jax.Array]:
        """The particles after step i, with mean weight one, and the log of what it was."""
        observed, x = jax.tree.map(lambda leaf: leaf[i], (self.given, self.xs))
        s = then(self.again, each(advance(self.model, observed, x)))(s)
        mass = log_evidence(s)
        common = jnp.where(jnp.isfinite(mass), mass, 0.0)
        return Weighted(s.value, s.log_weight - common), mass

    def log_rest(self) -> jax.Array:
        """The log density of all outside of the series."""
        sites = self.target.sites
        blank = {
            path: jnp.zeros(sites[path].shape, sites[path].dtype) for path in self.series.paths
        }
        return self.series.log_rest(self.arguments, {**self.target.observed_values, **blank})
