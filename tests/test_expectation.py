"""Derivatives of `expectation` are those of the mean: every strategy, in every construct.

The mean of an estimate is the sum over all of its own paths, so the comparison is exact: both
sides are sums of at most some ten thousand products in float64, of relative rounding error
1e-16 each, and 1e-11 leaves room for sums that cancel.

Over 400 lines, since strategies and constructs are one table.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from long import LONG
from numpy.testing import assert_allclose

from ppl import (
    PPLError,
    disarm,
    draw,
    enumerate_,
    expectation,
    gen,
    gumbel_softmax,
    integrate,
    learned,
    leave_one_out,
    measure_valued,
    moving_average,
    rebar,
    reinforce,
    relax,
    reparam,
    sample,
    seed,
    straight_through,
    without_replacement,
)
from ppl.errors import (
    AddressNotFound,
    BiasedStrategy,
    CannotEnumerate,
    GradientThroughDraw,
    NoStrategy,
    UnsupportedControlFlow,
)

EXACT = 1e-11

STRATEGIES = {
    "reinforce": reinforce(),
    "constant": reinforce(baseline=1.5),
    "leave one out": reinforce(leave_one_out(2)),
    "learned": reinforce(learned(lambda b, before: b["level"] + len(before), {"level": 0.5})),
    "enumerate": enumerate_(),
    "top": enumerate_(top=1),
    "measure valued": measure_valued(),
    "disarm": disarm(),
    "without replacement": without_replacement(1),
}


def flip(p, how):
    return draw(dist.Bernoulli(p), how)


def straight(how, p):
    a = flip(p, how)
    b = flip(jnp.where(a == 1, p**2, 1 - p), how)
    return jnp.sin(a + 2.0 * b) * p + b * a + jnp.exp(b)


def chain(how, p):
    def body(c, x):
        z = flip(jax.nn.sigmoid(c * p + x), how)
        return c + 0.5 * z, jnp.cos(z + c)

    c, ys = lax.scan(body, p, jnp.arange(2.0))
    return jnp.sum(ys) + jnp.sin(c)


def terms_of_a_loop(how, p):
    def body(c, x):
        z = flip(jax.nn.sigmoid(p + x), how)
        return c + jnp.cos(z * p + x), jnp.sin(z)

    c, ys = lax.scan(body, 0.0, jnp.arange(2.0), reverse=True)
    return c + 3 * jnp.sum(ys)


def branch(how, p):
    a = flip(p, how)
    y = lax.cond(a == 1, lambda: 2.0 * flip(p**2, how), lambda: jnp.sin(p))
    return jnp.exp(y)


def known_branch(how, p):
    a = lax.switch(1, [lambda: jnp.sin(p), lambda: 2.0 * flip(p**2, how), lambda: p])
    return p * jnp.exp(a)


def plate(how, p):
    z = jax.vmap(lambda q: flip(q, how))(p * jnp.array([1.0, 0.5]))
    return jnp.sum(jnp.sin(z + p * jnp.arange(2.0))) / 2


def together(how, p):
    z = flip(p * jnp.array([1.0, 0.5]), how)
    return p * jnp.sin(jnp.sum(z * jnp.array([1.0, 2.0])))


def kept(how, p):
    @jax.checkpoint
    def inner(p):
        a = flip(p, how)
        return jnp.sin(a + p), a

    y, a = inner(p)
    return y * jnp.cos(y) + jnp.exp(a * p)


def compiled(how, p):
    inner = jax.jit(lambda p: (flip(p, how), jnp.cos(p)))
    a, c = inner(p)
    b, d = inner(p**2)
    return jnp.exp(a * c) * (b + d)


def counted(how, p):
    return lax.fori_loop(0, 2, lambda i, s: jnp.sin(s + flip(p, how) + i), p)


def read_by_rows(how, p):
    z = flip(p * jnp.array([1.0, 0.5]), how)

    def body(c, z):
        w = flip(jnp.where(z == 1, p, p**2), reinforce())
        return c + jnp.sin(z + w * p), w

    c, w = lax.scan(body, 0.0, z)
    return c + jnp.sum(w * jnp.cos(z))


def two_read_by_rows(how, p):
    z = flip(p * jnp.array([1.0, 0.5]), how)
    w = flip(jnp.where(z == 1, p, p**2), how)

    def body(c, rows):
        z, w = rows
        return c + jnp.sin(z + w * p) * (1 + z * w), None

    return lax.scan(body, 0.0, (z, w))[0]


def made_and_read_by_rows(how, p):
    _, z = lax.scan(lambda c, x: (c, flip(p * x, how)), 0.0, jnp.array([1.0, 0.5]))
    return lax.scan(lambda c, z: (c + jnp.sin(2 * z + p) * (1 + c), None), 0.0, z)[0]


CONTEXTS = [straight, chain, terms_of_a_loop, branch, known_branch, plate, together, kept]
CONTEXTS += [compiled, counted, read_by_rows, two_read_by_rows]
CONTEXTS += [made_and_read_by_rows]
SCALARS_ONLY = {("together", "top"), ("together", "without replacement")}
LIKE_OTHERS = {"constant", "top"}
"""Strategies that take the way of another one: a learned baseline, all outcomes."""
QUICK = {("chain", "reinforce"), ("straight", "measure valued"), ("straight", "disarm")}
QUICK |= {("read_by_rows", "enumerate"), ("branch", "measure valued"), ("kept", "leave one out")}
QUICK |= {("together", "enumerate"), ("counted", "top"), ("plate", "without replacement")}


def cases():
    for context in CONTEXTS:
        for name in STRATEGIES:
            key = context.__name__, name
            if key not in SCALARS_ONLY:
                marks = [] if key in QUICK else [pytest.mark.slow]
                if name in LIKE_OTHERS and key not in QUICK and not LONG:
                    marks.append(pytest.mark.skip("like another: GIRY_LONG=1"))
                yield pytest.param(context, STRATEGIES[name], id="-".join(key), marks=marks)


def derivatives(f, p):
    """The value, and two derivatives; the second by forward over reverse."""
    slope = jax.grad(f)
    return f(p), *jax.jvp(slope, (p,), (jnp.ones(()),))


@pytest.mark.parametrize("context, how", cases())
def test_the_mean_of_the_estimate_is_the_derivative(context, how):
    program = partial(context, how)
    estimate = expectation(program)
    p = jnp.asarray(0.3)
    found = jax.jit(integrate(partial(derivatives, estimate)))(p)
    right = jax.jit(partial(derivatives, integrate(program)))(p)
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)
    assert np.all(np.asarray(right) != 0)


def three(hows, p):
    a = flip(p, hows[0])
    b = draw(dist.Categorical(probs=jnp.stack([p / 2, 1 - p, p / 2]) * (1 - a) + a / 3), hows[1])
    c = flip(jnp.where(a + b >= 1, p**2, 1 - p), hows[2])
    return jnp.sin(a + 2.0 * b + c * p) + a * b * c


TRIPLES = {"reinforce", "enumerate", "measure valued"}
QUICK_TRIPLES = {
    ("measure valued", "enumerate", "reinforce"),
    ("measure valued", "reinforce", "disarm"),
    ("measure valued", "without replacement", "reinforce"),
}


def test_a_function_of_the_noise_takes_nothing_from_the_mean():
    """The midpoint rule's error falls with the square of n, so it is a third of the change."""

    def program(p, *how):
        return jnp.sin(2.0 * draw(dist.Bernoulli(p), *how)) + p

    how = relax(lambda z, before: jax.nn.sigmoid(3 * z))
    p = jnp.asarray(0.25)

    def mean(n):
        slope = jax.grad(expectation(lambda p: program(p, how)))
        both = integrate(lambda p: jax.jvp(slope, (p,), (jnp.ones(()),)), nodes=n, rule="midpoint")
        return np.asarray(jax.jit(both)(p))

    right = np.asarray(derivatives(integrate(program), p)[1:])
    coarse, fine = mean(128), mean(256)
    assert np.all(abs(fine - coarse) < 1e-2)
    assert np.all(abs(fine - right) <= abs(fine - coarse) + EXACT)


def triples():
    for names in itertools.product(STRATEGIES, repeat=3):
        marks = [] if names in QUICK_TRIPLES else [pytest.mark.slow]
        if not set(names) <= TRIPLES and names not in QUICK_TRIPLES and not LONG:
            marks.append(pytest.mark.skip("in the long form: GIRY_LONG=1"))
        if names[1] != "disarm":  # the second choice has three outcomes
            yield pytest.param(names, id="-".join(names), marks=marks)


@pytest.mark.parametrize("names", triples())
def test_strategies_one_after_another(names):
    program = partial(three, [STRATEGIES[name] for name in names])

    def at_once(f, p):
        """As `derivatives`, in one run of the program, whose paths are many."""
        (value, slope), (_, curvature) = jax.jvp(jax.value_and_grad(f), (p,), (jnp.ones(()),))
        return value, slope, curvature

    p = jnp.asarray(0.3)
    found = jax.jit(integrate(partial(at_once, expectation(program))))(p)
    right = jax.jit(partial(derivatives, integrate(program)))(p)
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)


@gen
def guide(p):
    kind = sample("kind", dist.Bernoulli(p))
    size = sample("size", dist.Normal(2.0 * kind, 1 + p))
    return kind, size


def bound(p):
    trace = guide.simulate(p)
    kind, size = trace.retval
    return jnp.where(kind == 1, -0.5 * size**2, 0.3 * size) - trace.score


SLOWLY = pytest.param("measure valued", marks=pytest.mark.slow)


@pytest.mark.parametrize("how", ["reinforce", "enumerate", SLOWLY])
def test_strategies_are_given_by_address(how):
    """By quadrature, 24 nodes being exact for polynomials of degree 47 in the normal's noise."""
    p = jnp.asarray(0.3)
    right = jax.jit(partial(derivatives, integrate(bound, nodes=24)))(p)
    for size in (reparam(), reinforce()):
        estimate = expectation(bound, {"kind": STRATEGIES[how], "size": size})
        found = jax.jit(integrate(partial(derivatives, estimate), nodes=24))(p)
        assert_allclose(found, right, rtol=1e-9)


def test_a_value_is_the_same_with_and_without_a_derivative():
    key = jax.random.key(0)
    for name in ("reinforce", "measure valued", "disarm"):
        how = STRATEGIES[name]
        run = partial(seed(expectation(partial(straight, how))), key)
        value, _ = jax.value_and_grad(run)(0.3)
        assert value == run(0.3)


@pytest.mark.parametrize("how", ["reinforce", SLOWLY])
def test_the_variance_of_a_mean_falls_like_one_over_n(how):
    """Of n independent elements: exactly the n-th part of that of one, whatever n."""

    def mean(n, p):
        z = draw(dist.Bernoulli(p).expand([n]), STRATEGIES[how])
        return jnp.mean(jnp.exp(z) + p * z)

    def moments(n):
        slope = jax.grad(expectation(partial(mean, n)))

        def both(p):
            one = slope(p)
            return one, one**2

        first, second = integrate(both)(0.3)
        return second - first**2

    one = moments(1)
    for n in (2, 3):
        assert_allclose(moments(n), one / n, rtol=1e-10, atol=1e-14)


def test_a_program_without_choices_is_its_own_mean():
    slope = seed(jax.grad(expectation(lambda p: jnp.sin(p) ** 2)))(jax.random.key(0), 0.3)
    assert_allclose(slope, np.sin(0.6), rtol=1e-15)


def without_gradient(f, *args):
    with pytest.raises(PPLError) as caught:
        jax.grad(lambda *args: seed(expectation(f))(jax.random.key(0), *args))(*args)
    return caught.value


@pytest.mark.parametrize(
    "f, kind, words",
    [
        (lambda b: draw(dist.Uniform(0.0, b), reinforce()) ** 2, GradientThroughDraw, "support"),
        (lambda b: jnp.where(draw(dist.Normal(b, 1.0)) > 0, 1.0, 0.0), GradientThroughDraw, "jump"),
        (lambda b: jnp.floor(draw(dist.Normal(0.0, b))), GradientThroughDraw, "jump"),
        (
            lambda b: jnp.where(draw(dist.Normal(0.0, 1.0), reinforce()) > b, 1.0, 0.0),
            GradientThroughDraw,
            "jump",
        ),
        (lambda b: 1.0 * draw(dist.Binomial(5, b)), NoStrategy, "no default"),
        (lambda b: 1.0 * draw(dist.Bernoulli(b), reparam()), NoStrategy, "reparametrised"),
        (lambda b: 1.0 * draw(dist.Poisson(b), enumerate_()), CannotEnumerate, "enumerated"),
        (lambda b: 1.0 * draw(dist.Poisson(b), disarm()), NoStrategy, "binary"),
        (lambda b: draw(dist.Cauchy(b, 1.0), measure_valued()), NoStrategy, "measure-valued"),
        (
            lambda b: lax.while_loop(lambda x: x < 3, lambda x: x + draw(dist.Bernoulli(b)), b),
            UnsupportedControlFlow,
            "while",
        ),
        (lambda b: chain_of(100, b), NoStrategy, "long loop"),
        (lambda b: jnp.sin(jnp.sum(flip(b * jnp.ones(20), enumerate_()))), CannotEnumerate, "many"),
    ],
)
def test_what_would_be_wrong_is_refused(f, kind, words):
    error = without_gradient(f, 0.4)
    assert type(error) is kind and words in str(error)
    assert "test_expectation.py" in str(error) and error.fix


def chain_of(n, b):
    def body(c, _):
        return c / 2 + draw(dist.Bernoulli(jax.nn.sigmoid(c))), None

    return lax.scan(body, b, None, length=n)[0]


def test_a_jump_may_be_allowed():
    f = expectation(lambda b: jnp.where(draw(dist.Normal(b, 1.0), LOOSE) > 0, b, 0.0))
    assert jax.grad(lambda b: seed(f)(jax.random.key(1), b))(5.0) == 1


LOOSE = reparam(allow_jump=True)


def test_a_strategy_for_no_choice():
    with pytest.raises(AddressNotFound, match='did you mean "kind"'):
        seed(expectation(bound, {"knd": reinforce()}))(jax.random.key(0), 0.3)


@gen
def pair(p):
    a = sample("a", dist.Bernoulli(p))
    b = sample("b", dist.Bernoulli(jnp.where(a == 1, p**2, 1 - p)))
    return jnp.sin(a + 2.0 * b) * p


@pytest.mark.parametrize("context", [straight, chain, plate, read_by_rows])
def test_a_learned_baseline_goes_towards_what_its_score_multiplies(context):
    """Its derivative is E[R - level], summed over choices: linear in the level, and falling."""
    p, level = jnp.asarray(0.3), jnp.asarray(0.7)

    def estimate(p, level):
        return expectation(partial(context, reinforce(moving_average(level))))(p)

    def found(p, level):
        return jax.grad(estimate, 1)(p, level)

    at = [float(jax.jit(integrate(found))(p, b)) for b in (level, level + 1, level + 2)]
    assert_allclose(at[2] - at[1], at[1] - at[0], rtol=1e-9)
    assert at[1] - at[0] < -1


def test_a_moving_average_is_the_mean_of_what_comes_after():
    """One choice z: R is f(z), so the derivative with respect to the level is E[f] - level."""

    def estimate(p, level):
        how = reinforce(moving_average(level))
        return expectation(lambda p: jnp.exp(2.0 * draw(dist.Bernoulli(p), how)))(p)

    slopes = integrate(jax.grad(estimate, (0, 1)))(0.3, 1.5)
    mean = 0.7 + 0.3 * np.exp(2.0)
    assert_allclose(slopes, [np.exp(2.0) - 1, mean - 1.5], rtol=EXACT)


def test_rebar_is_relax_with_the_rest_of_the_program():
    """Any function of the noise leaves the mean; the midpoint rule as above."""

    def rest(z, before):
        return jnp.sin(2.0 * z)

    def program(p, *how):
        return rest(draw(dist.Bernoulli(p), *how).astype(float), {}) + p

    p, how = jnp.asarray(0.25), rebar(rest, temperature=0.3, scale=0.8)
    right = jax.grad(integrate(program))(p)
    slope = jax.grad(expectation(lambda p: program(p, how)))
    coarse, fine = (
        jax.jit(integrate(slope, nodes=n, rule="midpoint"))(p) for n in (128, 256)
    )  # fmt: skip
    assert abs(fine - right) <= abs(fine - coarse) + EXACT < 1e-2


def square(how, p):
    return (draw(dist.Bernoulli(p), how).astype(float) - 0.45) ** 2


@pytest.mark.parametrize("how", [straight_through(), gumbel_softmax(0.5)], ids=["st", "gumbel"])
def test_biased_strategies_are_biased_and_say_so(how):
    """Straight through: 2 (p - 0.45), in truth 0.55^2 - 0.45^2 = 0.1 whatever p."""
    program = partial(square, how)
    with pytest.raises(BiasedStrategy, match="allow_biased"):
        seed(expectation(program))(jax.random.key(0), 0.3)
    slope = jax.grad(expectation(program, allow_biased=True))
    found = integrate(slope, nodes=256, rule="midpoint")(0.3)
    assert abs(found - 0.1) > 0.1
    if how == straight_through():
        assert_allclose(found, 2 * (0.3 - 0.45), atol=1e-2)  # p is met up to half a node


def test_a_relaxed_value_is_not_used_as_a_whole_number():
    def program(p):
        return jnp.where(draw(dist.Bernoulli(p), straight_through()) == 1, p, 0.0)

    with pytest.raises(NoStrategy, match="whole number"):
        seed(jax.grad(expectation(program, allow_biased=True)))(jax.random.key(0), 0.3)


def test_a_baseline_sees_what_comes_before_and_not_its_own_choice():
    seen = []

    def baseline(before):
        seen.append(set(before))
        return 0.3 + 2.0 * before.get("a", 0)

    def program(p):
        return pair.simulate(p).retval

    how = dict.fromkeys("ab", reinforce(baseline))
    p = jnp.asarray(0.3)
    found = jax.jit(integrate(partial(derivatives, expectation(program, how))))(p)
    assert_allclose(found, derivatives(integrate(program), p), rtol=EXACT, atol=EXACT)
    assert {frozenset(names) for names in seen} == {frozenset(), frozenset("a")}


def at_the_ends(how, p):
    """A choice that is sure at p = 0, one that is sure after it, and one of three."""
    a = flip(p, how)
    b = flip(a * jax.nn.sigmoid(p), how)
    c = draw(dist.Categorical(probs=jnp.stack([0.0 * p, p, 1 - p])), how)
    return jnp.sin(a + 2.0 * b) + (a + 1.0) * jnp.cos(1.0 * c)


ALL = {"enumerate": enumerate_(), "measure valued": measure_valued()}


@pytest.mark.parametrize("name", ALL)
def test_probabilities_of_zero_have_derivatives(name):
    """By hand: with b at 0 if a is, f = sum over a, b, c of products of probabilities."""

    def right(p):
        s, c = jax.nn.sigmoid(p), p * jnp.cos(1.0) + (1 - p) * jnp.cos(2.0)
        first = p * ((1 - s) * jnp.sin(1.0) + s * jnp.sin(3.0))
        return first + (1 + p) * c

    for p in (0.0, 0.3, 1.0):
        program = partial(at_the_ends, ALL[name])
        slope = jax.grad(right)(p)
        assert_allclose(jax.jit(integrate(jax.grad(expectation(program))))(p), slope, rtol=EXACT)
        assert_allclose(jax.jit(jax.grad(integrate(program)))(p), slope, rtol=EXACT)


def test_a_saturated_choice_has_a_derivative():
    """In float32 sigmoid(20) is 1, whose logarithm of the rest has none."""
    with jax.enable_x64(False):
        for how in (measure_valued(), enumerate_(), disarm(), without_replacement(1)):
            program = expectation(lambda x, how=how: 3.0 * flip(jax.nn.sigmoid(x), how))
            slope = seed(jax.grad(program))(jax.random.key(0), jnp.float32(20.0))
            assert jnp.isfinite(slope) and abs(slope) < 1e-6
