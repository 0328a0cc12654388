"""Sequential Monte Carlo in pieces: advance a state, reweight it, and do so over data.

A particle is the *state* of a step model `(state, x) -> (state, y)`, not its history: a
filter takes the memory of its states. Each piece is a proper step (Ścibior et al., POPL
2018); the compositions of them are in `filtering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl import GenerativeFunction, Trace, errors
from ppl.addresses import flatten, nest
from ppl.arguments import is_traced
from ppl.summation import Sum, nothing, plus

from ..validation.objects import check_callable, check_model, check_proposal
from ..validation.settings import shown
from ..weighted import Step, Weighted, log_evidence
from .resample import effective_sample_size
from .step_models import next_state


def advance(
    model: GenerativeFunction,
    observed: Mapping[str, Any] | None = None,
    x: Any = None,
    *,
    proposal: GenerativeFunction | None = None,
    value: Callable[[Trace], Any] = next_state,
) -> Step:
    """One step of a model from a state to a state, given what it observes.

    Proper from g to the measure of the next state, g(ds) p(ds', observed | s, x): the weight
    is that of `model.generate`. With a proposal its choices are taken instead of the
    model's, and w = p(choices, observed | s, x) / q(choices | s, x, observed), the rest of
    the latents made by the model. A proposal whose density is estimated is a proposal too.

    Args:
      model: `(state, x) -> (state, y)`, as for `ppl.unfold`.
      observed: choices of the step.
      x: the step's input.
      proposal: `(state, x, observed) -> anything`, whose addresses are latents of the step.
      value: what the particle becomes, from the trace of the step; by default the next state.

    Raises:
      AddressNotFound, ShapeError, DtypeError, SupportError: as for `generate`; the
        proposal's choices are constraints.
      InvalidArgument: the proposal makes a choice that is observed.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Weighted, advance
    >>> from ppl import gen, integrate, sample
    >>> @gen
    ... def weather(rain, _):
    ...     rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, 0.75, 0.25)))
    ...     sample("wet", dist.Bernoulli(jnp.where(rain == 1, 1.0, 0.5)))
    ...     return rain, None
    >>> def mass():  # of rain today, and wet grass, after rain yesterday
    ...     s = advance(weather, {"wet": 1})(Weighted(jnp.array(1), jnp.array(0.0)))
    ...     return jnp.exp(s.log_weight) * s.value
    >>> print(f"{integrate(mass)():.4f}")
    0.7500
    """
    check_model(model)
    check_callable("value", value, "a function of the trace of a step", "leave it out")
    if proposal is not None:
        check_proposal(proposal)
    observed = {} if observed is None else observed
    flatten(observed)

    def step(weighted: Weighted) -> Weighted:
        given, log_proposal = observed, 0.0
        if proposal is not None:
            guess = proposal.simulate(weighted.value, x, observed)
            given, log_proposal = _joined(observed, guess.choices, proposal), guess.score
        trace, log_weight = model.generate(given, weighted.value, x)
        return Weighted(value(trace), weighted.log_weight + log_weight - log_proposal)

    return step


def _joined(observed: Mapping[str, Any], guessed: Mapping[str, Any], proposal: Any) -> dict:
    mine, theirs = flatten(observed), flatten(guessed)
    for path in theirs:
        if path in mine:
            raise errors.InvalidArgument(
                f"The proposal makes the choice {errors.show(path)}, which is observed.",
                where=(f"proposal {proposal.name}", errors.caller()),
                expected="latent choices of the step",
                fix=f"leave {errors.show(path)} out of the proposal",
            )
    return nest({**mine, **theirs})


def reweight(log_potential: Callable[[Any], jax.Array]) -> Step:
    """From g to e^h g, for a potential h of the value of a particle.

    The potential is a black box: it need not be differentiable. `reweight(h)` before a
    resampling and `reweight(-h)` after it looks ahead (Pitt and Shephard 1999, in the form
    of Johansen and Doucet 2008).

    Raises:
      ShapeError: the potential is no scalar.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, reweight
    >>> s = Weighted(jnp.array([1.0, 2.0]), jnp.zeros(2))
    >>> reweight(lambda x: 3 * x)(s).log_weight.tolist()
    [3.0, 6.0]
    """
    check_callable("log_potential", log_potential, "a function of a particle", "lambda x: 0.0")

    def step(weighted: Weighted) -> Weighted:
        if jnp.ndim(weighted.log_weight):
            potential = jax.vmap(log_potential)(weighted.value)
        else:
            potential = log_potential(weighted.value)
        shape = jnp.shape(weighted.log_weight)
        if jnp.shape(potential) != shape:
            raise errors.ShapeError(
                "A log potential is one number for each particle.", where=errors.caller(),
                given=f"shape {jnp.shape(potential)[len(shape):]}", expected="shape ()",
                fix="return a scalar: sum over what is independent",
            )  # fmt: skip
        return Weighted(weighted.value, weighted.log_weight + potential)

    return step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """What happened at each of T steps of `recorded`.

    Attributes:
      log_evidence: shape (T,), the log of the total mass after each step, from the start.
      ess: shape (T,), the effective number of particles after each step.
      record: what the user's function recorded, stacked.

    >>> import jax.numpy as jnp
    >>> from inference import History, Weighted, recorded, reweight
    >>> start = Weighted(jnp.array([0.0, 1.0]), jnp.zeros(2))
    >>> steps = recorded(lambda a: reweight(lambda x: a * x), jnp.log(jnp.array([2.0, 4.0])))
    >>> history: History = steps(start)[1]
    >>> jnp.exp(history.log_evidence).round(4).tolist()  # (1 + 2) / 2, (1 + 8) / 2
    [1.5, 4.5]
    """

    log_evidence: jax.Array
    ess: jax.Array
    record: Any = None


def over(make: Callable[[Any], Step], data: Any) -> Step:
    """`make(data[0])`, then `make(data[1])`, ...: a step for each row of data, by `lax.scan`.

    Proper if each is. The mass that the weights have in common is taken out after each step
    and put back at the end, which a proper step does not notice, since it is linear in the
    incoming weight. What is taken out is added up without loss (`ppl.summation`), so that single
    precision serves long series: the evidence of a million steps is rounded about once.

    Args:
      make: from a row of `data` to a step that keeps shapes and dtypes.
      data: arrays of T rows, or a pytree of them.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, log_evidence, over, reweight
    >>> start = Weighted(jnp.array([0.0, 1.0]), jnp.zeros(2))
    >>> end = over(lambda a: reweight(lambda x: a * x), jnp.array([1.0, 2.0, 3.0]))(start)
    >>> end.log_weight.round(4).tolist()
    [0.0, 6.0]
    """
    check_callable("make", make, "a function from a row of data to a step", "lambda row: step")
    check_rows(data)
    return Over(make, data)


@dataclass(frozen=True, eq=False)
class Over:
    """A step for each row of data, as `over` makes them: one that can be run row by row."""

    make: Callable[[Any], Step]
    data: Any

    def __call__(self, weighted: Weighted) -> Weighted:
        return self.recorded(weighted)[0]

    def recorded(self, weighted: Weighted) -> tuple[Weighted, History]:
        """The end, and a `History` of the steps."""
        return recorded(self.make, self.data)(weighted)


@dataclass(frozen=True, eq=False)
class Telling:
    """A step that can tell what happened on the way: `recorded` gives its end and a `History`."""

    recorded: Callable[[Weighted], tuple[Weighted, History]]

    def __call__(self, weighted: Weighted) -> Weighted:
        return self.recorded(weighted)[0]


def check_rows(data: Any) -> None:
    """Raise `InvalidArgument` unless `data` are arrays with as many rows."""
    leaves = jax.tree.leaves(data)
    rows = {jnp.shape(leaf)[:1] if is_traced(leaf) else () for leaf in leaves}
    if len(rows) != 1 or rows == {()}:
        raise errors.InvalidArgument(
            "There are no rows of data to go over.", where=errors.caller(),
            given=shown(data) if len(leaves) < 2 else f"first axes of {sorted(rows)}",
            expected="an array of T rows, or a pytree of such arrays", fix="over(make, ys)",
        )  # fmt: skip


def recorded(
    make: Callable[[Any], Step],
    data: Any,
    record: Callable[[Weighted], Any] = lambda weighted: None,
    carry: Callable[[Weighted], Weighted] = lambda weighted: weighted,
) -> Callable[[Weighted], tuple[Weighted, History]]:
    """`over`, giving the end and a `History` of the steps.

    Args:
      make, data: as for `over`.
      record: from the particles after each step to a pytree, for instance filter means.
      carry: what of the particles goes on to the next step.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, recorded, reweight
    >>> start = Weighted(jnp.array([0.0, 1.0]), jnp.zeros(2))
    >>> steps = recorded(lambda a: reweight(lambda x: a * x), jnp.array([0.0, 700.0, 700.0]))
    >>> end, history = steps(start)
    >>> history.ess.round(4).tolist(), [f"{mass:.2f}" for mass in history.log_evidence]
    ([2.0, 1.0, 1.0], ['0.00', '699.31', '1399.31'])
    """

    check_callable("make", make, "a function from a row of data to a step", "lambda row: step")
    check_rows(data)
    check_callable("record", record, "a function of the particles", "leave it out")
    check_callable("carry", carry, "a function of the particles", "leave it out")

    def run(weighted: Weighted) -> tuple[Weighted, History]:
        def one(state: tuple[Weighted, Sum], row: Any):
            before, total = state
            after = make(row)(before)
            mass = log_evidence(after)
            common = jnp.where(jnp.isfinite(mass), mass, 0.0)
            total = plus(total, common)
            rest = replace(after, log_weight=after.log_weight - common)
            # of the same numbers as the mass, so that they are exponentiated once
            ess = effective_sample_size(jnp.atleast_1d(after.log_weight))
            # all weights zero: evidence zero, from here on
            shown = jnp.where(jnp.isfinite(mass), total.value, mass)
            return (carry(rest), total), (shown, ess, record(rest))

        none = nothing(jnp.zeros((), weighted.log_weight.dtype))
        (end, total), (masses, ess, kept) = lax.scan(one, (weighted, none), data)
        return replace(end, log_weight=end.log_weight + total.value), History(masses, ess, kept)

    return run
