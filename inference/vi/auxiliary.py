"""Guides with choices that are no latents: their density is estimated with a reverse model.

A guide makes u and, from it, x. Its density q(x) is a sum over u, and a reverse model r(u|x) says
which u are likely to have made an x. The u that has made it is one of the draws, the others are
drawn from the reverse model; so the weights of x have the mean that they should have, and the
objectives are lower bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Site, Target, errors, select
from ppl.addresses import nest, not_found
from ppl.language import inline
from ppl.program import Path

from ..estimated.algorithms import Algorithm, by_importance
from ..estimated.marginalized import marginalize
from ..targets.stochastic import Stochastic
from ..validation.objects import check_model
from ..validation.settings import check_count
from .objective import Objective
from .objectives import elbo, iwelbo


def hvi(
    target: Target | Callable[..., Target], guide: GenerativeFunction, reverse: GenerativeFunction
) -> Objective:
    """E[log p(x, y) + log r(u|x) - log q(u, x)]: the bound of a hierarchical guide.

    It is `elbo` where r is the guide's own law of u given x, and lies below it elsewhere.

    Args:
      target: as for `elbo`.
      guide: makes the latents and auxiliary choices u.
      reverse: called as `reverse(x, *args)`, x a nested dict of the latents and `args` those of
        the guide; it makes the auxiliary choices, and so says which they are.

    Raises:
      GuideMismatch: when it is used, and what the guide makes beside u are not the latents.
      AddressNotFound: the reverse model makes a choice that the guide does not.
      InvalidArgument: it makes none.

    Source: Ranganath, Tran and Blei, Hierarchical variational models (ICML 2016); Agakov and
    Barber, An auxiliary variational method (ICONIP 2004).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import hvi
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> @gen
    ... def guide():  # 0.4 fair, after all: the posterior
    ...     u = sample("u", dist.Bernoulli(0.5))
    ...     sample("fair", dist.Bernoulli(0.2 + 0.4 * u))
    >>> reverse = gen(lambda x: sample("u", dist.Bernoulli(0.5)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> print(f"{integrate(hvi(target, guide, reverse))():.4f}")
    -0.5563
    >>> own = gen(lambda x: sample("u", dist.Bernoulli(jnp.where(x["fair"] == 1, 3 / 4, 1 / 3))))
    >>> print(f"{integrate(hvi(target, guide, own))():.4f}, of {jnp.log(0.625):.4f}")
    -0.4700, of -0.4700
    """
    return iwhvi(target, guide, reverse, 1)


def iwhvi(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction,
    reverse: GenerativeFunction,
    samples: int,
) -> Objective:
    """E[log p(x, y) - log mean of q(u_i, x) / r(u_i|x)], u_1 that of the guide, others from r.

    With one it is `hvi`; with many it grows to the `elbo` of the guide's marginal law.

    Args:
      target, guide, reverse: as for `hvi`.
      samples: how many u, with that of the guide.

    Raises:
      As `hvi`.

    Source: Sobolev and Vetrov, Importance weighted hierarchical variational inference (NeurIPS
    2019), equation 5, whose K is `samples` - 1.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import iwhvi
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> @gen
    ... def guide():
    ...     u = sample("u", dist.Bernoulli(0.5))
    ...     sample("fair", dist.Bernoulli(0.2 + 0.4 * u))
    >>> reverse = gen(lambda x: sample("u", dist.Bernoulli(0.25 + 0.5 * x["fair"])))
    >>> target = Target(coin, (), {"heads": 1})
    >>> [f"{jax.jit(integrate(iwhvi(target, guide, reverse, n)))():.4f}" for n in (1, 2)]
    ['-0.4804', '-0.4754']
    """
    law = _hierarchical(guide, reverse, samples)
    made = elbo(target, law)
    return Objective(f"iwhvi({samples})", target, law, made.run)


def diwhvi(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction,
    reverse: GenerativeFunction,
    samples: int,
    particles: int,
) -> Objective:
    """E[log mean of `particles` weights p(x, y) / q(x)], each q(x) estimated as by `iwhvi`.

    It is `iwelbo` of a guide whose density is estimated, so both counts tighten it.

    Args:
      target, guide, reverse, samples: as for `iwhvi`.
      particles: how many weights are averaged.

    Raises:
      As `hvi`.

    Source: Sobolev and Vetrov, Importance weighted hierarchical variational inference (NeurIPS
    2019), equation 7.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import diwhvi
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> @gen
    ... def guide():
    ...     u = sample("u", dist.Bernoulli(0.5))
    ...     sample("fair", dist.Bernoulli(0.2 + 0.4 * u))
    >>> reverse = gen(lambda x: sample("u", dist.Bernoulli(0.5)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> [f"{jax.jit(integrate(diwhvi(target, guide, reverse, 1, n)))():.4f}" for n in (1, 2)]
    ['-0.5563', '-0.5186']
    """
    law = _hierarchical(guide, reverse, samples)
    made = iwelbo(target, law, particles)
    return Objective(f"diwhvi({samples}, {particles})", target, law, made.run)


def _hierarchical(
    guide: GenerativeFunction, reverse: GenerativeFunction, samples: int
) -> Stochastic:
    """The guide without its auxiliary choices, of estimated density."""
    check_model(guide)
    check_model(reverse)
    check_count("samples", samples)
    law = _Hierarchical(guide, reverse, samples)
    return Stochastic(GenerativeFunction(law, guide.fixed, guide.name))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["guide", "reverse"],
    meta_fields=["samples"],
)
@dataclass(frozen=True, eq=False)
class _Hierarchical:
    """What the guide makes but the reverse model does not, and an estimate of its density."""

    guide: GenerativeFunction
    reverse: GenerativeFunction
    samples: int

    def sites(self, *args: Any) -> dict[Path, Site]:
        return self.law(args).sites(*args)

    def drawn(self, *args: Any) -> tuple:
        return self.law(args).drawn(*args)

    def given(self, choices: Mapping[str, Any], *args: Any) -> tuple:
        return self.law(args).given(choices, *args)

    def __call__(self, *args: Any) -> Any:
        return self.law(args)(*args)

    def law(self, args: tuple) -> Any:
        made = self.guide.sites(*args)
        # the addresses that the reverse model makes do not depend on values
        blank = nest({path: jnp.zeros(site.shape, site.dtype) for path, site in made.items()})
        summed = self.reverse.sites(blank, *args)
        for path, site in summed.items():
            if path not in made:
                raise not_found(path, made, "The reverse model", (site.source,))
        if not summed:
            raise errors.InvalidArgument(
                "The reverse model makes no choice.",
                where=(errors.defined(self.reverse.fn), errors.defined(self.guide.fn)),
                given=f"{self.reverse.name}, of no choices",
                expected="some of " + "; ".join(map(errors.show, made)),
                fix="make the guide's auxiliary choices in it, or use elbo, which needs none",
            )
        kept = [path for path in made if path not in summed]
        return marginalize(self.guide, select(*kept), self.algorithm()).fn

    def algorithm(self) -> Algorithm:
        """Importance sampling of u from the reverse model at what is kept."""

        def at(rest: Target) -> Algorithm:
            def reversed_(*args: Any) -> Any:
                return inline(self.reverse(rest.observations, *args))

            return by_importance(
                self.samples, GenerativeFunction(reversed_, name=self.reverse.name)
            )

        return Algorithm(
            f"by_importance({self.samples}, {self.reverse.name})",
            lambda rest: at(rest)(rest),
            lambda rest, trace: at(rest).given(rest, trace),
        )
