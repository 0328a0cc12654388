"""Arguments and results split into arrays, which are traced, and the static rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import errors
from .border import entering

_SCALARS = (bool, int, float, complex, np.generic)


def is_traced(leaf: Any) -> bool:
    """Arrays and Python numbers are traced; strings, functions, ... are static."""
    return isinstance(leaf, (jax.Array, np.ndarray, jax.core.Tracer, *_SCALARS)) or hasattr(
        leaf, "__jax_array__"
    )


def is_array(value: Any) -> bool:
    """Whether `value` is a number or an array of numbers (traced or not)."""
    return is_traced(value) and getattr(getattr(value, "dtype", None), "kind", "f") not in "OSUmM"


class _Hole:
    """Stands where a traced leaf goes in the static part."""

    def __repr__(self):
        return "*"


_HOLE = _Hole()


@jax.tree_util.register_pytree_node_class
class Arguments:
    """The positional and keyword arguments of one call, as a pytree.

    Its leaves are the arrays; everything else, with the arguments named in
    `static_names`, is part of the tree's structure.
    """

    __slots__ = ("leaves", "static")

    def __init__(self, leaves: Sequence[Any], static: tuple):
        self.leaves = tuple(leaves)
        self.static = static

    @classmethod
    def of(cls, args: tuple, kwargs: dict, fixed: frozenset = frozenset()) -> Arguments:
        """Split a call; `fixed` holds the positions and names that are static."""
        args = tuple(_Static(a) if i in fixed else a for i, a in enumerate(args))
        kwargs = {k: _Static(v) if k in fixed else v for k, v in kwargs.items()}
        found, tree = jax.tree.flatten((args, kwargs))
        leaves = [leaf for leaf in found if is_traced(leaf)]
        rest = tuple(_HOLE if is_traced(leaf) else leaf for leaf in found)
        return cls(leaves, (tree, rest))

    @classmethod
    def entering(
        cls, args: tuple, kwargs: dict, fixed: frozenset = frozenset(), fn: Any = None
    ) -> Arguments:
        """Split a call of `fn` that a person makes: its arrays pass the border."""
        return cls.of(*entering(args, kwargs, fixed, fn), fixed)

    def with_leaves(self, leaves: Sequence[Any]) -> Arguments:
        return Arguments(leaves, self.static)

    def without_leaves(self) -> Arguments:
        return Arguments((None,) * len(self.leaves), self.static)

    @property
    def _call(self) -> tuple[tuple, dict]:
        tree, rest = self.static
        leaves = iter(self.leaves)
        merged = [next(leaves) if leaf is _HOLE else leaf for leaf in rest]
        args, kwargs = jax.tree.unflatten(tree, merged)
        return (
            tuple(a.value if isinstance(a, _Static) else a for a in args),
            {k: v.value if isinstance(v, _Static) else v for k, v in kwargs.items()},
        )

    @property
    def args(self) -> tuple:
        return self._call[0]

    @property
    def kwargs(self) -> dict:
        return self._call[1]

    def avals(self) -> tuple:
        """Shapes, dtypes and weak types of the traced leaves: the staging key."""
        return tuple(_aval(leaf) for leaf in self.leaves)

    def tree_flatten(self):
        return self.leaves, self.static

    @classmethod
    def tree_unflatten(cls, static, leaves):
        return cls(leaves, static)

    def __repr__(self):
        args, kwargs = self._call
        shown = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
        return f"({', '.join(shown)})"


def _aval(leaf: Any) -> tuple:
    typed = (bool, int, float, complex, jax.Array, jax.core.Tracer)
    aval = jax.typeof(leaf) if isinstance(leaf, typed) else None
    if aval is None:
        return (jnp.shape(leaf), jnp.result_type(leaf), False)
    return (aval.shape, aval.dtype, getattr(aval, "weak_type", False))


@jax.tree_util.register_pytree_node_class
class _Static:
    """A static argument: no leaves, compared by value."""

    def __init__(self, value: Any):
        try:
            hash(value)
        except TypeError:
            raise errors.StaticArgument(
                "A static argument must be hashable.",
                where=errors.caller(),
                given=type(value).__name__,
                expected="an int, a string, a tuple, a function, ...",
                fix="pass a tuple instead of a list, or leave it out of static_argnames",
            ) from None
        self.value = value

    def tree_flatten(self):
        return (), self.value

    @classmethod
    def tree_unflatten(cls, value, _):
        return cls(value)
