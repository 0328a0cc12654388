"""Interventions and counterfactuals, exactly, on finite models and by hand.

Tolerances are 1e-12: sums of at most some ten thousand probabilities in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from models import MODELS

from ppl import Masked, draw, factor, gen, law, observe, paths, sample, seed, select
from ppl.addresses import flatten, nest
from ppl.causal import do, twin
from ppl.errors import (
    AddressNotFound,
    DtypeError,
    DuplicateAddress,
    InvalidArgument,
    MissingChoice,
    ShapeError,
)
from ppl.graph import dependencies

EXACT = 1e-12
P = 0.4
every_site = pytest.mark.parametrize(
    "name, path",
    [(name, path) for name, model in MODELS.items() for path in model.sites(P)],
    ids=lambda x: x if isinstance(x, str) else "/".join(x),
)


@pytest.mark.slow
@every_site
def test_truncated_factorisation(name, path):
    """For every trace: its density under `do` of one of its own values is its density
    without that choice's factor, and the return value is the same."""
    model = MODELS[name]

    def run():
        trace, _ = model.generate({}, P)
        values = flatten(trace.choices)
        cut = do(model, nest({path: values.pop(path)}))
        score, retval = cut.assess(nest(values), P)
        expected = trace.score - model.project(trace, select(path))
        return score, expected, retval, trace.retval

    (score, expected, retval, mine), probabilities = jax.jit(paths(run))()
    kept = np.asarray(probabilities) > 0
    np.testing.assert_allclose(score[kept], expected[kept], rtol=0, atol=EXACT)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[kept], b[kept]), retval, mine)


def confounded():
    u = sample("u", dist.Bernoulli(0.3))
    x = sample("x", dist.Bernoulli(jnp.array([0.2, 0.9])[u]))
    return sample("y", dist.Bernoulli(jnp.array([[0.1, 0.6], [0.5, 0.8]])[u, x]))


confounded = gen(confounded)


def test_doing_is_not_seeing():
    done = law(do(confounded, {"x": 1}).simulate)()
    assert done.mass(lambda t: t.retval == 1) == pytest.approx(0.7 * 0.6 + 0.3 * 0.8, abs=EXACT)
    seen = law(confounded.simulate)()
    joint = seen.mass(lambda t: t["x"] == 1 and t["y"] == 1)
    given = joint / seen.mass(lambda t: t["x"] == 1)
    by_hand = (0.7 * 0.2 * 0.6 + 0.3 * 0.9 * 0.8) / (0.7 * 0.2 + 0.3 * 0.9)
    assert given == pytest.approx(by_hand, abs=EXACT) and abs(by_hand - 0.66) > 0.05


def test_counterfactual_by_hand():
    """Had x been 1, given that x was 0 and y was 1: u keeps its posterior."""
    worlds = twin(confounded, {"x": 1})

    def run():
        trace, log_weight = worlds.generate({"x": 0, "y": 1})
        return trace.retval[1], jnp.exp(log_weight)

    (y, weight), p = jax.jit(paths(run))()
    u = np.array([0.7 * 0.8 * 0.1, 0.3 * 0.1 * 0.5])
    u = u / u.sum()
    answer = (p * weight * y).sum() / (p * weight).sum()
    assert float(answer) == pytest.approx(u[0] * 0.6 + u[1] * 0.8, abs=EXACT)


def test_evidence_is_about_the_factual_world():
    @gen
    def model():
        u = sample("u", dist.Bernoulli(0.3))
        x = sample("x", dist.Bernoulli(0.5))
        observe(dist.Bernoulli(jnp.array([[0.1, 0.6], [0.5, 0.8]])[u, x]), 1)
        return u

    (u, weight), p = paths(
        lambda: (lambda t, w: (t.retval[1], jnp.exp(w)))(*twin(model, {"x": 1}).generate({}))
    )()
    mass = np.array([0.7 * 0.5 * (0.1 + 0.6), 0.3 * 0.5 * (0.5 + 0.8)])
    assert float((p * weight).sum()) == pytest.approx(mass.sum(), abs=EXACT)
    assert float((p * weight * u).sum()) == pytest.approx(mass[1], abs=EXACT)


FIRST = [(n, next(iter(m.sites(P)))) for n, m in MODELS.items() if n != "scored"]


@pytest.mark.slow
@pytest.mark.parametrize("name, path", FIRST, ids=[name for name, _ in FIRST])
def test_both_worlds_have_their_law(name, path):
    """The factual choices have the model's law, the shared and counterfactual ones that of do."""
    model, site = MODELS[name], MODELS[name].sites(P)[path]
    value = nest({path: jnp.ones(site.shape, site.dtype)})
    cut = do(model, value)
    affected = dependencies(model, P).descendants(path)

    def factual():
        choices, retval = both()
        return {p: v for p, v in choices.items() if p[0] != "counterfactual"}, retval[0]

    def counterfactual():
        choices, retval = both()
        mine = {p: choices[("counterfactual", *p) if p in affected else p] for p in rest}
        return mine, retval[1]

    def both():
        trace = twin(model, value).simulate(P)
        return flatten(trace.choices), trace.retval

    def alone(gf):
        trace = gf.simulate(P)
        return flatten(trace.choices), trace.retval

    rest = list(cut.sites(P))
    assert path not in rest
    for mine, theirs in ((factual, model), (counterfactual, cut)):
        left = law(lambda f=mine: strings(f()))()
        right = law(lambda m=theirs: strings(alone(m)))()
        jax.tree.map(np.testing.assert_array_equal, left.values, right.values)
        np.testing.assert_allclose(left.masses, right.masses, rtol=0, atol=EXACT)


def strings(result):
    choices, retval = result
    return {"/".join(p): v for p, v in choices.items()}, retval


def test_shared_choices_are_the_same():
    """What the intervention does not reach has one value: the difference is its effect."""

    @gen
    def line(xs):
        noise = jax.vmap(lambda _: sample("noise", dist.Normal(0.0, 1.0)))(xs)
        slope = sample("slope", dist.Normal(0.0, 1.0))
        return slope * xs + noise

    xs = jnp.arange(3.0)
    trace = seed(twin(line, {"slope": 2.0}).simulate)(jax.random.key(0), xs)
    assert set(trace.choices) == {"noise", "slope"}
    before, after = trace.retval
    np.testing.assert_allclose(after - before, (2.0 - trace["slope"]) * xs, atol=EXACT)


def test_values_are_arguments():
    """do can be vmapped and differentiated over its values, and off the support."""

    def score(x):
        return do(gen(model), {"s": x}).assess({"y": 1.0})[0]

    def model():
        return sample("y", dist.Normal(sample("s", dist.Uniform(0.0, 1.0)), 1.0))

    np.testing.assert_allclose(jax.vmap(jax.grad(score))(jnp.array([3.0, 0.5])), [-2.0, 0.5])
    do_nothing = do(confounded, {})
    np.testing.assert_allclose(law(do_nothing.simulate)().masses, law(confounded.simulate)().masses)


@pytest.mark.parametrize("make", [do, twin])
def test_another_value_traces_nothing_again(make):
    runs = []

    @gen
    def model():
        runs.append(1)
        return sample("y", dist.Bernoulli(0.2 + 0.5 * sample("x", dist.Bernoulli(0.5))))

    make(model, {"x": 0}).sites()
    first = len(runs)
    make(model, {"x": 1}).sites()
    assert len(runs) == first


def test_factors_keep_their_owner():
    @gen
    def inner():
        sample("y", dist.Bernoulli(0.5))
        factor(-0.5 * sample("x", dist.Bernoulli(0.5)))

    cut = do(gen(lambda: sample("sub", inner())), {"sub": {"x": 1}})
    trace, log_weight = cut.generate({"sub": {"y": 1}})
    assert float(log_weight) == pytest.approx(np.log(0.5) - 0.5)
    np.testing.assert_allclose(cut.project(trace, select("sub")), np.log(0.5) - 0.5)


def test_static_arguments_stay_static():
    model = gen(
        lambda n: [sample(f"x{i}", dist.Bernoulli(0.5)) for i in range(n)], static_argnums=(0,)
    )
    assert list(do(model, {"x1": 0}).sites(3)) == [("x0",), ("x2",)]
    assert list(twin(model, {"x1": 0}).sites(3)) == [("x0",), ("x1",), ("x2",)]


@pytest.mark.parametrize("make", [do, twin])
def test_errors(make):
    model = MODELS["chain"]
    with pytest.raises(AddressNotFound, match="no choice") as caught:
        make(model, {"frist": 1}).sites(P)
    assert "first" in caught.value.fix
    with pytest.raises(ShapeError):
        make(model, {"z": 1}).sites(P)
    with pytest.raises(DtypeError):
        make(model, {"first": 0.5}).sites(P)
    with pytest.raises(InvalidArgument, match="partial"):
        make(model, {"z": Masked(jnp.zeros(3, int), jnp.array([True, False, True]))})
    with pytest.raises(AddressNotFound):
        do(model, {"first": 1}).assess({"first": 1, "z": jnp.zeros(3, int), "end": 0}, P)
    with pytest.raises(MissingChoice):
        do(model, {"first": 1}).assess({"end": 0}, P)


def test_twin_refuses_what_it_cannot_share():
    noisy = gen(lambda: sample("x", dist.Normal(draw(dist.Normal(0.0, 1.0)), 1.0)))
    with pytest.raises(InvalidArgument, match="without an address") as caught:
        twin(noisy, {"x": 0.0}).sites()
    assert "test_causal.py" in caught.value.where[0]

    @gen
    def named():
        x = sample("x", dist.Bernoulli(0.5))
        sample("y", dist.Bernoulli(0.1 + 0.5 * x))
        sample(("counterfactual", "y"), dist.Bernoulli(0.5))

    with pytest.raises(DuplicateAddress):
        twin(named, {"x": 1}).sites()
