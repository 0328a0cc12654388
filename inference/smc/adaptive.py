"""Annealing whose powers, and kernels, are found from the particles while it runs.

What is found depends on the particles, so that the evidence is no longer unbiased (nor is the
step proper): it is consistent as particles grow in number (Beskos et al. 2016). A second run of
`annealed` with the powers and parameters that the first one found is unbiased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl import Target, errors

from ..kernel import Kernel, check_maker
from ..mcmc.low_rank import LowRank
from ..mcmc.metric import Metric, shrunk
from ..validation.objects import check_callable
from ..validation.settings import check_count, check_number, shown
from ..weighted import Step, Weighted, check_weighted, each, lift, normalized, spawn, then, unit
from .annealing import MakeKernel, begun, levels, on_latents, powered, schedule, traces_of
from .particles import History, recorded
from .resample import Scheme, check_resampling, effective_sample_size, when_ess_below
from .schemes import systematic
from .waste_free import check_chains, waste_free

Tune = Callable[[Kernel, Weighted], Any]
"""From the kernel at a power, on latents, and the particles there, to its parameters."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Annealed:
    """What `adaptive_annealing` gives, of at most T stages.

    Attributes:
      particles: traces of the target, weighted.
      powers: shape (T + 1,), from 0 to 1, where they stay.
      stages: the number of powers after 0 up to the first 1.
      parameters: of the kernel in each stage, stacked; after `stages` its own.
      history: the log evidence and the effective number of particles after each stage.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Annealed, adaptive_annealing, annealed, mh
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)).expand([9]))
    >>> target, kernel = Target(coin, (), {"heads": jnp.ones(9, int)}), lambda t: mh(t, "fair")
    >>> run = seed(lambda: adaptive_annealing(target, 100, kernel, max_stages=8))
    >>> found: Annealed = jax.jit(run)(jax.random.key(0))
    >>> again = annealed(target, 100, kernel, found.powers[: found.stages + 1])  # proper
    """

    particles: Weighted
    powers: jax.Array
    stages: jax.Array
    parameters: Any
    history: History


def adaptive_annealing(
    target: Target,
    n: int,
    kernel: MakeKernel,
    *,
    fraction: float = 0.5,
    max_stages: int = 64,
    tune: Tune | None = None,
    threshold: float = 0.5,
    scheme: Scheme = systematic,
    chains: int | None = None,
) -> Annealed:
    """`annealed` that finds its powers: each is as large as the particles can bear.

    A random program. The next power is where the conditional effective number of particles,
    (sum W v)^2 / sum W v^2 for normalised weights W and the likelihood's power v, falls to this
    fraction: the effective number itself after a resampling (Zhou, Johansen and Aston 2016).
    Power 1 is reached in the last of `max_stages` stages whatever it costs; those
    that are not needed are skipped.

    The evidence is **not unbiased**, since powers depend on particles: two particles on a coin
    of evidence 0.48 estimate 0.45 on average. A second run of `annealed` at what was found is
    unbiased.

    Args:
      n, kernel, threshold, scheme, chains: as for `annealed`.
      fraction: between 0 and 1; near 1 the stages are many.
      max_stages: powers after 0, a Python int.
      tune: the kernel's parameters at a power, from the particles there (as weighted, before
        they are resampled): `particle_metric`, or a function of one's own.

    Raises:
      InvalidArgument: as for `annealed`; a fraction not between 0 and 1; no stage.

    Source: Jasra et al., Inference for Lévy-driven stochastic volatility models via adaptive
    sequential Monte Carlo (2011); Zhou, Johansen and Aston, Toward automatic model comparison
    (JCGS 2016).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import (
    ...     adaptive_annealing, annealed, log_evidence, particle_metric, random_walk, unit
    ... )
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 0.1))
    >>> target = Target(model, (), {"y": 2.0})
    >>> run = seed(lambda: adaptive_annealing(target, 1000, random_walk, tune=particle_metric))
    >>> found = jax.jit(run)(jax.random.key(0))
    >>> powers = found.powers[: found.stages + 1]
    >>> bool((jnp.diff(powers) > 0).all()), powers[0].item(), powers[-1].item()
    (True, 0.0, 1.0)
    >>> again = seed(lambda: log_evidence(annealed(target, 1000, random_walk, powers)(unit())))
    >>> logs = jax.vmap(again)(jax.random.split(jax.random.key(1), 50))
    >>> ratios = jnp.exp(logs - dist.Normal(0.0, 1.01**0.5).log_prob(2.0))  # 1 on average
    >>> bool(abs(ratios.mean() - 1.0) < 5 * ratios.std() / 50**0.5)
    True
    """
    check_count("n", n)
    check_number("fraction", fraction, above=0, below=1, fix=0.5)
    check_count("max_stages", max_stages)
    check_resampling(threshold, scheme)
    check_chains(n, chains)
    check_maker(kernel)
    if tune is not None:
        check_callable("tune", tune, "a function of a kernel and particles", "tune=particle_metric")
    zero, one = schedule(target, (0.0, 1.0))
    again = when_ess_below(threshold, scheme) if threshold else then()

    def raised(weighted: Weighted, before: jax.Array, last: jax.Array) -> tuple:
        """The next power, the kernel's parameters there, and the particles, moved."""
        level = jax.vmap(lambda x: levels(target, x))(weighted.value)
        power = next_power(level, weighted.log_weight, before, fraction)
        power = jnp.where(last, one, power)
        here = Weighted(weighted.value, weighted.log_weight + powered(level, power - before))
        moves = on_latents(target, kernel, power)
        if tune is not None:
            moves = moves.tuned(tune(moves, here))
        if chains is None:
            moved = then(again, each(lift(moves)))(here)
        else:
            moved = waste_free(moves, chains, scheme)(here)
        return moved, power, moves.parameters

    def stage(last: jax.Array) -> Step:
        def step(weighted: Weighted) -> Weighted:
            latents, before = weighted.value
            here = Weighted(latents, weighted.log_weight)
            own = jax.tree.map(jnp.asarray, on_latents(target, kernel, before).parameters)

            def go(_: None) -> tuple:
                moved, power, found = raised(here, before, last)
                return moved, power, jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), found, own)

            moved, *rest = lax.cond(before < 1, go, lambda _: (here, before, own), None)
            return Weighted((moved.value, *rest), moved.log_weight)

        return step

    began = then(spawn(n), each(begun(target, zero)))(unit())
    last = jnp.arange(max_stages) == max_stages - 1
    run = recorded(
        stage,
        last,
        record=lambda s: s.value[1:],
        carry=lambda s: Weighted(s.value[:2], s.log_weight),
    )
    end, history = run(Weighted((began.value, zero), began.log_weight))
    powers, parameters = history.record
    return Annealed(
        particles=traces_of(target)(Weighted(end.value[0], end.log_weight)),
        powers=jnp.concatenate([zero[None], powers]),
        stages=1 + (powers < 1).sum(),
        parameters=parameters,
        history=History(history.log_evidence, history.ess),
    )


def next_power(
    level: jax.Array, log_weights: jax.Array, before: jax.Array, fraction: float
) -> jax.Array:
    """The power at which the conditional effective number of particles is this fraction of n.

    By bisection; 1 if it is more even there, or if no particle has any weight.

    Args:
      level: what the powers act on, shape (n,).
      log_weights: of the particles at the power `before`, shape (n,).

    >>> import jax.numpy as jnp
    >>> from inference.smc.adaptive import next_power
    >>> found = next_power(jnp.array([0.0, -10.0]), jnp.zeros(2), jnp.zeros(()), 0.8)
    >>> v = jnp.exp(found * -10.0)  # (1 + v)^2 / (2 (1 + v^2)) = 0.8 at v = 1/3
    >>> print(f"{v:.4f}")
    0.3333
    """
    weights = normalized(log_weights)
    alive = (weights > 0) & (level > -jnp.inf)
    weights = jnp.where(alive, weights, 0.0)
    level = jnp.where(alive, level - jnp.max(jnp.where(alive, level, -jnp.inf)), 0.0)

    def even(power: jax.Array) -> jax.Array:
        """Whether so many particles count; also where there is none."""
        v = jnp.exp((power - before) * level)
        return ~((weights @ v) ** 2 < fraction * (weights @ v**2))

    def halved(_: int, ends: tuple) -> tuple:
        low, high = ends
        middle = (low + high) / 2
        return tuple(jnp.where(even(middle), jnp.array([middle, high]), jnp.array([low, middle])))

    full = jnp.ones_like(before)
    _, found = lax.fori_loop(0, 60, halved, (before, full))
    return jnp.where(even(full), full, found)


def particle_metric(kernel: Kernel, particles: Weighted) -> Metric:
    """The inverse mass matrix as the particles' covariance in the kernel's coordinates.

    For kernels whose parameters are a `Metric`, as `random_walk`, `hmc` and `mala`; the step
    size stays. Diagonal or dense as the kernel's own, and that of so many positions as the
    particles are worth: `inference.mcmc.metric.shrunk`.

    Raises:
      InvalidArgument: the kernel has other parameters.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Weighted, particle_metric, random_walk
    >>> from inference.smc.annealing import on_latents
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> kernel = on_latents(Target(model, (), {"y": 2.0}), random_walk, 0.5)
    >>> particles = Weighted({"mu": jnp.linspace(-6.0, 6.0, 9997)}, jnp.zeros(9997))
    >>> print(f"{particle_metric(kernel, particles).inverse_mass[0, 0]:.2f}")  # 12^2 / 12
    12.00
    """
    metric = getattr(kernel, "parameters", None)
    check_weighted(particles)
    if not isinstance(metric, Metric):
        raise errors.InvalidArgument(
            "Particles give a metric, which is not what the kernel's parameters are.",
            where=errors.caller(), 
            given=f"{shown(kernel)}, with parameters of type {type(metric).__name__}",
            expected="a kernel such as random_walk, hmc or mala",
            fix="tune=lambda kernel, particles: parameters",
        )  # fmt: skip
    z = jax.vmap(lambda latents: kernel.enter(latents).z)(particles.value)
    weights = normalized(particles.log_weight)
    centred, n = z - weights @ z, effective_sample_size(particles.log_weight)
    mass = metric.inverse_mass
    if isinstance(mass, LowRank):
        return metric.with_variances(shrunk(weights @ centred**2, n, mass.variances))
    if mass.ndim == 1:
        covariance = weights @ centred**2
    else:
        covariance = (weights[:, None] * centred).T @ centred
    return metric._replace(inverse_mass=shrunk(covariance, n, mass))
