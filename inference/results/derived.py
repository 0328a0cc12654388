"""Derived quantities: functions of the latents, and what the model returns, of each draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ppl import Target, errors, seed
from ppl.addresses import flatten, nest
from ppl.labels import Labels
from ppl.missing import partly_observed
from ppl.program import DRAW
from ppl.randomness import checked_key

from .draws import Draws, check_names
from .each_draw import each_draw
from .predictive import target_of

RETVAL = "retval"


def derive(
    draws: Draws, named: Mapping[str, Any], key: Any = None, target: Target | None = None,
    dims: Mapping[str, Any] | None = None, coords: Mapping[str, Any] | None = None,
) -> Draws:  # fmt: skip
    """`draws` with arrays (chains, draws, ...) of functions of each draw, by name.

    A function takes the latents of one draw, as nested dicts of `jax` arrays, and returns an
    array, or a pytree of them, whose parts are named by their keys and positions. "retval" is
    what the model returns at these latents and observations; where it depends on elements that a
    mask leaves out, or on draws without addresses, it is drawn, by `key`. `dims` and `coords`
    label what is derived.

    Raises:
      InvalidArgument: a quantity is neither a function nor "retval", or a key is due.
      PythonControlFlow: a function needs values before it runs, as numpy's do.

    >>> import numpy as np, numpyro.distributions as dist
    >>> from inference import Draws
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    ...     return {"square": mu**2}
    >>> draws = Draws({"mu": np.array([[1.0, 3.0]])}, target=Target(model, (), {"y": 0.0}))
    >>> draws = draws.derive(result="retval", half=lambda latents: latents["mu"] / 2)
    >>> draws["result", "square"].tolist(), draws["half"].tolist()
    ([[1.0, 9.0]], [[0.5, 1.5]])
    """
    check_names(flatten(draws.choices), [(name,) for name in named])
    functions: dict[str, Callable] = {}
    for name, f in named.items():
        if f == RETVAL:
            functions[name] = _returned(target_of(draws, target), key)
        elif callable(f):
            functions[name] = lambda key, latents, f=f: f(latents)
        else:
            raise errors.InvalidArgument(
                f"What is derived as {name} is no function.", where=errors.caller(),
                given=repr(f), expected='a function of the latents of one draw, or "retval"',
                fix='derive(ratio=lambda latents: latents["a"] / latents["b"])',
            )  # fmt: skip
    n = math.prod(draws.shape)
    keys = jax.random.split(jax.random.key(0) if key is None else checked_key(key), n)

    def all_of(key: jax.Array, latents: Any) -> dict[str, Any]:
        return {name: by_name(f(key, latents)) for name, f in functions.items()}

    try:
        found = each_draw(lambda *_: all_of, None, (), draws, 1, min(n, 1024) or 1, keys)
    except jax.errors.JAXTypeError as error:
        raise errors.PythonControlFlow(
            "A derived quantity needs values before it runs.", where=errors.caller(),
            given=str(error).split("\n", 1)[0], expected="a function of jax arrays",
            fix="jnp for np, jnp.where for if; or compute on draws.choices, which are numpy arrays",
        ) from error  # fmt: skip
    ordered = {name: found[name] for name in named}  # as they were given
    derived = {**draws.derived, **ordered}
    labels = Labels.of(dims, coords)
    labels.check_addresses({**flatten(draws.choices), **flatten(derived)})
    labels = draws.labels | labels
    return dataclasses.replace(draws, derived=derived, dims=labels.tree, coords=labels.coords)


def returned(draws: Draws, key: Any = None, target: Target | None = None) -> Draws:
    """`draws` with what the model returns at each, each part by its own name.

    Raises:
      InvalidArgument: the model returns no dict, or as `derive`.

    >>> import numpy as np, numpyro.distributions as dist
    >>> from inference import Draws
    >>> from inference.results.derived import returned
    >>> from ppl import Target, gen, sample
    >>> model = gen(lambda: {"square": sample("mu", dist.Normal(0.0, 1.0)) ** 2})
    >>> returned(Draws({"mu": np.array([[1.0, 3.0]])}, target=Target(model)))["square"].tolist()
    [[1.0, 9.0]]
    """
    found = derive(draws, {RETVAL: RETVAL}, key, target).derived[RETVAL]
    if not isinstance(found, Mapping):
        raise errors.InvalidArgument(
            "The model returns no dict, whose parts have names.", where=errors.caller(),
            given=f"an array of shape {found.shape[2:]}", expected='return {"name": value}',
            fix='give it a name: draws.derive(name="retval")',
        )  # fmt: skip
    check_names(flatten(draws.choices), flatten(found))
    return dataclasses.replace(draws, derived={**draws.derived, **found})


def _returned(target: Target, key: Any) -> Callable[[jax.Array, Mapping], Any]:
    """From a key and latents to the return value."""
    program = target.model._prepare(target.args, {}).staged.program
    partly = bool(partly_observed(target))
    if (partly or DRAW in program.effects) and key is None:
        raise errors.InvalidArgument(
            f"What {target.model.name} returns may depend on what is not observed: it is random.",
            where=(errors.defined(target.model.fn), errors.caller()),
            given="elements that a mask leaves out" if partly else "draws without addresses",
            expected="a PRNG key", fix="draws.derive(jax.random.key(0), ...)",
        )  # fmt: skip
    return seed(lambda latents: target.at(latents)[0].retval)


def by_name(tree: Any) -> Any:
    """A pytree as nested dicts, by its keys and positions; an array as it is."""
    leaves = jax.tree.leaves_with_path(tree)
    if len(leaves) == 1 and not leaves[0][0]:
        return jax.numpy.asarray(leaves[0][1])
    parts = {tuple(_part(p) for p in path): jax.numpy.asarray(x) for path, x in leaves}
    return nest(parts)


def _part(entry: Any) -> str:
    for kind in ("key", "idx", "name"):
        if hasattr(entry, kind):
            return str(getattr(entry, kind))
    return str(entry)
