"""The samplers: functions of a seed, on one density in unconstrained space, four chains each.

All of them see the same compiled density, that of the target; so a gradient is the same for all,
and what differs is how many an effective draw takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS

from inference import nuts, sample_posterior
from ppl import Target, seed

CHAINS = 4


class Run(NamedTuple):
    """Latents of shape (chains, draws, ...), and the gradients of all chains."""

    draws: dict
    warm_up: float
    sampling: float


Sampler = Callable[[int], Run]


class Flat:
    """A target as a density of a vector: `potential`, and `latents` of many draws."""

    def __init__(self, target: Target):
        trace, _ = seed(target.generate)(jax.random.key(0), {})
        start = target.unconstrain(target.choices(trace))
        vector, parts = ravel_pytree(start)
        self.size = len(vector)
        self.potential = lambda z: target.potential(parts(z))
        self.latents = jax.jit(jax.vmap(jax.vmap(lambda z: target.constrain(parts(z))[0])))


def ours(target: Target, n: int) -> Sampler:
    kernel = nuts(target)

    def run(seed_: int) -> Run:
        key = jax.random.key(seed_)
        draws = sample_posterior(key, target, kernel, draws=n, warmup=n, progress=False)
        warm_up = float(np.sum(draws.tuned["warmup_steps"]))
        return Run(dict(draws.choices), warm_up, float(draws.stats["steps"].sum()))

    return run


def of_numpyro(target: Target, n: int, dense: bool = False) -> Sampler:
    flat = Flat(target)

    @jax.jit
    def chains(key: jax.Array) -> tuple:
        start, rest = jax.random.split(key)
        mcmc = MCMC(
            NUTS(potential_fn=flat.potential, dense_mass=dense),
            num_warmup=n,
            num_samples=n,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        first = jax.random.uniform(start, (CHAINS, flat.size), minval=-2.0, maxval=2.0)
        steps = ("num_steps",)
        mcmc.warmup(rest, init_params=first, extra_fields=steps, collect_warmup=True)
        warm_up = mcmc.get_extra_fields()["num_steps"].sum()
        mcmc.run(rest, extra_fields=steps)
        sampling = mcmc.get_extra_fields()["num_steps"].sum()
        return mcmc.get_samples(group_by_chain=True), warm_up, sampling

    def run(seed_: int) -> Run:
        z, *steps = chains(jax.random.key(seed_))
        return Run(flat.latents(z), *map(float, steps))

    return run


def of_blackjax(target: Target, n: int, dense: bool = False) -> Sampler:
    flat = Flat(target)

    def log_density(z: jax.Array) -> jax.Array:
        return -flat.potential(z)

    def chain(key: jax.Array) -> tuple:
        start, warm, sampling = jax.random.split(key, 3)
        position = jax.random.uniform(start, (flat.size,), minval=-2.0, maxval=2.0)
        adaptation = blackjax.window_adaptation(
            blackjax.nuts, log_density, is_mass_matrix_diagonal=not dense
        )
        (state, parameters), told = adaptation.run(warm, position, num_steps=n)
        kernel = blackjax.nuts(log_density, **parameters).step

        def one(state, key):
            state, told = kernel(key, state)
            return state, (state.position, told.num_integration_steps)

        z, steps = jax.lax.scan(one, state, jax.random.split(sampling, n))[1]
        return z, told.info.num_integration_steps.sum(), steps.sum()

    chains = jax.jit(jax.vmap(chain))

    def run(seed_: int) -> Run:
        z, *steps = chains(jax.random.split(jax.random.key(seed_), CHAINS))
        return Run(flat.latents(z), *(float(each.sum()) for each in steps))

    return run


def of_nutpie(target: Target, n: int, low_rank: bool = False) -> Sampler:
    """Raises ModuleNotFoundError where nutpie is not installed."""
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    flat = Flat(target)
    density = jax.jit(jax.value_and_grad(lambda z: -flat.potential(z)))
    density(jnp.zeros(flat.size))

    def value_and_slope(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = density(z)
        return float(value), np.asarray(slope, np.float64)

    model = from_pyfunc(
        flat.size,
        lambda: value_and_slope,
        lambda *_: lambda z: {"z": np.asarray(z, np.float64)},
        [np.dtype("float64")],
        [(flat.size,)],
        ["z"],
        make_initial_point_fn=lambda s: np.random.default_rng(s).uniform(-2, 2, flat.size),
    )

    def run(seed_: int) -> Run:
        found = nutpie.sample(
            model, draws=n, tune=n, chains=CHAINS, cores=1, seed=seed_, progress_bar=False,
            low_rank_modified_mass_matrix=low_rank,
        )  # fmt: skip
        steps = (found.warmup_sample_stats, found.sample_stats)
        z = flat.latents(jnp.asarray(found.posterior["z"].values))
        return Run(z, *(float(each["n_steps"].sum()) for each in steps))

    return run
