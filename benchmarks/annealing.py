"""Tempered sequential Monte Carlo on a logistic regression, of ours and of BlackJAX.

One algorithm in both: 1000 particles from the prior through the powers (i / 20)^3 of the
likelihood; at each of them weights, resampling (systematic), and one step of Hamiltonian Monte
Carlo of five leapfrog steps, of one size for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from blackjax.smc.resampling import systematic
from jax import lax

from inference import annealed, hmc, log_evidence, log_evidence_error, unit
from ppl import Target, gen, sample, seed

from .measure import Figure, medians

BLACKJAX = "BlackJAX"
LEAPFROGS, STEP = 5, 0.05
POWERS = jnp.linspace(0.0, 1.0, 21) ** 3


def data(rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns))
    y = rng.random(rows) < 1 / (1 + np.exp(-x @ rng.normal(size=columns)))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)


def ours(x: jax.Array, y: jax.Array, n: int) -> Callable:
    @gen
    def regression(x):
        beta = sample("beta", dist.Normal(jnp.zeros(x.shape[1]), 1.0))
        sample("y", dist.Bernoulli(logits=x @ beta))

    kernel = partial(hmc, steps=LEAPFROGS, step_size=STEP, dense=False)
    step = annealed(Target(regression, (x,), {"y": y}), n, kernel, POWERS, threshold=1.0)
    return seed(lambda: log_evidence(step(unit())))


def of_blackjax(x: jax.Array, y: jax.Array, n: int) -> Callable:
    columns = x.shape[1]
    sign = 2.0 * y - 1.0

    def log_prior(beta):
        return -0.5 * (beta @ beta + columns * math.log(2 * math.pi))

    def log_likelihood(beta):
        return -jnp.sum(jax.nn.softplus(-sign * (x @ beta)))

    parameters = {
        "step_size": jnp.array([STEP]),
        "inverse_mass_matrix": jnp.ones((1, columns)),
        "num_integration_steps": jnp.array([LEAPFROGS]),
    }
    kernel = blackjax.tempered_smc(
        log_prior,
        log_likelihood,
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        parameters,
        systematic,
        num_mcmc_steps=1,
    )

    def run(key):
        start, key = jax.random.split(key)
        state = kernel.init(jax.random.normal(start, (n, columns)))

        def stage(state, row):
            key, power = row
            state, info = kernel.step(key, state, tempering_param=power)
            return state, info.log_likelihood_increment

        keys = jax.random.split(key, len(POWERS) - 1)
        return lax.scan(stage, state, (keys, POWERS[1:]))[1].sum()

    return run


def figures(quick: bool) -> Iterator[Figure]:
    rows, columns, n = (100, 5, 200) if quick else (1000, 25, 1000)
    x, y = data(rows, columns)
    mine, theirs = jax.jit(ours(x, y, n)), jax.jit(of_blackjax(x, y, n))
    keys = jax.random.split(jax.random.key(0), 20)
    found = [jnp.stack([run(key) for key in keys]) for run in (mine, theirs)]
    means = [jax.nn.logsumexp(logs) - math.log(len(keys)) for logs in found]
    errors = [float(log_evidence_error(logs)) for logs in found]
    # both are unbiased estimates of one evidence
    assert abs(means[0] - means[1]) < 5 * math.hypot(*errors), (means, errors)
    a, b = medians(partial(mine, keys[0]), partial(theirs, keys[0]), seconds=10.0)
    name = f"tempered SMC, logistic {rows} x {columns}, {n} particles"
    yield Figure(name, BLACKJAX, "ms", 1e3 * a, 1e3 * b, 1.0)
    spread = [float(logs.std(ddof=1)) for logs in found]
    yield Figure(f"deviation of the log evidence, {name}", BLACKJAX, "nats", *spread)
