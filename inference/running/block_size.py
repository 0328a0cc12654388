"""How many steps the host lets run before it looks again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

# A block grows until it takes this long; nothing between blocks is noticed at this rate.
SECONDS = 0.5


class BlockSize:
    """How many steps a block has: it doubles until a block takes long enough.

    >>> from inference.running.block_size import BlockSize
    >>> size = BlockSize()
    >>> size.next(1000), size.next(3)
    (16, 3)
    """

    def __init__(self, first: int = 16):
        self.count = first

    def next(self, most: int) -> int:
        """The number of steps of the next block, at most so many."""
        # several processes must agree, and their clocks do not
        return most if jax.process_count() > 1 else min(self.count, most)

    def timed(self, block: Callable, arguments: tuple) -> Any:
        """`block(*arguments)`, when it is done."""
        before = time.monotonic()
        result = jax.block_until_ready(block(*arguments))
        if time.monotonic() - before < SECONDS:
            self.count *= 2
        return result
