"""Score matching: densities that are known up to a constant, fitted to data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw, errors, reinforce

from ..validation.objects import check_callable
from ..validation.settings import check_count, shown


def score_matching(
    log_density: Callable[..., Any], *, slices: int | None = None
) -> Callable[..., Any]:
    """-mean over rows y of (tr H(y) + |s(y)|^2 / 2): s the slope of log p in y, H its second one.

    It is largest where s is the slope of the data's own log density, whatever the mass of p, if p
    has a density on the whole space that is smooth and falls off.

    Args:
      log_density: `(y, *args) -> log p(y)`, up to a constant, y one row.
      slices: None for the trace as it is, which costs a second derivative for each number of a
        row; or how many random directions v of signs estimate it, by v' H v: the mean is the same.

    Returns:
      A random program of `(*args, data)`, data an array of rows.

    Raises:
      InvalidArgument: `log_density` is no function; when it is used, the data are no rows.

    Source: Hyvärinen, Estimation of non-normalized statistical models by score matching (JMLR
    2005), theorem 1; Song et al., Sliced score matching (UAI 2019), equation 8.

    >>> import jax, jax.numpy as jnp
    >>> from inference import score_matching
    >>> from ppl import integrate
    >>> objective = score_matching(lambda y, precision: -precision * jnp.sum(y**2) / 2)
    >>> data = jnp.array([[1.0, 2.0], [2.0, 1.0]])  # of mean square 5/2
    >>> print(f"{jax.grad(integrate(objective))(2 / 5, data):.4f}")
    0.0000
    """
    check_callable("log_density", log_density, "a function (y, *args) -> number", _EXAMPLE)
    if slices is not None:
        check_count("slices", slices)
    return _ScoreMatching(log_density, slices)


_EXAMPLE = "score_matching(lambda y, precision: -precision * jnp.sum(y**2) / 2)"


@dataclass(frozen=True)
class _ScoreMatching:
    log_density: Callable[..., Any]
    slices: int | None

    def __call__(self, *args: Any) -> Any:
        data = jnp.asarray(args[-1]) if args and _is_array(args[-1]) else None
        if data is None or data.ndim == 0 or not len(data):
            raise errors.InvalidArgument(
                "The last argument of score matching is the data.", where=errors.caller(),
                given=shown(args[-1]) if args else "no argument",
                expected="an array, of one row or more",
                fix="score_matching(log_density)(parameters, data)",
            )  # fmt: skip
        return -jnp.mean(jax.vmap(lambda y: self.loss(y, args[:-1]))(data * 1.0))

    def loss(self, y: Any, args: tuple) -> Any:
        def slope(flat: Any) -> Any:
            return jax.grad(lambda z: self.log_density(z.reshape(y.shape), *args))(flat)

        def along(direction: Any) -> Any:
            """v' H v."""
            return jnp.vdot(direction, jax.jvp(slope, (flat,), (direction,))[1])

        flat = y.reshape(-1)
        if self.slices is None:
            trace = jnp.sum(jax.vmap(along)(jnp.eye(flat.size, dtype=flat.dtype)))
        else:
            trace = jnp.mean(jax.vmap(along)(_signs(self.slices, flat)))
        return trace + jnp.sum(slope(flat) ** 2) / 2

    def __repr__(self) -> str:
        return "<objective score_matching>"


def _signs(n: int, like: Any) -> Any:
    heads = draw(dist.Bernoulli(0.5).expand([n, like.size]), reinforce())
    return (2 * heads - 1).astype(like.dtype)


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")
