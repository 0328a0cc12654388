"""Algorithms as densities: the laws of drawn and of given values, exactly, by enumeration.

Past 400 lines since one small model serves every law of every algorithm.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Algorithm,
    Weighted,
    advance,
    by_annealing,
    by_filter,
    by_importance,
    collapse,
    conditional_filter,
    cycle,
    each,
    importance,
    lift,
    log_evidence,
    marginal,
    marginalize,
    mh,
    mhg,
    multinomial,
    normalize,
    particle_filter,
    propose,
    spawn,
    start,
    then,
    unit,
)
from ppl import Masked, Target, draw, factor, gen, integrate, sample, scan, seed, select
from ppl.errors import AddressNotFound, CannotSimulate, InvalidArgument, MissingChoice
from semantics import check_kernel
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a million products of probabilities in float64


def exact(f):
    """The exact expectation of a random program, compiled."""
    return jax.jit(integrate(f), compiler_options=QUICK)


PRIOR = jnp.array([0.2, 0.3, 0.5])


@gen
def pair(scale):
    b = sample("b", dist.Categorical(PRIOR))
    a = sample("a", dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[b]))
    sample("y", dist.Bernoulli(scale * (0.1 + 0.3 * a + 0.2 * b)))
    factor(0.3 * a)
    return a + b


@gen
def holes():
    """Half of what the prior makes is impossible."""
    b = sample("b", dist.Categorical(PRIOR))
    sample("y", dist.Bernoulli(jnp.array([0.0, 0.4, 0.0])[b]))


@gen
def optional():
    """`b` happens only if `a` is 1."""
    a = sample("a", dist.Bernoulli(0.4))
    one = lambda: sample("b", dist.Bernoulli(0.3))  # noqa: E731
    b = jax.lax.cond(a == 1, one, lambda: jnp.zeros((), jnp.result_type(int)))
    sample("y", dist.Bernoulli(0.2 + 0.3 * a + 0.4 * b))


@gen
def step(k, flip):
    new = sample("k", dist.Bernoulli(jnp.where(k == 1, 1 - flip, flip)))
    sample("y", dist.Bernoulli(jnp.array([0.9, 0.2])[new]))
    return new, flip


@gen
def chain():
    sample("z", dist.Bernoulli(0.3))
    _, flips = sample("chain", scan(step)(0, jnp.array([0.3, 0.6])))
    factor(flips.sum())


PAIR = Target(pair, (0.9,), {"y": 1})
CHAIN = Target(chain, (), {"z": 1, "chain": {"y": jnp.array([1, 0])}})
TARGETS = {
    "pair": (PAIR, [{"b": b, "a": a} for b in range(3) for a in range(2)]),
    "holes": (Target(holes, (), {"y": 1}), [{"b": b} for b in range(3)]),
    "optional": (
        Target(optional, (), {"y": 1}),
        [{"a": a, "b": b} for a, b in ((0, 0), (1, 0), (1, 1))],
    ),
    "chain": (CHAIN, [{"chain": {"k": k}} for k in itertools.product((0, 1), repeat=2)]),
}


def on_b(target):
    return mh(target, "b")


def forwards(target):
    return cycle(mh(target, "b"), mh(target, "a"))


def backwards(target):
    return cycle(mh(target, "a"), mh(target, "b"))


@gen
def guess(scale):
    b = sample("b", dist.Categorical(PRIOR[::-1]))
    sample("a", dist.Bernoulli(0.3 + 0.2 * b * scale))


@gen
def lamp_guess(scale):
    lamp = draw(dist.Bernoulli(0.4))
    b = sample("b", dist.Categorical(jnp.roll(PRIOR, lamp)))
    sample("a", dist.Bernoulli(0.3 + 0.2 * b * scale))


@gen
def seen_guess(scale):
    guess.fn(scale)
    sample("z", dist.Bernoulli(0.3 * scale))


def of_guess(scale):
    return Target(seen_guess, (scale,), {"z": 1})


CASES = {
    "importance, 1": ("pair", by_importance(1)),
    "importance, 3": ("pair", by_importance(3)),
    "importance, zeros": ("holes", by_importance(2)),
    "importance, branches": ("optional", by_importance(2)),
    "importance, a proposal": ("pair", by_importance(2, guess)),
    "importance, an estimated proposal": ("pair", by_importance(2, lamp_guess)),
    "importance, nested": ("pair", by_importance(2, normalize(of_guess, by_importance(2)))),
    "importance, nested twice": (
        "pair",
        by_importance(1, normalize(of_guess, by_importance(2, lamp_guess))),
    ),
    "filter": ("chain", by_filter("chain", 2, threshold=0.9)),
    "filter, 3": ("chain", by_filter("chain", 3)),
    "filter, never resampled": ("chain", by_filter(("chain", "k"), 2, threshold=0.0)),
    "annealing": ("pair", by_annealing(2, on_b, (0.0, 0.4, 1.0), reverse=on_b, threshold=0.9)),
    "annealing, 3": ("pair", by_annealing(3, on_b, (0.3, 1.0), reverse=on_b, threshold=1.0)),
    "annealing, a cycle": ("pair", by_annealing(2, forwards, (0.2, 1.0), reverse=backwards)),
    "annealing, independent": (
        "pair",
        by_annealing(1, forwards, (0.2, 0.7, 1.0), reverse=backwards, threshold=0),
    ),
    "annealing, zeros": ("holes", by_annealing(2, on_b, (0.0, 0.5, 1.0), reverse=on_b)),
}

# Their sums have the most paths: they are compiled in the second stage.
LONG = {"annealing, 3", "annealing, a cycle", "annealing, independent", "annealing around"}


def cases(table):
    """The rows of a table as cases of a test, by name."""
    return [
        pytest.param(*row, id=name, marks=pytest.mark.slow if name in LONG else ())
        for name, row in table.items()
    ]


def at(found, value):
    """Which of the found values, stacked in front or not, are this one."""
    same = [
        (leaf == jnp.array(x)).reshape(*leaf.shape[: leaf.ndim - jnp.ndim(x)], -1).all(-1)
        for leaf, x in zip(jax.tree.leaves(found), jax.tree.leaves(value), strict=True)
    ]
    return jnp.stack(same).all(0)


def values(x):
    return jax.tree.map(jnp.asarray, x, is_leaf=lambda leaf: not isinstance(leaf, dict))


@pytest.mark.slow
@pytest.mark.parametrize("name, algorithm", cases(CASES))
def test_the_conditional_version_is_that_of_the_algorithm(name, algorithm):
    """The law of `Algorithm`, for functions of a particle and of the mean weight."""
    target, support = TARGETS[name]

    def of_mass(mass):
        return jnp.stack([jnp.ones(()), jnp.exp(mass), jnp.where(mass > -20, jnp.exp(-mass), 0.0)])

    def run():
        s = algorithm(target)(unit())
        there = jnp.stack([at(target.choices(s.value), values(x)) for x in support])
        return (there * jnp.exp(s.log_weight)).mean(1)[:, None] * of_mass(log_evidence(s))

    def beside(x):
        s = algorithm.given(target, target.at(x)[0])
        held = at(jax.tree.map(lambda leaf: leaf[0], target.choices(s.value)), x)
        return held, of_mass(log_evidence(s))

    found, conditional = exact(run)(), exact(beside)
    for row, x in zip(found, support, strict=True):
        mass = jnp.exp(target.log_density(values(x)))
        if mass > 0:
            held, expected = conditional(values(x))
            assert abs(held - 1) < EXACT
            np.testing.assert_allclose(row, mass * expected, rtol=0, atol=EXACT)


@gen
def auxiliary(shift):
    """What is kept depends on what is not."""
    middle = sample("middle", dist.Categorical(PRIOR))
    sample("b", dist.Categorical(jnp.roll(PRIOR, middle)))
    sample("a", dist.Bernoulli(shift + 0.2 * middle))


def of_pair(scale):
    return Target(pair, (scale,), {"y": 1})


DENSITIES = {
    name: (normalize(target, using), (), support)
    for name, (case, using) in CASES.items()
    for target, support in [TARGETS[case]]
} | {
    "of arguments": (normalize(of_pair, by_importance(2)), (0.7,), TARGETS["pair"][1]),
    "marginal": (
        marginalize(auxiliary, select("a", "b"), by_importance(2)),
        (0.3,),
        TARGETS["pair"][1],
    ),
    "marginal, 3": (
        marginalize(auxiliary, select("a", "b"), by_importance(3)),
        (0.3,),
        TARGETS["pair"][1],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("density, args, support", cases(DENSITIES))
def test_the_two_densities(density, args, support):
    """E[f e^(-score)] sums f over the support; E[e^score] is the law of what is drawn."""

    def drawn():
        trace = density.simulate(*args)
        there = jnp.stack([at(trace.choices, values(x)) for x in support])
        return there * (trace.score < jnp.inf), there * jnp.exp(-trace.score)

    law, ones = exact(drawn)()
    np.testing.assert_allclose(ones, law > 0, rtol=0, atol=EXACT)
    given = exact(lambda x: jnp.exp(density.assess(x, *args)[0]))
    np.testing.assert_allclose([given(values(x)) for x in support], law, rtol=0, atol=EXACT)


def test_what_is_kept_has_its_own_law():
    """The marginal is exact, whatever the number of particles."""
    seen = marginalize(auxiliary, "b", by_importance(2))
    given = exact(lambda b: jnp.exp(seen.assess({"b": b}, 0.3)[0]))
    expected = sum(PRIOR[i] * jnp.roll(PRIOR, i) for i in range(3))
    np.testing.assert_allclose([given(b) for b in range(3)], expected, rtol=0, atol=EXACT)


def test_densities_have_gradients():
    """The derivative of the mean estimate is that of the law of the draws."""
    density = normalize(of_pair, by_importance(2))
    x = {"b": jnp.array(2), "a": jnp.array(1)}

    def drawn(scale):
        found = importance(of_pair(scale), 2)(unit())
        w = jnp.exp(found.log_weight)
        return (w * (found.value["b"] == 2) * (found.value["a"] == 1)).sum() / w.sum()

    def given(scale):
        return jnp.exp(density.assess(x, scale)[0])

    for f in (integrate, lambda f: jax.grad(integrate(f))):
        assert abs(jax.jit(f(given))(0.7) - jax.jit(f(drawn))(0.7)) < EXACT


# -- as proposals --------------------------------------------------------------------------------


@gen
def hidden(k, x):
    new = sample("k", dist.Bernoulli(jnp.where(k == 1, 0.7, 0.2)))
    more = sample("more", dist.Bernoulli(0.3 + 0.4 * new))
    sample("y", dist.Bernoulli(0.1 + 0.5 * new * x + 0.3 * more))
    return new, None


def this_step(k, x, observed):
    return Target(hidden, (k, x), observed)


@gen
def crude(k, x):
    """A rough model of two steps, of which the first is seen."""
    k = sample("k", dist.Bernoulli(jnp.where(k == 1, 0.6, 0.3)))
    sample("y", dist.Bernoulli(0.2 + 0.5 * k * x))


def crude_step(k, x, observed):
    return Target(crude, (k, x), observed)


@gen
def by_lamp(k, x, observed):
    lamp = sample("lamp", dist.Bernoulli(0.3 + 0.4 * observed["y"]))
    sample("k", dist.Bernoulli(0.2 + 0.6 * lamp))


PROPOSALS = {
    "importance": normalize(this_step, by_importance(2)),
    "of some choices": normalize(crude_step, by_importance(2)),
    "any step": normalize(crude_step, lambda target: importance(target, 2)),
    "auxiliary": marginalize(by_lamp, "k", by_importance(2)),
}
SEEN = {"y": jnp.array([1, 0])}
INPUTS = jnp.array([1.0, 0.6])


@pytest.mark.slow
@pytest.mark.parametrize("proposal", PROPOSALS.values(), ids=PROPOSALS)
def test_one_step_with_a_stochastic_proposal_is_proper(proposal):
    """The whole measure of the step's latents, by two particles."""

    def measure(how):
        grow = each(advance(hidden, {"y": 1}, 0.8, value=lambda trace: trace.choices, **how))

        def run():
            s = then(spawn(2), grow)(Weighted(jnp.array(1), jnp.zeros(())))
            hot = jnp.zeros((2, 2, 2)).at[jnp.arange(2), s.value["k"], s.value["more"]].set(1.0)
            return (jnp.exp(s.log_weight)[:, None, None] * hot).mean(0)

        return exact(run)()

    np.testing.assert_allclose(measure({"proposal": proposal}), measure({}), rtol=0, atol=EXACT)


@gen
def in_turn(k, flips):
    """A step of a filter that makes two states at once."""
    k, _ = sample("pair", scan(step)(k, flips))
    sample("seen", dist.Bernoulli(jnp.array([0.8, 0.3])[k]))
    return k, None


def of_both(k, flips, observed):
    """The states of `in_turn`, without what is seen afterwards."""
    return Target(
        gen(lambda k: sample("pair", scan(step)(k, 0.9 * flips))),
        (k,),
        {"pair": observed["pair"]},
    )


@pytest.mark.slow
def test_a_filter_inside_of_the_proposal_of_a_filter():
    """Nested SMC: the evidence, and the mean of the last state, whatever is inside."""
    inner = normalize(of_both, by_filter("pair", 2, threshold=0.9))
    flips = jnp.array([[0.3, 0.6], [0.5, 0.2]])
    seen = {"pair": {"y": jnp.array([[1, 0], [0, 1]])}, "seen": jnp.array([1, 0])}

    def run(proposal, n):
        def f():
            found = particle_filter(
                in_turn, 0, seen, n, xs=flips, proposal=proposal, scheme=multinomial
            ).particles
            w = jnp.exp(found.log_weight)
            return w.mean(), (w * found.value).mean()

        return exact(f)()

    np.testing.assert_allclose(run(inner, 1), run(None, 1), rtol=0, atol=EXACT)


def near_pair(x):
    """What another model of the two, seen otherwise, says beside where we are."""

    @gen
    def other(b):
        b = sample("b", dist.Categorical(jnp.roll(PRIOR, b)))
        sample("z", dist.Bernoulli(0.2 + 0.2 * b))

    return Target(other, (x["b"],), {"z": 1})


def pair_again(x):
    return Target(pair, (0.3 + 0.2 * x["b"],), {"y": 0})


KERNELS = {
    "importance": lambda t: propose(t, normalize(near_pair, by_importance(2))),
    "independent": lambda t: propose(
        t, normalize(lambda x: PAIR, by_annealing(1, on_b, (0.5, 1.0), reverse=on_b))
    ),
    "auxiliary": lambda t: propose(
        t, marginalize(gen(lambda x: auxiliary.fn(0.1 + 0.1 * x["b"])), "a", by_importance(2))
    ),
    "an involution": lambda t: mhg(
        t, normalize(pair_again, by_importance(2)), lambda x, u: (u, x), name="swap"
    ),
    "of what is beside": lambda t: lift_given(t, by_importance(2)),
    "annealing around": lambda t: lift_given(
        t, by_annealing(2, forwards, (0.2, 1.0), reverse=backwards)
    ),
}


def lift_given(target, algorithm):
    """A draw from the particles around the trace: particle Gibbs."""
    return lambda trace: collapse(algorithm.given(target, trace)).value


@pytest.mark.slow
@pytest.mark.parametrize("make", cases({name: (make,) for name, make in KERNELS.items()}))
def test_kernels_leave_the_target(make):
    check_kernel(make, PAIR).require()


def test_an_algorithm_that_may_find_nothing_is_a_proposal():
    """What is drawn then has the score +inf, and is refused."""
    target = TARGETS["holes"][0]
    lost = exact(lambda: jnp.isinf(normalize(target, by_importance(2)).simulate().score) * 1.0)
    assert abs(lost() - 0.7**2) < EXACT
    again = normalize(lambda x: target, by_importance(2))
    wide = normalize(lambda x: Target(holes, (), {"y": 0}), by_importance(2))
    for proposal in (again, wide):
        check_kernel(lambda t, proposal=proposal: propose(t, proposal), target).require()


def test_proposals_in_branches():
    """The proposal makes a choice or not, as the target does."""
    target = TARGETS["optional"][0]
    other = normalize(lambda x: Target(optional, (), {"y": 0}), by_importance(2))
    check_kernel(lambda t: propose(t, other), target).require()


# -- in a model ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_with_an_algorithm_in_it_has_the_law_of_the_algorithm():
    """As a likelihood, and as a prior that is moved: p(i) times the law of what is drawn."""
    inside = normalize(of_pair, by_importance(2))
    scales = jnp.array([0.5, 0.9])

    @gen
    def outer():
        i = sample("i", dist.Bernoulli(0.4))
        a_and_b = sample("inside", inside(scales[i]))
        sample("seen", dist.Bernoulli(0.1 + 0.2 * a_and_b))

    def law(i):
        def drawn():
            trace = inside.simulate(scales[i])
            return jnp.zeros((3, 2)).at[trace["b"], trace["a"]].set(1.0)

        return exact(drawn)()

    seen = 0.1 + 0.2 * (jnp.arange(3)[:, None] + jnp.arange(2))
    whole = jnp.stack([(0.6, 0.4)[i] * law(i) * seen for i in range(2)])

    def measure(target, step):
        def run():
            s = step(unit())
            choices = s.value.choices
            at = choices["i"], choices["inside"]["b"], choices["inside"]["a"]
            return jnp.exp(s.log_weight) * jnp.zeros((2, 3, 2)).at[at].set(1.0)

        return exact(run)()

    target = Target(outer, (), {"seen": 1})
    likelihood = Target(outer, (), {"seen": 1, "inside": {"b": 2, "a": 1}})
    for t, step in (
        (target, start(target)),
        (target, then(start(target), lift(mh(target, ("inside", "b"))))),
        (likelihood, then(start(likelihood), lift(mh(likelihood, "i")))),
    ):
        expected = whole if t is target else jnp.zeros((2, 3, 2)).at[:, 2, 1].set(whole[:, 2, 1])
        np.testing.assert_allclose(measure(t, step), expected, rtol=0, atol=EXACT)
    with pytest.raises(CannotSimulate, match="scores with factor"):
        outer.simulate()


def test_an_algorithm_integrates_out_what_is_not_kept():
    """`marginal` takes algorithms, as it takes functions from targets to steps."""
    kept = marginal(PAIR, "b", by_importance(2))

    def run():
        s = then(start(kept), lift(mh(kept, "b")))(unit())
        return jnp.exp(s.log_weight) * (s.value["b"] == jnp.arange(3))

    expected = [sum(jnp.exp(PAIR.log_density({"b": b, "a": a})) for a in (0, 1)) for b in range(3)]
    np.testing.assert_allclose(exact(run)(), jnp.stack(expected), rtol=0, atol=EXACT)


def test_densities_of_normals_under_jit_and_vmap_in_single_precision():
    """Mean reciprocal of the density estimate, times a density: one, within 5 standard errors."""

    @gen
    def normal(y):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu, 1.0))

    post = normalize(lambda y: Target(normal, (y,), {"y": y}), by_importance(20))

    def ratio(key, y):
        drawn, given = jax.random.split(key)
        trace = seed(post.simulate)(drawn, y)
        known = dist.Normal(y / 2, 0.5**0.5)
        back = known.sample(given)
        score, _ = seed(post.assess)(given, {"mu": back}, y)
        return jnp.stack(
            [
                jnp.exp(known.log_prob(trace["mu"]) - trace.score),
                jnp.exp(score - known.log_prob(back)),
            ]
        )

    with jax.enable_x64(False):
        ratios = jax.jit(jax.vmap(ratio, (0, None)))(
            jax.random.split(jax.random.key(0), 2000), jnp.float32(1.0)
        )
    assert ratios.dtype == jnp.float32
    # two means of 2000: a false alarm has probability 1e-6, at this key it is certain either way
    errors = ratios.std(0) / 2000**0.5
    assert (abs(ratios.mean(0) - 1) < 5 * errors).all()


# -- what cannot be ------------------------------------------------------------------------------


@gen
def noisy():
    b = sample("b", dist.Bernoulli(0.4))
    factor(jnp.log(0.5 + draw(dist.Bernoulli(0.2 + 0.5 * b))))


@gen
def rows():
    sample("b", dist.Bernoulli(0.4))
    sample("y", dist.Bernoulli(0.3).expand([2]))


def scored(scale):
    guess.fn(scale)
    factor(scale)


IN_PART = Masked(jnp.array([1, 0]), jnp.array([True, False]))
NO_TRACES = Algorithm("none", lambda target: lambda s: s, lambda target, trace: None)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: by_importance(0), "is not a number"),
        (
            lambda: normalize(PAIR, by_importance(1, gen(scored))).assess({"b": 1, "a": 0}),
            "scored scores with factor",
        ),
        (lambda: by_filter("chain", 1), "n is not a number"),
        (lambda: by_filter("chain", 2, threshold=1.0), "threshold is not a number"),
        (lambda: normalize(lambda: None, by_importance(2)).simulate(), "no target to normalize"),
        (
            lambda: normalize(Target(noisy, (), {"b": 1}), by_importance(2)).simulate(),
            "without latents",
        ),
        (
            lambda: normalize(Target(rows, (), {"y": IN_PART}), by_importance(2)).simulate(),
            "observed in part",
        ),
        (lambda: normalize(PAIR, NO_TRACES).simulate(), "no traces of its target"),
        (
            lambda: normalize(PAIR, lambda t: importance(t, 2)).assess({"a": 0, "b": 0}),
            "no conditional version",
        ),
        (lambda: normalize(Target(noisy), by_importance(2)).assess({"b": 1}), "not known"),
        (lambda: normalize(PAIR, by_filter("b", 2)).simulate(), "not a series of states"),
        (
            lambda: conditional_with(normalize(crude_step, by_importance(2))),
            "density of .* is only estimated",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(InvalidArgument, match=says) as found:
        seed(call)(jax.random.key(0))
    assert "test_stochastic.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12


def conditional_with(proposal):
    path = {"k": jnp.zeros(2, int), "more": jnp.zeros(2, int)}
    return conditional_filter(hidden, 0, SEEN, path, 2, xs=INPUTS, proposal=proposal)


@pytest.mark.parametrize(
    "proposal, kind, says",
    [
        (gen(lambda _: sample("a", dist.Bernoulli(0.5))), MissingChoice, 'does not make "b"'),
        (gen(lambda _: sample("c", dist.Bernoulli(0.5))), AddressNotFound, 'names "c"'),
    ],
)
def test_a_proposal_of_other_choices_is_named(proposal, kind, says):
    with pytest.raises(kind, match=says) as found:
        seed(normalize(PAIR, by_importance(2, proposal)).simulate)(jax.random.key(0))
    assert "test_stochastic.py" in str(found.value) and "algorithms.py" not in str(found.value)


def test_a_missing_choice_is_named():
    with pytest.raises(MissingChoice, match='"a"'):
        normalize(PAIR, by_importance(2)).assess({"b": 1})
