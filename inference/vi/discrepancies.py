"""Discrepancies between samplers: for a side that has no density, or none that is known.

A sampler is a random program whose result is an array, or a tree of arrays. Its parameters are
learned from values alone, of it and of what it is compared with. An objective is maximised, so a
discrepancy has a minus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from ppl import GenerativeFunction, errors

from ..targets.stochastic import Stochastic
from ..validation.objects import check_callable
from ..validation.settings import check_count, shown

Sampler = GenerativeFunction | Callable[..., Any]


def mmd(
    first: GenerativeFunction | Callable[..., Any],
    second: GenerativeFunction | Callable[..., Any] | jax.Array | np.ndarray,
    kernel: Callable[[Any, Any], Any],
    draws: int = 2,
) -> Callable[..., Any]:
    """-(E k(x, x') - 2 E k(x, y) + E k(y, y')): minus the squared maximum mean discrepancy.

    At most zero, and zero where both have one law, if the kernel is characteristic. Each draw
    of the objective, a U-statistic, has that mean, however few values it is made of; some are
    above zero.

    Args:
      first: a random program, or a generative function whose return value is compared. Its
        arguments are the objective's.
      second: another one, of the same arguments; or values, along the first axis of an array.
      kernel: `(a, b) -> number`, positive definite; a and b are flat arrays of one value each.
      draws: how many values of a sampler, 2 or more. Of given values all are compared.

    Raises:
      InvalidArgument: something else is given, or fewer than two values.
      ShapeError: when it is used, and values of the two have different sizes.

    Source: Gretton et al., A kernel two-sample test (JMLR 2012), lemma 6.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mmd
    >>> from ppl import draw, integrate
    >>> objective = mmd(
    ...     lambda p: draw(dist.Bernoulli(p)),
    ...     lambda p: draw(dist.Bernoulli(0.5)),
    ...     lambda a, b: jnp.sum(a == b),
    ... )
    >>> [f"{integrate(objective)(p):.4f}" for p in (0.5, 0.75)]  # -2 (p - 1/2)^2
    ['0.0000', '-0.1250']
    """
    check_callable("kernel", kernel, "a function (a, b) -> number", _GAUSSIAN)
    return _discrepancy("mmd", first, second, kernel, draws)


def energy_distance(
    first: GenerativeFunction | Callable[..., Any],
    second: GenerativeFunction | Callable[..., Any] | jax.Array | np.ndarray,
    draws: int = 2,
) -> Callable[..., Any]:
    """-(2 E|x - y| - E|x - x'| - E|y - y'|): minus the energy distance.

    At most zero, and zero only where both have one law. It is `mmd` with the kernel -|a - b|, and
    needs no scale.

    Args:
      first, second, draws: as for `mmd`.

    Raises:
      As `mmd`.

    Source: Székely and Rizzo, Energy statistics (JSPI 2013); Sejdinovic et al. (Annals of
    Statistics 2013), theorem 22, for the kernel.

    >>> import numpyro.distributions as dist
    >>> from inference import energy_distance
    >>> from ppl import draw, integrate
    >>> toss = lambda p: draw(dist.Bernoulli(p))
    >>> objective = energy_distance(toss, lambda p: toss(0.5))
    >>> [f"{integrate(objective)(p):.4f}" for p in (0.5, 0.75)]  # -2 (p - 1/2)^2
    ['0.0000', '-0.1250']
    """
    return _discrepancy("energy_distance", first, second, _minus_distance, draws)


_GAUSSIAN = "kernel=lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2) / 2)"


def _minus_distance(a: Any, b: Any) -> Any:
    square = jnp.sum((a - b) ** 2)
    apart = square > 0  # equal values have no slope, instead of none that is a number
    return -jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def _discrepancy(name: str, first: Any, second: Any, kernel: Callable, draws: int) -> Any:
    check_count("draws", draws, least=2)
    _check_sampler("first", first)
    if isinstance(second, jax.Array | np.ndarray):
        numbers = jnp.issubdtype(second.dtype, jnp.number) or second.dtype == bool
        if not numbers or second.ndim == 0 or len(second) < 2:
            raise errors.InvalidArgument(
                "There are no values to be compared with one another.", where=errors.caller(),
                given=shown(second), expected="two values or more, along the first axis",
                fix="second=jnp.stack(values)",
            )  # fmt: skip
        return _Discrepancy(name, first, None, second, kernel, draws)
    _check_sampler("second", second)
    return _Discrepancy(name, first, second, None, kernel, draws)


def _check_sampler(name: str, value: Any) -> None:
    if not isinstance(value, GenerativeFunction | Stochastic):
        check_callable(
            name, value, "a random program, or a generative function",
            f"{name}=lambda loc: draw(dist.Normal(loc, 1.0))",
        )  # fmt: skip
    if isinstance(value, type | dist.Distribution):
        raise errors.InvalidArgument(
            f"{name} is no random program.", where=errors.caller(), given=shown(value),
            expected="a random program, or a generative function",
            fix=f"{name}=lambda: draw(distribution)",
        )  # fmt: skip


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class _Discrepancy:
    """Minus a discrepancy, as a random program of the arguments of its samplers."""

    name: str
    first: Sampler
    second: Sampler | None
    data: Any
    kernel: Callable[[Any, Any], Any]
    draws: int

    def __call__(self, *args: Any) -> Any:
        xs = _drawn(self.first, args, self.draws)
        ys = _rows(self.data) if self.second is None else _drawn(self.second, args, self.draws)
        if xs.shape[1] != ys.shape[1]:
            raise errors.ShapeError(
                "Values that are compared have different sizes.",
                where=errors.caller(),
                given=f"{xs.shape[1]} and {ys.shape[1]} numbers each",
                expected="values of one shape",
                fix="let both samplers return the same things",
            )
        across = jnp.mean(_table(self.kernel, xs, ys))
        return 2 * across - _among(self.kernel, xs) - _among(self.kernel, ys)

    def __repr__(self) -> str:
        return f"<objective {self.name}>"

    def tree_flatten(self) -> tuple[tuple, tuple]:
        return (self.data,), (self.name, self.first, self.second, self.kernel, self.draws)

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: tuple) -> _Discrepancy:
        name, first, second, kernel, draws = aux
        return cls(name, first, second, children[0], kernel, draws)


def _drawn(sampler: Any, args: tuple, n: int) -> Any:
    """So many values, one in each row."""

    def one(_: Any) -> Any:
        made = isinstance(sampler, GenerativeFunction | Stochastic)
        return _flat(sampler.simulate(*args).retval if made else sampler(*args))

    return jax.vmap(one)(jnp.zeros(n))


def _rows(data: Any) -> Any:
    return jax.vmap(_flat)(jnp.asarray(data))


def _flat(value: Any) -> Any:
    return ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x, float)), value))[0]


def _table(kernel: Callable, xs: Any, ys: Any) -> Any:
    return jax.vmap(lambda x: jax.vmap(lambda y: kernel(x, y))(ys))(xs)


def _among(kernel: Callable, xs: Any) -> Any:
    """The mean over pairs of different rows."""
    i, j = np.triu_indices(len(xs), 1)  # not of a row and itself, where kernels have kinks
    return jnp.mean(jax.vmap(kernel)(xs[i], xs[j]))
