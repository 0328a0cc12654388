"""`update` and `regenerate` recompute only what depends on the change."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from ppl import At, gen, sample, seed


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
    """The loops of the update have 3 steps at 20 steps and at 5000."""

    def lengths(jaxpr):
        found = []
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "scan":
                found.append(eqn.params["length"])
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                found += lengths(inner) if hasattr(inner, "eqns") else []
        return found

    for n in (20, 5000):
        model = hidden(n)
        trace = seed(model.simulate)(jax.random.key(0))
        step = lambda t, i, m=model: m.update(t, {"z": At(i, 0.7)})[1]  # noqa: E731
        assert lengths(jax.make_jaxpr(step)(trace, 4).jaxpr) == [3, 3]


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
