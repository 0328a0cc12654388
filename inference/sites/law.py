"""The law of a process with Gaussian sites, as a distribution and a generative function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import constraints

from ppl import GenerativeFunction, sample
from ppl.program import Path

from ..gaussian.paths import root
from ..gaussian.process import GaussianProcess
from .fold import Sites, Walk, fold, in_time, log_mass, walk_of


class SiteLaw(dist.Distribution):
    """The law of f with density p(f) Π_i exp(linear_i f_i - precision_i f_i² / 2) / its mass.

    Density and draws are O(n); times may be unsorted and repeated, as for `gp`, whose density
    p is.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.process import gp
    >>> from inference.sites.fold import Sites
    >>> from inference.sites.law import SiteLaw
    >>> law = SiteLaw(gp(Matern12(1.0), jnp.zeros(1)), Sites(jnp.ones(1), jnp.zeros(1)))
    >>> law.variance.tolist(), round(float(law.log_prob(jnp.zeros(1))), 4)  # N(0; 0, 1/2)
    ([0.5], -0.5724)
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("process", "sites")

    def __init__(self, process: GaussianProcess, sites: Sites):
        self.process, self.sites = process, sites
        super().__init__((), process.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.real_vector

    @property
    def mean(self) -> jax.Array:
        return fold(walk_of(self.process), self.sites).mean

    @property
    def variance(self) -> jax.Array:
        return fold(walk_of(self.process), self.sites).variance

    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, self.sites.linear.dtype)
        mass = log_mass(walk_of(self.process), self.sites)
        return self.process.log_prob(value) + jnp.sum(self.sites.log(value), -1) - mass

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        walk = walk_of(self.process)
        after = conditional(walk, self.sites)
        shape = (*sample_shape, self.event_shape[0] + 1, walk.dimension)
        draw = partial(_path, walk, after)
        for _ in sample_shape:
            draw = jax.vmap(draw)
        return draw(jax.random.normal(key, shape, walk.level.dtype))

    def from_normals(self, normals: jax.Array) -> jax.Array:
        """A draw, as an affine map of standard normals `(n + 1, dimension)`."""
        walk = walk_of(self.process)
        return _path(walk, conditional(walk, self.sites), normals)


def _path(walk: Walk, after: tuple[jax.Array, ...], normals: jax.Array) -> jax.Array:
    """f, from the walk that its states are given the sites."""
    moves, shifts, left = after

    def step(state: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
        move, shift = row
        state = move @ state + shift
        return state, walk.observation @ state

    kicks = shifts + jnp.einsum("nij,nj->ni", root(left), normals)
    _, found = lax.scan(step, kicks[0], (moves[1:], kicks[1:]))
    return walk.level + walk.undone(found)


def conditional(walk: Walk, sites: Sites) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The states with their sites as a walk again: x_t = G_t x_{t-1} + b_t + N(0, C_t), forward.

    What the sites from t on say of x_t is exp(j x - x' J x / 2), by a pass back; no covariance
    is inverted, and Q may be singular.

    Returns:
      G `(n + 1, d, d)`, b `(n + 1, d)` and C `(n + 1, d, d)`; the first makes x_0 of anything.
    """
    here, h = in_time(walk, sites), walk.observation

    def given(move: jax.Array, noise: jax.Array, j: jax.Array, curve: jax.Array) -> tuple:
        eye = jnp.eye(walk.dimension, dtype=noise.dtype)
        both = _solved(eye + noise @ curve, jnp.concatenate([move, noise], -1))
        moved, left = both[:, : walk.dimension], both[:, walk.dimension :]
        left = (left + left.T) / 2
        return moved, left @ j, left

    def step(carry: tuple, row: tuple) -> tuple[tuple, tuple]:
        j, curve = carry
        move, noise, precision, linear = row
        j, curve = j + linear * h, curve + precision * jnp.outer(h, h)
        found = given(move, noise, j, curve)
        back = move.T @ curve @ found[0]
        return (found[0].T @ j, (back + back.T) / 2), found

    nothing = jnp.zeros_like(h), jnp.zeros_like(walk.start)
    rows = walk.transition, walk.noise, here.precision, here.linear
    first, rest = lax.scan(step, nothing, rows, reverse=True)
    start = given(jnp.zeros_like(walk.start), walk.start, *first)
    moves, shifts, left = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, rest)
    return moves, shifts, left


def _solved(matrix: jax.Array, right: jax.Array) -> jax.Array:
    return right / matrix if matrix.shape[-1] == 1 else jnp.linalg.solve(matrix, right)


@partial(jax.tree_util.register_dataclass, data_fields=["distribution"], meta_fields=["path"])
@dataclass(frozen=True, eq=False)
class _OneChoice:
    """The program that makes one choice; arguments are not used."""

    distribution: SiteLaw
    path: Path

    def __call__(self, *others: Any) -> jax.Array:
        return sample(self.path, self.distribution)


def law_of(process: GaussianProcess, sites: Sites, path: Path, name: str) -> GenerativeFunction:
    """The generative function that draws f, at its address in the model, by its sites."""
    return GenerativeFunction(_OneChoice(SiteLaw(process, sites), path), name=name)
