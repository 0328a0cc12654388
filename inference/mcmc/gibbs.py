"""Gibbs sampling of a finite choice by enumeration of its values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import At, Target, Trace, draw, errors
from ppl.addresses import flatten, nest
from ppl.masks import leading
from ppl.program import Path
from ppl.quadrature import elements, outcomes

from ..kernel import Kernel, Stats
from ..recipe import made_again
from ..targets.plates import Plate
from ..targets.single_choice import check_density_known, latent


@made_again
def gibbs(target: Target, address: str | tuple[str, ...]) -> Kernel:
    """Draw each element of a finite choice from its conditional given all else.

    Leaves `target` invariant (Geman and Geman 1984). The densities at all values of an
    element are computed at once. Elements in a `ppl.vmap` that holds all that depends on
    them are conditionally independent, and are drawn all at once (chromatic Gibbs: Gonzalez
    et al. 2011); all others one after the other, in order. In a `scan` or a `vmap` an element
    costs its neighbourhood only, wherever `update` with `At` does.

    Args:
      address: a latent whose elements have finitely many, known values: Bernoulli,
        Categorical, DiscreteUniform, Binomial with a known count, ...; in loops, batches
        (`expand`), branches.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: the choice is observed, or has not finitely many known values; it
        decides which other choices there are; or the model draws without addresses.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import start, unit
    >>> from inference.mcmc.gibbs import gibbs
    >>> from ppl import Target, gen, law, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> kernel = gibbs(target, "fair")
    >>> trace, _ = target.generate({"fair": 1})
    >>> law(lambda: kernel(trace)["fair"])().masses.round(4).tolist()  # p(fair | heads)
    [0.6, 0.4]
    """
    path = latent(target, address)
    values = _values(target, path)
    check_density_known(target, path)
    try:
        plate = Plate.of(target, path)
    except errors.InvalidArgument:
        plate = None
    sweep = _one_by_one(target, path, values) if plate is None else _all_at_once(plate, values)
    return Kernel(
        f"gibbs {errors.show(path)}", lambda _, trace: (sweep(trace), _none()), target=target
    )


def _none() -> Stats:
    return {}


def _values(target: Target, path: Path) -> jax.Array:
    """Everything that an element can be, of shape (number of values,).

    Raises:
      InvalidArgument: that is not finite, or not known before anything runs.
    """
    site = target.sites[path]
    tables = []
    for d in (site.distribution, *site.others):  # a branch may have another
        table = outcomes(d) if elements(d) is not None else None
        if table is None:
            raise errors.InvalidArgument(
                f"{errors.show(path)} cannot be enumerated.",
                where=(f"{errors.show(path)} at {site.source}", errors.caller()),
                given=f"{site.kind} on {site.support}",
                expected="independent elements with finitely many values, known before the "
                "program runs",
                fix="if a count is an argument, declare it: @gen(static_argnames=...); else use mh",
            )
        tables.append(table)
    return jnp.asarray(np.unique(np.concatenate(tables)), site.dtype)


def _drawn(log_densities: jax.Array, values: jax.Array) -> jax.Array:
    """One of the `values` for each row of log densities (..., values)."""
    return values[draw(dist.Categorical(logits=log_densities))]


def _all_at_once(plate: Plate, values: jax.Array):
    """A sweep over the iterations of a plate at once; over elements inside them, in order."""
    path, target = plate.path, plate.target

    def sweep(trace: Trace) -> Trace:
        old = flatten(trace.choices)[path]
        here = _movable(target, trace, path).reshape(plate.size, -1)
        rows = old.reshape(plate.size, -1)

        def column(rows: jax.Array, j: Any) -> tuple[jax.Array, None]:
            def at(value: jax.Array) -> jax.Array:
                return plate.log_densities(trace, rows.at[:, j].set(value).reshape(old.shape))

            new = _drawn(jax.vmap(at)(values).T, values)
            return rows.at[:, j].set(jnp.where(here[:, j], new, rows[:, j])), None

        rows = _in_order(column, rows, rows.shape[1])
        return target.moved(trace, nest({path: rows.reshape(old.shape)}))[0]

    return sweep


def _one_by_one(target: Target, path: Path, values: jax.Array):
    """A sweep over the elements in order."""
    site = target.sites[path]
    size = int(np.prod(site.shape))

    def changed(trace: Trace, e: Any, value: jax.Array) -> tuple[Trace, jax.Array]:
        whole = flatten(trace.choices)[path]
        if not site.axes:
            new: Any = whole.reshape(-1).at[e].set(value).reshape(whole.shape)
        else:  # the row of the outermost loop that has the element
            width = size // site.shape[0]
            row = whole[e // width].reshape(-1).at[e % width].set(value)
            new = At(e // width, row.reshape(site.shape[1:]))
        return target.moved(trace, nest({path: new}))

    def element(trace: Trace, e: Any) -> tuple[Trace, None]:
        here = _movable(target, trace, path).reshape(-1)[e]
        log_ratios = jax.vmap(lambda value: changed(trace, e, value)[1])(values)
        new = _drawn(jnp.where(here, log_ratios, 0.0), values)
        old = flatten(trace.choices)[path].reshape(-1)[e]
        return changed(trace, e, jnp.where(here, new, old))[0], None

    return lambda trace: _in_order(element, trace, size)


def _in_order(step: Any, state: Any, n: int) -> Any:
    """`step(state, i)` for i from 0 to n - 1; without a loop where there is nothing to loop."""
    if n == 1:
        return step(state, 0)[0]
    return jax.lax.scan(step, state, jnp.arange(n))[0]


def _movable(target: Target, trace: Trace, path: Path) -> jax.Array:
    """Whether each element is there and no datum, of the shape of the value."""
    shape = target.sites[path].shape
    flags = jnp.asarray(flatten(trace.present).get(path, True))
    here = jnp.broadcast_to(leading(flags, len(shape)), shape)
    gap = target.gaps.get(path)
    return here if gap is None else here & ~leading(gap.seen, len(shape))
