"""Addresses, choice maps as plain nested dicts, and selections of addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from . import errors
from .program import Path


def as_path(address: Any) -> Path:
    """`"x"` or `("sub", "x")` as a path.

    Raises:
      InvalidAddress: anything else.
    """
    path = address if isinstance(address, tuple) else (address,)
    if path and all(isinstance(part, str) and part and not part.startswith("#") for part in path):
        return path
    raise errors.InvalidAddress(
        "An address is a non-empty string, or a tuple of them.",
        where=errors.caller(),
        given=repr(address),
        expected='"x" or ("sub", "x")',
        fix='for a Python loop, use f"x{i}"',
    )


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class Masked:
    """Values that are given only where `mask` is true: a partial constraint.

    `mask` is boolean and has leading axes of `value`; each flag stands for all behind it.
    It has a flag for each independent element (`to_event` undone), or for each event (the
    axes of loops and of the batch shape), or for each iteration of the loops alone. What
    is given has the marginal density; elements where the mask is false are drawn, and
    their values are never looked at.

    With `impute`, as an observation of a `Target`, these elements are latent choices: kernels
    move them, their draws are in the result, and other choices may depend on them (the next
    value of a series, what a covariate explains). The mask must then be known, an array of
    numpy or a list, and a program compiled for one mask is not used for another.

    Raises (where it is used):
      ShapeError: the mask is not boolean, or has another shape.
      InvalidArgument: `impute` with a mask that is traced, or of a choice in a branch.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import Masked, gen, integrate, sample
    >>> coins = gen(lambda: sample("x", dist.Bernoulli(0.25).expand([3])))
    >>> seen = Masked(jnp.array([1, 0, 0]), jnp.array([True, True, False]))
    >>> evidence = integrate(lambda: jnp.exp(coins.generate({"x": seen})[1]))()
    >>> print(f"{evidence:.4f}")  # 1/4 times 3/4
    0.1875
    """

    value: Any
    mask: Any
    impute: bool = False

    def tree_flatten_with_keys(self) -> tuple[tuple, Any]:
        value = (jax.tree_util.GetAttrKey("value"), self.value)
        if self.impute:  # the places of latents are part of a program
            mask = np.asarray(self.mask, bool)
            return (value,), (mask.shape, mask.tobytes())
        return (value, (jax.tree_util.GetAttrKey("mask"), self.mask)), None

    @classmethod
    def tree_unflatten(cls, places: Any, children: Any) -> Masked:
        if places is None:
            value, mask = children
            return cls(value, mask)
        (value,), (shape, flags) = children, places
        return cls(value, np.frombuffer(flags, bool).reshape(shape), True)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class At:
    """A new value for one element of a choice in a loop: index `index` of its first axis.

    For `update` only: one step of a `scan`, or one copy of a `vmap`, changes, and in a
    Markov loop only its neighbours are computed again. An index that is out of range
    has weight -inf.

    Raises (where it is used):
      InvalidArgument: the choice is in no loop, or the method is not `update`.
      ShapeError, DtypeError, SupportError: `value` is no value of one element.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import At, gen, sample
    >>> def step(x, _):
    ...     return sample("x", dist.Normal(x, 1.0)), None
    >>> walk = gen(lambda: jax.lax.scan(step, 0.0, None, length=4)[0])
    >>> trace, _ = walk.generate({"x": jnp.zeros(4)})
    >>> changed, log_weight, _ = walk.update(trace, {"x": At(1, 2.0)})
    >>> changed["x"].tolist(), round(float(log_weight), 4)  # two steps of size 2
    ([0.0, 2.0, 0.0, 0.0], -4.0)
    """

    index: Any
    value: Any


def flatten(choices: Mapping[str, Any], prefix: Path = ()) -> dict[Path, Any]:
    """A nested dict as a dict from paths to values."""
    if not isinstance(choices, Mapping):
        raise errors.InvalidArgument(
            "A choice map is a nested dict.",
            where=errors.caller(),
            given=type(choices).__name__,
            expected='{"x": value, "sub": {"y": value}}',
            fix="wrap the value in a dict with its address",
        )
    found: dict[Path, Any] = {}
    for name, value in choices.items():
        path = prefix + as_path(name)
        if isinstance(value, Mapping):
            found.update(flatten(value, path))
        else:
            found[path] = value
    return found


def emptied(choices: Mapping[str, Any], prefix: Path = ()) -> list[Path]:
    """The paths at which a nested dict has an empty dict.

    >>> from ppl.addresses import emptied
    >>> emptied({"a": 1.0, "sub": {"b": {}}})
    [('sub', 'b')]
    """
    found: list[Path] = []
    for name, value in choices.items():
        if isinstance(value, Mapping):
            path = prefix + as_path(name)
            found += emptied(value, path) if value else [path]
    return found


def nest(found: Mapping[Path, Any]) -> dict[str, Any]:
    """A dict from paths to values as a nested dict."""
    nested: dict[str, Any] = {}
    for path, value in found.items():
        level = nested
        for part in path[:-1]:
            level = level.setdefault(part, {})
        level[path[-1]] = value
    return nested


def not_found(
    path: Path, known: Iterable[Path], what: str, where: Iterable[str] = ()
) -> errors.PPLError:
    """The error for an address that no choice of the model has."""
    known = sorted(known)
    names = [errors.show(p) for p in known]
    guess = _guess(path, known)
    fix = f"a tuple is one nested address: select({errors.show(path)}) names each"
    if len(path) == 1 or not all((part,) in known for part in path):
        fix = f"did you mean {guess}?" if guess else "use one of the model's addresses"
    return errors.AddressNotFound(
        f"{what} names {errors.show(path)}, which is no choice of the model.",
        where=(*where, errors.caller()),
        given=errors.show(path),
        expected="one of: " + ("; ".join(names) or "(the model makes no choices)"),
        fix=fix,
    )


def _guess(path: Path, known: list[Path]) -> str | None:
    """The address that was meant: by all of it, by its last part, or by its first parts."""
    whole = {".".join(p): p for p in known}
    found = whole.get(errors.near(".".join(path), whole) or "")
    *above, name = path
    if found is None:  # the only one in the same place, or the part that is misspelled alone
        beside = [p for p in known if above and p[: len(above)] == tuple(above)]
        found = beside[0] if len(beside) == 1 else _by_part(name, known, -1)
    if found is None:
        heads = {".".join(p[:n]): p[:n] for p in known for n in range(1, len(p))}
        found = heads.get(errors.near(".".join(path), heads) or "")
    if found is None and above:
        found = _by_part(above[0], [p for p in known if len(p) == len(path)], 0)
    return None if found is None else errors.show(found)


def _by_part(name: str, known: list[Path], part: int) -> Path | None:
    """The first of the paths one part of which is like `name`."""
    parts = {p[part]: p for p in reversed(known)}
    return parts.get(errors.near(name, parts) or "")


@dataclass(frozen=True)
class Selection:
    """A static predicate on addresses; naming a prefix selects all below it.

    Combine with `|`, `&` and `~`: a Boolean algebra whose top is `everything` and
    whose bottom is `select()`. `selection(path)` tells whether a path is in it.

    >>> from ppl import Selection, everything, select
    >>> rest = everything & ~select("mu", "sub")
    >>> isinstance(rest, Selection), rest(("tau",)), rest(("sub", "x"))
    (True, True, False)
    """

    _test: Callable[[Path], bool]
    _names: tuple[Path, ...]
    _text: str

    def __call__(self, path: Path) -> bool:
        return self._test(path)

    def __or__(self, other: Selection) -> Selection:
        names = self._names + other._names
        return Selection(lambda p: self(p) or other(p), names, f"({self._text} | {other._text})")

    def __and__(self, other: Selection) -> Selection:
        names = self._names + other._names
        return Selection(lambda p: self(p) and other(p), names, f"({self._text} & {other._text})")

    def __invert__(self) -> Selection:
        return Selection(lambda p: not self(p), self._names, f"~{self._text}")

    def __repr__(self) -> str:
        return self._text

    def check(self, known: Iterable[Path]) -> None:
        """Raise `AddressNotFound` if a name selects nothing among the known paths."""
        known = list(known)
        for name in self._names:
            if not any(path[: len(name)] == name for path in known):
                raise not_found(name, known, "The selection")


def select(*addresses: str | tuple[str, ...]) -> Selection:
    """The selection of these addresses and everything below them; `select()` is empty.

    Raises:
      InvalidAddress: an address is neither a string nor a tuple of strings.

    >>> from ppl import select
    >>> s = select("mu", ("sub", "x"))
    >>> s(("mu",)), s(("sub", "x", "y")), (~s)(("mu",))
    (True, True, False)
    """
    names = tuple(as_path(address) for address in addresses)
    text = "select(" + ", ".join(repr(a) for a in addresses) + ")"
    return Selection(lambda path: any(path[: len(n)] == n for n in names), names, text)


everything = Selection(lambda path: True, (), "everything")
"""The selection of all addresses."""


def as_selection(selection: Any) -> Selection:
    """A selection; a string or a tuple of strings is taken as one address."""
    if isinstance(selection, Selection):
        return selection
    return select(selection)
