"""A chain of finitely many states: the log of the sum over all paths, with a pass back.

The forward algorithm by products of weights (`markov_weights`); where one of them is too small
for a number, in logarithms, so that no path is lost, however unlikely it was at some step. The
derivative is not that of the loop: it is made of the probabilities of states and of pairs of
states given everything (the forward-backward algorithm).

Source: Rabiner, A tutorial on hidden Markov models (Proc. IEEE 1989).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .guarded import guarded
from .markov_weights import Slopes, filtered, slopes
from .tables import log_sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Markov:
    """The weights of paths through k states in n steps.

    Attributes:
      start, begun: log weights of the state before the first step, `(k,)`, and factors of them,
        which may be zero and have derivatives there; None for ones.
      logs, chances: likewise of pairs of a state and the next one, `(k, k)`, or `(n, k, k)`;
        None for zeros and for ones.
      seen, shown: likewise of the states after each step, `(n, k)`.
    """

    start: jax.Array
    begun: jax.Array | None
    logs: jax.Array | None
    chances: jax.Array | None
    seen: jax.Array
    shown: jax.Array | None = None


@jax.custom_jvp
def mass(chain: Markov) -> jax.Array:
    """log of the sum over all paths of the products of their weights.

    Derivatives of first order, forward and reverse, are made from one pass back; those of
    higher order differentiate that pass.

    >>> import jax, jax.numpy as jnp
    >>> from inference.exact.markov import Markov, mass
    >>> stay = jnp.array([[0.75, 0.25], [0.5, 0.5]])
    >>> seen = jnp.log(jnp.array([[1.0, 0.5], [0.0, 1.0]]))
    >>> first = jnp.array([1.0, 0.0])
    >>> paths = lambda stay: jnp.exp(mass(Markov(jnp.zeros(2), first, None, stay, seen)))
    >>> print(f"{paths(stay):.4f}")  # 3/4 * 1/4 + 1/4 * 1/2 * 1/2
    0.2500
    >>> jax.grad(paths)(stay).round(4).tolist()
    [[0.25, 1.0], [0.0, 0.125]]
    """
    fast = filtered(chain)
    return _mass(fast.safe(chain), fast.total(), chain)


def state_after(chain: Markov) -> jax.Array:
    """Log probabilities of the state after the last step, given all that was seen."""
    fast = filtered(chain)
    return _last(fast.safe(chain), _log(fast.before[-1]), chain)


class _Forward(NamedTuple):
    """Log probabilities of states given what was seen before and there, `(n + 1, k)`; what the
    start and each step add to the mass; and probabilities given what was seen before, `(n, k)`."""

    states: jax.Array
    first: jax.Array
    amounts: jax.Array
    predicted: jax.Array


def _rows(chain: Markov) -> tuple[tuple, Callable]:
    """The weights of pairs that differ from step to step, and what joins the others to them."""
    both = (chain.logs, chain.chances)
    own = tuple(x if x is not None and x.ndim == 3 else None for x in both)

    def joined(row: tuple) -> tuple[Any, Any]:
        logs, chances = (b if a is None else a for a, b in zip(row, both, strict=True))
        return logs, chances

    return own, joined


def _normalised(logs: jax.Array) -> tuple[jax.Array, jax.Array]:
    total = log_sum(logs, None, 0)
    return logs - jnp.where(total > -jnp.inf, total, 0.0), total


def _log(x: jax.Array) -> jax.Array:
    """The logarithm, with derivatives that are numbers where it is -inf."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)


def _whole(logs: jax.Array, chances: jax.Array | None) -> jax.Array:
    return logs if chances is None else logs + _log(chances)


def _forward(chain: Markov) -> _Forward:
    own, joined = _rows(chain)
    first, amount = _normalised(_whole(chain.start, chain.begun))

    def step(state: jax.Array, row: tuple) -> tuple[jax.Array, tuple]:
        mine, see = row
        logs, chances = joined(mine)
        pairs = jnp.broadcast_to(state[:, None], (state.size, state.size))
        predicted = log_sum(pairs if logs is None else pairs + logs, chances, 0)
        after, amount = _normalised(predicted + see)
        return after, (after, amount, predicted)

    seen = _whole(chain.seen, chain.shown)
    _, (states, amounts, predicted) = lax.scan(step, first, (own, seen))
    return _Forward(jnp.concatenate([first[None], states]), amount, amounts, predicted)


def _total(found: _Forward) -> jax.Array:
    return found.first + jnp.sum(found.amounts)


def _back(chain: Markov, found: _Forward) -> tuple[jax.Array, jax.Array]:
    """log of how much likelier all that follows is given each state than it is at all,
    `(n + 1, k)`; and probabilities of pairs less their own chances, added up over the steps if
    the weights are the same in all, or of each."""
    own, joined = _rows(chain)
    k = chain.seen.shape[1]
    each = any(x is not None for x in own)
    nothing = jnp.zeros((k, k), chain.seen.dtype)

    def step(carry: tuple, row: tuple) -> tuple[tuple, tuple]:
        later, total = carry
        mine, before, see, amount = row
        logs, chances = joined(mine)
        then = jnp.broadcast_to(see + later - amount, (k, k))
        then = then if logs is None else then + logs
        here = log_sum(then, chances, 1)
        pairs = jnp.exp(before[:, None] + then)
        return (here, total if each else total + pairs), (later, pairs if each else None)

    rows = (own, found.states[:-1], _whole(chain.seen, chain.shown), _finite(found.amounts))
    (first, total), (later, pairs) = lax.scan(step, (nothing[0], nothing), rows, reverse=True)
    return jnp.concatenate([first[None], later]), pairs if each else total


def _finite(amounts: jax.Array) -> jax.Array:
    return jnp.where(amounts > -jnp.inf, amounts, 0.0)


@partial(mass.defjvp, symbolic_zeros=True)
def _derivative(primals: tuple, tangents: tuple) -> tuple:
    (chain,), (turns,) = primals, tangents
    fast = filtered(chain)
    quick, fine = slopes(chain, fast)
    mass, found = _both(fast.safe(chain) & fine, (fast.total(), quick), chain)
    total = jnp.zeros((), chain.seen.dtype)

    def added(total: Any, amount: Any, turn: Any) -> Any:
        if turn is None or isinstance(turn, SymbolicZero):
            return total
        amount = amount if amount.ndim == turn.ndim else jnp.sum(amount, 0)
        return total + jnp.sum(jnp.where(amount != 0, amount * turn, 0.0))

    def times(amount: Any, factor: Any) -> Any:
        return amount if factor is None else amount * factor

    total = added(total, found.seen, turns.shown)
    total = added(total, times(found.seen, chain.shown), turns.seen)
    total = added(total, found.start, turns.begun)
    total = added(total, times(found.start, chain.begun), turns.start)
    total = added(total, found.pairs, turns.chances)
    total = added(total, times(found.pairs, chain.chances), turns.logs)
    return mass, total


def _in_logs(chain: Markov) -> tuple[jax.Array, Slopes]:
    """The mass and its derivatives, whatever the weights are."""
    found = _forward(chain)
    later, pairs = _back(chain, found)
    start = jnp.exp(chain.start - _finite(found.first) + later[0])
    amounts = _finite(found.amounts)[:, None]
    seen = jnp.exp(found.predicted + chain.seen - amounts + later[1:])
    return _total(found), Slopes(start, seen, pairs)


_mass = guarded(lambda chain: _total(_forward(chain)))
_last = guarded(lambda chain: _forward(chain).states[-1])
_both = guarded(_in_logs)
