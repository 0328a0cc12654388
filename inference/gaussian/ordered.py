"""Times in any order, and repeated, as a chain in time: what is told twice is told once."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from .chain import Chain, Course, Steps
from .kernel import Kernel


@dataclass(frozen=True)
class Ordered:
    """A process in the order of time.

    Attributes:
      order: the place of each in what was given.
      times, gaps: in order; the first gap is zero.
      certain: what repeats, without noise, what was observed just before it.
      before: the time before each; the first is itself.
      variance, present: of the noise, and whether a value is there and not certain.
    """

    kernel: Kernel
    order: jax.Array
    times: jax.Array
    gaps: jax.Array
    certain: jax.Array
    before: jax.Array
    variance: jax.Array
    present: jax.Array

    @property
    def chain(self) -> Chain:
        """Its law, of matrices, in which what is certain is left out."""
        return Chain(
            mean=jnp.zeros(self.kernel.dimension),
            covariance=self.kernel.start(self.times[0]),
            transition=self.kernel.transition(self.gaps),
            noise=self.kernel.noise(self.gaps, self.before),
            observation=self.kernel.observation(),
            variance=self.variance,
            present=self.present,
        )

    def course(self, values: jax.Array) -> Course:
        """The same, observed at these values in order, for steps that are made `by_kernel`."""
        cast = lambda x: jnp.asarray(x, values.dtype)  # noqa: E731
        rows = self.gaps, self.before, self.variance, self.present, values
        start = cast(self.kernel.start(self.times[0]))
        zero = jnp.zeros(self.kernel.dimension, values.dtype)
        return Course(zero, start, self.kernel, tuple(cast(row) for row in rows))

    def undone(self, values: jax.Array) -> jax.Array:
        """Values in order, as they were given."""
        return jnp.zeros_like(values).at[self.order].set(values)


def ordered(kernel: Kernel, times: jax.Array, variance: jax.Array, present: jax.Array) -> Ordered:
    """The chain of a kernel at these times, of which those are present.

    Of equal times, those observed without noise come first: the others then say something.

    Args:
      variance: of the noise of each, `(n,)`; zero for none.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.ordered import ordered
    >>> times = jnp.array([2.0, 0.0, 2.0])
    >>> found = ordered(Matern12(1.0), times, jnp.zeros(3), jnp.ones(3))
    >>> found.gaps.tolist(), found.certain.tolist()
    ([0.0, 2.0, 0.0], [False, False, True])
    """
    exact = (variance == 0) & (present > 0)
    fixed = lax.stop_gradient(times)
    rising = (fixed[1:] > fixed[:-1]) | ((fixed[1:] == fixed[:-1]) & (exact[:-1] >= exact[1:]))
    order = lax.cond(
        jnp.all(rising),
        lambda: jnp.arange(times.size),
        lambda: jnp.lexsort((~exact, fixed)).astype(jnp.arange(1).dtype),
    )
    times, variance, present, exact = (x[order] for x in (times, variance, present, exact))
    before = jnp.concatenate([times[:1], times[:-1]])
    gaps = times - before
    certain = jnp.zeros_like(exact).at[1:].set(exact[1:] & exact[:-1] & (gaps[1:] == 0))
    present = jnp.where(certain, 0.0, present)
    return Ordered(kernel, order, times, gaps, certain, before, variance, present)


def by_kernel(kernel: Kernel, rows: tuple[jax.Array, ...]) -> Steps:
    """Steps of a kernel, from the rows of a `course`."""
    gaps, before, variance, present, values = rows
    behind = lambda x: jnp.moveaxis(jnp.asarray(x, values.dtype), 0, -1)  # noqa: E731
    return Steps(
        transition=behind(kernel.transition(gaps)),
        noise=behind(kernel.noise(gaps, before)),
        observation=jnp.asarray(kernel.observation(), values.dtype)[None, :, None],
        variance=variance[None],
        present=present[None],
        values=values[None],
        offset=None,
    )
