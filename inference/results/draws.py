"""Draws of a run: arrays by address, with chain and draw axes in front.

Some lines over 400: of these, half are what each method says of itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ppl import Target, errors
from ppl.addresses import as_path, flatten, nest, not_found
from ppl.labels import Labels
from ppl.masks import leading
from ppl.program import Path

from ..validation.objects import check_target
from ..validation.settings import shown
from .checks import Diagnosed, judge
from .fixed import fixed_elements
from .precision import Limit, limit
from .summary import Summary, diagnose, summarize
from .timing import Timing
from .verdict import Divergences, Verdict, bfmi, divergences


@dataclass(frozen=True, eq=False)
class Draws:
    """What a run of chains gives: draws of the posterior, on the host.

    Attributes:
      choices: nested dict of numpy arrays of shape (chains, draws, *shape of the choice).
      stats: what the kernels report of each transition, arrays of shape (chains, draws),
        named "<kernel>/<statistic>", or "<statistic>" for a kernel that is alone:
        `accept` (probability), `diverging` (bool), `energy` (the Hamiltonian), `steps`
        (leapfrogs), `depth` (of the tree), `step_size`. They are looked up by the last part.
      target: what was drawn from; predictions, likelihoods and exports need it.
      status: "complete", or how the run ended before.
      tuned: what the warm-up left, and did. By chain, and named as statistics are: the kernels'
        parameters (`step_size`; `inverse_mass`, or its parts as `inverse_mass.axes`), the mean
        `warmup_accept`, `warmup_steps` and `warmup_diverging` (in all). Of all chains: `warmup`,
        the number of transitions, and `windows`, the first and last of each window.
      derived: functions of the choices, as nested dicts of arrays of the same axes, which are
        summarised and exported with them; `derive` adds some.
      timing: seconds of the run, and which programs it compiled, why, and for how long; None of
        draws that no run has made.
      dims, coords: names of axes by address, and labels along them, as of a `Target`; those of
        the target are among them. Elements are then called by their labels.

    Raises:
      ShapeError: two arrays have other chain and draw axes, or dims or coords do not fit.
      InvalidArgument: what is derived has the name of a choice; dims or coords are none.

    >>> import numpy as np
    >>> from inference import Draws
    >>> draws = Draws({"mu": np.zeros((4, 100)), "sub": {"x": np.ones((4, 100, 2))}})
    >>> draws
    Draws(4 chains x 100 draws; "mu", "sub", "x": [2]; complete)
    >>> draws["sub", "x"].shape
    (4, 100, 2)
    >>> {name: array.shape for name, array in draws.scalars().items()}
    {'mu': (4, 100), 'sub/x[1]': (4, 100), 'sub/x[2]': (4, 100)}
    >>> y = np.zeros((4, 100, 2))
    >>> list(Draws({"y": y}, dims={"y": ("year",)}, coords={"year": [1851, 1852]}).scalars())
    ['y[1851]', 'y[1852]']
    """

    choices: Mapping[str, Any]
    stats: Mapping[str, Any] = field(default_factory=dict)
    target: Target | None = None
    status: str = "complete"
    tuned: Mapping[str, Any] = field(default_factory=dict)
    derived: Mapping[str, Any] = field(default_factory=dict)
    timing: Timing | None = None
    dims: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels = field(init=False, repr=False)

    def __post_init__(self):
        if not isinstance(self.stats, Mapping):
            raise errors.InvalidArgument(
                "Statistics are a dict of arrays.", where=errors.caller(), given=shown(self.stats),
                expected='{"accept": array}, of shape (chains, draws)', fix="leave them out",
            )  # fmt: skip
        if self.target is not None:
            check_target(self.target)
        if not isinstance(self.status, str):
            raise errors.InvalidArgument(
                "The status is a string.", where=errors.caller(), given=shown(self.status),
                expected='"complete", or how the run ended before', fix="leave it out",
            )  # fmt: skip
        # frozen: what is given may be on a device, and is brought to the host once
        values = {path: np.asarray(x) for path, x in flatten(self.choices).items()}
        object.__setattr__(self, "choices", nest(values))
        object.__setattr__(self, "stats", {k: np.asarray(v) for k, v in self.stats.items()})
        object.__setattr__(self, "tuned", {k: np.asarray(v) for k, v in self.tuned.items()})
        others = {path: np.asarray(x) for path, x in flatten(self.derived).items()}
        object.__setattr__(self, "derived", nest(others))
        check_names(values, others)
        named = [(errors.show(p), x) for p, x in (*values.items(), *others.items())]
        named += [(f'the statistic "{name}"', x) for name, x in self.stats.items()]
        for name, x in named:
            axes = x.shape[:2] if name.startswith('"') else x.shape
            if len(axes) != 2 or axes != named[0][1].shape[:2]:
                raise errors.ShapeError(
                    f"The array of {name} does not have the chain and draw axes of the others.",
                    where=errors.caller(),
                    given=f"shape {x.shape}",
                    expected=f"(chains, draws, ...) = {(*named[0][1].shape[:2], ...)}"
                    if len(named[0][1].shape) > 1
                    else "shape (chains, draws, ...)",
                    fix="put the chain axis first and the draw axis second; "
                    "one chain has shape (1, draws, ...)",
                )
        labels = Labels.of(self.dims, self.coords)
        if self.target is not None:
            labels = self.target.labels | labels
        # of what the arrays have not, there may be predictions
        labels.check_shapes({path: x.shape[2:] for path, x in self._arrays.items()})
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "dims", labels.tree)
        object.__setattr__(self, "coords", dict(labels.coords))

    def __getitem__(self, address: str | tuple[str, ...]) -> Any:
        """The draws (or the dict of draws) at an address.

        Raises:
          AddressNotFound: with the nearest address.
        """
        level: Any = {**self.choices, **self.derived}
        path = as_path(address)
        for part in path:
            if not isinstance(level, Mapping) or part not in level:
                raise not_found(path, self._arrays, "The lookup in the draws")
            level = level[part]
        return level

    def __repr__(self) -> str:
        chains, draws = self.shape
        shown = "; ".join(
            errors.show(path) + (f": {list(x.shape[2:])}" if x.ndim > 2 else "")
            for path, x in self._arrays.items()
        )
        shown = shown.replace("; ", ", ")
        return f"Draws({chains} chains x {draws} draws; {shown}; {self.status})"

    @property
    def shape(self) -> tuple[int, int]:
        """(chains, draws); (0, 0) where there is no array at all."""
        for x in (*self._arrays.values(), *self.stats.values()):
            return x.shape[:2]
        return 0, 0

    @property
    def _arrays(self) -> dict[Path, np.ndarray]:
        """The choices and what is derived of them, by path."""
        return {**flatten(self.choices), **flatten(self.derived)}

    def columns(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """By address: the names of its scalars, and an array (chains, draws, scalars).

        Of an observed array with gaps, the scalars are what is missing.
        """
        gaps = self.target.gaps if self.target is not None else {}
        for path, x in self._arrays.items():
            names = self.labels.names(path, x.shape[2:])
            rows = x.reshape(*x.shape[:2], len(names))
            if path in gaps:
                shape = x.shape[2:]
                seen = np.broadcast_to(leading(gaps[path].seen, len(shape)), shape)
                at = np.flatnonzero(~seen)
                names, rows = [names[i] for i in at], rows[..., at]
            yield names, rows

    def scalars(self) -> dict[str, np.ndarray]:
        """Every scalar by name (`mu`, `theta[3]`, or by its label, `theta[Choate]`), as arrays of
        shape (chains, draws)."""
        return {name: x[..., i] for names, x in self.columns() for i, name in enumerate(names)}

    def statistic(self, name: str) -> dict[str, np.ndarray]:
        """The statistics whose name ends in `name`, by full name; empty if there is none."""
        return {full: x for full, x in self.stats.items() if full.split("/")[-1] == name}

    @cached_property
    def _limit(self) -> Limit | None:
        return limit(self.target, self.choices)

    @cached_property
    def _diagnosed(self) -> dict[str, dict[str, Any]]:
        return diagnose(self.columns(), self._fixed)

    @cached_property
    def _fixed(self) -> frozenset[str]:
        """The names of scalars that the supports of the target fix."""
        sites = self.target.sites if self.target is not None else {}
        found: set[str] = set()
        for path, x in flatten(self.choices).items():
            if path in sites and sites[path].shape == x.shape[2:]:
                there = fixed_elements(sites[path]).ravel()
                names = self.labels.names(path, x.shape[2:])
                found.update(n for n, yes in zip(names, there, strict=True) if yes)
        return frozenset(found)

    def summary(self, prob: float = 0.9) -> Summary:
        """A row per scalar: mean, sd, equal-tailed interval, MCSE, ESS, R-hat.

        Prints as a table whose last line is the verdict; see `Summary`.

        Args:
          prob: the probability of the interval.

        Raises:
          InvalidArgument: `prob` is not between 0 and 1.
        """
        return summarize(self._diagnosed, self.columns(), prob, self.shape, self.verdict())

    def verdict(self) -> Verdict:
        """Whether the chains agree and are long enough, and what to do if not; see `Verdict`."""
        return self._verdict

    @cached_property
    def _verdict(self) -> Verdict:
        others = Draws({}, derived=self.derived, dims=self.dims, coords=self.coords).scalars()
        found = Diagnosed(
            rows=self._diagnosed,
            shape=self.shape,
            stats=self.stats,
            status=self.status,
            scalars=self.scalars(),
            target=self.target,
            derived=frozenset(others),
            limit=self._limit,
        )
        return judge(found)

    def divergences(self) -> Divergences:
        """How many transitions diverged in each chain, and which.

        Raises:
          InvalidArgument: no kernel of the run reports divergences.
        """
        return divergences(self._reported("diverging"))

    def bfmi(self) -> dict[str, np.ndarray]:
        """By energy statistic, the Bayesian fraction of missing information of each chain.

        Below 0.3 the momentum does not move the energy over its whole range (Betancourt
        2016, "Diagnosing suboptimal cotangent disintegrations in HMC").

        Raises:
          InvalidArgument: no kernel of the run reports its energy, or chains are of one draw.
        """
        found = self._reported("energy")
        if self.shape[1] < 2:
            raise errors.InvalidArgument(
                "Energies are compared from one draw to the next.", where=errors.caller(),
                given=f"{self.shape[0]} chains x {self.shape[1]} draws",
                expected="2 draws a chain, or more", fix="draw more: 4 chains of 1000",
            )  # fmt: skip
        return {name: bfmi(x) for name, x in found.items()}

    def derive(
        self, key: Any = None, *, target: Target | None = None,
        dims: Mapping[str, Any] | None = None, coords: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Draws:  # fmt: skip
        """These draws with derived quantities more; see `inference.results.derived.derive`.

        Args:
          key: one PRNG key, where a return value is random.
          target: the target of the draws, where they do not carry it.
          dims, coords: names of their axes and labels along them, beside those of the draws.
          named: by name, a function of the latents of one draw; or "retval", the return value
            of the model at them.

        Raises:
          InvalidArgument: it is neither; a name is that of a choice; or a key is due.
          AddressNotFound, ShapeError: dims are of nothing that there is, or do not fit.

        >>> import numpy as np
        >>> from inference import Draws
        >>> draws = Draws({"a": np.array([[1.0, 2.0]]), "b": np.array([[4.0, 4.0]])})
        >>> draws.derive(ratio=lambda latents: latents["a"] / latents["b"])["ratio"].tolist()
        [[0.25, 0.5]]
        """
        from .derived import derive

        return derive(self, named, key, target, dims, coords)

    def returned(self, key: Any = None, *, target: Target | None = None) -> Draws:
        """These draws with the parts of what the model returns, each by its own name.

        Of an imported model they are its deterministic sites; see `inference.results.derived`.

        Args:
          key: one PRNG key, where a return value is random.
          target: the target of the draws, where they do not carry it.

        Raises:
          InvalidArgument: the model returns no dict; a name is that of a choice; a key is due.
        """
        from .derived import returned

        return returned(self, key, target)

    def save(self, path: str | os.PathLike) -> None:
        """All of it in one file, which `load` reads to the same bits.

        A numpy archive without pickles. It has the fingerprints of the target, not the target.

        >>> import tempfile, numpy as np
        >>> from inference import Draws
        >>> path = tempfile.mkdtemp() + "/draws.npz"
        >>> Draws({"mu": np.arange(6.0).reshape(2, 3)}).save(path)
        >>> Draws.load(path)["mu"].tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        """
        from .saved import save

        save(self, path)

    @staticmethod
    def load(path: str | os.PathLike, target: Target | None = None) -> Draws:
        """The draws in a file that `save` wrote.

        Args:
          target: what they are draws of; it must be what they were made of.

        Raises:
          CheckpointError: the file is missing or damaged, or has the draws of another target;
            it says what differs.
        """
        from .saved import load

        return load(path, target)

    def _reported(self, name: str) -> dict[str, np.ndarray]:
        found = self.statistic(name)
        if not found:
            raise errors.InvalidArgument(
                f'These draws have no statistic "{name}".',
                where=errors.caller(),
                given="statistics: " + (", ".join(self.stats) or "none"),
                expected=f'"{name}" or "<kernel>/{name}"',
                fix="draw by a kernel that reports it (hmc, nuts)",
            )
        return found


def check_some(draws: Draws) -> None:
    """Raise `InvalidArgument` if there are no draws.

    >>> import numpy as np
    >>> from inference import Draws
    >>> from inference.results.draws import check_some
    >>> check_some(Draws({"mu": np.zeros((1, 1))}))
    """
    chains, n = draws.shape
    if not chains * n:
        raise errors.InvalidArgument(
            "There are no draws.", where=errors.caller(), given=f"{chains} chains x {n} draws",
            expected="one draw, or more", fix="sample_posterior(key, target, kernel)",
        )  # fmt: skip


def check_names(choices: Iterable[Path], derived: Iterable[Path]) -> None:
    """Raise `InvalidArgument` where a choice and something derived have one name.

    >>> from inference.results.draws import check_names
    >>> check_names([("mu",)], [("ratio",)])
    """
    for path in derived:
        same = [p for p in choices if p[0] == path[0]]
        if same:
            raise errors.InvalidArgument(
                f"What is derived has the name of the choice {errors.show(same[0])}.",
                where=errors.caller(), given=errors.show(path), expected="a name of its own",
                fix=f'derive(the_{path[0]}=...)',
            )  # fmt: skip


def check_draws(draws: Any) -> None:
    """Raise `InvalidArgument` unless `draws` are `Draws`.

    >>> from inference.results.draws import check_draws
    >>> try:
    ...     check_draws([1.0])
    ... except ValueError as error:
    ...     print(error.what)
    Draws were expected.
    """
    if not isinstance(draws, Draws):
        weighted = callable(getattr(draws, "resampled", None))
        raise errors.InvalidArgument(
            "Draws were expected.", where=errors.caller(), given=shown(draws),
            expected="draws that count alike" if weighted
            else "what sample_posterior gives, or Draws of one's own",
            fix="draws by weight: particles.resampled(key, 1000)" if weighted
            else 'Draws({"mu": array}), of shape (chains, draws, ...)',
        )  # fmt: skip
