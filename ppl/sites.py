"""What is known of a model's choices before anything runs, and checks against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import errors
from .addresses import At, Masked, emptied, flatten, not_found
from .border import arrived, at, fitted
from .language import check_support
from .masks import check_mask, known_mask
from .program import Branch, Choice, Loop, Map, Path, Program, Spec, bodies
from .tables import advice, instead, missing


@dataclass(frozen=True)
class Site:
    """One choice of a model.

    `shape` includes the axes of the loops around it, outermost first, and `axes`
    names them (`("scan", 10)`, `("vmap", 3)`); `conditional` says that it lies in
    a branch of a `cond` that not every branch shares; `source` is `file:line`.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import Site, gen, sample
    >>> heads = lambda p: sample("heads", dist.Bernoulli(p))
    >>> model = gen(lambda: jax.vmap(heads)(jnp.array([0.2, 0.5, 0.9])))
    >>> site = model.sites()[("heads",)]
    >>> isinstance(site, Site), site.kind, site.shape, site.axes, site.conditional
    (True, 'BernoulliProbs', (3,), (('vmap', 3),), False)
    """

    path: Path
    spec: Spec = field(repr=False)
    axes: tuple[tuple[str, int], ...]
    conditional: bool
    source: str
    distribution: Any = field(repr=False, default=None)
    others: tuple[Any, ...] = field(repr=False, default=())  # the other branches' distributions

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.axes) + self.spec.shape

    @property
    def dtype(self) -> Any:
        return self.spec.dtype

    @property
    def support(self) -> str:
        return self.spec.support

    @property
    def kind(self) -> str:
        return self.spec.kind

    def __str__(self) -> str:
        note = " (conditional)" if self.conditional else ""
        dtype = np.dtype(self.dtype).name
        return (
            f"{errors.show(self.path)}: {self.kind} {dtype}{list(self.shape)} "
            f"on {self.support}{note} at {self.source}"
        )


@lru_cache(maxsize=1024)
def sites(program: Program) -> dict[Path, Site]:
    """The choices of a program by address, in the order of the program.

    Raises:
      DuplicateAddress: two choices that can both happen share an address.
      BranchMismatch: branches make the same choice with another shape, dtype or kind of support.
      PrefixClash: an address is also the prefix of another.
    """
    found = _collect(program)
    for path, site in found.items():
        for n in range(1, len(path)):
            if path[:n] in found:
                raise errors.PrefixClash(
                    f"{errors.show(path[:n])} is a choice and a prefix of {errors.show(path)}.",
                    where=(found[path[:n]].source, site.source),
                    fix="rename one of them",
                )
    return found


def _collect(program: Program) -> dict[Path, Site]:
    found: dict[Path, Site] = {}
    for step in program.steps:
        if isinstance(step, Choice):
            leaves = [
                program.constants.get(slot, aval)
                for slot, aval in zip(step.inputs, step.spec.leaves, strict=True)
            ]
            d = step.spec.tree.unflatten(leaves)
            more = {step.path: Site(step.path, step.spec, (), False, step.source, d)}
        elif isinstance(step, (Loop, Map)):
            axis = ("scan", step.length) if isinstance(step, Loop) else ("vmap", step.size)
            inner = _collect(step.body)
            more = {p: replace(site, axes=(axis, *site.axes)) for p, site in inner.items()}
        elif isinstance(step, Branch):
            more = _join([_collect(branch) for branch in step.branches])
        else:
            more = {}
            for body in bodies(step):
                more.update(_collect(body))
        for path, site in more.items():
            if path in found:
                raise _duplicate(found[path], site)
        found.update(more)
    return found


def _duplicate(first: Site, second: Site) -> errors.DuplicateAddress:
    """The error; its fix is for what makes one line run twice, if it is one line."""
    name, kinds = errors.show(first.path), [kind for kind, _ in first.axes]
    fix = (
        "rename one of them, or call a generative function under an address: "
        'sample("sub", other(args))'
    )
    same = first.source == second.source
    if same and "scan" in kinds and len(second.axes) == len(first.axes) - 1:
        fix = (
            "jax.lax.map with a batch_size that leaves a remainder runs it in two loops: take a "
            "batch_size that divides the length, or jax.vmap"
        )
    return errors.DuplicateAddress(
        f"Two choices have the address {name}.",
        where=(first.source, second.source),
        given=name,
        expected="one choice per address",
        fix=fix,
    )


def _join(branches: list[dict[Path, Site]]) -> dict[Path, Site]:
    joined: dict[Path, Site] = {}
    for branch in branches:
        for path, site in branch.items():
            other = joined.get(path)
            if other is None:
                joined[path] = site
                continue
            mine = (site.shape, site.dtype, _kind_of_support(site))
            theirs = (other.shape, other.dtype, _kind_of_support(other))
            if mine != theirs:
                raise errors.BranchMismatch(
                    f"Two branches make the choice {errors.show(path)} differently.",
                    where=(other.source, site.source),
                    given=f"{other.kind} {other.dtype}{list(other.shape)} on {other.support} and "
                    f"{site.kind} {site.dtype}{list(site.shape)} on {site.support}",
                    expected="the same shape, dtype and support",
                    fix="give them different addresses",
                )
            more = (*other.others, site.distribution, *site.others)
            joined[path] = replace(other, others=more)
    for path, site in joined.items():
        everywhere = all(path in branch for branch in branches)
        if not everywhere or any(branch[path].conditional for branch in branches):
            joined[path] = replace(site, conditional=True)
    return joined


def _kind_of_support(site: Site) -> str:
    return site.support.split("(")[0]


# -- checking values against sites ---------------------------------------------------------


def check_values(
    known: Mapping[Path, Site],
    choices: Mapping[str, Any],
    what: str,
    where: Iterable[str] = (),
    filler: bool = False,
) -> dict[Path, Any]:
    """`choices` by path, each checked against its choice: address, shape, dtype, support.

    Values that are still traced are checked as far as shape and dtype go. With
    `filler`, zeros stand for choices in branches not taken, and always pass.

    Raises:
      AddressNotFound, ShapeError, DtypeError, SupportError.
    """
    found = flatten(choices)
    checked = {}
    for path in emptied(choices):
        below = any(p[: len(path)] == path for p in known)
        if path in known or not below:  # it gives nothing, at a choice or where there is none
            found[path] = {}
    for path, value in found.items():
        site = known.get(path)
        if site is None:
            below = [p for p in known if p[: len(path)] == path]
            if below:
                raise errors.AddressNotFound(
                    f"{what} gives one value for {errors.show(path)}, "
                    "which is a generative function's address.",
                    where=errors.caller(),
                    given=f"a value of type {type(value).__name__}",
                    expected="a dict with " + ", ".join(errors.show(p[len(path) :]) for p in below),
                    fix=f"{{{errors.show(path[-1:])}: {{{errors.show(below[0][-1:])}: ...}}}}",
                )
            raise not_found(path, known, what, where)
        checked[path] = check_value(site, value, what, filler=filler)
    return checked


def check_value(site: Site, value: Any, what: str, mask: Any = None, filler: bool = False) -> Any:
    """`value` in the dtype of `site`, after checking it (its support where `mask` is true)."""
    if isinstance(value, At):
        element = _element(site)
        if isinstance(value.value, Masked):
            raise errors.InvalidArgument(
                f"{what} gives {errors.show(site.path)} a part of one element.",
                where=(f"{errors.show(site.path)} at {site.source}", errors.caller()),
                given="At(index, Masked(value, mask))",
                expected="a whole element",
                fix="give Masked(value, mask) of the whole choice, true in that part alone",
            )
        return At(jnp.asarray(value.index), check_value(element, value.value, what))
    if isinstance(value, Masked):
        mask = check_mask(site, value.mask)
        if not isinstance(value.impute, bool):
            raise errors.InvalidArgument(
                f"Whether {errors.show(site.path)} is imputed is yes or no.",
                where=(f"{errors.show(site.path)} at {site.source}", errors.caller()),
                given=f"impute={value.impute!r}", expected="True or False", fix="impute=True",
            )  # fmt: skip
        checked = check_value(site, value.value, what, value.mask)
        return Masked(checked, known_mask(site, value.mask) if value.impute else mask, value.impute)
    name = errors.show(site.path)
    places = (f"{name} at {site.source}", errors.caller())
    given, value = value, arrived(value)
    if value is None:
        raise errors.DtypeError(
            f"{what} gives {name} something that is no array.",
            where=places,
            given=f"{type(given).__name__}: {given!r}",
            expected=f"an array of {np.dtype(site.dtype)}{list(site.shape)}",
            fix=advice(given, observed=True)
            or "give a number or an array, or leave the address out",
        )
    if jnp.shape(value) != site.shape:
        axes = "".join(f", {kind} axis of {size}" for kind, size in site.axes)
        raise errors.ShapeError(
            f"{what} gives {name} another shape than its choice has.",
            where=places,
            given=f"shape {jnp.shape(value)}",
            expected=f"shape {site.shape} ({site.kind}{axes})",
            fix=f"reshape it: jnp.reshape(value, {site.shape})"
            if np.prod(jnp.shape(value)) == np.prod(site.shape)
            else "check the data against the model's loops",
        )
    gone = missing(given)
    if gone is not None:
        raise errors.SupportError(
            f"{what} gives {name} a column with missing values.", where=places,
            given=f"missing{at(gone)}", expected="numbers", fix=instead(observed=True),
        )  # fmt: skip
    if not _casts(value, site.dtype, isinstance(given, (list, tuple))):
        raise errors.DtypeError(
            f"{what} gives {name} another dtype than its choice has.",
            where=places,
            given=str(jnp.result_type(value)),
            expected=str(np.dtype(site.dtype)),
            fix=f"cast it: jnp.asarray(value, '{np.dtype(site.dtype).name}')",
        )
    cast = fitted(value, site.dtype, f"{what} gives {name}", places)
    _check_each(site, value, name, places, mask, filler and site.conditional)
    return jnp.asarray(cast)


def _check_each(
    site: Site, value: Any, name: str, places: tuple[str, ...], mask: Any, filler: bool
) -> None:
    """Check the support of a known value, one row for each iteration of the loops around it."""
    if isinstance(value, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        return
    copies = math.prod(size for _, size in site.axes)
    rows = np.asarray(value).reshape((copies, *site.spec.shape))
    if mask is not None:
        mask = np.asarray(mask).reshape((copies, *np.shape(mask)[len(site.axes) :]))
    elif filler:
        mask = (rows != 0).any(tuple(range(1, rows.ndim)))
    if not site.axes:  # in no loop: an index is that of the value
        rows, mask = rows[0], None if mask is None else mask[0]
    for d in site.others:  # the value may be that of any branch
        try:
            return check_support(d, rows, name, places, mask)
        except errors.SupportError:
            continue
    check_support(site.distribution, rows, name, places, mask)


def _casts(value: Any, dtype: Any, listed: bool) -> bool:
    """Whether `dtype` has the kind of numbers that `value` has; Python's are of any kind.

    `listed`: the array was a list of Python numbers.
    """
    target = np.dtype(dtype)
    python = isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)
    if python or listed:
        kind = jnp.result_type(value).kind if listed else np.asarray(value).dtype.kind
        if kind in "biO":  # O: an integer of any size
            return True
        if kind == "f":
            return np.issubdtype(target, np.floating)
    given = np.dtype(jax.dtypes.canonicalize_dtype(jnp.result_type(value)))
    if np.issubdtype(given, np.bool_):
        return np.issubdtype(target, np.integer) or target == given
    same_kind = np.issubdtype(given, np.floating) == np.issubdtype(target, np.floating)
    return same_kind and np.can_cast(given, target)


def _element(site: Site) -> Site:
    """One step (or copy) of a choice in a loop.

    Raises:
      InvalidArgument: the choice is in no loop.
    """
    if not site.axes:
        raise errors.InvalidArgument(
            f"{errors.show(site.path)} is in no loop, so it has no element to update.",
            where=(f"{errors.show(site.path)} at {site.source}", errors.caller()),
            given="At(index, value)",
            fix="give the whole value",
        )
    return replace(site, axes=site.axes[1:])
