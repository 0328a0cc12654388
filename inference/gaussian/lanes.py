"""Times as a loop goes through them: in lanes side by side, and in pieces that fit a cache."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

WAYS = ("scan", "blocks", "tree", "roots")

BLOCKS = 32
"""How many lanes "blocks" has, whatever the number of steps."""

PIECE = 4096
"""How many steps a piece has, at most: all that is made of them on the way stays in a cache."""


@dataclass(frozen=True)
class Lanes:
    """An order of n steps: lane after lane, each cut into pieces that are of one depth.

    Attributes:
      count: n.
      lanes: how many there are; one goes from step to step.
      pieces, depth: into how many pieces, of how many steps in each lane.
      roots: whether roots of covariances are carried, by one lane.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.lanes import Lanes
    >>> lanes = Lanes(count=5, lanes=2, pieces=1, depth=3)
    >>> lanes.cut(jnp.arange(1.0, 6.0)).tolist()  # steps 1 and 4, then 2 and 5, then 3
    [[1.0, 4.0, 2.0, 5.0, 3.0, 0.0]]
    """

    count: int
    lanes: int
    pieces: int
    depth: int
    roots: bool = False

    def cut(self, x: jax.Array) -> jax.Array:
        """`(..., n)` as `(pieces, ..., depth * lanes)`, with zeros at the end.

        A step of zeros moves on nothing, and says nothing.
        """
        shape = x.shape[:-1]
        room = self.lanes * self.pieces * self.depth - self.count
        x = jnp.pad(x, [(0, 0)] * len(shape) + [(0, room)]) if room else x
        x = x.reshape(*shape, self.lanes, self.pieces, self.depth)
        return jnp.moveaxis(x, (-2, -1), (0, -2)).reshape(self.pieces, *shape, -1)

    def uncut(self, x: jax.Array) -> jax.Array:
        """The n steps of what was cut."""
        shape = x.shape[1:-1]
        x = x.reshape(self.pieces, *shape, self.depth, self.lanes)
        return jnp.moveaxis(x, (0, -2), (-2, -1)).reshape(*shape, -1)[..., : self.count]

    def rows(self, x: jax.Array) -> jax.Array:
        """A piece `(..., depth * lanes)` as a loop reads it: `(depth, ..., lanes)`.

        With one lane it is `(depth, ...)`.
        """
        if self.lanes == 1:
            return jnp.moveaxis(x, -1, 0)
        return jnp.moveaxis(x.reshape(*x.shape[:-1], self.depth, self.lanes), -2, 0)

    def piece(self, rows: jax.Array) -> jax.Array:
        """What a loop wrote, back as a piece."""
        if self.lanes == 1:
            return jnp.moveaxis(rows, 0, -1)
        found = jnp.moveaxis(rows, 0, -2)
        return found.reshape(*found.shape[:-2], -1)


def lanes_of(along: str, n: int) -> Lanes:
    """How n steps are gone through: as one lane, as some, or all at once."""
    lanes = {"scan": 1, "blocks": min(BLOCKS, n), "tree": n, "roots": 1}[along]
    length = -(-n // lanes)
    pieces = 1 if along == "tree" else -(-n // PIECE)
    depth = -(-length // pieces)
    return Lanes(n, lanes, -(-length // depth), depth, along == "roots")
