"""`update` and `regenerate` recompute only what depends on the change."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from ppl import gen, sample, seed


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
