"""Draws by numpyro's own samplers, and what is said where there is none that serves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from . import errors, gammas
from .distributions import elementwise
from .mistakes import of_distribution
from .supports import support_name


def sample(d: Any, key: Any, where: str) -> jax.Array:
    """One draw by the distribution's own sampler, where it has no base.

    Raises:
      CannotSimulate: there is no sampler either, or it makes no value of the distribution.
    """
    shape = tuple(d.batch_shape) + tuple(d.event_shape)
    if 0 in shape:
        return jnp.zeros(shape)
    name = type(elementwise(d)).__name__
    try:
        own = gammas.sampler(d)
        value = jnp.asarray(d.sample(key) if own is None else own(key, shape))
    except NotImplementedError as error:
        raise errors.CannotSimulate(
            f"{name} has no sampler: an improper prior cannot be drawn.",
            where=(where, errors.caller()),
            given=f"a choice on {support_name(d.support)} without a value",
            expected="a value, or a proper distribution",
            fix="constrain or initialise it, for instance initial={name: value}, "
            'or start chains from "uniform"; or use a wide proper prior',
        ) from error
    except ImportError as error:
        raise errors.CannotSimulate(
            f"The sampler of {name} needs a package that is not installed.",
            where=(where, errors.caller()),
            given=str(error),
            expected="a value, or a sampler that runs here",
            fix="install the package, or observe the choice",
        ) from error
    except errors.PPLError:
        raise
    except Exception as error:
        ours = of_distribution(error, name, where)
        if ours is None:
            raise
        raise ours from error
    if value.shape != shape:  # of censored intervals numpyro draws points
        raise errors.CannotSimulate(
            f"The sampler of {name} makes no value that it could be observed at.",
            where=(where, errors.caller()),
            given=f"a sampler of shape {value.shape}",
            expected=f"shape {shape}",
            fix="observe the choice, or sample what it is made from",
        )
    return value
