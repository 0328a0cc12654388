"""What a fit gives: a guide with its parameters, which is a generative function, and its report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ppl import GenerativeFunction, Site, Target, errors, seed
from ppl.addresses import flatten, nest
from ppl.language import inline
from ppl.quadrature import outcomes
from ppl.randomness import checked_key

from ..targets.stochastic import Stochastic
from ..validation.settings import check_count
from ..vi.objective import Objective
from .draws import Draws
from .fit_report import FitReport
from .khat import khat


class Fitted:
    """What `fit` gives: the guide at the fitted parameters, a function of the data.

    It is a generative function, or a `Stochastic` where the guide is one: a proposal, a part of a
    model, or a start of chains. Of an objective that tells no guide it is a record alone.

    Attributes:
      parameters: the mean of the iterates, late ones counting more; or the last, as asked, or
        where it is the better of the two.
      last: the last iterate.
      values: the estimate of the objective at each step, of shape (steps,).
      objective, data: what was fitted.
      status: "complete", or how the fit ended before.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import Fitted, elbo, fit
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> @gen
    ... def guide(m):
    ...     sample("mu", dist.Normal(m, 0.5**0.5))
    >>> objective = elbo(Target(model, (), {"y": 2.0}), guide)
    >>> found: Fitted = fit(jax.random.key(0), objective, 0.0, steps=500)
    >>> found
    Fitted(guide; 500 steps; complete)
    >>> bool(abs(found.parameters - 1.0) < 0.1), list(found.sites())
    (True, [('mu',)])
    """

    parameters: Any
    last: Any
    values: np.ndarray
    objective: Objective | Callable[..., Any]
    data: tuple
    status: str

    def _set(self, **record: Any) -> None:
        for name, value in record.items():
            object.__setattr__(self, name, value)

    @property
    def guide(self) -> GenerativeFunction | Stochastic:
        """The guide, a function of the data only: what `propose` and `by_importance` take."""
        return _bound(self._objective.guide, self.parameters)

    @property
    def target(self) -> Target:
        """The target at the parameters and the data of the fit."""
        return self._objective.target_of(self.parameters, *self.data)

    @property
    def _objective(self) -> Objective:
        if isinstance(self.objective, Objective):
            return self.objective
        raise errors.InvalidArgument(
            "The objective that was fitted tells no guide.",
            where=(errors.defined(self.objective), errors.caller()),
            given=f"the function {self._told}",
            expected="an objective of a target and a guide",
            fix='elbo(target, guide); or Objective("name", target, guide, run) for one of your own',
        )

    def draws(self, key: jax.Array, n: int = 1000) -> Draws:
        """Independent draws of the latents from the guide, in one chain.

        Raises:
          InvalidKey: `key` is not one PRNG key.
          InvalidArgument: n is not positive, or the objective tells no guide.

        >>> import jax, numpyro.distributions as dist
        >>> from inference import elbo, fit
        >>> from ppl import Target, gen, sample
        >>> model = gen(lambda: sample("mu", dist.Normal(0.0, 1.0)))
        >>> guide = gen(lambda m: sample("mu", dist.Normal(m, 1.0)))
        >>> found = fit(jax.random.key(0), elbo(Target(model), guide), 1.0, steps=300)
        >>> found.draws(jax.random.key(1), 100)
        Draws(1 chains x 100 draws; "mu"; complete)
        """
        check_count("n", n)
        choices, _ = self._drawn(checked_key(key), n)
        values = {path: np.asarray(x)[None] for path, x in flatten(choices).items()}
        target = self.target
        ordered = nest({path: values[path] for path in target.latents})
        return Draws(ordered, target=target, status=self.status)

    def report(self, key: jax.Array, n: int = 1000) -> FitReport:
        """How good the guide is, by the weights of n draws; see `FitReport`.

        Raises:
          InvalidKey: `key` is not one PRNG key.
          InvalidArgument: n is less than 2, or the objective tells no guide.

        >>> import jax, numpyro.distributions as dist
        >>> from inference import elbo, fit
        >>> from ppl import Target, gen, sample
        >>> model = gen(lambda: sample("mu", dist.Normal(0.0, 1.0)))
        >>> guide = gen(lambda m: sample("mu", dist.Normal(m, 1.0)))
        >>> found = fit(jax.random.key(0), elbo(Target(model), guide), 0.0, steps=1)
        >>> bool(found.report(jax.random.key(1)))
        True
        """
        check_count("n", n, least=2)
        found = np.asarray(self._drawn(checked_key(key), n)[1])
        logs = found.astype(np.float64)
        top = logs.max()
        with np.errstate(invalid="ignore"):
            mass = top + np.log(np.mean(np.exp(logs - top)))
        error = float(logs.std(ddof=1) / math.sqrt(n))
        finite = isinstance(self, GenerativeFunction) and all(map(_finite, self._guide_sites()))
        return FitReport(float(logs.mean()), error, float(mass), khat(found), n, finite)

    def _guide_sites(self) -> list[Site]:
        args = self._objective.guide_args(self.parameters, *self.data)
        return list(self._objective.guide.sites(*args).values())

    def _drawn(self, key: jax.Array, n: int) -> tuple[Any, jax.Array]:
        """The choices of n draws, and their log weights."""
        leaves, tree = jax.tree.flatten((self._objective, self.parameters, self.data))
        arrays = tuple(x if eqx.is_array(x) else None for x in leaves)
        static = tuple(None if eqx.is_array(x) else x for x in leaves)
        return _weighted(tree, static, n)(key, arrays)

    @property
    def _told(self) -> str:
        objective: Any = self.objective
        if isinstance(objective, Objective):
            return objective.guide.name
        return getattr(objective, "name", getattr(objective, "__name__", "objective"))

    def __repr__(self) -> str:
        return f"Fitted({self._told}; {len(self.values)} steps; {self.status})"


@jax.tree_util.register_pytree_node_class
class FittedFunction(Fitted, GenerativeFunction):
    """Of a guide that is a generative function; inside another program it is that alone."""

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: tuple) -> GenerativeFunction:  # type: ignore[override]
        return GenerativeFunction.tree_unflatten(aux, children)

    __repr__ = Fitted.__repr__


class FittedDensity(Fitted, Stochastic):
    """Of a guide whose density an algorithm knows or estimates."""

    __repr__ = Fitted.__repr__


def _density(_: None, children: tuple) -> Any:
    return Stochastic(*children)


jax.tree_util.register_pytree_node(FittedDensity, lambda made: ((made.density,), None), _density)


def fitted(
    objective: Objective | Callable[..., Any],
    parameters: Any,
    last: Any,
    values: np.ndarray,
    data: tuple,
    status: str,
) -> Fitted:
    """What was fitted, as a guide of its kind."""
    guide = objective.guide if isinstance(objective, Objective) else None
    bound = None if guide is None else _bound(guide, parameters)
    if isinstance(bound, GenerativeFunction):
        made: Fitted = FittedFunction(bound.fn, bound.fixed, bound.name)
    elif isinstance(bound, Stochastic):
        made = FittedDensity(bound.density)
    else:
        made = Fitted()
    made._set(
        objective=objective, parameters=parameters, last=last, values=values, data=data,
        status=status,
    )  # fmt: skip
    return made


def _bound(
    guide: GenerativeFunction | Stochastic, parameters: Any
) -> GenerativeFunction | Stochastic:
    """The guide with its first argument given."""
    if isinstance(guide, Stochastic):
        law = _Law(guide.density.fn, parameters)
        return Stochastic(GenerativeFunction(law, name=guide.name))
    return GenerativeFunction(_At(guide, parameters), name=guide.name)


def _finite(site: Site) -> bool:
    """Whether a choice has finitely many outcomes."""
    return site.distribution is not None and outcomes(site.distribution) is not None


@lru_cache(maxsize=16)
def _weighted(tree: Any, static: tuple, n: int) -> Callable:
    def weighted(key: jax.Array, arrays: tuple) -> tuple[Any, Any]:
        leaves = [x if a is None else a for a, x in zip(arrays, static, strict=True)]
        objective, parameters, data = jax.tree.unflatten(tree, leaves)

        def one() -> tuple[Any, Any]:
            args = objective.guide_args(parameters, *data)
            trace = objective.guide.simulate(*args)
            target = objective.target_of(parameters, *data)
            return trace.choices, target.log_density(trace.choices) - trace.score

        return jax.vmap(seed(one))(jax.random.split(key, n))

    return jax.jit(weighted)


@partial(jax.tree_util.register_dataclass, data_fields=["guide", "parameters"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _At:
    """The guide with its parameters, as the function of a generative function."""

    guide: Any
    parameters: Any

    def __call__(self, *data: Any) -> Any:
        return inline(self.guide(self.parameters, *data))


@partial(jax.tree_util.register_dataclass, data_fields=["law", "parameters"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _Law:
    """A density by an algorithm, its first argument given."""

    law: Any
    parameters: Any

    @property
    def exact(self) -> bool:
        return getattr(self.law, "exact", False)

    @property
    def moves(self) -> bool:
        return getattr(self.law, "moves", False)

    def sites(self, *data: Any) -> Any:
        return self.law.sites(self.parameters, *data)

    def drawn(self, *data: Any) -> Any:
        return self.law.drawn(self.parameters, *data)

    def given(self, choices: Any, *data: Any) -> Any:
        return self.law.given(choices, self.parameters, *data)

    def __call__(self, *data: Any) -> Any:
        return self.law(self.parameters, *data)
