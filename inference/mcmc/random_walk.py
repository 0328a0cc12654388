"""Random-walk Metropolis on the unconstrained space of a target."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import Selection, Target, draw

from ..kernel import Kernel, Stats
from ..move import accepted
from ..recipe import made_again
from .first_metric import first_step_size, signs
from .metric import Metric
from .prologue import Prologue, accepting
from .scored_position import on_scored_positions, scored_at


@made_again
def random_walk(
    target: Target,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    step_size: float | None = None,
    dense: bool | None = None,
    target_accept: float | None = None,
) -> Kernel:
    """Gaussian steps in unconstrained space, accepted by the ratio of the densities there.

    Leaves `target` invariant (Metropolis et al. 1953): the steps are symmetric. The warm-up
    finds their covariance and their size. The density may be an estimate, as of a `marginal`: a
    state keeps the one that it was accepted with (Andrieu and Roberts 2009).

    Statistics: `accept`.

    Args:
      selection: continuous latents; all latents if left out.
      step_size: standard deviation of a step, in units of the warm-up's; 2.38 / sqrt(n) for n
        coordinates if left out (Roberts, Gelman and Gilks 1997), doubled or halved
        at the start of each chain of a run with little warm-up until a step of it may well be
        accepted.
      dense: whether the warm-up finds a full covariance or a diagonal one; full for at most 64
        coordinates if left out.
      target_accept: what the warm-up aims at; 0.44 for one coordinate and 0.234 for more if
        left out (Roberts and Rosenthal 2001).

    Raises:
      InvalidArgument: a selected latent has no unconstrained space, or a setting is out of
        range.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import sample_posterior
    >>> from inference.mcmc.random_walk import random_walk
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> draws = sample_posterior(jax.random.key(0), target, random_walk(target))
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    begun = Prologue(
        target,
        selection,
        step_size,
        dense,
        _usual_accept if target_accept is None else accepting(target_accept),
        lambda n: 2.38 / math.sqrt(n),
        estimates=True,
    )
    space = begun.space
    n = space.size

    def step(metric: Metric, point: Any) -> tuple[Any, Stats]:
        noise: jax.Array = draw(dist.Normal(jnp.zeros(n, space.dtype), 1.0))
        z = point.z + metric.step_size * metric.spread(noise)
        moved: Any = scored_at(space, point.rest, z)
        kept, probability = accepted(point, moved, moved.log_density - point.log_density)
        return kept, {"accept": probability}

    def first(point: Any, metric: Metric, short: bool) -> Metric:
        """With little warm-up, a size at which two opposite steps may well be accepted."""
        if not short:
            return metric
        log_density, along = space.log_density(point.rest), metric.spread(signs(point.z))

        def log_ratio(size: jax.Array) -> jax.Array:
            ends = [log_density(point.z + sign * size * along) for sign in (1, -1)]
            return jnp.stack(ends).min() - point.log_density

        size = jnp.asarray(metric.step_size, point.z.dtype)
        return metric._replace(step_size=first_step_size(log_ratio, size))

    # an estimate is not made again for a guess
    guess = None if space.estimated else first
    return begun.kernel("random walk", step, on_scored_positions(space), first=guess)


def _usual_accept(n: int) -> float:
    return 0.44 if n == 1 else 0.234
