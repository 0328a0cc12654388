"""The order of particles: no matter for the measure, but for how resampling depends on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ppl import errors

from ..validation.objects import check_callable
from ..weighted import Step, Weighted


def sort_by(key: Callable[[Any], jax.Array]) -> Step:
    """Particles in the order of a number that each has; the measure stays the same.

    Systematic and stratified resampling after it take neighbours in the order by neighbouring
    uniforms: their error is smaller (Kitagawa 1996), and for a state of one dimension the
    result depends on the particles all but continuously (Deligiannidis, Doucet and Pitt 2018,
    section 3.2).

    Args:
      key: from the value of a particle to a number.

    Raises:
      ShapeError: the key is no scalar.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, sort_by
    >>> s = sort_by(lambda z: z)(Weighted(jnp.array([3.0, 1.0]), jnp.array([0.5, 0.25])))
    >>> s.value.tolist(), s.log_weight.tolist()
    ([1.0, 3.0], [0.25, 0.5])
    """
    check_callable("key", key, "a function from a particle to a number", "lambda x: x")

    def step(weighted: Weighted) -> Weighted:
        numbers = jax.vmap(key)(weighted.value)
        if jnp.ndim(numbers) != 1:
            raise errors.ShapeError(
                "The key that particles are sorted by is no number.",
                where=(errors.defined(key), errors.caller()),
                given=f"shape {numbers.shape[1:]}",
                expected="shape ()",
                fix="sort by one coordinate, or by a score of the state",
            )
        order = jnp.argsort(numbers)
        return jax.tree.map(lambda leaf: leaf[order], weighted)

    return step
