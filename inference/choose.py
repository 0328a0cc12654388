"""A mixture of moves whose weights depend on the state, as a move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import errors, gen, sample

from .move import Move, check_move, log_det_of
from .validation.objects import check_callable

WHICH = "which"
"""The address of the number of the chosen move."""


def choose(moves: Sequence[Move], weights: Callable[[dict], Any]) -> Move:
    """The move that makes move i with probability w_i(x), and comes back by the same one.

    Its u is the number i, at `"which"`, and the u of move i, at `str(i)`; the others' are
    absent (0). So its ratio is that of move i times w_i(x') / w_i(x), and accepting by it,
    `metropolize(choose(moves, weights), target)`, leaves the target invariant (Green 1995,
    section 3.2; Tierney 1998, section 4). A `mixture` of kernels would not, since it takes
    no notice of w.

    Args:
      moves: each its own inverse.
      weights: from latents to nonnegative numbers of shape (number of moves,), which are
        divided by their sum. Where they are all zero, nothing moves.

    Raises:
      InvalidArgument: there is no move; the weights have another shape (raised at the first
        run); or a move changes the structure of (latents, u).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Move, metropolize
    >>> from inference.choose import choose
    >>> from ppl import Target, gen, sample
    >>> from semantics import check_kernel
    >>> nothing = gen(lambda x: None)
    >>> flip = Move(nothing, lambda x, u: ({"a": 1 - x["a"], "b": x["b"]}, u))
    >>> exchange = Move(nothing, lambda x, u: ({"a": x["b"], "b": x["a"]}, u))
    >>> weights = lambda x: jnp.where(x["b"] == 1, jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
    >>> @gen
    ... def model():
    ...     a = sample("a", dist.Bernoulli(0.25))
    ...     sample("b", dist.Bernoulli(0.25 + 0.5 * a))
    >>> kernel = lambda target: metropolize(choose([flip, exchange], weights), target)
    >>> check_kernel(kernel, Target(model)).error < 1e-6
    True
    """
    given: Any = moves
    moves = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    for move in moves:
        check_move(move)
    check_callable("weights", weights, "a function of the latents", "lambda x: jnp.ones(2)")
    if not moves:
        raise errors.InvalidArgument(
            "There is no move to choose.", where=errors.caller(), given="an empty sequence",
            expected="moves", fix="choose([move, other], weights)",
        )  # fmt: skip

    def proposal(latents: dict) -> None:
        p = jnp.asarray(weights(latents), float)
        if p.shape != (len(moves),):
            raise errors.InvalidArgument(
                "The weights of choose do not have one number for each move.",
                where=errors.defined(weights), given=f"shape {p.shape}",
                expected=f"shape ({len(moves)},)", fix="return one weight for each move",
            )  # fmt: skip
        which = sample(WHICH, dist.Categorical(p / p.sum()))
        branches = [_made(str(i), move, latents) for i, move in enumerate(moves)]
        jax.lax.switch(which, branches, latents)

    def of(u: dict, i: int) -> dict:
        return u.get(str(i), {})

    def involution(x: dict, u: dict) -> tuple[dict, dict]:
        def taken(i: int) -> Callable:
            def run(x: dict, u: dict) -> tuple[dict, dict]:
                new_x, own = moves[i].involution(x, of(u, i))
                _check_structure(moves[i], (x, of(u, i)), (new_x, own))
                return jax.tree.map(
                    jnp.asarray, (new_x, u if str(i) not in u else {**u, str(i): own})
                )

            return run

        which = u[WHICH]
        new_x, new_u = jax.lax.switch(which, [taken(i) for i in range(len(moves))], x, u)
        return new_x, {**new_u, WHICH: which}

    def log_det(x: dict, u: dict) -> Any:
        """That of the chosen move: the others' u stay where they are."""

        def taken(i: int) -> Callable:
            return lambda x, u: jnp.asarray(log_det_of(moves[i], x, of(u, i)), float)

        return jax.lax.switch(u[WHICH], [taken(i) for i in range(len(moves))], x, u)

    return Move(gen(proposal), involution, log_det)


def _made(name: str, move: Move, latents: dict) -> Callable[[dict], None]:
    """The branch that makes a move's u at its address, if it has any."""
    if not move.proposal.sites(latents):
        return lambda latents: None

    def make(latents: dict) -> None:
        sample(name, move.proposal(latents))

    return make


def _check_structure(move: Move, before: tuple, after: tuple) -> None:
    """Raise `InvalidArgument` if a move changes which values there are."""
    if jax.tree.structure(after) != jax.tree.structure(before):
        raise errors.InvalidArgument(
            "The involution of a move changed the structure of (latents, u).",
            where=errors.defined(move.involution),
            given=str(jax.tree.structure(after)),
            expected=str(jax.tree.structure(before)),
            fix="return (latents, u) with the same addresses as were given",
        )
