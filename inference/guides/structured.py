"""A normal guide in which each coordinate depends on those that the posterior ties it to.

In unconstrained space the log density of a target ties two coordinates if it is not a sum of a
function without the one and a function without the other, so if their second derivative is not
zero. In the order of the model the last coordinate, given all others, depends on those that it
is tied to; summed out, it ties these to one another; and so on. What is found is exact for every
linear model with normal noise: a chain has one coefficient a step, the elements of a plate
depend on what they share and not on each other, and two causes of one observation are tied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, Target
from ppl.estimates import check_density_exact

from ..mcmc.space import Space
from ..targets.stochastic import Stochastic
from .joint import check_scale, space_of, started
from .triangular import triangular

_POINTS = 2
"""A second derivative that is zero at so many points is taken to be zero."""


def structured(
    target: Target, start: Mapping[str, Any] | None = None, *, scale: float = 0.1
) -> tuple[GenerativeFunction | Stochastic, dict[str, Any]]:
    """`(guide, parameters)`: normals along the graph of the posterior, in unconstrained space.

    z_i = loc_i + the sum of c_ij (z_j - loc_j) + exp(log_scale_i) x_i, over the j before i, in
    the order of the model, on which z_i depends in the posterior of a linear model with normal
    noise and the same ties. Choices in the model that come early should be those that many others
    depend on, as they mostly do: the fewer coefficients there are.

    The ties are found by n products with a Hessian, for n coordinates, at two fixed points. One
    that is missed (a function that is flat at both) leaves the guide without a coefficient, but
    with the density that it says.

    Args:
      target: a target whose latents are continuous and always made, with a density.
      start: latents at which the parameters start; by default 0 in unconstrained space.
      scale: the standard deviations with which they start, there.

    Returns:
      The guide, as for `mean_field`; and its parameters, `loc` and `log_scale` as there, and
      `coefficients`, the c_ij row by row, which start at 0.

    Raises:
      InvalidArgument: as for `mean_field`; or the density is only estimated.

    Source: Hoffman and Blei, Structured stochastic variational inference (AISTATS 2015); the
    ties by Webb et al., Faithful inversion of generative models (NeurIPS 2018).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import structured
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def walk():
    ...     step = lambda z, _: (sample("z", dist.Normal(z, 1.0)),) * 2
    ...     _, z = jax.lax.scan(step, 0.0, jnp.arange(50))
    ...     sample("y", dist.Normal(z, 1.0))
    >>> guide, parameters = structured(Target(walk, (), {"y": jnp.zeros(50)}))
    >>> parameters["coefficients"].shape  # each step given the one before
    (49,)
    """
    check_scale(scale)
    space = space_of(target)
    check_density_exact(target, "A guide by the ties of a posterior")
    ties = dependences(space)
    coefficients = jnp.zeros(np.count_nonzero(ties), space.dtype)
    parameters = {**started(space, start, scale), "coefficients": coefficients}
    return triangular(target, space, ties, "structured"), parameters


def dependences(space: Space) -> np.ndarray:
    """Which coordinates each depends on of those before it: bool, of shape (n, n)."""
    rest, points = space.target, np.random.default_rng(0).normal(size=(_POINTS, space.size))
    curved = _curvatures(rest, jnp.asarray(points, space.dtype))
    tied = np.any(np.asarray(curved) != 0, axis=0)  # what is no number counts
    tied |= tied.T
    for i in range(space.size - 1, 0, -1):
        before = np.flatnonzero(tied[i, :i])
        tied[np.ix_(before, before)] = True
    return np.tril(tied, -1)


@jax.jit
def _curvatures(target: Target, points: jax.Array) -> jax.Array:
    potential = Space(target).potential(None)
    return jax.lax.map(jax.hessian(potential), points)
