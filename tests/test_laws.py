"""The laws of the six methods, exactly, on finite models: no sampling anywhere.

`integrate` and `law` enumerate the methods themselves. Tolerances are 1e-12: sums
of at most a few thousand probabilities in float64, each with a relative rounding
error of some 1e-15.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from models import MODELS

from ppl import draw, everything, factor, gen, integrate, law, paths, sample, seed, select
from ppl.addresses import flatten, nest
from ppl.execute import Given
from semantics.compiling import QUICK

EXACT = 1e-12
P = 0.4
model_cases = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def key(i=0):
    return jax.random.key(i)


def prior(model):
    """Traces, properly weighted for the model's measure (factors included)."""
    return model.generate({}, P)


@pytest.mark.slow
@model_cases
def test_total_mass_and_simulate(model):
    """simulate's law is exp(score), each choice map once; assess agrees with the score."""
    if "scored" in model.name:
        pytest.skip("a scored model has no simulate; test_errors covers the refusal")

    def run():
        trace = model.simulate(P)
        again, retval = model.assess(trace.choices, P)
        return trace.choices, trace.score, again, retval, trace.retval

    found = law(run)()
    _, score, again, retval, mine = found.values
    np.testing.assert_allclose(found.masses, np.exp(score), rtol=EXACT)
    np.testing.assert_allclose(again, score, rtol=0, atol=EXACT)
    jax.tree.map(np.testing.assert_array_equal, retval, mine)
    assert found.masses.sum() == pytest.approx(1.0, abs=EXACT)
    assert len(law(lambda: model.simulate(P).choices)().masses) == len(found.masses)


@model_cases
def test_generate_is_properly_weighted(model):
    """E[e^w] of generate equals the mass of the traces that extend the constraint."""
    first, *rest = model.sites(P).values()
    last = rest[-1] if rest else first
    values, weights = jax.jit(paths(lambda: _with_weight(model)), compiler_options=QUICK)()
    for site in {first.path: first, last.path: last}.values():
        ones = jnp.ones(site.shape, site.dtype)
        constraint = nest({site.path: ones})
        total = integrate(lambda c=constraint: jnp.exp(model.generate(c, P)[1]))
        evidence = jax.jit(total, compiler_options=QUICK)()
        choices, log_weight = values
        extends = (flatten(choices)[site.path] == ones).reshape(len(weights), -1).all(1)
        expected = jnp.sum(jnp.where(extends, weights * jnp.exp(log_weight), 0))
        assert float(evidence) == pytest.approx(float(expected), abs=EXACT)


def _with_weight(model):
    trace, weight = prior(model)
    return trace.choices, weight


@pytest.mark.slow
@model_cases
def test_project_adds_up(model):
    """Over a partition of the addresses, project adds up to the score."""
    trace, _ = jax.jit(seed(model.generate), compiler_options=QUICK)(key(1), {}, P)
    parts = [select(path) for path in model.sites(P)]

    def projected(trace):
        whole = model.project(trace, everything)
        return [model.project(trace, part) + model.project(trace, ~part) for part in parts], whole

    totals, whole = jax.jit(projected, compiler_options=QUICK)(trace)
    for total in (*totals, whole):
        assert float(total) == pytest.approx(float(trace.score), abs=EXACT)


@pytest.mark.slow
@model_cases
def test_update_and_back(model):
    """Updating to another trace of the model and back is the identity, with weight -w."""
    run = jax.jit(seed(model.generate), compiler_options=QUICK)
    there = jax.jit(seed(lambda t, c: model.update(t, c)), compiler_options=QUICK)
    for i in range(4):
        old, _ = run(key(i), {}, P)
        new, _ = run(key(100 + i), {}, P)
        absent = {p for p, flag in flatten(new.present).items() if not np.all(flag)}
        target = nest({p: v for p, v in flatten(new.choices).items() if p not in absent})
        changed, weight, discarded = there(key(0), old, target)
        fresh = [p for p in absent if np.any(flatten(new.present)[p])]
        if not fresh:
            assert float(weight) == pytest.approx(float(new.score - old.score), abs=EXACT)
            jax.tree.map(np.testing.assert_array_equal, changed.choices, new.choices)
        back, undone, _ = there(key(1), changed, discarded)
        jax.tree.map(np.testing.assert_array_equal, back.choices, old.choices)
        jax.tree.map(np.testing.assert_array_equal, back.present, old.present)
        assert float(back.score) == pytest.approx(float(old.score), abs=EXACT)
        if not fresh:
            assert float(undone) == pytest.approx(float(-weight), abs=EXACT)


@pytest.mark.slow
@model_cases
def test_regenerate_is_the_metropolis_ratio(model):
    """For all pairs: w = log p(t') K(t', t) / p(t) K(t, t'), K the law of regenerate."""
    sites = list(model.sites(P))
    selection = select(*sites[:2])
    states = law(lambda: _with_weight(model))()
    choices, _ = states.values
    n = len(states.masses)
    chosen = np.unique(np.linspace(0, n - 1, 12).astype(int))

    table = {}
    after = lambda v: paths(lambda: _regenerated(model, v, selection))()  # noqa: E731
    step = jax.jit(after, compiler_options=QUICK)
    for i in chosen:
        values = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), choices)
        (score, new, new_score, weight), mass = step(values)
        rows = _rows(new)
        for row, s2, w, m in zip(rows, np.asarray(new_score), weight, mass, strict=True):
            if m > 0:
                start = [float(score[0]), float(s2), float(w), 0.0]
                entry = table.setdefault((_row(values), row), start)
                entry[3] += float(m)
    compared = 0
    for (a, b), (score, new_score, weight, mass) in table.items():
        if (b, a) in table:
            back = table[b, a][3]
            ratio = new_score + np.log(back) - score - np.log(mass)
            assert weight == pytest.approx(ratio, abs=1e-10)  # two logs of sums of <= 1e3 terms
            compared += 1
    assert compared >= len(chosen)


@gen
def scoring(n=0):
    x = sample("x", dist.Bernoulli(P))
    factor(x * jnp.log(3.0))
    return x


@gen
def drawing(n=0):
    """Scored by an estimate: three on average."""
    x = sample("x", dist.Bernoulli(P))
    factor(x * jnp.log(jnp.where(draw(dist.Bernoulli(0.5)) == 1, 2.0, 4.0)))
    return x


IN_CALLS = {
    "itself": (scoring, everything),
    "call": (gen(lambda: sample("sub", scoring())), select("sub")),
    "loop": (gen(lambda: jax.lax.scan(lambda c, _: (c, sample("s", scoring())), 0, None, 2)), "s"),
    "estimate": (gen(lambda: sample("sub", drawing())), select("sub")),
}


@pytest.mark.parametrize("model, selection", IN_CALLS.values(), ids=IN_CALLS.keys())
def test_factors_of_what_is_regenerated_count(model, selection):
    """All choices are made anew, so that the ratio is that of the factors."""

    def one():
        old, _ = model.generate({})
        new, weight, _ = model.regenerate(old, selection)
        return weight, (new.score - old.score), flatten(old.choices), flatten(new.choices)

    (weight, scores, old, new), masses = jax.jit(paths(one), compiler_options=QUICK)()
    ones = sum(np.asarray(new[p] - old[p]).reshape(len(masses), -1).sum(1) for p in old)
    expected = scores - ones * np.log(P / (1 - P))  # less that of the priors
    np.testing.assert_allclose(weight[masses > 0], expected[masses > 0], atol=EXACT)


def _regenerated(model, values, selection):
    """Regenerate from the trace with these choices (its draws are all determined)."""
    old = _trace_of(model, values)
    new, weight, _ = model.regenerate(old, selection)
    return old.score, new.choices, new.score, weight


def _trace_of(model, values):
    run = model._prepare((P,), {})
    given = {p: Given(v) for p, v in flatten(values).items()}
    return run.trace(run.rule(), given)[0]


def _rows(choices):
    leaves = [np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(choices)]
    return [tuple(row) for row in np.concatenate(leaves, 1).tolist()]


def _row(values):
    return tuple(np.concatenate([np.ravel(v) for v in jax.tree.leaves(values)]).tolist())
