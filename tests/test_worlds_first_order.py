"""`measure_valued(order=1)`: first derivatives as with all of them, and no second ones.

Exact comparisons are of sums of at most some thousand products in float64, to 1e-11, as in
`test_expectation`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax
from numpy.testing import assert_allclose
from test_expectation import CONTEXTS, EXACT, STRATEGIES, derivatives, three

from ppl import draw, expectation, integrate, measure_valued, reinforce, seed
from ppl.errors import GradientThroughDraw, InvalidArgument

FIRST, ALL = measure_valued(order=1), measure_valued()
KEY = jax.random.key(0)
QUICK = {"straight", "branch", "plate", "read_by_rows", "kept"}


def contexts():
    for context in CONTEXTS:
        marks = [] if context.__name__ in QUICK else [pytest.mark.slow]
        yield pytest.param(context, id=context.__name__, marks=marks)


@pytest.mark.parametrize("context", contexts())
def test_the_mean_of_the_estimate_is_the_first_derivative(context):
    program = partial(context, FIRST)
    p = jnp.asarray(0.3)
    found = jax.jit(integrate(jax.value_and_grad(expectation(program))))(p)
    right = jax.jit(jax.value_and_grad(integrate(program)))(p)
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(
    "names",
    [
        ("first", "enumerate", "reinforce"),
        ("enumerate", "first", "disarm"),
        ("first", "without replacement", "leave one out"),
        pytest.param(("disarm", "reinforce", "first"), marks=pytest.mark.slow),
        pytest.param(("first", "first", "top"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_among_other_strategies(names):
    program = partial(three, [{"first": FIRST, **STRATEGIES}[name] for name in names])
    p = jnp.asarray(0.3)
    found = jax.jit(integrate(jax.value_and_grad(expectation(program))))(p)
    right = jax.jit(jax.value_and_grad(integrate(program)))(p)
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)


def of_normals(how, p):
    x = draw(dist.Normal(p, 1 + p**2).expand([2]), how)
    y = draw(dist.Normal(jnp.sin(x), 1.0))  # moves by itself
    return jnp.sum(jnp.where(x > 0, y**2, x)) * p


def of_counts(how, p):
    n = draw(dist.Poisson(3 * p), how)
    z = draw(dist.Bernoulli(jax.nn.sigmoid(n * p - 1)), reinforce(0.5))
    return jnp.log1p(n) * (1 + z) * p


def of_rates(how, p):
    g = draw(dist.Gamma(1 + p, 2.0), how)
    b = draw(dist.Beta(p, 1 + g), how)
    e = draw(dist.Exponential(b + p), how)
    return jnp.sin(g) * b + e * p


def in_a_loop(how, p):
    def body(c, x):
        z = draw(dist.Categorical(probs=jnp.stack([p, p / 2, 1 - 1.5 * p])), how)
        return c * jnp.cos(x + z * p), z * p

    c, zs = lax.scan(body, 1.0, jnp.arange(3.0))
    return c + jnp.sum(zs)


@pytest.mark.parametrize("program", [of_normals, of_counts, of_rates, in_a_loop])
def test_the_same_numbers_as_with_all_orders(program):
    """From the same noise; the same terms, in sums of another order: to 1e-12."""
    p = jnp.asarray(0.3)

    def slope(how):
        return jax.jit(seed(jax.value_and_grad(expectation(partial(program, how)))))(KEY, p)

    assert_allclose(slope(FIRST), slope(ALL), rtol=1e-12)


def test_forward_derivatives_and_those_of_many_parameters():
    def program(how, p):
        z = draw(dist.Bernoulli(p["odds"]), how)
        return jnp.sum(jnp.sin(z * p["after"]))

    p = {"odds": jnp.array([0.2, 0.7]), "after": jnp.array([1.0, 2.0])}
    along = {"odds": jnp.array([1.0, -2.0]), "after": jnp.array([0.5, 3.0])}
    mean, estimate = integrate(partial(program, FIRST)), expectation(partial(program, FIRST))
    found = jax.jit(integrate(jax.grad(estimate)))(p)
    jax.tree.map(partial(assert_allclose, rtol=EXACT), found, jax.grad(mean)(p))
    found = integrate(lambda p: jax.jvp(estimate, (p,), (along,)))(p)
    assert_allclose(found, jax.jvp(mean, (p,), (along,)), rtol=EXACT)


def once(p):
    return seed(expectation(lambda p: jnp.exp(p * draw(dist.Bernoulli(p), FIRST))))(KEY, p)


def of_a_constant(p):
    """With respect to what the program closes over."""
    return seed(expectation(lambda: jnp.exp(p * draw(dist.Bernoulli(p), FIRST))))(KEY)


@pytest.mark.parametrize("f", [once, of_a_constant, jax.jit(once)])
@pytest.mark.parametrize(
    "second",
    [
        jax.hessian,
        lambda f: jax.grad(jax.grad(f)),
        lambda f: jax.grad(jax.jit(jax.grad(f))),
        lambda f: lambda p: jax.jvp(jax.grad(f), (p,), (1.0,)),
        lambda f: lambda p: jax.vmap(jax.grad(jax.grad(f)))(jnp.array([p])),
    ],
)
def test_second_derivatives_are_refused(f, second):
    with pytest.raises(GradientThroughDraw, match="order=1"):
        second(f)(0.3)


@pytest.mark.parametrize("inner, outer", [(0, 1), (1, 0)])
def test_mixed_second_derivatives_are_refused(inner, outer):
    """Of a law's parameter and of one that the law does not depend on, in both orders."""

    def mean(p, q):
        return seed(expectation(lambda: jnp.exp(q * draw(dist.Bernoulli(p), FIRST))))(KEY)

    with pytest.raises(GradientThroughDraw, match="order=1"):
        jax.grad(jax.grad(mean, inner), outer)(0.3, 0.5)


def test_through_a_checkpoint_a_linearization_and_a_pullback():
    slope = jax.grad(once)(0.3)
    found = [
        jax.grad(jax.checkpoint(once))(0.3),
        jax.linearize(once, 0.3)[1](1.0),
        jax.vjp(once, 0.3)[1](jnp.ones(()))[0],
    ]
    assert_allclose(found, [slope] * 3, rtol=1e-14)


def test_all_orders_where_one_choice_asks_for_them():
    def program(p):
        a = draw(dist.Bernoulli(p), FIRST)
        b = draw(dist.Bernoulli(jnp.where(a == 1, p**2, 1 - p)), ALL)
        return jnp.sin(a + 2.0 * b) * p + b * a

    found = jax.jit(integrate(partial(derivatives, expectation(program))))(0.3)
    assert_allclose(found, derivatives(integrate(program), 0.3), rtol=EXACT)


def test_a_value_is_the_same_with_and_without_a_derivative():
    value, _ = jax.value_and_grad(once)(0.3)
    assert value == once(0.3)


def test_the_order_is_one_or_none():
    for order in (0, 2, True, 1.5, "1"):
        with pytest.raises(InvalidArgument, match="order"):
            measure_valued(order=order)


def test_a_derivative_is_of_one_world_only():
    """A product of 300 by 300 in each of 11 worlds, and two in the derivative of one: 13 in place
    of 33, and what else there is costs less than a product."""
    wide = jnp.ones((300, 300)) / 300

    def work(how):
        def program(p):
            z = jnp.stack([draw(dist.Bernoulli(p), how) for _ in range(10)])
            hidden = jnp.tanh(jnp.concatenate([z * p, jnp.ones((290,))]) @ (wide + p))
            return jnp.sum(jnp.tanh(jnp.outer(hidden, hidden) @ (wide + p)))

        slope = jax.jit(lambda p: seed(jax.grad(expectation(program)))(KEY, p))
        return slope.lower(0.3).compile().cost_analysis()["flops"]

    product = 2 * 300**3
    assert work(FIRST) < 14.5 * product < 33 * product < work(ALL)
