"""Checks of resamplers, gradients, equivalence and purity: what is right passes, each bug fails.

Resampling and finite gradients are exact sums, so verdicts compare at 1e-12; where a number is
asserted it is computed by hand beside it. The file exceeds 400 lines since each check has its own
small programs, right ones and one for each bug.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.core import Tracer
from jax.lax import stop_gradient

from inference import importance, mh, multinomial, resample, start, systematic, then, unit
from ppl import Target, draw, errors, gen, sample, seed
from semantics.contracts.equivalent import check_equivalent, check_pure
from semantics.contracts.gradients import check_gradient
from semantics.contracts.resamplers import check_resampler


def failing(verdicts):
    return {verdict.check for verdict in verdicts if not verdict.passed}


# -- resampling --------------------------------------------------------------------------------


def offspring(counts):
    """Ancestors in order, from numbers of offspring that sum to their length."""
    return jnp.searchsorted(jnp.cumsum(counts), jnp.arange(len(counts)), side="right")


def inverse(weights, points, side="right"):
    """The particles in whose part of the unit interval the points lie."""
    return jnp.searchsorted(jnp.cumsum(weights) / jnp.sum(weights), points, side=side)


def last(weights):
    """The last particle that has weight, for what rounding leaves over."""
    return len(weights) - 1 - jnp.argmax(weights[::-1] > 0)


def points(weights, shared=False, flipped=False):
    n = len(weights)
    u = draw(dist.Uniform(0.0, 1.0)) if shared else draw(dist.Uniform(0.0, 1.0).expand([n]))
    return (jnp.arange(n) + (1 - u if flipped else u)) / n


def stratified(weights):
    return jnp.minimum(inverse(weights, points(weights)), last(weights))


def residual(weights, normalise=True):
    """floor(n w_i) copies of each i, and the rest drawn from what remains."""
    n = len(weights)
    copies = jnp.floor(n * weights + 1e-9).astype(int)  # n * (k / n) may round below k
    rest = jnp.maximum(n * weights - copies, 0.0)
    rest = jnp.where(rest < 1e-9, 0.0, rest)
    rest = rest / jnp.where(rest.sum() > 0, rest.sum(), 1.0) if normalise else rest
    u = draw(dist.Uniform(0.0, 1.0).expand([n]))
    more = jnp.minimum(jnp.searchsorted(jnp.cumsum(rest), u, side="right"), last(rest))
    wanted = jnp.arange(n) < n - copies.sum()
    return offspring(copies + jax.ops.segment_sum(wanted.astype(int), more, n))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [systematic, multinomial, stratified, residual])
def test_unbiased_schemes(scheme):
    verdicts = check_resampler(scheme)
    assert [v.check for v in verdicts] == ["unbiased", "alive", "boundaries", "extreme weights"]
    assert not failing(verdicts)
    assert all(v.n > 0 for v in verdicts)  # none is left out


def test_a_tie_of_three_and_all_compositions_are_among_the_weights():
    """Of one uniform: 1, 2 and 3 particles have (1 + 1), (3 + 6) and (10 + 36) vectors of
    weights, by (1, 3), (4, 10) and (18, 42) midpoints."""
    n = check_resampler(systematic)[0].n
    assert n == 1 + 3 + 3 * 4 + 6 * 10 + 10 * 18 + 36 * 42


def off_by_one(weights):
    return (systematic(weights) + 1) % len(weights)


def out_of_range(weights):
    return systematic(weights) + 1


def permuted(weights):
    """Resamples by sorted weights, and forgets to undo the sort."""
    return systematic(jnp.sort(weights))


def unnormalised(weights):
    return residual(weights, normalise=False)


def argmax(weights):
    return jnp.full(len(weights), jnp.argmax(weights))


def same_stratum(weights):
    """All points in the first stratum."""
    u = draw(dist.Uniform(0.0, 1.0).expand([len(weights)]))
    return jnp.minimum(inverse(weights, u / len(weights)), last(weights))


def too_few(weights):
    return systematic(weights)[:1]


BIASED = [off_by_one, out_of_range, permuted, unnormalised, argmax, same_stratum, too_few]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", BIASED)
def test_biased_schemes(scheme):
    verdicts = check_resampler(scheme, sizes=(3,))
    assert "unbiased" in failing(verdicts)
    assert "mean offspring" in verdicts[0].witness


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [off_by_one, out_of_range, permuted, too_few])
def test_ancestors_that_are_not_there(scheme):
    assert "alive" in failing(check_resampler(scheme, sizes=(3,)))


@pytest.mark.slow
def test_a_bias_that_size_two_does_not_have():
    """With two particles at most one is left to draw, and what is left sums to one already."""
    assert "unbiased" not in failing(check_resampler(unnormalised, sizes=(2,)))
    assert "unbiased" in failing(check_resampler(unnormalised, sizes=(3,)))


def left_closed(weights):
    """A point on an edge goes to the particle before it: at u = 0 to one without weight."""
    return jnp.minimum(inverse(weights, points(weights, shared=True), side="left"), last(weights))


def inclusive(weights):
    """u = 1 - (a uniform that can be 0) can be 1: the last point is 1, past everything."""
    return inverse(weights, points(weights, shared=True, flipped=True))


@pytest.mark.parametrize("scheme", [left_closed, inclusive])
def test_bugs_at_the_ends_of_the_uniform_are_seen_there_only(scheme):
    verdicts = check_resampler(scheme, sizes=(3,))
    assert failing(verdicts) == {"boundaries", "extreme weights"}
    assert "all u zero" in verdicts[2].witness


def test_a_last_point_that_rounds_to_one():
    """(2 + u) / 3 is 1 for the largest u: past everything, so to a last index without weight."""

    def last_index(weights):
        return jnp.minimum(inverse(weights, points(weights, shared=True)), len(weights) - 1)

    verdicts = check_resampler(last_index, sizes=(3,))
    assert failing(verdicts) == {"boundaries", "extreme weights"}
    assert "all u one" in verdicts[2].witness


# -- gradients ---------------------------------------------------------------------------------

PRICE = jnp.array([1.0, 5.0, 2.0])


def law_of(theta):
    return dist.CategoricalLogits(jnp.array([0.0, 1.0, -1.0]) * theta)


def objective(theta):
    x = draw(law_of(theta))
    return PRICE[x] * theta


def score(x, theta):
    return jax.grad(lambda t: law_of(t).log_prob(x))(theta)


def score_function(theta, pathwise=True, sign=1):
    x = draw(law_of(theta))
    return sign * PRICE[x] * theta * score(x, theta) + pathwise * PRICE[x]


def surrogate(theta, stopped=True):
    """The gradient of a surrogate; without the stop it differentiates the reward twice."""
    x = draw(law_of(theta))

    def loss(t):
        reward = PRICE[x] * t
        held = stop_gradient(reward) if stopped else reward
        return held * law_of(t).log_prob(x) + reward

    return jax.grad(loss)(theta)


def with_baseline(theta, leave_out=True, n=3):
    """REINFORCE with the mean reward of the others, or of all, as the baseline."""
    xs = draw(law_of(theta).expand([n]))
    rewards = PRICE[xs] * theta
    others = (rewards.sum() - rewards) / (n - 1) if leave_out else rewards.mean()
    scores = jax.vmap(lambda x: score(x, theta))(xs)
    return jnp.mean((rewards - others) * scores + PRICE[xs])


POINTS = [(0.3,), (-1.0,), (0.0,)]


@pytest.mark.parametrize("estimator", [score_function, surrogate, with_baseline])
def test_unbiased_estimators(estimator):
    verdict = check_gradient(estimator, objective, POINTS)
    assert verdict.passed and verdict.method == "exact"
    assert verdict.n == 3 * (27 if estimator is with_baseline else 3)


@pytest.mark.parametrize(
    "estimator",
    [
        functools.partial(with_baseline, leave_out=False),
        functools.partial(surrogate, stopped=False),
        functools.partial(score_function, pathwise=False),
        functools.partial(score_function, sign=-1),
    ],
    ids=["leave-in baseline", "no stop_gradient", "no pathwise term", "wrong sign"],
)
def test_biased_estimators(estimator):
    verdict = check_gradient(estimator, objective, POINTS)
    assert not verdict.passed and "E[estimate]" in verdict.witness


def test_the_bias_of_a_baseline_that_has_its_own_sample():
    """It keeps (n - 1) / n of the score term, and all of the pathwise one."""

    def mean(theta):
        return law_of(theta).probs @ PRICE

    theta, n = 0.3, 3
    score_term = theta * jax.grad(mean)(theta)
    whole = score_term + mean(theta)
    verdict = check_gradient(functools.partial(with_baseline, leave_out=False), objective, (theta,))
    expected = float(abs(score_term / n) / max(1.0, abs(whole)))
    np.testing.assert_allclose(verdict.error, expected, rtol=1e-9)


def test_a_point_where_a_bug_does_not_show():
    """At theta = 0 the reward is zero, and with it the score term."""
    wrong = functools.partial(score_function, sign=-1)
    assert check_gradient(wrong, objective, (0.0,)).passed
    assert not check_gradient(wrong, objective, (0.3,)).passed


def smooth(mean, log_scale):
    x = draw(dist.Normal(mean["m"], jnp.exp(log_scale)))
    return jnp.sin(x) + 0.1 * mean["m"] ** 2


def reparametrised(mean, log_scale, direct=True):
    eps = draw(dist.Normal(0.0, 1.0))

    def path(mean, log_scale):
        x = mean["m"] + jnp.exp(log_scale) * eps
        return jnp.sin(x) + 0.1 * direct * mean["m"] ** 2

    return jax.grad(path, (0, 1))(mean, log_scale)


def continuous_score(mean, log_scale):
    x = draw(dist.Normal(mean["m"], jnp.exp(log_scale)))

    def loss(mean, log_scale):
        value = jnp.sin(x) + 0.1 * mean["m"] ** 2
        log_p = dist.Normal(mean["m"], jnp.exp(log_scale)).log_prob(x)
        return stop_gradient(value) * log_p + value

    return jax.grad(loss, (0, 1))(mean, log_scale)


PLACES = [({"m": 0.7}, -0.5), ({"m": -0.2}, 0.1)]


@pytest.mark.parametrize("estimator", [reparametrised, continuous_score])
def test_estimators_by_quadrature(estimator):
    verdict = check_gradient(estimator, smooth, PLACES, nodes=(24, 32))
    assert verdict.passed and verdict.method == "quadrature" and verdict.threshold < 1e-8


def test_a_dropped_term_by_quadrature_is_located():
    wrong = functools.partial(reparametrised, direct=False)
    verdict = check_gradient(wrong, smooth, PLACES, nodes=(24, 32))
    assert not verdict.passed and "E[estimate[0]['m']]" in verdict.witness
    np.testing.assert_allclose(verdict.error, 0.2 * 0.7, atol=1e-8)  # the threshold above


def test_a_quadrature_that_resolves_nothing_does_not_pass():
    def wild(m):
        return jnp.sin(40 * draw(dist.Normal(m, 1.0)))

    def estimator(m):
        return 40 * jnp.cos(40 * (m + draw(dist.Normal(0.0, 1.0))))

    verdict = check_gradient(estimator, wild, (0.3,), nodes=(3, 5))
    assert not verdict.passed and "more nodes" in verdict.witness


def two_steps(theta):
    """The mean of particles that are resampled by weights which depend on theta."""
    xs = draw(dist.Bernoulli(0.4).expand([2]))
    weights = jnp.exp(theta * xs)
    ancestors = draw(dist.CategoricalProbs(weights / weights.sum()).expand([2]))
    return weights.mean() * jnp.mean(xs[ancestors] * 2.0)


def through_resampling(theta, scored=True):
    xs = draw(dist.Bernoulli(0.4).expand([2]))
    weights = jnp.exp(theta * xs)
    ancestors = draw(dist.CategoricalProbs(weights / weights.sum()).expand([2]))

    def loss(t):
        w = jnp.exp(t * xs)
        value = w.mean() * jnp.mean(xs[ancestors] * 2.0)
        log_p = dist.CategoricalProbs(w / w.sum()).log_prob(ancestors).sum()
        return value + scored * stop_gradient(value) * log_p

    return jax.grad(loss)(theta)


def test_the_score_of_resampling():
    assert check_gradient(through_resampling, two_steps, [(0.5,), (-0.4,)]).passed
    ignored = functools.partial(through_resampling, scored=False)
    assert not check_gradient(ignored, two_steps, [(0.5,), (-0.4,)]).passed


def test_an_estimate_of_another_shape():
    verdict = check_gradient(lambda t: {"t": t}, objective, (0.3,))
    assert not verdict.passed and "shapes" in verdict.witness


@pytest.mark.parametrize("args, nodes", [(0.3, None), ([], None), ((0.3,), 16)])
def test_what_is_no_point_is_an_error(args, nodes):
    with pytest.raises(errors.InvalidArgument, match=r"test_semantics_contracts\.py"):
        check_gradient(score_function, objective, args, nodes=nodes)


# -- equivalence -------------------------------------------------------------------------------


def binomial(p):
    return {"total": draw(dist.Bernoulli(p).expand([3])).sum(), "unit": p * 3 / 3}


def table(p, shift=0):
    masses = jnp.array([(1 - p) ** 3, 3 * p * (1 - p) ** 2, 3 * p**2 * (1 - p), p**3])
    return {"total": (draw(dist.Categorical(masses)) + shift) % 4, "unit": p}


def test_programs_with_the_same_law():
    assert check_equivalent(binomial, table, 0.3).passed
    assert check_equivalent(lambda: 1.0, lambda: draw(dist.Bernoulli(1.0)) * 1.0).passed


def test_programs_with_other_laws():
    """p = 1/3: 8, 12, 6, 1 of 27; shifted by one, 1, 8, 12, 6."""
    verdict = check_equivalent(binomial, functools.partial(table, shift=1), 1 / 3)
    assert not verdict.passed
    np.testing.assert_allclose(verdict.error, 7 / 27, atol=1e-12)
    assert "0.296296 against 0.037037" in verdict.witness and "'total': 0" in verdict.witness


def test_floats_beyond_rounding_are_other_values():
    base = lambda: draw(dist.Bernoulli(0.5)) * 0.1  # noqa: E731
    assert check_equivalent(base, lambda: base() + 1e-15).passed
    verdict = check_equivalent(base, lambda: base() + 1e-9)
    assert not verdict.passed and verdict.error == 0.5


def test_results_of_other_structure():
    verdict = check_equivalent(lambda: {"a": 1}, lambda: {"b": 1})
    assert not verdict.passed and "structure" in verdict.witness


@gen
def model():
    a = sample("a", dist.Categorical(jnp.array([0.5, 0.2, 0.3])))
    sample("y", dist.Bernoulli(jnp.array([0.9, 0.2, 0.4])[a]))


target = Target(model, (), {"y": 1})


def resampled(times):
    def run():
        steps = [lambda s: resample(s, multinomial)] * times
        return then(importance(target, 2), *steps)(unit()).value["a"]

    return run


def test_resampling_again_is_another_law():
    """Equal weights stay equal, but pairs that agree become more frequent."""
    assert check_equivalent(resampled(1), resampled(1)).passed
    assert not check_equivalent(resampled(1), resampled(2)).passed


# -- purity ------------------------------------------------------------------------------------


def chain(key, n):
    """A kernel of the library."""

    def run():
        trace = start(target)(unit()).value
        return mh(target, "a")(trace)["a"] + n

    return seed(run)(key)


class Walk:
    """A random walk with something it remembers."""

    def __init__(self, adapts=False, caches=False):
        self.scale, self.adapts, self.caches, self.kept = 1.0, adapts, caches, None

    def density(self, x):
        return -0.5 * x**2

    def __call__(self, key, x):
        to, accept = jax.random.split(key)
        new = x + self.scale * jax.random.normal(to)
        before = self.density(x) if self.kept is None or not self.caches else self.kept
        log_ratio = self.density(new) - before
        taken = jnp.log(jax.random.uniform(accept)) < log_ratio
        self.kept = jnp.where(taken, self.density(new), before)
        if self.adapts:
            self.scale *= 1.1
        return jnp.where(taken, new, x), log_ratio


KEY = jax.random.key(0)


def test_pure_functions():
    assert check_pure(chain, KEY, 3).passed
    assert check_pure(lambda key: key, KEY).n == 6
    assert check_pure(lambda key, x: np.asarray(x) * 2, KEY, 1.0, jit=False).passed


def test_adaptation_leaks_into_sampling():
    verdict = check_pure(Walk(adapts=True), KEY, 0.5)
    assert not verdict.passed and verdict.witness == "the second call differs from the first"


def test_a_stale_cache():
    """The density of where it went is taken for that of where it starts."""
    verdict = check_pure(Walk(caches=True), KEY, 40.0, jit=False)
    assert not verdict.passed and "differs" in verdict.witness
    np.testing.assert_allclose(verdict.error, 0.5)  # the ratio differs, the state does not


def test_a_state_that_only_another_key_moves():
    """The cache is right while calls repeat: it is that of the last key."""
    memory = {}

    def cached(key):
        value = jax.random.normal(key)
        if memory.get("key") is None or (jax.random.key_data(key) != memory["key"]).any():
            memory["bias"] = memory.get("bias", -1) + 1
            memory["key"] = jax.random.key_data(key)
        return value + memory["bias"]

    verdict = check_pure(cached, KEY, jit=False)
    assert not verdict.passed and verdict.witness == "the call after one with another key differs"


def test_a_state_that_compilation_alone_moves():
    traces = []

    def counted(key):
        if isinstance(key, Tracer):
            traces.append(key)
        return jax.random.normal(key) + len(traces)

    verdict = check_pure(counted, KEY)
    assert not verdict.passed and verdict.witness == "two compilations of the call differ"
    assert check_pure(counted, KEY, jit=False).passed


def test_a_traced_value_that_is_kept():
    state = {"x": jnp.zeros(())}

    def leaking(key):
        old = state["x"]
        if isinstance(key, Tracer):
            state["x"] = jax.random.normal(key)
        return jax.random.normal(key) + 0 * old

    verdict = check_pure(leaking, KEY)
    assert not verdict.passed and "traced value" in verdict.witness
