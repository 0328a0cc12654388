"""Copies whose parents are outside, all summed out: exact, against enumeration in NumPy.

The oracle adds up at most 600 products of at most 30 factors, and differentiates by a complex
step; densities are logs of size 1e2 at most. So 1e-12 is room for densities and laws, whose
errors are some 1e-14 relative, and for slopes, of size 10.

Joint draws and simulations are 500 each, against the exact law, by an e-value that alarms falsely
with probability 1e-11: 20 of them with at most 2e-10.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from summed_plates import CASES, N, normal, outcomes

from inference import beliefs, most_likely, restore, sum_out
from ppl import Masked, gen, sample, seed, select
from semantics.compiling import QUICK
from semantics.evidence.e_values import multinomial

EXACT, DRAWS, ALARM = 1e-12, 500, 1e-11
STEP = 1e-40
QUICK_ONES = ("a common parent", "two parents", "impossible rows", "two choices in turn")


def slow(name):
    return name if name in QUICK_ONES else pytest.param(name, marks=pytest.mark.slow)


def compiled(f, *args):
    return jax.jit(f, compiler_options=QUICK)(*args)


def everything(case, p, key):
    """All that is compared, in one program."""
    quiet = sum_out(case.model, select(*case.summed))
    given = {name: jnp.asarray(value) for name, value in case.given.items()}
    density = jax.value_and_grad(lambda p: quiet.assess(given, p)[0])(p)
    seen: dict = dict(given)
    if any(site.conditional for site in quiet.sites(p).values()):
        seen["w"] = Masked(given["w"], jnp.array([True, False, True]))
    trace, weight = seed(quiet.generate)(key, seen, p)
    best = most_likely(quiet, trace)
    laws = beliefs(quiet, trace)
    probs = {name: jax.vmap(laws[name].log_prob)(_values(*case.summed[name]))
             for name in case.summed}  # fmt: skip
    draws = jax.vmap(lambda key: seed(restore)(key, quiet, trace))(jax.random.split(key, DRAWS))
    drawn = {name: draws.choices[name] for name in case.summed}
    likely = {name: best.choices[name] for name in case.summed}
    return density, weight, (best.score, likely), probs, (drawn, draws.score)


def _values(count, shape):
    return jnp.broadcast_to(jnp.arange(count).reshape(-1, *[1] * len(shape)), (count, *shape))


@pytest.mark.parametrize("name", map(slow, CASES))
def test_all_laws_by_enumeration(name):
    """Density, slope, beliefs, the likeliest values, and joint draws."""
    case, p = CASES[name], 0.3
    every = outcomes(case)
    weights = np.array([case.weight(p, v) for v in every])
    slopes = np.array([np.imag(case.weight(p + STEP * 1j, v)) / STEP for v in every])
    mass = weights.sum()
    found = compiled(lambda p, key: everything(case, p, key), p, jax.random.key(0))
    (value, slope), log_weight, (score, likely), probs, (drawn, scores) = found
    np.testing.assert_allclose([value, log_weight], np.log(mass), rtol=0, atol=EXACT)
    np.testing.assert_allclose(slope, slopes.sum() / mass, rtol=0, atol=EXACT)
    for choice, (count, _) in case.summed.items():
        own = np.stack([v[choice] for v in every])
        exact = [np.tensordot(weights / mass, own == i, 1) for i in range(count)]
        np.testing.assert_allclose(np.exp(probs[choice]), exact, rtol=0, atol=EXACT)
    here = {row(v): i for i, v in enumerate(every)}
    np.testing.assert_allclose(score, np.log(weights.max()), rtol=0, atol=EXACT)
    np.testing.assert_allclose(weights[here[row(likely)]], weights.max(), rtol=1e-12)
    which = [here[row({n: x[i] for n, x in drawn.items()})] for i in range(DRAWS)]
    assert multinomial(np.bincount(which, minlength=len(every)), weights / mass) < -math.log(ALARM)
    np.testing.assert_allclose(scores, np.log(weights[which]), rtol=0, atol=EXACT)


def row(values):
    return tuple(np.concatenate([np.ravel(values[name]) for name in sorted(values)]).tolist())


STRAIGHT = [name for name, case in CASES.items() if "loop" not in name and not case.loops]


@pytest.mark.parametrize("name", [*STRAIGHT, "branches"])
def test_copies_go_side_by_side_where_they_can(name):
    """The models have no loops, and neither have their densities, but for choices in branches."""
    case = CASES[name]
    quiet = sum_out(case.model, select(*case.summed))
    given = {name: jnp.asarray(value) for name, value in case.given.items()}
    found = str(jax.make_jaxpr(lambda p: quiet.assess(given, p)[0])(0.3))
    assert ("scan[" in found) == case.loops


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("name", ["impossible rows", *map(slow, STRAIGHT[:3])])
def test_probabilities_of_zero_have_slopes(name, p):
    """The slope is that of the sum of products, outcomes without a chance among them; where all
    is impossible, it is some number."""
    case = CASES[name]
    quiet = sum_out(case.model, select(*case.summed))
    given = {name: jnp.asarray(value) for name, value in case.given.items()}
    value, slope = compiled(jax.value_and_grad(lambda p: quiet.assess(given, p)[0]), p)
    mass = sum(case.weight(p, v) for v in outcomes(case))
    change = sum(np.imag(case.weight(p + STEP * 1j, v)) / STEP for v in outcomes(case))
    if mass:
        np.testing.assert_allclose([value, slope], [np.log(mass), change / mass], atol=EXACT)
    else:
        assert value == -np.inf and np.isfinite(slope)


@gen
def coins(p):
    """All is finite, so that the law of what is kept can be written down."""
    k = sample("k", dist.Bernoulli(p))

    def one(q):
        z = sample("z", dist.Bernoulli(q * (1 + k) / 2))
        y = sample("y", dist.Bernoulli(0.1 + 0.7 * z))
        sample("w", dist.Bernoulli((0.5 + 0.4 * k * y) * q))

    jax.vmap(one)(jnp.array([0.3, 0.9]))
    sample("end", dist.Bernoulli(0.2 + 0.6 * k))


def test_what_is_kept_is_made_from_its_law():
    """The probabilities of all values add up to one, and simulations have them."""
    quiet = sum_out(coins, select("k", "z"))
    rows = jnp.array(list(np.ndindex(*[2] * 5)))

    def of(row):
        return {"y": row[:2], "w": row[2:4], "end": row[4]}

    logs, drawn = compiled(
        lambda keys: (
            jax.vmap(lambda row: quiet.assess(of(row), 0.4)[0])(rows),
            jax.vmap(lambda key: seed(quiet.simulate)(key, 0.4))(keys),
        ),
        jax.random.split(jax.random.key(1), DRAWS),
    )
    np.testing.assert_allclose(np.exp(logs).sum(), 1.0, rtol=0, atol=EXACT)
    bits = np.column_stack([drawn["y"], drawn["w"], drawn["end"]])
    which = bits @ (2 ** np.arange(5)[::-1])
    np.testing.assert_allclose(drawn.score, np.asarray(logs)[which], rtol=0, atol=EXACT)
    assert multinomial(np.bincount(which, minlength=32), np.exp(logs)) < -math.log(ALARM)


def test_copies_whose_data_are_missing_tell_nothing():
    """A mask of copies leaves their factors out, whatever values they have."""
    case, there = CASES["two parents"], np.array([True, False, True])
    quiet = sum_out(case.model, select(*case.summed), missing={"x": jnp.asarray(~there)})
    xs = jnp.where(jnp.asarray(there), case.given["x"], 17.0)
    found = compiled(lambda p: quiet.assess({"x": xs}, p)[0], 0.3)
    mass = sum(case.weight(0.3, v) / np.prod(normal(case.given["x"], v["z"] + v["b"])[~there])
               for v in outcomes(case))  # fmt: skip
    np.testing.assert_allclose(found, np.log(mass), rtol=0, atol=EXACT)


def test_no_copies_tell_nothing():
    @gen
    def model(p):
        k = sample("k", dist.Bernoulli(p))

        def one(q):
            z = sample("z", dist.Bernoulli(q * (1 + k) / 2))
            sample("y", N(z))

        jax.vmap(one)(jnp.zeros(0))
        sample("x", N(k))

    quiet = sum_out(model, select("k", "z"))
    trace, score = quiet.generate({"y": jnp.zeros(0), "x": 0.4}, 0.3)
    seen = np.exp(-0.5 * np.array([0.4, -0.6]) ** 2) / np.sqrt(2 * np.pi) * [0.7, 0.3]
    np.testing.assert_allclose(score, np.log(seen.sum()), rtol=0, atol=EXACT)
    found = beliefs(quiet, trace)
    np.testing.assert_allclose(found["k"].probs, seen[1] / seen.sum(), rtol=0, atol=EXACT)
    assert found["z"].probs.shape == (0,)


@pytest.mark.parametrize("mapped", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_two_maps_put_out_meets_one_by_one(mapped):
    """Their plates are the same, which is seen where elements of both meet."""
    p, q, y = np.array([0.2, 0.5, 0.7]), np.array([0.3, 0.1, 0.6]), np.array([0.3, -1.0, 2.0])

    @gen
    def model():
        z = jax.vmap(lambda p: sample("z", dist.Bernoulli(p)))(jnp.asarray(p))
        w = jax.vmap(lambda p: sample("w", dist.Bernoulli(p)))(jnp.asarray(q))
        if mapped:
            jax.vmap(lambda z, w: sample("y", N(z + 2.0 * w)))(z, w)
        else:
            sample("y", N(z + 2.0 * w))

    quiet = sum_out(model, select("z", "w"))
    found = compiled(lambda: quiet.assess({"y": jnp.asarray(y)})[0])
    law = np.stack([(1 - p) * (1 - q), p * (1 - q), (1 - p) * q, p * q])
    seen = np.exp(-0.5 * (y - np.arange(4.0)[:, None]) ** 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(found, np.log((law * seen).sum(0)).sum(), rtol=0, atol=EXACT)


@pytest.mark.parametrize("how", ["array", "event", "copies"])
def test_the_probability_of_much_data_is_not_zero(how):
    """5000 coins with a parent in common: a product of 1e-1500 is held as a logarithm."""
    n, heads = 5000, np.array([0.4, 0.5])
    ys = np.arange(n) % 2

    @gen
    def model(heads):
        k = sample("k", dist.Bernoulli(0.3))
        if how == "copies":
            jax.vmap(lambda one: sample("y", dist.Bernoulli(heads[k] * one)))(jnp.ones(n))
        else:
            law = dist.Bernoulli(heads[k] * jnp.ones(n))
            sample("y", law.to_event(1) if how == "event" else law)

    quiet = sum_out(model, "k")
    run = jax.value_and_grad(lambda heads: quiet.assess({"y": jnp.asarray(ys)}, heads)[0])
    value, slope = compiled(run, jnp.asarray(heads))
    each = (n - ys.sum()) * np.log(1 - heads) + ys.sum() * np.log(heads) + np.log([0.7, 0.3])
    law = np.exp(each - each.max())
    # 5000 logarithms of errors of 1e-16 each, of a sum of 3e3
    np.testing.assert_allclose(value, np.log(law.sum()) + each.max(), rtol=1e-12)
    exact = law / law.sum() * (ys.sum() / heads - (n - ys.sum()) / (1 - heads))
    np.testing.assert_allclose(slope, exact, rtol=0, atol=1e-9)


def test_addresses_and_shapes_stay():
    for case in CASES.values():
        sites = sum_out(case.model, select(*case.summed)).sites(0.3)
        known = case.model.sites(0.3)
        left = [path for path in known if path[0] not in case.summed]
        assert list(sites) == left
        assert [sites[p].shape for p in left] == [known[p].shape for p in left]
        assert [sites[p].dtype for p in left] == [known[p].dtype for p in left]
        assert [sites[p].support for p in left] == [known[p].support for p in left]
