"""Gaps that are latent: the missing elements of an observed array, and only these, may move.

`Masked(value, mask, impute=True)` makes them so. A trace holds the whole array: the data where
the mask is true, and a value that a posterior is sought of where it is false. So all that depends
on the array depends on what is missing, too, and its density is the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import errors
from .addresses import At, Masked
from .masks import leading
from .program import Path


@dataclass(frozen=True, eq=False)
class Gaps:
    """Which elements of one array are missing, and the data in the others.

    Attributes:
      seen: bool array of leading axes of the value, known before anything runs.
      value: the whole array; what it holds in the gaps is never read.

    >>> import jax.numpy as jnp
    >>> from ppl import Masked
    >>> from ppl.gaps import Gaps
    >>> gaps = Gaps.of(Masked(jnp.array([1.0, 2.0, 3.0]), [True, False, True], impute=True))
    >>> gaps.filled(jnp.array([7.0, 8.0, 9.0])).tolist(), gaps.shape((3,))
    ([1.0, 8.0, 3.0], (1,))
    """

    seen: np.ndarray
    value: Any

    @staticmethod
    def of(given: Masked) -> Gaps:
        return Gaps(np.asarray(given.mask), given.value)

    def filled(self, values: Any) -> jax.Array:
        """`values` in the gaps, and the data elsewhere."""
        seen = leading(self.seen, jnp.ndim(values))
        return jnp.where(seen, jnp.asarray(self.value, jnp.result_type(values)), values)

    def filled_at(self, element: At) -> At:
        """A new value for one element of the first axis, but where it is data."""
        i, new = element.index, jnp.asarray(element.value)
        seen = leading(jnp.asarray(self.seen)[i], new.ndim)
        return At(i, jnp.where(seen, jnp.asarray(self.value, new.dtype)[i], new))

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of what is missing of an array of this shape: their number, and the axes behind."""
        return (int((~self.seen).sum()), *shape[self.seen.ndim :])

    def spread(self, missing: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """What is missing in its places in an array of zeros."""
        return jnp.zeros(shape, missing.dtype).at[np.nonzero(~self.seen)].set(missing)

    def gathered(self, values: jax.Array) -> jax.Array:
        """What is missing, in the order of its places."""
        return values[np.nonzero(~self.seen)]


def gaps_of(observed: Mapping[Path, Any]) -> dict[Path, Gaps]:
    """The gaps that are latent, by path."""
    return {
        path: Gaps.of(value)
        for path, value in observed.items()
        if isinstance(value, Masked) and value.impute
    }


def filled(observed: Mapping[Path, Any], values: Mapping[Path, Any]) -> dict[Path, Any]:
    """Observations and values together: in arrays with gaps, the data are not to be moved.

    Gaps without values are those of an ordinary mask, whose elements are drawn.

    Raises:
      InvalidArgument: only a part of an array with gaps is given.
    """
    gaps = gaps_of(observed)
    found = {**observed, **{path: Masked(gap.value, gap.seen) for path, gap in gaps.items()}}
    found.update(values)
    for path in gaps.keys() & values.keys():
        given = values[path]
        if isinstance(given, At):
            found[path] = gaps[path].filled_at(given)
            continue
        shape = jnp.shape(gaps[path].value)
        if not isinstance(given, Masked) and jnp.shape(given) != shape:
            raise errors.ShapeError(
                f"The value of {errors.show(path)} has another shape than its choice has.",
                where=errors.caller(),
                given=f"shape {jnp.shape(given)}",
                expected=f"shape {shape}: the whole array, data and gaps",
                fix="give an array with the values of the gaps in their places",
            )
        if isinstance(given, Masked):
            raise errors.InvalidArgument(
                f"Part of {errors.show(path)} is given, whose missing elements are latent.",
                where=errors.caller(),
                given="a Masked value",
                expected="the whole array: what it holds in the places of data is not looked at",
                fix="give an array with the values of the gaps in their places",
            )
        found[path] = gaps[path].filled(jnp.asarray(given))
    return found
