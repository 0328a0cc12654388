"""Kernels on populations, as kernels on the product of their members' targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import mh
from inference.mcmc.ensemble import stretch
from inference.mcmc.tempering import parallel_tempering
from inference.targets.temper import tempered_model
from ppl import Target, Trace, draw, gen, repeat, sample, vmap
from semantics import check_kernel, check_kernel_sampled

from .ratios import taken
from .registry import Entry, Kind

Kernel = Callable[[Trace], Trace]


def stacked(make: Callable[[Target], Kernel], one: Target) -> Callable[[Target], Kernel]:
    """From a kernel on stacked traces of `one` to kernels on traces of a product of it, whose
    latents are those of `one`, stacked."""

    def on_product(product: Target) -> Kernel:
        kernel = make(one)

        def run(trace: Trace) -> Trace:
            traces = jax.vmap(lambda x: one.at(x)[0])(product.choices(trace))
            return product.moved(trace, jax.vmap(one.choices)(kernel(traces)))[0]

        return run

    return on_product


# -- parallel tempering ------------------------------------------------------------------------


@gen
def coin():
    b = sample("b", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    sample("y", dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[b]))


COIN = Target(coin, (), {"y": 1})
POWERS = jnp.array([1.0, 0.5, 0.2])


def ladder_of(of: str) -> Target:
    """The product of the tempered targets."""
    rungs = vmap(tempered_model(COIN, of))
    return Target(rungs, (POWERS,), {"y": jnp.ones(3, int)})


def swapping(target: Target, wrong: str = "") -> Kernel:
    """A step of each chain, then swaps of the even pairs and of the odd ones."""

    def log_likelihood(b: jax.Array) -> jax.Array:
        return jnp.log(jnp.array([0.1, 0.5, 0.9])[b])

    def moved(b: jax.Array, power: jax.Array) -> jax.Array:
        new = draw(dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
        ratio = power * (log_likelihood(new) - log_likelihood(b))
        return jnp.where(taken(ratio), new, b)

    def swap(b: jax.Array, i: int) -> jax.Array:
        apart = POWERS[i] - POWERS[i + 1]
        if wrong == "first power":
            apart = POWERS[i]
        ratio = apart * (log_likelihood(b[i + 1]) - log_likelihood(b[i]))
        ratio = {"inverse": -ratio, "always": jnp.zeros(())}.get(wrong, ratio)
        return jnp.where(taken(ratio), b.at[i].set(b[i + 1]).at[i + 1].set(b[i]), b)

    def kernel(traces: Trace) -> Trace:
        powers = jnp.roll(POWERS, 1) if wrong == "another power" else POWERS
        b = jax.vmap(moved)(traces["b"], powers)
        for i in (0, 1):
            b = swap(b, i)
        if wrong == "hot":
            b = b[::-1]
        return jax.vmap(lambda b: target.at({"b": b})[0])(b)

    return kernel


def _redrawn(target: Target) -> Kernel:
    return mh(target, "b")


def _tempering(target: Target, of: str = "likelihood") -> Kernel:
    return parallel_tempering(target, _redrawn, tuple(POWERS.tolist()), of=of)


def _ladder(kind: Kind, name: str, says: str, make: Callable, of: str = "likelihood") -> Entry:
    check = partial(check_kernel, stacked(make, COIN), ladder_of(of))
    return Entry("tempering", name, says, check, kind)


def _swaps(wrong: str, says: str) -> Entry:
    return _ladder("mutant", wrong, says, partial(swapping, wrong=wrong))


# -- the stretch move --------------------------------------------------------------------------


@gen
def bent():
    x = sample("x", dist.Normal(0.3, 1.0))
    sample("w", dist.Normal(x * x, 1.0))


BENT = Target(bent)
MEMBERS = 4
SCALE = 2.0
FOUR = Target(repeat(bent, MEMBERS))


def stretched(target: Target, wrong: str = "") -> Kernel:
    """Halves of the ensemble in turn, along lines to the other half."""

    def density(z: jax.Array) -> jax.Array:
        return jax.vmap(lambda z: target.log_density({"x": z[0], "w": z[1]}))(z)

    def moved(z: jax.Array, mine: jax.Array, others: jax.Array) -> jax.Array:
        n = len(mine)
        towards = z[others[draw(dist.DiscreteUniform(0, len(others) - 1).expand([n]))]]
        u = draw(dist.Uniform(jnp.zeros(n), 1.0))
        s = ((SCALE - 1) * u + 1) ** 2 / SCALE
        if wrong == "uniform":
            s = 1 / SCALE + u * (SCALE - 1 / SCALE)
        new = towards + s[:, None] * (z[mine] - towards)
        power = {"no power": 0, "power d": 2}.get(wrong, 1)
        ratio = power * jnp.log(s) + density(new) - density(z[mine])
        return z.at[mine].set(jnp.where(taken(ratio)[:, None], new, z[mine]))

    def kernel(traces: Trace) -> Trace:
        z = jnp.stack([traces["x"], traces["w"]], -1)
        first, second = jnp.arange(MEMBERS // 2), jnp.arange(MEMBERS // 2, MEMBERS)
        z = moved(moved(z, first, second), second, first)
        return jax.vmap(lambda z: target.at({"x": z[0], "w": z[1]})[0])(z)

    return kernel


def _stretch(target: Target) -> Kernel:
    return stretch(target, MEMBERS, scale=SCALE)


def spreads(latents: Mapping[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
    """A member, and how far the members are apart: they are independent."""
    x, w = latents["x"], latents["w"]
    return {"x": x[0], "w": w[0], "spread of x": x.var(), "spread of w": w.var()}


def _ensemble(kind: Kind, name: str, says: str, make: Callable) -> Entry:
    check = partial(
        check_kernel_sampled, stacked(make, BENT), FOUR, jax.random.key(0),
        sizes=(2000, 20000), steps=4, statistics=spreads,
    )  # fmt: skip
    return Entry("stretch", name, says, check, kind)


def _lines(wrong: str, says: str) -> Entry:
    return _ensemble("mutant", wrong, says, partial(stretched, wrong=wrong))


ENTRIES = (
    _ladder("correct", "likelihood", "tempering of the likelihood", _tempering),
    _ladder(
        "correct",
        "everything",
        "tempering of the joint density",
        partial(_tempering, of="everything"),
        "everything",
    ),
    _ladder("equivalent", "by hand", "the swaps written out", swapping),
    _swaps("inverse", "swapped by the inverse ratio"),
    _swaps("always", "every swap accepted"),
    _swaps("first power", "swapped by the colder power, not the difference"),
    _swaps("another power", "each chain moved by the power of its neighbour"),
    _swaps("hot", "the hottest chain is returned as the first"),
    _ensemble("correct", "stretch", "halves in turn", _stretch),
    _ensemble("equivalent", "by hand", "the move written out", stretched),
    _lines("no power", "without s^(d-1)"),
    _lines("power d", "with s^d"),
    _lines("uniform", "s is uniform"),
)
