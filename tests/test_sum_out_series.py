"""Loops that are seen through one choice: all steps at once, and the same numbers.

What is compared with is the same loop written so that it is gone through step by step: it also
puts out what it sees, twice, which keeps it from being one choice of an array.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from numpy.testing import assert_allclose

from inference import beliefs, restore, sum_out
from ppl import gen, sample, seed, select
from ppl.errors import InvalidArgument

EXACT = 1e-10
T = 6
MOVES = jnp.array([[0.7, 0.3, 0.0], [0.3, 0.7, 0.0], [0.25, 0.25, 0.5]])


def states(at_once, reverse=False, moving=False):
    """A hidden Markov model: one state is never reached, and moves may differ from step to step."""

    @gen
    def model(moves, means):
        def step(z, x):
            row = moves[z] * (1 - 0.1 * x) + 0.1 * x / 3 if moving else moves[z]
            z = sample("z", dist.Categorical(row))
            y = sample("y", dist.Normal(means[z] + x, 1.0))
            return z, (None if at_once else (y, 2 * y))

        lax.scan(step, 0, jnp.arange(float(T)), reverse=reverse)

    return model


def lagged(at_once):
    """Gaussian states of which one is the last one's noise; what is seen reads both."""

    @gen
    def model(scale, level):
        def step(state, gap):
            z, before = state
            e = sample("e", dist.Normal(0.0, scale))
            z = 0.9 * z + e + 0.4 * before
            y = sample("y", dist.Normal(jnp.stack([z + level, before - gap, z - e]), 0.5))
            return (z, e), (None if at_once else (y, 2 * y))

        first = sample("first", dist.Normal(0.0, 2.0))
        (z, _), _ = lax.scan(step, (first, 0.0), jnp.array([0.1, 0.0, 0.7, 0.3, 1.0, 0.2]))
        sample("end", dist.Normal(z, 1.0))

    return model


FINITE = {
    "plain": {},
    "reversed": {"reverse": True},
    "moving": {"moving": True},
}
FIRST = "plain"
CASES = [pytest.param(n, marks=[] if n == FIRST else [pytest.mark.slow]) for n in FINITE]


@pytest.mark.parametrize("name", CASES)
def test_finite_states(name):
    """Value and derivatives, of moves that are impossible as well; second derivatives."""
    ys = jnp.asarray(np.random.default_rng(0).normal(size=T))
    means = jnp.array([-1.0, 0.5, 2.0])

    def both(at_once):
        quiet = sum_out(states(at_once, **FINITE[name]), "z")

        def density(moves, means):
            return quiet.assess({"y": ys}, moves, means)[0]

        def found(moves, means):
            value, slopes = jax.value_and_grad(density, (0, 1))(moves, means)
            slope = lambda means: jax.grad(density, 1)(moves, means) @ jnp.arange(3.0)  # noqa: E731
            return value, *slopes, jax.grad(slope)(means)

        return jax.jit(found)(MOVES, means)

    fast, slow = both(True), both(False)
    for one, other in zip(fast, slow, strict=True):
        assert_allclose(one, other, rtol=EXACT, atol=EXACT)
    assert np.all(np.asarray(fast[1])[:2, 2] != 0) or name == "moving"


@pytest.mark.parametrize("along", ["scan", pytest.param("blocks", marks=pytest.mark.slow),
                                   pytest.param("tree", marks=pytest.mark.slow)])  # fmt: skip
def test_gaussian_states(along):
    random = np.random.default_rng(1)
    given = {"y": jnp.asarray(random.normal(size=(T, 3))), "end": 0.3}
    chosen = select("e", "first")
    there = jnp.asarray(random.random((T, 3)) < 0.3)

    def both(at_once):
        how = {"along": along} if at_once else {}
        quiet = sum_out(lagged(at_once), chosen, missing={"y": there}, **how)
        density = lambda s, v: quiet.assess(given, s, v)[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(density, (0, 1)))(1.2, 0.4)

    (fast, slopes), (slow, right) = both(True), both(False)
    assert_allclose(fast, slow, rtol=EXACT)
    assert_allclose(slopes, right, rtol=1e-9)


@pytest.mark.slow
def test_what_is_seen_is_simulated_by_its_law():
    """Moments of simulated series against those of the model's own, 7 standard errors each."""
    n = 20_000
    keys = jax.random.split(jax.random.key(0), n)
    for model, chosen, args in (
        (states(True), "z", (MOVES, jnp.array([-1.0, 0.5, 2.0]))),
        (lagged(True), select("e", "first"), (1.2, 0.4)),
    ):
        quiet = sum_out(model, chosen)

        def ys(key, which, args=args):
            return seed(which.simulate)(key, *args)["y"].reshape(-1)

        one, other = (
            np.asarray(jax.jit(jax.vmap(lambda key, m=m: ys(key, m)))(keys)) for m in (quiet, model)
        )
        error = np.sqrt((one.var(0) + other.var(0)) / n)
        assert np.all(np.abs(one.mean(0) - other.mean(0)) < 7 * error)
        products = [x[:, :-1] * x[:, 1:] for x in (one, other)]
        error = np.sqrt(sum(p.var(0) for p in products) / n)
        assert np.all(np.abs(products[0].mean(0) - products[1].mean(0)) < 7 * error)


@pytest.mark.slow
def test_states_are_restored_from_a_trace_of_all_steps_at_once():
    """The law of the last state given everything is that of the forward algorithm by hand."""
    ys, means = jnp.array([0.2, -1.0, 1.4, 0.3, 2.2, 0.1]), jnp.array([-1.0, 0.5, 2.0])
    quiet = sum_out(states(True), "z")
    trace, _ = quiet.generate({"y": ys}, MOVES, means)
    law = beliefs(quiet, trace)["z"].probs
    state = np.array([1.0, 0.0, 0.0])
    for t in range(T):
        state = state @ np.asarray(MOVES) * np.exp(-0.5 * (ys[t] - means - t) ** 2)
        state /= state.sum()
    assert_allclose(law[-1], state, rtol=1e-10)
    draws = jax.jit(jax.vmap(lambda key: seed(restore)(key, quiet, trace)["z"]))(
        jax.random.split(jax.random.key(2), 5000)
    )
    for k in range(3):
        share, p = np.mean(np.asarray(draws) == k, 0), np.asarray(law)[:, k]
        assert np.all(np.abs(share - p) <= 7 * np.sqrt(p * (1 - p) / 5000) + 1e-12)


def test_a_way_that_there_is_not():
    with pytest.raises(InvalidArgument, match="along"):
        sum_out(states(True), "z", along="sideways")
