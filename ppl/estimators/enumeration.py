"""All outcomes of a choice, or some of them, side by side, weighted by their probabilities.

Source: for values without replacement, Kool, van Hoof and Welling, Estimating gradients for
discrete random variables by sampling without replacement (ICLR 2020); for the likeliest ones and
a sample of the rest, Liu et al., Rao-Blackwellized stochastic gradients for discrete
distributions (ICML 2019).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .. import errors, quadrature
from ..randomness import draw
from .lanes import Lane, Value, along, ordered, over, union
from .nodes import DrawNode
from .scores import Score
from .strategies import Made, Site

MOST_LANES = 4096
"""More outcomes side by side than this are refused."""


@dataclass(frozen=True)
class Enumerate:
    """See `ppl.enumerate_`."""

    top: int | None = None
    several = True
    together = True
    scored = True
    biased = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        table = outcomes_of(site.node)
        if self.top is not None and self.top + 1 < len(table):
            return _some(site, table, self.top)
        values, joint = _all_values(site, table)
        lane = Lane(site.node.number, len(values))
        value = Value(jnp.asarray(values, site.node.spec.dtype), (lane,))
        chance = along(lambda p: jnp.prod(p) if joint else p, site.probability(value))
        if not joint:  # the same outcomes in all elements
            first = (slice(None), *(slice(0, 1) for _ in site.shape))
            value = Value(value.array[first], (lane,))
        return Made(value, Score(chance, lane, _as_it_is, None, None))


def _as_it_is(factor: Any) -> Any:
    return factor


def _all_values(site: Site, table: np.ndarray) -> tuple[np.ndarray, bool]:
    """All values, and whether they are of all elements together."""
    shape = site.shape
    n = int(np.prod(shape, dtype=int))
    if site.apart or n == 1:
        return np.broadcast_to(table.reshape(-1, *(1,) * len(shape)), (len(table), *shape)), False
    if len(table) ** n > MOST_LANES:
        raise errors.CannotEnumerate(
            "A choice has too many outcomes to compute side by side.",
            where=site.node.place,
            given=f"{n} elements of {len(table)} outcomes each, which a term depends on together",
            expected=f"at most {MOST_LANES} outcomes",
            fix="reinforce() or measure_valued(); or terms that depend on the elements one by one",
        )
    grid = np.indices((len(table),) * n).reshape(n, -1).T
    return table[grid].reshape(-1, *shape), True


def outcomes_of(node: DrawNode) -> np.ndarray:
    """The values that each element can have, the same for all.

    Raises:
      CannotEnumerate: they are not finitely many, or not known.
    """
    spec = node.spec
    table = quadrature.outcomes(spec.tree.unflatten(list(spec.leaves)))
    if table is None:
        raise errors.CannotEnumerate(
            f"A choice from {spec.kind} cannot be enumerated.",
            where=node.place,
            given=f"{spec.kind}, {spec.support}",
            expected="finitely many values, known before the program runs",
            fix="reinforce(), or reparam() where the choice is continuous",
        )
    return table


@dataclass(frozen=True)
class WithoutReplacement:
    """See `ppl.without_replacement`."""

    samples: int
    several = True
    together = True
    scored = True
    biased = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        table = outcomes_of(site.node)
        if self.samples >= len(table):
            return Enumerate().make(site)
        return _chosen(site, table, self.samples, _different_ones)


def _some(site: Site, table: np.ndarray, top: int) -> Made:
    """The likeliest outcomes, and one sampled from the rest, in its place."""
    return _chosen(site, table, top + 1, _likeliest_ones)


def _likeliest_ones(p: Any, n: int) -> tuple[Any, Any]:
    """The outcomes, and for each how many times its probability it stands for."""
    outcomes = p.shape[-1]
    likeliest = jnp.argsort(-p, axis=-1)[..., : n - 1]
    rest = p * jnp.all(likeliest[..., None] != jnp.arange(outcomes), -2)
    mass = jnp.sum(rest, -1, keepdims=True)
    # where nothing is left any outcome will do, as it is not counted
    other = draw(
        dist.CategoricalProbs(
            jnp.where(mass > 0, rest, 1 / outcomes) / jnp.where(mass > 0, mass, 1)
        )
    )
    which = jnp.concatenate([likeliest, other[..., None]], -1)
    mine = jnp.take_along_axis(rest, which[..., -1:], -1)
    last = jnp.where(mine > 0, mass / jnp.where(mine > 0, mine, 1), 0)
    return which, jnp.concatenate([jnp.ones(likeliest.shape, p.dtype), last], -1)


def _different_ones(p: Any, n: int) -> tuple[Any, Any]:
    """n different outcomes, drawn one after the other, and what they stand for.

    A set is as probable as all its orders together; the weight of an outcome in it is the
    ratio of the probabilities of the set without it, drawn from the others, and of the set.
    """
    outcomes = jnp.arange(p.shape[-1])
    new, found = jnp.ones(p.shape, bool), []
    for i in range(n):
        left = jnp.where(new, p, 0)
        mass = jnp.sum(left, -1, keepdims=True)
        # where only impossible ones are left, one of them, which counts for nothing
        odds = jnp.where(mass > 0, left / jnp.where(mass > 0, mass, 1), new / (len(outcomes) - i))
        found.append(draw(dist.CategoricalProbs(odds)))
        new = new & (outcomes != found[-1][..., None])
    which = jnp.stack(found, -1)
    chosen = jnp.take_along_axis(p, which, -1)
    whole = _set_probability(chosen, 1.0)
    without = []
    for i in range(n):
        others = jnp.delete(chosen, i, axis=-1)
        without.append(_set_probability(others, 1 - chosen[..., i]))
    ratio = jnp.stack(without, -1) / jnp.where(whole > 0, whole, 1)[..., None]
    return which, jnp.where(chosen > 0, ratio, 0)


def _set_probability(p: Any, total: Any) -> Any:
    """The probability that the first draws without replacement are these, in any order."""
    n = p.shape[-1]
    found = 0.0
    for order in itertools.permutations(range(n)):
        left, term = total, 1.0
        for i in order:
            safe = jnp.where(left > 0, left, 1)
            term = term * p[..., i] / safe
            left = left - p[..., i]
        found = found + term
    return found * jnp.ones(p.shape[:-1], p.dtype)


def _chosen(site: Site, table: np.ndarray, n: int, choose: Callable) -> Made:
    """n outcomes side by side, each with its probability times what `choose` says."""
    if not site.apart and np.prod(site.shape, dtype=int) > 1:
        raise errors.CannotEnumerate(
            "Some outcomes of an array are side by side only where its elements are apart.",
            where=site.node.place,
            given=f"elements of shape {site.shape}, which a term depends on together",
            expected="a scalar choice, or terms that depend on the elements one by one",
            fix="reinforce() or measure_valued(); or a choice for each element",
        )
    lane = Lane(site.node.number, n)

    def each(*leaves: Any) -> tuple[Any, Any]:
        p = site.probabilities(list(leaves), table)
        which, times = choose(jax.lax.stop_gradient(p), n)
        factors = times * jnp.take_along_axis(p, which, -1)
        values = jnp.asarray(table)[which].astype(site.node.spec.dtype)
        return jnp.moveaxis(values, -1, 0), jnp.moveaxis(factors, -1, 0)

    lanes = union(site.parameters)
    values, factors = over(each, site.parameters, lanes)
    value, score = (ordered(x, (*lanes, lane)) for x in (values, factors))
    return Made(value, Score(score, lane, _as_it_is, None, None))
