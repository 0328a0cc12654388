"""A table of three continuous modes: the sizes of the air of Beijing, of planted functions.

Nothing of this project is imported, since peers read this file in interpreters of their own.
"""

import numpy as np

SIZES = (428, 501, 1461)
COUNT, HELD, NOISE = 13_572, 3_393, 0.1
BINS = (50, 50, 150)
"""Of peers, whose tables are whole."""


def table(count=COUNT):
    """Coordinates `(N, 3)` in [0, 1] and values of entries, and as many more as `HELD`."""
    random = np.random.default_rng(0)
    index = [random.integers(0, size, count + HELD) for size in SIZES]
    at = np.stack([i / (size - 1) for i, size in zip(index, SIZES, strict=True)], 1)
    parts = [
        np.prod([np.sin((3 + 2 * r + k) * at[:, k] + r) for k in range(3)], axis=0)
        for r in range(3)
    ]
    y = np.sum(parts, axis=0) + NOISE * random.normal(size=count + HELD)
    return at[:count], y[:count], at[count:], y[count:]


def binned(at):
    return tuple(np.minimum((at[:, k] * n).astype(int), n - 1) for k, n in enumerate(BINS))
