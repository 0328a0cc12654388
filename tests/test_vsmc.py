"""The bound of a particle filter, and its derivatives, are those of sums over all of its paths.

The programs are finite, and both sides are sums of some thousand products in float64: 1e-11 leaves
room for sums that cancel.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import elbo, iwelbo
from inference.vi.ancestors import expecting
from inference.vi.filtering import vsmc
from ppl import (
    PPLError,
    Target,
    enumerate_,
    expectation,
    gen,
    integrate,
    measure_valued,
    reinforce,
    sample,
    scan,
    seed,
)
from ppl.errors import BiasedStrategy, InvalidArgument, ShapeError
from semantics import check_gradient

EXACT = 1e-11
WET = np.array([1, 0, 1])


def weather(p):
    @gen
    def step(rain, _):
        rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, p, 1 - p)))
        sample("wet", dist.Bernoulli(jnp.where(rain == 1, 0.9, p / 2)))
        return rain, None

    return step


def guessed(p, rain, wet):
    return jnp.where(rain == 1, p**2, 0.3) + 0.2 * wet


def guess(p):
    @gen
    def step(rain, _, observed):
        sample("rain", dist.Bernoulli(guessed(p, rain, observed["wet"])))

    return step


def bound(steps, particles=2, **options):
    return vsmc(weather, 1, {"wet": WET[:steps]}, particles, proposal=guess, **options)


def by_hand(steps, p):
    """The sum over the states of two particles, and the ancestors, at each step."""
    pairs = np.array(list(itertools.product((0, 1), repeat=2)))

    def chance(heads, x):
        return jnp.where(x == 1, heads, 1 - heads)

    def rest(t, before):
        """What the steps from t on add, from each of four pairs of states before."""
        if t == steps:
            return jnp.zeros(len(before))
        q = chance(guessed(p, before, WET[t])[:, None], pairs)
        weight = chance(jnp.where(before == 1, p, 1 - p)[:, None], pairs)
        weight *= chance(jnp.where(pairs == 1, 0.9, p / 2), WET[t]) / q
        share = weight / weight.sum(-1, keepdims=True)
        # [before, pair, ancestors]
        picked = share[:, :, pairs].prod(-1)
        after = rest(t + 1, pairs)[pairs[:, pairs] @ np.array([2, 1])]
        goes_on = (picked * after).sum(-1) if t + 1 < steps else 0.0
        return (q.prod(-1) * (jnp.log(weight.mean(-1)) + goes_on)).sum(-1)

    return rest(0, np.ones((1, 2), int))[0]


def slope(f, p):
    return jax.value_and_grad(f)(p)


def curvature(f, p):
    return jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))[1]


ANCESTORS = {
    "score": "score",
    "reinforce": reinforce(),
    "enumerate": enumerate_(),
    "measure valued": measure_valued(),
}


def cases():
    """A second filter squares the number of paths."""
    for of in (slope, curvature):
        for steps, how in [(2, "score"), (3, "reinforce")]:
            yield pytest.param(of, steps, how, marks=() if of is slope else pytest.mark.slow)
        for how in ("reinforce", "enumerate", "measure valued"):
            yield pytest.param(of, 2, how, marks=pytest.mark.slow)
    yield pytest.param(slope, 3, "score", marks=pytest.mark.slow)


@pytest.mark.parametrize("of, steps, how", cases())
def test_the_bound_and_its_derivatives(of, steps, how):
    p = jnp.asarray(0.6)
    estimate = expectation(bound(steps, resampling=ANCESTORS[how]), {"rain": reinforce()})
    found = jax.jit(integrate(lambda p: of(estimate, p)))(p)
    right = jax.jit(lambda p: of(lambda p: by_hand(steps, p), p))(p)
    assert_allclose(found, right, rtol=EXACT)


@gen
def days(p):
    sample("days", scan(weather(p), 1)(1))


@gen
def guess_of_days(p):
    step = gen(lambda rain, wet: (sample("rain", dist.Bernoulli(guessed(p, rain, wet))), None))
    sample("days", scan(step)(1, WET[:1]))


@pytest.mark.parametrize("particles", [1, 2])
def test_without_resampling_it_is_the_bound_of_importance_weights(particles):
    def on(p):
        return Target(days, (p,), {"days": {"wet": WET[:1]}})

    other = elbo(on, guess_of_days) if particles == 1 else iwelbo(on, guess_of_days, particles)
    mine = bound(1, particles)
    p = jnp.asarray(0.6)
    estimate = expectation(mine, {"rain": reinforce()})
    found = jax.jit(integrate(jax.value_and_grad(estimate)))(p)
    assert_allclose(found, jax.jit(jax.value_and_grad(integrate(other)))(p), rtol=EXACT)


def test_dropping_the_score_is_biased_and_says_so():
    dropped, whole = bound(2, resampling="dropped"), bound(2, resampling=reinforce())
    assert dropped.biased and not whole.biased and not bound(2).biased
    assert "dropped" in repr(dropped)
    with pytest.raises(BiasedStrategy):
        seed(expectation(dropped))(jax.random.key(0), 0.6)
    hows = {"rain": reinforce()}
    points = [(0.3,), (0.6,)]
    without = jax.grad(expectation(dropped, hows, allow_biased=True))
    assert not check_gradient(without, dropped, points).passed
    assert check_gradient(jax.grad(expectation(whole, hows)), whole, points).passed


SERIES = np.array([0.9, 1.7, 0.4, -0.2, -1.5, -0.8, 0.3, 1.1, 2.4, 1.2])


def walk(theta):
    @gen
    def step(z, _):
        z = sample("z", dist.Normal(theta["a"] * z, jnp.exp(theta["log_q"])))
        sample("y", dist.Normal(z, 1.0))
        return z, None

    return step


def nearer(theta):
    @gen
    def step(z, _, observed):
        ahead = theta["a"] * z
        mean = ahead + theta["gain"] * (observed["y"] - ahead)
        sample("z", dist.Normal(mean, jnp.exp(theta["log_s"])))

    return step


THETA = {"a": 0.9, "log_q": 0.0, "gain": 0.5, "log_s": -0.3}
THETA = {name: jnp.asarray(value) for name, value in THETA.items()}


def on_series(n, **options):
    return vsmc(walk, 0.0, {"y": SERIES}, n, proposal=nearer, **options)


def slopes(program, draws):
    keys = jax.random.split(jax.random.key(12), draws)
    one = seed(jax.grad(expectation(program)))
    return jax.jit(jax.vmap(one, (0, None)))(keys, THETA)


def test_what_comes_after_in_a_second_filter_is_a_good_baseline():
    """The standard deviation is a tenth of the plain score's, or less: it is about a sixteenth.

    Of 1000 draws the ratio of two standard deviations has a relative error of 0.07 even where the
    kurtosis is 10, so that 1/10 is more than seven such errors away. The means are the same: a
    difference of five standard errors is one in 400,000 for four parameters.
    """
    n = 4
    # through a function that is not linear all scores multiply the whole
    plain = on_series(n, resampling=reinforce())
    by_score = slopes(lambda theta: jnp.log(jnp.exp(plain(theta))), 1000)
    ours = slopes(on_series(n), 1000)
    for name in THETA:
        assert ours[name].std() < by_score[name].std() / 10, name
        gap = ours[name].mean() - by_score[name].mean()
        assert abs(gap) < 5 * ((ours[name].var() + by_score[name].var()) / 1000) ** 0.5, name


@pytest.mark.slow
def test_choices_that_move_and_ancestors_that_do_not():
    """By quadrature both sides are derivatives of the same finite sum, of 10,000 paths."""
    short = vsmc(walk, 0.0, {"y": SERIES[:2]}, 2, proposal=nearer, resampling=reinforce())
    found = jax.jit(integrate(jax.grad(expectation(short)), nodes=5))(THETA)
    right = jax.jit(jax.grad(integrate(short, nodes=5)))(THETA)
    for name in THETA:
        assert_allclose(found[name], right[name], rtol=1e-10)


LEVELS = jnp.array([0.7, -1.2])


@pytest.mark.parametrize("levels, axis", [(LEVELS, 0), (LEVELS[1], None)])
def test_ancestors_in_several_filters_have_their_own_levels(levels, axis):
    def filters(p, after):
        def one(q, level):
            ancestors = expecting(level)(jnp.stack([p * q, 1 - p * q]))
            return after(ancestors, level)

        return jnp.sum(jax.vmap(one, (0, axis))(jnp.array([1.0, 0.5]), levels))

    p = jnp.asarray(0.6)
    f = partial(filters, after=lambda a, level: jnp.sin(a[0] + 2 * a[1] + level))
    for of in (slope, curvature):
        found = jax.jit(integrate(lambda p, of=of: of(expectation(f), p)))(p)
        assert_allclose(found, jax.jit(lambda p, of=of: of(integrate(f), p))(p), rtol=EXACT)

    # what is as expected leaves nothing of the score
    def moment(more):
        def after(ancestors, level):
            return (level + more) * jnp.cos(0.0 * jnp.sum(ancestors))

        one = jax.grad(expectation(partial(filters, after=after)))
        return jax.jit(integrate(lambda p: one(p) ** 2))(p)

    assert moment(0.0) < 1e-25
    chances = np.array([0.6, 0.3])
    assert_allclose(moment(1.0), 2 * np.sum(np.array([1.0, 0.5]) ** 2 / (chances * (1 - chances))))


def test_the_value_is_the_same_with_and_without_a_derivative():
    run = seed(expectation(bound(3), {"rain": reinforce()}))
    key, p = jax.random.key(0), 0.6
    assert jax.jit(jax.value_and_grad(run, 1))(key, p)[0] == jax.jit(run)(key, p)


def test_its_leaves_are_the_data():
    one = on_series(3, xs=jnp.zeros(10))
    leaves, tree = jax.tree.flatten(one)
    other = jax.tree.unflatten(tree, [2 * leaf for leaf in leaves])
    assert_allclose(other.observations["y"], 2 * SERIES)
    value = jax.jit(lambda objective: seed(objective)(jax.random.key(1), THETA))
    assert value(one) != value(other)
    assert value._cache_size() == 1


def test_a_state_and_inputs_may_depend_on_the_arguments():
    @gen
    def moving(z, x):
        z = sample("z", dist.Bernoulli(jnp.clip(z + x, 0, 1)))
        sample("y", dist.Bernoulli(0.2 + 0.6 * z))
        return 0.4 * z, None

    objective = vsmc(
        moving, lambda p: p, {"y": jnp.array([1, 0])}, 2,
        xs=jnp.array([0.1, 0.2]), resampling=reinforce(),
    )  # fmt: skip
    p = jnp.asarray(0.3)
    found = jax.jit(integrate(jax.grad(expectation(objective, {"z": reinforce()}))))(p)
    assert_allclose(found, jax.jit(jax.grad(integrate(objective)))(p), rtol=EXACT)


def impossible(p):
    @gen
    def step(z, _):
        z = sample("z", dist.Bernoulli(p))
        sample("y", dist.Bernoulli(jnp.where(z == 1, 1.0, 0.0)))
        return z, None

    return step


def test_particles_without_weight_leave_no_evidence():
    """Two particles of weight zero, with probability 1/4 at each step, and no NaN after that."""
    objective = vsmc(impossible, 0, {"y": jnp.array([1, 1])}, 2)

    def ends():
        value = objective(0.5)
        return jnp.isneginf(value) * 1.0, jnp.isnan(value) * 1.0

    none, wrong = jax.jit(integrate(ends))()
    assert_allclose(none, 1 - (3 / 4) ** 2, rtol=EXACT)
    assert wrong == 0


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: bound(2, resampling="scored"), InvalidArgument, "resampling='scored'"),
        (lambda: bound(2, 0), InvalidArgument, "particles=0"),
        (lambda: vsmc(3, 1, {"wet": WET}, 2), InvalidArgument, "generative function"),
        (lambda: vsmc(weather, 1, {"wet": WET}, 2, proposal=3), InvalidArgument, "proposal"),
        (lambda: vsmc(weather, 1, {"wet": WET}, 2, xs=WET[:2]), InvalidArgument, "one length"),
        (lambda: vsmc(weather, 1, {}, 2), InvalidArgument, "no observations"),
        (lambda: vsmc(weather, np.ones(2), {"wet": WET}, 2), ShapeError, "another shape"),
        (lambda: vsmc(lambda p: p, 1, {"wet": WET}, 2), InvalidArgument, "generative function"),
    ],
)
def test_what_does_not_fit_is_refused(make, kind, words):
    with pytest.raises(PPLError) as caught:
        seed(make())(jax.random.key(0), 0.6)
    assert type(caught.value) is kind and words in str(caught.value)
    assert caught.value.given and caught.value.expected
