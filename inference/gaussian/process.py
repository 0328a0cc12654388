"""A Gaussian process at given times, as a distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import errors

from ..validation.settings import check_option
from .evidence import of_course
from .inputs import check_each, check_present, check_times
from .kernel import Kernel, check_kernel
from .lanes import WAYS
from .ordered import Ordered, by_kernel, ordered
from .paths import path


class GaussianProcess(dist.Distribution):
    """The law of a process with a kernel at n times, with or without noise: see `gp`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.process import gp
    >>> process = gp(Matern12(1.0), jnp.array([0.0, 1.0]), mean=2.0, noise=0.5)
    >>> process.mean.tolist(), process.variance.tolist()
    ([2.0, 2.0], [1.5, 1.5])
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("kernel", "times", "level", "noise", "present")
    pytree_aux_fields = ("along",)

    def __init__(
        self, kernel: Kernel, times: Any, level: Any, noise: Any, present: Any, along: str | None
    ):
        self.kernel, self.times, self.level = kernel, times, level
        self.noise, self.present, self.along = noise, present, along
        super().__init__((), (np.shape(times)[0],), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.real_vector

    @property
    def mean(self) -> jax.Array:
        return jnp.broadcast_to(self.level, self.event_shape)

    @property
    def variance(self) -> jax.Array:
        return self.kernel.covariance(self.times, self.times) + self.variances()

    @property
    def covariance_matrix(self) -> jax.Array:
        """The dense covariance, for small n and for tests."""
        times = jnp.asarray(self.times)
        return self.kernel.covariance(times[:, None], times) + jnp.diag(self.variances())

    def variances(self) -> jax.Array:
        """Of the noise of each value."""
        noise = 0.0 if self.noise is None else self.noise
        return jnp.broadcast_to(jnp.asarray(noise, self._dtype()), self.event_shape)

    def seen(self) -> jax.Array:
        """1 where a value is there, and 0 where it is left out."""
        present = True if self.present is None else self.present
        return jnp.broadcast_to(jnp.asarray(present, self._dtype()), self.event_shape)

    def _dtype(self) -> Any:
        return jnp.result_type(self.times, 0.0)

    def in_order(self) -> Ordered:
        """The process as a chain, in the order of time."""
        times = jnp.asarray(self.times, self._dtype())
        return ordered(self.kernel, times, self.variances(), self.seen())

    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, jnp.result_type(value, 0.0))
        self._check(value)
        process = self.in_order()
        flat = (value - self.mean).reshape(-1, *self.event_shape)
        one = lambda each: _log_density(process, each, way(self.kernel, self.along))  # noqa: E731
        found = one(flat[0]) if len(flat) == 1 else jax.vmap(one)(flat)
        return found.reshape(value.shape[:-1])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        shape = (*sample_shape, *self.event_shape)
        first, second = jax.random.split(key)
        states = jax.random.normal(first, (*shape, self.kernel.dimension), self._dtype())
        noise = None if self.noise is None else jax.random.normal(second, shape, self._dtype())
        process, draw = self.in_order(), self.from_normals
        for _ in sample_shape:
            draw = jax.vmap(draw, (0, None if noise is None else 0, None))
        return draw(states, noise, process)

    def from_normals(
        self, states: jax.Array, noise: jax.Array | None = None, process: Any = None
    ) -> jax.Array:
        """A draw, as a linear map of standard normals `(n, dimension)`, and `(n,)` of the noise."""
        draw = self.mean + path(self.in_order() if process is None else process, states)
        if noise is None:
            return draw
        varies = self.variances() > 0
        return draw + jnp.where(varies, jnp.sqrt(jnp.where(varies, self.variances(), 1)), 0) * noise

    def _check(self, value: jax.Array) -> None:
        if value.shape[-1:] != self.event_shape:
            raise errors.InvalidArgument(
                "A value of a Gaussian process has one number for each time.",
                where=errors.caller(), given=f"a value of shape {value.shape}",
                expected=f"shape {self.event_shape}", fix="gp(kernel, times) at its own times",
            )  # fmt: skip
        rank, times = self.kernel.rank, self.times
        if rank is None or self.noise is not None or self.present is not None:
            return
        known = not isinstance(times, jax.core.Tracer)
        count = np.unique(np.asarray(times)).size if known else self.event_shape[0]
        if count > rank:
            raise errors.InvalidArgument(
                "This Gaussian process has no density: some values determine the others.",
                where=errors.caller(), given=f"{count} times, and no noise",
                expected=f"at most {rank}, which is how many values are free",
                fix="noise=, the variance of an observation; or add a kernel: k + Matern32(1.0)",
            )  # fmt: skip


def _log_density(process: Ordered, value: jax.Array, along: str) -> jax.Array:
    value = value[process.order]
    told = jnp.concatenate([value[:1], value[:-1]])
    possible = ~process.certain | (value == told)
    possible = jnp.all(possible & (jnp.isfinite(value) | (process.present <= 0)))
    course = process.course(jnp.where(jnp.isfinite(value), value, 0.0))
    return jnp.where(possible, of_course(by_kernel, along, course), -jnp.inf)


def way(kernel: Kernel, along: str | None) -> str:
    """The fastest way along time on the device in use, unless one is named.

    A kernel of finite rank goes by scan: an exact value may then determine the state before it,
    and no block can say that of a state it does not know.
    """
    if kernel.rank is not None:
        return "roots" if along == "roots" else "scan"
    if along is not None:
        return along
    return "scan" if jax.default_backend() == "cpu" else "tree"


def gp(
    kernel: Kernel,
    times: Any,
    *,
    mean: float | jax.Array | Callable[[jax.Array], jax.Array] = 0.0,
    noise: float | jax.Array | None = None,
    present: jax.Array | None = None,
    along: str | None = None,
) -> GaussianProcess:
    """The law of f(times), or of f(times) + noise, for a Gaussian process f: density in O(n).

    It is a distribution over arrays `(n,)`, for `sample` and `draw`; values, times, and
    hyperparameters may all be traced, and have gradients. Nothing is added to the diagonal.
    The density is of the values at different times: a value that repeats, without noise, what
    the same time has already told adds nothing if it is the same, and is impossible otherwise.
    Without noise or with very little, a smooth process at gaps far below its scale needs double
    precision, or roots of covariances in single precision.

    Args:
      times: `(n,)`, in any order and repeated if need be.
      mean: of f: a number, an array `(n,)`, or a function of the times.
      noise: the *variance* of what is added to each value, one or `(n,)`; zero is allowed.
      present: `(n,)` of bools; a value that is not present is left out of the density.
      along: "scan", "blocks", "tree", or None for the fastest; the numbers are the same. "roots"
        carries roots of covariances, for noise of 1e-8 of the variance in single precision: a
        step costs a microsecond or two more, and predictions have no derivative.

    Raises:
      InvalidArgument: what is given is no kernel, has a wrong shape, or is known to be no
        number, or a negative variance. `log_prob` raises it for a kernel of which some values
        determine the others, without noise.

    Source: Hartikainen & Särkkä 2010; the inputs are as in tinygp, the noise is a variance.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.process import gp
    >>> process = gp(Matern12(scale=1.0), jnp.array([1.0, 0.0]), noise=0.5)
    >>> round(float(process.log_prob(jnp.zeros(2))), 4)  # det = 1.5² - exp(-2)
    -2.2123
    """
    check_kernel(kernel)
    count = check_times(times)
    if callable(mean) and not isinstance(mean, (type, dist.Distribution)):
        mean = mean(jnp.asarray(times, float))
    check_each("mean", mean, count)
    if noise is not None:
        check_each("noise", noise, count, least=0.0)
    if present is not None:
        check_present(present, count)
    if along is not None:
        check_option("along", along, WAYS)
    as_array = lambda x: x if x is None else jnp.asarray(x)  # noqa: E731
    return GaussianProcess(kernel, as_array(times), as_array(mean), as_array(noise),
                           as_array(present), along)  # fmt: skip
