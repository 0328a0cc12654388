"""Predictions: what the model says of data, before and after it has seen some."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ppl import GenerativeFunction, Masked, Target, errors, seed
from ppl.addresses import flatten, nest, not_found
from ppl.border import entering
from ppl.labels import Labels
from ppl.program import Path
from ppl.randomness import checked_key

from ..validation.objects import check_target
from ..validation.same import check_same
from ..validation.settings import check_count, shown
from .draws import Draws, check_draws
from .each_draw import Room, each_draw, mapped, over_draws
from .forecast import (
    WAYS,
    check_unchanged,
    continued,
    extended,
    goes_beyond,
    goes_on,
    may_appear,
)
from .particles import Particles
from .streamed import run_into


def posterior_predictive(
    key: jax.Array,
    draws: Draws | Particles,
    target: Target | None = None,
    *,
    args: tuple | None = None,
    past: str | None = None,
    batch: int | None = None,
    to: str | os.PathLike | None = None,
) -> Any:
    """New data given the latents of each draw: replicates, data at new arguments, or a forecast.

    A draw of p(y' | latents; args) for each draw of the latents, so that together they
    are of the posterior predictive. Every element is redrawn, those that a mask leaves
    out too. Where `args` puts latents into a branch in which they were absent, they
    come from the model.

    A series that `args` make longer is a *forecast*: what was observed and drawn stays, and the
    steps that follow are drawn given it, p(new | latents, observations; args). What was observed
    is then in the first places of each array, and latents that go on (states, groups) are
    given, too. So it is where what is longer depends on its own past, or is latent. Data that
    are independent given the latents (a regression at more points) are all new. `past` decides
    otherwise.

    Of weighted particles they are for 1000 latents that are drawn by weight (`resampled`), and so
    count alike; other numbers by `posterior_predictive(key, particles.resampled(other, n))`.

    Args:
      key: one PRNG key; draw i takes key i of its split.
      target: the target of the draws, where they do not carry it (`draws.target`).
      args: other arguments of the model: new covariates, more steps.
      past: "kept" for a forecast, "redrawn" for data that are all new.
      batch: how many draws are made at once; the result does not depend on it.
      to: a netCDF file ("new.nc") that the predictions go to as they are made, in the group
        `posterior_predictive`, with the labels of the draws: they are never whole in memory.

    Returns:
      nested dict of numpy arrays (chains, draws, *shape of the choice); with `to`, its path.

    Raises:
      MissingPackage: `to` needs `pip install 'giry[arviz]'`.
      InvalidArgument: nothing is observed, there is no target or no draw, or no forecast: what
        would be kept depends on what is new, or `args` change it.
      AddressNotFound, MissingChoice: the draws are not of the target's latents.
      ShapeError: with `args`, a latent is shorter than it was.

    >>> import jax, jax.numpy as jnp, numpy as np, numpyro.distributions as dist
    >>> from inference import Draws
    >>> from inference.results.predictive import posterior_predictive
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coins(n):
    ...     p = sample("p", dist.Uniform(0.0, 1.0))
    ...     sample("heads", dist.Bernoulli(p * n))
    >>> target = Target(coins, (jnp.ones(3),), {"heads": jnp.array([1, 1, 0])})
    >>> draws = Draws({"p": np.array([[0.0, 1.0]])}, target=target)
    >>> posterior_predictive(jax.random.key(0), draws)["heads"].tolist()
    [[[0, 0, 0], [1, 1, 1]]]
    >>> posterior_predictive(jax.random.key(0), draws, args=(jnp.ones(2),))["heads"].tolist()
    [[[0, 0], [1, 1]]]
    >>> @gen(static_argnames="n")
    ... def doubling(n):
    ...     def step(x, _):
    ...         return sample("y", dist.Delta(2 * x)), None
    ...     jax.lax.scan(step, sample("x", dist.Normal(0.0, 1.0)), None, length=n)
    >>> series = Target(doubling, (2,), {"y": jnp.array([6.0, 12.0])})
    >>> draws = Draws({"x": np.array([[3.0]])}, target=series)
    >>> posterior_predictive(jax.random.key(0), draws, args=(4,))["y"].tolist()
    [[[6.0, 12.0, 24.0, 48.0]]]
    """
    if isinstance(draws, Particles):
        key, other = jax.random.split(checked_key(key))
        draws = draws.resampled(other)
    target = target_of(draws, target)
    if args is not None and not isinstance(args, (tuple, list)):
        raise errors.InvalidArgument(
            "The arguments of the model are a tuple.", where=errors.caller(), given=shown(args),
            expected="args=(x, ...)", fix="wrap the argument: args=(x,)",
        )  # fmt: skip
    observed_of(target)
    keys = jax.random.split(checked_key(key), math.prod(draws.shape))
    if past not in (None, *WAYS):
        raise errors.InvalidArgument(
            "The past of a prediction is kept or drawn anew.", where=errors.caller(),
            given=repr(past), expected='"kept" or "redrawn"', fix='past="kept" for a forecast',
        )  # fmt: skip
    model = target.model
    arguments = target.args if args is None else entering(tuple(args), {}, model.fixed, model.fn)[0]
    size = _elements(target.model, arguments)
    forecast = goes_on(target, arguments) if past is None else past == "kept"
    maybe = not forecast and past is None and args is not None and may_appear(target)
    if maybe:  # by what is made it is told; of one draw in each chunk it may appear
        each = each_draw(_appeared, target, arguments, draws, size, batch, keys)
        forecast = bool(each.any())

    def run(room: Room | None) -> dict[str, Any]:
        if not forecast:
            return over_draws(_replicated, target, arguments, draws, size, batch, keys, room)
        found = each_draw(_continued, target, arguments, draws, size, batch, keys, room)
        check_unchanged(target, found["changed"])
        order = target.model.sites(*arguments)
        return nest({path: found["values"][path] for path in order if path in found["values"]})

    labels = Labels(draws.labels.dims, {} if args is not None else _along_observed(draws, target))
    return run_into(to, "posterior_predictive", draws.shape, labels, run)


def _along_observed(draws: Draws, target: Target) -> dict[str, Any]:
    """The labels of axes that observed choices have."""
    dims = draws.labels.dims
    used = {name for path in target.observed for name in dims.get(path, ())}
    return {name: x for name, x in draws.labels.coords.items() if name in used}


def _continued(target: Target, args: tuple) -> Callable:
    return seed(continued(target, args))


def _appeared(target: Target, args: tuple) -> Callable:
    program = _continued(target, args)
    return lambda key, latents: program(key, latents)["appeared"]


def _replicated(target: Target, args: tuple) -> Callable:
    return seed(replicate(target, args))


def replicate(target: Target, args: tuple) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The random program that draws the observed choices given latents: p(y' | latents; args).

    Latents that are longer at these arguments go on after what they were.

    Raises:
      InvalidArgument: nothing is observed.
    """
    observed, after = observed_of(target), target.model.sites(*args)
    conditional = [path for path in target.latents if target.sites[path].conditional]
    longer = [path for path in target.latents if path in after and goes_beyond(target, path, after)]

    def program(latents: Mapping[str, Any]) -> dict[str, Any]:
        known: dict[Path, Any] = flatten(latents)
        given = {path: x for path, x in known.items() if path not in target.observed}
        if conditional:  # in branches not taken they are fillers: drawn, where now needed
            present = flatten(target.at(latents)[0].present)
            given |= {path: Masked(given[path], present[path]) for path in conditional}
        for path in longer:
            given[path] = extended(target.sites[path], after[path], given[path])
        trace, _ = target.model.generate(nest(given), *args)
        values = flatten(trace.choices)
        return nest({path: values[path] for path in observed})

    return program


def prior_predictive(
    key: jax.Array, target: Target, n: int = 1000, *, batch: int | None = None,
    to: str | os.PathLike | None = None,
) -> Any:  # fmt: skip
    """`n` independent draws of all choices from the model, the observations ignored.

    Args:
      key: one PRNG key.
      n: how many draws.
      batch: how many are made at once; the result does not depend on it.
      to: a netCDF file that the draws go to as they are made, in the group `prior`.

    Returns:
      nested dict of numpy arrays (1, n, *shape of the choice): one chain; with `to`, its path.

    Raises:
      CannotSimulate: the model scores with `factor` or `observe`.
      InvalidArgument: `n` is less than 1.

    >>> import jax, numpyro.distributions as dist
    >>> from inference.results.predictive import prior_predictive
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("same", dist.Bernoulli(1.0 * fair))
    >>> prior = prior_predictive(jax.random.key(0), Target(model, (), {"same": 1}), 5)
    >>> prior["fair"].shape, (prior["fair"] == prior["same"]).tolist()
    ((1, 5), [[True, True, True, True, True]])
    """
    check_target(target)
    check_count("n", n)
    keys, size = jax.random.split(checked_key(key), n), _elements(target.model, target.args)

    def run(room: Room | None) -> dict[Any, Any]:
        found = flatten(mapped(_simulated, target, target.args, (keys,), size, batch, room))
        if room is not None:
            return found
        return nest({path: found[path][None] for path in target.sites})

    return run_into(to, "prior", (1, n), target.labels, run)


def _simulated(target: Target, args: tuple) -> Callable:
    return seed(lambda: target.model.simulate(*args).choices)


# -- what the draws are of -----------------------------------------------------------------


def target_of(draws: Draws, target: Target | None) -> Target:
    """The target of the draws, whose latents they must be.

    Raises:
      InvalidArgument: there is none, or the draws were made of another.
      AddressNotFound, MissingChoice: the draws are not of the target's latents.
    """
    check_draws(draws)
    if target is not None:
        check_target(target)
        fix = "leave the target out; data that were left out of the fit, and their covariates: "
        fix += "Draws(draws.choices, target=Target(model, args, observations))"
        check_same("These draws", draws.target, target, "the target that is given", fix)
    target = draws.target if target is None else target
    if target is None:
        raise errors.InvalidArgument(
            "These draws do not carry their target.",
            where=errors.caller(),
            given=repr(draws),
            expected="draws of sample_posterior, or a target",
            fix="give it: target=Target(model, args, observations)",
        )
    values = flatten(draws.choices)
    for path in values:
        if path not in target.latents:
            raise not_found(path, target.latents, "The draws", (target.model.name,))
    for path in target.latents:
        if path not in values:
            raise errors.MissingChoice(
                f"The draws have no values of the latent {errors.show(path)}.",
                where=(f"{errors.show(path)} at {target.sites[path].source}", errors.caller()),
                expected="draws of " + "; ".join(errors.show(p) for p in target.latents),
                fix="use the draws that sample_posterior gave, with all latents",
            )
    return target


def observed_of(target: Target) -> list[Path]:
    """The observed addresses in the order of the model.

    Raises:
      InvalidArgument: there is none.
    """
    observed = [path for path in target.sites if path in target.observed]
    if not observed:
        raise errors.InvalidArgument(
            "The target observes no choice of its model.",
            where=errors.caller(),
            given=repr(target),
            expected="observations by address (observe(...) inside the model has none)",
            fix='sample("y", ...) in the model, and Target(model, args, {"y": data})',
        )
    return observed


def _elements(model: GenerativeFunction, args: tuple) -> int:
    """How many numbers the choices of one trace are."""
    return sum(math.prod(site.shape) for site in model.sites(*args).values())
