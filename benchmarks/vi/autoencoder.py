"""A training step of a variational autoencoder, 784-400-20, as a user writes it and by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO

from inference import elbo
from ppl import Target, expectation, gen, sample, seed

from ..measure import Figure, equations
from .environments import begun
from .problem import LATENT, autoencoder, decode, encode, images
from .turns import Cost, here, medians

HAND = "hand-written JAX"
OPTIMISER = optax.adam(1e-3)
KEY = jax.random.key(0)


@gen
def model(p, x):
    z = sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
    sample("x", dist.Bernoulli(logits=decode(p["decoder"], z)).to_event(1))


@gen
def guide(p, x):
    mean, sd = encode(p["encoder"], x.astype(jnp.float32))
    sample("z", dist.Normal(mean, sd).to_event(1))


BOUND = elbo(lambda p, x: Target(model, (p, x), {"x": x}), guide)


def of_batch(p, xs):
    return -jnp.mean(jax.vmap(BOUND, (None, 0))(p, xs))


def by_hand(key, p, xs):
    """The same estimate from the same noise."""
    xs = xs.astype(jnp.float32)
    mean, sd = encode(p["encoder"], xs)
    z = mean + sd * jax.random.normal(key, mean.shape)
    logits = decode(p["decoder"], z)
    likelihood = jnp.sum(xs * logits - jax.nn.softplus(logits))
    n = (z - mean) / sd
    half = 0.5 * jnp.log(2 * jnp.pi)
    prior, posterior = -0.5 * z**2 - half, -0.5 * n**2 - jnp.log(sd) - half
    return -(likelihood + jnp.sum(prior - posterior)) / len(xs)


def step(slope: Callable) -> Callable:
    """A step of the optimiser; `slope(key, parameters, images)` gives value and gradient."""

    def taken(key, p, state, xs):
        value, gradient = slope(key, p, xs)
        changes, state = OPTIMISER.update(gradient, state, p)
        return optax.apply_updates(p, changes), state, value

    return taken


def ours() -> Callable:
    return step(seed(jax.value_and_grad(expectation(of_batch))))


def hand() -> Callable:
    return step(jax.value_and_grad(by_hand, 1))


def of_numpyro(xs: Any) -> Callable[[], Any]:
    """NumPyro's step: the same networks, one plate over the images."""
    start = autoencoder()

    def p_of(part: str) -> Any:
        return jax.tree.map_with_path(
            lambda path, x: numpyro.param(part + jax.tree_util.keystr(path), x), start[part]
        )

    def model(xs):
        decoder = p_of("decoder")
        with numpyro.plate("images", len(xs)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            logits = decode(decoder, z)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=xs)

    def guide(xs):
        encoder = p_of("encoder")
        mean, sd = encode(encoder, xs.astype(jnp.float32))
        with numpyro.plate("images", len(xs)):
            numpyro.sample("z", dist.Normal(mean, sd).to_event(1))

    svi = SVI(model, guide, optax.adam(1e-3), Trace_ELBO())
    state = svi.init(KEY, xs)
    update = jax.jit(svi.update)
    return lambda: update(state, xs)


def check(p: Any, xs: Any) -> None:
    """Both estimate the same number, and the same slopes, from the same noise.

    Sums of some thousand numbers in float32, whose relative error is at most 1e-4.
    """
    slopes = seed(jax.value_and_grad(expectation(of_batch))), jax.value_and_grad(by_hand, 1)
    (value, mine), (right, due) = (jax.jit(slope)(KEY, p, xs) for slope in slopes)
    np.testing.assert_allclose(value, right, rtol=1e-4)
    mine, due = (np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (mine, due))
    assert np.linalg.norm(mine - due) < 1e-4 * np.linalg.norm(due)


def compiling(made: Callable[[], Callable], args: tuple, rounds: int) -> float:
    """The least processor seconds to trace and compile a step anew."""
    times = []
    for _ in range(rounds):
        jax.clear_caches()
        begun = time.process_time()
        jax.jit(made()).lower(*args).compile()
        times.append(time.process_time() - begun)
    return min(times)


def figures(quick: bool, peers: bool) -> Iterator[Figure]:
    for batch in (64,) if quick else (64, 256, 1024):
        yield from at(batch, quick, peers)


def at(batch: int, quick: bool, peers: bool) -> Iterator[Figure]:
    name, xs, p = f"autoencoder, batch {batch}", images(batch), autoencoder()
    args = (KEY, p, OPTIMISER.init(p), xs)
    mine, theirs = jax.jit(ours()), jax.jit(hand())
    check(p, xs)
    count = [equations(f, *args) for f in (ours(), hand())]
    yield Figure(name, HAND, "equations", *count)
    work = [f.lower(*args).compile().cost_analysis()["flops"] for f in (mine, theirs)]
    yield Figure(name, HAND, "FLOPs", *work, 1.01)
    if batch == 64:
        spent = [compiling(f, args, 1 if quick else 3) for f in (ours, hand)]
        yield Figure(name, HAND, "CPU s to compile", *spent, 1.3)

    runs: dict[str, Callable[[int], Cost]] = {
        "ours": here(lambda: mine(*args)),
        HAND: here(lambda: theirs(*args)),
        "NumPyro": here(of_numpyro(xs)),
    }
    scripts = {"GenJAX": "of_genjax.py", "Pyro": "of_pyro.py"} if peers else {}
    started = {peer: begun(peer, script, "autoencoder", batch) for peer, script in scripts.items()}
    others = {peer: process for peer, process in started.items() if process is not None}
    runs.update(others)
    found = dict(zip(runs, medians(list(runs.values()), 11 if quick else 41), strict=True))
    for process in others.values():
        process.close()
    for against, cost in found.items():
        if against != "ours":
            goal = 1.03 if against == HAND else 1.0
            yield Figure(name, against, "ms", found["ours"].clock, cost.clock, goal)
            yield Figure(name, against, "CPU ms", found["ours"].cpu, cost.cpu, goal)
