"""Chains of states by their weights, and in logarithms where those are too small for a number.

The oracle adds up all paths in exact arithmetic of Python's fractions of whole numbers, so weights
of any size are right; there are at most 3^4 of them.
"""

from fractions import Fraction
from itertools import pairwise, product
from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from inference.exact.markov import Markov, mass, state_after
from inference.exact.markov_weights import filtered, slopes

K, N = 3, 3


def weights(rare, each):
    """Of the start, of pairs and of what is seen: powers of 2, so that they are exact."""
    random = np.random.default_rng(1)
    power = lambda *shape: 2.0 ** -random.integers(0, 4, shape)  # noqa: E731
    begun, chances, shown = power(K), power(*([N] if each else []), K, K), power(N, K)
    chances[..., 0, 2], begun[1], shown[1, 0] = 0.0, 0.0, 0.0
    if rare:  # the only way on is by a state that is 2^-900 of the others, again and again
        chances[..., 2, :], chances[..., 1, 2] = 0.0, 2.0**-900
        chances[..., 2, 1], shown[1], shown[2] = 2.0**-900, (0, 0, 2.0**-60), (0, 1, 0)
        begun[:] = (0, 1, 0)
    return begun, chances, shown


def exactly(begun, chances, shown):
    """The log of the sum over paths, and the part of each state at the end."""
    parts = [Fraction(0)] * K
    for path in product(range(K), repeat=N + 1):
        weight = Fraction(begun[path[0]])
        for t, (i, j) in enumerate(pairwise(path)):
            move = chances[t] if chances.ndim == 3 else chances
            weight *= Fraction(move[i, j]) * Fraction(shown[t, j])
        parts[path[-1]] += weight
    total = sum(parts)
    log_of = log(total.numerator) - log(total.denominator) if total else -np.inf
    return log_of, np.array([float(x / total) if total else 0.0 for x in parts])


def chain_of(begun, chances, shown):
    zeros = jnp.zeros
    return Markov(zeros(K), jnp.asarray(begun), None, jnp.asarray(chances), zeros((N, K)),
                  jnp.asarray(shown))  # fmt: skip


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("rare", [False, True])
def test_the_sum_over_paths_and_its_derivatives(rare, each):
    """The sum is of degree one in each weight of one step: a derivative is a difference of two."""
    given = weights(rare, each)
    chain = chain_of(*given)
    assert bool(filtered(chain).safe(chain)) is not rare
    right, last = exactly(*given)
    value, slope = jax.jit(jax.value_and_grad(mass))(chain)
    assert_allclose(value, right, rtol=1e-14)
    assert_allclose(jnp.exp(state_after(chain)), last, rtol=1e-12)
    for name, i in (("begun", 0), ("chances", 1), ("shown", 2)):
        if i == 1 and not each:
            continue  # of degree N in these, and those of each step have one
        found = np.asarray(getattr(slope, name))
        for place in np.ndindex(given[i].shape):
            weight = given[i][place]
            if rare and weight == 0:
                continue  # it opens ways that are likelier by more than numbers can say
            sums = []
            for new in (0.0, 1.0):
                changed = [np.array(x) for x in given]
                changed[i][place] = new
                sums.append(exactly(*changed)[0])
            if rare:  # the derivative by its logarithm, which is a probability
                part = 1.0 - np.exp(sums[0] - right)
                assert_allclose(found[place] * weight, part, rtol=1e-9, atol=1e-12)
            else:
                by_one = np.exp(sums[1] - right) - np.exp(sums[0] - right)
                assert_allclose(found[place], by_one, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_both_ways_have_the_same_derivatives():
    """By the same weights as logarithms and as factors; second derivatives, too."""
    begun, chances, shown = weights(False, False)
    logs = lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), -jnp.inf)  # noqa: E731
    chain = Markov(logs(begun), None, logs(chances), None, logs(shown), None)
    factors = jax.jit(jax.grad(mass))(chain_of(begun, chances, shown))
    by_logs = jax.jit(jax.grad(mass))(chain)
    for found, name, weight in (
        (by_logs.start, "begun", begun),
        (by_logs.logs, "chances", chances),
        (by_logs.seen, "shown", shown),
    ):
        assert_allclose(found, getattr(factors, name) * weight, rtol=1e-12, atol=1e-15)

    def curved(scale):
        moved = jnp.asarray(chances) ** scale * (jnp.asarray(chances) > 0)
        return mass(chain_of(begun, moved, shown))

    step = 1e-4  # the error is step² / 12 of a fourth derivative, and 4 eps / step² by rounding
    about = (curved(1 + step) - 2 * curved(1.0) + curved(1 - step)) / step**2
    assert_allclose(jax.grad(jax.grad(curved))(1.0), about, rtol=1e-5)
    assert_allclose(jax.jacfwd(jax.grad(curved))(1.0), jax.grad(jax.grad(curved))(1.0), rtol=1e-9)


def test_copies_of_which_some_need_logarithms():
    """Side by side, in two `vmap`s, as one by one; what all copies have in common, too."""
    plain, rare = (weights(x, False) for x in (False, True))
    many = [jnp.stack([jnp.asarray(x) for x in pair]) for pair in zip(plain, rare, strict=True)]
    one = jax.value_and_grad(lambda begun, chances, shown: mass(chain_of(begun, chances, shown)))
    each = [one(*map(jnp.asarray, x)) for x in (plain, rare)]
    right = jax.tree.map(lambda a, b: jnp.stack([a, b]), *each)
    twice = jax.jit(jax.vmap(jax.vmap(one), (None, 0, 0)))
    found = twice(many[0], *(jnp.stack([x, x]) for x in many[1:]))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert_allclose(a, jnp.stack([b, b]), rtol=1e-13)


def test_what_is_impossible_has_no_mass_and_no_nan():
    begun, chances, shown = weights(False, False)
    shown[2] = 0.0
    value, slope = jax.value_and_grad(mass)(chain_of(begun, chances, shown))
    assert value == -np.inf
    assert all(not np.any(np.isnan(x)) for x in jax.tree.leaves(slope))


def test_a_pass_back_that_grows_beyond_numbers_is_not_taken():
    """A state that is never reached would be infinitely likelier, given what follows."""
    n = 40
    chances = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    seen = jnp.broadcast_to(jnp.array([-60.0, 0.0]), (n, 2))
    chain = Markov(jnp.zeros(2), jnp.array([1.0, 0.0]), None, chances, seen)
    found = filtered(chain)
    assert found.safe(chain)
    assert not slopes(chain, found)[1]
    value, slope = jax.value_and_grad(mass)(chain)
    assert_allclose(value, -60.0 * n, rtol=1e-14)
    assert_allclose(slope.seen[:, 0], 1.0, rtol=1e-12)
    assert_allclose(slope.chances[0, 0], n, rtol=1e-12)
