"""From the particles of one target to those of another, on other choices.

x ~ g and u ~ q(.|x) become (x', u') by a map that is one to one, with x' a point of g' and u'
one that a backward proposal q' could have made at x'. The weight is that of `weigh`, whose moves
are the translations that are their own inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ppl import GenerativeFunction, Target, errors, gen
from ppl.addresses import flatten
from ppl.program import FACTOR

from ..move import Proposal, log_det_moved, weighed
from ..round_trip import came_back
from ..validation.objects import check_callable, check_no_gaps, check_proposal, check_target
from ..validation.settings import shown
from ..weighted import Step

Map = Callable[[dict, dict], tuple[dict, dict]]


def translate(
    source: Target,
    target: Target,
    forward: Proposal | None,
    backward: Proposal | None,
    there: Map,
    back: Map | None = None,
) -> Step:
    """From `source` to `target`: log w = g'(x') + q'(u'|x') + log |det| - g(x) - q(u|x).

    Proper if `there` is one to one between the points where g q and g' q' are not zero. The two
    may have any choices, as many continuous ones with their u as the other with its own. The
    determinant is of the continuous numbers that the map makes, by those that it does not pass on,
    by JAX. On one particle; `each` translates many.

    The densities of the proposals may be estimates: of generative functions that also draw
    without addresses, or `Stochastic`.

    Args:
      forward: from the latents x of `source` to u; None for no u.
      backward: from the latents x' of `target` to u'; None for no u'.
      there: `(x, u) -> (x', u')`, nested dicts; x' has exactly the latents of `target`.
      back: `(x', u') -> (x, u)`; if given, the round trip is checked at every step, to half of the
        digits. It calls the host, which costs time.

    Raises:
      MissingChoice: the map does not give a latent of `target`, or a choice of `backward`.
      AddressNotFound, ShapeError, DtypeError: it gives something else, or makes another number of
        continuous coordinates than it takes.
      InvalidArgument: `backward` scores, so that its density is not known; or `back` gives
        something else than x and u.
      CannotSimulate: `forward` scores.

    Source: Lew et al., SMCP3: Sequential Monte Carlo with probabilistic program proposals (AISTATS
    2023); Cusumano-Towner, Lew and Mansinghka, Automating involutive MCMC using probabilistic and
    differentiable programming (2020), for maps between traces of two models.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Weighted, start, then, translate, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def one():
    ...     a = sample("a", dist.Bernoulli(0.5))
    ...     sample("y", dist.Bernoulli(jnp.where(a == 1, 0.75, 0.25)))
    >>> @gen
    ... def two():
    ...     one.fn()
    ...     sample("b", dist.Bernoulli(0.5))
    ...     sample("z", dist.Bernoulli(0.25))
    >>> old, new = Target(one, (), {"y": 1}), Target(two, (), {"y": 1, "z": 1})
    >>> guess = gen(lambda x: sample("u", dist.Bernoulli(0.25 + 0.5 * x["a"])))
    >>> step = translate(old, new, guess, None, lambda x, u: ({"a": x["a"], "b": u["u"]}, {}))
    >>> steps = then(start(old), step)
    >>> print(f"{integrate(lambda: jnp.exp(steps(unit()).log_weight))():.4f}")  # 1/2 times 1/4
    0.1250
    """
    for each in (source, target):
        check_target(each)
        check_no_gaps(each, "A translation", "leave impute out where nothing depends on it")
    for proposal in (forward, backward):
        if proposal is not None:
            check_proposal(proposal)
    due = "a function (x, u) -> (x', u')"
    check_callable("there", there, due, "there=lambda x, u: (x, u)")
    if back is not None:
        check_callable("back", back, due, "leave it out")
    returns: Proposal = _nothing if backward is None else backward

    def moved(x: dict, u: dict) -> tuple[dict, dict, Any]:
        after = there(x, u)
        _check_pair(after, there)
        new_x, new_u = after
        _check(target, returns, there, new_x)
        return new_x, new_u, log_det_moved(there, x, u, after)

    def check(before: tuple, after: tuple, log_ratio: Any) -> Any:
        assert back is not None
        again = back(*after)
        if jax.tree.structure(again) != jax.tree.structure(before):
            raise errors.InvalidArgument(
                "The way back of a translation gives something else than (x, u).",
                where=(errors.defined(back), errors.caller()),
                given=str(jax.tree.structure(again)),
                expected=str(jax.tree.structure(before)),
                fix="return the latents of the source, and the choices of the forward proposal",
            )
        what = "The two maps of a translation do not undo each other."
        return came_back(before, again, log_ratio, there, what, "correct `there`, or `back`")

    return weighed(source, target, forward or _nothing, returns, moved, check if back else None)


@gen
def _nothing(latents: Any) -> None:
    """The proposal that makes no choice."""


def _check_pair(after: Any, there: Map) -> None:
    """Raise unless the map gives two nested dicts."""
    if (
        not isinstance(after, tuple)
        or len(after) != 2
        or not all(isinstance(part, Mapping) for part in after)
    ):
        raise errors.InvalidArgument(
            "The map of a translation does not give (x', u').",
            where=(errors.defined(there), errors.caller()),
            given=shown(after) if not isinstance(after, tuple) else f"a tuple of {len(after)}",
            expected="two nested dicts: the latents of the target, and the choices of `backward`",
            fix="return new_x, {} where there is nothing to come back by",
        )  # fmt: skip


def _check(target: Target, backward: Proposal, there: Map, new_x: dict) -> None:
    """Raise unless all latents are given, and what is to come back has a density."""
    given = flatten(new_x)
    for path in target.latents:
        if path not in given:
            raise errors.MissingChoice(
                f"The map of a translation does not give {errors.show(path)}.",
                where=(
                    f"{errors.show(path)} at {target.sites[path].source}",
                    errors.defined(there),
                ),
                given="; ".join(errors.show(p) for p in given),
                expected="all latents of the target: "
                + "; ".join(errors.show(p) for p in target.latents),
                fix="let the forward proposal make it, and the map pass it on",
            )
    if not isinstance(backward, GenerativeFunction):
        return
    if FACTOR in backward._prepare((new_x,), {}).staged.program.effects:
        raise errors.InvalidArgument(
            f"The backward proposal {backward.name} scores with factor/observe.",
            where=(errors.defined(backward.fn), errors.caller()),
            given="a measure that is not normalised",
            expected="a generative function of total mass one",
            fix="leave the factors to the targets",
        )
