"""`update` and `regenerate` recompute only what depends on the change."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from ppl import At, gen, sample, seed, select


def equations(jaxpr):
    count = 0
    for eqn in jaxpr.eqns:
        inner = [v for v in eqn.params.values() if hasattr(getattr(v, "jaxpr", v), "eqns")]
        count += sum(equations(getattr(v, "jaxpr", v)) for v in inner) if inner else 1
    return count


def chain(n):
    @gen
    def model():
        z = 0.0
        for i in range(n):
            z = sample(f"z{i}", dist.Normal(z, 1.0))
        return z

    return model


def test_one_site_of_many_is_a_slice():
    """The update of a site in the middle costs the same equations at 10 and 200 sites."""
    counts = []
    for n in (10, 200):
        model = chain(n)
        trace = seed(model.simulate)(jax.random.key(0))
        step = lambda t, v, m=model: m.update(t, {"z5": v})[1]  # noqa: E731
        counts.append(equations(jax.make_jaxpr(step)(trace, 0.3).jaxpr))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("site", ["z0", "z5", "z9"])
def test_local_update_is_the_difference_of_scores(site):
    model = chain(10)
    trace = seed(model.simulate)(jax.random.key(0))
    changed, weight, discarded = model.update(trace, {site: 0.3})
    score, retval = model.assess(changed.choices)
    # ten log densities of order one in float64
    assert float(changed.score) == pytest.approx(float(score), abs=1e-13)
    assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-13)
    assert float(retval) == float(changed.retval)
    assert float(discarded[site]) == float(trace[site])


@gen
def regression(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    scale = sample("scale", dist.Exponential(1.0))

    def row(total, xi):
        y = sample("y", dist.Normal(slope * xi, scale))
        return total + y, y * 2

    return jax.lax.scan(row, 0.0, x)


def test_arguments_and_loops():
    """A changed argument and a changed global choice reach through a scan."""
    x = jnp.arange(4.0)
    trace = seed(regression.simulate)(jax.random.key(1), x)
    for args, change in [((x,), {"slope": 0.7}), ((x + 1,), {}), ((x * 2,), {"scale": 0.4})]:
        changed, weight, _ = regression.update(trace, change, *args)
        score, retval = regression.assess(changed.choices, *args)
        assert float(changed.score) == pytest.approx(float(score), abs=1e-13)
        assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-13)
        jax.tree.map(np.testing.assert_array_equal, retval, changed.retval)
    same, weight, _ = regression.update(trace, {})
    assert float(weight) == 0.0
    assert same["slope"] is trace["slope"]


def hidden(n, order=1):
    """A Markov chain of the given order with a global choice; returns nothing."""

    @gen
    def model():
        rate = sample("rate", dist.Normal(0.0, 1.0))

        def step(carry, x):
            z = sample("z", dist.Normal(0.5 * sum(carry) + rate * x, 1.0))
            sample("y", dist.Normal(z, 0.5))
            return (z, *carry[:-1]), None

        jax.lax.scan(step, (0.3,) * order, jnp.linspace(0.0, 1.0, n))

    return model


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("index", [0, 1, 2, 5, 10, 11])
def test_one_element_of_a_scan(order, index):
    """At(index, value) is the update with the whole array, at the ends too."""
    model = hidden(12, order)
    trace = seed(model.simulate)(jax.random.key(0))
    changed, weight, discarded = jax.jit(model.update)(trace, {"z": At(index, 0.7)})
    values = {**trace.choices, "z": trace["z"].at[index].set(0.7)}
    score, _ = model.assess(values)
    # a few dozen log densities of order one in float64
    assert float(changed.score) == pytest.approx(float(score), abs=1e-12)
    assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-12)
    back, undone, _ = model.update(changed, discarded)
    assert float(undone) == pytest.approx(-float(weight), abs=1e-12)
    np.testing.assert_array_equal(back["z"], trace["z"])


def test_one_element_costs_the_same_at_any_length():
    """No loop of all steps, and no density of them: of 5000, at most the inputs are made."""
    for n in (20, 5000):
        model = hidden(n)
        trace = seed(model.simulate)(jax.random.key(0))
        step = lambda t, i, m=model: m.update(t, {"z": At(i, 0.7)})[1]  # noqa: E731
        assert not set(loops(step, trace, 4)) - {3}
        made = jax.jit(lambda: jnp.linspace(0.0, 1.0, n))  # noqa: B023
        counted = jax.jit(step).lower(trace, 4).compile().cost_analysis()["flops"]
        # of the 3 steps by hand: 3 (2 densities of 6 operations, a mean of 3), before and after,
        # added up in pairs; less than one operation for each of 5000 elements
        assert counted - made.lower().compile().cost_analysis()["flops"] < 400


def states(n):
    """The loop's states are put out, and its end is read again."""

    @gen
    def model(first):
        def step(z, x):
            z = sample("z", dist.Normal(0.9 * z + x, 0.5))
            return z, (2 * z, sample("y", dist.Normal(z, 1.0)))

        last, history = jax.lax.scan(step, first, jnp.linspace(0.0, 1.0, n))
        end = sample("end", dist.Normal(last, 1.0))
        sample("after", dist.Normal(end * last, 1.0))
        return last, history, end

    return model


def counted(n):
    """A `fori_loop` whose body reads the index."""

    @gen
    def model(first):
        def step(i, z):
            return sample("z", dist.Normal(0.5 * z + jnp.sin(1.0 * i), 0.5))

        return jax.lax.fori_loop(2, n + 2, step, first)

    return model


def pair(n):
    """Two carries: one remembers the other's last value, so that both matter for two steps."""

    @gen
    def model(first):
        def step(carry, _):
            z, lagged = carry
            new = sample("z", dist.Normal(z - 0.3 * lagged, 0.5))
            return (new, z), z

        return jax.lax.scan(step, (first, first), None, length=n)

    return model


@pytest.mark.parametrize("model", [states, counted, pair])
def test_one_element_of_a_loop_that_is_read_again(model):
    """At every index, the update is that of a new array: score, weight, return value; undone."""
    model = model(8)
    trace = seed(model.simulate)(jax.random.key(0), 0.3)
    update = jax.jit(model.update)
    for index in range(8):
        changed, weight, discarded = update(trace, {"z": At(jnp.int32(index), 0.7)})
        values = {**trace.choices, "z": trace["z"].at[index].set(0.7)}
        score, retval = model.assess(values, 0.3)
        # a few dozen log densities of order one in float64
        assert float(changed.score) == pytest.approx(float(score), abs=1e-12)
        assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), changed.retval, retval
        )
        back, undone, _ = update(changed, discarded)
        assert float(undone) == pytest.approx(-float(weight), abs=1e-12)
        jax.tree.map(np.testing.assert_array_equal, back.choices, trace.choices)
    for outside in (-1, 8):
        same, weight, _ = update(trace, {"z": At(jnp.int32(outside), 0.7)})
        assert float(weight) == -np.inf
        assert float(same.score) == float(trace.score)


@gen
def walks(sizes):
    def walk(size):
        step = lambda x, _: (sample("x", dist.Normal(x, size)), None)  # noqa: E731
        return jax.lax.scan(step, 0.0, None, length=4)[0]

    jax.vmap(walk)(sizes)


@gen
def waves(sizes):
    def step(x, size):
        x = jax.vmap(lambda m: sample("x", dist.Normal(m, size)))(x)
        return x, None

    jax.lax.scan(step, jnp.zeros(2), sizes)


@pytest.mark.slow
@pytest.mark.parametrize("model", [walks, waves])
def test_one_element_is_a_whole_loop_inside(model):
    trace = seed(model.simulate)(jax.random.key(0), jnp.array([1.0, 0.5, 2.0, 0.7]))
    row = jnp.linspace(-1.0, 1.0, trace["x"].shape[1])
    changed, weight, _ = model.update(trace, {"x": At(1, row)})
    values = {"x": trace["x"].at[1].set(row)}
    score, _ = model.assess(values, *trace.args)
    # at most sixteen log densities of order one in float64
    assert float(changed.score) == pytest.approx(float(score), abs=1e-12)
    assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-12)


def loops(f, *args):
    """The lengths of all scans in a program."""

    def lengths(jaxpr):
        found = []
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "scan":
                found.append(eqn.params["length"])
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                found += lengths(inner) if hasattr(inner, "eqns") else []
        return found

    return lengths(jax.make_jaxpr(f)(*args).jaxpr)


@pytest.mark.parametrize("model", [states, counted])
def test_no_loop_of_the_update_grows_with_the_length(model):
    for n in (20, 5000):
        long = model(n)
        trace = seed(long.simulate)(jax.random.key(0), 0.3)
        update = lambda t, i, m=long: m.update(t, {"z": At(i, 0.7)})  # noqa: E731
        assert max(loops(update, trace, 4)) == 3


def test_another_start_of_a_loop_reaches_as_far_as_the_loop_remembers():
    """A change of the carry that a loop starts from is scored over h steps, not all."""

    @gen
    def model(first):
        z0 = sample("z0", dist.Normal(first, 1.0))

        def step(z, x):
            z = sample("z", dist.Normal(0.9 * z + x, 0.5))
            return z, sample("y", dist.Normal(z, 1.0))

        return jax.lax.scan(step, z0, jnp.linspace(0.0, 1.0, 50))

    trace = seed(model.simulate)(jax.random.key(0), 0.3)
    changed, weight, _ = model.update(trace, {"z0": 1.5})
    score, retval = model.assess({**trace.choices, "z0": 1.5}, 0.3)
    # a hundred log densities of order one in float64
    assert float(changed.score) == pytest.approx(float(score), abs=1e-12)
    assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-12)
    jax.tree.map(np.testing.assert_array_equal, changed.retval, retval)
    jax.tree.map(np.testing.assert_array_equal, changed["z"], trace["z"])
    assert loops(lambda t: model.update(t, {"z0": 1.5})[:2], trace) == []


def test_a_loop_that_remembers_two_steps():
    model = gen(lambda first: sample("run", pair(50)(first))[0])
    trace = seed(model.simulate)(jax.random.key(0), 0.3)
    changed, weight, _ = model.update(trace, {}, 1.5)
    score, retval = model.assess(trace.choices, 1.5)
    # fifty log densities of order one in float64
    assert float(changed.score) == pytest.approx(float(score), abs=1e-12)
    assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-12)
    jax.tree.map(np.testing.assert_array_equal, changed.retval, retval)
    assert loops(lambda t: model.update(t, {}, 1.5)[:2], trace) == [2, 2]


def test_a_branch_that_the_start_decides_is_run_in_full():
    """Choices that appear with another start are made, in every step."""

    @gen
    def model():
        start = sample("start", dist.Bernoulli(0.5))

        def step(on, _):
            def high():
                return sample("high", dist.Bernoulli(0.7))

            return jax.lax.cond(on == 1, high, lambda: 1), None

        return jax.lax.scan(step, start, None, length=3)[0]

    trace, _ = seed(model.generate)(jax.random.key(0), {"start": 0})
    changed, _, _ = seed(model.update)(jax.random.key(1), trace, {"start": 1})
    assert np.array_equal(trace.present["high"], [False, True, True])
    assert bool(changed.present["high"][0])
    score, _ = model.assess(changed.choices)
    # four log densities of order one in float64
    assert float(changed.score) == pytest.approx(float(score), abs=1e-14)


def test_one_copy_of_a_vmap_and_the_general_case():
    @gen
    def batch():
        def one(m):
            a = sample("a", dist.Normal(m, 1.0))
            return sample("b", dist.Normal(a, 1.0))

        jax.vmap(one)(jnp.arange(4.0))

    @gen
    def running():  # the carry accumulates: no window, but the same numbers
        step = lambda c, _: (c + sample("z", dist.Normal(c, 1.0)), None)  # noqa: E731
        return jax.lax.scan(step, 0.0, None, length=6)[0]

    for model, site in [(batch, "a"), (running, "z")]:
        trace = seed(model.simulate)(jax.random.key(0))
        changed, weight, _ = model.update(trace, {site: At(2, 0.7)})
        score, retval = model.assess(changed.choices)
        assert float(changed[site][2]) == 0.7
        assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-12)
        jax.tree.map(np.testing.assert_allclose, retval, changed.retval)
    assert float(running.update(trace, {"z": At(9, 0.7)})[1]) == -np.inf


def test_a_trace_of_another_model_is_scored_anew():
    """The change of model counts in score and weight, not only the changed choice."""
    other = gen(lambda: [sample(f"z{i}", dist.Normal(0.0, 2.0)) for i in range(10)][-1])
    trace = seed(chain(10).simulate)(jax.random.key(0))
    changed, weight, _ = other.update(trace, {"z9": 0.3})
    score, _ = other.assess(changed.choices)
    # twenty log densities of order one in float64
    assert float(changed.score) == pytest.approx(float(score), abs=1e-13)
    assert float(weight) == pytest.approx(float(score - trace.score), abs=1e-13)
    changed, weight, _ = seed(other.regenerate)(jax.random.key(1), trace, "z9")
    kept = other.project(changed, ~select("z9")) - chain(10).project(trace, ~select("z9"))
    assert float(changed.score) == pytest.approx(float(other.assess(changed.choices)[0]), abs=1e-13)
    assert float(weight) == pytest.approx(float(kept), abs=1e-13)
