"""The evidence of a series as a particle filter estimates it: an objective without a guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, errors
from ppl.estimators.score_function import Fixed
from ppl.estimators.strategies import Strategy

from ..smc.particles import advance
from ..smc.resample import resample
from ..smc.step_models import check_model, check_rows, check_series, check_state, check_states
from ..targets.stochastic import Stochastic
from ..validation.objects import check_proposal
from ..validation.settings import check_count, shown
from ..weighted import Weighted, each, log_evidence, spawn
from .ancestors import Scheme, apart, by, expecting


def vsmc(
    model: GenerativeFunction | Callable[..., GenerativeFunction],
    init: Any,
    observations: Mapping[str, Any],
    particles: int,
    *,
    proposal: GenerativeFunction | Stochastic | Callable[..., Any] | None = None,
    xs: Any = None,
    resampling: str | Strategy = "score",
) -> FilterObjective:
    """E[log of a particle filter's estimate of p(observations)]: at most the log evidence.

    The more particles, the closer. For a longer series their number grows in proportion, where
    `iwelbo` needs exponentially many. Particles are resampled before each step but the first,
    independently of each other (multinomial). Their ancestors are choices, whose law moves with
    the parameters: what comes after multiplies their score. From it, what comes after in a second
    filter is taken off, which is run for that alone, and costs as much as a value of the bound.

    Args:
      model: one step, `(state, x) -> (state, y)`; or a function of the objective's arguments
        that makes it.
      init: the state before the first step; or a function of the arguments that makes it.
      observations: what each step observes, arrays with T rows.
      particles: how many, 1 or more.
      proposal: `(state, x, observed) -> anything`, as for `advance`; or a function of the
        arguments that makes it.
      xs: inputs of the steps, arrays with T rows.
      resampling: `"score"`, the whole derivative; `"dropped"`, without the score of the
        ancestors, of less variance and biased, so that `expectation` asks for `allow_biased`; or
        a strategy for them, such as `reinforce()`.

    Raises:
      InvalidArgument: `particles` is less than 1; `resampling` is none of these; series of other
        lengths; a model that is no generative function.
      AddressNotFound, ShapeError, DtypeError: when it is used, as for `particle_filter`.

    Source: Maddison et al., Filtering variational objectives (NeurIPS 2017); Naesseth et al.,
    Variational sequential Monte Carlo (AISTATS 2018); Le et al., Auto-encoding sequential Monte
    Carlo (ICLR 2018).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import vsmc
    >>> from ppl import expectation, gen, integrate, reinforce, sample
    >>> def weather(p):
    ...     @gen
    ...     def step(rain, _):
    ...         rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, p, 1 - p)))
    ...         sample("wet", dist.Bernoulli(jnp.where(rain == 1, 1.0, 0.5)))
    ...         return rain, None
    ...     return step
    >>> ways = {n: vsmc(weather, 1, {"wet": jnp.array([1, 1])}, n, resampling=reinforce())
    ...         for n in (1, 2, 3)}
    >>> [f"{integrate(bound)(0.75):.3f}" for bound in ways.values()]  # of log 0.734 = -0.309
    ['-0.433', '-0.365', '-0.344']
    >>> slope = jax.grad(expectation(ways[2], {"rain": reinforce()}))
    >>> print(f"{integrate(slope)(0.75):.3f}, {jax.grad(integrate(ways[2]))(0.75):.3f}")
    1.310, 1.310
    """
    check_count("particles", particles)
    named = {"score": None, "dropped": Fixed(biased=True)}
    strategy = hasattr(resampling, "make") and not isinstance(resampling, type)
    if not (strategy or (isinstance(resampling, str) and resampling in named)):
        raise errors.InvalidArgument(
            "Ancestors have a strategy.", where=errors.caller(),
            given=f"resampling={shown(resampling)}",
            expected='"score", "dropped", or a strategy', fix='resampling="score"',
        )  # fmt: skip
    for part, check in ((model, check_model), (proposal, check_proposal)):
        if (part is model or part is not None) and not _makes(part):
            check(part)
    if not _makes(init):
        check_state(init)
    fix = "vsmc(model, init, {'y': ys}, particles), with ys of shape (T, ...)"
    check_series(observations, xs, "A filter", fix)
    chosen = named[resampling] if isinstance(resampling, str) else resampling
    told = "" if resampling == "score" else f", resampling={shown(resampling)}"
    name = f"vsmc({particles}{told})"
    return FilterObjective(name, model, init, observations, particles, proposal, xs, chosen)


def _makes(part: Any) -> bool:
    """Whether this is a function of the objective's arguments."""
    known = isinstance(part, GenerativeFunction | Stochastic | type) or hasattr(part, "simulate")
    return callable(part) and not known


def _made(part: Any, args: tuple) -> Any:
    return part(*args) if _makes(part) else part


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class FilterObjective:
    """`objective(*args)`: the log of the evidence that one filter finds, a random program.

    A pytree, whose leaves are the data.

    Attributes:
      name: for messages, the call that made it.
      model, init, observations, particles, proposal, xs: as for `vsmc`.
      strategy: of the ancestors; None for the score function with a second filter.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import FilterObjective, vsmc
    >>> from ppl import gen, sample
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> bound: FilterObjective = vsmc(walk, 0.0, {"y": jnp.ones(3)}, 4, resampling="dropped")
    >>> bound, bound.biased
    (<objective vsmc(4, resampling='dropped')>, True)
    """

    name: str
    model: GenerativeFunction | Callable[..., GenerativeFunction]
    init: Any
    observations: Mapping[str, Any]
    particles: int
    proposal: GenerativeFunction | Stochastic | Callable[..., Any] | None
    xs: Any
    strategy: Strategy | None

    @property
    def biased(self) -> bool:
        """Whether derivatives of its `expectation` are."""
        return self.strategy is not None and self.strategy.biased

    def __call__(self, *args: Any) -> Any:
        """One draw of the objective."""
        steps = len(jax.tree.leaves((self.observations, self.xs))[0]) - 1
        if self.strategy is not None or self.particles == 1 or not steps:
            strategy = self.strategy or Fixed()
            return self._gains(args, lambda level: by(strategy), jnp.zeros(steps)).sum()
        second = apart(lambda *args: self._gains(args, lambda _: by(Fixed()), jnp.zeros(steps)))
        gains = second(*args)
        gains = jnp.where(jnp.isfinite(gains), gains, 0.0)
        after = jnp.flip(jnp.cumsum(jnp.flip(gains)))
        return self._gains(args, expecting, after[1:]).sum()

    def _gains(
        self, args: tuple, scheme: Callable[[jax.Array], Scheme], levels: jax.Array
    ) -> jax.Array:
        """What each step adds to the log evidence, of shape (T,); apart, for their credit."""
        model, init, proposal = (
            _made(part, args) for part in (self.model, self.init, self.proposal)
        )
        check_model(model)
        check_state(init)
        if proposal is not None:
            check_proposal(proposal)
        observations = check_rows(model, init, self.xs, self.observations)
        rows = observations, self.xs

        def grown(row: tuple, s: Weighted) -> Weighted:
            observed, x = row
            return each(advance(model, observed, x, proposal=proposal))(s)

        def step(s: Weighted, row: tuple) -> tuple[Weighted, jax.Array]:
            data, level = row
            chosen = resample(s, scheme(level))
            # the weights that they had in common are in the sum already
            even = replace(chosen, log_weight=jnp.zeros_like(chosen.log_weight))
            after = grown(data, even)
            return after, log_evidence(after)

        first, later = (jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf)[i], rows) for i in _SPLIT)
        start = spawn(self.particles)(Weighted(init, jnp.zeros(())))
        began = grown(first, start)
        check_states(began.value, start.value, model)
        gain = log_evidence(began)[None]
        if not len(levels):  # nothing is resampled
            return gain
        return jnp.concatenate([gain, jax.lax.scan(step, began, (later, levels))[1]])

    def __repr__(self) -> str:
        return f"<objective {self.name}>"

    def tree_flatten(self) -> tuple[tuple, tuple]:
        parts = (self.model, self.init, self.proposal)
        data = tuple(None if _makes(part) else part for part in parts)
        made = tuple(part if _makes(part) else None for part in parts)
        return (*data, self.observations, self.xs), (self.name, made, self.particles, self.strategy)

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: tuple) -> FilterObjective:
        name, made, particles, strategy = aux
        *data, observations, xs = children
        model, init, proposal = (
            part if make is None else make for part, make in zip(data, made, strict=True)
        )
        found = object.__new__(cls)
        fields = dict(
            name=name, model=model, init=init, observations=observations, particles=particles,
            proposal=proposal, xs=xs, strategy=strategy,
        )  # fmt: skip
        for field, value in fields.items():
            object.__setattr__(found, field, value)
        return found


_SPLIT = 0, slice(1, None)
