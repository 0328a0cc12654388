"""`expectation`: random programs whose derivatives are unbiased estimates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from . import errors, jumps
from .addresses import as_path, not_found
from .estimators.enumeration import Enumerate
from .estimators.measure_valued import MeasureValued
from .estimators.nodes import DrawNode
from .estimators.pathwise import Reparam, can_move
from .estimators.plan import estimate
from .estimators.score_function import Fixed
from .estimators.strategies import Strategy
from .program import Path
from .randomness import program_of

_MEASURE_VALUED = (
    dist.BernoulliProbs,
    dist.BernoulliLogits,
    dist.CategoricalProbs,
    dist.CategoricalLogits,
    dist.Poisson,
)


def expectation(
    f: Callable,
    strategies: Mapping[str | tuple[str, ...], Strategy] | None = None,
    *,
    allow_biased: bool = False,
) -> Callable:
    """`expectation(f)(*args)`: an unbiased estimate of E[f(*args)], and so are its derivatives.

    A random program again: `seed` runs it, `integrate` takes its mean. `jax.grad`, `jax.jvp`,
    `jax.hessian` and any other derivative of it are unbiased estimates of those of the mean,
    under `jit` and `vmap` as well; the value is the same number with a derivative and without.

    Each choice has a strategy (`ppl.strategies`): one given by address, one given where it is
    drawn, `draw(d, strategy)`, or its distribution's default, `reparam()` if it is continuous
    and `measure_valued()` for Bernoulli, categorical and Poisson choices; one whose parameters are
    whole numbers needs none. Only those terms of
    the result that depend on a choice carry its score, element by element where the elements
    of a choice are apart. Loops stay loops, but for loops out of whose iterations several values
    of a choice come side by side, which are written out.

    Args:
      f: a random program with real results.
      strategies: strategies by address, for choices that generative functions make in `f`.
      allow_biased: whether strategies are taken whose derivatives are biased.

    Raises:
      BiasedStrategy: a strategy is biased, and that was not asked for.
      NoStrategy: a choice has no default, or one that does not fit; lists those that exist.
      AddressNotFound: `strategies` names no choice of the program.
      GradientThroughDraw: a derivative is taken that a jump would make wrong.

    Source: Lew, Huot, Staton and Mansinghka, ADEV (POPL 2023); Becker et al., Probabilistic
    programming with programmable variational inference (PLDI 2024).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate
    >>> def bet(p):
    ...     x = draw(dist.Normal(p, 1.0))
    ...     won = draw(dist.Bernoulli(jax.nn.sigmoid(x)))
    ...     return jnp.where(won == 1, x, -1.0)
    >>> with jax.enable_x64(True):
    ...     print(f"{integrate(jax.grad(expectation(bet)), nodes=40)(0.5):.6f}")
    ...     print(f"{jax.grad(integrate(bet, nodes=40))(0.5):.6f}")
    0.870618
    0.870618
    """
    chosen = _checked(strategies)

    @functools.wraps(f, updated=())
    def estimated(*args: Any, **kwargs: Any) -> Any:
        staged, arguments = program_of(f, args, kwargs)
        found: dict[Path, None] = {}

        def strategy(node: DrawNode) -> Strategy:
            found[node.address] = None
            made = strategy_of(node, chosen)
            if made.biased and not allow_biased:
                raise _biased(node, made)
            return made

        closed, leaves = jumps.looked_at(
            staged.jaxpr, arguments.leaves, lambda eqn: _moves(eqn, chosen), _refused
        )
        outs = estimate(staged.jaxpr.replace(consts=closed), leaves, strategy)
        for path in chosen:
            if path not in found:
                raise not_found(path, [p for p in found if p], "A strategy")
        return staged.rebuild(outs)

    return estimated


def _checked(strategies: Any) -> dict[Path, Strategy]:
    """Strategies by path; raise `InvalidArgument` for what is none."""
    if strategies is not None and not isinstance(strategies, Mapping):
        raise errors.InvalidArgument(
            "Strategies are a dict by address.",
            where=errors.caller(),
            given=repr(strategies),
            expected='{"address": strategy}',
            fix='{"z": reinforce()}; a function of the parameters goes to `fit`',
        )
    for address, strategy in (strategies or {}).items():
        if not hasattr(strategy, "make") or isinstance(strategy, type):
            raise errors.InvalidArgument(
                f"What is given for {errors.show(as_path(address))} is no strategy.",
                where=errors.caller(),
                given=repr(strategy),
                expected="reparam(), reinforce(), enumerate_(), measure_valued(), ...",
                fix="a baseline goes into reinforce(...); a strategy is called: reinforce()",
            )
    return {as_path(address): strategy for address, strategy in (strategies or {}).items()}


def strategy_of(node: DrawNode, chosen: Mapping[Path, Strategy]) -> Strategy:
    """The strategy of a draw: by address, at the draw, or the default."""
    if node.address in chosen:
        return chosen[node.address]
    if node.spec.strategy is not None:
        return node.spec.strategy
    return default(node)


def default(node: DrawNode) -> Strategy:
    """The default strategy of a draw's distribution.

    Raises:
      NoStrategy: there is none.
    """
    if can_move(node):
        return Reparam()
    if not any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in node.spec.leaves):
        return Fixed()
    d = node.spec.tree.unflatten(list(node.spec.leaves))
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    if isinstance(d, _MEASURE_VALUED):
        return MeasureValued()
    discrete = not jnp.issubdtype(node.spec.dtype, jnp.floating)
    raise errors.NoStrategy(
        f"A choice from {node.spec.kind} has no default strategy.",
        where=node.place,
        expected="reinforce(), "
        + ("enumerate_(), without_replacement()" if discrete else "a user's own"),
        fix='expectation(f, {"address": reinforce()}), or draw(d, reinforce())',
    )


def _biased(node: DrawNode, strategy: Strategy) -> errors.BiasedStrategy:
    return errors.BiasedStrategy(
        "The derivatives of this strategy are biased, and that was not asked for.",
        where=(node.place, errors.caller()),
        given=repr(strategy),
        expected="an unbiased strategy: measure_valued(), enumerate_(), reinforce(), ...",
        fix="expectation(f, strategies, allow_biased=True), where that is meant",
    )


def _moves(eqn: Any, chosen: Mapping[Path, Strategy]) -> str:
    strategy = chosen.get(eqn.params.get("address", ()), eqn.params.get("strategy"))
    if isinstance(strategy, Reparam) and strategy.allow_jump:
        return ""
    if strategy is None or not strategy.scored:
        return "moves"
    return "" if isinstance(strategy, Enumerate) else "stays"


def _refused(jump: jumps.Jump, _: tuple) -> errors.GradientThroughDraw:
    return errors.GradientThroughDraw(
        "A derivative of an expectation through a jump: it would miss what the jump adds.",
        where=(f"`{jump.operation}` at {jump.source}", jump.draw),
        given="what decides the jump depends on the choice and on the parameter",
        expected="a smooth function of the choice; or a choice that does not move, and a jump "
        "that does not either",
        fix="reinforce() or measure_valued() for the choice, the parameter in its distribution "
        "only; or reparam(allow_jump=True), which is biased",
    )
