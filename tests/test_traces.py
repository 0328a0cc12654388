"""Traces as pytrees, arguments of every kind, partial observations, both precisions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy.stats import norm

from ppl import Masked, Target, gen, integrate, sample, seed, select


@gen
def walk(start, steps=None, *, noise=1.0):
    def move(z, x):
        z = sample("z", dist.Normal(z + x, noise))
        return z, z

    return lax.scan(move, start, steps)


STEPS = jnp.array([0.1, -0.2, 0.3])


def test_a_thousand_traces_at_once():
    """A batch of traces is a trace of batches; its scores are those of assess."""
    keys = jax.random.split(jax.random.key(0), 1000)
    traces = jax.jit(jax.vmap(lambda k: seed(walk.simulate)(k, 0.5, STEPS, noise=0.7)))(keys)
    scores = jax.vmap(lambda z: walk.assess({"z": z}, 0.5, STEPS, noise=0.7)[0])(traces["z"])
    np.testing.assert_allclose(traces.score, scores, rtol=1e-13)
    before = jnp.concatenate([jnp.full((1000, 1), 0.5), traces["z"][:, :-1]], 1) + STEPS
    expected = dist.Normal(before, 0.7).log_prob(traces["z"]).sum(1)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_traces_through_jit_and_scan():
    def run(key):
        trace = seed(walk.simulate)(key, 0.5, STEPS)
        again = lambda t, k: (seed(walk.regenerate)(k, t, "z")[0], t.score)  # noqa: E731
        return lax.scan(again, trace, jax.random.split(key, 4))[0]

    trace = jax.jit(run)(jax.random.key(0))
    score, retval = walk.assess(trace.choices, 0.5, STEPS)
    assert float(trace.score) == pytest.approx(float(score), abs=1e-12)
    jax.tree.map(np.testing.assert_array_equal, retval, trace.retval)


def test_save_and_load(tmp_path):
    """A trace is saved leaf by leaf and loaded into the shape of another."""
    trace = seed(walk.simulate)(jax.random.key(0), 0.5, STEPS)
    eqx.tree_serialise_leaves(tmp_path / "trace.eqx", trace)
    blank = eqx.filter_eval_shape(seed(walk.simulate), jax.random.key(1), 0.5, STEPS)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "trace.eqx", blank)
    assert jax.tree.structure(loaded) == jax.tree.structure(trace)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(loaded), jax.tree.leaves(trace))


class Line(eqx.Module):
    slope: jax.Array
    name: str = "line"

    def __call__(self, x):
        return self.slope * x


@gen
def fitted(line, x):
    return sample("y", dist.Normal(line(x), 1.0))


def test_equinox_modules_as_arguments():
    """Their arrays are traced (and differentiated), the rest is static."""
    line, x, y = Line(jnp.array(2.0)), jnp.arange(3.0), jnp.array([0.5, 1.5, 4.0])
    grad = eqx.filter_grad(lambda m: fitted.assess({"y": y}, m, x)[0])(line)
    assert float(grad.slope) == pytest.approx(float(((y - 2 * x) * x).sum()), abs=1e-12)


def test_a_module_as_a_model():
    """`gen` of a module: its arrays are the model's leaves."""

    class Noisy(eqx.Module):
        scale: jax.Array

        def __call__(self, x):
            return sample("y", dist.Normal(x, self.scale))

    def score(module):
        return gen(module).assess({"y": 1.0}, 0.0)[0]

    scale = jnp.array(2.0)
    assert float(score(Noisy(scale))) == pytest.approx(float(dist.Normal(0, 2.0).log_prob(1.0)))
    assert float(jax.grad(score)(Noisy(scale)).scale) == pytest.approx(1 / 8 - 1 / 2, abs=1e-14)


@gen(static_argnames=("n",))
def unrolled(n, p=0.5):
    return sum(sample(f"x{i}", dist.Bernoulli(p)) for i in range(n))


def test_static_and_keyword_arguments():
    assert list(unrolled.sites(3)) == [("x0",), ("x1",), ("x2",)]
    score, total = unrolled.assess({"x0": 1, "x1": 0}, n=2, p=0.25)
    assert float(score) == pytest.approx(np.log(0.25 * 0.75), abs=1e-14)
    assert int(total) == 1
    mean = jax.jit(integrate(lambda: unrolled.simulate(3, p=0.2).retval))()
    assert float(mean) == pytest.approx(0.6)


def test_one_model_written_four_ways():
    """vmap, scan, map and a Python loop have the same density."""
    means, values = jnp.array([0.0, 1.0, -1.0]), jnp.array([0.3, 0.8, -2.0])
    one = lambda m: sample("y", dist.Normal(m, 0.5))  # noqa: E731
    ways = [
        gen(lambda: jax.vmap(one)(means)),
        gen(lambda: lax.map(one, means)),
        gen(lambda: lax.scan(lambda c, m: (c, one(m)), 0, means)[1]),
        gen(lambda: sample("y", dist.Normal(means, 0.5))),
    ]
    scores = [float(model.assess({"y": values})[0]) for model in ways]

    @gen
    def loop():
        for i, m in enumerate(means):
            sample(f"y{i}", dist.Normal(m, 0.5))

    scores.append(float(loop.assess({f"y{i}": v for i, v in enumerate(values)})[0]))
    np.testing.assert_allclose(scores, scores[0], rtol=1e-14)


@gen
def table(p):
    def row(q):
        a = sample("a", dist.Bernoulli(q))
        return sample("b", dist.Bernoulli(0.2 + 0.6 * a))

    return jax.vmap(row)(jnp.array([0.3, 0.6, 0.5]) * p)


def test_partial_observation_is_the_marginal():
    """E[e^w] under a mask is the sum over what the mask leaves out, exactly."""
    values, mask = jnp.array([1, 1, 0]), jnp.array([True, False, True])

    def evidence(constraint):
        return float(jax.jit(integrate(lambda: jnp.exp(table.generate(constraint, 0.9)[1])))())

    full = [evidence({"b": values.at[1].set(v)}) for v in (0, 1)]
    assert evidence({"b": Masked(values, mask)}) == pytest.approx(sum(full), abs=1e-14)
    nothing = Masked(values, jnp.zeros(3, bool))
    assert evidence({"b": nothing}) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_have_the_dtype_of_the_parameters(dtype):
    """In both precisions; the score agrees with numpyro's to that precision's rounding."""
    start, scale = jnp.asarray(0.5, dtype), jnp.asarray(0.7, dtype)
    trace = seed(walk.simulate)(jax.random.key(0), start, STEPS.astype(dtype), noise=scale)
    assert trace["z"].dtype == dtype
    z = np.asarray(trace["z"], "float64")
    means = np.concatenate([[0.5], z[:-1]]) + np.asarray(STEPS.astype(dtype), "float64")
    expected = dist.Normal(means, float(scale)).log_prob(z).sum()
    # three terms of order one, each with a handful of roundings
    assert float(trace.score) == pytest.approx(
        float(expected), abs=float(30 * jnp.finfo(dtype).eps)
    )


def test_target_without_latents_of_the_model_moves():
    """A kernel's update cannot change the data, and potential is minus the log joint."""

    @gen
    def model(x):
        slope = sample("slope", dist.Normal(0.0, 1.0))
        scale = sample("scale", dist.LogNormal(0.0, 1.0))
        sample("y", dist.Normal(slope * x, scale))

    x, y = jnp.arange(3.0), jnp.array([0.1, 1.2, 1.9])
    target = Target(model, (x,), {"y": y})
    z = {"slope": jnp.array(0.4), "scale": jnp.array(-0.3)}
    values, log_det = target.constrain(z)
    expected = dist.Normal(0.0, 1.0).log_prob(0.4) + dist.LogNormal(0.0, 1.0).log_prob(np.exp(-0.3))
    expected += dist.Normal(0.4 * x, np.exp(-0.3)).log_prob(y).sum() - 0.3
    assert float(log_det) == pytest.approx(-0.3, abs=1e-15)
    assert float(target.potential(z)) == pytest.approx(-float(expected), abs=1e-13)
    back = target.unconstrain(values)
    assert float(back["scale"]) == pytest.approx(-0.3, abs=1e-15)


def test_a_target_prints_its_model_arguments_and_data():
    target = Target(walk, (0.5, STEPS[:1]), {"z": Masked(jnp.zeros(1), jnp.array([False]))})
    assert repr(target) == "Target(walk, (0.5, [0.1]), {'z': Masked([0.0], [False])})"
    many = Target(walk, (0.5, jnp.zeros(20)), {})
    assert repr(many) == "Target(walk, (0.5, float64[20]), {})"


@pytest.mark.parametrize("constant", [3, 2.5, True, jnp.asarray(0)])
def test_a_constant_return_value_is_an_array(constant):
    @gen
    def model():
        sample("x", dist.Normal(0.0, 1.0))
        return constant

    retval = model.assess({"x": 0.0})[1]
    assert isinstance(retval, jax.Array) and retval == constant
    assert retval.dtype == jnp.result_type(constant)


# R2: beside a loop of branches that is not touched, its presence was a single flag
@pytest.mark.slow
@pytest.mark.parametrize("loop", ["vmap", "scan"])
@pytest.mark.parametrize("selected", [("a",), ("b",), ("c",), ("a", "b"), ("b", "c")])
def test_regenerate_beside_a_loop_of_branches(loop, selected):
    """w = the change of the log density of what was kept, with everything else anew."""

    def one(j):
        first = lambda: sample("a", dist.Normal(0.0, 1.0))  # noqa: E731
        return jax.lax.cond(j < 2, first, lambda: sample("c", dist.Normal(3.0, 2.0)))

    @gen
    def model():
        if loop == "vmap":
            s = jax.vmap(one)(jnp.arange(3)).sum()
        else:
            s = jax.lax.scan(lambda c, j: (c + one(j), None), 0.0, jnp.arange(3))[0]
        sample("b", dist.Normal(s, 1.0))

    def parts(trace):
        a, b, c = (np.asarray(trace[name]) for name in "abc")
        loc = a.sum() + c.sum()
        return {
            "a": norm.logpdf(a[:2]).sum(),
            "b": norm.logpdf(b, loc),
            "c": norm.logpdf(c[2], 3.0, 2.0),
        }

    trace = seed(model.simulate)(jax.random.key(0))
    new, weight, _ = seed(model.regenerate)(jax.random.key(1), trace, select(*selected))
    before, after = parts(trace), parts(new)
    kept = [name for name in "abc" if name not in selected]
    change = sum(after[name] - before[name] for name in kept)
    np.testing.assert_allclose(weight, change, rtol=0, atol=1e-13)
    np.testing.assert_allclose(new.score, sum(after.values()), rtol=1e-13)
    for name in kept:
        np.testing.assert_array_equal(new[name], trace[name])
