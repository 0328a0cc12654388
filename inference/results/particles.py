"""Weighted particles of a run: arrays by address, with run and particle axes in front."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ppl import Target, errors
from ppl.addresses import flatten, nest
from ppl.randomness import checked_key

from ..validation.objects import check_target
from ..validation.settings import check_count, check_number, shown
from .draws import Draws
from .particle_checks import judge_particles
from .particle_rows import rows_of, with_interval
from .precision import Limit, limit
from .summary import PARTICLES, Summary
from .verdict import Verdict
from .weighted_errors import Families, effective


@dataclass(frozen=True, eq=False)
class Particles:
    """What a run of particles gives: weighted draws of the posterior, on the host.

    Runs are independent, and each estimates the evidence by its mean weight; so a particle counts
    by its weight among those of all runs. Errors are from what is independent: the particles
    themselves, where no one of them depends on another, or their `families`, or else the runs.
    (`inference.results.weighted_errors` has the formula, and its sources.)

    Attributes:
      choices: nested dict of numpy arrays of shape (runs, particles, *shape of the choice).
      log_weight: shape (runs, particles), unnormalised.
      target: what they are weighted draws of; predictions, likelihoods and exports need it.
      status: "complete", or how the run ended before.
      families: shape (runs, particles), numbers that are equal for particles that may depend on
        each other; None where it is only known that the runs are independent.
      log_evidences: (runs,), the log evidence that each run tells, where it is more than the log of
        the mean weight: of nested sampling, whose error is that of a mean of logs.
      evidence_errors: (runs,), the standard errors of these that each run tells of itself.
      history: of each run after each of its steps, arrays (runs, steps): `ess`, the effective
        number of particles, and `log_evidence`.
      notes: what ended the runs otherwise than it should, by how many of them.
      derived: functions of the choices, as nested dicts of arrays of the same axes.
      dims, coords: names of axes by address, and labels along them, as of `Draws`.
      plain: the same arrays as draws, with the weights as a statistic.

    Raises:
      ShapeError: two arrays have other run and particle axes.
      InvalidArgument: what is derived has the name of a choice.

    >>> import jax, numpy as np
    >>> from inference import Particles
    >>> x = np.random.default_rng(0).normal(size=(20, 500))
    >>> found = Particles({"mu": x}, np.zeros((20, 500)))  # of a standard normal, evenly weighted
    >>> row = found.summary()["mu"]
    >>> abs(row["mean"]) < 5 * row["mcse_mean"], abs(row["sd"] - 1) < 5 * row["mcse_sd"]
    (True, True)
    >>> found.resampled(jax.random.key(0), 100)["mu"].shape
    (1, 100)
    """

    choices: Mapping[str, Any]
    log_weight: Any
    target: Target | None = None
    status: str = "complete"
    families: Any = None
    log_evidences: Any = None
    evidence_errors: Any = None
    history: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    derived: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, Any] = field(default_factory=dict)
    plain: Draws = field(init=False, repr=False)

    def __post_init__(self):
        if self.target is not None:
            check_target(self.target)
        log_weight = np.asarray(self.log_weight)
        if log_weight.dtype.kind != "f" or log_weight.ndim != 2:
            raise errors.ShapeError(
                "Log weights are of runs of particles.", where=errors.caller(),
                given=shown(self.log_weight), expected="floats of shape (runs, particles)",
                fix="log_weight[None], of one run",
            )  # fmt: skip
        object.__setattr__(self, "log_weight", log_weight)
        for name in ("families", "log_evidences", "evidence_errors"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else np.asarray(value))
        object.__setattr__(self, "history", {k: np.asarray(x) for k, x in self.history.items()})
        stats = {"log_weight": log_weight}
        if self.families is not None:
            stats["family"] = self.families
        of: dict[str, Any] = {"derived": self.derived, "dims": self.dims, "coords": self.coords}
        both = Draws(self.choices, stats, self.target, self.status, **of)
        object.__setattr__(self, "dims", both.dims)
        object.__setattr__(self, "coords", both.coords)
        object.__setattr__(self, "choices", both.choices)
        object.__setattr__(self, "derived", both.derived)
        object.__setattr__(self, "plain", both)

    def __getitem__(self, address: str | tuple[str, ...]) -> Any:
        """The particles' values (or the dict of them) at an address.

        Raises:
          AddressNotFound: with the nearest address.
        """
        return self.plain[address]

    @property
    def shape(self) -> tuple[int, int]:
        """(runs, particles)."""
        return self.log_weight.shape

    def columns(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """By address: the names of its scalars, and an array (runs, particles, scalars)."""
        return self.plain.columns()

    def scalars(self) -> dict[str, np.ndarray]:
        """Every scalar by name (`mu`, `theta[3]`), as arrays of shape (runs, particles)."""
        return self.plain.scalars()

    @cached_property
    def weights(self) -> np.ndarray:
        """Normalised, of shape (runs, particles): they add up to one; zero if all are zero."""
        logs = self.log_weight.astype(np.float64)
        top = logs.max(initial=-np.inf)
        with np.errstate(invalid="ignore"):
            masses = np.exp(logs - (top if np.isfinite(top) else 0.0))
            return masses if top == -np.inf else masses / masses.sum()

    @cached_property
    def evidences(self) -> np.ndarray:
        """The log evidence by each run: the log of its mean weight, or what it tells."""
        if self.log_evidences is not None:
            return self.log_evidences.astype(np.float64)
        logs = self.log_weight.astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.logaddexp.reduce(logs, 1) - np.log(logs.shape[1])

    @property
    def log_evidence(self) -> float:
        """Of all runs: the log of the mean weight; of nested sampling the mean of the logs."""
        if self.log_evidences is not None:
            return float(self.evidences.mean())
        with np.errstate(invalid="ignore"):
            return float(np.logaddexp.reduce(self.evidences) - np.log(len(self.evidences)))

    @property
    def log_evidence_error(self) -> float:
        """The standard error of `log_evidence`; NaN where one run does not tell it."""
        runs = len(self.evidences)
        if runs > 1 and self.log_evidences is not None:
            return float(self.evidences.std(ddof=1) / runs**0.5)
        if runs == 1 and self.evidence_errors is not None:
            return float(self.evidence_errors[0])
        return self.independent.evidence_error()

    @cached_property
    def independent(self) -> Families:
        """The normalised weights, and which of the particles are independent."""
        return Families(self.weights, self.families)

    @property
    def ess(self) -> float:
        """The effective number of particles, 1 / sum of the squares of their weights."""
        return effective(self.weights)

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """By scalar, its numbers that depend on no interval, and a note on what is degenerate."""
        return rows_of(self.columns(), self.independent, self.plain._fixed)

    @cached_property
    def limit(self) -> Limit | None:
        """What float32 is too coarse for, if it is: of particles that count."""
        counts = self.weights.ravel() > 0
        if not counts.any():
            return None
        some = {path: x.reshape(-1, *x.shape[2:])[counts][None]
                for path, x in flatten(self.choices).items()}  # fmt: skip
        return limit(self.target, nest(some))

    def summary(self, prob: float = 0.9) -> Summary:
        """A row per scalar: mean, sd, equal-tailed interval, Monte Carlo errors, effective number.

        Prints as a table, with the evidence, whose last lines are the verdict; see `Summary`. The
        errors are those of the mean and the sd by independent parts; `ess` is how many independent
        draws of the posterior know the mean as well.

        Args:
          prob: the probability of the interval.

        Raises:
          InvalidArgument: `prob` is not between 0 and 1.
        """
        check_number("prob", prob, above=0, below=1, fix=0.9)
        rows = with_interval(self.rows, self.columns(), self.weights, prob)
        return Summary(rows, prob, self.shape, self.verdict(), PARTICLES, self.told)

    @property
    def told(self) -> str:
        """The log evidence with its error, and how many particles count, in words."""
        runs, n = self.shape
        error = self.log_evidence_error
        known = f" +- {error:.2g}" if np.isfinite(error) else " (error not known)"
        return (
            f"log evidence {self.log_evidence:.6g}{known}; "
            f"{self.ess:.0f} of {runs * n} particles count"
        )

    def verdict(self) -> Verdict:
        """Whether enough particles count, and what to do if not; see `particle_checks`."""
        return self._verdict

    @cached_property
    def _verdict(self) -> Verdict:
        return judge_particles(self)

    def resampled(self, key: jax.Array, n: int = 1000) -> Draws:
        """Draws by weight, evenly weighted, in one chain: what has no use for weights takes them.

        Systematic, and then in random order. Particles of large weight are there more than once.

        Args:
          key: one PRNG key.
          n: how many.

        Raises:
          InvalidKey: `key` is not one PRNG key.
          InvalidArgument: n is less than 1; or no particle has a weight.

        >>> import jax, numpy as np
        >>> from inference import Particles
        >>> found = Particles({"k": np.array([[0, 1]])}, np.log([[1.0, 3.0]]))
        >>> print(f"{found.resampled(jax.random.key(0), 400)['k'].mean():.2f}")
        0.75
        """
        check_count("n", n)
        first, second = jax.random.split(checked_key(key))
        total = self.weights.sum()
        if not total > 0:  # nor not-a-number
            raise errors.InvalidArgument(
                "No particle has a weight to be drawn by.", where=errors.caller(),
                given=f"weights that add up to {total:g}", expected="weights above zero",
                fix="look at verdict(), which says what went wrong",
            )  # fmt: skip
        flat = self.weights.ravel()
        counts = np.flatnonzero(flat > 0)
        below = np.cumsum(flat[counts])
        points = (np.arange(n) + float(jax.random.uniform(first))) / n * below[-1]
        at = counts[np.minimum(np.searchsorted(below, points, side="right"), len(counts) - 1)]
        at = at[np.asarray(jax.random.permutation(second, n))]

        def drawn(tree: Mapping[str, Any]) -> dict[str, Any]:
            arrays = flatten(tree).items()
            return nest({p: x.reshape(-1, *x.shape[2:])[at][None] for p, x in arrays})

        status = f"{n} draws by weight from {flat.size} particles, of which {self.ess:.0f} count"
        if self.status != "complete":
            status += f"; {self.status}"
        return Draws(
            drawn(self.choices), {}, self.target, status, derived=drawn(self.derived),
            dims=self.dims, coords=self.coords,
        )  # fmt: skip

    def derive(self, key: Any = None, *, target: Target | None = None, **named: Any) -> Particles:
        """These particles with derived quantities more, as `Draws.derive` makes them."""
        both = self.plain.derive(key, target=target, **named)
        return replace(self, derived=both.derived, dims=both.dims, coords=both.coords)

    def save(self, path: str | os.PathLike) -> None:
        """All of it in one file, which `load` reads to the same bits; as `Draws.save`.

        >>> import tempfile, numpy as np
        >>> from inference import Particles
        >>> path = tempfile.mkdtemp() + "/particles.npz"
        >>> Particles({"mu": np.arange(6.0).reshape(2, 3)}, np.zeros((2, 3))).save(path)
        >>> Particles.load(path)["mu"].tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        """
        from .saved import save_particles

        save_particles(self, path)

    @staticmethod
    def load(path: str | os.PathLike, target: Target | None = None) -> Particles:
        """The particles in a file that `save` wrote.

        Raises:
          CheckpointError: the file is missing or damaged, has no particles, or those of another
            target; it says what differs.
        """
        from .saved import load_particles

        return load_particles(path, target)

    def __repr__(self) -> str:
        runs, n = self.shape
        names = ", ".join(
            errors.show(path) + (f": {list(x.shape[2:])}" if x.ndim > 2 else "")
            for path, x in flatten({**self.choices, **self.derived}).items()
        )
        head = f"Particles({runs} run{'s' * (runs != 1)} x {n} particles; {names}; {self.told}"
        return f"{head}; {self.status})\n{self.verdict().line}"
