"""Gradients through binary choices in a chain: all outcomes enumerated, or by measures.

A recurrent guide of 64 units reads an image and makes choices one after the other; a decoder of
256 units makes all of it of the choices alone, or its right half of them and of the left half: then
nothing is the same for two images. Batches have 32 images, of 784 pixels or, halved, of 64. NumPyro
enumerates the same guide in parallel, with funsor; of GenJAX's measure-valued choices the other
value is followed without a derivative, so that there are no second ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import elbo
from ppl import Target, enumerate_, expectation, gen, measure_valued, sample, seed

from ..measure import Figure, equations
from .environments import begun
from .problem import ROWS, SIZES, STATE, chain, halves, images, logits_of, recur
from .serve import variance
from .turns import here, medians

KEY = jax.random.key(0)


def bound_of(choices: int) -> Callable:
    """The bound of one image."""

    @gen
    def model(p, seen):
        code = jnp.stack([sample(f"z{t}", dist.Bernoulli(0.5)) for t in range(choices)])
        logits = logits_of(p, code.astype(jnp.float32), seen)
        sample("x", dist.Bernoulli(logits=logits).to_event(1))

    @gen
    def guide(p, x):
        features = x @ p["read"]
        h, z = jnp.zeros(STATE), jnp.zeros(())
        for t in range(choices):
            h = recur(p, features, h, z)
            z = sample(f"z{t}", dist.Bernoulli(logits=h @ p["logit"])).astype(jnp.float32)

    def target(p, x):
        seen, due = halves(p, x)
        return Target(model, (p, seen), {"x": due.astype(int)})

    return elbo(target, guide)


def slope(choices: int, strategy: Any) -> Callable:
    """`slope(key, parameters, images)`: the loss of a batch and its gradient."""
    bound = bound_of(choices)

    def of_batch(p, xs):
        return -jnp.sum(jax.vmap(bound, (None, 0))(p, xs.astype(jnp.float32)))

    chosen = {f"z{t}": strategy for t in range(choices)}
    return seed(jax.value_and_grad(expectation(of_batch, chosen)))


def against(
    made: str,
    name: str,
    choices: int,
    strategy: Any,
    peer: str,
    script: str,
    quick: bool,
    peers: bool,
    goals: tuple[int | None, float],
) -> Iterator[Figure]:
    """Equations, FLOPs and time of a gradient; equations only where there is no peer."""
    name = f"{name}, {made}"
    args = (KEY, chain(choices, made), images(ROWS, SIZES[made]))
    mine = jax.jit(slope(choices, strategy))
    most, longest = goals
    count = equations(mine, *args)
    theirs = begun(peer, script, "chain", made, choices, ROWS) if peers else None
    known = None if theirs is None else theirs.facts["equations"]
    yield Figure(name, peer, "equations", count, known, most, absolute=True)
    if theirs is None:
        return
    work = mine.lower(*args).compile().cost_analysis()["flops"]
    yield Figure(name, peer, "FLOPs", work, theirs.facts["flops"])
    ours, cost = medians([here(lambda: mine(*args)), theirs], 7 if quick else 41)
    theirs.close()
    yield Figure(name, peer, "ms", ours.clock, cost.clock, longest)
    yield Figure(name, peer, "CPU ms", ours.cpu, cost.cpu, longest)
    if "variance" in theirs.facts:
        # of 500 gradients, known to some 5 %
        found = variance(mine, jax.random.split(jax.random.key(1), 500), *args[1:])
        known = theirs.facts["variance"]
        yield Figure(name, peer, "variance", found, known)
        yield Figure(name, peer, "variance x CPU ms", found * ours.cpu, known * cost.cpu, longest)


def figures(quick: bool, peers: bool) -> Iterator[Figure]:
    n, m = (3, 3) if quick else (6, 10)
    enumerated = f"{n} enumerated choices", n, enumerate_(), "NumPyro", "of_numpyro.py"
    measured = f"{m} measure-valued choices", m, measure_valued(order=1), "GenJAX", "of_genjax.py"
    for made in SIZES:
        yield from against(made, *enumerated, quick, peers, (1500, 0.5))
        yield from against(made, *measured, quick, peers, (None, 0.15))
