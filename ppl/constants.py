"""Arrays of numbers that are the same in every program, computed once."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


def constants(f: Callable[P, T]) -> Callable[P, T]:
    """A function that computes what it returns once for each of its arguments, which are hashable.

    The arrays that it returns are new each time: JAX 0.10 remembers an array that a 32-bit program
    has closed over as rounded, and gives it so to 64-bit ones
    (findings/jax_numpy_constant_keeps_precision.sh).

    >>> import numpy as np
    >>> from ppl.constants import constants
    >>> thirds = constants(lambda n: np.full(n, 1 / 3))
    >>> thirds(2) is thirds(2), thirds(2).tolist() == thirds(2).tolist()
    (False, True)
    """
    kept: Any = lru_cache(maxsize=64)(f)

    @wraps(f)
    def anew(*args: P.args, **kwargs: P.kwargs) -> T:
        found = kept(*args, **kwargs)
        return jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, found)

    return anew
