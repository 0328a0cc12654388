"""Draws of a run: arrays by address, with chain and draw axes in front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ppl import Target, errors
from ppl.addresses import as_path, flatten, nest, not_found
from ppl.program import Path

from .checks import Diagnosed, judge
from .fixed import fixed_elements
from .summary import Summary, diagnose, summarize
from .verdict import Divergences, Verdict, bfmi, divergences


@dataclass(frozen=True, eq=False)
class Draws:
    """What a run of chains gives: draws of the posterior, on the host.

    Attributes:
      choices: nested dict of numpy arrays of shape (chains, draws, *shape of the choice).
      stats: what the kernels report of each transition, arrays of shape (chains, draws),
        named "<kernel>/<statistic>", or "<statistic>" for a kernel that is alone:
        `accept` (probability), `diverging` (bool), `energy` (the Hamiltonian), `steps`
        (leapfrogs), `depth` (of the tree). They are looked up by the last part.
      target: what was drawn from; predictions, likelihoods and exports need it.
      status: "complete", or how the run ended before.

    Raises:
      ShapeError: two arrays have other chain and draw axes.

    >>> import numpy as np
    >>> from inference import Draws
    >>> draws = Draws({"mu": np.zeros((4, 100)), "sub": {"x": np.ones((4, 100, 2))}})
    >>> draws
    Draws(4 chains x 100 draws; "mu", "sub", "x": [2]; complete)
    >>> draws["sub", "x"].shape
    (4, 100, 2)
    >>> {name: array.shape for name, array in draws.scalars().items()}
    {'mu': (4, 100), 'sub/x[1]': (4, 100), 'sub/x[2]': (4, 100)}
    """

    choices: Mapping[str, Any]
    stats: Mapping[str, Any] = field(default_factory=dict)
    target: Target | None = None
    status: str = "complete"

    def __post_init__(self):
        # frozen: what is given may be on a device, and is brought to the host once
        values = {path: np.asarray(x) for path, x in flatten(self.choices).items()}
        object.__setattr__(self, "choices", nest(values))
        object.__setattr__(self, "stats", {k: np.asarray(v) for k, v in self.stats.items()})
        named = [(errors.show(p), x) for p, x in flatten(self.choices).items()]
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

    def __getitem__(self, address: str | tuple[str, ...]) -> Any:
        """The draws (or the dict of draws) at an address.

        Raises:
          AddressNotFound: with the nearest address.
        """
        level: Any = self.choices
        path = as_path(address)
        for part in path:
            if not isinstance(level, Mapping) or part not in level:
                raise not_found(path, flatten(self.choices), "The lookup in the draws")
            level = level[part]
        return level

    def __repr__(self) -> str:
        chains, draws = self.shape
        shown = "; ".join(
            errors.show(path) + (f": {list(x.shape[2:])}" if x.ndim > 2 else "")
            for path, x in flatten(self.choices).items()
        )
        shown = shown.replace("; ", ", ")
        return f"Draws({chains} chains x {draws} draws; {shown}; {self.status})"

    @property
    def shape(self) -> tuple[int, int]:
        """(chains, draws); (0, 0) where there is no array at all."""
        for x in (*flatten(self.choices).values(), *self.stats.values()):
            return x.shape[:2]
        return 0, 0

    def columns(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """By address: the names of its scalars, and an array (chains, draws, scalars)."""
        for path, x in flatten(self.choices).items():
            names = _names(path, x.shape[2:])
            yield names, x.reshape(*x.shape[:2], len(names))

    def scalars(self) -> dict[str, np.ndarray]:
        """Every scalar by name (`mu`, `theta[3]`), as arrays of shape (chains, draws)."""
        return {name: x[..., i] for names, x in self.columns() for i, name in enumerate(names)}

    def statistic(self, name: str) -> dict[str, np.ndarray]:
        """The statistics whose name ends in `name`, by full name; empty if there is none."""
        return {full: x for full, x in self.stats.items() if full.split("/")[-1] == name}

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
                found.update(
                    n for n, yes in zip(_names(path, x.shape[2:]), there, strict=True) if yes
                )
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
        scalars = self.scalars()
        return judge(
            Diagnosed(self._diagnosed, self.shape, self.stats, self.status, scalars, self.target)
        )

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
          InvalidArgument: no kernel of the run reports its energy.
        """
        return {name: bfmi(x) for name, x in self._reported("energy").items()}

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


def _names(path: Path, shape: tuple[int, ...]) -> list[str]:
    """The names of the scalars of an array: `theta[3]`, counted from 1."""
    return [
        "/".join(path) + ("[" + ",".join(str(i + 1) for i in at) + "]" if at else "")
        for at in np.ndindex(shape)
    ]
