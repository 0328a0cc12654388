"""What a growing trajectory leaves to chance: directions, and which of its points is chosen.

By a key, which costs little; or by draws, which `law` and `integrate` see, so that a tree can be
checked exactly. What is decided, and with which probabilities, is written once, in `tree`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import draw

# Uniforms that are drawn at once; most trees need no second block.
_BLOCK = 64


class Keyed(NamedTuple):
    """Decisions of many chains, each by a key of its own.

    Attributes:
      bits: data of `threefry2x32` keys, of shape (chains, 2).
      coins: uniforms of directions and of halves, of shape (chains, 2 * max_depth + 1).
      block: uniforms of the next leaves, of shape (chains, block).

    >>> import jax, jax.numpy as jnp
    >>> from inference.mcmc.decisions import Keyed
    >>> by = Keyed.of(jnp.zeros((3, 2), jnp.uint32), 10, jnp.float32)
    >>> by.sign(0).shape, by.half(0, jnp.ones(3)).tolist()
    ((3,), [True, True, True])
    """

    bits: jax.Array
    coins: jax.Array
    block: jax.Array

    @classmethod
    def of(cls, bits: jax.Array, max_depth: int, dtype: Any) -> Keyed:
        coins = 2 * max_depth + 1
        return cls(bits, *jnp.split(_uniforms(bits, 0, coins + _BLOCK, dtype), [coins], 1))

    def sign(self, depth: Any) -> jax.Array:
        """+1 or -1: the direction of doubling `depth`."""
        return jnp.where(_column(self.coins, 2 * depth) < 0.5, 1, -1)

    def half(self, depth: Any, probability: jax.Array) -> jax.Array:
        """Whether the half of doubling `depth` is taken."""
        return _column(self.coins, 2 * depth + 1) < probability

    def leaf(self, block: jax.Array, number: Any, probability: jax.Array) -> tuple[Any, Any]:
        """Whether leaf `number` of the trajectory is taken; and the block for the next one."""

        def fresh() -> jax.Array:
            return _uniforms(self.bits, number // _BLOCK, _BLOCK, block.dtype)

        needed = (number > 0) & (number & (_BLOCK - 1) == 0)
        block = lax.cond(needed, fresh, lambda: block)
        return _column(block, number & (_BLOCK - 1)) < probability, block


class Drawn(NamedTuple):
    """Decisions of one chain, each a draw of its own.

    Attributes:
      signs: the directions, where they are known: one of +1 and -1 for each doubling.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.decisions import Drawn
    >>> from ppl import law
    >>> law(lambda: Drawn().half(0, jnp.array([0.25])))().masses.tolist()
    [0.75, 0.25]
    """

    signs: Sequence[Any] | None = None
    block: tuple[()] = ()

    def sign(self, depth: int) -> jax.Array:
        if self.signs is not None:
            return jnp.asarray(self.signs[depth])[None]
        return (1 - 2 * draw(dist.Bernoulli(0.5)))[None]

    def half(self, depth: int, probability: jax.Array) -> jax.Array:
        return self._taken(probability)

    def leaf(self, block: Any, number: int, probability: jax.Array) -> tuple[Any, Any]:
        if number & (number + 1) == 0:  # the first of its half, where a tree is sure
            return jnp.ones(1, bool), block
        return self._taken(probability), block

    def _taken(self, probability: jax.Array) -> jax.Array:
        # as u < p takes it: never where p is no number, surely where it is 1 or more
        p = jnp.where(jnp.isnan(probability), 0.0, jnp.clip(probability, 0.0, 1.0))
        return (draw(dist.Bernoulli(p[0])) == 1)[None]


def branch(chosen: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`lax.cond`, or no branch at all where it is known which one: in a tree that is unrolled.

    >>> from inference.mcmc.decisions import branch
    >>> branch(True, lambda: "yes", lambda: "no")
    'yes'
    """
    if isinstance(chosen, bool):
        return yes() if chosen else no()
    return lax.cond(chosen, yes, no)


def _uniforms(bits: jax.Array, block: Any, n: int, dtype: Any) -> jax.Array:
    """Block number `block` of each chain, by a key of its own: the next is as good as any."""

    def one(bits: jax.Array) -> jax.Array:
        bits = bits + jnp.stack([jnp.zeros_like(bits[1]), jnp.asarray(block, bits.dtype)])
        key = jax.random.wrap_key_data(bits, impl="threefry2x32")
        return jax.random.uniform(key, (n,), dtype)

    return jax.vmap(one)(bits)


def _column(x: jax.Array, i: Any) -> jax.Array:
    return lax.dynamic_index_in_dim(x, i, 1, keepdims=False, allow_negative_indices=False)
