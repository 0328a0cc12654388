"""What entries say of a mode's functions, and the functions given that, in one pass along it.

A site says of the p functions at one coordinate: exp(linear' u - u' precision u / 2). With sites
the functions are a series of states that p numbers are seen of, with independent noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..gaussian.at_once import at_once
from ..gaussian.chain import Chain, Course, Steps
from ..gaussian.elimination import eliminated
from ..gaussian.kernel import Kernel
from ..gaussian.paths import root
from ..gaussian.series import restored_from


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sites:
    """exp(linear' u - u' precision u / 2) at each of n coordinates: `(n, p, p)` and `(n, p)`.

    >>> import jax.numpy as jnp
    >>> from inference.tensors.sites import Sites
    >>> Sites(2 * jnp.eye(1)[None], jnp.ones((1, 1))).log(jnp.array([[3.0]])).tolist()
    -6.0
    """

    precision: jax.Array
    linear: jax.Array

    def log(self, u: jax.Array) -> jax.Array:
        """The log of all of them, at functions `(n, p)`."""
        square = jnp.einsum("nr,nrs,ns->", u, self.precision, u)
        return jnp.sum(self.linear * u) - 0.5 * square


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mode:
    """The law of a mode's p functions at its n coordinates, given sites.

    Attributes:
      mean, second: of the functions and their products, `(n, p)` and `(n, p, p)`.
      mass: the log of the mean of the sites under the prior.
      divergence: from the prior, in nats.
      slope: the derivative of `mass` in the hyperparameters, with the sites held: that of the
        evidence bound, if the sites are those that are best.
    """

    mean: jax.Array
    second: jax.Array
    mass: jax.Array
    divergence: jax.Array
    slope: Kernel


def folded(kernels: Kernel, coordinates: jax.Array, sites: Sites) -> Mode:
    """The law of functions of these kernels, whose leaves are `(p,)`, given their sites.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.tensors.sites import Sites, folded
    >>> two = jax.tree.map(lambda x: jnp.full(2, x), Matern12(1.0))
    >>> sites = Sites(jnp.eye(2)[None], jnp.array([[1.0, 0.0]]))
    >>> mode = folded(two, jnp.zeros(1), sites)
    >>> mode.mean.tolist(), round(float(mode.mass), 4)  # log 2^-1 + 1/4
    ([[0.5, 0.0]], -0.4431)
    """
    start, pull = jax.vjp(_start, kernels, coordinates[0])
    seen, constant = _seen(sites)
    before = jnp.concatenate([coordinates[:1], coordinates[:-1]])
    course = Course(jnp.zeros_like(start[0]), start, kernels, (coordinates - before, before, *seen))
    found = at_once(_steps, course)
    p = sites.linear.shape[1]
    h = _each(lambda kernel: kernel.observation())(kernels)
    d = h.shape[1]
    mean = jnp.einsum("rd,rdn->nr", h, found.mean.reshape(p, d, -1))
    covariance = found.covariance.reshape(p, d, p, d, -1)
    second = jnp.einsum("rd,rdsen,se->nrs", h, covariance, h) + mean[:, :, None] * mean[:, None, :]
    mass = found.evidence + constant
    told = jnp.sum(sites.linear * mean) - 0.5 * jnp.sum(sites.precision * second)
    slope = jax.tree.map(jnp.add, found.slope[1], pull(found.slope[0])[0])
    return Mode(mean, second, mass, told - mass, slope)


def drawn_before(kernels: Kernel, coordinates: jax.Array, key: Any) -> jax.Array:
    """A joint draw of the functions `(n, p)`, with no sites: independent processes.

    Coordinates are in order.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.tensors.sites import drawn_before
    >>> two = jax.tree.map(lambda x: jnp.full(2, x), Matern12(1.0, sigma=1e-9))
    >>> bool(jnp.allclose(drawn_before(two, jnp.zeros(1), jax.random.key(0)), 0.0, atol=1e-7))
    True
    """

    before = jnp.concatenate([coordinates[:1], coordinates[:-1]])

    def one(kernel: Kernel, key: Any) -> jax.Array:
        noise = kernel.noise(coordinates - before, before).at[0].set(kernel.start(coordinates[0]))
        normals = jax.random.normal(key, noise.shape[:2], coordinates.dtype)
        kicks = jnp.einsum("nij,nj->ni", root(noise), normals)
        moves = kernel.transition(coordinates - before)

        def step(state: jax.Array, move: tuple) -> tuple[jax.Array, jax.Array]:
            state = move[0] @ state + move[1]
            return state, kernel.observation() @ state

        return lax.scan(step, jnp.zeros_like(kicks[0]), (moves, kicks))[1]

    keys = jax.random.split(key, jax.tree.leaves(kernels)[0].shape[0])
    return jax.vmap(one)(kernels, keys).T


def drawn(kernels: Kernel, coordinates: jax.Array, sites: Sites, key: Any) -> jax.Array:
    """A joint draw of the functions `(n, p)`, given the sites.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.tensors.sites import Sites, drawn
    >>> sure = Sites(1e12 * jnp.eye(1)[None], 2e12 * jnp.ones((1, 1)))
    >>> one = jax.tree.map(lambda x: jnp.full(1, x), Matern12(1.0))
    >>> drawn(one, jnp.zeros(1), sure, jax.random.key(0)).round(3).tolist()
    [[2.0]]
    """
    (rows, variance, present, values), _ = _seen(sites)
    n, p = sites.linear.shape
    before = jnp.concatenate([coordinates[:1], coordinates[:-1]])
    steps = _steps(kernels, (coordinates - before, before, rows, variance, present, values))
    ahead = lambda x: jnp.moveaxis(x, -1, 0)  # noqa: E731
    start = _start(kernels, coordinates[0])
    chain = Chain(jnp.zeros_like(start[0]), start, ahead(steps.transition), ahead(steps.noise),
                  ahead(steps.observation), variance.T, present.T)  # fmt: skip
    first, second = jax.random.split(key)
    states = jax.random.normal(first, (n + 1, start.shape[0]), start.dtype)
    noise = jax.random.normal(second, (n, p), start.dtype)
    path = restored_from(states, noise, chain, values.T)[1:]
    h = _each(lambda kernel: kernel.observation())(kernels)
    return jnp.einsum("rd,nrd->nr", h, path.reshape(n, p, -1))


def _seen(sites: Sites) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Sites as p numbers seen of p functions: rows `(p, p, n)`, variances, presence and values
    `(p, n)`; and the log of what normal densities of those lack.

    A precision L D L' sees D^-1 L^-1 linear of L' u with variance 1 / D: nothing where D is 0.
    """
    precision, linear = jnp.moveaxis(sites.precision, 0, -1), sites.linear.T
    inverse, pivots, shares = eliminated(precision, jnp.ones_like(linear))
    rows = jnp.einsum("pqn,qrn->prn", inverse, precision) * shares[:, None]
    values = jnp.einsum("pqn,qn->pn", inverse, linear) * shares
    says = shares > 0
    logs = jnp.log(2 * jnp.pi * jnp.where(says, shares, 1.0)) + pivots * values**2
    present = says.astype(linear.dtype)
    return (rows, shares, present, values), 0.5 * jnp.sum(jnp.where(says, logs, 0.0))


def _steps(kernels: Kernel, rows: tuple[jax.Array, ...]) -> Steps:
    """Steps of independent processes side by side, of which sites are seen."""
    gaps, before, sees, variance, present, values = rows
    transition = _each(lambda kernel: kernel.transition(gaps))(kernels)
    noise = _each(lambda kernel: kernel.noise(gaps, before))(kernels)
    h = _each(lambda kernel: kernel.observation())(kernels)
    p, d = h.shape
    seen = (sees[:, :, None, :] * h[None, :, :, None]).reshape(p, p * d, -1)
    return Steps(_diagonal(transition), _diagonal(noise), seen, variance, present, values, None)


def _start(kernels: Kernel, at: jax.Array) -> jax.Array:
    return _diagonal(_each(lambda kernel: kernel.start(at))(kernels)[:, None])[..., 0]


def _each(of: Any) -> Any:
    return jax.vmap(of)


def _diagonal(blocks: jax.Array) -> jax.Array:
    """Blocks `(p, n, d, d)` as matrices `(p d, p d, n)`."""
    p, n, d, _ = blocks.shape
    found = jnp.zeros((p, d, p, d, n), blocks.dtype)
    each = jnp.arange(p)
    return found.at[each, :, each].set(jnp.moveaxis(blocks, 1, -1)).reshape(p * d, p * d, n)
