"""The no-U-turn sampler on the unconstrained space of a target."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import Selection, Target, draw

from ..kernel import Kernel, Stats
from ..recipe import made_again
from ..validation.settings import check_count, check_flag
from .hmc import USUAL, Hamiltonian, gradient_of
from .metric import Metric
from .phase import Phase, on_phases
from .prologue import Prologue, accepting
from .tree import grow, grow_by_draws
from .turning import Point

DEEPEST, UNROLLED = 30, 5
"""The most doublings: steps are counted in 32 bits; and where each one is written out."""


class RandomKey(dist.Distribution):
    """The data of a PRNG key, uniform: randomness for code that takes a key of its own.

    >>> import jax
    >>> from inference.mcmc.nuts import RandomKey
    >>> from ppl import draw, seed
    >>> seed(lambda: draw(RandomKey()))(jax.random.key(0)).shape
    (2,)
    """

    support: Any = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self):
        super().__init__(batch_shape=(), event_shape=(2,))

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        return jax.random.bits(key, (*sample_shape, 2), jnp.uint32)

    def log_prob(self, value: jax.Array) -> jax.Array:
        return jnp.full(jnp.shape(value)[:-1], -64.0 * jnp.log(2.0))


@made_again
def nuts(
    target: Target,
    selection: Selection | str | tuple[str, ...] | None = None,
    *,
    step_size: float | None = None,
    dense: bool | None = None,
    target_accept: float = 0.8,
    max_depth: int = 10,
    unroll: bool = False,
) -> Kernel:
    """The no-U-turn sampler; leaves `target` invariant (Hoffman and Gelman 2014).

    With multinomial sampling over the trajectory (Betancourt 2017), built by iteration
    (Phan, Pradhan and Jankowiak 2019): see `inference.mcmc.tree.grow`. Chains under
    `jax.vmap` step together, at the cost of the longest trajectory among them. Acts on the
    unconstrained space of the selected continuous latents, given the others.

    Statistics: `accept` (averaged over the trajectory), `diverging`, `energy`, `steps`
    (leapfrog steps), `depth`, `reached_max_depth`.

    Args:
      selection: continuous latents; all latents if left out.
      step_size: used as it is without a warm-up, and as the start of one. If left out, each
        chain of a run starts with one that its first step bears (Hoffman and Gelman 2014,
        algorithm 4); outside of a run it is 0.1.
      dense: whether the warm-up finds a dense mass matrix or a diagonal one. If left out, dense
        for at most 64 coordinates; for at most 1024, diagonal but along 24 axes; else diagonal.
      target_accept: the acceptance probability that the warm-up aims at.
      max_depth: a trajectory has at most 2**max_depth - 1 steps; at most 30.
      unroll: all of its steps are written out, and each direction and each choice is a `draw`
        where one hidden key decides on all else; for `max_depth` of at most 5. It is slower, and
        for checks: `law`, `integrate` and the exact checks of `semantics` see these draws.

    Raises:
      InvalidArgument: a selected latent has no unconstrained space, or a setting is out of
        range.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import nuts, sample_posterior
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> draws = sample_posterior(jax.random.key(0), target, nuts(target))
    >>> mu = draws.summary()["mu"]  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(mu["mean"] - 1.0) < 5 * mu["mcse_mean"])
    True
    """
    check_flag("unroll", unroll)
    check_count("max_depth", max_depth, most=UNROLLED if unroll else DEEPEST)
    accept = accepting(target_accept)
    begun = Prologue(target, selection, step_size, dense, accept, lambda n: USUAL, slopes=True)
    system = Hamiltonian(begun.space)

    def step(metric: Metric, phase: Phase) -> tuple[Phase, Stats]:
        start = Point(phase.z, system.momentum(metric.inverse_mass), phase.gradient)
        potential, mass = begun.space.potential(phase.rest), metric.inverse_mass
        given = potential, start, phase.potential, mass, metric.step_size
        if unroll:
            tree = grow_by_draws(*given, max_depth)
        else:
            tree = grow(*given, draw(RandomKey()), max_depth)
        chosen = tree.chosen
        moved = Phase(phase.rest, chosen.z, chosen.potential, chosen.gradient)
        stats = {
            "accept": tree.accept / tree.steps.astype(tree.accept.dtype),
            "diverging": tree.diverging,
            "energy": chosen.energy,
            "steps": tree.steps,
            "depth": tree.depth,
            "reached_max_depth": tree.depth >= max_depth,
        }
        return moved, stats

    return begun.kernel(
        "nuts", step, on_phases(begun.space), gradient=gradient_of, first=system.first
    )
