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
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Target, Trace, draw, errors
from ppl.addresses import flatten
from ppl.arguments import is_array

from .kernel import Kernel, Stats
from .round_trip import came_back
from .validation.objects import (
    check_callable,
    check_no_gaps,
    check_proposal,
    check_target,
    check_trace,
)
from .validation.settings import check_flag, shown
from .weighted import Step, Weighted

WHOLE = "let mh, gibbs, a kernel of unconstrained space or a guide made of the target move it"


class Proposal(Protocol):
    """What draws u and scores it: a generative function, or a `Stochastic` one."""

    @property
    def name(self) -> str: ...

    def simulate(self, *args: Any) -> Trace: ...

    def assess(self, choices: Any, *args: Any) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class Move:
    """`proposal(latents)` draws u; `involution(latents, u)` is `(latents', u')`.

    Latents and u are nested dicts. A leaf that the involution passes on unchanged
    costs nothing in the Jacobian.

    Attributes:
      log_det: `(latents, u) -> log |det df|`, where a smaller Jacobian is known than that of
        all that moves; `semantics.check_move` compares the two. Without it, it is by JAX.

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
    log_det: Callable[[dict, dict], Any] | None = None

    def __post_init__(self):
        check_proposal(self.proposal)
        due = "a function (latents, u) -> (latents', u')"
        check_callable("The involution", self.involution, due, "lambda x, u: (new_x, new_u)")
        if self.log_det is not None:
            due = "a function (latents, u) -> log |det|"
            check_callable("log_det", self.log_det, due, "leave it out: it is by JAX")


def check_move(move: Any) -> None:
    """Raise `InvalidArgument` unless `move` is a move, or has what one has."""
    if isinstance(move, type) or not (hasattr(move, "proposal") and hasattr(move, "involution")):
        raise errors.InvalidArgument(
            "A move was expected.", where=errors.caller(), given=shown(move),
            expected="Move(proposal, involution)", fix="Move(gen(...), lambda x, u: (x, u))",
        )  # fmt: skip


def log_det_of(move: Move, x: dict, u: dict) -> Any:
    """log |det df| at (x, u): the move's own, or else by JAX."""
    return _moved(move, x, u)[2]


def log_abs_det(fn: Callable, *args: Any) -> jax.Array:
    """log |det| of all continuous outputs by all continuous inputs, of which there are as many."""
    leaves, tree = jax.tree.flatten(args)
    moving = [i for i, leaf in enumerate(leaves) if _continuous(leaf)]

    def outputs(*args: Any) -> list:
        return [leaf for leaf in jax.tree.leaves(fn(*args)) if _continuous(leaf)]

    return _log_abs_det(outputs, leaves, tree, moving)


def _continuous(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _log_abs_det(outputs: Callable, leaves: list, tree: Any, moving: list[int]) -> jax.Array:
    """Of `outputs`, a list of arrays, by the `moving` ones of the leaves of its arguments."""
    if not moving:
        return jnp.zeros(())
    ends = [0]
    for i in moving:
        ends.append(ends[-1] + jnp.size(leaves[i]))

    def flat(z: jax.Array) -> jax.Array:
        full = list(leaves)
        for k, i in enumerate(moving):
            part = z[ends[k] : ends[k + 1]].reshape(jnp.shape(leaves[i]))
            full[i] = part.astype(jnp.result_type(leaves[i]))
        return jnp.concatenate([jnp.ravel(x) for x in outputs(*jax.tree.unflatten(tree, full))])

    at = jnp.concatenate([jnp.ravel(leaves[i]) for i in moving])
    return jnp.linalg.slogdet(jax.jacfwd(flat)(at))[1]


def _moved(move: Move, x: dict, u: dict) -> tuple[dict, dict, Any]:
    """`(x', u', log |det|)` over the continuous leaves that change."""
    tree = jax.tree.structure((x, u))
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
    new_x, new_u = jax.tree.unflatten(tree, outs)
    known = getattr(move, "log_det", None)  # `check_move` takes anything with the other two
    if known is not None:
        return new_x, new_u, known(x, u)
    return new_x, new_u, log_det_moved(move.involution, x, u, (new_x, new_u))


def log_det_moved(there: Callable, x: dict, u: dict, after: tuple[dict, dict]) -> jax.Array:
    """log |det| of `there` at (x, u), `after` being its value: of the continuous leaves that it
    makes, by those that it does not pass on as they are, to wherever it passes them.

    Raises:
      ShapeError: they are not as many numbers.
    """
    leaves, tree = jax.tree.flatten((x, u))
    outs = jax.tree.leaves(after)
    left = [i for i, leaf in enumerate(leaves) if _continuous(leaf)]
    made = []
    for j, out in enumerate(outs):
        same = [i for i in left if leaves[i] is out]
        if same:
            left.remove(same[0])
        elif _continuous(out):
            made.append(j)
    given, found = (
        sum(jnp.size(x[i]) for i in which) for x, which in ((leaves, left), (outs, made))
    )
    if given != found:
        raise errors.ShapeError(
            "The map of a move is not one to one: it does not keep the number of coordinates.",
            where=(errors.defined(there), errors.caller()),
            given=f"{found} continuous numbers made of {given}, beside those passed on",
            expected="as many continuous numbers in (latents', u') as in (latents, u)",
            fix="let u' have what is needed to come back, and u what is needed to go",
        )

    def outputs(x: dict, u: dict) -> list:
        again = jax.tree.leaves(there(x, u))
        return [again[j] for j in made]

    return _log_abs_det(outputs, leaves, tree, left)


def propose(move: Move, target: Target, trace: Trace, check: bool = False) -> tuple[Trace, Any]:
    """The moved trace, and the log ratio of the move; `check` as of `metropolize`."""
    x = target.choices(trace)
    forward = move.proposal.simulate(x)
    new_x, new_u, log_det = _moved(move, x, forward.choices)
    if any(flatten(new_x)[path] is not flatten(x)[path] for path in target.gaps):
        check_no_gaps(target, "A move", WHOLE)
    changed, difference = target.moved(trace, new_x)
    backward, _ = move.proposal.assess(new_u, new_x)
    log_ratio = difference + backward - forward.score + log_det
    if check:
        back = move.involution(new_x, new_u)
        log_ratio = came_back((x, forward.choices), back, log_ratio, move.involution)
    return changed, log_ratio


def _named(name: Any) -> None:
    if not isinstance(name, str):
        raise errors.InvalidArgument(
            "The name of a kernel is a string.", where=errors.caller(), given=shown(name),
            expected="a string", fix='name="move"',
        )  # fmt: skip


def metropolize(move: Move, target: Target, *, check: bool = False, name: str = "move") -> Kernel:
    """The kernel that accepts the move with probability min(1, ratio).

    It leaves `target` invariant when the involution is one.

    Args:
      check: whether the involution is applied twice at each step, and must come back: to half
        of the digits, and to the same integers. It calls the host, which costs time.
      name: of the kernel, for statistics and messages.

    Raises:
      InvalidArgument: with `check`, when the move does not come back. A compiled program cannot
        raise it: its message is that of the `jax.errors.JaxRuntimeError` raised there.

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

    check_target(target)
    check_move(move)
    check_flag("check", check)
    _named(name)

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        changed, log_ratio = propose(move, target, trace, check)
        trace, probability = accepted(trace, changed, log_ratio)
        return trace, {"accept": probability}

    return Kernel(name, step, target=target)


def mhg(
    target: Target,
    proposal: GenerativeFunction,
    involution: Callable[[dict, dict], tuple[dict, dict]],
    *,
    check: bool = False,
    name: str = "mhg",
) -> Kernel:
    """Metropolis-Hastings-Green: `metropolize(Move(proposal, involution), target)`.

    Args:
      proposal: from the latents to auxiliary choices u.
      involution: `(latents, u) -> (latents', u')`, its own inverse.
      check, name: as of `metropolize`.

    Source: Green, Reversible jump Markov chain Monte Carlo (Biometrika 1995).

    >>> import numpyro.distributions as dist
    >>> from inference.move import mhg
    >>> from ppl import Target, gen, law, sample
    >>> three = Target(gen(lambda: sample("x", dist.Binomial(2, 0.5))))
    >>> step = gen(lambda latents: sample("by", dist.Binomial(2, 0.5)))
    >>> walk = lambda x, u: ({"x": (x["x"] + u["by"]) % 3}, {"by": -u["by"] % 3})
    >>> kernel = mhg(three, step, walk, check=True)
    >>> after = law(lambda: kernel(three.generate({"x": 1})[0])["x"])()
    >>> after.values.tolist(), after.masses.round(3).tolist()
    ([0, 1, 2], [0.25, 0.625, 0.125])
    """
    return metropolize(Move(proposal, involution), target, check=check, name=name)


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

    check_move(move)
    for each in (source, target):
        check_target(each)
        check_no_gaps(each, "A move between targets", WHOLE)
    return weighed(source, target, move.proposal, move.proposal, partial(_moved, move))


def weighed(
    source: Target,
    target: Target,
    forward: Proposal,
    backward: Proposal,
    moved: Callable,
    check: Callable | None = None,
) -> Step:
    """The step of log w = g'(x') + q'(u'|x') + log |det| - g(x) - q(u|x).

    Args:
      forward, backward: from x to u, and from x' to u'.
      moved: `(x, u) -> (x', u', log |det|)`.
      check: of `((x, u), (x', u'), log ratio)`, giving the log ratio again.
    """

    def step(weighted: Weighted) -> Weighted:
        x = source.choices(weighted.value)
        drawn = forward.simulate(x)
        new_x, new_u, log_det = moved(x, drawn.choices)
        back, _ = backward.assess(new_u, new_x)
        changed, after = target.at(new_x)
        ratio = after - weighted.value.score + back - drawn.score + log_det
        if check is not None:
            ratio = check((x, drawn.choices), (new_x, new_u), ratio)
        # what has no mass keeps none: -inf less -inf is no number
        dead = (weighted.log_weight == -jnp.inf) | (weighted.value.score == -jnp.inf)
        return Weighted(changed, jnp.where(dead, -jnp.inf, weighted.log_weight + ratio))

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
    """`new` with probability min(1, e^log_ratio), else `old`: the end of a kernel of one's own.

    A NaN ratio is refused.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import accept
    >>> from ppl import Target, draw, gen, sample, seed
    >>> normal = Target(gen(lambda: sample("x", dist.Normal(0.0, 1.0))))
    >>> def walk(trace):
    ...     x = trace["x"] + draw(dist.Normal(0.0, 2.0))
    ...     moved, log_ratio, _ = normal.update(trace, {"x": x})
    ...     return accept(trace, moved, log_ratio)
    >>> moved = seed(walk)(jax.random.key(0), normal.at({"x": 0.0})[0])
    >>> bool(moved["x"] == 0.0)  # refused, this time
    True
    """
    check_trace(old)
    check_trace(new)
    if not is_array(log_ratio) or jnp.shape(log_ratio) != ():
        raise errors.InvalidArgument(
            "A log ratio is one number.", where=errors.caller(), given=shown(log_ratio),
            expected="a scalar", fix="moved, log_ratio, _ = target.update(trace, {...})",
        )  # fmt: skip
    return accepted(old, new, log_ratio)[0]
