"""What evidence may cost: a budget of false alarms a run, stages in a check, a ledger over runs.

A check alarms when its e-value reaches one over its level. By Ville's inequality it does so with
probability at most that level if the null holds, however often it looks. The levels of all checks
of a run sum to the budget, so that the run alarms falsely with at most that probability, whatever
the dependence between checks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppl import errors

from .e_values import multiply


@dataclass(frozen=True)
class Evidence:
    """The outcome of one statistical check: an e-value, and what the sample could have shown.

    Attributes:
      log_e: natural log of the e-value after `n` samples, when the check stopped.
      n: samples drawn.
      alpha: the level; P(rejected) is at most this under the null.
      smallest_effect: departures of this size or more are rejected with high probability by `n`
        samples; in the units of the `effect` that was given, or `None`.
      witness: on rejection, what the given `witness` makes of the data.

    >>> Evidence(log_e=20.0, n=100, alpha=1e-6).rejected
    True
    """

    log_e: float
    n: int
    alpha: float
    smallest_effect: float | None = None
    witness: Any = None

    @property
    def rejected(self) -> bool:
        """Whether the e-value reaches 1/alpha (Ville's inequality)."""
        return _reaches(self.log_e, self.alpha)


def stages(
    sample: Callable[[int, int], Any],
    statistic: Callable[[Any], Any],
    alpha: float,
    sizes: Sequence[int],
    *,
    effect: Callable[[int, float], float] | None = None,
    witness: Callable[[Any], Any] | None = None,
) -> Evidence:
    """Rejects a true null with probability at most alpha, though it looks after every stage.

    Each stage draws fresh data and looks at all data so far. The first look at which the e-process
    reaches 1/alpha rejects; the last stage accepts. Most errors are large, so most rejections
    cost the first stage only.

    Args:
      sample: `(stage, size) -> data`, arrays with `size` rows, fresh and independent each stage;
        derive the key with `jax.random.fold_in(key, stage)`.
      statistic: `data -> log e-value`. It must be an e-process in the number of rows (all but
        means of ratios for fixed n are), since it is watched.
      sizes: rows drawn at each stage, such as `(100, 900, 9000)`.
      effect: `(n, alpha) -> smallest effect`, such as `multinomial_effect` with its probabilities.

    Raises `InvalidArgument` for no stage, another number of rows, or a level outside (0, 1).
    Source: Ramdas, Grünwald, Vovk and Shafer (Statistical Science 2023).

    >>> from functools import partial
    >>> from semantics.evidence.e_values import bounded_mean, mean_effect
    >>> ask = partial(bounded_mean, mean=0.5, low=0.0, high=1.0)
    >>> seen = partial(mean_effect, mean=0.5, low=0.0, high=1.0)
    >>> stages(lambda stage, size: np.full(size, 0.9), ask, 1e-6, (100, 900), effect=seen).n
    100
    """
    _check_level(alpha)
    if not sizes or min(sizes) < 1:
        raise errors.InvalidArgument(
            "A check needs at least one stage with at least one sample.", where=errors.caller(),
            given=list(sizes), expected="positive numbers of samples", fix="sizes=(100, 900, 9000)",
        )  # fmt: skip
    data, n, log_e = None, 0, 0.0
    for stage, size in enumerate(sizes):
        batch = jax.tree.map(np.asarray, sample(stage, size))
        rows = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
        if rows != {(size,)}:
            raise errors.InvalidArgument(
                "A stage drew another number of samples than it was asked for.",
                where=errors.caller(), given=f"leading shapes {sorted(rows)}",
                expected=f"{size} rows", fix="return arrays with one row for each sample",
            )  # fmt: skip
        data = batch if data is None else jax.tree.map(_append, data, batch)
        n, log_e = n + size, float(statistic(data))
        if _reaches(log_e, alpha):
            break
    found = Evidence(log_e, n, alpha, effect(n, alpha) if effect else None)
    if witness and found.rejected:
        found = Evidence(log_e, n, alpha, found.smallest_effect, witness(data))
    return found


class Budget:
    """One run's probability of any false alarm, at most `total`, split over named checks.

    A name in `shares` gets that fraction of the total. What the shares leave goes to the other
    names in the order of their registration: the k-th gets 6 / (pi^2 k^2) of it, which sums to
    one, so that the number of checks need not be known. A late check costs little: the
    thousandth must reach log e = 28.1 where the first must reach 14.3.

    The order is that of one process. For w processes give each a total / w, or name all shares.
    A name registers once, since a repetition on fresh data is another chance of a false alarm.

    Raises `InvalidArgument` for shares that exceed one, a name registered twice, and a name that
    nothing is left for.

    >>> budget = Budget(1e-6, shares={"slow": 0.5})
    >>> budget.register("slow"), round(budget.register("first") / 1e-6, 4)
    (5e-07, 0.304)
    >>> budget.alarms("slow", 14.0), budget.alarms("slow", 15.0)
    (False, True)
    """

    def __init__(self, total: float = 1e-6, shares: Mapping[str, float] | None = None):
        _check_level(total)
        self.total = total
        self.shares = dict(shares or {})
        reserved = math.fsum(self.shares.values())
        if any(not share > 0 for share in self.shares.values()) or reserved > 1:
            raise errors.InvalidArgument(
                "The shares overspend the budget.", where=errors.caller(),
                given=f"shares that sum to {reserved}: {self.shares}",
                expected="positive shares that sum to at most 1", fix="divide them by their sum",
            )  # fmt: skip
        self._open = total * (1 - reserved)
        self._unshared = 0
        self._levels: dict[str, float] = {}

    def register(self, name: str) -> float:
        """The level of a check, once for each name."""
        if name in self._levels:
            raise errors.InvalidArgument(
                f'The check "{name}" is already registered.', where=errors.caller(), given=name,
                expected="a new name", fix="name each check, and each repetition, differently",
            )  # fmt: skip
        if name in self.shares:
            level = self.shares[name] * self.total
        elif self._open > 0:
            self._unshared += 1
            level = self._open * 6 / (math.pi * self._unshared) ** 2
        else:
            raise errors.InvalidArgument(
                f'Nothing of the budget is left for "{name}".', where=errors.caller(),
                given=f"shares that sum to 1: {self.shares}", expected="one of their names",
                fix="give it a share, or let the shares sum to less than 1",
            )  # fmt: skip
        self._levels[name] = level
        return level

    def level(self, name: str) -> float:
        """The level of a registered check."""
        if name not in self._levels:
            raise errors.InvalidArgument(
                f'No check "{name}" is registered.', where=errors.caller(), given=name,
                expected=sorted(self._levels), fix=f'budget.register("{name}")',
            )  # fmt: skip
        return self._levels[name]

    @property
    def spent(self) -> float:
        """The sum of the levels so far: at most `total`."""
        return math.fsum(self._levels.values())

    def alarms(self, name: str, log_e: float) -> bool:
        """Whether the check's e-value reaches one over its level."""
        return _reaches(log_e, self.level(name))


class Ledger:
    """A file of e-values that are multiplied over runs for as long as a check's source is the same.

    The product over independent runs is an e-process, so that a defect too small for one run is
    found by many. A check that alarms on the product at any run does so falsely with probability
    at most its level, over all runs of one source: give the ledger its own share of the budget.

    A changed source starts again from log e = 0. A seed counts once for each source, since the
    same draws twice are no new evidence. The file is replaced as a whole, so that an interruption
    leaves the old one; of two processes that add at the same moment, one may lose its addition.

    Raises `InvalidArgument` that names the file if it is no ledger, and for a seed used before.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = Ledger(Path(folder) / "ledger.json")
    ...     [ledger.add("resample", source, 2.0, seed=seed) for source, seed in ("a1", "a2", "b1")]
    [2.0, 4.0, 2.0]
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._read()

    def log_e(self, name: str, source: str) -> float:
        """The accumulated log e-value of a check with this source (a hash of it), 0 if none."""
        entry = self._read().get(name)
        return float(entry["log_e"]) if entry and entry["source"] == source else 0.0

    def add(self, name: str, source: str, log_e: float, *, seed: int | str) -> float:
        """Multiply in the e-value of a run with a fresh seed; the accumulated log e-value."""
        entries, seed = self._read(), str(seed)
        entry = entries.get(name)
        if entry is None or entry["source"] != source:
            entry = {"source": source, "log_e": 0.0, "seeds": []}
        if seed in entry["seeds"]:
            raise errors.InvalidArgument(
                f'The ledger already counts this seed for "{name}".', where=errors.caller(),
                given=f"seed {seed}", expected="fresh draws", fix="seed=secrets.randbits(64)",
            )  # fmt: skip
        total = float(multiply([float(entry["log_e"]), log_e]))
        # JSON has no infinities.
        written = total if math.isfinite(total) else str(total)
        entries[name] = {"source": source, "log_e": written, "seeds": [*entry["seeds"], seed]}
        self._write(entries)
        return total

    def _read(self) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError as error:
            raise self._corrupt(error) from error
        try:
            entries = json.loads(text)["giry ledger 1"]
            for entry in entries.values():
                log_e, source, seeds = float(entry["log_e"]), entry["source"], entry["seeds"]
                if math.isnan(log_e) or not isinstance(source, str) or not isinstance(seeds, list):
                    raise ValueError(f"the entry {entry}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._corrupt(error) from error
        return entries

    def _corrupt(self, error: Exception) -> errors.InvalidArgument:
        return errors.InvalidArgument(
            f"The file {self.path} is no ledger, or a damaged one.", where=errors.caller(),
            given=repr(error), expected="a file written by Ledger",
            fix="restore it, or move it away: evidence then starts again from log e = 0",
        )  # fmt: skip

    def _write(self, entries: dict[str, Any]) -> None:
        text = json.dumps({"giry ledger 1": entries}, indent=1, sort_keys=True, allow_nan=False)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _reaches(log_e: float, alpha: float) -> bool:
    return bool(log_e >= -math.log(alpha))


def _append(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.concatenate([before, after])


def _check_level(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise errors.InvalidArgument(
            "A probability of false alarm lies strictly between 0 and 1.", where=errors.caller(),
            given=alpha, expected="0 < alpha < 1", fix="1e-6",
        )  # fmt: skip
