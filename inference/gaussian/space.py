"""Processes at several places: a kernel of time, times a covariance of the places."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import errors

from ..validation.settings import check_option, shown
from .chain import Chain
from .evidence import evidence
from .inputs import array_of, check_table, check_times
from .kernel import Kernel, check_kernel
from .lanes import WAYS
from .series import beliefs, chain_of_series, drawn_from, restored_from


class SpaceTime(dist.Distribution):
    """The law of f(time, place), with or without noise, as an array `(n, m)`: see `space_time`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.space import space_time
    >>> process = space_time(Matern12(1.0), jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.zeros(1))
    >>> process.variance.tolist()
    [[2.0, 2.0]]
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("kernel", "places", "times", "level", "noise", "present")
    pytree_aux_fields = ("along",)

    def __init__(
        self,
        kernel: Kernel,
        places: jax.Array,
        times: jax.Array,
        level: jax.Array,
        noise: jax.Array,
        present: jax.Array,
        along: str,
    ):
        self.kernel, self.places, self.times, self.level = kernel, places, times, level
        self.noise, self.present, self.along = noise, present, along
        shape = times.shape[0], places.shape[0]
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.real_matrix

    @property
    def mean(self) -> jax.Array:
        return jnp.broadcast_to(self.level, self.event_shape)

    @property
    def variance(self) -> jax.Array:
        one = self.kernel.covariance(self.times, self.times)
        return one[:, None] * jnp.diag(self.places) + self.noise

    @property
    def covariance_matrix(self) -> jax.Array:
        """The dense covariance `(n m, n m)`, time after time, for small arrays and for tests."""
        times = jnp.asarray(self.times)
        one = self.kernel.covariance(times[:, None], times)
        noise = jnp.broadcast_to(self.noise, self.event_shape).reshape(-1)
        return jnp.kron(one, self.places) + jnp.diag(noise)

    def order(self) -> jax.Array:
        """The place of each time in what was given."""
        return jnp.argsort(jax.lax.stop_gradient(self.times), stable=True)

    def chain(self, order: jax.Array) -> Chain:
        """The process in the order of time, whose state is that of the kernel at each place."""
        times, m, d = self.times[order], self.event_shape[1], self.kernel.dimension
        before = jnp.concatenate([times[:1], times[:-1]])
        gaps, eye = times - before, jnp.eye(m)
        each = jax.vmap(jnp.kron, (0, None))
        return chain_of_series(
            times.shape[0],
            jnp.zeros(d * m),
            jnp.kron(self.kernel.start(times[0]), self.places),
            each(self.kernel.transition(gaps), eye),
            each(self.kernel.noise(gaps, before), self.places),
            jnp.kron(self.kernel.observation()[None], eye),
            jnp.broadcast_to(self.noise, self.event_shape)[order],
            present=jnp.broadcast_to(self.present, self.event_shape)[order],
        )

    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, jnp.result_type(value, 0.0))
        if value.shape[-2:] != self.event_shape:
            raise errors.InvalidArgument(
                "A value has a number for each time and place.", where=errors.caller(),
                given=f"a value of shape {value.shape}", expected=f"shape {self.event_shape}",
                fix="space_time(kernel, covariance_of_places, times) at its own times",
            )  # fmt: skip
        order = self.order()
        chain = self.chain(order)
        flat = (value - self.mean).reshape(-1, *self.event_shape)
        one = lambda each: evidence(chain, each[order], self.along)  # noqa: E731
        found = one(flat[0]) if len(flat) == 1 else jax.vmap(one)(flat)
        return found.reshape(value.shape[:-2])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        order = self.order()
        chain, keys = self.chain(order), jax.random.split(key)
        n, d, _ = chain.transition.shape
        dtype = chain.noise.dtype
        states = jax.random.normal(keys[0], (*sample_shape, n + 1, d), dtype)
        noise = jax.random.normal(keys[1], (*sample_shape, *self.event_shape), dtype)
        draw = lambda z, e: jnp.zeros_like(e).at[order].set(drawn_from(z, e, chain)[1])  # noqa: E731
        for _ in sample_shape:
            draw = jax.vmap(draw)
        return self.mean + draw(states, noise)


class SpaceTimePrediction(dist.Distribution):
    """The law of f at new times and all places, given values of the process: see `predict_places`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.space import predict_places, space_time
    >>> process = space_time(Matern12(1.0), jnp.eye(2), jnp.zeros(1))
    >>> f = predict_places(process, jnp.array([[1.0, 2.0]]), jnp.array([1.0]))
    >>> f.mean.round(4).tolist()  # 1 and 2 times exp(-1)
    [[0.3679, 0.7358]]
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("joint", "values")

    def __init__(self, joint: SpaceTime, values: jax.Array):
        self.joint, self.values = joint, values
        new = joint.event_shape[0] - values.shape[0]
        super().__init__((), (new, joint.event_shape[1]), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.real_matrix

    def _given(self) -> tuple[jax.Array, Chain, jax.Array]:
        """The order of all times, the chain, and what is known of it, in order."""
        order = self.joint.order()
        spare = jnp.zeros(self.event_shape, self.values.dtype)
        values = jnp.concatenate([self.values, spare]) - self.joint.mean
        return order, self.joint.chain(order), values[order]

    def _new(self, order: jax.Array, found: jax.Array) -> jax.Array:
        return jnp.zeros_like(found).at[order].set(found)[-self.event_shape[0] :]

    @property
    def mean(self) -> jax.Array:
        order, chain, values = self._given()
        states = beliefs(chain, values, self.joint.along).mean[1:]
        found = self._new(order, states @ chain.observation.T)
        return self.joint.mean[-self.event_shape[0] :] + found

    @property
    def variance(self) -> jax.Array:
        order, chain, values = self._given()
        h, found = chain.observation, beliefs(chain, values, self.joint.along).covariance[1:]
        return self._new(order, jnp.einsum("pi,nij,pj->np", h, found, h))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        _, chain, values = self._given()
        n, d, _ = chain.transition.shape
        keys, dtype = jax.random.split(key), values.dtype
        states = jax.random.normal(keys[0], (*sample_shape, n + 1, d), dtype)
        noise = jax.random.normal(keys[1], (*sample_shape, *values.shape), dtype)
        draw = self.from_normals
        for _ in sample_shape:
            draw = jax.vmap(draw)
        return draw(states, noise)

    def from_normals(self, states: jax.Array, noise: jax.Array) -> jax.Array:
        """A joint draw, from standard normals `(n + new + 1, d m)` and `(n + new, m)`."""
        order, chain, values = self._given()
        found = restored_from(states, noise, chain, values, self.joint.along)[1:]
        new = self._new(order, found @ chain.observation.T)
        return self.joint.mean[-self.event_shape[0] :] + new

    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, self.values.dtype)
        joint, old = self.joint, self.values.shape[0]
        told = jnp.broadcast_to(self.values, (*value.shape[:-2], *self.values.shape))
        seen = joint.present.at[old:].set(True)
        whole = SpaceTime(joint.kernel, joint.places, joint.times, joint.level, joint.noise, seen,
                          joint.along)  # fmt: skip
        known = joint.log_prob(jnp.concatenate([self.values, jnp.zeros(self.event_shape)]))
        return whole.log_prob(jnp.concatenate([told, value], -2)) - known


def space_time(
    kernel: Kernel,
    places: Any,
    times: Any,
    *,
    mean: Any = 0.0,
    noise: Any = None,
    present: Any = None,
    along: str = "scan",
) -> SpaceTime:
    """The law of f(time, place) of covariance k(s, t) C, or of f + noise: an array `(n, m)`.

    C is the covariance of m places; they are few, since a state has the kernel's numbers at each
    of them. In times it is O(n). A place or a time of which nothing is known yet is one that is
    not present. Nothing is added to a diagonal.

    Args:
      places: C, `(m, m)`, positive semidefinite: `kernel.covariance(x[:, None], x)` on a line.
      times: `(n,)`, in any order; with noise, they may repeat.
      mean: a number, or an array that broadcasts to `(n, m)`.
      noise: the variance of the noise of a value, likewise; none for no noise.
      present: bools `(n, m)`; none if all are there.
      along: "scan", "blocks", "tree" or "roots", as of `gp`.

    Raises:
      InvalidArgument: what is given is no kernel, or has another shape; or times are known to
        repeat without noise.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.space import space_time
    >>> process = space_time(Matern12(1.0), jnp.eye(2), jnp.array([0.0]), noise=1.0)
    >>> round(float(process.log_prob(jnp.zeros((1, 2)))), 4)  # -log 2π - log 2
    -2.531
    """
    check_kernel(kernel)
    n = check_times(times)
    check_option("along", along, WAYS)
    m = next(iter(np.shape(array_of(places))), 1)
    check_table("places", places, (m, m))
    check_table("mean", mean, (), (m,), (n, m))
    check_table("noise", 0.0 if noise is None else noise, (), (m,), (n, m), least=0.0)
    seen = jnp.ones((n, m), bool) if present is None else present
    check_table("present", seen, (n, m), kind=jnp.bool_)
    known = noise is None and not isinstance(times, jax.core.Tracer)
    if known and np.unique(np.asarray(times)).size < n:
        raise errors.InvalidArgument(
            "Times repeat, and there is no noise.", where=errors.caller(),
            given=f"times={shown(times)}", expected="different times, or noise",
            fix="noise=, the variance of an observation",
        )  # fmt: skip
    return SpaceTime(kernel, jnp.asarray(places, float), jnp.asarray(times, float),
                     jnp.asarray(mean, float), jnp.asarray(0.0 if noise is None else noise, float),
                     jnp.asarray(seen), along)  # fmt: skip


def predict_places(process: SpaceTime, values: Any, times: Any, *, mean: Any = None) -> Any:
    """The law of f at new times and all places, jointly, given the values of a process.

    It is of f, without noise; `sample` draws all of it together. What is asked at a new place is
    a place of the process of which nothing is present.

    Args:
      values: `(n, m)`; any numbers where the process is not present.
      times: the new ones, different from the old ones.
      mean: of f at the new times; that of the process, if it is the same at all times.

    Raises:
      InvalidArgument: a shape is wrong, or the mean at new times is not known.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.space import predict_places, space_time
    >>> process = space_time(Matern12(1.0), jnp.eye(2), jnp.zeros(1))
    >>> f = predict_places(process, jnp.array([[1.0, 2.0]]), jnp.array([2.0]))
    >>> f.variance.round(4).tolist()  # 1 - exp(-4)
    [[0.9817, 0.9817]]
    """
    n, m = process.event_shape
    check_table("values", jnp.where(process.present, values, 0.0), (n, m))
    k = check_times(times)
    if mean is None and process.level.ndim == 2:
        raise errors.InvalidArgument(
            "The mean at new times is not known.", where=errors.caller(),
            given=f"a process whose mean is {shown(process.level)}",
            expected="the mean of f at the new times", fix="mean=jnp.zeros((new, places))",
        )  # fmt: skip
    level: Any = process.level if mean is None else mean
    check_table("mean", level, (), (m,), (k, m))
    both = lambda old, new: jnp.concatenate(  # noqa: E731
        [jnp.broadcast_to(old, (n, m)), jnp.broadcast_to(new, (k, m))]
    )
    times = jnp.concatenate([process.times, jnp.asarray(times, process.times.dtype)])
    level, noise = both(process.level, level), both(process.noise, 0.0)
    seen = both(process.present, False)
    joint = SpaceTime(process.kernel, process.places, times, level, noise, seen, process.along)
    return SpaceTimePrediction(joint, jnp.asarray(values, jnp.result_type(values, 0.0)))
