"""Densities that algorithms estimate are differentiable parts of objectives.

Each bound is an expectation over the particles of the algorithm, too: over latents, the ancestors
of a resampling, which particle is taken, whether a move is accepted. Its derivative is that of the
sum over all of them, exactly, the programs being finite.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import (
    by_annealing,
    by_filter,
    by_importance,
    elbo,
    iwelbo,
    marginalize,
    mh,
    normalize,
)
from inference.vi.ancestors import drawn_by
from ppl import (
    Target,
    enumerate_,
    expectation,
    gen,
    integrate,
    reinforce,
    sample,
    scan,
    seed,
    select,
)

pytestmark = pytest.mark.slow

EXACT = 1e-11
P = jnp.asarray(0.3)


def flip(p):
    return dist.Bernoulli(p)


@gen
def model(p):
    a = sample("a", flip(p))
    sample("y", flip(0.1 + 0.4 * a))


def target(p):
    return Target(model, (p,), {"y": 1})


@gen
def guess(p):
    sample("a", flip(p**2 + 0.2))


@gen
def hidden(p):
    c = sample("c", flip(p))
    sample("a", flip(0.2 + 0.6 * c * p))


def annealing(address, threshold):
    def again(at):
        return mh(at, address)

    return by_annealing(2, again, (0.0, 0.4, 1.0), reverse=again, threshold=threshold)


SEEN = jnp.array([0.3, 0.8])


def steps(p, name):
    @gen
    def step(z, _):
        z = sample("z", flip(jnp.where(z == 1, p, 1 - p**2)))
        sample(name, flip(SEEN[z]))
        return z, None

    return scan(step, 2)(1)


@gen
def series(p):
    sample("s", steps(p, "w"))


def series_target(p):
    return Target(series, (p,), {"s": {"w": jnp.array([1, 0])}})


@gen
def hidden_series(p):
    sample("s", steps(p, "a"))


@gen
def apart(p):
    step = gen(lambda z, _: (z, sample("a", flip(0.5 + 0.1 * p))))
    sample("s", scan(step, 2)(1))
    sample("y", flip(0.3))


@gen
def inside(p):
    sample("m", normalize(target, by_importance(2))(p))


def within(p):
    return Target(apart, (p,), {"y": 1})


Z, A = ("s", "z"), ("s", "a")
OBJECTIVES = {
    "normalize, importance": (lambda: elbo(target, normalize(target, by_importance(2))), ["a"]),
    "normalize, proposal": (
        lambda: elbo(target, normalize(target, by_importance(2, guess))),
        ["a"],
    ),
    "normalize, annealing": (
        lambda: elbo(target, normalize(target, annealing("a", 0.9))),
        ["a"],
    ),
    "normalize, filter": (
        lambda: elbo(series_target, normalize(series_target, by_filter("s", 2, threshold=0.9))),
        [Z],
    ),
    "normalize, several": (lambda: iwelbo(target, normalize(target, by_importance(2)), 2), ["a"]),
    "marginalize, importance": (
        lambda: elbo(target, marginalize(hidden, "a", by_importance(2))),
        ["a", "c"],
    ),
    "marginalize, annealing": (
        lambda: elbo(target, marginalize(hidden, "a", annealing("c", 0.9))),
        ["a", "c"],
    ),
    "marginalize, filter": (
        lambda: elbo(within, marginalize(hidden_series, select(A), by_filter(Z, 2, threshold=0.9))),
        [A, Z],
    ),
    "marginalize, several": (
        lambda: iwelbo(target, marginalize(hidden, "a", by_importance(2)), 2),
        ["a", "c"],
    ),
    "a part of a model": (
        lambda: elbo(lambda p: Target(inside, (p,), {}), gen(lambda p: sample("m", guess(p)))),
        [("m", "a")],
    ),
}


def derivatives(f, p):
    return f(p), *jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))


QUICK = {"normalize, importance", "marginalize, importance", "a part of a model"}


def some(names, quick):
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", some(OBJECTIVES, {*QUICK, "marginalize, filter"}))
def test_with_the_score_function_for_all_choices(name):
    make, _ = OBJECTIVES[name]
    of = derivatives if name in QUICK else jax.value_and_grad
    objective = make()
    estimate = expectation(drawn_by(reinforce(), objective))
    if of is derivatives:
        found = jax.jit(integrate(lambda p: derivatives(estimate, p)))(P)
        right = jax.jit(lambda p: derivatives(integrate(objective), p))(P)
    else:
        found = jax.jit(integrate(jax.value_and_grad(estimate)))(P)
        right = jax.jit(jax.value_and_grad(integrate(objective)))(P)
    assert_allclose(found, right, rtol=EXACT)


# the worlds of what is drawn in loops have too many paths: those are compared by sampling
FEW = [name for name in OBJECTIVES if "importance" in name or "proposal" in name or "part" in name]
HOW = {"reinforce": reinforce(), "enumerate": enumerate_()}
GIVEN = [(name, how) for name in FEW for how in (None, *HOW)]
AT_ONCE = {("normalize, importance", "enumerate"), ("marginalize, importance", None)}


@pytest.mark.parametrize(
    "name, how", [pytest.param(*g, marks=() if g in AT_ONCE else pytest.mark.slow) for g in GIVEN]
)
def test_with_strategies_by_address_and_defaults(name, how):
    make, addresses = OBJECTIVES[name]
    estimate = expectation(make(), {} if how is None else dict.fromkeys(addresses, HOW[how]))
    found = jax.jit(integrate(lambda p: derivatives(estimate, p)))(P)
    right = jax.jit(lambda p: derivatives(integrate(make()), p))(P)
    assert_allclose(found, right, rtol=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, how",
    [
        *((name, None) for name in OBJECTIVES if name not in FEW),
        *(("marginalize, filter", how) for how in HOW),
    ],
)
def test_with_strategies_where_paths_are_too_many(name, how):
    """Of 10,000 draws the mean is within seven standard errors, one false alarm in 4e11 each."""
    make, addresses = OBJECTIVES[name]
    estimate = expectation(make(), {} if how is None else dict.fromkeys(addresses, HOW[how]))
    one = jax.vmap(seed(jax.value_and_grad(estimate)), (0, None))
    draws = jax.jit(one)(jax.random.split(jax.random.key(20261130), 10_000), P)
    right = jax.jit(jax.value_and_grad(integrate(make())))(P)
    for found, exact in zip(map(np.asarray, draws), right, strict=True):
        assert abs(found.mean() - exact) < 7 * found.std() / 100 + EXACT
