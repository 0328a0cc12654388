"""What is given is of the kind that is due: a target and not its model, a function and no number.

Python finds out where it is used, in someone else's words. These say it where it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.core

from ppl import GenerativeFunction, Target, Trace, errors

from .settings import shown


def check_callable(name: str, value: Any, expected: str, fix: str) -> Callable[..., Any]:
    """`value`; raise `InvalidArgument` unless it is a function, and no model.

    >>> from inference.validation.objects import check_callable
    >>> check_callable("f", abs, "a function", "f=abs")(-1)
    1
    """
    if not callable(value) or isinstance(value, GenerativeFunction):
        raise errors.InvalidArgument(
            f"{name} is no function.", where=errors.caller(), given=shown(value),
            expected=expected, fix=fix,
        )  # fmt: skip
    return value


def check_target(target: Any) -> None:
    """Raise `InvalidArgument` unless `target` is a target.

    >>> from inference.validation.objects import check_target
    >>> try:
    ...     check_target(3)
    ... except ValueError as error:
    ...     print(error.what)
    A target was expected.
    """
    if isinstance(target, Target):
        return
    if isinstance(target, GenerativeFunction):
        target.observations  # says what to do  # noqa: B018
    fix = "Target(model, args, observations)"
    if isinstance(target, Trace):
        fix = "give the target of the trace; where a kernel is due, make it: nuts(target)"
    raise errors.InvalidArgument(
        "A target was expected.", where=errors.caller(), given=shown(target),
        expected="the posterior: a model, its arguments, and what is observed", fix=fix,
    )  # fmt: skip


def check_no_gaps(target: Target, what: str, fix: str) -> None:
    """Raise `InvalidArgument` if missing elements of observed arrays are latent.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.validation.objects import check_no_gaps
    >>> from ppl import Masked, Target, gen, sample
    >>> coins = gen(lambda: sample("x", dist.Bernoulli(0.25).expand([2])))
    >>> seen = Masked(jnp.array([1, 0]), [True, False], impute=True)
    >>> try:
    ...     check_no_gaps(Target(coins, (), {"x": seen}), "This method", "mh")
    ... except ValueError as error:
    ...     print(error.what)
    This method takes no arrays of which a part is data, as "x" is.
    """
    for path in target.gaps:
        raise errors.InvalidArgument(
            f"{what} takes no arrays of which a part is data, as {errors.show(path)} is.",
            where=(f"{errors.show(path)} at {target.sites[path].source}", errors.caller()),
            given="Masked(value, mask, impute=True)",
            expected="observations that are whole, and latents that are",
            fix=fix,
        )


def check_on_host(what: str, fix: str, *values: Any) -> None:
    """Raise `InvalidArgument` if a number in one of the values is traced.

    >>> import jax
    >>> from inference.validation.objects import check_on_host
    >>> try:
    ...     jax.jit(lambda x: check_on_host("A fit", "a loop over fits", x))(1.0)
    ... except ValueError as error:
    ...     print(error.what)
    A fit is driven from the host, and is no part of a compiled program.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values)):
        raise errors.InvalidArgument(
            f"{what} is driven from the host, and is no part of a compiled program.",
            where=errors.caller(), given="traced arguments: it is called inside jit, vmap or grad",
            expected="known numbers", fix=fix,
        )  # fmt: skip


def check_model(model: Any, what: str = "A generative function was expected.") -> None:
    """Raise `InvalidArgument` unless `model` is a generative function.

    >>> from inference.validation.objects import check_model
    >>> try:
    ...     check_model(lambda: None)
    ... except ValueError as error:
    ...     print(error.what, error.fix)
    A generative function was expected. decorate it with @gen
    """
    if isinstance(model, GenerativeFunction):
        return
    plain = callable(model) and not isinstance(model, type)
    raise errors.InvalidArgument(
        what, where=errors.caller(), given=shown(model), expected="a generative function",
        fix="decorate it with @gen" if plain else "@gen\ndef model(...): ...",
    )  # fmt: skip


def check_proposal(proposal: Any) -> None:
    """Raise `InvalidArgument` unless `proposal` makes choices and has a density."""
    if isinstance(proposal, type) or not all(
        callable(getattr(proposal, name, None)) for name in ("simulate", "assess")
    ):
        check_model(proposal, "A proposal was expected.")


def check_trace(trace: Any) -> None:
    """Raise `InvalidArgument` unless `trace` is a trace."""
    if not isinstance(trace, Trace):
        raise errors.InvalidArgument(
            "A trace was expected.", where=errors.caller(), given=shown(trace),
            expected="what generate, update or regenerate of a target gives",
            fix="trace, log_weight = target.generate()",
        )  # fmt: skip


def check_step(step: Any) -> None:
    """Raise `InvalidArgument` unless `step` may be a step: a function of a weighted value."""
    expected = "a program from a weighted value to one"
    if isinstance(step, type) or hasattr(step, "tuning"):  # a kernel
        raise errors.InvalidArgument(
            "A step was expected.", where=errors.caller(), given=shown(step), expected=expected,
            fix="start(target)" if isinstance(step, type) else "lift(kernel)",
        )  # fmt: skip
    check_callable("A step", step, expected, "start(target), lift(kernel), ...")
