"""Which elements of a choice its support fixes: the corner of a Cholesky factor, say.

Such an element is the same in all draws, which is no fault of a kernel.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import Site
from ppl.coordinates import known_bijection
from ppl.distributions import elementwise


def fixed_elements(site: Site) -> np.ndarray:
    """Where a choice has one value only, as far as its support tells before anything runs.

    A continuous support is the image of unconstrained space: an element that two points of that
    have in common does not depend on the point. A discrete one is enumerated, or known by its
    bounds (not where a loop computes them).

    Returns:
      bool array of the shape of the choice.

    >>> import numpyro.distributions as dist
    >>> from inference.results.fixed import fixed_elements
    >>> from ppl import gen, sample
    >>> model = gen(lambda: sample("L", dist.LKJCholesky(2)))
    >>> fixed_elements(model.sites()["L",]).tolist()
    [[True, True], [False, False]]
    """
    none = np.zeros(site.shape, bool)
    support = _base(site.distribution.support)
    if site.others or not none.size:
        return none
    if site.kind == "Delta":
        return ~none
    if jnp.issubdtype(site.dtype, jnp.floating):
        # of numbers of their own a support fixes none
        return _by_bijection(site, none) if support.event_dim else none
    one = _has_one_value(site, support)
    return np.broadcast_to(one, site.shape) if one is not None else none


def _by_bijection(site: Site, none: np.ndarray) -> np.ndarray:
    bijection = known_bijection(site)
    if bijection is None:
        return none
    random = np.random.default_rng(0)
    shape = bijection.inverse_shape(site.shape)
    points = [jnp.asarray(random.uniform(-1.0, 1.0, shape), site.dtype) for _ in range(2)]
    first, second = (np.asarray(bijection(z)) for z in points)
    # what differs does so by about one; what is the same may be computed to be so
    rounding = 64 * np.finfo(first.dtype).eps * np.maximum(1.0, np.abs(first))
    return np.abs(first - second) <= rounding


def _base(support: Any) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _has_one_value(site: Site, support: Any) -> Any:
    """Which elements of a discrete choice have one value; None where that is not known."""
    d = elementwise(site.distribution)
    try:
        if isinstance(d, (dist.MultinomialProbs, dist.MultinomialLogits)):
            return (np.asarray(d.total_count) == 0)[..., None] | (d.event_shape[-1] == 1)
        if d.has_enumerate_support:
            return len(d.enumerate_support(expand=False)) == 1
        low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
        return None if low is None or high is None else np.asarray(low) == np.asarray(high)
    except (NotImplementedError, TypeError, jax.errors.JAXTypeError):  # bounds without values
        return None
