"""The normal approximation at the mode of a target's density in unconstrained space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ppl import GenerativeFunction, Target, errors
from ppl.estimates import check_density_exact

from ..mcmc.space import Space
from ..targets.stochastic import Stochastic
from .joint import space_of, start_of
from .triangular import of_precision, triangular

_STEPS = 1000
_NEWTON = 20


def laplace(
    target: Target, start: Mapping[str, Any] | None = None
) -> tuple[GenerativeFunction | Stochastic, dict[str, Any]]:
    """`(guide, parameters)`: the normal at the mode, in unconstrained space, by its curvature.

    The mode is that of the density in unconstrained space, the log Jacobian included. It is
    found by L-BFGS, and then by Newton's steps; the covariance is the inverse of the negative
    Hessian there. The guide is that of `full_rank`, and may be fitted on from these parameters.

    Args:
      target: a target whose latents are continuous and always made, with a density.
      start: latents at which the search starts; by default 0 in unconstrained space.

    Returns:
      The guide; and its parameters, as for `full_rank`.

    Raises:
      InvalidArgument: as for `mean_field`; the density is only estimated; or there is no mode:
        the search did not come to rest, or the density does not fall off in some direction,
        whose latent is named.

    Source: Tierney and Kadane (JASA 1986).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import laplace
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def counts():
    ...     rate = sample("rate", dist.Gamma(3.0, 1.0))
    ...     sample("y", dist.Poisson(rate))
    >>> guide, parameters = laplace(Target(counts, (), {"y": 5}))
    >>> mode, sd = jnp.exp(parameters["loc"]["rate"]), jnp.exp(parameters["log_scale"]["rate"])
    >>> print(f"{mode:.3f} {sd:.3f}")  # of log rate, whose density is r^8 e^(-2r): 4, 1/sqrt(8)
    4.000 0.354
    """
    space = space_of(target)
    check_density_exact(target, "The mode")
    mode, decrement, precision = map(np.asarray, _mode(target, start_of(space, start)))
    _check_rest(space, mode, decrement, precision)
    parameters = of_precision(space, jnp.asarray(mode), jnp.asarray(precision))
    return triangular(target, space, np.ones_like(precision, bool), "laplace"), parameters


@jax.jit
def _mode(target: Target, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mode, by how much Newton's step there would still lower the potential, the Hessian."""
    potential = Space(target).potential(None)
    solver = optax.lbfgs()
    both = optax.value_and_grad_from_state(potential)
    small = jnp.sqrt(jnp.finfo(z.dtype).eps)

    def on(carry: tuple) -> jax.Array:
        _, _, slope, step = carry
        return (step < _STEPS) & (jnp.max(jnp.abs(slope)) > small)

    def further(carry: tuple) -> tuple:
        z, state, _, step = carry
        value, slope = both(z, state=state)
        updates, state = solver.update(slope, state, z, value=value, grad=slope, value_fn=potential)
        return optax.apply_updates(z, updates), state, slope, step + 1

    slope = jax.grad(potential)(z)
    z = jax.lax.while_loop(on, further, (z, solver.init(z), slope, 0))[0]

    def newton(z: jax.Array, _: Any) -> tuple:
        slope = jax.grad(potential)(z)
        there = z - jnp.linalg.solve(jax.hessian(potential)(z), slope)
        nearer = jnp.linalg.norm(jax.grad(potential)(there)) < jnp.linalg.norm(slope)
        return jnp.where(nearer, there, z), None

    z, _ = jax.lax.scan(newton, z, None, length=_NEWTON)
    slope, precision = jax.grad(potential)(z), jax.hessian(potential)(z)
    return z, slope @ jnp.linalg.solve(precision, slope) / 2, precision


def _check_rest(
    space: Space, mode: np.ndarray, decrement: np.ndarray, precision: np.ndarray
) -> None:
    """Raise where the search has found no mode."""
    eps = np.finfo(mode.dtype).eps
    if not np.all(np.isfinite(precision)):
        worst = int(np.argmin(np.all(np.isfinite(precision), axis=1)))
        given = "a curvature that is no number"
    else:
        curvature, directions = np.linalg.eigh(precision)
        worst = int(np.argmax(np.abs(directions[:, 0])))
        given = f"a curvature of {curvature[0]:.3g} along it, of {curvature[-1]:.3g} at most"
        if curvature[0] > eps * len(mode) * curvature[-1]:
            if abs(decrement) < np.sqrt(eps):
                return
            given = f"a log density that one more of Newton's steps would raise by {decrement:.3g}"
    path = _latent(space, worst)
    name = errors.show(path)
    raise errors.InvalidArgument(
        f"No mode was found: the search for it ran off along {name}.",
        where=(f"{name} at {space.target.sites[path].source}", errors.caller()),
        given=given,
        expected="a density that falls off in all directions of unconstrained space",
        fix="start=latents near the mode; a prior that falls off; or fit full_rank(target)",
    )


def _latent(space: Space, i: int) -> tuple[str, ...]:
    """The latent that a coordinate belongs to."""
    ends = np.cumsum([space.sizes[path] for path in space.paths])
    return space.paths[int(np.searchsorted(ends, i, side="right"))]
