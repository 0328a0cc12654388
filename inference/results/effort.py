"""How hard XLA tries with programs that are compiled for one run, or for a few."""

from __future__ import annotations

from typing import Any

import jax


def effort(level: int) -> dict[str, Any] | None:
    """`compiler_options` of a `jax.jit` that runs from the host.

    On a CPU a sampler compiles at level 2 in a fifth to a third less time than at level 3, JAX's
    own (two posteriors, no-U-turn sampler), and runs as fast; 200 draws of a prior compile at level
    1 in a third of the time. At level 0 derivatives can be wrong, as
    `findings/jax_hypot_gradient_unoptimised.sh` shows; at 1 and 2 they are those of level 3 there.
    On other devices it is left to JAX. They are known when a program begins.

    >>> from inference.results.effort import effort
    >>> effort(2)  # on a CPU
    {'xla_backend_optimization_level': 2}
    """
    return {"xla_backend_optimization_level": level} if jax.default_backend() == "cpu" else None
