"""Thirty binary choices of a plate summed out, against one choice.

They are one choice of an array, or copies of a program under `vmap`; on their own, or with a
choice in common, which is summed out with them. Gradients by all probabilities and means, in
double precision. A program by hand shows what thirty cost in JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import logsumexp
from jax.scipy.stats import norm

from inference import sum_out
from ppl import gen, sample, select

from ..measure import Figure
from .costs import costs, first_call, slopes
from .problem import prepare

SIZE, GOAL = 30, 2.0


def summed(plate: Callable, shared: bool) -> Callable:
    """The density of a model with a plate, of which all is summed out but what is seen."""

    @gen
    def model(p, ys):
        k = sample("k", dist.Bernoulli(p["common"])) if shared else 0
        plate(p["each"][k], p["means"], ys)

    out = sum_out(model, select("k", "z") if shared else "z")
    return lambda p, ys: out.assess({"y": ys}, p, ys)[0]


def one(p, means, y):
    z = sample("z", dist.Bernoulli(p))
    sample("y", dist.Normal(means[z], 1.0))


def array(p, means, ys):
    z = sample("z", dist.Bernoulli(p).expand(ys.shape))
    sample("y", dist.Normal(means[z], 1.0))


def copies(p, means, ys):
    jax.vmap(lambda y: one(p, means, y))(ys)


def by_hand(shared: bool) -> Callable:
    def density(p, ys):
        each = p["each"] if shared else p["each"][:1]
        laws = jnp.log(jnp.stack([1 - each, each], 1))
        seen = norm.logpdf(ys[..., None], p["means"])
        given = logsumexp(laws[:, None] + seen.reshape(-1, 2), axis=-1).sum(1)
        common = jnp.log(jnp.stack([1 - p["common"], p["common"]]))
        return logsumexp(given + common) if shared else given[0]

    return density


def figures(quick: bool, _: bool) -> Iterator[Figure]:
    prepare()
    p = {
        "common": jnp.array(0.3),
        "each": jnp.array([0.2, 0.7]),
        "means": jnp.array([-1.0, 1.0]),
    }
    ys = jnp.sin(jnp.arange(float(SIZE)))
    for shared in (False, True):
        kind = ", one in common" if shared else ""
        hand = by_hand(shared)
        single = {"one": slopes(summed(one, shared), p, ys[0]), "by hand": slopes(hand, p, ys[0])}
        plates = {
            "array": slopes(summed(array, shared), p, ys),
            "copies": slopes(summed(copies, shared), p, ys),
            "by hand": slopes(hand, p, ys),
        }
        first = {name: first_call(run) for name, run in (plates | single).items()}
        rounds = 15 if quick else 31
        little, much = costs(single, rounds), costs(plates, rounds)
        for name in ("array", "copies"):
            title = f"plate of {SIZE}, {name}{kind}"
            yield Figure(f"first call, {title}", "one", "CPU s", first[name], first["one"], GOAL)
            yield Figure(title, "one", "CPU ms", much[name], little["one"], GOAL)
            yield Figure(title, "by hand", "CPU ms", much[name], much["by hand"])
        title = f"plate of {SIZE}, by hand{kind}"
        yield Figure(title, "one by hand", "CPU ms", much["by hand"], little["by hand"])
