"""Moves: a proposal and an involution, weighed or accepted (Metropolis-Hastings-Green).

With x ~ g and u ~ q(.|x), a move maps (x, u) to (x', u') by a function f that is
its own inverse. Its log ratio is

    g(x') + q(u'|x') + log |det df| - g(x) - q(u|x),

the Radon-Nikodym derivative of the reversed extended measure (Green 1995; Ścibior
et al. 2018, theorem 5; Lew et al. 2023 for weighing). The Jacobian is taken by JAX
over exactly the continuous coordinates that f changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Target, Trace, draw, errors

from .kernel import Kernel, Stats
from .weighted import Step, Weighted


@dataclass(frozen=True)
class Move:
    """`proposal(latents)` draws u; `involution(latents, u)` is `(latents', u')`.

    Latents and u are nested dicts. A leaf that the involution passes on unchanged
    costs nothing in the Jacobian.

    >>> import numpyro.distributions as dist
    >>> from inference import Move
    >>> from ppl import gen, sample
    >>> step = gen(lambda latents: sample("by", dist.Normal(0.0, 1.0)))
    >>> walk = Move(step, lambda x, u: ({"mu": x["mu"] + u["by"]}, {"by": -u["by"]}))
    >>> there = walk.involution({"mu": 1.0}, {"by": 0.5})
    >>> there, walk.involution(*there)  # there and back
    (({'mu': 1.5}, {'by': -0.5}), ({'mu': 1.0}, {'by': 0.5}))
    """

    proposal: GenerativeFunction
    involution: Callable[[dict, dict], tuple[dict, dict]]


def _moved(move: Move, x: dict, u: dict) -> tuple[dict, dict, Any]:
    """`(x', u', log |det|)` over the continuous leaves that change."""
    leaves, tree = jax.tree.flatten((x, u))
    outs, out_tree = jax.tree.flatten(move.involution(x, u))
    if out_tree != tree:
        raise errors.InvalidArgument(
            "The involution of a move changed the structure of (latents, u).",
            where=errors.defined(move.involution),
            given=str(out_tree),
            expected=str(tree),
            fix="return (latents, u) with the same addresses as were given",
        )
    for (path, a), b in zip(jax.tree.leaves_with_path((x, u)), outs, strict=True):
        if jnp.shape(a) != jnp.shape(b) or jnp.result_type(a) != jnp.result_type(b):
            part, *address = path
            raise errors.InvalidArgument(
                "The involution of a move changed the shape or dtype of a value.",
                where=f"{('latents', 'u')[part.idx]}{jax.tree_util.keystr(tuple(address))} at "
                + errors.defined(move.involution),
                given=f"{jnp.result_type(b)}{list(jnp.shape(b))}",
                expected=f"{jnp.result_type(a)}{list(jnp.shape(a))}",
                fix="return values of the same shapes and dtypes at the same addresses",
            )
    moving = [
        i
        for i, (a, b) in enumerate(zip(leaves, outs, strict=True))
        if a is not b and jnp.issubdtype(jnp.result_type(a), jnp.inexact)
    ]
    new_x, new_u = jax.tree.unflatten(tree, outs)
    if not moving:
        return new_x, new_u, 0.0
    shapes = [jnp.shape(leaves[i]) for i in moving]
    ends = [0]
    for i in moving:
        ends.append(ends[-1] + jnp.size(leaves[i]))

    def flat(z):
        full = list(leaves)
        for k, i in enumerate(moving):
            full[i] = z[ends[k] : ends[k + 1]].reshape(shapes[k]).astype(leaves[i].dtype)
        after = jax.tree.leaves(move.involution(*jax.tree.unflatten(tree, full)))
        return jnp.concatenate([jnp.ravel(after[i]) for i in moving])

    at = jnp.concatenate([jnp.ravel(leaves[i]) for i in moving])
    return new_x, new_u, jnp.linalg.slogdet(jax.jacfwd(flat)(at))[1]


def propose(move: Move, target: Target, trace: Trace) -> tuple[Trace, Any]:
    """The moved trace, and the log ratio of the move."""
    x = target.choices(trace)
    forward = move.proposal.simulate(x)
    new_x, new_u, log_det = _moved(move, x, forward.choices)
    changed, difference = target.moved(trace, new_x)
    backward, _ = move.proposal.assess(new_u, new_x)
    return changed, difference + backward - forward.score + log_det


def metropolize(move: Move, target: Target) -> Kernel:
    """The kernel that accepts the move with probability min(1, ratio).

    It leaves `target` invariant when the involution is one.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Move, metropolize, start, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> propose = gen(lambda latents: sample("to", dist.Bernoulli(0.9)))  # prefers fair coins
    >>> swap = lambda x, u: ({"fair": u["to"]}, {"to": x["fair"]})
    >>> kernel = metropolize(Move(propose, swap), target)
    >>> def fair_after():  # start at the target, make a step
    ...     s = start(target)(unit())
    ...     return jnp.exp(s.log_weight) * kernel(s.value)["fair"]
    >>> print(f"{integrate(fair_after)():.4f}")  # p(fair, heads) = 1/2 * 1/2, as before the step
    0.2500
    """

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        trace, probability = accepted(trace, *propose(move, target, trace))
        return trace, {"accept": probability}

    return Kernel("move", step)


def weigh(move: Move, source: Target, target: Target) -> Step:
    """The step from `source` to `target` that always moves and weighs by the ratio.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Move, start, then, unit, weigh
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     return sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> coins = Target(gen(lambda: sample("fair", dist.Bernoulli(0.5))))
    >>> propose = gen(lambda latents: sample("to", dist.Bernoulli(0.9)))
    >>> move = Move(propose, lambda x, u: ({"fair": u["to"]}, {"to": x["fair"]}))
    >>> steps = then(start(coins), weigh(move, coins, target))
    >>> print(f"{integrate(lambda: jnp.exp(steps(unit()).log_weight))():.4f}")  # the evidence
    0.6250
    """

    def step(weighted: Weighted) -> Weighted:
        x = source.choices(weighted.value)
        forward = move.proposal.simulate(x)
        new_x, new_u, log_det = _moved(move, x, forward.choices)
        backward, _ = move.proposal.assess(new_u, new_x)
        changed, after = target.at(new_x)
        ratio = after - weighted.value.score + backward - forward.score + log_det
        return Weighted(changed, weighted.log_weight + ratio)

    return step


def accepted(old: Trace, new: Trace, log_ratio: Any) -> tuple[Trace, jax.Array]:
    """`new` with probability min(1, e^log_ratio), else `old`; and that probability.

    A NaN ratio is refused.
    """
    probability = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
    probability = jax.lax.stop_gradient(probability)
    taken = draw(dist.Bernoulli(probability)) == 1
    kept = jax.tree.map(lambda a, b: a if a is b else jnp.where(taken, b, a), old, new)
    return kept, probability


def accept(old: Trace, new: Trace, log_ratio: Any) -> Trace:
    """`new` with probability min(1, e^log_ratio), else `old`; a NaN ratio is refused."""
    return accepted(old, new, log_ratio)[0]
