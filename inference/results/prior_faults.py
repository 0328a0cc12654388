"""Why chains diverge, where the model itself is at fault: looked for in draws of the prior."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np

from ppl import Target, errors, seed

from .effort import effort

DRAWS = 200


def prior_faults(target: Target) -> dict[str, int]:
    """What is wrong with a model, and in how many of 200 draws of its prior; worst first.

    Chains never keep a point at which a parameter is outside its constraint, so that the
    draws do not show it: it is where their trajectories break off. Nothing where the prior
    is improper.

    >>> import numpyro.distributions as dist
    >>> from inference.results.prior_faults import prior_faults
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     s = sample("s", dist.Normal(3.0, 0.01))
    ...     sample("y", dist.Normal(0.0, -s))
    >>> next(iter(prior_faults(Target(model, (), {"y": 0.5})).items()))
    ('the parameter `scale` of "y" is outside positive(0)', 200)
    """

    data, tree = jax.tree.flatten(target)
    try:
        found = _program(tree)(data)
    except errors.PPLError:  # an improper prior has no draws
        return {}
    counts = {name: int(np.asarray(flags).sum()) for name, flags in found.items()}
    wrong = [(name, count) for name, count in counts.items() if count]
    # a parameter outside its constraint is why a density is no number
    return dict(sorted(wrong, key=lambda pair: (-pair[1], not pair[0].startswith("the param"))))


@lru_cache(maxsize=16)
def _program(tree: Any) -> Any:
    """From the data of a target, whether each fault is there, in each draw of its prior."""

    def faults(data: list) -> dict[str, jax.Array]:
        target = jax.tree.unflatten(tree, data)

        def one(key: jax.Array) -> dict[str, jax.Array]:
            trace, _ = seed(target.generate)(key, {})
            return target.faults(target.choices(trace))

        return jax.vmap(one)(jax.random.split(jax.random.key(0), DRAWS))

    return jax.jit(faults, compiler_options=effort(1))
