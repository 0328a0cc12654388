"""Proposals with choices that are not kept, summed out of the density by an algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Selection, Site, Target
from ppl.addresses import as_selection
from ppl.program import Path

from ..targets.stochastic import Stochastic
from ..validation.objects import check_model
from ..weighted import Step, log_evidence
from .algorithms import Algorithm
from .normalized import conditional, only, traces
from .pseudo_marginal import check_kept, check_using, rest, scored


def marginalize(
    model: GenerativeFunction,
    keep: Selection | str | tuple[str, ...],
    using: Algorithm | Callable[[Target], Step],
) -> Stochastic:
    """The law of some of a model's choices, the others summed out by the algorithm.

    `simulate` makes all choices and forgets the others, so the law is exact; the density of
    the kept ones is the evidence that `using` finds for the rest. Beside a target of kept
    latents, `marginal`, this is a proposal: one with auxiliary choices.

    Args:
      model: a generative function; it does not score.
      keep: addresses. In a model, but not in a proposal, how they are made may not depend on
        the others.
      using: as for `normalize`; without a conditional version there are densities of given
        values only.

    Raises:
      InvalidArgument, AddressNotFound, CannotSimulate: raised when it is used, as for `marginal`
        and `simulate`.

    Source: `marginal` of Lew et al. (PLDI 2023).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import by_importance, marginalize
    >>> from ppl import gen, integrate, sample
    >>> @gen
    ... def lamp():
    ...     on = sample("on", dist.Bernoulli(0.5))
    ...     sample("seen", dist.Bernoulli(jnp.where(on == 1, 0.75, 0.25)))
    >>> seen = marginalize(lamp, "seen", by_importance(2))
    >>> print(f"{integrate(lambda: jnp.exp(seen.assess({'seen': 1})[0]))():.4f}")
    0.5000
    >>> print(f"{integrate(lambda: jnp.exp(-seen.simulate().score))():.4f}")  # two values
    2.0000
    """
    check_model(model)
    as_selection(keep)
    check_using(using)
    law = _Marginalized(model, keep, using)
    return Stochastic(GenerativeFunction(law, model.fixed, f"marginalize({model.name})"))


@partial(jax.tree_util.register_dataclass, data_fields=["model"], meta_fields=["keep", "using"])
@dataclass(frozen=True, eq=False)
class _Marginalized:
    """Some choices of a model, and the evidence of the others given them."""

    model: GenerativeFunction
    keep: Selection | str | tuple[str, ...]
    using: Algorithm | Callable[[Target], Step]

    def sites(self, *args: Any) -> dict[Path, Site]:
        target, kept = self.target(*args)
        return {path: site for path, site in target.sites.items() if path in kept}

    def drawn(self, *args: Any) -> tuple:
        trace = self.model.simulate(*args)
        target, kept = self.target(*args)
        choices, present = only(trace, kept)
        others = rest(target, choices)
        known, _ = others.at(only(trace, frozenset(others.latents))[0])
        score = log_evidence(conditional(self.using)(others, known))
        return choices, present, score, choices

    def given(self, choices: Mapping[str, Any], *args: Any) -> tuple:
        target, kept = self.target(*args)
        found = traces(self.using, rest(target, choices))
        one = jax.tree.map(lambda leaf: leaf[0], found) if jnp.ndim(found.log_weight) else found
        return *only(one.value, kept), log_evidence(found), choices

    def __call__(self, *args: Any) -> Any:
        target, kept = self.target(*args)
        check_kept(target, kept)
        return scored(target, kept, lambda values: self.given(values, *args)[2])

    def target(self, *args: Any) -> tuple[Target, frozenset[Path]]:
        target = Target(self.model, args)
        chosen = target.selection(self.keep)
        return target, frozenset(path for path in target.latents if chosen(path))
