"""Objectives have the values and derivatives that sums over all latents have, to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import by_importance, elbo, iwelbo, marginalize, normalize, wake
from ppl import (
    PPLError,
    Target,
    enumerate_,
    expectation,
    gen,
    integrate,
    measure_valued,
    reinforce,
    sample,
    seed,
    select,
)
from ppl.errors import GuideMismatch

EXACT = 1e-11


@gen
def model():
    a = sample("a", dist.Bernoulli(0.3))
    b = sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    sample("y", dist.Bernoulli(0.1 + 0.4 * a + 0.3 * b))


@gen
def guide(p):
    a = sample("a", dist.Bernoulli(p))
    sample("b", dist.Bernoulli(p**2 + (1 - p) * a / 2))


TARGET = Target(model, (), {"y": 1})
PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def joint():
    """p(a, b, y = 1), by hand."""
    a, b = PAIRS.T
    of_b = np.where(b == 1, 0.2 + 0.5 * a, 0.8 - 0.5 * a)
    return np.where(a == 1, 0.3, 0.7) * of_b * (0.1 + 0.4 * a + 0.3 * b)


def of_guide(p):
    """q(a, b), by hand."""
    a, b = PAIRS.T
    heads = p**2 + (1 - p) * a / 2
    return jnp.where(a == 1, p, 1 - p) * jnp.where(b == 1, heads, 1 - heads)


def bound(p):
    q = of_guide(p)
    return jnp.sum(q * (np.log(joint()) - jnp.log(q)))


def bound_of(n):
    def value(p):
        q = of_guide(p)
        ratio, chance = joint() / q, q
        for _ in range(n - 1):
            ratio = ratio[..., None] + joint() / q
            chance = chance[..., None] * q
        return jnp.sum(chance * jnp.log(ratio / n))

    return value


def derivatives(f, p):
    return f(p), *jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))


HOW = {"reinforce": reinforce(), "enumerate": enumerate_(), "measure valued": measure_valued()}


# the paths of all worlds of two particles are too many to enumerate
CASES = [(0, how) for how in (None, *HOW)] + [(2, "reinforce"), (2, "enumerate")]


@pytest.mark.parametrize(
    "n, how", [pytest.param(*case, marks=pytest.mark.slow if case[0] else ()) for case in CASES]
)
def test_bounds_and_their_derivatives(n, how):
    objective = iwelbo(TARGET, guide, n) if n else elbo(TARGET, guide)
    strategies = {} if how is None else dict.fromkeys("ab", HOW[how])
    estimate = expectation(objective, strategies)
    p = jnp.asarray(0.4)
    found = jax.jit(integrate(lambda p: derivatives(estimate, p)))(p)
    assert_allclose(found, derivatives(bound_of(n) if n else bound, p), rtol=EXACT)


@gen
def wide(p):
    c = sample("c", dist.Bernoulli(p))
    a = sample("a", dist.Bernoulli(0.2 + 0.6 * c))
    sample("b", dist.Bernoulli(0.3 + 0.1 * a + 0.2 * c))


def test_bounds_of_guides_with_a_choice_summed_out_grow_to_the_exact_one():
    """A density that n particles estimate gives a bound below that of the density itself."""
    a, b = PAIRS.T
    q = 0.0
    for c, chance in ((0, 0.6), (1, 0.4)):
        of_a, of_b = 0.2 + 0.6 * c, 0.3 + 0.1 * a + 0.2 * c
        q += chance * np.where(a == 1, of_a, 1 - of_a) * np.where(b == 1, of_b, 1 - of_b)
    right = np.sum(q * np.log(joint() / q))
    values = []
    for n in (1, 2, 4):
        hidden = marginalize(wide, select("a", "b"), by_importance(n))
        values.append(float(jax.jit(integrate(elbo(TARGET, hidden)))(0.4)))
    assert values[0] < values[1] < values[2] < right
    assert right - values[2] < (right - values[0]) / 2


def test_a_bound_by_an_algorithm_is_differentiable():
    """Of a normalised target the bound is that of importance sampling from the model."""

    def made(s):
        return Target(model_of, (s,), {"y": 1})

    by = elbo(made, normalize(made, by_importance(2)))
    p = jnp.asarray(0.3)
    right = jax.jit(jax.grad(integrate(by)))(p)
    found = jax.jit(integrate(jax.grad(expectation(by))))(p)
    assert_allclose(found, right, rtol=EXACT)


@gen
def model_of(s):
    a = sample("a", dist.Bernoulli(s))
    sample("y", dist.Bernoulli(0.1 + 0.4 * a))


def test_wake_moves_to_the_posterior():
    """Its derivative by hand: x_1..x_n from q, weights w_i, the mean of sum w_i dlog q(x_i)."""
    p, n = 0.4, 2
    q = np.asarray(of_guide(p))
    slope = np.asarray(jax.jacobian(lambda p: jnp.log(of_guide(p)))(p))
    w = joint() / q
    right = 0.0
    for i in range(4):
        for j in range(4):
            right += q[i] * q[j] * (w[i] * slope[i] + w[j] * slope[j]) / (w[i] + w[j])
    estimate = expectation(wake(TARGET, guide, n), dict.fromkeys("ab", reinforce()))
    found = jax.jit(integrate(jax.grad(estimate)))(jnp.asarray(p))
    assert_allclose(found, right, rtol=EXACT)


@gen
def normal(s):
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(s * z, 0.5))


def on(s):
    return Target(normal, (s,), {"y": 0.7})


@gen
def mean_field(m):
    sample("z", dist.Normal(m, 0.8))


@pytest.mark.slow
@pytest.mark.parametrize("doubly", [False, True])
def test_reparameterised_gradients_have_the_same_mean(doubly):
    """By quadrature: the error is at most ten times what the number of nodes changes."""
    m = jnp.asarray(0.3)
    objective = iwelbo(on(0.9), mean_field, 2)
    estimate = expectation(iwelbo(on(0.9), mean_field, 2, doubly=doubly))

    def both(nodes):
        plain = jax.value_and_grad(integrate(objective, nodes=nodes))
        mean = integrate(lambda m: jax.value_and_grad(estimate)(m), nodes=nodes)
        return np.asarray(jax.jit(plain)(m)), np.asarray(jax.jit(mean)(m))

    (coarse, coarse_mean), (plain, mean) = both(48), both(64)
    changed = abs(plain - coarse) + abs(mean - coarse_mean)
    assert np.all(changed < 1e-4)
    assert np.all(abs(mean - plain) <= 10 * changed)


def test_a_models_parameters_are_learned_beside_the_guides():
    """d/ds of the bound is E[d/ds log p(z, y; s)], whose moments are known."""
    objective = elbo(lambda s, m: on(s), gen(lambda s, m: sample("z", dist.Normal(m, 0.8))))
    slope = jax.jit(integrate(jax.grad(expectation(objective)), nodes=8))(0.9, 0.3)
    right = (0.7 * 0.3 - 0.9 * (0.3**2 + 0.8**2)) / 0.25
    assert_allclose(slope, right, rtol=1e-12)


def wrong(fn, target=TARGET):
    with pytest.raises(PPLError) as caught:
        seed(elbo(target, gen(fn)))(jax.random.key(0), 0.4)
    return caught.value


def unit():
    u = sample("u", dist.Uniform(0.0, 1.0))
    sample("y", dist.Bernoulli(u))


WITHIN = Target(gen(unit), (), {"y": 1})


@pytest.mark.parametrize(
    "fn, target, words",
    [
        (lambda p: sample("a", dist.Bernoulli(p)), TARGET, 'make "b" in the guide'),
        (lambda p: [sample(x, dist.Bernoulli(p)) for x in "abc"], TARGET, 'leave "c" out'),
        (lambda p: [sample(x, dist.Bernoulli(p)) for x in "aby"], TARGET, "is observed"),
        (
            lambda p: [sample(x, dist.Bernoulli(p).expand([2])) for x in "ab"],
            TARGET,
            "shape (2,)",
        ),
        (lambda p: [sample(x, dist.Normal(p, 1.0)) for x in "ab"], TARGET, "discrete guide"),
        (lambda p: sample("u", dist.Normal(p, 1.0)), WITHIN, "a support inside"),
        (lambda p: sample("u", dist.Uniform(0.0, p)), WITHIN, "a support inside"),
        (lambda p: sample("u", dist.Uniform(0.0, 5.0)), WITHIN, "a support inside"),
    ],
)
def test_a_guide_that_does_not_fit_is_refused(fn, target, words):
    error = wrong(fn, target)
    assert type(error) is GuideMismatch and words in str(error)
    assert error.given and error.expected and "test_objectives.py" in str(error)


@pytest.mark.parametrize(
    "fn", [lambda p: sample("u", dist.Beta(p, 2.0)), lambda p: sample("u", dist.Uniform(0.2, 0.9))]
)
def test_a_support_inside_the_models_fits(fn):
    assert np.isfinite(seed(elbo(WITHIN, gen(fn)))(jax.random.key(0), 0.4))
