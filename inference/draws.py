"""Draws of a run: arrays by address, with chain and draw axes in front."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl import Target
from ppl.addresses import flatten


@dataclass(frozen=True)
class Draws:
    """Posterior draws: a nested dict of arrays with chain and draw axes in front.

    Attributes:
      choices: arrays of shape (chains, draws, *shape of the choice), by address.

    >>> import numpy as np
    >>> from inference import Draws
    >>> draws = Draws({"mu": np.zeros((4, 100)), "sub": {"x": np.ones((4, 100, 2))}})
    >>> {name: array.shape for name, array in draws.scalars().items()}
    {'mu': (4, 100), 'sub/x[1]': (4, 100), 'sub/x[2]': (4, 100)}
    """

    choices: Mapping[str, Any]
    stats: Mapping[str, Any] = field(default_factory=dict)
    target: Target | None = None
    status: str = "complete"

    def scalars(self) -> dict[str, np.ndarray]:
        """Every scalar by name (`mu`, `theta[3]`), as arrays of shape (chains, draws)."""
        found = {}
        for path, value in flatten(self.choices).items():
            array = np.asarray(value)
            for index in np.ndindex(array.shape[2:]):
                suffix = "[" + ",".join(str(i + 1) for i in index) + "]" if index else ""
                found["/".join(path) + suffix] = array[(slice(None), slice(None), *index)]
        return found

    def summary(self) -> dict[str, dict[str, float]]:
        """Per scalar: mean, sd, Monte Carlo standard error of the mean, bulk ESS, R-hat.

        By arviz-stats (Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021).
        """
        stats: Any = importlib.import_module("arviz_stats.base").array_stats
        axes: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
        rows = {}
        for name, x in self.scalars().items():
            rows[name] = {
                "mean": float(x.mean()),
                "sd": float(x.std(ddof=1)),
                "mcse": float(stats.mcse(x, **axes, method="mean")),
                "ess": float(stats.ess(x, **axes, method="bulk")),
                "rhat": float(stats.rhat(x, **axes)),
            }
        return rows
