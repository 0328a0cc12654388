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

from ppl import GenerativeFunction, Target, errors, seed
from ppl.addresses import flatten, nest
from ppl.language import inline
from ppl.randomness import checked_key

from ..targets.stochastic import Stochastic
from ..validation.settings import check_count
from ..vi.objective import Objective
from .draws import Draws
from .khat import khat, reliable


@dataclass(frozen=True)
class FitReport:
    """How good a guide is; true if its importance weights have no heavy tail.

    Attributes:
      elbo: the mean of the log weights log p(x, y) - log q(x), at most the log evidence.
      error: its standard error.
      log_evidence: the log of the mean weight, at most that on average, too.
      khat: of the weights' tail; -inf where all weights are equal; None where it is not known.
      n: how many draws.

    >>> from inference.results.fitted import FitReport
    >>> print(FitReport(elbo=-3.2, error=0.01, log_evidence=-3.1, khat=0.9, n=1000))
    ELBO -3.2 +- 0.01, log evidence -3.1 by importance, of 1000 draws
    k-hat 0.90: the guide has a lighter tail than the posterior. Widen it: full_rank, a flow, \
iwelbo; or correct it: normalize(target, by_importance(n, guide)), or MCMC from its draws
    """

    elbo: float
    error: float
    log_evidence: float
    khat: float | None
    n: int

    def __bool__(self) -> bool:
        return self.khat is not None and reliable(self.khat, self.n)

    def __str__(self) -> str:
        first = (
            f"ELBO {self.elbo:.5g} +- {self.error:.1g}, log evidence {self.log_evidence:.5g} by "
            f"importance, of {self.n} draws"
        )
        if self.khat is None:
            second = (
                "k-hat is not known: weights in the tail are tied or no numbers. Compare "
                "iwelbo(k) for more and more particles instead"
            )
        elif self.khat == -math.inf:
            second = "all weights are equal: the guide is the posterior"
        elif self:
            second = f"k-hat {self.khat:.2f}: the guide's weights can be used"
        else:
            second = (
                f"k-hat {self.khat:.2f}: the guide has a lighter tail than the posterior. "
                "Widen it: full_rank, a flow, iwelbo; or correct it: normalize(target, "
                "by_importance(n, guide)), or MCMC from its draws"
            )
        return f"{first}\n{second}"


@jax.tree_util.register_pytree_node_class
class Fitted(GenerativeFunction):
    """What `fit` gives: the guide at the fitted parameters, a generative function of the data.

    A proposal, a part of a model, or a start of chains. Where the guide's density is estimated
    by an algorithm, `guide` is what proposals take; in a model either goes.

    Attributes:
      parameters: the mean of the iterates, late ones counting more; or the last, as asked.
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

    def __init__(
        self,
        objective: Objective | Callable[..., Any],
        parameters: Any,
        last: Any,
        values: np.ndarray,
        data: tuple,
        status: str,
    ):
        guide = objective.guide if isinstance(objective, Objective) else None
        name = guide.name if guide is not None else getattr(objective, "__name__", "objective")
        super().__init__(_At(guide, parameters), name=name)
        self.objective, self.parameters, self.last = objective, parameters, last
        self.values, self.data, self.status = values, data, status

    @property
    def guide(self) -> GenerativeFunction | Stochastic:
        """The guide, a function of the data only: what `propose` and `by_importance` take."""
        made = self._objective.guide
        if isinstance(made, Stochastic):
            law = _Law(made.density.fn, self.parameters)
            return Stochastic(GenerativeFunction(law, name=made.name))
        return GenerativeFunction(self.fn, name=self.name)

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
            given=f"the function {self.name}",
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
        return FitReport(float(logs.mean()), error, float(mass), khat(found), n)

    def _drawn(self, key: jax.Array, n: int) -> tuple[Any, jax.Array]:
        """The choices of n draws, and their log weights."""
        leaves, tree = jax.tree.flatten((self._objective, self.parameters, self.data))
        arrays = tuple(x if eqx.is_array(x) else None for x in leaves)
        static = tuple(None if eqx.is_array(x) else x for x in leaves)
        return _weighted(tree, static, n)(key, arrays)

    def __repr__(self) -> str:
        return f"Fitted({self.name}; {len(self.values)} steps; {self.status})"

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: tuple) -> GenerativeFunction:  # type: ignore[override]
        # inside another program it is the generative function only
        return GenerativeFunction.tree_unflatten(aux, children)


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
        if self.guide is None:
            raise errors.InvalidArgument(
                "The objective that was fitted tells no guide.", where=errors.caller(),
                given="the objective is a plain function",
                expected="an objective of a target and a guide",
                fix="fit(key, elbo(target, guide), parameters)",
            )  # fmt: skip
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
