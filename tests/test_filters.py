"""Particle filters and smoothers: the whole measure exactly when small, Kalman's when Gaussian."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    backward_sample,
    fixed_lag,
    genealogy,
    multinomial,
    particle_filter,
    residual,
)
from ppl import gen, integrate, sample, seed
from ppl.errors import DtypeError, InvalidArgument, ShapeError
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a million products of probabilities in float64
MOVES = jnp.array([[0.8, 0.2], [0.3, 0.7]])
EMITS = jnp.array([0.9, 0.2])  # the probability of seeing 1
SEEN = [1, 0, 1]


@gen
def hidden(k, x):
    """Two states; where the second is entered, a coin beside it; inputs bend what is seen."""
    k = sample("k", dist.Categorical(MOVES[k]))
    sample("y", dist.Bernoulli(EMITS[k] * x))
    return k, None


@gen
def guess(k, x, observed):
    sample("k", dist.Categorical(jnp.where(observed["y"] == 1, MOVES[k], jnp.array([0.4, 0.6]))))


def ahead(k, x, observed):
    return jnp.log(jnp.array([0.7, 0.4])[k] + 0.1 * observed["y"])


INPUTS = np.array([1.0, 0.6, 0.9])


def paths_mass(steps):
    """The mass p(path, observations) of every path, by hand."""
    mass = {}
    for path in itertools.product((0, 1), repeat=steps):
        p, before = 1.0, 0
        for k, y, x in zip(path, SEEN, INPUTS, strict=False):
            q = float(EMITS[k]) * x
            p, before = p * float(MOVES[before, k]) * (q if y else 1 - q), k
        mass[path] = p
    return mass


def run(n, steps, **options):
    ys = {"y": jnp.array(SEEN[:steps])}
    xs = jnp.array(INPUTS[:steps])
    return particle_filter(hidden, 0, ys, n, xs=xs, **{"scheme": multinomial, **options})


FILTERS = {
    "bootstrap": {"threshold": 1.0},
    "adaptive": {"threshold": 0.8},
    "never resampled": {"threshold": 0.0},
    "residual": {"scheme": residual, "threshold": 0.9},
    "guided": {"proposal": guess},
    "auxiliary": {"lookahead": ahead, "threshold": 0.95},
    "all": {"lookahead": ahead, "proposal": guess, "threshold": 0.9},
}


@pytest.mark.slow
@pytest.mark.parametrize("n, steps", [(2, 3), (3, 2)])
@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_the_measure_of_the_last_state_is_exact(options, n, steps):
    def measure():
        s = run(n, steps, **options).particles
        here = s.value[:, None] == jnp.arange(2)
        return (jnp.exp(s.log_weight)[:, None] * here).mean(0)

    expected = [sum(p for path, p in paths_mass(steps).items() if path[-1] == k) for k in (0, 1)]
    found = jax.jit(integrate(measure), compiler_options=QUICK)()
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


def measure_of_paths(smoother, n, steps):
    def measure():
        s = smoother(run(n, steps, history=True, threshold=0.9))
        code = (s.value["k"] * 2 ** jnp.arange(steps)[::-1]).sum(-1)
        here = code[:, None] == jnp.arange(2**steps)
        return (jnp.exp(s.log_weight)[:, None] * here).mean(0)

    found = jax.jit(integrate(measure), compiler_options=QUICK)()
    np.testing.assert_allclose(found, list(paths_mass(steps).values()), rtol=0, atol=EXACT)


@pytest.mark.parametrize("n, steps", [(2, 3), (3, 2)])
def test_the_measure_of_genealogies_is_exact(n, steps):
    measure_of_paths(genealogy, n, steps)


def test_the_measure_of_backward_paths_is_exact():
    xs = jnp.array(INPUTS[:2])
    measure_of_paths(lambda found: backward_sample(hidden, found, 1, xs=xs), 3, 2)


@pytest.mark.slow
def test_a_fixed_lag_beyond_the_end_is_the_genealogy():
    found = jax.jit(seed(partial(run, 50, 3, history=True)))(jax.random.key(0))
    choices, weights = fixed_lag(found, 7)
    paths = genealogy(found)
    assert (choices["k"] == paths.value["k"].T).all()
    now, filtering = fixed_lag(found, 0)
    assert (now["k"] == found.path.choices["k"]).all()
    np.testing.assert_allclose(weights[-1], filtering[-1], rtol=1e-12)
    one, _ = fixed_lag(found, 1)
    assert (one["k"][0] == now["k"][0][found.path.ancestors[1]]).all()


# -- a linear Gaussian model ---------------------------------------------------------------------

PHI, Q, R, T = 0.9, 0.5, 0.8, 20
YS = np.random.default_rng(1).normal(size=T).cumsum() / 2


@gen
def linear(z, _):
    z = sample("z", dist.Normal(PHI * z, Q))
    sample("y", dist.Normal(z, R))
    return z, None


def joint():
    """Mean and covariance of all z given all y, and the log evidence, by one big Gaussian."""
    lower = np.array([[PHI ** (i - j) if i >= j else 0.0 for j in range(T)] for i in range(T)])
    prior = Q**2 * lower @ lower.T
    seen = prior + R**2 * np.eye(T)
    gain = prior @ np.linalg.inv(seen)
    quadratic = YS @ np.linalg.solve(seen, YS)
    log_evidence = -0.5 * (quadratic + np.linalg.slogdet(seen)[1] + T * np.log(2 * np.pi))
    return gain @ YS, prior - gain @ prior, log_evidence


def repeated(smoother, n, runs):
    """Means of z by independent filters, each with its weight relative to the evidence."""
    _, _, log_evidence = joint()

    def one():
        found = particle_filter(
            linear, 0.0, {"y": jnp.asarray(YS)}, n, history=True, record=mean_of_state
        )
        s = smoother(found)
        weights = jnp.exp(s.log_weight - log_evidence)[:, None]
        return weights.mean(), (weights * s.value["z"]).mean(0), found.history.record

    return jax.jit(jax.vmap(seed(one)))(jax.random.split(jax.random.key(1), runs))


def mean_of_state(s):
    weights = jnp.exp(s.log_weight)
    return (weights * s.value).sum() / weights.sum()


@pytest.mark.slow
@pytest.mark.parametrize("smoother", [genealogy, partial(backward_sample, linear, m=20)])
def test_kalman_is_met(smoother):
    """Evidence and unnormalised smoothing means, unbiased, and filter means at n = 10,000.

    Within 4 standard errors over 64 runs: were the averages normal, 41 numbers would fail with
    probability at most 41 * 6.4e-5 = 2.6e-3. Keys are fixed: what passed fails again only if
    arithmetic or the filter changed. A self-normalised mean has a bias of order 1 / n, a
    hundredth of a run's error and so an eighth of that of 64.
    """
    mean, _, _ = joint()
    last = [_filter_mean(t) for t in range(T)]
    for ours, exact in zip(
        repeated(smoother, 10_000, 64), (1.0, mean, np.array(last)), strict=True
    ):
        error = np.std(ours, 0, ddof=1) / np.sqrt(len(ours))
        assert (np.abs(np.mean(ours, 0) - exact) < 4 * error).all()


def _filter_mean(t):
    """E[z_t | y_1, ..., y_t], from the joint law of the first t + 1 steps."""
    lower = np.array([[PHI ** (i - j) if i >= j else 0.0 for j in range(T)] for i in range(T)])
    prior = (Q**2 * lower @ lower.T)[: t + 1, : t + 1]
    return (prior @ np.linalg.solve(prior + R**2 * np.eye(t + 1), YS[: t + 1]))[-1]


# -- what cannot be ------------------------------------------------------------------------------


@gen
def greedy(k, x, observed):
    sample("y", dist.Bernoulli(0.5))


def of(result, init=0):
    """A filter of steps that return what `result` makes of their choice."""

    @gen
    def step(k, x):
        k = sample("k", dist.Bernoulli(0.5))
        sample("y", dist.Bernoulli(0.5))
        return result(k)

    return particle_filter(step, init, {"y": jnp.ones(2, int)}, 3)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: run(0, 2), "is not a number"),
        (lambda: run(3, 2, proposal=greedy), 'makes the choice "y", which is observed'),
        (lambda: run(3, 2, threshold=2.0), "is not a number"),
        (lambda: genealogy(run(3, 2)), "did not keep its particles"),
        (lambda: fixed_lag(run(3, 2, history=True), -1), "lag is not a number"),
        (lambda: backward_sample(hidden, run(3, 2, history=True), 0), "is not a number"),
        (lambda: backward_sample(hidden.fn, run(3, 2, history=True), 3), "generative function"),
        (lambda: backward_sample(hidden, run(3, 2, history=True), 3, xs=INPUTS), "2 rows in each"),
        (
            lambda: particle_filter(hidden, 0, {"y": jnp.ones(3, int)}, 3, xs=jnp.ones(2)),
            "series of one length",
        ),
        (lambda: run(3, 0), "one or more"),
        (lambda: particle_filter(hidden, 0, {}, 3), "no observations"),
        (lambda: particle_filter(hidden, 0, jnp.ones(3), 3), "nested dict"),
        (lambda: run(3.0, 2), "n is not a number"),
        (lambda: run(3, 2, scheme="systematic"), "function from n weights to n ancestors"),
        (lambda: run(3, 2, scheme=lambda w: jnp.arange(2)), r"ancestors of shape \(2,\)"),
        (lambda: run(3, 2, scheme=lambda w: w), "dtype float"),
        (lambda: particle_filter(hidden.fn, 0, {"y": jnp.ones(3, int)}, 3), "generative function"),
        (lambda: of(lambda k: k), "result of step that is no pair"),
        (lambda: of(lambda k: ((k, k), None)), "another structure than the state"),
        (lambda: of(lambda k: (jnp.stack([k, k]), None)), r"shape \(2,\)"),
        (lambda: of(lambda k: (k, None), init=0.9), "dtype that cannot hold"),
        (lambda: run(3, 2, lookahead=lambda *_: jnp.zeros(1)), "one number for each particle"),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises((InvalidArgument, ShapeError, DtypeError), match=says) as found:
        seed(call)(jax.random.key(0))
    assert "test_filters.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
def test_a_lookahead_that_rules_particles_out_drops_them(threshold):
    """The first of two states cannot see 1: e^lookahead is 0 there, resampled or not."""
    sees = jnp.array([0.0, 0.5])

    @gen
    def late(k, x):
        sample("y", dist.Bernoulli(sees[k]))
        return sample("k", dist.Categorical(MOVES[k])), None

    def look(k, x, observed):
        return jnp.log(jnp.where(observed["y"] == 1, sees[k], 1 - sees[k]))

    def mass(ys):
        found = particle_filter(
            late, 1, {"y": jnp.array(ys)}, 2, lookahead=look, scheme=multinomial,
            threshold=threshold,
        )  # fmt: skip
        return jnp.exp(found.history.log_evidence[-1])

    # 1, to 1 or 0, ..., seen from 1: 0.5 * 0.7 * 0.5, and then 0.5 more of 1, or 1 of 0
    for ys, expected in (([1, 1], 0.175), ([1, 1, 0], 0.175 * (0.7 * 0.5 + 0.3))):
        found = jax.jit(integrate(lambda ys=ys: mass(ys)), compiler_options=QUICK)()
        assert abs(found - expected) < EXACT
    none = seed(lambda: run(2, 2, lookahead=lambda *_: -jnp.inf, threshold=threshold))
    assert jax.jit(none)(jax.random.key(0)).history.log_evidence.tolist() == [-np.inf] * 2


def test_impossible_data_are_evidence_zero():
    """A particle cannot see 1 with an input of zero: weights -inf from there on, no NaN."""
    ys, xs = {"y": jnp.array([1, 1, 0])}, jnp.array([0.5, 0.0, 0.5])
    found = jax.jit(seed(lambda: particle_filter(hidden, 0, ys, 4, xs=xs)))(jax.random.key(0))
    assert found.particles.log_weight.tolist() == [-np.inf] * 4
    assert found.history.log_evidence[1:].tolist() == [-np.inf] * 2
    assert found.history.ess[1:].tolist() == [0.0, 0.0]


def test_long_series_in_single_precision():
    """The log evidence of 20,000 steps in float32 is that in float64 from the same uniforms.

    Deterministic moves, so that nothing but rounding differs: a sum of 20,000 terms near -1,
    each rounded once (2^-24), and a sum of that size rounded at each step (2^-10 of it).
    """

    @gen
    def still(z, x):
        sample("y", dist.Normal(z + x, 1.0))
        return z, None

    xs, ys = np.sin(np.arange(20_000)), {"y": np.cos(np.arange(20_000))}

    def total(x64):
        with jax.enable_x64(x64):
            given = jax.tree.map(lambda a: jnp.asarray(a, float), (0.0, ys, xs))
            run = lambda: particle_filter(still, *given[:2], 2, xs=given[2])  # noqa: E731
            found = seed(run)(jax.random.key(0)).particles.log_weight
        return found.dtype, np.asarray(found, np.float64)[0]

    (single, ours), (double, exact) = total(False), total(True)
    assert (single, double) == (jnp.float32, jnp.float64)
    assert abs(ours / exact - 1) < 2e-5
