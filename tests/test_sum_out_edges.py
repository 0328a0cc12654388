"""`sum_out` at its edges: probabilities of zero and one, impossible data, branches, long series.

Densities and derivatives are against sums of products of probabilities, which have no logarithms
inside, so that their derivatives by a probability of zero are right: at most a hundred products
in float64, 1e-10.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from inference import beliefs, most_likely, restore, sum_out
from ppl import draw, factor, gen, integrate, sample, seed, select
from ppl.chances import probability
from semantics.compiling import QUICK

EXACT = 1e-10
YS = jnp.array([0.3, -1.0, 2.0])


def compiled(f, *args):
    return jax.jit(f, compiler_options=QUICK)(*args)


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=EXACT), one, other)


# -- zeros ---------------------------------------------------------------------------------------


@gen
def markov(start, move, see):
    z = sample("start", dist.Categorical(start))

    def step(z, _):
        z = sample("z", dist.Categorical(move[z]))
        sample("y", dist.Categorical(see[z]))
        return z, None

    lax.scan(step, z, None, length=3)


def forward(start, move, see, ys):
    law = start
    for y in ys:
        law = (law @ move) * see[:, y]
    return jnp.log(law.sum())


START = jnp.array([0.2, 0.3, 0.5])
MOVE = jnp.array([[0.0, 1.0, 0.0], [0.3, 0.0, 0.7], [0.5, 0.25, 0.25]])


def check_slopes(start, move, see):
    ys = jnp.array([0, 1, 1])
    quiet = sum_out(markov, select("start", "z"))
    score = lambda *tables: quiet.assess({"y": ys}, *tables)[0]  # noqa: E731
    slopes = jax.value_and_grad(score, (0, 1, 2))
    exact = jax.value_and_grad(lambda *tables: forward(*tables, ys), (0, 1, 2))
    same(compiled(slopes, start, move, see), exact(start, move, see))


def test_derivatives_by_probabilities_that_are_zero_and_one():
    """Of a start and of transitions, where every state is reached in some way."""
    see = jnp.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    check_slopes(START, MOVE, see)
    check_slopes(jnp.array([0.4, 0.6, 0.0]), MOVE, see)


@pytest.mark.parametrize("zero", ["emission", "only way"])
def test_derivatives_by_the_probability_of_all_that_leads_to_a_state(zero):
    """The state has no mass at some step, and would have if the probability were larger."""
    see = jnp.array([[1.0, 0.0], [0.4, 0.6], [0.0, 1.0]])
    if zero == "emission":
        check_slopes(START, MOVE, see)
    else:
        check_slopes(jnp.array([1.0, 0.0, 0.0]), MOVE, 0.5 * jnp.ones((3, 2)))


@pytest.mark.parametrize("p", [0.0, 1.0, 0.25])
def test_derivatives_by_the_probability_of_one_choice(p):
    """By a mixture, and by what is kept, which one of the outcomes excludes."""

    @gen
    def model(p, q):
        z = sample("z", dist.Bernoulli(p))
        sample("y", dist.Normal(1.0 * z, 1.0))
        sample("w", dist.Bernoulli(jnp.array([q, 0.5])[z]))

    quiet = sum_out(model, "z")
    y = dist.Normal(jnp.arange(2.0), 1.0)

    def exact(p, q):
        return jnp.log(jnp.sum(jnp.array([(1 - p) * q, p * 0.5]) * jnp.exp(y.log_prob(0.3))))

    score = lambda p, q: quiet.assess({"y": 0.3, "w": 1}, p, q)[0]  # noqa: E731
    for q in (0.0, 1.0):
        if p == 0.0 and q == 0.0:
            continue  # impossible
        slopes = jax.value_and_grad(score, (0, 1))
        same(compiled(slopes, p, q), jax.value_and_grad(exact, (0, 1))(p, q))


def test_impossible_data_have_density_zero_and_no_nan():
    """-inf from that step on; slopes are numbers, and what is asked of it is made without error.

    The slope by what is seen is that of the test above.
    """
    start, move = jnp.array([1.0, 0.0]), jnp.eye(2)
    see = jnp.array([[1.0, 0.0], [0.5, 0.5]])
    quiet = sum_out(markov, select("start", "z"))
    rows = jnp.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])

    def score(ys, *tables):
        return quiet.assess({"y": ys}, *tables)[0]

    run = jax.vmap(jax.value_and_grad(score, (1, 2)), (0, None, None, None))
    values, slopes = compiled(run, rows, start, move, see)
    assert jnp.all(values == -jnp.inf)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in slopes)
    ys = rows[2]
    trace, log_weight = quiet.generate({"y": ys}, start, move, see)
    assert log_weight == -jnp.inf == most_likely(quiet, trace).score
    beliefs(quiet, trace)
    assert seed(restore)(jax.random.key(0), quiet, trace).score == -jnp.inf


# -- laws of one choice ----------------------------------------------------------------------------

TWO = jnp.array([0.2, 0.8])
LAWS = {
    "binomial": lambda p: dist.BinomialProbs(p, 3),
    "binomial by logits": lambda p: dist.BinomialLogits(p, 3),
    "uniform": lambda p: dist.DiscreteUniform(2, 4),
    "beta-binomial": lambda p: dist.BetaBinomial(p, 1.0, 2),
    "ordered": lambda p: dist.OrderedLogistic(p, jnp.array([-1.0, 1.0])),
    "categorical by logits": lambda p: dist.CategoricalLogits(p * jnp.arange(3.0)),
    "one element": lambda p: dist.Categorical(TWO).expand([1]),
    "an event of one": lambda p: dist.Categorical(TWO).expand([1]).to_event(1),
    "zero-inflated": lambda p: dist.ZeroInflatedDistribution(dist.Bernoulli(p), gate=0.2),
}


@pytest.mark.parametrize("name", LAWS)
def test_every_finite_law(name):
    """Evidence, beliefs and mode, by the density that the law says."""
    law = LAWS[name]

    @gen
    def model(p):
        z = sample("z", law(p))
        sample("y", dist.Normal(1.0 * jnp.sum(z), 1.0))

    p, y = 0.3, 1.4
    quiet = sum_out(model, "z")
    values = jnp.arange(5.0)  # all that any of them can be, or more
    logs = jnp.array([inside(law(p), v) for v in values])
    logs = logs + dist.Normal(values, 1.0).log_prob(y)
    trace, log_weight = quiet.generate({"y": y}, p)
    total = jax.nn.logsumexp(logs)
    assert abs(log_weight - total) < EXACT
    best = most_likely(quiet, trace)
    assert jnp.all(best["z"] == jnp.argmax(logs)) and abs(best.score - logs.max()) < EXACT
    belief = beliefs(quiet, trace)["z"]
    found = jnp.array([inside(belief, v) for v in values])
    same(jnp.exp(found), jnp.exp(logs - total))


def inside(law, value):
    """The log density of an integer, also where it is none of the law's."""
    support = law.support
    value = jnp.full(law.shape(), value, int)
    there = support is None or bool(jnp.all(support(value)))
    return jnp.sum(law.log_prob(value)) if there else -jnp.inf


# -- branches --------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.2, 0.7])
def test_branches_that_make_a_choice_of_other_outcomes(theta):
    """The outcomes of the branch taken count, in the density and in what is restored."""

    @gen
    def model(theta):
        two = lambda: sample("z", dist.DiscreteUniform(1, 2))  # noqa: E731
        four = lambda: sample("z", dist.DiscreteUniform(1, 4))  # noqa: E731
        z = lax.cond(theta < 0.5, two, four)
        more = lambda: sample("u", dist.DiscreteUniform(3, 4))  # noqa: E731
        u = lax.cond(theta < 0.5, more, lambda: 0)
        sample("y", dist.Normal(1.0 * z + u, 1.0))

    quiet = sum_out(model, select("z", "u"))
    few = theta < 0.5
    z, u = jnp.meshgrid(jnp.arange(1, 3 if few else 5), jnp.array([3, 4] if few else [0]))
    y = 6.4 if few else 3.6
    logs = dist.Normal(1.0 * z + u, 1.0).log_prob(y) - jnp.log(z.size)
    trace, log_weight = quiet.generate({"y": y}, theta)
    assert abs(log_weight - jax.nn.logsumexp(logs)) < EXACT
    best = most_likely(quiet, trace)
    place = jnp.argmax(logs)
    assert best["z"] == z.ravel()[place] and best["u"] == u.ravel()[place]
    assert abs(best.score - logs.max()) < EXACT
    law = beliefs(quiet, trace)["z"]
    each = jnp.exp(jnp.array([inside(law, v) for v in (1, 2, 3, 4)]))
    exact = jnp.exp(logs - jax.nn.logsumexp(logs)).sum(0)
    same(each, jnp.pad(exact, (0, 4 - exact.size)))
    keys = jax.random.split(jax.random.key(0), 20)
    drawn = jax.vmap(lambda key: seed(restore)(key, quiet, trace))(keys)
    assert jnp.all(jnp.isfinite(drawn.score)) and jnp.all((drawn["u"] == 0) == (not few))


# -- sizes -----------------------------------------------------------------------------------


def test_a_long_series_does_not_drift():
    """2,000 steps: logs of size 2e3 at 1e-16 relative in each step, so 1e-9 with room."""
    move, see = jnp.array([[0.9, 0.1], [0.2, 0.8]]), jnp.array([[0.9, 0.1], [0.3, 0.7]])

    @gen
    def model():
        def step(z, _):
            z = sample("z", dist.Categorical(move[z]))
            sample("y", dist.Categorical(see[z]))
            return z, None

        lax.scan(step, 0, None, length=2000)

    ys = np.random.default_rng(0).integers(0, 2, 2000)
    law, total = np.array([1.0, 0.0]), 0.0
    for y in ys:
        law = (law @ np.asarray(move)) * np.asarray(see)[:, y]
        total, law = total + np.log(law.sum()), law / law.sum()
    assert abs(compiled(lambda: sum_out(model, "z").assess({"y": ys})[0]) - total) < 1e-9


def test_elements_cost_as_many_times_one():
    """30 binary elements, and 30 copies: tables of 30 rows, not of 2^30 outcomes."""
    p = jnp.linspace(0.1, 0.9, 30)

    @gen
    def elements():
        z = sample("z", dist.Bernoulli(p))
        sample("y", dist.Normal(1.0 * z, 1.0))

    @gen
    def copies():
        def one(p):
            z = sample("z", dist.Bernoulli(p))
            sample("y", dist.Normal(1.0 * z, 1.0))

        jax.vmap(one)(p)

    ys = jnp.linspace(-1.0, 2.0, 30)
    each = jnp.exp(dist.Normal(jnp.arange(2.0)[:, None], 1.0).log_prob(ys))
    exact = jnp.log((1 - p) * each[0] + p * each[1]).sum()
    for model in (elements, copies):
        score = lambda: sum_out(model, "z").assess({"y": ys})[0]  # noqa: E731, B023
        assert abs(compiled(score) - exact) < EXACT
        largest = max(
            eqn.outvars[0].aval.size for eqn in jax.make_jaxpr(score)().eqns if eqn.outvars
        )
        assert largest <= 60


# -- loops ---------------------------------------------------------------------------------------


def test_a_state_of_many_lags_is_carried_each_by_itself():
    """y = z + noise, (1 - 0.1 B - 0.5 B^8) z = noise: y is normal with covariance M M' + 1, for M
    the inverse of a triangular matrix of numbers below 1; the sum of ten terms is right to
    1e-10."""

    @gen
    def lagged():
        def step(last, _):
            z = sample("z", dist.Normal(0.1 * last[0] + 0.5 * last[-1], 1.0))
            sample("y", dist.Normal(z, 1.0))
            return (z, *last[:-1]), None

        lax.scan(step, (0.0,) * 8, None, length=10)

    ys = jnp.sin(jnp.arange(10.0))
    moves = np.linalg.inv(np.eye(10) - 0.1 * np.eye(10, k=-1) - 0.5 * np.eye(10, k=-8))
    expected = dist.MultivariateNormal(jnp.zeros(10), moves @ moves.T + np.eye(10)).log_prob(ys)
    same(compiled(lambda ys: sum_out(lagged, "z").assess({"y": ys})[0], ys), expected)


def test_a_loop_of_factors_alone_is_scored_once_and_left_out_when_restoring():
    @gen
    def scored():
        z = sample("z", dist.Bernoulli(0.25))
        k = sample("k", dist.Normal(0.0, 1.0))
        lax.scan(lambda c, x: (c, factor(x * k)), None, jnp.array([0.1, 0.5]))
        sample("y", dist.Bernoulli(jnp.where(z == 1, 1.0, 0.0)))

    quiet = sum_out(scored, "z")
    trace, score = quiet.generate({"k": 2.0, "y": 1})
    same(score, jnp.log(0.25) + dist.Normal(0.0, 1.0).log_prob(2.0) + 1.2)
    restored = seed(restore)(jax.random.key(0), quiet, trace)
    assert restored["z"] == 1
    same(restored.score, score)


@pytest.mark.parametrize("shared", [pytest.param(False, marks=pytest.mark.slow), True])
def test_one_copy_is_the_model_without_copies(shared):
    """A `vmap` of one: in a `vmap`, with a parent outside, an array of one element; all laws."""
    ys = jnp.array([[0.7], [-0.2]])

    @gen
    def model(p):
        k = sample("k", dist.Bernoulli(p)) if shared else 1

        def outer(ys):
            def one(y):
                z = sample("z", dist.Bernoulli(0.3 + 0.4 * k))
                w = sample("w", dist.Bernoulli(jnp.array([0.2, 0.9])[z] * jnp.ones(1)))
                sample("x", dist.Normal(z + 2.0 * w[0] + y, 1.0))

            jax.vmap(one)(ys)

        jax.vmap(outer)(ys) if not shared else outer(ys[0])

    chosen = select("z", "w", *(["k"] if shared else []))
    xs = ys if not shared else ys[0]
    quiet = sum_out(model, chosen)
    trace, score = quiet.generate({"x": xs + 0.5}, 0.4)

    def density(x, p):  # of x - y, for one pair, by its four terms
        z, w = np.meshgrid([0, 1], [0, 1], indexing="ij")
        seen = np.array([0.2, 0.9])[z]
        weights = np.where(z, p, 1 - p) * np.where(w, seen, 1 - seen)
        terms = weights * np.exp(-0.5 * (x - z - 2.0 * w) ** 2) / np.sqrt(2 * np.pi)
        return terms

    if shared:
        each = np.array([0.6 * density(0.5, 0.3), 0.4 * density(0.5, 0.7)])
        total, z = each.sum(), each.sum((0, 2))[1] / each.sum()
        laws = beliefs(quiet, trace)
        np.testing.assert_allclose(laws["k"].probs, each[1].sum() / total, rtol=1e-12)
    else:
        each = density(0.5, 0.7)
        total, z = each.sum() ** 2, each.sum(1)[1] / each.sum()
        laws = beliefs(quiet, trace)
    np.testing.assert_allclose(score, np.log(total), rtol=1e-12)
    assert laws["z"].probs.shape == model.sites(0.4)[("z",)].shape
    np.testing.assert_allclose(laws["z"].probs, z, rtol=1e-12)
    restored = seed(restore)(jax.random.key(0), quiet, trace)
    np.testing.assert_allclose(model.assess(restored.choices, 0.4)[0], restored.score)


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("copies", [False, True])
def test_slopes_of_a_binomial_at_its_edges(p, copies):
    """Only 0 and 1 successes, or n - 1 and n, have a probability with a slope there."""
    hits = np.array([0.1, 0.4, 0.7, 0.9])

    @gen
    def model(p):
        n = sample("n", dist.Binomial(3, p))
        if copies:
            jax.vmap(lambda _: sample("y", dist.Bernoulli(jnp.asarray(hits)[n])))(jnp.zeros(2))
        else:
            sample("y", dist.Bernoulli(jnp.asarray(hits)[n]))

    y = np.ones(2, int) if copies else 1
    like = hits ** (2 if copies else 1)
    slope = 3 * (like[1] - like[0]) / like[0] if p == 0 else 3 * (like[3] - like[2]) / like[3]
    found = jax.grad(lambda p: sum_out(model, "n").assess({"y": y}, p)[0])(p)
    np.testing.assert_allclose(found, slope, rtol=1e-12)
    mean = jax.grad(lambda p: integrate(lambda: jnp.asarray(like)[draw(dist.Binomial(3, p))])())(p)
    np.testing.assert_allclose(mean, slope * like[0 if p == 0 else 3], rtol=1e-12)


def test_many_ways_to_succeed_are_no_infinity():
    """Of 3,000 trials the middle count has more ways than a float holds."""
    n, k = 3000, np.arange(1490, 1510)
    found = probability(dist.Binomial(n, 0.5), k)
    np.testing.assert_allclose(found, stats.binom(n, 0.5).pmf(k), rtol=1e-10)
    at_edge = jax.jacfwd(lambda p: probability(dist.Binomial(n, p), np.array([0, 1, 1500])))(0.0)
    np.testing.assert_allclose(at_edge, [-n, n, 0.0], rtol=1e-10)
