"""Labels: names of the axes of choices (`dims`), and of the places along them (`coords`).

They are of no measure: nothing computes with them, and programs are compiled without them. They
go from a target to its draws, and from there to summaries, figures, files and xarray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import errors
from .addresses import flatten, nest, not_found
from .program import Path

RESERVED = ("chain", "draw")


@dataclass(frozen=True, eq=False)
class Labels:
    """Of each address the names of its axes, and of each name the labels along it.

    Attributes:
      dims: by path, a name for each axis; None where an axis has none.
      coords: by name, labels that differ from one another; not every name has some.

    Raises:
      InvalidArgument: a name or labels are none, or stand twice; labels are of no axis.

    >>> from ppl.labels import Labels
    >>> labels = Labels.of({"theta": ("school",)}, {"school": ["Choate", "Deerfield"]})
    >>> labels.names(("theta",), (2,))
    ['theta[Choate]', 'theta[Deerfield]']
    >>> labels.names(("z",), (2,))
    ['z[1]', 'z[2]']
    """

    dims: Mapping[Path, tuple[str | None, ...]] = field(default_factory=dict)
    coords: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, dims: Any, coords: Any) -> Labels:
        """What a person gives: a nested dict of names, and a dict of labels; either may be None."""
        for name, given, fix in (
            ("dims", dims, 'dims={"theta": ("school",)}'),
            ("coords", coords, 'coords={"school": names}'),
        ):
            if given is not None and not isinstance(given, Mapping):
                raise errors.InvalidArgument(
                    f"The {name} are a dict.", where=errors.caller(),
                    given=f"{type(given).__name__}: {given!r}", expected=fix, fix=fix,
                )  # fmt: skip
        named = {path: _axes(path, given) for path, given in flatten(dims or {}).items()}
        return cls(named, {name: _along(name, given) for name, given in (coords or {}).items()})

    def __bool__(self) -> bool:
        return bool(self.dims or self.coords)

    def __or__(self, other: Labels) -> Labels:
        """Both; `other` where they are of the same."""
        return Labels({**self.dims, **other.dims}, {**self.coords, **other.coords})

    @property
    def tree(self) -> dict[str, Any]:
        """`dims` as a nested dict, as a person gives them."""
        return nest(self.dims)

    def check_addresses(self, known: Mapping[Path, Any]) -> None:
        """Raise unless every address is known, and all labels are of a name that is used.

        Raises:
          AddressNotFound, InvalidArgument.
        """
        for path in self.dims:
            if path not in known:
                raise not_found(path, known, "The dims")
        used = {name for names in self.dims.values() for name in names if name}
        for name in self.coords:
            if name not in used:
                guess = errors.near(name, used)
                raise errors.InvalidArgument(
                    f'The coords of "{name}" are of no dimension.', where=errors.caller(),
                    given=f'"{name}"', expected="one of: " + ("; ".join(sorted(used)) or "no dims"),
                    fix=f'did you mean "{guess}"?' if guess else
                    f'name the axes that they are of: dims={{"theta": ("{name}",)}}',
                )  # fmt: skip

    def check(self, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        """Raise unless they are of these addresses, and fit their shapes.

        Raises:
          AddressNotFound, InvalidArgument, ShapeError.
        """
        self.check_addresses(shapes)
        self.check_shapes(shapes)

    def check_shapes(self, shapes: Mapping[Path, tuple[int, ...]]) -> None:
        """Raise `ShapeError` unless names and labels fit the arrays, all of them together."""
        sizes = {name: (len(x), "its coords") for name, x in self.coords.items()}
        for path, names in self.dims.items():
            if path not in shapes:
                continue
            shape, who = shapes[path], errors.show(path)
            if len(names) != len(shape):
                raise errors.ShapeError(
                    f"The dims of {who} are not as many as its axes.", where=errors.caller(),
                    given=f"{len(names)}: {', '.join(map(str, names)) or 'none'}",
                    expected=f"{len(shape)}, for shape {shape}",
                    fix="name each axis, outermost first; None for an axis without a name",
                )  # fmt: skip
            for name, size in zip(names, shape, strict=True):
                if name is None:
                    continue
                known, whose = sizes.setdefault(name, (size, who))
                if known != size:
                    raise errors.ShapeError(
                        f'The dimension "{name}" has two lengths.', where=errors.caller(),
                        given=f"{size} along {who}, of shape {shape}",
                        expected=f"{known}, as {whose}",
                        fix=f"give {size} labels" if whose == "its coords" else
                        "give axes of other lengths other names",
                    )  # fmt: skip

    def axes(self, path: Path, rank: int) -> tuple[str | None, ...]:
        """Names of the first `rank` axes of an address."""
        return (*self.dims.get(path, ()), *[None] * rank)[:rank]

    def names(self, path: Path, shape: tuple[int, ...]) -> list[str]:
        """The names of the scalars of an array: `theta[Choate]`, or `theta[3]`, from 1."""
        axes = self.axes(path, len(shape))
        along = [
            [str(i + 1) for i in range(size)]
            if name is None or name not in self.coords else [str(x) for x in self.coords[name]]
            for name, size in zip(axes, shape, strict=True)
        ]  # fmt: skip
        who = "/".join(path)
        if not shape:
            return [who]
        at = np.ndindex(shape)
        return [f"{who}[{','.join(x[i] for x, i in zip(along, row, strict=True))}]" for row in at]


def _axes(path: Path, given: Any) -> tuple[str | None, ...]:
    names = (given,) if isinstance(given, str) else given
    good = isinstance(names, (list, tuple)) and all(
        name is None or (isinstance(name, str) and name and "/" not in name) for name in names
    )
    taken = [n for n in RESERVED if good and n in names]
    twice = sorted({n for n in names if n and names.count(n) > 1}) if good else []
    if not good or taken or twice:
        what = "are no names of axes"
        if taken:
            what = f'have the name "{taken[0]}", which is that of an axis of draws'
        elif twice:
            what = f'have the name "{twice[0]}" twice'
        raise errors.InvalidArgument(
            f"The dims of {errors.show(path)} {what}.", where=errors.caller(), given=repr(given),
            expected='a tuple of strings, one for each axis; "/" is in no name',
            fix='dims={"theta": ("school",)}',
        )  # fmt: skip
    return tuple(names)


def _along(name: Any, given: Any) -> np.ndarray:
    """Labels as an array of strings, numbers or dates."""
    fault = None
    try:
        labels = np.asarray(given)
    except Exception:  # whatever an object raises that says it is an array
        labels = np.asarray(None)
    if labels.dtype.kind == "O" and labels.ndim == 1:
        words = all(isinstance(x, str) for x in labels)
        labels = labels.astype(str) if words else np.asarray(None)
    if not isinstance(name, str) or labels.ndim != 1 or labels.dtype.kind not in "biufUM":
        fault = f"{type(given).__name__}: {given!r}"
    elif len(set(labels.tolist())) < len(labels):
        values, counts = np.unique(labels, return_counts=True)
        fault = f"{values[counts > 1][0]} stands {counts.max()} times"
    if fault is not None:
        raise errors.InvalidArgument(
            f'The coords of "{name}" are no labels.', where=errors.caller(), given=fault,
            expected="a list of strings, numbers or dates that differ from one another",
            fix=f'coords={{"{name}": ["a", "b", "c"]}}, or leave them out',
        )  # fmt: skip
    return labels
