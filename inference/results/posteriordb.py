"""Posteriors of a posteriordb folder: their data, and their reference draws, from its own JSON."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ppl import errors

from ..validation.settings import shown
from .draws import Draws

_INDEXED = re.compile(r"([^\[\]]+)(?:\[([\d,]+)\])?")


@dataclass(frozen=True, eq=False)
class Reference:
    """A posterior of posteriordb.

    Attributes:
      name: of the posterior.
      data: by name, numbers and numpy arrays, as its model takes them; lists of lists of unequal
        lengths stay lists.
      about: the entry of the posterior, as posteriordb has it: `model_name`, `dimensions`, ...
      draws: its reference draws, as `Draws`: read when they are first asked for.

    >>> from inference import Reference
    >>> Reference("toy", {"N": 3}, {}).data["N"]
    3
    """

    name: str
    data: Mapping[str, Any]
    about: Mapping[str, Any]
    folder: Path | None = field(default=None, repr=False)

    @cached_property
    def draws(self) -> Draws:
        """The reference draws: arrays (chains, draws, ...) by parameter.

        Raises:
          InvalidArgument: there are none, or their file is damaged or in part.
        """
        called = self.about.get("reference_posterior_name")
        if not called or self.folder is None:
            raise errors.InvalidArgument(
                f"{self.name} has no reference draws.", where=errors.caller(),
                given=f"reference_posterior_name: {called}", expected="the name of some",
                fix="compare with another posterior, or with an independent computation",
            )  # fmt: skip
        place = self.folder / "reference_posteriors" / "draws" / "draws" / called
        chains = _json(place, f"The reference draws of {self.name}")
        return Draws(_arrays(chains, place), status="complete")


def read_posteriordb(folder: str | os.PathLike, name: str) -> Reference:
    """The posterior `name` of a copy of posteriordb: its data, and its reference draws.

    It reads posteriordb's own JSON, zipped or not: `posteriors/NAME.json`, `data/data`, and
    `reference_posteriors/draws/draws`. Models are not read: write them with `gen`.

    Magnusson, Torgander, Bürkner, Zhang, Carpenter and Vehtari 2024, "posteriordb: Testing,
    benchmarking and developing Bayesian inference algorithms".

    Args:
      folder: the repository, or the `posterior_database` in it.

    Raises:
      InvalidArgument: there is no such folder, posterior or file, or a file is damaged.

    >>> import json, pathlib, tempfile
    >>> from inference import read_posteriordb
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for place, content in {
    ...     "posteriors/flat": {"data_name": "coins", "reference_posterior_name": "flat"},
    ...     "data/data/coins": {"N": 2, "y": [1, 0]},
    ...     "reference_posteriors/draws/draws/flat": [{"p[1]": [0.25, 0.5], "p[2]": [0.5, 0.75]}],
    ... }.items():
    ...     (folder / place).parent.mkdir(parents=True)
    ...     _ = (folder / f"{place}.json").write_text(json.dumps(content))
    >>> coins = read_posteriordb(folder, "flat")
    >>> coins.data["y"].tolist(), coins.draws["p"].tolist()
    ([1, 0], [[[0.25, 0.5], [0.5, 0.75]]])
    """
    if not isinstance(folder, (str, os.PathLike)) or not isinstance(name, str):
        raise errors.InvalidArgument(
            "posteriordb is read from a folder, by the name of a posterior.",
            where=errors.caller(), given=f"{shown(folder)}, {shown(name)}",
            expected="a path, and a string", fix='read_posteriordb("posteriordb", "kidiq-...")',
        )  # fmt: skip
    root = Path(folder)
    if (root / "posterior_database").is_dir():
        root = root / "posterior_database"
    known = sorted(path.stem for path in (root / "posteriors").glob("*.json"))
    if name not in known:
        guess = errors.near(name, known)
        raise errors.InvalidArgument(
            f"There is no posterior {name}.", where=(str(folder), errors.caller()), given=name,
            expected="one of: " + "; ".join(known) if known else
            "a folder with `posteriors`, `data` and `reference_posteriors`",
            fix=f'did you mean "{guess}"?' if guess else "look at the folder",
        )  # fmt: skip
    about = _json(root / "posteriors" / name, f"The posterior {name}")
    whose = f"The data of {name}"
    if not isinstance(about, dict) or not isinstance(about.get("data_name"), str):
        raise _damaged(f"The posterior {name}", root / "posteriors" / name, "no data_name")
    data = _json(root / "data" / "data" / about["data_name"], whose)
    if not isinstance(data, dict):
        raise _damaged(whose, root / "data" / "data" / about["data_name"], type(data).__name__)
    return Reference(name, {key: _array(value) for key, value in data.items()}, about, root)


def _json(place: Path, whose: str) -> Any:
    """What is in `place.json`, or in the only file of `place.json.zip`."""
    plain, zipped = (place.with_name(place.name + end) for end in (".json", ".json.zip"))
    try:
        if plain.exists():
            return json.loads(plain.read_text())
        with zipfile.ZipFile(zipped) as archive:
            inside = [n for n in archive.namelist() if n.endswith(".json") and n[:2] != "__"]
            if len(inside) != 1:
                raise ValueError(f"{len(inside)} files of JSON in it")
            return json.loads(archive.read(inside[0]))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(whose, zipped if zipped.exists() else plain, str(error)) from error


def _damaged(whose: str, place: Path, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"{whose} cannot be read.", where=(str(place), errors.caller()), given=why,
        expected="a file of posteriordb", fix="get the folder again",
    )  # fmt: skip


def _array(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # of unequal lengths
        return value
    return array if array.dtype.kind in "biuf" else value


def _arrays(chains: Any, place: Path) -> dict[str, np.ndarray]:
    """Parameters as arrays, of chains that have a list of numbers by each element's name."""
    whose = f"The reference draws of {place.name}"
    named = isinstance(chains, list) and chains and all(isinstance(c, dict) for c in chains)
    if not named or any(c.keys() != chains[0].keys() for c in chains):
        raise _damaged(whose, place, "no chains that have the same names")
    parts: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for name in chains[0]:
        found = _INDEXED.fullmatch(name)
        try:
            values = np.asarray([chain[name] for chain in chains], float)
        except (TypeError, ValueError):  # chains of unequal lengths, or no numbers
            values = np.zeros(())
        if found is None or values.ndim != 2:
            raise _damaged(whose, place, f"{name} is no list of as many numbers in each chain")
        index = tuple(int(i) - 1 for i in found[2].split(",")) if found[2] else ()
        parts.setdefault(found[1], {})[index] = values
    arrays = {}
    for name, elements in parts.items():
        shape = tuple(np.max(list(elements), 0) + 1) if () not in elements else ()
        if set(elements) != set(np.ndindex(*shape)):
            raise _damaged(whose, place, f"{name} has not all of its elements")
        array = np.stack([elements[at] for at in np.ndindex(*shape)], -1)
        arrays[name] = array.reshape(*array.shape[:2], *shape)
    return arrays
