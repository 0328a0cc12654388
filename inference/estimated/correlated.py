"""Pseudo-marginal kernels that keep the randomness of an estimate, and move it a little.

The trace of an auxiliary marginal holds, beside the kept latents, the standard normals u that
its estimate is a function of: its measure is that of (kept, u), with u ~ N(0, I) under the
kept's marginal. A proposal for the latents goes together with one for u that is reversible for
N(0, I); so the two estimates in a ratio err alike, and much of the error cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Selection, Target, Trace, draw, errors
from ppl.addresses import nest
from ppl.effects import draw_p
from ppl.normals import normals_of, on_normals
from ppl.program import DRAW, Path
from ppl.program import Step as ProgramStep
from ppl.randomness import bind_parameters, program_of
from ppl.walk import Result, Rule, walk

from .. import move as moves
from ..kernel import Kernel, Stats
from ..mcmc.proposals import propose, proposed
from ..move import Move, accepted
from ..validation.objects import check_target
from ..validation.settings import check_number
from ..weighted import Step, log_evidence, unit
from .pseudo_marginal import check_kept, check_using, rest, scored


def auxiliary_marginal(
    target: Target, keep: Selection | str | tuple[str, ...], using: Callable[[Target], Step]
) -> Target:
    """`marginal`, as a measure of the kept latents and of the normals in their estimate.

    The law of (kept, u) is prior(kept) Z(kept, u) N(du; 0, I), with Z the estimate of the mass
    of the rest as a function of standard normals; that of the kept latents is exact, as for
    `marginal`. A trace has u as its return value. Kernels for `marginal` apply, and draw u anew
    with each estimate; `correlated` moves u a little.

    Args:
      keep, using: as for `marginal`. Every draw of the step must have a normal or uniform base,
        finitely many outcomes, or a quantile function.

    Raises:
      AddressNotFound, InvalidArgument: as for `marginal`.
      CannotIntegrate: names a draw of the step that is no function of normals.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import auxiliary_marginal, importance
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def noisy():
    ...     scale = sample("scale", dist.HalfNormal(1.0))
    ...     z = sample("z", dist.Normal(0.0, scale).expand([4]))
    ...     sample("y", dist.Normal(z, 1.0))
    >>> target = Target(noisy, (), {"y": jnp.array([0.5, 1.0, 2.0, 1.5])})
    >>> scales = auxiliary_marginal(target, "scale", lambda rest: importance(rest, 10))
    >>> trace = seed(scales.at)(jax.random.key(0), {"scale": 1.0})[0]
    >>> trace.retval.shape  # ten times four normals
    (40,)
    """
    check_target(target)
    check_using(using)
    chosen = target.selection(keep)
    kept = frozenset(path for path in target.latents if chosen(path))
    check_kept(target, kept)
    sites = target.sites
    blank = nest({p: jnp.zeros(sites[p].shape, sites[p].dtype) for p in sites if p in kept})
    size = normals_of(_estimate(target, using), blank)
    names = "; ".join(map(errors.show, sorted(kept)))
    fn = _Auxiliary(target.model, target.observations, kept, using, size)
    name = f"auxiliary_marginal({target.model.name}, {names})"
    return Target(GenerativeFunction(fn, target.model.fixed, name), target.args)


def _estimate(target: Target, using: Callable[[Target], Step]) -> Callable:
    """From the kept latents to the estimate of the log mass of the rest."""

    def estimate(values: Mapping[str, Any]) -> jax.Array:
        return log_evidence(using(rest(target, values))(unit()))

    return estimate


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "observations"],
    meta_fields=["kept", "using", "size"],
)
@dataclass(frozen=True, eq=False)
class _Auxiliary:
    """Make the kept latents, and score them by the estimate at normals, which it returns."""

    model: GenerativeFunction
    observations: Mapping[str, Any]
    kept: frozenset[Path]
    using: Callable[[Target], Step]
    size: int

    def __call__(self, *args: Any) -> jax.Array:
        target = Target(self.model, args, self.observations)
        normals = dist.Normal(jnp.zeros(()), 1.0).expand([self.size])
        leaves, params = bind_parameters(normals, _PLACE, "draw")
        u = draw_p.bind(*leaves, **params, levels=(), source=_PLACE)
        scored(target, self.kept, partial(on_normals(_estimate(target, self.using)), u))
        return u


_PLACE = "the normals of auxiliary_marginal"


def correlated(
    target: Target,
    how: Selection | str | tuple[str, ...] | GenerativeFunction | Move,
    correlation: float | Callable[[jax.Array], jax.Array] = 0.99,
) -> Kernel:
    """Correlated pseudo-marginal Metropolis-Hastings: new latents, and their estimate near by.

    Leaves an auxiliary marginal invariant: u' = r u + sqrt(1 - r^2) e, e ~ N(0, I), is
    reversible for the law of u, so that the ratio is that of the estimates and of the proposal
    for the latents alone (Deligiannidis, Doucet and Pitt 2018, section 2). With r = 0 it is
    pseudo-marginal Metropolis-Hastings; with r near 1 the number of particles need grow only
    with the square root of the number of data, not with it. That takes estimates that change
    little with u and the latents: `filter_series` with `order=`, so that particles are sorted
    before they are resampled, and `threshold=1.0`, so that it is never chance whether they are.

    Statistics: `accept`.

    Args:
      target: an `auxiliary_marginal`.
      how: what new latents are proposed by: latents, drawn anew from the model as by `mh`
        (`select()` for none: u moves alone); a proposal, as for `propose`; or a `Move`.
      correlation: r, between -1 and 1; or a random program u -> u' reversible for N(0, I).

    Raises:
      InvalidArgument: the target is no auxiliary marginal, or r is not between -1 and 1; and as
        for `mh` and `propose`.
      AddressNotFound, ShapeError, DtypeError: as for `mh` and `propose`.

    Source: Deligiannidis, Doucet and Pitt, The correlated pseudo-marginal method (JRSS B 2018);
    Dahlin, Lindsten, Kronander and Schön, Accelerating pseudo-marginal Metropolis-Hastings by
    correlating auxiliary variables (2015).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import auxiliary_marginal, correlated, filter_series, sample_posterior
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
    >>> def by_filter(rest):
    ...     return filter_series(rest, "z", 10, order=lambda carry: carry[0], threshold=1.0)
    >>> scales = auxiliary_marginal(target, "scale", by_filter)
    >>> near = gen(lambda x: sample("scale", dist.LogNormal(jnp.log(x["scale"]), 0.5)))
    >>> kernel = correlated(scales, near, 0.95)
    >>> draws = sample_posterior(jax.random.key(0), scales, kernel, chains=2, draws=10, warmup=5)
    >>> draws["scale"].shape
    (2, 10)
    """
    check_target(target)
    if not isinstance(target.model.fn, _Auxiliary):
        raise errors.InvalidArgument(
            "The traces of the target do not keep the randomness of an estimate.",
            where=errors.caller(),
            given=repr(target),
            expected="an auxiliary marginal",
            fix="auxiliary_marginal(target, keep, using)",
        )
    refresh: Any = correlation
    if not callable(correlation) or isinstance(correlation, GenerativeFunction):
        refresh = autoregressive(refresh)
    make = _proposer(target, how)

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        changed, log_ratio = _at_normals(make, refresh(trace.retval), trace)
        trace, probability = accepted(trace, changed, log_ratio)
        return trace, {"accept": probability}

    return Kernel("correlated", step, target=target)


def autoregressive(r: float) -> Callable[[jax.Array], jax.Array]:
    """u -> r u + sqrt(1 - r^2) e with e ~ N(0, I): reversible for u ~ N(0, I).

    Raises:
      InvalidArgument: r is not between -1 and 1.

    >>> import jax.numpy as jnp
    >>> from inference.estimated.correlated import autoregressive
    >>> from ppl import integrate
    >>> stays = autoregressive(0.6)
    >>> integrate(lambda: stays(jnp.array([2.0])), nodes=4)().round(4).tolist()  # r u, on average
    [1.2]
    """
    check_number("correlation", r, least=-1, most=1, fix=0.99)

    def refresh(u: jax.Array) -> jax.Array:
        e = draw(dist.Normal(jnp.zeros((), u.dtype), 1.0).expand(u.shape))
        return r * u + (1 - r**2) ** 0.5 * e

    return refresh


def _proposer(target: Target, how: Any) -> Callable[[Trace], tuple[Trace, Any]]:
    """From a trace to a proposed one and the log ratio, which makes one estimate."""
    if isinstance(how, Move):
        return lambda trace: moves.propose(how, target, trace)
    if isinstance(how, GenerativeFunction):
        propose(target, how)  # which checks it
        return lambda trace: proposed(target, how, trace)
    chosen = target.selection(how)
    return lambda trace: target.regenerate(trace, chosen)[:2]


def _at_normals(f: Callable, u: jax.Array, *args: Any) -> Any:
    """`f(*args)` with the estimates in it at these normals; other draws are left in place."""
    staged, arguments = program_of(f, args, {})
    return staged.rebuild(walk(staged.program, arguments.leaves, _Given(u), {})[0])


class _Given(Rule):
    """Resolve the normals of an auxiliary marginal; inputs are not used."""

    handles = frozenset({DRAW})

    def __init__(self, u: jax.Array):
        self.u = u

    def inside(self, step: ProgramStep, inputs: Any) -> Any:
        return {}

    def visit(self, step: ProgramStep, args: list, inputs: Any) -> Result:
        return [self.u] if step.source == _PLACE else step.evaluate(*args), {}, {}
