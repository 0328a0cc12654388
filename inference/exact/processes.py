"""Gaussian processes on a line that are summed out, and what has been seen of them.

A process at n times is held by its kernel and by what was seen of single values, with normal
noise: each a number times one of them plus a number. Its evidence and its beliefs are those of
`inference.gaussian`, in O(n). What reads it in another way needs its matrix of covariances.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ..gaussian.kernel import Kernel
from ..gaussian.prediction import predict
from ..gaussian.process import GaussianProcess
from .linear import Block, Picked, Tilt

MOST = 4096
"""Values of a process whose covariances are written out."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "kernel", "times", "rows", "values", "variance", "present", "evidence", "level", "tilt",
        "simulated",
    ],
    meta_fields=["block", "along"],
)  # fmt: skip
@dataclass(frozen=True, eq=False)
class Process:
    """A process that is zero on average, given what was seen of it.

    Attributes:
      block: its name and number of values.
      rows, values, variance, present: of each number seen, `(m,)`: of which value it is, what it
        was and with which noise, and whether it is there.
      evidence: the log density of what was seen.
      level: what the choice is on average, `(n,)`.
      tilt: a factor of the choice's density.
      simulated: values drawn from the prior, `(n,)`; then what was seen is the difference from
        what they make.

    >>> import jax.numpy as jnp
    >>> from inference.exact.processes import begun
    >>> from inference.gaussian import Matern12, gp
    >>> process = begun(("f",), gp(Matern12(1.0), jnp.array([0.0, 2.0])), None, None)
    >>> process, log = process.given(process.picked(), jnp.ones(2), jnp.array([3.0, 0.0]), None)
    >>> [f"{mean:.3f}" for mean in process.mean()]  # K (K + 1)^-1 y, of covariance exp(-2)
    ['1.493', '0.102']
    """

    kernel: Kernel
    times: jax.Array
    rows: jax.Array
    values: jax.Array
    variance: jax.Array
    present: jax.Array
    evidence: jax.Array
    level: jax.Array
    tilt: Tilt | None
    simulated: jax.Array | None
    block: Block
    along: str | None

    def picked(self) -> Picked:
        """The choice, which is its level plus the process."""
        ones, rows = jnp.ones_like(self.level), jnp.arange(self.block.size)
        return Picked(self.level, ones, rows, self.block)

    def _noisy(self, rows: Any, variance: Any, present: Any) -> GaussianProcess:
        zero = jnp.zeros((), self.level.dtype)
        times = jnp.take(self.times, rows)
        return GaussianProcess(self.kernel, times, zero, variance, present, self.along)

    def _seen(self) -> GaussianProcess:
        return self._noisy(self.rows, self.variance, self.present)

    def given(self, read: Picked, scale: Any, value: Any, present: Any) -> tuple[Process, Any]:
        """The process given that `read` plus noise of that scale was this value, all `(k,)`, and
        the log density of that."""
        some = jnp.ones(value.shape, bool) if present is None else present
        reads = read.by != 0
        by = jnp.where(reads, read.by, 1.0)
        told = some & reads
        values = jnp.where(told, (value - read.at) / by, 0.0)
        more = replace(
            self,
            rows=jnp.concatenate([self.rows, read.rows]),
            values=jnp.concatenate([self.values, values.astype(self.values.dtype)]),
            variance=jnp.concatenate([self.variance, (scale / by) ** 2]),
            present=jnp.concatenate([self.present, told]),
        )
        after = replace(more, evidence=more._seen().log_prob(more.values))
        apart = dist.Normal(read.at, jnp.where(reads, 1.0, scale)).log_prob(value)
        log = jnp.where(reads, -jnp.log(jnp.abs(by)), apart)
        return after, after.evidence - self.evidence + jnp.sum(jnp.where(some, log, 0.0))

    def _at(self, times: jax.Array, level: Any = 0.0) -> Any:
        """The law of a level plus the process at these times, given what was seen."""
        level = jnp.asarray(level, self.level.dtype)
        if not self.values.size:
            return GaussianProcess(self.kernel, times, level, None, None, self.along)
        return predict(self._seen(), self.values, times, mean=level)

    def law(self, level: Any = 0.0) -> Any:
        """The law of a level plus all values, given what was seen."""
        return self._at(self.times, level)

    def mean(self) -> jax.Array:
        return jnp.broadcast_to(self.law().mean, self.level.shape)

    def draw_of(self, key: Any, rows: jax.Array) -> jax.Array:
        """A joint draw of some of the values, given what was seen."""
        return self._at(jnp.take(self.times, rows)).sample(key)

    def tilted(self) -> jax.Array:
        """The log of the tilt's expectation, to first order in it."""
        if self.tilt is None:
            return jnp.zeros((), self.level.dtype)
        centre = self.level + self.mean()
        if self.simulated is not None:
            centre = centre + self.simulated
        found = jnp.sum(self.tilt.slope.reshape(-1) * centre)
        if self.tilt.bend is not None:
            off = centre - self.tilt.centre.reshape(-1)
            second = self.law().covariance_matrix + off[:, None] * off
            found = found + 0.5 * jnp.sum(self.tilt.bend * second)
        return found

    def covariance(self) -> jax.Array:
        """Of all values, before anything was seen."""
        return self.kernel.covariance(self.times[:, None], self.times)


def begun(name: tuple, law: GaussianProcess, tilt: Tilt | None, simulated: Any) -> Process:
    """A process of which nothing was seen."""
    level = jnp.asarray(law.mean, jnp.result_type(law.times, 0.0))
    none = jnp.zeros((0,), level.dtype)
    return Process(law.kernel, jnp.asarray(law.times, level.dtype), jnp.zeros((0,), int), none,
                   none, jnp.zeros((0,), bool), jnp.zeros((), level.dtype), level, tilt,
                   simulated, Block(name, level.size), law.along)  # fmt: skip


def dense(read: Picked) -> jax.Array:
    """What a picked value has of all values, as a matrix: with their axis behind."""
    return read.by[..., None] * jax.nn.one_hot(read.rows, read.block.size, dtype=read.by.dtype)


class Seen(dist.Distribution):
    """The law of numbers that are picked from a process, with noise, given what was seen of it."""

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("process", "read", "scale", "present")
    pytree_aux_fields = ("shape_",)

    def __init__(self, process: Process, read: Picked, scale: Any, present: Any, shape: tuple):
        self.process, self.read, self.scale = process, read, scale
        self.present, self.shape_ = present, shape
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Any) -> jax.Array:
        flat = jnp.asarray(value).reshape(-1)
        return self.process.given(self.read, self.scale, flat, self.present)[1]

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        assert sample_shape == ()
        first, second = jax.random.split(key)
        drawn = self.process.draw_of(first, self.read.rows)
        noise = jax.random.normal(second, drawn.shape, drawn.dtype)
        return (self.read.at + self.read.by * drawn + self.scale * noise).reshape(self.event_shape)
