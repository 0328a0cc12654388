"""What to do about a factorization that is not as good as it could be, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .forms import CP

if TYPE_CHECKING:
    from .factorization import Factorization

LOOK = 10
"""Sweeps over which the last gains are told."""
SMALL = 0.01
"""A component of less than this share of the variance is not needed."""


def advice_on(found: Factorization) -> tuple[str, ...]:
    """A sentence for each thing to do; none if there is nothing."""
    said: list[str] = []
    count = sum(chunk.rows.count for chunk in found.chunks)
    if not found:
        last = found.bounds[-1 - LOOK :]
        gain = (last[-1] - last[0]) / max(1, len(last) - 1)
        told = f"{found.status}; the last {len(last)} bounds grow by {gain:.3g} nats a sweep"
        said.append(f"{told}: take more sweeps, or a larger tolerance than {gain / count:.1g}")
    tried = np.asarray(found.starts)
    if len(tried) > 1 and np.ptp(tried) > 0.01 * count:
        said.append(
            f"starts came to bounds from {tried.min():.6g} to {tried.max():.6g}: take more starts"
        )
    if isinstance(found.tensor.form, CP):
        share = np.asarray(found.relevance())
        few = [str(r + 1) for r in np.flatnonzero(share < SMALL)]
        if few and len(share) > 1:
            said.append(
                f"components {', '.join(few)} have less than {SMALL:.0%} of the variance: a rank "
                f"of {len(share) - len(few)} may do"
            )
    return tuple(said)
