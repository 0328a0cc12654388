"""The border: every array that enters the library passes here, and none is changed.

Observations, constraints, arguments, initial values, series of filters: `arrived` makes an
array of what numpy makes one of without loss (lists of numbers, a pandas Series), and
`fitted` casts it to the dtype of its place if every number is the same there, but for the
rounding of floats. What cannot be is told with its index; nothing is wrapped or cut off.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import errors
from .tables import advice, instead, missing

_READY = (bool, int, float, complex)
_NO_NUMBERS = "OSUmM"
_LONG = {np.dtype("int64"), np.dtype("uint64"), np.dtype("float64"), np.dtype("complex128")}


def arrived(value: Any) -> Any:
    """`value` as an array or a number; None if numpy makes no numbers of it.

    >>> from ppl.border import arrived
    >>> arrived([1.0, 2.0]), arrived(3), arrived("three"), arrived([1.0, None])
    (array([1., 2.]), 3, None, None)
    """
    if isinstance(value, (jax.Array, jax.core.Tracer)):
        key = jnp.issubdtype(value.dtype, jax.dtypes.extended)  # of randomness, which is no number
        return None if key else value
    if isinstance(value, _READY) or hasattr(value, "__jax_array__"):
        return value
    if value is None or isinstance(value, str):
        return None
    if isinstance(value, (list, tuple)) and _any_traced(value):
        try:
            return jnp.asarray(value)
        except (TypeError, ValueError):
            return None
    try:
        array = np.asarray(value)
    except Exception:  # whatever an object raises that says it is an array
        return None
    if array.dtype.kind in _NO_NUMBERS or array.dtype.names:
        return None
    if not array.dtype.isnative:  # of another machine's byte order, which JAX does not take
        return array.astype(array.dtype.newbyteorder("="))
    return value if isinstance(value, (np.ndarray, np.generic)) else array


def sized(array: Any, what: str, where: tuple[str, ...]) -> Any:
    """What has arrived, in the dtype that JAX gives it: 64 bits may become 32.

    Raises:
      DtypeError: as `fitted`.
    """
    if isinstance(array, (int, float)) and not isinstance(array, np.generic):
        fitted(array, jax.dtypes.canonicalize_dtype(type(array)), what, where)
        return array  # of weak type, as it was
    if isinstance(array, (np.ndarray, np.generic)) and array.dtype in _LONG:
        return fitted(array, jax.dtypes.canonicalize_dtype(array.dtype), what, where)
    return array


def _any_traced(value: Any) -> bool:
    return any(isinstance(leaf, (jax.core.Tracer, jax.Array)) for leaf in jax.tree.leaves(value))


def fitted(value: Any, dtype: Any, what: str, where: tuple[str, ...]) -> Any:
    """`value` in `dtype`; `what` begins the sentence of the error.

    Raises:
      DtypeError: a number is another one in `dtype`: an integer out of its range, a float with
        a fraction for an integer, a float beyond the largest.
    """
    if isinstance(value, (jax.Array, jax.core.Tracer)) and value.dtype == dtype:
        return value
    if isinstance(value, jax.core.Tracer):
        return jnp.asarray(value, dtype)
    array = np.asarray(value)
    bad = ~_fits(array, np.dtype(dtype))
    if bad.any():
        raise _does_not_fit(array, bad, np.dtype(dtype), what, where)
    if array.dtype.kind == "c" and np.dtype(dtype).kind != "c":
        array = np.real(array)
    return array.astype(dtype)


def _fits(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Which elements are the same number in `dtype` (floats: up to rounding)."""
    if array.dtype.kind == "c" and dtype.kind != "c":
        return np.asarray(np.imag(array) == 0)
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        if array.dtype.kind == "b":
            return np.ones(array.shape, bool)
        inside = (array >= int(info.min)) & (array <= int(info.max))
        if jnp.issubdtype(array.dtype, jnp.floating):
            inside = inside & (array == np.floor(array))
        return np.asarray(inside)
    if array.dtype.kind == "O":  # Python integers of any size
        return np.asarray(np.abs(array) <= float(jnp.finfo(dtype).max), bool)
    if dtype.kind != "b" and array.dtype.itemsize > dtype.itemsize and array.dtype.kind in "fc":
        with np.errstate(over="ignore"):
            return np.isfinite(array.astype(dtype)) | ~np.isfinite(array)
    return np.ones(array.shape, bool)


def _does_not_fit(
    array: np.ndarray, bad: np.ndarray, dtype: np.dtype, what: str, where: tuple[str, ...]
) -> errors.DtypeError:
    whole = array.dtype.kind in "iuO"
    whole_too = jnp.issubdtype(dtype, jnp.integer)
    fix = 'jax.config.update("jax_enable_x64", True), or count in larger units'
    if whole_too and not whole:
        fix = "round it first, or choose a distribution of real numbers"
    elif dtype.itemsize != 4:
        fix = "count in larger units"
    return errors.DtypeError(
        f"{what} a number that {dtype.name} cannot hold.",
        where=where,
        given=f"{array[bad][0]}{at(bad)}",
        expected=f"whole numbers up to {jnp.iinfo(dtype).max}"
        if whole_too
        else f"numbers up to {float(jnp.finfo(dtype).max):.3g}",
        fix=fix,
    )


def at(bad: Any) -> str:
    """Where the first of the bad elements are, in words: ` at [1], [4] (2 of 9)`."""
    if bad.ndim == 0:
        return ""
    rows = [str(list(map(int, row))) for row in np.argwhere(bad)[:3]]
    count = int(bad.sum())
    more = ", ..." if count > len(rows) else ""
    return f" at {', '.join(rows)}{more} ({count} of {bad.size})"


# -- arguments ------------------------------------------------------------------------


def entering(
    args: tuple, kwargs: dict, fixed: frozenset = frozenset(), fn: Any = None
) -> tuple[tuple, dict]:
    """The arguments of a call, their arrays looked at and converted; `fixed` ones are static.

    A list stays a tree of its elements, and a string, a function, an object is static.

    Raises:
      DtypeError: an array of no numbers, a table, or a number out of range.
    """
    if not any(_looked_at(leaf) for leaf in jax.tree.leaves((args, kwargs))):
        return args, kwargs

    def each(name: Any, tree: Any) -> Any:
        if name in fixed:
            return tree
        return jax.tree.map(lambda leaf: _argument(leaf, lambda: _called(name, fn)), tree)

    return (
        tuple(each(i, tree) for i, tree in enumerate(args)),
        {name: each(name, tree) for name, tree in kwargs.items()},
    )


def _looked_at(leaf: Any) -> bool:
    if isinstance(leaf, (jax.Array, jax.core.Tracer, bool, str)):
        return False
    if isinstance(leaf, (int, float)):
        return jax.dtypes.canonicalize_dtype(float) == np.float32 or isinstance(leaf, int)
    return hasattr(leaf, "__array__") and not hasattr(leaf, "__jax_array__")


def _called(name: Any, fn: Any) -> str:
    """An argument as a person calls it: by its name in the signature if it has one."""
    if isinstance(name, int):
        try:
            names = list(inspect.signature(fn).parameters)
        except (TypeError, ValueError):  # no signature
            names = []
        name = names[name] if name < len(names) else name
    return f"argument `{name}`" if isinstance(name, str) else f"argument {name + 1}"


def _argument(leaf: Any, name: Callable[[], str]) -> Any:
    if not _looked_at(leaf):
        return leaf
    array = arrived(leaf)
    where = (errors.caller(),)
    if array is None or hasattr(leaf, "columns"):
        raise errors.DtypeError(
            f"The {name()} is no array of numbers.",
            where=where,
            given=f"{type(leaf).__name__}: {leaf!r}",
            expected="an array of numbers",
            fix=advice(leaf, observed=False)
            or "make numbers of it: np.asarray(value, float); if it is fixed and no "
            "data, pass a tuple",
        )
    gone = missing(leaf)
    if gone is not None:
        raise errors.DtypeError(
            f"The {name()} has missing values.", where=where, given=f"missing{at(gone)}",
            expected="numbers", fix=instead(observed=False),
        )  # fmt: skip
    return sized(array, f"The {name()} has", where)


def no_arrays(args: tuple, kwargs: Mapping[str, Any], fn: Any = None) -> dict[str, Any]:
    """The arguments that cannot be computed with as they are: lists, strings, objects, None."""
    named = [*enumerate(args), *kwargs.items()]
    return {
        _called(name, fn): value
        for name, value in named
        if not (isinstance(value, (*_READY, jax.Array, jax.core.Tracer, np.ndarray, np.generic)))
    }
