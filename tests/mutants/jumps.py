"""Jumps between models of different dimension: birth and death, split and merge."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from hypothesis import strategies as st

from inference import Move
from inference.mcmc.jumps import birth_death, split_merge
from ppl import Target, Trace, gen, sample
from semantics import Measure

from .ratios import library, moves, total

MOST = 3


def _stacked(k: Any, row: Any, absent: Any) -> Any:
    each = lambda j: jax.lax.cond(j < k, row, lambda: absent)  # noqa: E731
    return jax.vmap(each)(jnp.arange(MOST))


def _ends(fewer: Any, least: int) -> jax.Array:
    """log P(a jump from k + 1 makes a row less) - log P(a jump from k makes one more)."""
    grows = jnp.where(fewer <= least, 1.0, 0.5)
    shrinks = jnp.where(fewer + 1 >= MOST, 1.0, 0.5)
    return jnp.log(shrinks) - jnp.log(grows)


# -- birth and death of bits: finite ----------------------------------------------------------


NUMBER, ONE, SEEN = [0.1, 0.4, 0.2, 0.3], 0.3, 2


@gen
def bits():
    k = sample("k", dist.Categorical(jnp.array(NUMBER)))
    x = _stacked(k, lambda: sample("x", dist.Bernoulli(ONE)), 0)
    sample("y", dist.Poisson(1.0 + (x * jnp.array([1.0, 2.0, 3.0])).sum()))


@dataclass(frozen=True)
class Bits:
    """The model with its posterior by hand: absent bits are zero, and have no density."""

    target = Target(bits, (), {"y": SEEN})

    def posterior(self) -> Measure:
        masses = {}
        for k in range(MOST + 1):
            for present in itertools.product((0, 1), repeat=k):
                x = present + (0,) * (MOST - k)
                rate = 1.0 + x[0] + 2 * x[1] + 3 * x[2]
                mass = NUMBER[k] * math.exp(-rate) * rate**SEEN / math.factorial(SEEN)
                for bit in present:
                    mass *= ONE if bit else 1 - ONE
                masses[((("k",), k), (("x",), x))] = mass
        return Measure(masses)


BITS = st.builds(Bits)
ANY_BIT = 0.6


@gen
def bit(latents: dict) -> None:
    sample("x", dist.Bernoulli(ANY_BIT))


BIRTH = birth_death("k", "x", bit, least=0)


def make_birth(_: Target) -> Move:
    return BIRTH


def birth_ratio(wrong: str, target: Target, trace: Trace, u: dict) -> jax.Array:
    """The log ratio of a birth or a death, term by term."""
    x = target.choices(trace)
    new_x, new_u = BIRTH.involution(x, u)
    born = u["grows"] == 1
    fewer = jnp.minimum(x["k"], new_x["k"])
    value = jnp.where(born, u["new"]["x"], new_u["new"]["x"])
    each = {
        "ends": _ends(fewer, 0),
        "k + 1": -jnp.log(fewer + 1.0),  # any of the k + 1 rows may die
        "places": jnp.log(fewer + 1.0),  # and be born in any place
        "newborn": -jnp.log(jnp.where(value == 1, ANY_BIT, 1 - ANY_BIT)),
    }
    of_birth = total(each, wrong)
    change = target.log_density(new_x) - target.log_density(x)
    return change + jnp.where(born, of_birth, -of_birth)


# -- splits and merges of numbers: continuous ---------------------------------------------------


@gen
def numbers():
    k = sample("k", dist.DiscreteUniform(1, MOST))
    x = _stacked(k, lambda: sample("x", dist.Normal(0.5, 1.5)), 0.0)
    sample("y", dist.Normal((x**2).sum(), 2.0))


NUMBERS = Target(numbers, (), {"y": 3.0})


@gen
def gap(row: dict) -> None:
    sample("gap", dist.Normal(0.3 * row["x"], 1.0))


def split(row: dict, u: dict) -> tuple[dict, dict]:
    shift = jnp.sinh(u["gap"])
    return {"x": row["x"] / 2 - shift}, {"x": row["x"] / 2 + shift}


def merge(first: dict, second: dict) -> tuple[dict, dict]:
    shift = (second["x"] - first["x"]) / 2
    return {"x": first["x"] + second["x"]}, {"gap": jnp.arcsinh(shift)}


SPLIT = split_merge("k", "x", gap, split, merge)


def make_split(_: Target) -> Move:
    return SPLIT


def split_ratio(wrong: str, target: Target, trace: Trace, u: dict) -> jax.Array:
    """The log ratio of a split or a merge, term by term."""
    x = target.choices(trace)
    new_x, new_u = SPLIT.involution(x, u)
    grows = u["grows"] == 1
    fewer = jnp.minimum(x["k"], new_x["k"])
    row = {"x": jnp.where(grows, x["x"][u["of"]], new_x["x"][u["of"]])}
    drawn = {"gap": jnp.where(grows, u["new"]["gap"], new_u["new"]["gap"])}
    log_slope = jnp.log(jnp.cosh(drawn["gap"]))
    forward, reverse = -gap.assess(drawn, row)[0], gap.assess(drawn, row)[0]
    terms = {
        "target": target.log_density(new_x) - target.log_density(x),
        "forward": jnp.where(grows, forward, 0.0),
        "reverse": jnp.where(grows, 0.0, reverse),
        "Jacobian": jnp.where(grows, log_slope, -log_slope)
        * (-1.0 if wrong == "inverse Jacobian" else 1.0),
        "ends": jnp.where(grows, 1, -1) * _ends(fewer, 1),
    }
    if wrong == "pairs":  # a split picks one of k (k + 1) rows and places, a merge one pair
        terms["order"] = jnp.where(grows, 1, -1) * jnp.log(2.0)
    return total(terms, wrong)


_birth = moves("birth and death", make_birth, BITS, birth_ratio)
_split = moves("split and merge", make_split, NUMBERS, split_ratio)

ENTRIES = (
    _birth("correct", "", "rows are born in any place, and any row dies"),
    library("birth and death", make_birth, BITS),
    _birth("mutant", "ends", "a birth from none, a death from all is taken for one of two ways"),
    _birth("mutant", "k + 1", "the choice of which of k + 1 dies left out"),
    _birth("mutant", "places", "the choice of the place of birth left out"),
    _birth("mutant", "newborn", "the density of the newborn left out"),
    _split("correct", "", "a number is split in two by sinh(u), or two are merged"),
    library("split and merge", make_split, NUMBERS),
    _split("mutant", "Jacobian", "without the Jacobian"),
    _split("mutant", "inverse Jacobian", "with the inverse of the Jacobian"),
    _split("mutant", "forward", "without the density of u at a split"),
    _split("mutant", "reverse", "without the density of u at a merge"),
    _split("mutant", "ends", "a split from one, a merge from all is taken for one of two ways"),
    _split("mutant", "pairs", "pairs to merge taken without order, the places of a split with it"),
)
