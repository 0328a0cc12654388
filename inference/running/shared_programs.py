"""Compiled programs that are found again by what they say: equal texts are compiled once.

A random program that is made anew, of other data, is another Python function, but says the same of
arrays of the same shapes. Its data are arguments, so its text is what the compiler would be given;
what has been compiled of that text serves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from ..results.effort import effort


class Shared:
    """`jax.jit` of a program that the host runs, compiled once for all programs of its text.

    >>> import jax.numpy as jnp
    >>> from inference.running.shared_programs import Shared
    >>> one, other = (Shared(lambda x: 2 * x + 1) for _ in range(2))
    >>> one(jnp.ones(2)).tolist(), other(jnp.zeros(2)).tolist()
    ([3.0, 3.0], [1.0, 1.0])
    >>> one.executable(jnp.ones(2)) is other.executable(jnp.zeros(2))
    True
    """

    def __init__(self, program: Callable):
        self.jitted: Any = jax.jit(program, compiler_options=effort(2))
        self.found: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        return self.executable(*args)(*args)

    def executable(self, *args: Any) -> Any:
        """What was compiled for arguments of such kinds."""
        leaves, tree = jax.tree.flatten(args)
        kinds = tree, tuple((jnp.shape(x), jnp.result_type(x), _where(x)) for x in leaves)
        if kinds not in self.found:
            lowered = self.jitted.lower(*args)
            text = lowered.as_text(), str(lowered.in_tree), str(lowered.out_tree), kinds[1]
            self.found[kinds] = _compiled(_Said(text, lowered, effort(2)))
        return self.found[kinds]

    def text(self, *args: Any) -> str:
        """The program for such arguments, as it is handed to the compiler."""
        return self.jitted.lower(*args).as_text()


def _where(x: Any) -> Any:
    return x.sharding if isinstance(x, jax.Array) else None


@dataclass(frozen=True)
class _Said:
    """A program by its text."""

    text: tuple
    lowered: Any = field(compare=False)
    options: Any = field(compare=False)


@lru_cache(maxsize=64)
def _compiled(said: _Said) -> Any:
    return said.lowered.compile(compiler_options=said.options)
