"""Masks: which axes they have, and how their flags are spread over a value.

One rule, for a user's `Masked` and for the flags of presence of choices in branches: a mask
has the *leading* axes of its value, and each flag stands for all that lies behind it. The
leading axes are those of the loops around the choice, then those of the distribution's batch,
then those that `to_event` made an event of. So a mask may have one flag for each

* iteration of the loops around the choice (for a choice in no loop, a single flag),
* event: the axes of the loops and of the batch shape,
* independent element, as if `to_event` had not been called.

The axes of an event that has one joint density come last and have no flags; but a vector of a
`MultivariateNormal` may have one for each of its elements: what is known has the marginal density,
and the rest is drawn given it. A mask is never aligned from the right: where the batch has the size
of the event, a mask of that one size has a flag for each row of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import errors
from .border import arrived
from .distributions import elementwise
from .part_of_normal import has_parts


def leading(mask: Any, ndim: int) -> Any:
    """`mask`, of the leading of `ndim` axes, with all of them: the others have size 1.

    >>> import numpy as np
    >>> from ppl.masks import leading
    >>> rows = leading(np.array([True, False, False]), 2)
    >>> np.where(rows, [[1, 2, 3]], 0).tolist()
    [[1, 2, 3], [0, 0, 0], [0, 0, 0]]
    """
    missing = ndim - np.ndim(mask)
    return mask.reshape(mask.shape + (1,) * missing) if missing else mask


def shapes(axes: tuple[int, ...], distributions: Iterable[Any]) -> list[tuple[int, ...]]:
    """The shapes that a mask may have, fewest axes first.

    `axes` are the sizes of the loops around a choice, `distributions` those that it may
    have, one for each branch: a shape must be one for all of them.
    """
    allowed, distributions = [], list(distributions)
    parts = all(map(has_parts, distributions))
    for d in distributions:
        inner = elementwise(d)
        allowed.append({axes, axes + tuple(d.batch_shape), axes + tuple(inner.batch_shape)})
        if parts:
            allowed[-1].add(axes + tuple(inner.batch_shape) + tuple(inner.event_shape))
    return sorted(set.intersection(*allowed), key=len)


def check_mask(site: Any, mask: Any) -> Any:
    """`mask` as an array, which must be boolean and have leading axes of the site's values.

    Raises:
      ShapeError.
    """
    axes = tuple(size for _, size in site.axes)
    allowed = shapes(axes, (site.distribution, *site.others))
    given, mask = mask, arrived(mask)
    if mask is None or np.shape(mask) not in allowed or jnp.result_type(mask) != jnp.bool_:
        raise errors.ShapeError(
            f"The mask of {errors.show(site.path)} does not fit its choice.",
            where=(f"{errors.show(site.path)} at {site.source}", errors.caller()),
            given=f"{jnp.result_type(mask)} of shape {np.shape(mask)}"
            if mask is not None
            else repr(given),
            expected="bool of shape " + " or ".join(str(s) for s in allowed),
            fix="give one boolean for each independent element, or for each event",
        )
    return jnp.asarray(mask)


def known_mask(site: Any, mask: Any) -> np.ndarray:
    """A mask whose false elements are latent: as an array of numpy, with a flag for each.

    Raises:
      InvalidArgument: the mask is traced, or the choice may not be there.
    """
    here = (f"{errors.show(site.path)} at {site.source}", errors.caller())
    if isinstance(mask, jax.core.Tracer):
        raise errors.InvalidArgument(
            f"The mask of {errors.show(site.path)} is traced, so that its gaps are not known.",
            where=here, given="Masked(value, mask, impute=True) with a mask of jax.jit or jax.vmap",
            expected="a mask that is known before anything runs, as there are as many latents",
            fix="make the mask of numpy outside of the transformation",
        )  # fmt: skip
    if site.conditional:
        raise errors.InvalidArgument(
            f"{errors.show(site.path)} is not always there, so that its gaps are not known.",
            where=here, given="Masked(value, mask, impute=True) of a choice in a branch",
            expected="a choice that every branch makes",
            fix="leave impute out where nothing depends on what is missing",
        )  # fmt: skip
    flags = np.asarray(mask)
    inner = elementwise(site.distribution)
    shape = (*(n for _, n in site.axes), *inner.batch_shape)
    if flags.ndim > len(shape):  # of parts of vectors
        return flags
    return np.array(np.broadcast_to(leading(flags, len(shape)), shape))
