"""Normal guides in the unconstrained space of a target: independent, correlated, in between.

All have a location and the log of a scale for each coordinate of each latent, in nested dicts by
address; the correlated ones add to that:

| guide | coordinates | numbers, for n of them |
| --- | --- | --- |
| `mean_field` | independent | 2n |
| `low_rank` | share r factors | (2 + r)n |
| `full_rank` | each depends on all before it | 2n + n(n - 1)/2 |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import GenerativeFunction, Target

from ..mcmc.space import Space
from ..targets.stochastic import Stochastic
from ..validation.settings import check_count
from .joint import check_scale, joint, noise, space_of, started
from .triangular import triangular, vectors


def mean_field(
    target: Target, start: Mapping[str, Any] | None = None, *, scale: float = 0.1
) -> tuple[GenerativeFunction | Stochastic, dict[str, Any]]:
    """`(guide, parameters)`: independent normals in unconstrained space, for each latent.

    Of a target whose latents are all unconstrained the guide is a generative function that makes
    each of them at its address. With constrained ones it is one law of all, a `Stochastic` whose
    density is exact, too.

    Args:
      target: a target whose latents are continuous and always made.
      start: latents at which the parameters start; by default 0 in unconstrained space.
      scale: the standard deviations with which they start, there.

    Returns:
      The guide; and its parameters, `loc` and `log_scale`, each a nested dict by address.

    Raises:
      InvalidArgument: a latent is discrete, lies in a branch, or has no bijection to
        unconstrained space; `scale` is not positive; the start is on an end of a support.

    Source: Kucukelbir et al., Automatic differentiation variational inference (JMLR 2017).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import elbo, mean_field
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> guide, parameters = mean_field(target)
    >>> exact = {"loc": {"mu": 1.0}, "log_scale": {"mu": -0.5 * jnp.log(2.0)}}
    >>> bound = integrate(elbo(target, guide), nodes=8)
    >>> print(f"{bound(parameters):.3f} {bound(exact):.3f}")  # the log evidence: N(2; 0, 2)
    -4.732 -2.266
    """
    check_scale(scale)
    space = space_of(target)
    ties = np.zeros((space.size, space.size), bool)
    return triangular(target, space, ties, "mean_field"), started(space, start, scale)


def full_rank(
    target: Target, start: Mapping[str, Any] | None = None, *, scale: float = 0.1
) -> tuple[GenerativeFunction | Stochastic, dict[str, Any]]:
    """`(guide, parameters)`: one normal for all latents in unconstrained space.

    z_i = loc_i + the sum over all j before i of c_ij (z_j - loc_j) + exp(log_scale_i) x_i, with
    x from standard normals: any covariance has these coefficients.

    Args:
      target, start, scale: as for `mean_field`, as which it starts.

    Returns:
      The guide, as for `mean_field`; and its parameters, `loc` and `log_scale` as there, and
      `coefficients`, the c_ij row by row.

    Raises:
      InvalidArgument: as for `mean_field`.

    Source: Kucukelbir et al., Automatic differentiation variational inference (JMLR 2017); the
    coefficients by Pourahmadi (Biometrika 1999).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import elbo, full_rank
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     nu = sample("nu", dist.Normal(mu, 1.0))
    ...     sample("y", dist.Normal(nu, 1.0))
    >>> target = Target(model, (), {"y": 3.0})
    >>> guide, parameters = full_rank(target)
    >>> parameters["coefficients"].shape
    (1,)
    >>> loc = {"mu": 1.0, "nu": 2.0}
    >>> log_scale = {"mu": 0.5 * jnp.log(2 / 3), "nu": 0.5 * jnp.log(1 / 2)}
    >>> exact = {"loc": loc, "log_scale": log_scale, "coefficients": jnp.array([0.5])}
    >>> print(f"{integrate(elbo(target, guide), nodes=8)(exact):.3f}")  # log N(3; 0, 3)
    -2.968
    """
    check_scale(scale)
    space = space_of(target)
    coefficients = jnp.zeros(space.size * (space.size - 1) // 2, space.dtype)
    ties = np.ones((space.size, space.size), bool)
    parameters = {**started(space, start, scale), "coefficients": coefficients}
    return triangular(target, space, ties, "full_rank"), parameters


def low_rank(
    target: Target,
    rank: int,
    start: Mapping[str, Any] | None = None,
    *,
    scale: float = 0.1,
) -> tuple[Stochastic, dict[str, Any]]:
    """`(guide, parameters)`: a normal with a covariance of low rank plus diagonal.

    Args:
      target, start, scale: as for `mean_field`.
      rank: the number r of shared factors.

    Returns:
      The guide, a `Stochastic` whose density is exact, for all latents are made at once; and its
      parameters, those of `mean_field` and `factors` W, of shape (n, r): the
      covariance is S(I + WW')S, with S the scales. The factors start as small cosine waves; at 0
      they would stay.

    Raises:
      InvalidArgument: as for `mean_field`; or the rank is not from 1 to n.

    Source: Ong, Nott and Smith, Gaussian variational approximation with a factor covariance
    structure (JCGS 2018).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import low_rank
    >>> from ppl import Target, gen, sample
    >>> wide = gen(lambda: sample("x", dist.Normal(jnp.zeros(100), 1.0)))
    >>> guide, parameters = low_rank(Target(wide), 2)
    >>> parameters["factors"].shape
    (100, 2)
    """
    check_scale(scale)
    space = space_of(target)
    check_count("rank", rank, most=space.size)
    rows = (jnp.arange(space.size, dtype=space.dtype) + 0.5) / space.size
    waves = 0.1 * jnp.cos(jnp.pi * rows[:, None] * jnp.arange(1, rank + 1))
    parameters = {**started(space, start, scale), "factors": waves.astype(space.dtype)}
    return joint(target, LowRank(), "low_rank"), parameters


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class LowRank:
    """A normal whose standardised coordinates are x + Wu, u few shared factors."""

    def drawn(self, space: Space, parameters: Any) -> tuple[jax.Array, jax.Array]:
        loc, log_scale = vectors(space, parameters)
        factors = parameters["factors"]
        x, u = jnp.split(noise(space, sum(factors.shape)), [space.size])
        z = loc + jnp.exp(log_scale) * (x + factors @ u)
        return z, self.log_density(space, parameters, z)

    def log_density(self, space: Space, parameters: Any, z: jax.Array) -> jax.Array:
        loc, log_scale = vectors(space, parameters)
        ones = jnp.ones(space.size, space.dtype)
        law = dist.LowRankMultivariateNormal(0 * ones, parameters["factors"], ones)
        return law.log_prob((z - loc) * jnp.exp(-log_scale)) - jnp.sum(log_scale)
