"""Draws, and particles, in a file: one numpy archive without pickles, read to the same bits."""

from __future__ import annotations

import importlib.metadata
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ppl import Target, errors
from ppl.addresses import flatten, nest

from ..targets.fingerprints import differences, fingerprints, told
from .draws import Draws
from .particles import Particles

_FORMAT = 1


def save(draws: Draws, path: str | os.PathLike, of: str = "draws") -> None:
    """Write `draws`: under another name first, and renamed when the file is whole."""
    arrays: dict[str, np.ndarray] = {}
    for kind, tree in (("choice", draws.choices), ("derived", draws.derived)):
        arrays |= {f"{kind}:" + "\n".join(p): x for p, x in flatten(tree).items()}
    arrays |= {f"stat:{name}": x for name, x in draws.stats.items()}
    arrays |= {f"tuned:{name}": x for name, x in draws.tuned.items()}
    arrays |= {f"coord:{name}": x for name, x in draws.labels.coords.items()}
    about = {
        "format": _FORMAT,
        "giry": importlib.metadata.version("giry"),
        "status": draws.status,
        "of": of,
        "target": None if draws.target is None else fingerprints(draws.target),
        "dims": {"\n".join(path): names for path, names in draws.labels.dims.items()},
        # of types that numpy does not know, as bfloat16
        "dtypes": {name: str(x.dtype) for name, x in arrays.items() if x.dtype.kind == "V"},
    }
    arrays = {k: x.view(f"u{x.dtype.itemsize}") if x.dtype.kind == "V" else x
              for k, x in arrays.items()}  # fmt: skip
    target, partial = Path(path), Path(path).with_name(f".{Path(path).name}.partial")
    with open(partial, "wb") as file:
        np.savez(file, **arrays, about=np.asarray(json.dumps(about)))  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, target)


_OWN = ("log_weight", "families", "log_evidences", "evidence_errors")


def save_particles(found: Particles, path: str | os.PathLike) -> None:
    """Write particles, as draws are written."""
    own = {name: getattr(found, name) for name in _OWN}
    more = {f"own {name}": x for name, x in own.items() if x is not None}
    more |= {f"history {name}": x for name, x in found.history.items()}
    more |= {f"note {note}": np.asarray(count) for note, count in found.notes.items()}
    plain = Draws(
        found.choices, {}, found.target, found.status, more, found.derived,
        dims=found.dims, coords=found.coords,
    )  # fmt: skip
    save(plain, path, "particles")


def load_particles(path: str | os.PathLike, target: Target | None = None) -> Particles:
    """The particles in a file that `save_particles` wrote.

    Raises:
      CheckpointError: as for `load`; or it has draws.
    """
    plain = load(path, target, "particles")
    kinds: dict[str, dict[str, Any]] = {"own": {}, "history": {}, "note": {}}
    for name, x in plain.tuned.items():
        kind, _, rest = name.partition(" ")
        kinds[kind][rest] = x
    notes = {note: int(count) for note, count in kinds["note"].items()}
    return Particles(
        plain.choices, target=target, status=plain.status, history=kinds["history"], notes=notes,
        derived=plain.derived, dims=plain.dims, coords=plain.coords, **kinds["own"],
    )  # fmt: skip


def load(path: str | os.PathLike, target: Target | None = None, of: str = "draws") -> Draws:
    """The draws in a file that `save` wrote.

    Raises:
      CheckpointError: the file is missing or damaged, or its draws are of another target; or are
        weighted, and `Particles.load` is due.
    """
    arrays = _read(path)
    about = json.loads(str(arrays.pop("about")))
    if about.get("of", "draws") != of:
        raise errors.CheckpointError(
            f"The file has no {of}.", where=(str(path), errors.caller()),
            given=f"a file of {about.get('of', 'draws')}", expected=f"a file of {of}",
            fix="Draws.load" if of == "particles" else "Particles.load",
        )  # fmt: skip
    if target is not None and about["target"] is not None:
        here = fingerprints(target)
        if {**here, "jax": ""} != {**about["target"], "jax": ""}:
            found = differences(about["target"], here)
            if found and found[0][0].startswith("jax") and len(found) == 1:
                found = []  # the text of a program is that of a version
            if found:
                there, mine = told(found)
                raise errors.CheckpointError(
                    "These are draws of another target.", where=(str(path), errors.caller()),
                    given=there, expected=mine,
                    fix="load them without a target, or give the one that they were made of",
                )  # fmt: skip
    kinds = ("choice", "derived", "stat", "tuned", "coord")
    parts: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
    for name, x in arrays.items():
        kind, _, rest = name.partition(":")
        parts[kind][rest] = x.view(about["dtypes"][name]) if name in about["dtypes"] else x

    def tree(kind: str) -> dict[str, Any]:
        return nest({tuple(name.split("\n")): x for name, x in parts[kind].items()})

    dims = nest({tuple(p.split("\n")): tuple(n) for p, n in about.get("dims", {}).items()})
    return Draws(
        tree("choice"), parts["stat"], target, about["status"], parts["tuned"], tree("derived"),
        dims=dims, coords=parts["coord"],
    )  # fmt: skip


def _read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
            if "about" not in arrays:
                raise ValueError("it does not say what it is")
            return arrays
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError) as error:
        raise errors.CheckpointError(
            "The file of draws cannot be read.", where=(str(path), errors.caller()),
            given=str(error), expected="a file that draws.save(path) wrote",
            fix="look at the path, or restore the file from a copy",
        ) from error  # fmt: skip
