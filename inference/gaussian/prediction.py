"""A process at new times, given its values at others: a joint law, drawn in O(n)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import errors

from ..validation.settings import shown
from .evidence import smooth
from .inputs import check_values
from .ordered import Ordered
from .process import GaussianProcess, gp, way


class Prediction(dist.Distribution):
    """The law of f at new times, given values of the process: see `predict`.

    Attributes:
      process: the process, of which `values` are given.
      joint: the same process at its own times and then the new ones.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.prediction import predict
    >>> from inference.gaussian.process import gp
    >>> ahead = predict(gp(Matern12(1.0), jnp.array([0.0])), jnp.array([2.0]), jnp.array([1.0]))
    >>> ahead.mean.round(4).tolist(), ahead.variance.round(4).tolist()  # 2 exp(-1), 1 - exp(-2)
    ([0.7358], [0.8647])
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("process", "values", "joint")

    def __init__(self, process: GaussianProcess, values: jax.Array, joint: GaussianProcess):
        self.process, self.values, self.joint = process, values, joint
        new = joint.event_shape[0] - process.event_shape[0]
        super().__init__((), (new,), validate_args=False)

    def _in_order(self) -> Ordered:
        """Both, in order of time, with nothing known at the new times."""
        both = self.joint
        known = jnp.arange(both.event_shape[0]) < self.process.event_shape[0]
        seen = known & (both.seen() > 0)
        return GaussianProcess(both.kernel, both.times, 0.0, both.noise, seen, None).in_order()

    def _smoothed(self, order: Ordered, residuals: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance at the new times, given what is left of the values."""
        n = self.process.event_shape[0]
        both = jnp.concatenate([residuals, jnp.zeros(self.event_shape, residuals.dtype)])
        chain, along = order.chain, way(self.process.kernel, self.process.along)
        h = chain.observation
        means, covariances = smooth(chain, both[order.order], along)
        variances = jnp.einsum("i,nij,j->n", h, covariances, h)
        return order.undone(means @ h)[n:], order.undone(variances)[n:]

    @property
    def support(self) -> Any:
        return constraints.real_vector

    @property
    def mean(self) -> jax.Array:
        n = self.process.event_shape[0]
        residuals = self.values - self.process.mean
        return self.joint.mean[n:] + self._smoothed(self._in_order(), residuals)[0]

    @property
    def variance(self) -> jax.Array:
        zeros = jnp.zeros(self.process.event_shape, self.joint.times.dtype)
        return self._smoothed(self._in_order(), zeros)[1]

    @property
    def covariance_matrix(self) -> jax.Array:
        """The dense covariance: that before, less what the values explain of each column."""
        n, order = self.process.event_shape[0], self._in_order()
        k, old, new = self.joint.kernel, self.joint.times[:n], self.joint.times[n:]
        explained = jax.vmap(lambda t: self._smoothed(order, k.covariance(old, t))[0])(new)
        return k.covariance(new[:, None], new) - (explained + explained.T) / 2

    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value)
        told = jnp.broadcast_to(self.values, (*value.shape[:-1], *self.values.shape))
        both = self.joint.log_prob(jnp.concatenate([told, value], -1))
        return both - self.process.log_prob(self.values)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        total = self.joint.event_shape[0]
        keys = jax.random.split(key)
        dtype = self.joint.times.dtype
        states = jax.random.normal(
            keys[0], (*sample_shape, total, self.joint.kernel.dimension), dtype
        )
        noise = jax.random.normal(keys[1], (*sample_shape, *self.process.event_shape), dtype)
        draw = self.from_normals
        for _ in sample_shape:
            draw = jax.vmap(draw)
        return draw(states, noise)

    def from_normals(self, states: jax.Array, noise: jax.Array) -> jax.Array:
        """A draw: one of the process, corrected by what the values say of its own error.

        Args:
          states: standard normals `(n + new, dimension)`; noise: `(n,)`.

        Source: Durbin & Koopman 2002, whose states need no backward pass of matrices.
        """
        n, order = self.process.event_shape[0], self._in_order()
        spare = jnp.zeros(self.event_shape, noise.dtype)
        made = self.joint.from_normals(states, jnp.concatenate([noise, spare]), order)
        correction = self._smoothed(order, self.values - made[:n])[0]
        return made[n:] + correction


def predict(
    process: GaussianProcess,
    values: Any,
    times: Any,
    *,
    mean: float | jax.Array | None = None,
) -> Prediction:
    """The law of f(times), jointly, given the values of a process: draws in O(n), and a density.

    The law is of f, without the noise of the process. Its `sample` is a draw of the whole path;
    `mean`, `variance` and `covariance_matrix` describe it.

    Args:
      process: as made by `gp`; what is not present in it is left out.
      values: what it was observed at, `(n,)`.
      times: the new ones, in any order; a time may be one of the old ones.
      mean: of f at the new times; that of the process if it is one number.

    Raises:
      InvalidArgument: the process is none, a shape is wrong, a value is known to be no number,
        or the mean at new times is not known.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.prediction import predict
    >>> from inference.gaussian.process import gp
    >>> process = gp(Matern12(1.0), jnp.array([0.0, 2.0]), noise=0.1)
    >>> f = predict(process, jnp.array([1.0, 1.0]), jnp.array([1.0]))
    >>> round(float(f.log_prob(f.mean) + 0.5 * jnp.log(2 * jnp.pi * f.variance[0])), 6)
    0.0
    """
    if not isinstance(process, GaussianProcess):
        raise errors.InvalidArgument(
            "A Gaussian process was expected.", where=errors.caller(), given=shown(process),
            expected="the law of the values", fix="predict(gp(kernel, times), values, new_times)",
        )  # fmt: skip
    check_values(values, process.event_shape[0], process.present)
    level: Any = process.level if mean is None else mean
    if mean is None and np.shape(level):
        raise errors.InvalidArgument(
            "The mean at new times is not known.", where=errors.caller(),
            given=f"a process whose mean is {shown(process.level)}",
            expected="the mean of f at the new times", fix="mean=mean_function(new_times)",
        )  # fmt: skip
    new = gp(process.kernel, times, mean=level)
    noise = process.noise
    if noise is not None:
        noise = jnp.concatenate([process.variances(), jnp.zeros(new.event_shape)])
    joined = lambda one, other: jnp.concatenate([one, other])  # noqa: E731
    joint = GaussianProcess(process.kernel, joined(process.times, new.times),
                            joined(process.mean, new.mean), noise,
                            joined(process.seen() > 0, jnp.ones(new.event_shape, bool)),
                            process.along)  # fmt: skip
    return Prediction(process, jnp.asarray(values, jnp.result_type(values, 0.0)), joint)
