"""How fast the Markov chains are: NUTS against NumPyro's and BlackJAX's, sweeps against JAX.

    python -m benchmarks.mcmc [--quick] [--json]

NUTS runs four chains side by side with the defaults of each library (1000 steps of
warm-up, 1000 draws), and the peers with a dense mass matrix, too, where ours is dense by
default. It is measured by the processor time of a whole run, warm-up included, that compiles
nothing, for each effective sample of the scalar that mixes worst (bulk ESS by arviz-stats),
and by the time on the clock, over runs from several seeds in turns. The model of BlackJAX is
a log density written by hand; a run of NumPyro is compiled as a whole, because it would
compile its loops again in each.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from numpyro.infer import MCMC, NUTS

from inference import nuts, sample_posterior
from inference.mcmc.metric import DENSE
from inference.move import accepted
from ppl import At, Target, draw, gen, sample, seed

from .measure import Figure, medians
from .report import report

CHAINS = 4
NUMPYRO, BLACKJAX, HAND = "NumPyro", "BlackJAX", "hand-written JAX"
NUMPYRO_DENSE, BLACKJAX_DENSE = "NumPyro, dense", "BlackJAX, dense"


@dataclass(frozen=True)
class Posterior:
    """One posterior for all three: a target, a numpyro model, and a log density with sites.

    `log_density` takes a dict of unconstrained arrays of the shapes in `shapes`.
    """

    name: str
    target: Callable[[], Target]
    numpyro: Callable[[], Callable]
    log_density: Callable[[], Callable[[dict], jax.Array]]
    shapes: dict[str, tuple]


def normal(x: Any, loc: Any, scale: Any) -> jax.Array:
    z = (x - loc) / scale
    return jnp.sum(-0.5 * z * z - jnp.log(scale))


def eight_schools() -> Posterior:
    y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def target() -> Target:
        @gen
        def schools(sigma):
            mu = sample("mu", dist.Normal(0.0, 5.0))
            tau = sample("tau", dist.HalfCauchy(5.0))
            z = sample("z", dist.Normal(jnp.zeros(8), 1.0))
            sample("y", dist.Normal(mu + tau * z, sigma))

        return Target(schools, (sigma,), {"y": y})

    def theirs() -> Callable:
        def schools():
            mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
            tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
            with numpyro.plate("schools", 8):
                z = numpyro.sample("z", dist.Normal(0.0, 1.0))
                numpyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)

        return schools

    def log_density() -> Callable[[dict], jax.Array]:
        def log_p(q: dict) -> jax.Array:
            tau = jnp.exp(q["tau"])
            prior = normal(q["mu"], 0.0, 5.0) - jnp.log1p((tau / 5.0) ** 2) + q["tau"]
            return prior + normal(q["z"], 0.0, 1.0) + normal(y, q["mu"] + tau * q["z"], sigma)

        return log_p

    return Posterior("eight schools", target, theirs, log_density, {"mu": (), "tau": (), "z": (8,)})


def logistic() -> Posterior:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1000, 25)), jnp.float32)
    beta = rng.normal(size=25)
    y = jnp.asarray(rng.random(1000) < 1 / (1 + np.exp(-np.asarray(x) @ beta)), jnp.int32)

    def target() -> Target:
        @gen
        def regression(x):
            beta = sample("beta", dist.Normal(jnp.zeros(25), 1.0))
            sample("y", dist.Bernoulli(logits=x @ beta))

        return Target(regression, (x,), {"y": y})

    def theirs() -> Callable:
        def regression():
            beta = numpyro.sample("beta", dist.Normal(jnp.zeros(25), 1.0).to_event(1))
            with numpyro.plate("data", 1000):
                numpyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)

        return regression

    def log_density() -> Callable[[dict], jax.Array]:
        sign = 2.0 * y - 1.0

        def log_p(q: dict) -> jax.Array:
            return normal(q["beta"], 0.0, 1.0) - jnp.sum(jax.nn.softplus(-sign * (x @ q["beta"])))

        return log_p

    return Posterior("logistic 1000 x 25", target, theirs, log_density, {"beta": (25,)})


def hierarchical() -> Posterior:
    rng = np.random.default_rng(1)
    effects = 1.0 + 0.5 * rng.normal(size=500)
    y = jnp.asarray(effects[:, None] + rng.normal(size=(500, 5)), jnp.float32)

    def target() -> Target:
        @gen
        def groups():
            mu = sample("mu", dist.Normal(0.0, 5.0))
            tau = sample("tau", dist.HalfNormal(2.0))
            z = sample("z", dist.Normal(jnp.zeros(500), 1.0))
            sample("y", dist.Normal((mu + tau * z)[:, None] + jnp.zeros(5), 1.0))

        return Target(groups, (), {"y": y})

    def theirs() -> Callable:
        def groups():
            mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
            tau = numpyro.sample("tau", dist.HalfNormal(2.0))
            z = numpyro.sample("z", dist.Normal(jnp.zeros(500), 1.0).to_event(1))
            numpyro.sample("y", dist.Normal((mu + tau * z)[:, None], 1.0).expand([500, 5]), obs=y)

        return groups

    def log_density() -> Callable[[dict], jax.Array]:
        def log_p(q: dict) -> jax.Array:
            tau = jnp.exp(q["tau"])
            prior = normal(q["mu"], 0.0, 5.0) + normal(tau, 0.0, 2.0) + q["tau"]
            means = (q["mu"] + tau * q["z"])[:, None]
            return prior + normal(q["z"], 0.0, 1.0) + normal(y, means, 1.0)

        return log_p

    shapes = {"mu": (), "tau": (), "z": (500,)}
    return Posterior("hierarchical, 500 latents", target, theirs, log_density, shapes)


# -- the three samplers: a function of a seed that gives draws (chains, draws, ...) ------


def ours(posterior: Posterior, n: int) -> Callable[[int], dict]:
    target = posterior.target()
    kernel = nuts(target)

    def run(seed_: int) -> dict:
        key = jax.random.key(seed_)
        return dict(
            sample_posterior(key, target, kernel, draws=n, warmup=n, progress=False).choices
        )

    return run


def of_numpyro(posterior: Posterior, n: int, dense: bool = False) -> Callable[[int], dict]:
    model = posterior.numpyro()

    @jax.jit
    def chains(key: jax.Array) -> dict:
        mcmc = MCMC(
            NUTS(model, dense_mass=dense),
            num_warmup=n,
            num_samples=n,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key)
        return mcmc.get_samples(group_by_chain=True)

    def run(seed_: int) -> dict:
        return jax.tree.map(np.asarray, chains(jax.random.key(seed_)))

    return run


def of_blackjax(posterior: Posterior, n: int, dense: bool = False) -> Callable[[int], dict]:
    log_p = posterior.log_density()

    def chain(key: jax.Array) -> dict:
        start, warm, sampling = jax.random.split(key, 3)
        names = sorted(posterior.shapes)
        keys = jax.random.split(start, len(names))
        position = {
            name: jax.random.uniform(k, posterior.shapes[name], minval=-2.0, maxval=2.0)
            for name, k in zip(names, keys, strict=True)
        }
        adaptation = blackjax.window_adaptation(
            blackjax.nuts, log_p, is_mass_matrix_diagonal=not dense
        )
        (state, parameters), _ = adaptation.run(warm, position, num_steps=n)
        kernel = blackjax.nuts(log_p, **parameters).step

        def one(state, key):
            state, _ = kernel(key, state)
            return state, state.position

        return jax.lax.scan(one, state, jax.random.split(sampling, n))[1]

    chains = jax.jit(jax.vmap(chain))

    def run(seed_: int) -> dict:
        return jax.tree.map(np.asarray, chains(jax.random.split(jax.random.key(seed_), CHAINS)))

    return run


def worst(draws: dict) -> float:
    """The least bulk ESS of all scalars."""
    columns = [np.asarray(x).reshape(*x.shape[:2], -1) for x in draws.values()]
    arrays = np.moveaxis(np.concatenate(columns, -1), -1, 0)
    return float(min(array_stats.ess(x, chain_axis=0, draw_axis=1, method="bulk") for x in arrays))


def samplers(quick: bool) -> Iterator[Figure]:
    n, rounds = (200, 1) if quick else (1000, 5)
    for make in (eight_schools, logistic, hierarchical):
        posterior = make()
        makers = {"ours": ours, NUMPYRO: of_numpyro, BLACKJAX: of_blackjax}
        if sum(math.prod(shape) for shape in posterior.shapes.values()) <= DENSE:
            makers[NUMPYRO_DENSE] = partial(of_numpyro, dense=True)
            makers[BLACKJAX_DENSE] = partial(of_blackjax, dense=True)
        runs, firsts = {}, {}
        for name, maker in makers.items():
            runs[name] = maker(posterior, n)
            start = time.process_time()
            runs[name](0)
            firsts[name] = time.process_time() - start
        costs: dict[str, list[float]] = {name: [] for name in runs}
        waits: dict[str, list[float]] = {name: [] for name in runs}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for r in range(rounds):
            for name in runs if r % 2 == 0 else reversed(runs):
                start, began = time.process_time(), time.perf_counter()
                draws = runs[name](r + 1)
                times[name].append(time.process_time() - start)
                waited = time.perf_counter() - began
                effective = worst(draws)
                costs[name].append(1e3 * times[name][-1] / effective)
                waits[name].append(1e3 * waited / effective)
        cost, wait = (
            {name: statistics.median(each) for name, each in of.items()} for of in (costs, waits)
        )
        compiling = {name: firsts[name] - statistics.median(times[name]) for name in runs}
        title = f"NUTS, {posterior.name}"
        for peer in [name for name in makers if name != "ours"]:
            for unit, found in (("CPU ms", cost), ("ms", wait)):
                unit = f"{unit} per effective sample"
                yield Figure(title, peer, unit, found["ours"], found[peer], 1.0)
            yield Figure(
                f"compiling {title}", peer, "CPU s", compiling["ours"], compiling[peer], 1.0
            )


# -- a sweep over a thousand sites --------------------------------------------------------


def sweep(quick: bool) -> Iterator[Figure]:
    """Random-walk Metropolis on each state of a chain in turn, one after the other."""
    n = 100 if quick else 1000
    y = jnp.sin(jnp.arange(n) / 50.0)

    @gen
    def walk(n: int):
        def step(x, _):
            x = sample("x", dist.Normal(x, 1.0))
            sample("y", dist.Normal(x, 0.5))
            return x, None

        jax.lax.scan(step, 0.0, None, length=n)

    model = gen(walk.fn, static_argnums=0)
    target = Target(model, (n,), {"y": y})

    def sweep_of_ours(trace):
        def one(trace, i):
            value = trace["x"][i] + 0.5 * draw(dist.Normal(0.0, 1.0))
            changed, log_ratio, _ = target.update(trace, {"x": At(i, value)})
            return accepted(trace, changed, log_ratio)[0], None

        return jax.lax.scan(one, trace, jnp.arange(n))[0]

    def by_hand(key, x):
        def log_normal(v, loc, scale):
            return -0.5 * ((v - loc) / scale) ** 2

        def one(x, ik):
            i, k = ik
            old = x[i]
            noise, u = jax.random.split(k)
            new = old + 0.5 * jax.random.normal(noise)
            before = jnp.where(i > 0, x[i - 1], 0.0)

            def local(v):
                after = jnp.where(i < n - 1, log_normal(x[i + 1], v, 1.0), 0.0)
                return log_normal(v, before, 1.0) + log_normal(y[i], v, 0.5) + after

            taken = jnp.log(jax.random.uniform(u)) < local(new) - local(old)
            return x.at[i].set(jnp.where(taken, new, old)), None

        return jax.lax.scan(one, x, (jnp.arange(n), jax.random.split(key, n)))[0]

    key = jax.random.key(0)
    trace, _ = target.generate({"x": y})
    mine, hand = jax.jit(seed(sweep_of_ours)), jax.jit(by_hand)
    # both have the same law: their averages over many keys agree (5 standard errors)
    keys = jax.random.split(key, 4000)
    a = jax.vmap(lambda k: seed(sweep_of_ours)(k, trace)["x"][n // 2])(keys)
    b = jax.vmap(lambda k: by_hand(k, y)[n // 2])(keys)
    atol = 5 * float(jnp.sqrt((a.var() + b.var()) / len(keys)))
    np.testing.assert_allclose(a.mean(), b.mean(), rtol=0, atol=atol)
    ours_, theirs = medians(lambda: mine(key, trace), lambda: hand(key, y), seconds=5.0)
    yield Figure(f"MH sweep over {n} sites", HAND, "ms", 1e3 * ours_, 1e3 * theirs, 1.1)


def main(argv: list[str] | None = None) -> None:
    report("benchmarks.mcmc", __doc__, {"sweep": sweep, "samplers": samplers}, argv)


if __name__ == "__main__":
    main()
