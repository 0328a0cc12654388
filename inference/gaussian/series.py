"""Any series of Gaussian states and of what is seen of them: evidence, beliefs, joint draws."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..validation.settings import check_count
from .chain import Chain, course_of, given
from .evidence import states
from .inputs import array_of, check_table
from .paths import root


def chain_of_series(
    count: int,
    mean: Any,
    covariance: Any,
    transition: Any,
    noise: Any,
    observation: Any,
    variance: Any,
    *,
    offset: Any = None,
    level: Any = None,
    present: Any = None,
) -> Chain:
    """The chain x_t = A_t x_{t-1} + b_t + w_t, y_t = H_t x_t + c_t + v_t of t = 1, ..., n.

    The state that is given is x_0, *before* the first step: n observations have n transitions,
    and entry t of each array leads into x_t, or is of what is seen there. For a start *at* the
    first observation, A_1 is the identity, and Q_1 and b_1 are zero.

    What has no axis of times is the same at all of them. Matrices of covariance may be singular
    or zero. A row of an observation that is not present is left out, as if its row and column of
    H and R had never been there.

    Args:
      count: n.
      mean, covariance: of x_0, `(d,)` and `(d, d)`.
      transition, noise: A and Q, `(d, d)` or `(n, d, d)`.
      observation: H, `(p, d)` or `(n, p, d)`.
      variance: R; of independent noise `(p,)` or `(n, p)`, and else `(1, p, p)` or `(n, p, p)`.
      offset: b, `(d,)` or `(n, d)`; none for zero.
      level: c, `(p,)` or `(n, p)`; none for zero.
      present: bools, `(n,)` or `(n, p)`; none if all are there.

    Raises:
      InvalidArgument: what is given has another shape, or is made of no real numbers.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.evidence import evidence
    >>> from inference.gaussian.series import chain_of_series
    >>> two = jnp.array([[1.0], [1.0]])  # a walk, seen by two instruments
    >>> chain = chain_of_series(1, jnp.zeros(1), jnp.eye(1), jnp.eye(1), jnp.eye(1), two,
    ...     jnp.ones(2))
    >>> round(float(evidence(chain, jnp.zeros((1, 2)))), 4)  # det = 3 · 3 - 2 · 2
    -2.6426
    """
    check_count("count", count)
    d = next(iter(np.shape(array_of(mean))), 1)
    p = next(iter(np.shape(array_of(observation))[-2:-1]), 1)

    def each(name: str, value: Any, *shape: int) -> jax.Array:
        found = _checked(name, value, shape, (count, *shape))
        return jnp.broadcast_to(found, (count, *shape))

    rows = _checked("observation", observation, (p, d), (count, p, d))
    if len(np.shape(array_of(variance))) == 3:
        noise_seen = _checked("variance", variance, (1, p, p), (count, p, p))
        noise_seen = jnp.broadcast_to(noise_seen, (count, p, p))
    else:
        noise_seen = each("variance", variance, p)
    here = jnp.ones(count, bool) if present is None else jnp.asarray(present)
    here = _checked("present", here, (count,), (count, p), kind=jnp.bool_)
    return Chain(
        mean=_checked("mean", mean, (d,)),
        covariance=_checked("covariance", covariance, (d, d)),
        transition=each("transition", transition, d, d),
        noise=each("noise", noise, d, d),
        observation=rows,
        variance=noise_seen,
        present=jnp.broadcast_to(here if here.ndim == 2 else here[:, None], (count, p)),
        offset=None if offset is None else each("offset", offset, d),
        level=None if level is None else each("level", level, p),
    )


def _checked(name: str, value: Any, *shapes: tuple[int, ...], kind: Any = None) -> jax.Array:
    check_table(name, value, *shapes, kind=kind)
    return jnp.asarray(array_of(value))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class States:
    """The law of each state by itself: `(n + 1, d)` means and `(n + 1, d, d)` covariances.

    The first is that of x_0, before the first step. The means are the most likely path, too.
    """

    mean: jax.Array
    covariance: jax.Array


def beliefs(chain: Chain, values: jax.Array, along: str = "scan") -> States:
    """The law of each state, given all observations that are present.

    Args:
      values: as of `evidence`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.series import beliefs, chain_of_series
    >>> one = jnp.eye(1)
    >>> walk = chain_of_series(1, jnp.zeros(1), one, one, one, one, jnp.ones(1))
    >>> found = beliefs(walk, jnp.array([[3.0]]))
    >>> found.mean.round(4).ravel().tolist()  # a third of the way, and two
    [1.0, 2.0]
    """
    mean, covariance = states(chain, values, along)
    return States(jnp.moveaxis(mean, -1, 0), jnp.moveaxis(covariance, -1, 0))


def restored(key: Any, chain: Chain, values: jax.Array, along: str = "scan") -> jax.Array:
    """A joint draw `(n + 1, d)` of all states from x_0 on, given what is present.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian.series import chain_of_series, restored
    >>> one = jnp.eye(1)
    >>> walk = chain_of_series(2, jnp.zeros(1), one, one, one, one, jnp.zeros(1))
    >>> restored(jax.random.key(0), walk, jnp.array([[3.0], [4.0]]))[1:].round(4).tolist()
    [[3.0], [4.0]]
    """
    n, d = chain.transition.shape[:2]
    first, second = jax.random.split(key)
    values = jnp.asarray(values, jnp.result_type(values, 0.0))
    normals = jax.random.normal(first, (n + 1, d), values.dtype)
    noise = jax.random.normal(second, values.shape, values.dtype)
    return restored_from(normals, noise, chain, values, along)


def restored_from(
    normals: jax.Array, noise: jax.Array, chain: Chain, values: jax.Array, along: str = "scan"
) -> jax.Array:
    """The draw as an affine map of standard normals: `(n + 1, d)`, and those of the values' shape.

    The chain is drawn, with its observations, and then corrected by what the difference of the
    observations says of its error: there is no backward pass of matrices, and no inverse.

    Source: Durbin & Koopman 2002, A simple and efficient simulation smoother.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.series import chain_of_series, restored_from
    >>> one = jnp.eye(1)
    >>> walk = chain_of_series(1, jnp.zeros(1), one, one, one, one, jnp.ones(1))
    >>> restored_from(jnp.zeros((2, 1)), jnp.zeros((1, 1)), walk, jnp.array([[3.0]])).ravel()
    Array([1., 2.], dtype=float64)
    """
    path, made = drawn_from(normals, noise, chain)
    less = dataclasses.replace(chain, mean=jnp.zeros_like(chain.mean), offset=None, level=None)
    difference = jnp.where(chain.present > 0, values, made) - made
    return path + beliefs(less, difference, along).mean


def drawn_from(normals: jax.Array, noise: jax.Array, chain: Chain) -> tuple[jax.Array, jax.Array]:
    """All states `(n + 1, d)` and what is seen of them, as an affine map of standard normals.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.series import chain_of_series, drawn_from
    >>> one = jnp.eye(1)
    >>> walk = chain_of_series(1, jnp.zeros(1), one, one, one, one, jnp.ones(1), level=jnp.ones(1))
    >>> states, seen = drawn_from(jnp.ones((2, 1)), jnp.ones((1, 1)), walk)
    >>> states.ravel().tolist(), seen.ravel().tolist()
    ([1.0, 2.0], [4.0])
    """
    course = course_of(chain, jnp.zeros_like(noise))
    steps = given(course.shared, course.rows)
    ahead = lambda x: jnp.moveaxis(x, -1, 0)  # noqa: E731
    start = course.mean + root(course.covariance) @ normals[0]
    kicks = jnp.einsum("nij,nj->ni", root(ahead(steps.noise)), normals[1:])
    kicks = kicks if steps.offset is None else kicks + steps.offset.T

    def step(state: jax.Array, move: tuple) -> tuple[jax.Array, jax.Array]:
        state = move[0] @ state + move[1]
        return state, state

    _, rest = lax.scan(step, start, (ahead(steps.transition), kicks))
    variance, error = ahead(steps.variance), noise.reshape(steps.count, steps.width)
    if variance.ndim == 3:
        error = jnp.einsum("npq,nq->np", root(variance), error)
    else:
        varies = variance > 0
        error = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1.0)), 0.0) * error
    made = jnp.einsum("pin,ni->pn", steps.observation, rest) - steps.values + error.T
    return jnp.concatenate([start[None], rest]), made.T.reshape(noise.shape)
