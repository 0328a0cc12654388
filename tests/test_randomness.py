"""Random programs: independence under transformations, exact laws, replay, boundaries.

Statistical assertions compare a mean of n independent bounded or normal values with
its exact expectation at 7 standard errors: false-alarm probability below 3e-12 each.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from budget import assert_law
from jax import lax
from numpy.testing import assert_allclose, assert_array_equal

from ppl import (
    Target,
    at_boundary,
    draw,
    gen,
    integrate,
    law,
    paths,
    record,
    replay,
    sample,
    seed,
)


def coins(p):
    first = draw(dist.Bernoulli(p))
    batch = jax.vmap(lambda q: draw(dist.Bernoulli(q)))(jnp.array([0.2, 0.7]))
    same = jax.vmap(lambda _: draw(dist.Bernoulli(0.5)))(jnp.zeros(2))

    def step(c, _):
        c = lax.cond(c == 1, lambda: draw(dist.Bernoulli(0.9)), lambda: draw(dist.Bernoulli(p)))
        return c, c

    last, _ = lax.scan(step, first, None, length=2)
    loop = lax.fori_loop(0, 2, lambda i, s: s + draw(dist.Bernoulli(0.3)), 0)
    inner = jax.jit(lambda: jax.checkpoint(lambda q: draw(dist.Bernoulli(q)))(p))()
    other = lax.switch(first, [lambda: 0, lambda: draw(dist.Categorical(jnp.array([0.1, 0.9])))])
    return jnp.stack([first, *batch, *same, last, loop, inner, other])


def test_every_construct_has_its_exact_law():
    """The values under seed, all together, against law's masses (false alarm 1e-8)."""
    exact = law(lambda: coins(0.4))()
    assert exact.masses.sum() == pytest.approx(1.0, abs=1e-12)
    n = 40_000
    runs = jax.jit(jax.vmap(lambda k: seed(coins)(k, 0.4)))(jax.random.split(jax.random.key(0), n))
    index = {tuple(value): i for i, value in enumerate(exact.values.tolist())}
    counts = np.zeros(len(index))
    np.add.at(counts, [index[tuple(run)] for run in np.asarray(runs).tolist()], 1)
    assert_law("every construct", counts, exact.masses / exact.masses.sum())


def test_copies_under_vmap_are_independent():
    """Also when nothing is mapped: loops, branches and checkpoint included."""

    def body(_):
        a = lax.fori_loop(0, 3, lambda i, s: s + draw(dist.Normal(0.0, 1.0)), 0.0)
        b = lax.cond(True, lambda: draw(dist.Normal(0.0, 1.0)), lambda: 0.0)
        return a, b, jax.checkpoint(lambda: draw(dist.Gamma(2.0)))()

    for values in seed(lambda: jax.vmap(body)(jnp.arange(50)))(jax.random.key(0)):
        assert len(np.unique(np.asarray(values))) == 50


def test_integrate_matches_a_matrix_power():
    step = np.array([[0.8, 0.2], [0.3, 0.7]])

    def chain(n):
        def move(c, _):
            return draw(dist.Bernoulli(jnp.where(c == 1, 0.7, 0.2))), None

        return lax.scan(move, 1, None, length=n)[0]

    for n in (1, 5, 12):
        exact = np.linalg.matrix_power(step, n)[1, 1]
        assert float(jax.jit(integrate(lambda n=n: chain(n)))()) == pytest.approx(exact, abs=1e-12)


def test_impossible_outcomes_contribute_nothing():
    f = lambda: 1 / jnp.asarray([1.0, 0.0, 2.0])[draw(dist.Categorical(jnp.array([0.5, 0.0, 0.5])))]  # noqa: E731
    assert float(integrate(f)()) == 0.75


def test_gradient_of_an_integral():
    f = lambda p: draw(dist.Bernoulli(p)) * (1 + draw(dist.Bernoulli(p)))  # noqa: E731
    assert float(jax.grad(integrate(f))(0.3)) == pytest.approx(1 + 2 * 0.3, abs=1e-14)


@pytest.mark.parametrize(
    "d, moment",
    [
        (dist.Normal(1.0, 2.0), 1 + 6 * 4 + 3 * 16),
        (dist.Uniform(-1.0, 2.0), (2**5 + 1) / 15),
        (dist.Exponential(2.0), 24 / 16),
        (dist.Gamma(2.0, 3.0), 2 * 3 * 4 * 5 / 81),
        (dist.Beta(2.0, 3.0), 2 * 3 * 4 * 5 / (5 * 6 * 7 * 8)),
        (dist.StudentT(9.0), 3 * 81 / (7 * 5)),
    ],
)
def test_quadrature_with_its_error(d, moment):
    value, error = jax.jit(integrate(lambda: draw(d) ** 4, nodes=(80, 120)))()
    assert abs(float(value) - moment) <= 5 * float(error) + 1e-11 * moment
    assert float(error) < 2e-2 * moment


def test_paths_are_jittable_and_add_up():
    values, masses = jax.jit(paths(coins))(0.4)
    assert values.shape[0] == masses.shape[0]
    assert float(masses.sum()) == pytest.approx(1.0, abs=1e-12)


def test_record_and_replay():
    value, tape = record(coins)(jax.random.key(3), 0.4)
    np.testing.assert_array_equal(replay(coins, tape)(0.4), value)
    np.testing.assert_array_equal(seed(coins)(jax.random.key(3), 0.4), value)


@pytest.mark.parametrize("where", ["zero", "smallest", "one"])
@pytest.mark.parametrize(
    "d",
    [
        dist.Normal(0.0, 1.0),
        dist.Exponential(1.0),
        dist.Cauchy(0.0, 1.0),
        dist.Laplace(0.0, 1.0),
        dist.HalfCauchy(1.0),
        dist.Uniform(0.0, 1.0),
    ],
)
def test_boundary_values_have_positive_density(where, d):
    """At the ends of the base's range a sampler stays inside the support."""
    value = at_boundary(lambda: draw(d), where)()
    assert float(d.log_prob(value)) > -np.inf


def test_draws_under_a_while_loop():
    """The number of tosses until the first head is geometric (false alarm 1e-8)."""

    def tosses():
        body = lambda s: (s[0] + 1, draw(dist.Bernoulli(0.3)))  # noqa: E731
        return lax.while_loop(lambda s: s[1] == 0, body, (0, 0))[0]

    n, most = 20_000, 30
    runs = np.asarray(jax.jit(jax.vmap(seed(tosses)))(jax.random.split(jax.random.key(0), n)))
    masses = 0.3 * 0.7 ** np.arange(most)  # of 1, 2, ..., and the rest in one
    counts = np.bincount(np.minimum(runs, most + 1), minlength=most + 2)[1:]
    assert_law("draws under a while loop", counts, np.append(masses, 1 - masses.sum()))


def test_loops_of_different_lengths_under_vmap():
    """Each copy stops where it would stop alone, without a key in sight."""

    def steps(n):
        def body(state):
            i, total = state
            return i + 1, total + draw(dist.Delta(2.0))

        return lax.while_loop(lambda state: state[0] < n, body, (0, 0.0))

    lengths = jnp.array([[0, 3, 1], [5, 2, 4]])
    count, total = jax.jit(seed(jax.vmap(jax.vmap(steps))))(jax.random.key(0), lengths)
    assert count.tolist() == lengths.tolist()
    assert total.tolist() == (2.0 * lengths).tolist()


def test_a_random_test_under_vmap_stops_a_copy_for_good():
    """Tosses until the first head, the coin in the test (false alarm 1e-8)."""

    def tosses(start):
        go = lambda i: draw(dist.Bernoulli(0.7)) == 1  # noqa: E731
        return lax.while_loop(go, lambda i: i + 1, start)

    n, most = 20_000, 30
    runs = np.asarray(jax.jit(seed(jax.vmap(tosses)))(jax.random.key(0), jnp.zeros(n, int)))
    masses = 0.3 * 0.7 ** np.arange(most)  # of 0, 1, ..., and the rest in one
    counts = np.bincount(np.minimum(runs, most), minlength=most + 1)
    assert_law("draws in the test of a loop", counts, np.append(masses, 1 - masses.sum()))


def test_float32_parameters_give_float32():
    f = lambda m, s: draw(dist.Normal(m, s))  # noqa: E731
    for shape in ((), (2,)):
        m = jnp.zeros(shape, "float32")
        assert seed(f)(jax.random.key(0), m, m + 1).dtype == jnp.float32
    scalar = jnp.zeros((), "float32")
    assert seed(lambda m: draw(dist.Normal(m, 1.0)))(jax.random.key(0), scalar).dtype == jnp.float32


def test_no_recompilation_on_equal_shapes():
    traces = []

    def f(x):
        traces.append(1)
        return x + draw(dist.Normal(x, 1.0))

    run = jax.jit(seed(f))
    for i in range(3):
        run(jax.random.key(i), float(i))
    assert len(traces) == 1


def test_keys_of_a_long_loop_cost_no_equations():
    """A loop of 20 steps and one of 20 000 are staged with as many equations."""

    def loop(n):
        def step(c, _):
            return c + draw(dist.Gamma(2.0)) + draw(dist.Normal(jnp.zeros(9), 1.0)).sum(), None

        return lax.scan(step, 0.0, None, length=n)[0]

    key = jax.random.key(0)
    sizes = {len(jax.make_jaxpr(seed(lambda n=n: loop(n)))(key).jaxpr.eqns) for n in (20, 20_000)}
    assert len(sizes) == 1


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_loops_without_iterations_draw_nothing(transform):
    """Whatever the body draws: samplers with keys of their own, plates, loops of unknown length."""

    def two(c):
        return c + draw(dist.Gamma(2.0)) + draw(dist.Normal(0.0, 1.0))

    def plate(c):
        return c + jax.vmap(lambda _: draw(dist.Gamma(2.0)))(jnp.zeros(3)).sum()

    def until(c):
        return lax.while_loop(lambda x: x < 3.0, lambda x: x + draw(dist.Gamma(2.0)), c)

    for body in (two, plate, until):

        def loop(body=body):
            return lax.scan(lambda c, _: (body(c), c), 1.0, jnp.zeros(0))

        last, every = transform(seed(loop))(jax.random.key(0))
        assert float(last) == 1.0 and every.shape == (0,)


def test_iterations_that_need_many_keys_split_their_own():
    """Each of 300 turns has 300 of its own, of a draw with a key for itself: all draws differ."""

    def loop():
        def inner(c, _):
            return c, draw(dist.Gamma(2.0))

        return lax.scan(lambda c, _: lax.scan(inner, c, None, length=300), 0.0, None, length=300)[1]

    found = np.asarray(jax.jit(seed(loop))(jax.random.key(0)))
    assert found.shape == (300, 300)
    # a fixed key; of 52 random bits each, two would be the same with probability 1e-6
    assert len(np.unique(found)) == found.size


def test_programs_that_close_over_traced_arrays():
    """A program made inside a jitted function may use its arguments as parameters."""

    @gen
    def model(p):
        return sample("x", dist.Categorical(p))

    @jax.jit
    def mean(p):
        target = Target(model, (p,), {})
        direct = integrate(lambda: draw(dist.Categorical(p)) * 1.0)()
        return direct, integrate(lambda: target.generate()[0]["x"] * 1.0)()

    expected = 0.3 + 2 * 0.5
    np.testing.assert_allclose(mean(jnp.array([0.2, 0.3, 0.5])), expected, rtol=1e-15)


def _loop(t):
    def body(total, _):
        noise = draw(dist.DiscreteUniform(0, 2))
        return total + jnp.sin(t * noise), noise

    return jax.lax.scan(body, 0.0, None, length=2)


def _nested(t):
    def body(total, _):
        inner, noise = _loop(t)
        return total + inner, noise

    return jax.lax.scan(body, 0.0, None, length=2)


def _chosen(t):
    def body(total, i):
        options = dist.DiscreteUniform(0, 2), dist.Bernoulli(0.25)
        noise = jax.lax.cond(i % 2 == 0, *(partial(draw, d) for d in options))
        return total + jnp.sin(t * noise), noise

    return jax.lax.scan(body, 0.0, jnp.arange(2))


def _kept(t):
    noise = draw(dist.DiscreteUniform(0, 2))
    return jnp.sin(t * noise), noise


def _twice(f, t):
    slope = jax.grad(f, has_aux=True)
    return jax.jvp(slope, (t,), (jnp.ones(()),), has_aux=True)[1:]


@pytest.mark.parametrize(
    "once", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["once", "twice"]
)
@pytest.mark.parametrize("checkpoint", [False, True], ids=["", "checkpoint"])
@pytest.mark.parametrize("program", [_loop, _nested, _chosen, _kept])
def test_a_draw_is_made_once_where_it_stands(program, checkpoint, once):
    """A derivative taken inside a random program is of the values that were drawn.

    JAX (0.10.2, `scan` and `checkpoint`) moves what depends on no iteration out of a loop, and
    computes the rest of `checkpoint` again: all iterations shared one draw, or the way back
    drew anew.
    """
    f = jax.checkpoint(program) if checkpoint else program
    way = jax.grad(f, has_aux=True) if once else partial(_twice, f)
    (_, plain), _ = jax.jit(paths(program))(0.3)
    possible = np.unique(np.asarray(plain).reshape(len(plain), -1), axis=0)
    (slopes, noise), _ = jax.jit(paths(way))(0.3)
    noise = np.asarray(noise).reshape(len(slopes), -1)
    assert_array_equal(np.unique(noise, axis=0), possible)
    terms = noise * np.cos(0.3 * noise) if once else -(noise**2) * np.sin(0.3 * noise)
    assert_allclose(slopes, terms.sum(1), rtol=1e-13)
