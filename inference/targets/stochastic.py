"""Generative functions whose density is estimated, for drawn and for given values.

Source: Lew, Ghavamizadeh, Rinard and Mansinghka, Probabilistic programming with stochastic
probabilities (PLDI 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Call, GenerativeFunction, Site, Trace, errors
from ppl.addresses import nest
from ppl.arguments import Arguments
from ppl.program import Path
from ppl.sites import check_values


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Stochastic:
    """A generative function run by an algorithm; made by `normalize` and `marginalize`.

    `simulate` draws x with E[f(x) e^(-score)] = the integral of f over the support, and `assess`
    has E[e^score] = the density of what `simulate` draws. That is what a proposal needs, in
    `propose`, `mhg`, `advance` and `translate`.

    In a model, `sample("address", this(args))` has the same measure, by other means: choices
    are made as in a model, and weighed by what `assess` makes of them. So that model scores,
    and is not simulated.

    Attributes:
      density: the generative function that does so, of which traces are.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Stochastic, by_importance, normalize
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def normal(y):
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> post: Stochastic = normalize(lambda y: Target(normal, (y,), {"y": y}), by_importance(5))
    >>> trace = seed(post.simulate)(jax.random.key(0), 1.0)
    >>> list(post.sites(1.0)), list(trace.choices)
    ([('mu',)], ['mu'])
    """

    density: GenerativeFunction

    @property
    def name(self) -> str:
        return self.density.name

    @property
    def fn(self) -> Any:
        return self.density.fn

    @property
    def exact(self) -> bool:
        """Whether the density is known, and not only estimated."""
        return getattr(self.fn, "exact", False)

    @property
    def moves(self) -> bool:
        """Whether draws are differentiable functions of the arguments and of noise."""
        return getattr(self.fn, "moves", False)

    def __repr__(self) -> str:
        return f"<stochastic density {self.name}>"

    def __call__(self, *args: Any) -> Call:
        return self.density(*args)

    def simulate(self, *args: Any) -> Trace:
        """x as the algorithm draws it; E[f(x) e^(-score)] = the integral of f.

        A score of +inf says that the algorithm found nothing: all weights were zero. Then x is
        any value, and is weighed by zero, or refused.
        """
        return self._trace(self.fn.drawn(*args), args)

    def assess(self, choices: Mapping[str, Any], *args: Any) -> tuple[Any, Any]:
        """`(score, return value)`: E[e^score] = the density with which `simulate` draws them.

        Raises:
          MissingChoice: a choice is not given.
          AddressNotFound, ShapeError, DtypeError, SupportError: as of a generative function.
          InvalidArgument: the algorithm has no conditional version.
        """
        trace = self.at(choices, *args)
        return trace.score, trace.retval

    def at(self, choices: Mapping[str, Any], *args: Any) -> Trace:
        """The trace with these choices, whose score is that of `assess`."""
        known = self.sites(*args)
        given = check_values(known, choices, "assess", (self.name,), filler=True)
        for path, site in known.items():
            if path not in given:
                raise errors.MissingChoice(
                    f"assess needs a value for {errors.show(path)}.",
                    where=(f"{errors.show(path)} at {site.source}", errors.caller()),
                    expected=f"shape {site.shape}, {site.support}",
                    fix="give it, or let simulate make all of them",
                )
        return self._trace(self.fn.given(nest({path: given[path] for path in known}), *args), args)

    def sites(self, *args: Any) -> dict[Path, Site]:
        """The choices, as of a generative function."""
        return self.fn.sites(*args)

    def _trace(self, made: tuple, args: tuple) -> Trace:
        choices, present, score, retval = made
        arguments = Arguments.of(args, {}, self.density.fixed)
        return Trace(self.density, arguments, choices, jnp.asarray(score, float), retval, present)

    def _prepare(self, args: tuple, kwargs: dict) -> Any:
        return self.density._prepare(args, kwargs)
