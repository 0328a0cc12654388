"""The affine-invariant stretch move on an ensemble of traces (Goodman and Weare 2010)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Selection, Target, Trace, draw, errors

from ..kernel import Kernel, Stats
from ..validation.objects import check_target
from ..validation.settings import check_count, check_number
from .space import Space


class Ensemble(NamedTuple):
    """The members: unconstrained positions (n, d), their log densities (n,), and the traces
    that hold the rest (None if the positions are everything)."""

    rest: Trace | None
    z: jax.Array
    log_density: jax.Array


def stretch(
    target: Target,
    members: int,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    scale: float = 2.0,
) -> Kernel:
    """Each member moves along the line through it and another: z_k' = z_j + s (z_k - z_j).

    Leaves invariant the product of `members` copies of `target`. With s of density
    proportional to s^(-1/2) on [1/scale, scale], a move is accepted with probability
    min(1, s^(d-1) p(z_k') / p(z_k)), in d unconstrained coordinates (Goodman and Weare 2010,
    equation 7). One half of the ensemble moves at once, along lines to the other half; then
    the other (Foreman-Mackey et al. 2013, algorithm 3). It has no step size to tune, and works
    alike on every affine image of the target.

    A kernel on stacked traces, every one of which is a draw. Statistics: `accept`, the mean
    acceptance probability.

    Args:
      members: how many traces; at least 2 d, and at least 4.
      selection: continuous latents; all latents if left out.
      scale: the largest s, above 1; 2 is customary.

    Raises:
      InvalidArgument: too few members to span the space, so that the ensemble could not leave
        a subspace; `scale` is not above 1; or a selected latent has no unconstrained space.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import iterate
    >>> from inference.mcmc.ensemble import stretch
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> keys = jax.random.split(jax.random.key(0), 400)
    >>> starts = jax.vmap(seed(lambda: target.generate()[0]))(keys)
    >>> many = jax.jit(seed(iterate(stretch(target, 400), 100)))(jax.random.key(1), starts)
    >>> bool(abs(many["mu"].mean() - 1.0) < 5 * (0.5 / 400) ** 0.5)  # 400 of Normal(1, sqrt(1/2))
    True
    """
    check_target(target)
    check_count("members", members)
    check_number("scale", scale, above=1, fix=2.0)
    space = Space(target, selection)
    least = max(4, 2 * space.size)
    if members < least:
        raise errors.InvalidArgument(
            "The ensemble is too small to move in all directions.", where=errors.caller(),
            given=f"{members} members in {space.size} dimensions",
            expected=f"at least {least}: twice the dimensions, and 4",
            fix=f"stretch(target, {least})",
        )  # fmt: skip
    half = members // 2

    def log_densities(rest: Any, z: jax.Array) -> jax.Array:
        return jax.vmap(lambda rest, z: space.log_density(rest)(z))(rest, z)

    def enter(traces: Trace) -> Ensemble:
        z = jax.vmap(space.position)(traces)
        rest = space.rest(traces)
        return Ensemble(rest, z, log_densities(rest, z))

    def leave(ensemble: Ensemble) -> Trace:
        return jax.vmap(space.trace)(ensemble.rest, ensemble.z)

    def read(ensemble: Ensemble) -> dict[str, Any]:
        return jax.vmap(space.latents)(ensemble.rest, ensemble.z)

    def step(_: Any, ensemble: Ensemble) -> tuple[Ensemble, Stats]:
        probabilities = []
        for mine, others in ((slice(0, half), slice(half, None)), (slice(half, None), slice(half))):
            own = jax.tree.map(lambda leaf, mine=mine: leaf[mine], ensemble)
            moved, probability = _stretched(own, ensemble.z[others], scale, log_densities)
            z = ensemble.z.at[mine].set(moved.z)
            density = ensemble.log_density.at[mine].set(moved.log_density)
            ensemble = Ensemble(ensemble.rest, z, density)
            probabilities.append(probability)
        return ensemble, {"accept": jnp.concatenate(probabilities).mean()}

    return Kernel(
        name="stretch",
        step=step,
        enter=enter,
        leave=leave,
        read=read,
        valid=lambda ensemble: jnp.isfinite(ensemble.log_density),
        members=members,
        draws=members,
        target=target,
    )


def _stretched(
    own: Ensemble, others: jax.Array, scale: float, log_densities: Any
) -> tuple[Ensemble, jax.Array]:
    """Some members moved along lines to `others`, and their acceptance probabilities."""
    n, d = own.z.shape
    towards = others[draw(dist.DiscreteUniform(0, others.shape[0] - 1).expand([n]))]
    u = draw(dist.Uniform(jnp.zeros(n, own.z.dtype), 1.0))
    s = ((scale - 1.0) * u + 1.0) ** 2 / scale  # the inverse of the distribution function
    z = towards + s[:, None] * (own.z - towards)
    density = log_densities(own.rest, z)
    log_ratio = (d - 1) * jnp.log(s) + density - own.log_density
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    probability = jax.lax.stop_gradient(jnp.exp(jnp.minimum(log_ratio, 0.0)))
    taken = draw(dist.Bernoulli(probability)) == 1
    z = jnp.where(taken[:, None], z, own.z)
    return Ensemble(own.rest, z, jnp.where(taken, density, own.log_density)), probability
