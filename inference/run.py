"""Running a kernel: chains of draws by address, and their summary."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ppl import Target, seed
from ppl.addresses import flatten, nest
from ppl.randomness import checked_key

from .kernels import Kernel


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


def sample_posterior(
    key: jax.Array,
    target: Target,
    kernel: Kernel,
    *,
    draws: int = 1000,
    warmup: int = 1000,
    thin: int = 1,
    chains: int = 4,
) -> Draws:
    """Draws of the target's latents from `chains` vmapped chains of `kernel`.

    Each chain starts from the model's prior, runs `warmup` steps that are thrown
    away, then `draws * thin` steps of which every `thin`-th is kept.

    Args:
      key: one PRNG key; the same key gives the same draws.
      kernel: a random program from traces to traces that leaves `target` invariant.

    Raises:
      InvalidKey: `key` is not one PRNG key.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh, sample_posterior
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> draws = sample_posterior(jax.random.key(0), target, mh(target, "fair"))
    >>> bool(abs(draws.choices["fair"].mean() - 0.4) < 0.06)  # 4 * 1000 draws
    True
    """

    def chain():
        trace, _ = target.generate()

        def step(trace, _):
            return kernel(trace), None

        def keep(trace, _):
            trace, _ = jax.lax.scan(step, trace, None, length=thin)
            return trace, target.choices(trace)

        trace, _ = jax.lax.scan(step, trace, None, length=warmup)
        return jax.lax.scan(keep, trace, None, length=draws)[1]

    run = jax.jit(jax.vmap(seed(chain)))
    found = flatten(run(jax.random.split(checked_key(key), chains)))
    # jit sorts dicts; the model's own order reads better
    return Draws(nest({path: found[path] for path in target.latents}))
