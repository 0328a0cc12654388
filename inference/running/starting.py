"""Where chains start: in the unconstrained space, from the prior, or at given values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import Target, Trace, draw, errors, seed
from ppl.addresses import flatten, nest
from ppl.border import arrived
from ppl.estimates import estimating_draw
from ppl.program import CHOICE, FACTOR, Factor
from ppl.walk import Result, Rule, walk

from ..mcmc.space import Space

WAYS = ("uniform", "prior")


def initial_trace(target: Target, how: str, given: Mapping[str, Any]) -> Trace:
    """A trace of the target to start from: a random program.

    `"uniform"` draws each continuous latent uniformly from (-2, 2) in its unconstrained
    space, given the others, as Stan does; discrete latents and those in branches, and
    with `"prior"` all latents, come from the model. `given` latents have their values.

    Raises:
      CannotSimulate: a latent that comes from the model has an improper prior.
    """
    values = flatten(given)
    if how == "uniform":
        free = [p for p in target.latents if p not in values and _coordinates(target, p)]
        coordinates = target.coordinates(free)
        z = {path: _uniform(shape, target, path) for path, shape in coordinates.shapes.items()}
        made, _ = coordinates.constrain(z, {**target.observed_values, **values})
        # what is not always there stays with the model
        values |= {path: x for path, x in made.items() if not target.sites[path].conditional}
    return target.generate(nest(values))[0]


def _uniform(shape: tuple[int, ...], target: Target, path: tuple) -> jax.Array:
    dtype = target.sites[path].dtype
    return draw(dist.Uniform(jnp.full(shape, -2.0, dtype), jnp.full(shape, 2.0, dtype)))


def given_values(
    target: Target, initial: str | Mapping[str, Any] | None, chains: int
) -> tuple[str, dict[str, Any]]:
    """How to start, and the given values with a chain axis in front.

    Raises:
      InvalidArgument: `initial` is neither a way to start nor a mapping.
      AddressNotFound, ShapeError, DtypeError, SupportError: a value does not fit.
    """
    if initial is None:
        return "uniform", {}
    if isinstance(initial, str) and initial in WAYS:
        return initial, {}
    if not isinstance(initial, Mapping):
        raise errors.InvalidArgument(
            "There is no such way to start.", where=errors.caller(), given=repr(initial),
            expected='"uniform", "prior", or a nested dict of values', fix='initial="prior"',
        )  # fmt: skip
    values = {}
    target._only_latents(initial, "The initial value")
    for path, value in flatten(initial).items():
        site, given = target.sites.get(path), arrived(value)
        value = value if given is None or isinstance(value, list) else given
        shape = () if given is None else np.shape(given)
        each = site is not None and shape == (chains, *site.shape)
        rows = list(value) if each else [value]
        for row in rows:  # checked as any constraint is, before anything compiles
            target.model._prepare(target.args, {}).check(nest({path: row}), "The initial value")
        array = jnp.asarray(value, target.sites[path].dtype)
        values[path] = array if each else jnp.broadcast_to(array, (chains, *array.shape))
    return "uniform", nest(values)


def _coordinates(target: Target, path: tuple) -> bool:
    """Whether a latent is always there and has unconstrained coordinates."""
    if target.sites[path].conditional:
        return False
    try:
        target.coordinates([path])
    except errors.InvalidArgument:  # discrete, or a support without a bijection
        return False
    return True


def not_finite(target: Target, trace: Trace, chain: str, attempts: int) -> errors.NonFiniteStart:
    """The error for a start without a finite density and gradient, with a row per address."""
    rows = []
    key = jax.random.key(0)  # of densities that are estimated
    for path in target.sites:
        value = np.asarray(flatten(trace.choices)[path])
        density = float(seed(target.model.project)(key, trace, path))
        gradient = ""
        known = estimating_draw(target) is None
        if known and path in target.latents and _coordinates(target, path):
            space = Space(target, path)
            slope = seed(jax.grad(space.log_density(trace)))(key, space.position(trace))
            gradient = "finite" if bool(jnp.isfinite(slope).all()) else "NOT FINITE"
        support = target.sites[path].support
        rows.append((errors.show(path), _short(value), support, density, gradient))
    added = _factors(target, trace, key)
    bad = [row for row in (*added, *rows) if not np.isfinite(row[3]) or row[4] == "NOT FINITE"]
    rows += added
    return errors.NonFiniteStart(
        f"{chain.capitalize()} found no start with a finite log density and gradient.",
        where=errors.caller(),
        given=f"{attempts} attempts; the last one is shown",
        expected="a point of positive density",
        fix="correct what is given to the factor, or start where it is finite: initial={...}"
        if bad and bad[0] in added
        else f"give values to start from: initial={{{(bad or rows)[0][0].split(', ')[0]}: ...}}, "
        "or correct the model where the density is not finite",
        rows=bad + [row for row in rows if row not in bad],
    )


class _Factors(Rule):
    """Puts out what each factor adds; all choices have values."""

    handles = frozenset({CHOICE, FACTOR})

    def visit(self, step: Any, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            return [], {"factors": {(*step.name, step.source): args[0]}}, {}
        return [jnp.asarray(inputs[step.path], step.spec.dtype)], {}, {}


def _factors(target: Target, trace: Trace, key: jax.Array) -> list[tuple]:
    """A row for each `factor` and `observe` of the model."""
    run = target.model._prepare(target.args, {})
    program, values = run.staged.program, flatten(trace.choices)
    found = seed(lambda: walk(program, run.operands, _Factors(), values)[1])(key)
    return [
        (f"factor at {source}", _short(np.asarray(x)), "log weights", float(np.sum(x)), "")
        for (*_, source), x in found.get("factors", {}).items()
    ]


def _short(value: np.ndarray) -> str:
    if value.size <= 3:
        return np.array2string(value, precision=4, separator=", ")
    return f"{value.dtype}{list(value.shape)} from {value.min():.4g} to {value.max():.4g}"
