"""A growing sequence: its laws, exactly, and the constant cost of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from ppl import errors, extend, gen, integrate, law, sample, seed, unfold

TABLE = jnp.array([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4], [0.1, 0.1, 0.8]])
XS = jnp.array([0.1, 0.5, 0.9])
EXACT = 1e-12  # sums of at most a thousand products of probabilities in float64


@gen
def step(state, x):
    state = sample("state", dist.Categorical(TABLE[state]))
    flag = jax.lax.cond(
        state == 2,
        lambda: sample("extra", dist.Bernoulli(0.3)),
        lambda: 0,
    )
    seen = sample("seen", dist.Bernoulli(jnp.array([0.2, 0.6, 0.9])[state] * x))
    return state, seen + flag


model = unfold(step, 3)


def table(run):
    """The law of a trace-valued program as {everything in the trace: mass}."""

    def flat():
        t = run()
        return t.choices, t.present, t.score, t.retval, t.args[0]

    found = law(flat)()
    leaves = [
        np.asarray(leaf).reshape(len(found.masses), -1) for leaf in jax.tree.leaves(found.values)
    ]
    rows = np.round(np.concatenate([leaf.astype(float) for leaf in leaves], 1), 9)
    return {tuple(row): mass for row, mass in zip(rows.tolist(), found.masses, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1, 2])
def test_extending_has_the_law_of_running_longer(start):
    def grown():
        trace = model.simulate(start, 1, XS)
        for _ in range(3 - start):
            trace, _ = extend(trace)
        return trace

    mine, whole = table(grown), table(lambda: model.simulate(3, 1, XS))
    assert mine.keys() == whole.keys()
    for row, mass in whole.items():
        assert mine[row] == pytest.approx(mass, abs=EXACT)


@pytest.mark.slow
def test_the_weights_multiply_to_the_evidence():
    """E[product of e^w] is the probability of what the steps were constrained to."""
    seen = [1, 0, 1]

    def estimate():
        trace, total = model.generate({}, 0, 1, XS)
        for y in seen:
            trace, w = extend(trace, {"seen": y})
            total = total + w
        return jnp.exp(total)

    alpha = np.eye(3)[1]
    for y, x in zip(seen, np.asarray(XS), strict=True):
        p = np.array([0.2, 0.6, 0.9]) * x
        alpha = (alpha @ np.asarray(TABLE)) * (p if y else 1 - p)
    assert float(jax.jit(integrate(estimate))()) == pytest.approx(alpha.sum(), abs=EXACT)


def test_an_extended_trace_is_a_trace_of_its_model():
    """Score and return value are those of assess at the new length, under jit too."""
    trace = seed(model.simulate)(jax.random.key(0), 1, 1, XS)
    grown, weight = jax.jit(seed(lambda t: extend(t, {"state": 2, "extra": 1})))(
        jax.random.key(1), trace
    )
    score, retval = model.assess(grown.choices, 2, 1, XS)
    # a handful of logs of order one in float64
    assert float(grown.score) == pytest.approx(float(score), abs=1e-14)
    jax.tree.map(np.testing.assert_array_equal, grown.retval, retval)
    before = int(trace["state"][0])
    expected = np.log(float(TABLE[before, 2])) + np.log(0.3)
    assert float(weight) == pytest.approx(expected, abs=1e-14)
    assert grown.present["extra"].tolist()[1:] == [True, False]


def test_a_full_trace_stays_and_weighs_nothing():
    trace = seed(model.simulate)(jax.random.key(0), 3, 1, XS)
    same, weight = jax.jit(seed(extend))(jax.random.key(1), trace)
    assert float(weight) == -np.inf
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(same), jax.tree.leaves(trace))
    with pytest.raises(errors.InvalidArgument, match="is full"):
        extend(trace)


def test_a_step_costs_the_same_at_any_capacity():
    """Extending has the same equations, and no loop, at capacity 10 and 5000."""
    counts = []
    walk = gen(lambda z, _: (sample("z", dist.Normal(z, 1.0)),) * 2)
    for capacity in (10, 5000):
        trace = seed(unfold(walk, capacity).simulate)(jax.random.key(0), 3, 0.0)
        jaxpr = jax.make_jaxpr(seed(extend))(jax.random.key(1), trace)
        assert "scan" not in str(jaxpr)
        counts.append(len(jaxpr.eqns))
    assert counts[0] == counts[1]


def test_filtering_by_a_scan_over_extensions():
    """Extending inside lax.scan: the likelihood of a path is that of assess."""
    ys = jnp.array([0, 2, 2])
    start, w0 = seed(model.generate)(jax.random.key(0), {}, jnp.int64(0), 1, XS)

    def grow(trace, y):
        return jax.lax.cond(
            y == 2,
            lambda t: extend(t, {"state": y, "seen": 1, "extra": 0}),
            lambda t: extend(t, {"state": y, "seen": 1}),
            trace,
        )

    run = seed(lambda t: jax.lax.scan(grow, t, ys))
    last, weights = run(jax.random.key(1), start)
    score, _ = model.assess(last.choices, 3, 1, XS)
    assert float(weights.sum() + w0) == pytest.approx(float(score), abs=1e-13)
