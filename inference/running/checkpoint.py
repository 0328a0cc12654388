"""Checkpoints of a run: a folder of arrays, written so that a kill at any time loses no block.

`draws-N.npz` holds a block of draws from draw N on, `state.npz` the state of the chains
after it. Each is written under another name and renamed when it is whole, the state last,
so that the folder always holds a state with all the draws before it.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors

from ..targets.fingerprints import differences, plain, told
from ..validation.settings import shown


def checked_folder(path: Any) -> Path:
    """`path` as that of a folder, which need not be there yet.

    Raises:
      InvalidArgument: it is no path, or that of a file.

    >>> from inference.running.checkpoint import checked_folder
    >>> checked_folder("a/run").name
    'run'
    """
    folder = Path(path) if isinstance(path, (str, os.PathLike)) and path else None
    if folder is None or (folder.exists() and not folder.is_dir()):
        raise errors.InvalidArgument(
            "A checkpoint is a folder.", where=errors.caller(),
            given=shown(path) if folder is None else f"the file {folder}",
            expected="the path of a folder, which is made if it is not there",
            fix='checkpoint="run"',
        )  # fmt: skip
    return folder


class Checkpoint:
    """The folder `path` for the run with this `identity`: its parts by name.

    Parts are readable, or fingerprints (see `inference.targets.fingerprints`): a run of another
    identity is told by what differs.

    Attributes:
      more: arrays by name that were saved with the state, once it is loaded.

    >>> import tempfile, numpy as np
    >>> from inference.running.checkpoint import Checkpoint
    >>> folder = Checkpoint(tempfile.mkdtemp() + "/run", {"draws": "3"})
    >>> folder.load([np.zeros(2)]) is None
    True
    >>> folder.save_draws(0, {"mu": np.ones((1, 3))})
    >>> folder.save_state([np.arange(2.0)], warm=5, kept=3)
    >>> leaves, warm, kept = folder.load([np.zeros(2)])
    >>> leaves[0].tolist(), warm, kept, folder.draws(kept)["mu"].tolist()
    ([0.0, 1.0], 5, 3, [[1.0, 1.0, 1.0]])
    """

    def __init__(self, path: str | os.PathLike, identity: Mapping[str, str]):
        self.path, self.identity = checked_folder(path), dict(identity)
        self.more: dict[str, np.ndarray] = {}

    def save_draws(self, start: int, block: dict[str, np.ndarray]) -> None:
        """Draws from `start` on; arrays of shape (chains, count, ...) by name."""
        self._write(f"draws-{start}.npz", {**block, "__start__": np.asarray(start)})

    def save_state(
        self, leaves: list[Any], warm: int, kept: int, more: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """The state of all chains after `warm` steps of warm-up and `kept` draws."""
        arrays = {f"leaf_{i}": plain(leaf) for i, leaf in enumerate(leaves)}
        arrays |= {f"more:{name}": x for name, x in (more or {}).items()}
        identity = json.dumps(self.identity)
        about = {"identity": identity, "warm": warm, "kept": kept, "leaves": len(leaves)}
        self._write("state.npz", {**arrays, **{k: np.asarray(v) for k, v in about.items()}})

    def load(self, like: list[Any]) -> tuple[list[Any], int, int] | None:
        """`(leaves, warm, kept)`, or None when there is no checkpoint yet.

        Args:
          like: arrays with the dtypes (PRNG keys among them) that the leaves have.

        Raises:
          CheckpointError: the state is damaged, or of another run.
        """
        file = self.path / "state.npz"
        if not file.exists():
            return None
        found = self._read(file)
        try:
            identity = json.loads(str(found["identity"]))
        except (ValueError, KeyError) as error:
            raise self._damaged(file, "it does not tell its run") from error
        if identity != self.identity:
            there, here = told(differences(identity, self.identity))
            raise errors.CheckpointError(
                "The checkpoint is of another run.", where=(str(file), errors.caller()),
                given=there, expected=here,
                fix="give another folder, or remove this one to start again",
            )  # fmt: skip
        self.more = {
            name.removeprefix("more:"): x for name, x in found.items() if name.startswith("more:")
        }
        leaves = [_typed(found[f"leaf_{i}"], leaf) for i, leaf in enumerate(like)]
        return leaves, int(found["warm"]), int(found["kept"])

    def draws(self, kept: int) -> dict[str, np.ndarray]:
        """The first `kept` draws, by name.

        Raises:
          CheckpointError: a block is damaged or missing.
        """
        blocks: list[dict] = []
        start = 0
        while start < kept:
            file = self.path / f"draws-{start}.npz"
            if not file.exists():
                raise self._damaged(file, "the file is missing")
            block = self._read(file)
            block.pop("__start__")
            blocks.append(block)
            count = next(iter(block.values())).shape[1]
            start += count
        names = blocks[0] if blocks else {}
        return {n: np.concatenate([b[n] for b in blocks], 1)[:, :kept] for n in names}

    def _write(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{name}.partial"
        with open(partial, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path / name)

    def _read(self, file: Path) -> dict[str, np.ndarray]:
        try:
            with open(file, "rb") as raw, np.load(raw, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError) as error:
            raise self._damaged(file, str(error)) from error

    def _damaged(self, file: Path, why: str) -> errors.CheckpointError:
        return errors.CheckpointError(
            "A file of the checkpoint is damaged.",
            where=str(file),
            given=why,
            expected="a whole file, as it was written",
            fix="restore it from a copy, or remove the folder to start again",
        )


def _typed(array: np.ndarray, like: Any) -> Any:
    dtype = getattr(like, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array))
    return array
