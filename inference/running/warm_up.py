"""What a warm-up did: the parameters that it found, and how its steps went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..kernel import Kernel

_TOLD = ("accept", "steps", "diverging")


class WarmUp:
    """Sums over the steps of a warm-up of what the kernels reported, by chain.

    Attributes:
      sums: by the name of a statistic, an array (2, chains): the sum, and of how many steps.

    >>> import numpy as np
    >>> from inference import Kernel
    >>> from inference.running.warm_up import WarmUp
    >>> told = WarmUp()
    >>> for accept in ([[0.5, 1.0]], [[0.0]]):
    ...     told.add({"stat:mh/accept": np.array(accept), "choice:mu": np.zeros((1, 1))})
    >>> told.tuned(Kernel("mh", lambda p, x: (x, {}), {"width": 2.0}), {"width": np.ones(1)}, 3)
    {'width': array([1.]), 'mh/warmup_accept': array([0.5]), 'warmup': array(3)}
    """

    def __init__(self, sums: Mapping[str, np.ndarray] | None = None):
        self.sums = dict(sums or {})

    def add(self, block: Mapping[str, np.ndarray]) -> None:
        """What a block of steps reported: arrays (chains, steps) by name."""
        for full, x in block.items():
            name = full.removeprefix("stat:")
            if full == name or name.split("/")[-1] not in _TOLD or x.ndim != 2:
                continue
            there = np.isfinite(x)  # of a kernel that a mixture did not take
            more = np.stack([np.where(there, x, 0).sum(1, dtype=np.float64), there.sum(1)])
            self.sums[name] = self.sums[name] + more if name in self.sums else more

    def tuned(self, kernel: Kernel, parameters: Any, n: int) -> dict[str, np.ndarray]:
        """The parameters by name, and what a warm-up of `n` steps did; see `Draws.tuned`."""
        found = dict(kernel.named(parameters))
        for full, (total, count) in self.sums.items():
            *prefix, name = full.split("/")
            value = total / np.maximum(count, 1) if name == "accept" else total
            found["/".join([*prefix, f"warmup_{name}"])] = value
        if kernel.tuning is not None and kernel.tuning.schedule is not None:
            found |= kernel.tuning.schedule(n)
        return {**found, "warmup": np.asarray(n)}


def step_sizes(
    kernel: Kernel, tuned: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The step size of each draw, as ArviZ has it; none of a population, whose chains are many.

    >>> import numpy as np
    >>> from inference import Kernel
    >>> from inference.running.warm_up import step_sizes
    >>> kernel = Kernel("hmc", lambda p, x: (x, {}))
    >>> step_sizes(kernel, {"step_size": np.array([0.1, 0.2])}, (2, 3))["step_size"].shape
    (2, 3)
    """
    if kernel.members is not None:
        return {}
    return {
        name: np.broadcast_to(x[:, None], shape)
        for name, x in tuned.items()
        if name.split("/")[-1] == "step_size" and np.shape(x) == shape[:1]
    }
