"""Generative functions whose density is estimated by an algorithm, for drawn and given values.

An algorithm that draws x from a target leaves behind an estimate of the density with which it
did: g(x) / Z, Z its mean weight. Its reciprocal is unbiased for x as drawn; run conditionally on
a given x, the estimate itself is. So an algorithm is a proposal, a guide, or a part of a model.

Source: Lew, Ghavamizadeh, Rinard and Mansinghka, Probabilistic programming with stochastic
probabilities (PLDI 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Masked, Site, Target, Trace, errors
from ppl.addresses import flatten, nest
from ppl.program import Path

from ..targets.stochastic import Stochastic
from ..validation.objects import check_target
from ..weighted import Step, Weighted, collapse, log_evidence, unit
from .algorithms import Algorithm
from .pseudo_marginal import check_using, scored


def normalize(
    target: Target | Callable[..., Target], using: Algorithm | Callable[[Target], Step]
) -> Stochastic:
    """The target as a generative function: what `using` draws from it, and with what density.

    The law is that of `collapse` after the algorithm, which is the normalised target the more
    particles there are; densities are estimated without bias for any number of them.

    Args:
      target: a target, or a function from arguments to one: for a proposal of `advance`,
        `(state, x, observed) -> target`.
      using: `by_importance(n)`, `by_filter(address, n)` or `by_annealing(n, kernel)`. A function
        from targets to proper steps, as `marginal` takes, gives draws only: their density
        can be estimated, that of given values cannot.

    Raises:
      InvalidArgument: `using` is no algorithm; or, when it is used, `target` gives no target,
        or one without latents or with part of an array observed.

    Source: `normalize` of Lew et al. (PLDI 2023); the extended space of Andrieu, Doucet and
    Holenstein (JRSS B 2010).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import by_importance, normalize
    >>> from ppl import Target, gen, integrate, law, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> posterior = normalize(Target(coin, (), {"heads": 1}), by_importance(2))
    >>> law(lambda: posterior.simulate()["fair"])().masses.round(4).tolist()
    [0.55, 0.45]
    >>> mean = lambda fair: jnp.exp(posterior.assess({"fair": fair})[0])
    >>> [round(float(integrate(mean)(fair)), 4) for fair in (0, 1)]
    [0.55, 0.45]
    """
    check_using(using)
    if not callable(target) or isinstance(target, GenerativeFunction | type):
        check_target(target)
    if isinstance(target, Target):
        law, name = _Normalized(target, None, using), target.model.name
    else:
        law, name = _Normalized(None, target, using), getattr(target, "__name__", "target")
    return Stochastic(GenerativeFunction(law, name=f"normalize({name})"))


@partial(jax.tree_util.register_dataclass, data_fields=["fixed"], meta_fields=["make", "using"])
@dataclass(frozen=True, eq=False)
class _Normalized:
    """What `using` draws from the fixed target, or from what `make` makes of the arguments."""

    fixed: Target | None
    make: Callable[..., Target] | None
    using: Algorithm | Callable[[Target], Step]

    def sites(self, *args: Any) -> dict[Path, Site]:
        target = self.target(*args)
        return {path: target.sites[path] for path in target.latents}

    def drawn(self, *args: Any) -> tuple:
        target = self.target(*args)
        found = traces(self.using, target)
        one = collapse(found) if jnp.ndim(found.log_weight) else found
        trace = one.value
        score = jnp.where(one.log_weight == -jnp.inf, jnp.inf, trace.score - one.log_weight)
        kept = frozenset(target.latents)
        return *only(trace, kept), score, trace.retval

    def given(self, choices: Mapping[str, Any], *args: Any) -> tuple:
        target = self.target(*args)
        trace, score = target.at(choices)
        mass = log_evidence(conditional(self.using)(target, trace))
        score = jnp.where(score == -jnp.inf, score, score - mass)
        return *only(trace, frozenset(target.latents)), score, trace.retval

    def __call__(self, *args: Any) -> Any:
        target = self.target(*args)
        values = scored(target, frozenset(target.latents), lambda x: self.given(x, *args)[2])
        return target.at(values)[0].retval

    def target(self, *args: Any) -> Target:
        target = self.fixed if self.make is None else self.make(*args)
        if not isinstance(target, Target):
            fault = type(target).__name__, "a Target", "return Target(model, args, observations)"
        elif not target.latents:
            fault = "a target without latents", "something to draw", "observe fewer choices"
        elif any(isinstance(value, Masked) for value in target.observed.values()):
            fault = (
                "an array observed in part, the rest of which is no latent",
                "whole choices",
                "split the choice into two, one of them observed",
            )
        else:
            return target
        given, expected, fix = fault
        raise errors.InvalidArgument(
            "There is no target to normalize.",
            where=(errors.defined(self.make), errors.caller()) if self.make else errors.caller(),
            given=given,
            expected=expected,
            fix=fix,
        )


def traces(using: Callable[[Target], Step], target: Target) -> Weighted:
    """What an algorithm makes of a target."""
    found = using(target)(unit())
    if not isinstance(found.value, Trace):
        raise errors.InvalidArgument(
            "The algorithm gives no traces of its target.",
            where=(errors.defined(using), errors.caller()),
            given=f"values of type {type(found.value).__name__}",
            expected="a step whose values are traces, as those of importance or annealed are",
            fix="make traces of its latents: target.at(latents)[0], under jax.vmap",
        )
    return found


def only(trace: Trace, kept: frozenset[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The kept choices of a trace, and which of them are there."""

    def part(tree: Mapping[str, Any]) -> dict[str, Any]:
        return nest({path: value for path, value in flatten(tree).items() if path in kept})

    return part(trace.choices), part(trace.present)


def conditional(using: Any) -> Callable:
    """The conditional version of an algorithm."""
    if not isinstance(using, Algorithm):
        raise errors.InvalidArgument(
            "The algorithm has no conditional version, which one of its two densities needs.",
            where=(errors.defined(using), errors.caller()),
            given="a function from targets to steps",
            expected="by_importance, by_filter, by_annealing, or an Algorithm of one's own",
            fix="using=by_importance(10)",
        )
    return using.given
