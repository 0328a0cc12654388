"""Pathfinder: normal approximations along the way to a mode, from several starts, as one guide.

BlackJAX's optimiser runs from random starts in unconstrained space and keeps, for each point on
its way, an estimate H of the inverse Hessian: the normal N(z - H g, H) there, g the gradient of
the potential. Of each path the best normal by its evidence lower bound is kept, and all of them
together are a mixture, whose importance weights say how far it is from the target.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import Target, draw, errors
from ppl.addresses import nest
from ppl.estimates import check_density_exact
from ppl.randomness import checked_key

from ..mcmc.space import Space
from ..targets.stochastic import Stochastic
from ..validation.packages import extra
from ..validation.settings import check_count
from .joint import joint, space_of
from .triangular import Triangular, family_of, of_precision


@dataclass(frozen=True, eq=False)
class Pathfinder:
    """A mixture of normals, one for each path, and what it is worth.

    Attributes:
      guide: of the target's latents; a generative function of its parameters.
      parameters: `log_weights` of the normals, of shape (paths,), and what `full_rank` has, with
        that axis in front.
      draws: latents by address, resampled by smoothed importance weights, an axis in front.
      pareto_k: the shape of the tail of these weights. Above 0.7 the draws are not to be
        trusted; NaN where it is not known.
      elbos: for each path the estimated evidence lower bound of its normal; -inf of one that
        failed, whose normal has no weight.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import Pathfinder, pathfinder
    >>> from ppl import Target, gen, sample
    >>> normal = gen(lambda: sample("x", dist.Normal(3.0, 2.0)))
    >>> found = pathfinder(jax.random.key(0), Target(normal), paths=2)
    >>> isinstance(found, Pathfinder), [abs(round(x, 1)) for x in found.elbos.tolist()]
    (True, [0.0, 0.0])
    """

    guide: Stochastic
    parameters: dict[str, Any]
    draws: dict[str, Any]
    pareto_k: float
    elbos: np.ndarray


def pathfinder(
    key: jax.Array,
    target: Target,
    *,
    paths: int = 4,
    draws: int = 1000,
    steps: int = 100,
    history: int = 10,
) -> Pathfinder:
    """The best normal on each of several ways to a mode, mixed by importance weights.

    The mixture starts with equal weights; `draws` of it get Pareto-smoothed importance weights,
    and each normal the share of these that is its own. The guide may be fitted on from there.

    Args:
      target: a target whose latents are continuous and always made, with a density.
      paths: how many starts, uniform on (-2, 2) in each unconstrained coordinate.
      draws: how many latents are drawn and resampled, a multiple of `paths`, or rounded up to one.
      steps: at most so many of the optimiser, on each path.
      history: how many of the last steps the inverse Hessian is made of.

    Raises:
      MissingPackage: BlackJAX is not installed.
      InvalidArgument: as for `mean_field`; the density is only estimated; or all paths failed.

    Source: Zhang, Carpenter, Gelman and Vehtari, Pathfinder (JMLR 2022); weights of mixtures by
    Cappé et al., Adaptive importance sampling in general mixture classes (2008).

    >>> import jax, numpyro.distributions as dist
    >>> from inference import pathfinder
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def counts():
    ...     rate = sample("rate", dist.Gamma(3.0, 1.0))
    ...     sample("y", dist.Poisson(rate))
    >>> found = pathfinder(jax.random.key(0), Target(counts, (), {"y": 5}))
    >>> print(f"{found.draws['rate'].mean():.0f}", found.pareto_k < 0.7)  # Gamma(8, 2): 4
    4 True
    """
    key = checked_key(key)
    check_count("paths", paths)
    check_count("draws", draws)
    check_count("steps", steps)
    check_count("history", history)
    space = space_of(target)
    check_density_exact(target, "Pathfinder")
    extra("blackjax", "pathfinder", "Pathfinder")
    keys = jax.random.split(key, 3)
    each = -(-draws // paths)
    loc, precision, elbos = _normals(keys[0], target, paths, steps, history)
    good = np.isfinite(elbos)
    if not np.any(good):
        raise errors.InvalidArgument(
            "All paths failed.",
            where=errors.caller(),
            given=f"no finite bound on any of {paths} paths of {steps} steps",
            expected="a density that is finite, with its gradient, where the paths start",
            fix="more paths; or laplace(target, start), mean_field(target, start)",
        )
    # a path that failed repeats one that did not, without weight
    rows = np.where(good, np.arange(paths), np.argmax(good))
    normals = jax.vmap(partial(of_precision, space))(loc[rows], precision[rows])
    mixture = Mixture(family_of(space, np.ones((space.size, space.size), bool)))
    equal = {"log_weights": jnp.where(good, 0.0, -jnp.inf), **normals}
    z, log_ratio, shares = _weighed(keys[1], target, mixture, equal, each)
    smoothed, pareto_k = _smoothed(np.asarray(log_ratio)[good])
    weight = np.zeros((paths, each))
    weight[good] = smoothed.reshape(-1, each)
    masses = np.einsum("ps,psk->k", weight, np.asarray(shares))
    # not -inf, from which no derivative leads back
    log_masses = jnp.asarray(np.log(np.maximum(masses, np.finfo(space.dtype).tiny)), space.dtype)
    chosen = jax.random.choice(
        keys[2], paths * each, (draws,), p=jnp.asarray(weight.ravel(), space.dtype)
    )
    latents = jax.vmap(lambda z: nest(space.constrain(None, z)[0]))(z.reshape(-1, space.size))
    return Pathfinder(
        joint(target, mixture, "pathfinder"),
        {"log_weights": log_masses, **normals},
        jax.tree.map(lambda x: x[chosen], latents),
        pareto_k,
        np.where(good, elbos, -np.inf),
    )


@partial(jax.jit, static_argnums=(2, 3, 4))
def _normals(key: jax.Array, target: Target, paths: int, steps: int, history: int) -> tuple:
    """For each path the mean, the inverse covariance and the bound of its best normal."""
    approximate = importlib.import_module("blackjax.vi.pathfinder").approximate
    sample = importlib.import_module("blackjax.optimizers.lbfgs").bfgs_sample
    space = Space(target)
    potential = space.potential(None)
    bound_draws = 20

    def best(key: jax.Array) -> tuple:
        start_key, path_key, bound_key = jax.random.split(key, 3)
        start = jax.random.uniform(start_key, (space.size,), space.dtype, -2.0, 2.0)
        _, info = approximate(
            path_key, lambda z: -potential(z), start, 1, maxiter=steps, maxcor=history
        )
        path = info.path

        def inverse_hessian(at: Any, x: jax.Array) -> jax.Array:
            return at.alpha * x + at.beta @ (at.gamma @ (at.beta.T @ x))

        # BlackJAX 1.7 has the mean at z + Hg, on the other side; so the mean is taken here
        def normal(at: Any) -> tuple[jax.Array, jax.Array]:
            mean = at.position - inverse_hessian(at, jax.grad(potential)(at.position))
            flat = jnp.zeros_like(mean)
            z, log_q = sample(bound_key, bound_draws, mean, flat, at.alpha, at.beta, at.gamma)
            bound = jnp.mean(-jax.vmap(potential)(z) - log_q)
            return mean, jnp.where(jnp.isfinite(bound), bound, -jnp.inf)

        means, bounds = jax.lax.map(normal, path)
        at = jnp.argmax(bounds)
        state = jax.tree.map(lambda x: x[at], path)
        covariance = jax.vmap(partial(inverse_hessian, state))(jnp.eye(space.size))
        factor = jnp.linalg.cholesky((covariance + covariance.T) / 2)
        back = jax.scipy.linalg.solve_triangular(factor, jnp.eye(space.size), lower=True)
        usable = jnp.all(jnp.isfinite(back))
        return means[at], back.T @ back, jnp.where(usable, bounds[at], -jnp.inf)

    return jax.lax.map(best, jax.random.split(key, paths))


@partial(jax.jit, static_argnums=4)
def _weighed(
    key: jax.Array, target: Target, mixture: Mixture, parameters: Any, each: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """So many z from each normal, their log ratios to the mixture, and whose they might be."""
    space = Space(target)
    normals = _normals_of(parameters)
    paths = len(parameters["log_weights"])
    x = jax.random.normal(key, (paths, each, space.size), space.dtype)
    moved = jax.vmap(partial(mixture.normal.moved, space), (None, 0))
    z = jax.vmap(moved)(normals, x)

    def ratio(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        parts = mixture.parts(space, parameters, z)
        log_q = jax.nn.logsumexp(parts)
        return -space.potential(None)(z) - log_q, jnp.exp(parts - log_q)

    return z, *jax.vmap(jax.vmap(ratio))(z)


def _smoothed(log_ratio: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalised Pareto-smoothed weights, and the shape of their tail.

    A tail of equal weights has no shape: they stay as they are, and it is NaN; -inf if all are.
    """
    flat = np.asarray(log_ratio, np.float64).ravel()
    flat = np.where(np.isnan(flat), -np.inf, flat) - np.max(flat[np.isfinite(flat)])
    plain = np.exp(flat) / np.sum(np.exp(flat))
    if np.ptp(flat[np.isfinite(flat)]) < 1e-6 and np.isfinite(flat).all():
        return plain, -np.inf
    tail = np.sort(flat)[-int(min(len(flat) / 5, 3 * np.sqrt(len(flat)))) - 1 :]
    if tail[-1] - tail[0] < np.sqrt(np.finfo(log_ratio.dtype).eps):
        return plain, np.nan
    stats = importlib.import_module("arviz_stats.base").array_stats
    log_weight, pareto_k = stats.psislw(-flat)  # it takes log densities that are left out
    weight = np.exp(np.asarray(log_weight))
    return weight / np.sum(weight), float(pareto_k)


def _normals_of(parameters: Any) -> dict[str, Any]:
    return {name: x for name, x in parameters.items() if name != "log_weights"}


@partial(jax.tree_util.register_dataclass, data_fields=["normal"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of normals, whose parameters have an axis in front, and `log_weights`."""

    normal: Triangular

    moves = False  # which of the normals is drawn does not

    def drawn(self, space: Space, parameters: Any) -> tuple[jax.Array, jax.Array]:
        i = draw(dist.Categorical(logits=parameters["log_weights"]))
        one = jax.tree.map(lambda x: x[i], _normals_of(parameters))
        z, _ = self.normal.drawn(space, one)
        return z, self.log_density(space, parameters, z)

    def log_density(self, space: Space, parameters: Any, z: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(self.parts(space, parameters, z))

    def parts(self, space: Space, parameters: Any, z: jax.Array) -> jax.Array:
        """log of weight times density, of each normal."""
        densities = jax.vmap(lambda one: self.normal.log_density(space, one, z))
        weights = jax.nn.log_softmax(parameters["log_weights"])
        return weights + densities(_normals_of(parameters))
