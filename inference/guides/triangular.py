"""Normal guides in which each coordinate depends on some of those before it.

In the order of the model, in unconstrained space,

    z_i = loc_i + the sum over some j before i of c_ij (z_j - loc_j) + exp(log_scale_i) x_i,

with x from standard normals. Without coefficients the coordinates are independent; with all of
them this is any normal law: (I - C)^-1 S is the Cholesky factor of its covariance. The latents
are choices at their own addresses, each given those before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

from ppl import GenerativeFunction, Target, sample
from ppl.addresses import nest

from ..mcmc.space import Space
from ..targets.stochastic import Stochastic
from .joint import joined, joint, noise, split, standard


def triangular(
    target: Target, space: Space, ties: np.ndarray, name: str
) -> GenerativeFunction | Stochastic:
    """The guide with the coefficients that `ties` marks, a bool array of shape (n, n)."""
    family = family_of(space, ties)
    coordinates = space.coordinates
    whole = not (coordinates.moving or coordinates.gaps)
    if not (whole and all(map(_is_identity, coordinates.fixed.values()))):
        return joint(target, family, name)
    return GenerativeFunction(Blocks(target, family), name=f"{name}({target.model.name})")


def family_of(space: Space, ties: np.ndarray) -> Triangular:
    """The law on R^n with the coefficients below the diagonal that `ties` marks."""
    rows, columns = np.nonzero(np.tril(ties, -1))
    owner = np.repeat(np.arange(len(space.paths)), [space.sizes[path] for path in space.paths])
    blocks = frozenset(zip(owner[rows].tolist(), owner[columns].tolist(), strict=True))
    return Triangular(jnp.asarray(rows), jnp.asarray(columns), blocks)


def vectors(space: Space, parameters: Any) -> tuple[jax.Array, jax.Array]:
    """`loc` and `log_scale` as vectors of the space."""
    return joined(space, parameters["loc"]), joined(space, parameters["log_scale"])


def of_precision(space: Space, loc: jax.Array, precision: jax.Array) -> dict[str, Any]:
    """The parameters, with all coefficients, of a normal with this mean and inverse covariance.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.guides.joint import space_of
    >>> from inference.guides.triangular import of_precision
    >>> from ppl import Target, gen, sample
    >>> pair = gen(lambda: [sample(name, dist.Normal(0.0, 1.0)) for name in "ab"])
    >>> space = space_of(Target(pair))
    >>> found = of_precision(space, jnp.zeros(2), jnp.array([[2.0, -1.0], [-1.0, 1.0]]))
    >>> found["coefficients"].tolist()
    [1.0]
    """
    # precision = U U' with U upper triangular; U' = S^-1 (I - C)
    upper = jnp.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
    scales = 1 / jnp.diag(upper)
    rows, columns = np.tril_indices(space.size, -1)
    return {
        "loc": split(space, loc),
        "log_scale": split(space, jnp.log(scales)),
        "coefficients": -(scales[:, None] * upper.T)[rows, columns],
    }


@partial(jax.tree_util.register_dataclass, data_fields=["rows", "columns"], meta_fields=["blocks"])
@dataclass(frozen=True, eq=False)
class Triangular:
    """The law on R^n in which coordinates `rows` depend on coordinates `columns`.

    Attributes:
      blocks: the pairs of latents, by number, between or in which a coefficient is.
    """

    rows: jax.Array
    columns: jax.Array
    blocks: frozenset[tuple[int, int]]

    def drawn(self, space: Space, parameters: Any) -> tuple[jax.Array, jax.Array]:
        x = noise(space, space.size)
        z = self.moved(space, parameters, x)
        return z, standard(x) - jnp.sum(vectors(space, parameters)[1])

    def moved(self, space: Space, parameters: Any, x: jax.Array) -> jax.Array:
        """z as a function of the noise."""
        loc, log_scale = vectors(space, parameters)
        apart = jnp.exp(log_scale) * x
        return loc + (_along(self.matrix(space, parameters), apart) if self.blocks else apart)

    def log_density(self, space: Space, parameters: Any, z: jax.Array) -> jax.Array:
        loc, log_scale = vectors(space, parameters)
        apart = z - loc
        if self.blocks:
            apart = apart - self.matrix(space, parameters) @ apart
        return standard(apart * jnp.exp(-log_scale)) - jnp.sum(log_scale)

    def matrix(self, space: Space, parameters: Any) -> jax.Array:
        """C, of shape (n, n), zero on the diagonal and above."""
        c = parameters["coefficients"]
        return jnp.zeros((space.size, space.size), c.dtype).at[self.rows, self.columns].set(c)


@partial(jax.tree_util.register_dataclass, data_fields=["target", "family"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Blocks:
    """The program that makes the latents, one after the other; it returns them.

    Arguments beside the parameters are not used, so that a target may be a function of them.
    """

    target: Target
    family: Triangular

    def __call__(self, parameters: Any, *others: Any) -> dict[str, Any]:
        space, blocks = Space(self.target, estimates=True), self.family.blocks
        loc, log_scale = vectors(space, parameters)
        matrix = self.family.matrix(space, parameters) if blocks else None
        apart = jnp.zeros(0, space.dtype)  # z - loc of the latents before
        made = {}
        for i, path in enumerate(space.paths):
            here = slice(len(apart), len(apart) + space.sizes[path])
            mean, scale = loc[here], jnp.exp(log_scale[here])
            if matrix is not None and any((i, j) in blocks for j in range(i)):
                mean = mean + matrix[here, : here.start] @ apart
            inner = matrix[here, here] if matrix is not None and (i, i) in blocks else None
            made[path] = sample(path, _placed(mean, scale, inner, space.coordinates.shapes[path]))
            apart = jnp.concatenate([apart, jnp.ravel(made[path]).astype(space.dtype) - loc[here]])
        return nest(made)


def _placed(
    mean: jax.Array, scale: jax.Array, inner: jax.Array | None, shape: tuple[int, ...]
) -> Any:
    """The law of one latent: a normal with the coefficients `inner`, of this shape."""
    if inner is None:
        return dist.Normal(mean.reshape(shape), scale.reshape(shape))
    steps: list = [Along(mean, scale, inner)]
    if shape != mean.shape:
        steps.append(transforms.ReshapeTransform(shape, mean.shape))
    return dist.TransformedDistribution(dist.Normal(jnp.zeros_like(mean), 1.0).to_event(1), steps)


def _is_identity(bijection: Any) -> bool:
    while isinstance(bijection, transforms.IndependentTransform):
        bijection = bijection.base_transform
    return isinstance(bijection, transforms.IdentityTransform)


def _along(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """y with y = Cy + x."""
    return jax.scipy.linalg.solve_triangular(-matrix, x, lower=True, unit_diagonal=True)


class Along(transforms.Transform):
    """x to z with z = mean + C(z - mean) + scale * x, C strictly below the diagonal.

    >>> import jax.numpy as jnp
    >>> from inference.guides.triangular import Along
    >>> along = Along(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array([[0.0, 0.0], [3.0, 0.0]]))
    >>> z = along(jnp.array([1.0, 1.0]))
    >>> z.tolist(), along.inv(z).tolist()
    ([1.0, 5.0], [1.0, 1.0])
    """

    domain = constraints.real_vector  # type: ignore[assignment]
    codomain = constraints.real_vector  # type: ignore[assignment]

    def __init__(self, mean: jax.Array, scale: jax.Array, matrix: jax.Array):
        self.mean = mean
        self.scale = scale
        self.matrix = matrix

    def __call__(self, x: jax.Array) -> jax.Array:
        one = jnp.vectorize(partial(_along, self.matrix), signature="(n)->(n)")
        return self.mean + one(self.scale * x)

    def _inverse(self, y: jax.Array) -> jax.Array:
        apart = y - self.mean
        return (apart - jnp.einsum("ij,...j->...i", self.matrix, apart)) / self.scale

    def log_abs_det_jacobian(
        self, x: jax.Array, y: jax.Array, intermediates: Any = None
    ) -> jax.Array:
        return jnp.broadcast_to(jnp.sum(jnp.log(self.scale)), jnp.shape(x)[:-1])

    def tree_flatten(self) -> tuple:
        return (self.mean, self.scale, self.matrix), (("mean", "scale", "matrix"), {})
