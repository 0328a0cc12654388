"""The functions of one mode as one choice: independent processes, or their law given sites."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ..gaussian.kernel import Kernel
from ..gaussian.process import GaussianProcess
from .sites import Sites, drawn, drawn_before, folded


class Factors(dist.Distribution):
    """The law of p functions at n coordinates, `(p, n)`: independent, or given sites.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.tensors.factors import Factors
    >>> two = jax.tree.map(lambda x: jnp.full(2, x), Matern12(scale=1.0, sigma=2.0))
    >>> Factors(two, jnp.zeros(1)).variance.tolist()
    [[4.0], [4.0]]
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("kernels", "coordinates", "sites")

    def __init__(self, kernels: Kernel, coordinates: jax.Array, sites: Sites | None = None):
        self.kernels, self.coordinates, self.sites = kernels, coordinates, sites
        width = jax.tree.leaves(kernels)[0].shape[0]
        super().__init__((), (width, coordinates.shape[0]), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.real_matrix

    @property
    def mean(self) -> jax.Array:
        if self.sites is None:
            return jnp.zeros(self.event_shape, self.coordinates.dtype)
        return folded(self.kernels, self.coordinates, self.sites).mean.T

    @property
    def variance(self) -> jax.Array:
        if self.sites is None:
            at = self.coordinates
            return jax.vmap(lambda kernel: kernel.covariance(at, at))(self.kernels)
        mode = folded(self.kernels, self.coordinates, self.sites)
        return (jnp.diagonal(mode.second, axis1=1, axis2=2) - mode.mean**2).T

    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, self.coordinates.dtype)
        flat = value.reshape(-1, *self.event_shape)
        found = jax.vmap(self._prior)(flat)
        if self.sites is not None:
            sites = self.sites
            mass = folded(self.kernels, self.coordinates, sites).mass
            found = found + jax.vmap(lambda each: sites.log(each.T))(flat) - mass
        return found.reshape(value.shape[:-2])

    def _prior(self, value: jax.Array) -> jax.Array:
        """The log density of independent processes."""

        def one(kernel: Kernel, value: jax.Array) -> jax.Array:
            zero = jnp.zeros((), value.dtype)
            return GaussianProcess(kernel, self.coordinates, zero, None, None, None).log_prob(value)

        return jnp.sum(jax.vmap(one)(self.kernels, value))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        def draw(key: Any) -> jax.Array:
            if self.sites is None:
                return drawn_before(self.kernels, self.coordinates, key).T
            return drawn(self.kernels, self.coordinates, self.sites, key).T

        if not sample_shape:
            return draw(key)
        keys = jax.random.split(key, sample_shape)
        for _ in sample_shape:
            draw = jax.vmap(draw)
        return draw(keys)
