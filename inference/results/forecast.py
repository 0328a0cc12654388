"""Forecasts: what was drawn and observed is kept, and what is new is drawn after it.

A series that was observed to step T, and a model whose arguments make it longer, say what comes
next: p(new | kept; args). Running the model forward with the old elements in their places draws
that, if nothing that is kept depends on what is new. Then each kept element has the density that
it has in the target, whatever is drawn; so densities that differ show what is no forecast: a loop
that runs backwards, arguments whose past has changed, a parameter that depends on the length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Masked, Site, Target, dependencies, errors
from ppl.addresses import flatten
from ppl.distributions import elementwise, log_density
from ppl.execute import fresh
from ppl.masks import leading
from ppl.program import CHOICE, DRAW, FACTOR, Choice, Factor, Path
from ppl.walk import Result, Rule, scalar, walk

WAYS = ("kept", "redrawn")
Sites = Mapping[Path, Site]


def goes_on(target: Target, args: tuple) -> bool:
    """Whether `args` make something longer that depends on its own past.

    Latents, new addresses, the elements of one value (a Gaussian process), and observed choices
    with observed ones among those that they depend on. Observations that are longer, but
    independent of each other given the latents, are new data.
    """
    before, after = target.sites, target.model.sites(*args)
    grown = [path for path in before if path in after and _longer(before[path], after[path])]
    if after.keys() - before.keys() or any(path not in target.observed for path in grown):
        return True
    if any(_events_grow(before[path], after[path]) for path in grown):
        return True
    if grown and _draws(target):  # what they share is not known
        return True
    graph = dependencies(target.model, *args) if grown else None
    return graph is not None and any(
        above in target.observed for path in grown for above in graph.ancestors(path)
    )


def may_appear(target: Target) -> bool:
    """Whether steps of a series of fixed shape may be made or not, as those of an `unfold`."""
    return any(
        site.conditional and any(kind == "scan" for kind, _ in site.axes)
        for path, site in target.sites.items()
        if path in target.observed
    )


def extended(site: Site, longer: Site, value: Any) -> Masked:
    """A value of `site` in the first places of one of `longer`."""
    keep = jnp.ones(_element_shape(site), bool)
    return Masked(_padded(value, longer.shape), _padded(keep, _element_shape(longer)))


def continued(target: Target, args: tuple) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The random program that draws what is new given latents and observations.

    It returns `values`, the observed and the new choices and the latents that go on, by path;
    `changed`, of how many kept elements the density is not the target's, by path, with that of
    the factors at `()`; and `appeared`, whether an observed step is there that was not.

    Raises:
      InvalidArgument: what is kept cannot be told from what is new.
      ShapeError: something is shorter than it was.
    """
    old = target.model._prepare(target.args, {})
    new = target.model._prepare(tuple(args), {})
    _check(target, new.sites)
    seen = {path: _seen(target, path) for path in target.observed}
    grown = [p for p in target.sites if target.sites[p].shape != new.sites[p].shape]
    shown = [p for p in new.sites if p in target.observed or p in grown or p not in target.sites]

    def program(latents: Mapping[str, Any]) -> dict[str, Any]:
        given = {**target.observed_values, **flatten(latents)}
        first = {path: (given[path], seen.get(path)) for path in target.sites}
        _, was, sums = walk(old.staged.program, old.operands, _Keep(), first)
        kept = {path: _kept(target.sites[path], seen.get(path), was) for path in target.sites}
        second = {}
        for path, site in target.sites.items():
            keep, after = kept[path], new.sites[path]
            if path not in grown and not site.conditional and seen.get(path) is None:
                keep = None  # all of it, and nothing is drawn
            else:
                keep = _padded(keep, _element_shape(after))
            second[path] = _padded(given[path], after.shape), keep
        _, now, more = walk(new.staged.program, new.operands, _Keep(), second)
        changed = {
            path: (kept[path] & ~_same(site, new.sites[path], path, was, now)).sum()
            for path, site in target.sites.items()
        }
        factors = [jnp.asarray(s.get("factors", 0.0)) for s in (sums, more)]
        changed[()] = (~_close(*factors)).astype(int)
        here = [_present(new.sites[p], p, now) for p in target.observed]
        before = [_present(target.sites[p], p, was) for p in target.observed]
        appeared = [jnp.any(a & ~_padded(b, a.shape)) for a, b in zip(here, before, strict=True)]
        values = {path: now["values"][path] for path in shown}
        return {"values": values, "changed": changed, "appeared": jnp.any(jnp.array(appeared))}

    return program


def goes_beyond(target: Target, path: Path, after: Sites) -> bool:
    """Whether a choice is longer in some axes, shorter in none, and one value no larger."""
    a, b = target.sites[path], after[path]
    if len(a.shape) != len(b.shape) or a.shape == b.shape or _events_grow(a, b):
        return False
    return all(y >= x for x, y in zip(a.shape, b.shape, strict=True))


def check_unchanged(target: Target, changed: Mapping[Path, Any]) -> None:
    """Raise `InvalidArgument` where the density of something kept is not the target's."""
    bad = {path: int(np.max(count)) for path, count in changed.items() if np.any(count)}
    if not bad:
        return
    path, count = next((item for item in bad.items() if item[0]), ((), 1))
    sites = target.sites
    n = math.prod(_element_shape(sites[path])) if path else 1
    raise errors.InvalidArgument(
        f"The past of {errors.show(path)} has another density at these arguments."
        if path
        else "What the model's factors add is not what they add in the target.",
        where=(f"{errors.show(path)} at {sites[path].source}", errors.caller())
        if path
        else (errors.defined(target.model.fn), errors.caller()),
        given=f"{count} of {n} kept elements changed" if path else "factors of what is new",
        expected="arguments that begin as the target's do, and a model in which "
        "nothing kept depends on what is new",
        fix="keep the first rows of the arguments, and loops that run forward; "
        'or draw everything anew: past="redrawn"',
    )


class _Keep(Rule):
    """Keeps what is given where its flags are true, and draws the rest.

    The inputs are `(value, flags)` by path, a flag for each independent element, or None for
    all. Puts out the values, the densities of what is kept, and what is present; the sum is
    that of the factors.
    """

    handles = frozenset({CHOICE, FACTOR})
    sums = ("factors",)

    def visit(self, step: Any, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            return [], {}, {"factors": scalar(args[0])}
        assert isinstance(step, Choice)
        found: dict[str, Any] = {"present": {step.path: True}}
        given = inputs.get(step.path)
        if given is None:
            value = fresh(step, args)
        else:
            value, keep = jnp.asarray(given[0], step.spec.dtype), given[1]
            if keep is not None:
                flags = keep.reshape(keep.shape + (1,) * (value.ndim - keep.ndim))
                value = jnp.where(flags, value, fresh(step, args))
            density = log_density(elementwise(step.spec.tree.unflatten(args)), value)
            found["densities"] = {step.path: density}
        found["values"] = {step.path: value}
        return [value], found, {}


def _check(target: Target, after: Sites) -> None:
    """Raise unless each old element has a place, and elements that are new are of their own."""
    if _draws(target):
        raise errors.InvalidArgument(
            f"{target.model.name} draws without addresses: what it drew in the past is not known.",
            where=(errors.defined(target.model.fn), errors.caller()),
            expected="a model whose choices all have addresses",
            fix='name the draw: sample("address", distribution); or past="redrawn"',
        )
    for path, site in target.sites.items():
        here = (f"{errors.show(path)} at {site.source}", errors.caller())
        if path not in after:
            raise errors.InvalidArgument(
                f"The model does not make {errors.show(path)} at these arguments.",
                where=here, given="choices " + "; ".join(errors.show(p) for p in after),
                expected="the choices of the target, and more of them",
                fix="predict at arguments that only add to the target's",
            )  # fmt: skip
        for d in (site.distribution, *site.others):
            if (*_sizes(site), *elementwise(d).batch_shape) != _element_shape(site):
                raise errors.BranchMismatch(
                    f"Branches split {errors.show(path)} into other independent elements.",
                    where=here, given=f"elements of shape {_element_shape(site)} and others",
                    expected="the same elements in each branch",
                    fix='give them different addresses, or past="redrawn"',
                )  # fmt: skip
        sizes, more = site.shape, after[path].shape
        if len(sizes) != len(more) or any(b < a for a, b in zip(sizes, more, strict=True)):
            raise errors.ShapeError(
                f"{errors.show(path)} has no room for its past at these arguments.",
                where=here, given=f"shape {more}", expected=f"{sizes}, or longer",
                fix='arguments that add to the target\'s; or all anew: past="redrawn"',
            )  # fmt: skip
        if _events_grow(site, after[path]):
            raise errors.InvalidArgument(
                f"{errors.show(path)} is one value, which is not drawn on from its first elements.",
                where=here, given=f"{site.kind} of shape {sizes}, and {more} at these arguments",
                expected="a series of choices, one for each step of a loop",
                fix="write it as a jax.lax.scan of its steps; or draw all of it anew: "
                'past="redrawn"',
            )  # fmt: skip


def _draws(target: Target) -> bool:
    """Whether the model draws without addresses."""
    return DRAW in target.model._prepare(target.args, {}).staged.program.effects


def _longer(site: Site, after: Site) -> bool:
    """Whether some axis is longer, or there are more axes."""
    a, b = site.shape, after.shape
    return len(b) > len(a) or any(y > x for x, y in zip(a, b, strict=False))


def _sizes(site: Site) -> tuple[int, ...]:
    return tuple(size for _, size in site.axes)


def _element_shape(site: Site) -> tuple[int, ...]:
    """The axes of independent elements: those of the loops, then of the batch."""
    return (*_sizes(site), *elementwise(site.distribution).batch_shape)


def _events_grow(site: Site, after: Site) -> bool:
    return site.shape[len(_element_shape(site)) :] != after.shape[len(_element_shape(after)) :]


def _padded(x: Any, shape: tuple[int, ...]) -> jax.Array:
    """`x` in the first places of an array of zeros."""
    x = jnp.asarray(x)
    if x.shape == tuple(shape):
        return x
    return jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, shape, strict=True)])


def _seen(target: Target, path: Path) -> jax.Array | None:
    """Which elements of an observed choice are known, by data or by draws; None for all."""
    value, site = target.observed[path], target.sites[path]
    if not isinstance(value, Masked) or value.impute:
        return None
    shape = _element_shape(site)
    if jnp.ndim(value.mask) > len(shape):
        raise errors.InvalidArgument(
            f"Of vectors of {errors.show(path)} parts are known, which no forecast keeps.",
            where=(f"{errors.show(path)} at {site.source}", errors.caller()),
            given=f"a mask of shape {jnp.shape(value.mask)}",
            expected=f"flags of whole vectors, of shape {shape}",
            fix="impute what is missing: Masked(value, mask, impute=True)",
        )
    return _spread(value.mask, shape)


def _spread(flags: Any, shape: tuple[int, ...]) -> jax.Array:
    """Flags of leading axes, for all elements."""
    return jnp.broadcast_to(leading(jnp.asarray(flags), len(shape)), shape)


def _present(site: Site, path: Path, found: Mapping[str, Any]) -> jax.Array:
    return _spread(found.get("present", {}).get(path, False), _element_shape(site))


def _kept(site: Site, seen: jax.Array | None, was: Mapping[str, Any]) -> jax.Array:
    """Which elements are kept: those that were there, and were not missing."""
    there = _present(site, site.path, was)
    return there if seen is None else there & seen


def _same(site: Site, after: Site, path: Path, was: Any, now: Any) -> jax.Array:
    """At which old elements the density now is what it was."""
    first = tuple(slice(0, n) for n in _element_shape(site))
    there = _present(after, path, now)[first]
    if path not in now.get("densities", {}):
        return there
    return there & _close(was["densities"][path], now["densities"][path][first])


def _close(a: jax.Array, b: jax.Array) -> jax.Array:
    """Equal to a third of the digits: parameters that are sums over the steps round otherwise."""
    bound = jnp.finfo(a.dtype).eps ** (1 / 3) * (1 + abs(a))
    return (a == b) | (abs(a - b) <= bound) | (jnp.isnan(a) & jnp.isnan(b))
