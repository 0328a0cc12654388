"""Ways to a target, each with its conditional version: the particles given that one is known.

An algorithm makes particles whose weighted measure is the target. Read backwards, the target
draws one particle, and the conditional version draws the others around it: conditional
importance sampling, conditional SMC (Andrieu, Doucet and Holenstein 2010). The pair is what
a density needs that is only estimated: `stochastic`.

The conditional versions are the same steps, with the known particle held in its place, and
with ancestors drawn for the others alone. Resampling is multinomial: ancestors that depend
on one another would have to be made conditional each in its own way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Masked, Target, Trace, errors, gen
from ppl.addresses import as_path, flatten, nest, not_found
from ppl.language import inline
from ppl.program import DRAW

from ..move import Proposal
from ..smc.conditional import conditional_filter
from ..smc.schemes import multinomial
from ..smc.translate import translate
from ..targets.temper import heat
from ..validation.objects import check_no_gaps, check_proposal
from ..validation.settings import check_count, check_number
from ..weighted import Step, Weighted, each, spawn, start, then, unit
from .pseudo_marginal import filter_series, series_of


@dataclass(frozen=True, eq=False)
class Algorithm:
    """E[mean_i e^(w_i) f(x_i, Z)] = sum over x of g(x) E_x[f(x, Z)], Z the mean weight.

    On the left the particles are those of the step to a target g, on the right those of the
    conditional version given x. With f = f(x) it says that the step is proper. Called with a
    target, an algorithm is its step, so it goes where a function from targets to steps does.

    Attributes:
      name: for messages.
      step: from a target to a proper step from the unit measure to it, whose values are traces.
      given: `(target, trace) -> particles`, a random program; the first one is the trace.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Algorithm, by_importance, collapse, start, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> way: Algorithm = by_importance(3)
    >>> def kernel(trace):  # what is drawn from the particles around a trace
    ...     return collapse(way.given(target, trace)).value
    >>> def fair():
    ...     s = start(target)(unit())
    ...     return jnp.exp(s.log_weight) * kernel(s.value)["fair"]
    >>> print(f"{integrate(fair)():.4f}")  # p(fair, heads): it leaves the target invariant
    0.2500
    """

    name: str
    step: Callable[[Target], Step]
    given: Callable[[Target, Trace], Weighted]

    def __call__(self, target: Target) -> Step:
        return self.step(target)

    def __repr__(self) -> str:
        return self.name


def by_importance(n: int, proposal: Proposal | None = None) -> Algorithm:
    """`importance(target, n)`, and n - 1 draws beside a trace.

    Args:
      proposal: of the target's arguments: makes all of its latents, in place of the model. Its
        density may be estimated, so algorithms nest.

    Raises:
      InvalidArgument: `n` is less than 1.
      MissingChoice, AddressNotFound: the proposal makes other choices than the latents, where it
        meets a target.

    Source: Andrieu, Doucet and Holenstein, Particle Markov chain Monte Carlo methods (JRSS B
    2010), section 4.1; Naesseth, Lindsten and Schön, Nested sequential Monte Carlo methods (ICML
    2015), for proposals of estimated density.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import by_importance, log_evidence
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> def inverse(fair):
    ...     found = by_importance(3).given(target, target.at({"fair": fair})[0])
    ...     return jnp.exp(-log_evidence(found))
    >>> mean = 0.4 * integrate(inverse)(1) + 0.6 * integrate(inverse)(0)  # over the posterior
    >>> print(f"{1 / mean:.4f}")  # the evidence
    0.6250
    """
    if proposal is not None:
        check_proposal(proposal)
    spawn(n)

    def begun(target: Target) -> Step:
        if proposal is None:
            return start(target)
        if isinstance(proposal, GenerativeFunction):  # before the translation says it its way
            _check_makes(proposal, target)
        made = translate(_EMPTY, target, _bound(proposal, target.args), None, lambda x, u: (u, {}))
        return then(start(_EMPTY), made)

    def given(target: Target, trace: Trace) -> Weighted:
        check_known(target)
        if proposal is None:
            level = heat(target, trace)
        else:  # what making it would have weighed is the inverse of what unmaking it weighs
            bound = _bound(proposal, target.args)
            unmade = translate(target, _EMPTY, None, bound, lambda x, u: ({}, x))
            level = -unmade(Weighted(trace, jnp.zeros(()))).log_weight
        return beside(Weighted(trace, level), n, each(begun(target)), unit())

    def step(target: Target) -> Step:
        return then(spawn(n), each(begun(target)))

    return Algorithm(f"by_importance({n})", step, given)


_EMPTY = Target(gen(lambda: None))


def _check_makes(proposal: GenerativeFunction, target: Target) -> None:
    """Raise unless a proposal makes the target's latents, and nothing else."""
    if isinstance(proposal, GenerativeFunction):
        check_no_gaps(target, "A proposal of one's own", "importance, or a guide like full_rank")
    made, latents = proposal.sites(*target.args), target.latents
    for path, site in made.items():
        if path not in latents:
            raise not_found(path, latents, "The proposal", (site.source,))
    for path in latents:
        if path not in made:
            raise errors.MissingChoice(
                f"The proposal {proposal.name} does not make {errors.show(path)}.",
                where=(
                    f"{errors.show(path)} at {target.sites[path].source}",
                    errors.defined(proposal.fn),
                    errors.caller(),
                ),
                given="; ".join(map(errors.show, made)) or "no choice",
                expected="all latents: " + "; ".join(map(errors.show, latents)),
                fix="make it in the proposal, as the model does",
            )


def _bound(proposal: Proposal, args: tuple) -> Proposal:
    """The proposal at these arguments, whatever is given to it."""
    if isinstance(proposal, GenerativeFunction):
        return GenerativeFunction(lambda x: inline(proposal(*args)), name=proposal.name)
    return _Bound(proposal, args)


@dataclass(frozen=True, eq=False)
class _Bound:
    proposal: Proposal
    args: tuple

    @property
    def name(self) -> str:
        return self.proposal.name

    def simulate(self, *_: Any) -> Trace:
        return self.proposal.simulate(*self.args)

    def assess(self, choices: Any, *_: Any) -> tuple[Any, Any]:
        return self.proposal.assess(choices, *self.args)


def by_filter(address: str | tuple[str, ...], n: int, *, threshold: float = 0.5) -> Algorithm:
    """`filter_series(target, address, n)`, and a `conditional_filter` along a trace.

    Args:
      address: of the series, all of the target's latents, as for `filter_series`.
      n: number of particles, 2 or more.
      threshold: as for `particle_filter`, but less than 1: a conditional filter resamples
        weights that are even, too, if it always does.

    Raises:
      InvalidArgument: `n` is less than 2, or the threshold is not in [0, 1); and as for
        `filter_series`, where it meets a target.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import by_filter
    >>> from ppl import Target, gen, sample, scan, seed
    >>> import jax
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> model = gen(lambda: sample("walk", scan(walk, 3)(0.0)))
    >>> target = Target(model, (), {"walk": {"y": jnp.array([0.5, 1.0, 2.0])}})
    >>> old = target.at({"walk": {"z": jnp.array([0.2, 0.9, 1.7])}})[0]
    >>> found = seed(by_filter("walk", 10).given)(jax.random.key(0), target, old)
    >>> bool((found.value["walk", "z"][0] == old["walk", "z"]).all()), found.log_weight.shape
    (True, (10,))
    """
    as_path(address)
    check_count("n", n, least=2)
    check_number("threshold", threshold, least=0, below=1, fix=0.5)

    def step(target: Target) -> Step:
        return filter_series(target, address, n, scheme=multinomial, threshold=threshold)

    def given(target: Target, trace: Trace) -> Weighted:
        series, call, finished = series_of(target, address)
        model, init, xs, seen = call()
        values = flatten(trace.choices)
        path = nest(series.in_order({name: values[name] for name in series.paths}))
        found = conditional_filter(
            model, init, seen, path, n, xs=xs,
            ancestor_sampling=False, threshold=threshold,
        )  # fmt: skip
        return finished(found)

    return Algorithm(f"by_filter({errors.show(as_path(address))}, {n})", step, given)


# -- a particle that is held ----------------------------------------------------------------------


def beside(held: Weighted, n: int, step: Step, before: Weighted) -> Weighted:
    """n particles: the held one, and what the step makes of n - 1 copies."""
    return with_held(held, step(spawn(n - 1)(before))) if n > 1 else spawn(1)(held)


def with_held(held: Weighted, others: Weighted) -> Weighted:
    """The held particle, and the others."""
    return jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), held, others)


def check_known(target: Target) -> None:
    """Raise unless the density of the target is known at its latents."""
    if DRAW in target.model._prepare(target.args, {}).staged.program.effects:
        given = f"draw() in {target.model.name}"
        expected, fix = "a model all of whose randomness has addresses", "give the draws addresses"
    elif any(isinstance(value, Masked) for value in target.observed.values()):
        given = "a Masked observation, the rest of which is no latent"
        expected, fix = "whole choices", "split the choice into two, one of them observed"
    else:
        return
    raise errors.InvalidArgument(
        "The density of the target is not known at its latents.",
        where=(errors.defined(target.model.fn), errors.caller()),
        given=given,
        expected=expected,
        fix=fix,
    )
