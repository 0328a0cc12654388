"""Translations between targets: the whole measure, by enumeration and by quadrature.

Past 400 lines since the same few targets serve all directions between them.
"""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Move,
    Weighted,
    by_importance,
    each,
    importance,
    lift,
    marginalize,
    mh,
    multinomial,
    normalize,
    over,
    resample,
    spawn,
    start,
    then,
    translate,
    unit,
    weigh,
    when_ess_below,
)
from ppl import Target, draw, factor, gen, integrate, sample, seed
from ppl.errors import (
    AddressNotFound,
    CannotSimulate,
    InvalidArgument,
    MissingChoice,
    PPLError,
    ShapeError,
)
from semantics import check_proper
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a million products of probabilities in float64
MOVES = jnp.array([[0.8, 0.2], [0.3, 0.7]])
EMITS = jnp.array([0.9, 0.2])  # the probability of seeing 1


def exact(f):
    """The exact expectation of a random program, compiled."""
    return jax.jit(integrate(f), compiler_options=QUICK)


# -- finite: other addresses, more of them, and fewer ----------------------------------------------


@gen
def one(before):
    k = sample("k", dist.Categorical(MOVES[before]))
    sample("y", dist.Bernoulli(EMITS[k]))
    return k


@gen
def two(before):
    """A step more; the first state has another name."""
    k = sample("first", dist.Categorical(MOVES[before]))
    sample("y", dist.Bernoulli(EMITS[k]))
    new = sample("second", dist.Categorical(MOVES[k]))
    sample("z", dist.Bernoulli(EMITS[new]))


SHORT = Target(one, (0,), {"y": 1})
LONG = Target(two, (0,), {"y": 1, "z": 0})


@gen
def grow(x):
    sample("new", dist.Categorical(jnp.array([[0.4, 0.6], [0.1, 0.9]])[x["k"]]))


@gen
def both(x):
    """The old state again, seeing what comes next, and the new one."""
    k = sample("k", dist.Bernoulli(0.3 + 0.4 * x["k"]))
    sample("new", dist.Categorical(jnp.array([[0.4, 0.6], [0.1, 0.9]])[k]))


@gen
def old(x):
    sample("k", dist.Bernoulli(0.2 + 0.1 * x["first"] + 0.3 * x["second"]))


@gen
def estimated_both(x):
    lamp = draw(dist.Bernoulli(0.3 + 0.4 * x["k"]))
    k = sample("k", dist.Bernoulli(0.2 + 0.6 * lamp))
    sample("new", dist.Categorical(jnp.array([[0.4, 0.6], [0.1, 0.9]])[k]))


@gen
def estimated_old(x):
    lamp = draw(dist.Bernoulli(0.4))
    sample("k", dist.Bernoulli(0.2 + 0.1 * x["first"] + 0.3 * lamp))


@gen
def lamp_and_old(x):
    lamp = sample("lamp", dist.Bernoulli(0.4))
    sample("k", dist.Bernoulli(0.2 + 0.1 * x["first"] + 0.3 * lamp))


@gen
def guess(x):
    k = sample("k", dist.Bernoulli(0.3 + 0.4 * x))
    new = sample("new", dist.Categorical(MOVES[k]))
    sample("z", dist.Bernoulli(0.7 - 0.4 * new))


def appended(x, u):
    return {"first": x["k"], "second": u["new"]}, {}


def renewed(x, u):
    return {"first": u["k"], "second": u["new"]}, {"k": x["k"]}


def shortened(x, u):
    return {"k": x["first"]}, {"new": x["second"]}


STOCHASTIC = (
    normalize(lambda x: Target(guess, (x["k"],), {"z": 0}), by_importance(2)),
    marginalize(lamp_and_old, "k", by_importance(2)),
)
GROWING = {
    "appended": (grow, None, appended),
    "renewed": (both, old, renewed),
    "estimated": (estimated_both, estimated_old, renewed),
    "stochastic": (*STOCHASTIC, renewed),
}


@pytest.mark.parametrize("how", GROWING.values(), ids=GROWING)
def test_one_particle_goes_to_the_longer_target(how):
    check_proper(lambda t: translate(SHORT, t, *how), LONG, source=lambda t: SHORT).require()


@pytest.mark.parametrize("n", [2, 3])
def test_a_population_grows(n):
    """Importance, resampling, growth with the old state renewed: the whole measure."""
    grown = each(translate(SHORT, LONG, both, old, renewed))

    def make(target):
        return then(importance(SHORT, n), lambda s: resample(s, multinomial), grown)

    check_proper(make, LONG).require()


def test_a_target_shrinks():
    """The other way: what was a latent is one that the backward proposal could have made."""
    check_proper(
        lambda t: translate(LONG, t, None, grow, shortened), SHORT, source=lambda t: LONG
    ).require()


def test_there_and_back_cancel():
    """The composition is the identity, with weight one."""
    there = translate(SHORT, LONG, grow, None, appended)
    back = translate(LONG, SHORT, None, grow, shortened)
    s = seed(lambda: then(there, back)(Weighted(SHORT.at({"k": 1})[0], jnp.zeros(()))))(
        jax.random.key(0)
    )
    assert s.value["k"] == 1
    assert abs(s.log_weight) < EXACT


def test_what_has_no_mass_keeps_none():
    """A particle of weight zero, and one where the source is zero, stay at weight zero."""
    step = translate(SHORT, LONG, grow, None, appended)
    trace = SHORT.at({"k": 1})[0]
    nowhere = replace(trace, score=jnp.asarray(-jnp.inf))
    for there, log_weight in ((trace, -jnp.inf), (nowhere, -jnp.inf), (nowhere, 0.0)):
        s = seed(step)(jax.random.key(0), Weighted(there, jnp.asarray(log_weight)))
        assert s.log_weight == -jnp.inf


# -- a filter --------------------------------------------------------------------------------------

SEEN = jnp.array([1, 0, 1])


def filtered(how, n, threshold=0.9, kernel=None):
    """Particles of the last two states, of which the last is renewed at each step (SMCP3)."""

    def steps(row):
        y, z = row

        def grown(s):
            before, k = s.value
            source, target = (
                Target(one, (before,), {"y": y}),
                Target(two, (before,), {"y": y, "z": z}),
            )
            found = translate(source, target, *how)(Weighted(source.at({"k": k})[0], s.log_weight))
            if kernel is not None:
                found = lift(kernel(target))(found)
            return Weighted((found.value["first"], found.value["second"]), found.log_weight)

        return then(when_ess_below(threshold, multinomial), each(grown))

    def begun(s):
        found = start(Target(one, (0,), {"y": SEEN[0]}))(s)
        return Weighted((jnp.zeros((), int), found.value["k"]), found.log_weight)

    return then(spawn(n), each(begun), over(steps, (SEEN[:-1], SEEN[1:])))


FILTERS = {
    "appended": (2, (grow, None, appended), None),
    "renewed": (2, (both, old, renewed), None),
    "and moved": (2, (grow, None, appended), lambda t: mh(t, "first")),
    "one particle": (1, (both, old, renewed), lambda t: mh(t, "second")),
}


@pytest.mark.slow
@pytest.mark.parametrize("n, how, kernel", FILTERS.values(), ids=FILTERS)
def test_a_filter_of_translations(n, how, kernel):
    """The measure of the last two states given all that was seen, against brute force."""
    expected = np.zeros((2, 2))
    for path in itertools.product((0, 1), repeat=3):
        p, before = 1.0, 0
        for k, y in zip(path, SEEN, strict=True):
            p *= float(MOVES[before, k]) * float(EMITS[k] if y else 1 - EMITS[k])
            before = k
        expected[path[1:]] += p

    def run():
        s = filtered(how, n, kernel=kernel)(unit())
        hot = jnp.zeros((n, 2, 2)).at[jnp.arange(n), s.value[0], s.value[1]].set(1.0)
        return (jnp.exp(s.log_weight)[:, None, None] * hot).mean(0)

    np.testing.assert_allclose(exact(run)(), expected, rtol=0, atol=EXACT)


# -- continuous ------------------------------------------------------------------------------------
#
# The target is the image of the source under the map times a polynomial, so that Gauss
# quadrature of the weight is exact if, and only if, the determinant is right.

LOC, SCALE = 0.5, 2.0
normal = gen(lambda: sample("x", dist.Normal(0.0, 1.0)))
SOURCE = Target(normal)


@gen
def shifted():
    z = sample("z", dist.Normal(LOC, SCALE))
    factor(jnp.log(1 + z**2))


@gen
def positive():
    z = sample("z", dist.LogNormal(0.0, 1.0))
    factor(jnp.log(1 + jnp.log(z) ** 2))


@gen
def pair():
    p = sample("p", dist.Normal(0.0, 2.0 * 2**0.5))
    q = sample("q", dist.Normal(0.0, 3.0 * 2**0.5))
    factor(jnp.log(1 + p**2 * q**2))


@gen
def pair_and_kind():
    """A discrete choice that the map turns over, and a vector."""
    kind = sample("kind", dist.Bernoulli(0.3))
    both = sample("both", dist.Normal(0.0, jnp.array([2.0, 3.0]) * 2**0.5).to_event(1))
    factor(jnp.log(1 + kind + both[0] ** 2))


normal_too = gen(lambda x: sample("u", dist.Normal(0.0, 1.0)))
kind_too = gen(lambda x: (sample("u", dist.Normal(0.0, 1.0)), sample("kind", dist.Bernoulli(0.4))))


def rotated(x, u):
    return {"p": 2.0 * (x["x"] + u["u"]), "q": 3.0 * (x["x"] - u["u"])}, {}


def stacked(x, u):
    there = jnp.stack([2.0 * (x["x"] + u["u"]), 3.0 * (x["x"] - u["u"])])
    return {"kind": 1 - u["kind"], "both": there}, {}


def unrotated(x, u):
    p, q = x["p"] / 2.0, x["q"] / 3.0
    return {"x": (p + q) / 2}, {"u": (p - q) / 2}


@gen
def doubled():
    sample("z", dist.Normal(0.0, 1.0))
    factor(jnp.log(2.0))


MAPS = {
    "scaled": (
        (SOURCE, Target(shifted), None, None, lambda x, u: ({"z": LOC + SCALE * x["x"]}, {})),
        1 + LOC**2 + SCALE**2,
    ),
    "bent": ((SOURCE, Target(positive), None, None, lambda x, u: ({"z": jnp.exp(x["x"])}, {})), 2),
    "two from one": ((SOURCE, Target(pair), normal_too, None, rotated), 1 + 8 * 18),
    "one from two": ((Target(pair), SOURCE, None, normal_too, unrotated), 1),
    "a vector, and a kind": (
        (SOURCE, Target(pair_and_kind), kind_too, None, stacked),
        1 + 0.3 + 8,
    ),
    "exchanged": (
        (
            SOURCE,
            Target(doubled),
            normal_too,
            normal_too,
            lambda x, u: ({"z": u["u"]}, {"u": x["x"]}),
        ),
        2,
    ),
}


@pytest.mark.parametrize("how, mass", MAPS.values(), ids=MAPS)
def test_the_determinant(how, mass):
    """The total mass of the target, which is known."""
    step = then(start(how[0]), translate(*how))
    found, _ = jax.jit(integrate(lambda: jnp.exp(step(unit()).log_weight), nodes=(8, 10)))()
    assert abs(found - mass) < EXACT * mass


def test_what_is_passed_on_has_no_determinant():
    """Numbers that go to other addresses as they are: the map is not differentiated."""
    for (source, target, *proposals, there), times in (
        (MAPS["exchanged"][0], 1),
        (MAPS["two from one"][0], 2),
    ):
        calls = []

        def counted(x, u, there=there, calls=calls):
            calls.append(x)
            return there(x, u)

        step = translate(source, target, *proposals, counted)
        seed(step)(jax.random.key(0), Weighted(source.at({"x": 0.3})[0], jnp.zeros(())))
        assert len(calls) == times


def test_a_move_is_a_translation():
    """An involution, as `weigh` takes it, by both."""

    def stretched(x, u):
        return {"x": x["x"] * jnp.exp(u["u"])}, {"u": -u["u"]}

    trace, target = (
        SOURCE.at({"x": 0.3})[0],
        Target(gen(lambda: sample("x", dist.Cauchy(0.0, 1.0)))),
    )
    begun = Weighted(trace, jnp.zeros(()))
    ours = translate(SOURCE, target, normal_too, normal_too, stretched, stretched)
    theirs = weigh(Move(normal_too, stretched), SOURCE, target)
    a, b = (seed(step)(jax.random.key(0), begun) for step in (ours, theirs))
    assert a.log_weight == b.log_weight and a.value["x"] == b.value["x"]


def test_a_population_in_single_precision():
    """Mean weights are the mass, within 5 of their standard errors, compiled and batched."""
    how, mass = MAPS["two from one"]
    wide = gen(lambda x: sample("u", dist.Normal(0.0, 1.2)))
    with jax.enable_x64(False):
        step = then(importance(SOURCE, 2000), each(translate(how[0], how[1], wide, None, rotated)))
        run = jax.jit(seed(lambda: step(unit()).log_weight))
        w = jnp.exp(run(jax.random.key(0)))
    assert w.dtype == jnp.float32
    assert abs(w.mean() - mass) < 5 * w.std() / 2000**0.5


def test_the_weight_has_a_gradient():
    """By the parameter of the target, against a finite difference that is exact for a quadratic."""

    def log_weight(loc):
        target = Target(gen(lambda: sample("z", dist.Normal(loc, 1.0))))
        step = translate(SOURCE, target, None, None, lambda x, u: ({"z": 2.0 * x["x"]}, {}))
        return seed(step)(
            jax.random.key(0), Weighted(SOURCE.at({"x": 0.3})[0], jnp.zeros(()))
        ).log_weight

    slope = jax.grad(log_weight)(0.1)
    assert abs(slope - (log_weight(1.1) - log_weight(-0.9)) / 2) < EXACT
    assert abs(slope - (0.6 - 0.1)) < EXACT


# -- what cannot be --------------------------------------------------------------------------------


def scored(x):
    sample("k", dist.Bernoulli(0.5))
    factor(1.0)


CASES = {
    "missing": (
        (SHORT, LONG, None, None, lambda x, u: ({"first": x["k"]}, {})),
        MissingChoice,
        '"second"',
    ),
    "another": (
        (SHORT, SHORT, None, None, lambda x, u: ({"k": x["k"], "m": x["k"]}, {})),
        AddressNotFound,
        '"m"',
    ),
    "way back": ((LONG, SHORT, None, None, shortened), AddressNotFound, '"new"'),
    "no way back": (
        (LONG, SHORT, None, grow, lambda x, u: ({"k": x["first"]}, {})),
        MissingChoice,
        '"new"',
    ),
    "forward scores": ((SHORT, LONG, gen(scored), old, renewed), CannotSimulate, "scores"),
    "backward scores": ((SHORT, LONG, both, gen(scored), renewed), InvalidArgument, "scores"),
    "fewer numbers": (
        (SOURCE, Target(pair), None, None, lambda x, u: ({"p": x["x"], "q": 2.0 * x["x"]}, {})),
        ShapeError,
        "number of coordinates",
    ),
    "shape": (
        (SOURCE, Target(shifted), None, None, lambda x, u: ({"z": jnp.stack([x["x"]])}, {})),
        ShapeError,
        '"z"',
    ),
    "back gives another": (
        (SHORT, LONG, grow, None, appended, lambda x, u: ({"k": x["first"]}, {})),
        InvalidArgument,
        "something else than",
    ),
}


@pytest.mark.parametrize("how, error, says", CASES.values(), ids=CASES)
def test_what_cannot_be_is_refused(how, error, says):
    """Before anything compiles, with the user's line."""
    trace, _ = seed(how[0].generate)(jax.random.key(0))
    with pytest.raises(error, match=says) as found:
        seed(translate(*how))(jax.random.key(0), Weighted(trace, jnp.zeros(())))
    assert isinstance(found.value, PPLError)
    assert "test_translate.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12


@pytest.mark.slow
def test_a_round_trip_that_does_not_come_back_stops_the_run():
    """On the host, so that it is JAX's error that has the message."""
    trace = Weighted(SOURCE.at({"x": 0.3})[0], jnp.zeros(()))

    def run(back):
        how = SOURCE, Target(pair), normal_too, None, rotated, back
        return jax.jit(seed(translate(*how)))(jax.random.key(0), trace).log_weight

    assert jnp.isfinite(run(unrotated))
    with pytest.raises(jax.errors.JaxRuntimeError, match="do not undo each other"):
        run(lambda x, u: ({"x": x["p"] / 2.0}, {"u": x["q"] / 3.0})).block_until_ready()
