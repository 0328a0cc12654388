"""Rows of arrays: components of a model stacked along a leading axis, of which k are present.

Rows are dicts from paths to arrays, as `ppl.addresses.flatten` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Selection, errors, select
from ppl.addresses import flatten


def rows_of(
    x: Mapping[str, Any], number: tuple[str, ...], parts: Selection
) -> tuple[Any, dict, int]:
    """The number of rows, the arrays of rows, and how many rows there is room for."""
    values = flatten(x)
    for chosen in (select(number), parts):
        chosen.check(values)
    rows = {path: value for path, value in values.items() if parts(path)}
    most = {jnp.shape(value)[:1] for value in rows.values()}
    if number in rows or len(most) != 1 or most == {()}:
        shapes = {errors.show(path): list(jnp.shape(value)) for path, value in rows.items()}
        raise errors.InvalidArgument(
            "The parts of a jump are not arrays with one row for each component.",
            where=errors.caller(),
            given=", ".join(f"{name}: {shape}" for name, shape in shapes.items()) or "no part",
            expected=f"arrays with the same leading axis, without {errors.show(number)}",
            fix="select the choices made for each component, stacked by vmap",
        )
    k = jnp.asarray(values.get(number, 0.0))
    if number not in values or k.ndim or not jnp.issubdtype(k.dtype, jnp.integer):
        raise errors.InvalidArgument(
            f"{errors.show(number)} does not count rows.",
            where=errors.caller(),
            given=f"{k.dtype}{list(k.shape)}" if number in values else "a prefix of addresses",
            expected="a choice of one integer",
            fix="name the choice that says how many rows are present",
        )
    return k, rows, most.pop()[0]


def row_at(rows: dict, i: Any) -> dict:
    return {path: value[i] for path, value in rows.items()}


def put_row(rows: dict, i: Any, row: dict) -> dict:
    return {path: value.at[i].set(row[path]) for path, value in rows.items()}


def swap_rows(rows: dict, i: Any, j: Any) -> dict:
    at_i, at_j = row_at(rows, i), row_at(rows, j)
    return put_row(put_row(rows, i, at_j), j, at_i)


def uniform_row(n: Any, most: int) -> Any:
    """Over 0, ..., n - 1; at n below 1, where there is nothing to pick, 0."""
    n = jnp.maximum(n, 1)
    return dist.Categorical(jnp.where(jnp.arange(most) < n, 1.0 / n, 0.0))


def poured(values: dict, like: dict) -> dict:
    """The same numbers, in order, in arrays of other shapes; dtype by dtype."""
    poured = {}
    for dtype in {jnp.result_type(value) for value in like.values()}:
        mine = [jnp.ravel(v) for v in values.values() if jnp.result_type(v) == dtype]
        numbers, start = jnp.concatenate(mine), 0
        for path, value in like.items():
            if jnp.result_type(value) == dtype:
                end = start + jnp.size(value)
                poured[path] = numbers[start:end].reshape(jnp.shape(value))
                start = end
    return {path: poured[path] for path in like}


def _kinds(values: dict) -> dict[str, int]:
    """How many numbers there are of each dtype."""
    sizes: dict[str, int] = {}
    for value in values.values():
        name = jnp.result_type(value).name
        sizes[name] = sizes.get(name, 0) + jnp.size(value)
    return dict(sorted(sizes.items()))


def check_match(row: dict, new: dict) -> None:
    """Raise `InvalidArgument` unless as many numbers are drawn as a row has."""
    if _kinds(row) != _kinds(new):
        shown = lambda kinds: ", ".join(f"{n} {name}" for name, n in kinds.items())  # noqa: E731
        raise errors.InvalidArgument(
            "A jump to one row more draws other numbers than a row has.",
            where=errors.caller(),
            given=f"{shown(_kinds(new))} of {'; '.join(map(errors.show, new))}",
            expected=f"{shown(_kinds(row))} of {'; '.join(map(errors.show, row))}",
            fix="draw one number for each number of the new row",
        )


def checked(made: Any, like: dict, function: Callable) -> dict:
    """What the user's function made, which must have the addresses and shapes of `like`."""
    found = flatten(made)
    shapes = lambda values: {  # noqa: E731
        p: (jnp.shape(v), jnp.result_type(v).name) for p, v in values.items()
    }
    if shapes(found) != shapes(like):
        shown = lambda values: ", ".join(  # noqa: E731
            f"{errors.show(p)}: {dtype}{list(shape)}"
            for p, (shape, dtype) in shapes(values).items()
        )
        raise errors.InvalidArgument(
            "A function of a jump returned other rows or auxiliary choices than it must.",
            where=errors.defined(function),
            given=shown(found),
            expected=shown(like),
            fix="return values of the same shapes and dtypes at the same addresses",
        )
    return {path: found[path] for path in like}
