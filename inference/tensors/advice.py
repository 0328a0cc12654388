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
        moved = float(np.mean(np.abs(np.diff(last)))) if len(last) > 1 else np.inf
        told = f"{found.status}; the last {len(last)} bounds move by {moved:.3g} nats a sweep"
        said.append(f"{told}: take more sweeps, or a tolerance above {moved / count:.3g}")
    tried = np.asarray(found.starts)
    if len(tried) > 1 and np.ptp(tried) > 0.01 * count:
        said.append(
            f"starts came to bounds from {tried.min():.6g} to {tried.max():.6g}: take more starts"
        )
    if isinstance(found.tensor.form, CP):
        share = np.asarray(found.relevance())
        few = [str(r + 1) for r in np.flatnonzero(share < SMALL)]
        if few and len(share) > 1:
            many = (
                f"component {few[0]} has" if len(few) == 1 else f"components {', '.join(few)} have"
            )
            said.append(
                f"{many} less than {SMALL:.0%} of the variance: "
                + (
                    f"a rank of {len(share) - len(few)} may do"
                    if len(few) < len(share)
                    else "take more starts, or larger sigmas of the kernels"
                )
            )
    return tuple(said)
