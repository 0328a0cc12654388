"""Normal choices as a mean plus a factor times standard normals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl.program import Spec

DEVIATION: dict[type, Callable] = {
    dist.Normal: lambda d, e: d.scale * e,
    dist.MultivariateNormal: lambda d, e: (d.scale_tril @ e[..., None])[..., 0],
}
"""How far from the mean a value is, from standard normals."""


def innermost(d: Any) -> Any:
    """A law without what only says which of its axes are of one event, or are repeated."""
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        d = d.base_dist
    return d


def is_gaussian(d: Any) -> bool:
    return type(innermost(d)) in DEVIATION


def mean_and_factor(spec: Spec, *leaves: Any) -> list:
    """The mean of a choice, of shape (k,), and a factor of its covariance, (k, k).

    >>> import jax, numpyro.distributions as dist
    >>> from inference.exact.gaussian_choices import mean_and_factor
    >>> from ppl.program import Spec
    >>> leaves, tree = jax.tree.flatten(dist.Normal(1.0, jax.numpy.array([2.0, 3.0])))
    >>> mean, factor = mean_and_factor(Spec(tree, (2,), float), *leaves)
    >>> mean.tolist(), factor.tolist()
    ([1.0, 1.0], [[2.0, 0.0], [0.0, 3.0]])
    """
    d = innermost(spec.tree.unflatten(leaves))
    mean = jnp.broadcast_to(d.loc, spec.shape).reshape(-1)
    each = jnp.eye(mean.size, dtype=spec.dtype).reshape(mean.size, *spec.shape)
    columns = jax.vmap(partial(DEVIATION[type(d)], d))(each)
    return [mean, columns.reshape(mean.size, mean.size).T]
