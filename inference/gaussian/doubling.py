"""Any linear equation over any gap: a series over a short one, and then doubled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_STEP = 0.25


def series(drift: Any, white: Any) -> tuple[Any, Any]:
    """The series of A(x) and Q(x) in x, of dx = drift x du + dw, with white noise w.

    In companion form the first coefficients of each entry of Q are exactly zero, so that it has
    the order of smallness that it should.

    Args:
      drift, white: matrices `(d, d)`, of numpy if they are constants.

    >>> import numpy as np
    >>> from inference.gaussian.doubling import series
    >>> a, q = series(-np.eye(1), 2 * np.eye(1))  # exp(-x), 1 - exp(-2x) = 2x - 2x² + ...
    >>> a[:3, 0, 0].tolist(), q[:3, 0, 0].tolist()
    ([1.0, -1.0, 0.5], [0.0, 2.0, -2.0])
    """
    d = len(drift)
    own = np if isinstance(drift, np.ndarray) else jnp
    a, q = [own.eye(d)], [own.zeros((d, d)), white]
    for k in range(1, 2 * d + 20):
        a.append(drift @ a[-1] / k)
        q.append((drift @ q[-1] + q[-1] @ drift.T) / (k + 1))
    return own.stack(a), own.stack(q)


def discretised(a: Any, q: Any, x: jax.Array, doublings: int) -> tuple[jax.Array, jax.Array]:
    """A(x) and Q(x): by the series at x / 2^s, at most 1/4, and then s times doubled.

    Q(2x) = Q(x) + A(x) Q(x) A(x)' is a sum of covariances: nothing cancels. Times are in units
    in which the rates of the equation are about 1.

    Args:
      doublings: the largest s; gaps are cut at 2^doublings / 4.

    >>> import jax.numpy as jnp, numpy as np
    >>> from inference.gaussian.doubling import discretised, series
    >>> move, noise = discretised(*series(-np.eye(1), 2 * np.eye(1)), jnp.array(3.0), 8)
    >>> round(float(move[0, 0]), 6), round(float(noise[0, 0]), 6)  # exp(-3), 1 - exp(-6)
    (0.049787, 0.997521)
    """
    x = jnp.minimum(x, _STEP * 2.0**doublings)
    count = jnp.sum(lax.stop_gradient(x)[..., None] > _STEP * 2.0 ** np.arange(doublings), -1)
    step = (x * 2.0 ** -count.astype(x.dtype))[..., None, None]
    move, noise = jnp.zeros_like(step), jnp.zeros_like(step)
    for coefficient in a[::-1].astype(x.dtype):
        move = move * step + coefficient
    for coefficient in q[::-1].astype(x.dtype):
        noise = noise * step + coefficient
    for k in range(doublings):
        again = (k < count)[..., None, None]
        more = noise + move @ noise @ jnp.swapaxes(move, -1, -2)
        noise, move = jnp.where(again, more, noise), jnp.where(again, move @ move, move)
    return move, noise
