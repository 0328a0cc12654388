"""Objectives have the values and derivatives that sums over all latents have, to rounding.

Each objective registers itself with its mean, written as sums over pairs of latents by hand. What
an objective holds still has no derivative: its mean is a function of the guide's argument, and of
what that is where it is held.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import by_importance, elbo, iwelbo, marginalize, normalize, temper
from inference.vi.auxiliary import diwhvi, hvi, iwhvi
from inference.vi.divergences import f_divergence, forward_kl, renyi, symmetric_kl
from inference.vi.vimco import vimco
from inference.vi.wake import sleep, wake, wake_p
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
from ppl.errors import (
    AddressNotFound,
    GradientThroughDraw,
    GuideMismatch,
    InvalidArgument,
    NoStrategy,
)

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


@gen
def posterior(p):
    of_a = joint().reshape(2, 2).sum(1) / joint().sum()
    of_b = joint().reshape(2, 2)[:, 1] / joint().reshape(2, 2).sum(1)
    a = sample("a", dist.Bernoulli(of_a[1]))
    sample("b", dist.Bernoulli(jnp.asarray(of_b)[a]))


TARGET = Target(model, (), {"y": 1})
PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def of_y(y=1):
    """p(y | a, b), by hand."""
    a, b = PAIRS.T
    heads = 0.1 + 0.4 * a + 0.3 * b
    return heads if y else 1 - heads


def joint(y=1):
    """p(a, b, y), by hand."""
    a, b = PAIRS.T
    of_b = np.where(b == 1, 0.2 + 0.5 * a, 0.8 - 0.5 * a)
    return np.where(a == 1, 0.3, 0.7) * of_b * of_y(y)


def of_guide(p):
    """q(a, b), by hand."""
    a, b = PAIRS.T
    heads = p**2 + (1 - p) * a / 2
    return jnp.where(a == 1, p, 1 - p) * jnp.where(b == 1, heads, 1 - heads)


def bound(p, still=None, power=1.0):
    q, prior = of_guide(p), joint() / of_y()
    return jnp.sum(q * (np.log(prior) + power * np.log(of_y()) - jnp.log(q)))


def several(n, value, p):
    """E[value(w_1, ..., w_n)], the weights along the last axis."""
    q = of_guide(p)
    every = np.stack(np.meshgrid(*[np.arange(4)] * n, indexing="ij"), -1).reshape(-1, n)
    return jnp.sum(jnp.prod(q[every], 1) * value((joint() / q)[every]))


def importance_weighted(n, p, still=None):
    return several(n, lambda w: jnp.log(jnp.mean(w, 1)), p)


def of_order(alpha, n, p, still=None):
    power = 1 - alpha
    return several(n, lambda w: jnp.log(jnp.mean(w**power, 1)) / power, p)


def convex(f, p, still=None):
    return several(1, lambda w: -f(w[:, 0]), p)


def learned_by_weight(p, still, known=0.0):
    """Sum of w log q of two draws at `still`, w normalised, less `known` times log p."""
    q, log_q = of_guide(still), jnp.log(of_guide(p)) - known * np.log(joint())
    w = joint() / q
    shares = w[:, None] / (w[:, None] + w[None])
    terms = shares * log_q[:, None] + (1 - shares) * log_q[None]
    return jnp.sum(q[:, None] * q[None] * terms)


def forward(p, still):
    return learned_by_weight(p, still, known=1.0) + importance_weighted(2, still)


def forward_exactly(p, still=None):
    right = joint() / joint().sum()
    return jnp.sum(right * (jnp.log(of_guide(p)) - np.log(right)))


def symmetric(p, still):
    return bound(p) + learned_by_weight(p, still, known=1.0)


def symmetric_exactly(p, still=None):
    return bound(p) - np.log(joint().sum()) + forward_exactly(p)


@gen
def reading(p, seen):
    """A guide that reads what is observed."""
    heads = jnp.where(seen["y"] == 1, p, p / 2)
    guide.fn(heads)


def asleep(p, still=None):
    on, off = jnp.log(of_guide(p)), jnp.log(of_guide(p / 2))
    return jnp.sum(joint(1) * on) + jnp.sum(joint(0) * off)


@gen
def wide(p):
    c = sample("c", dist.Bernoulli(p))
    a = sample("a", dist.Bernoulli(0.2 + 0.6 * c * p))
    sample("b", dist.Bernoulli(0.3 + 0.1 * a + 0.2 * c))


@gen
def back(x, p):
    sample("c", dist.Bernoulli(0.2 + 0.3 * x["a"] + p * x["b"] / 4))


def of_wide(p):
    """q(c, a, b) and r(c | a, b), by hand: a row for each c."""
    a, b = PAIRS.T
    q, r = [], []
    for c in (0, 1):
        of_a, of_b = 0.2 + 0.6 * c * p, 0.3 + 0.1 * a + 0.2 * c
        made = jnp.where(a == 1, of_a, 1 - of_a) * jnp.where(b == 1, of_b, 1 - of_b)
        on = 0.2 + 0.3 * a + p * b / 4
        q.append((p if c else 1 - p) * made)
        r.append(on if c else 1 - on)
    return jnp.stack(q), jnp.stack(r)


def hierarchical(n, p, still=None):
    """With the c that made a, b, and n - 1 others."""
    q, r = of_wide(p)
    ratio, chance = q / r, q
    for _ in range(n - 1):
        ratio = ratio[..., None, :] + (q / r)
        chance = chance[..., None, :] * r
    return jnp.sum(chance * (np.log(joint()) - jnp.log(ratio / n)))


def doubly_weighted(p, still=None):
    """Two pairs, each with the c that made it."""
    q, r = of_wide(p)
    w, chance = (joint() * r / q).reshape(-1), q.reshape(-1)
    return jnp.sum(chance[:, None] * chance * jnp.log((w[:, None] + w) / 2))


@dataclass(frozen=True)
class Case:
    """An objective, its mean, the choices that take a strategy, and which derivatives are right."""

    objective: Any
    mean: Any
    names: str = "ab"
    orders: int = 2
    quick: tuple = ()
    hows: tuple = ("reinforce", "enumerate", "measure valued")
    more: tuple = field(default=())  # further arguments


ONE = ("reinforce", "enumerate")
OBJECTIVES = {
    "elbo": Case(elbo(TARGET, guide), bound, quick=("reinforce", "enumerate", "measure valued")),
    "analytic": Case(elbo(TARGET, guide, analytic=True), bound, quick=("reinforce",)),
    "annealed": Case(
        elbo(lambda p, power: temper(TARGET, power), gen(lambda p, power: guide.fn(p))),
        partial(bound, power=0.3),
        more=(0.3,),
        quick=("enumerate",),
    ),
    # the paths of all worlds of two particles are too many to enumerate
    "iwelbo": Case(iwelbo(TARGET, guide, 2), partial(importance_weighted, 2), hows=ONE),
    "renyi": Case(renyi(TARGET, guide, 0.5, 2), partial(of_order, 0.5, 2), hows=ONE),
    "renyi of one draw": Case(renyi(TARGET, guide, 3.0, 1), bound, quick=("reinforce",)),
    "kl": Case(f_divergence(TARGET, guide, "kl"), bound, quick=("measure valued",)),
    "forward by weights": Case(
        f_divergence(TARGET, guide, "forward_kl"), partial(convex, lambda w: w * jnp.log(w))
    ),
    "chi square": Case(f_divergence(TARGET, guide, "chi_square"), partial(convex, lambda w: w**2)),
    "hellinger": Case(
        f_divergence(TARGET, guide, "hellinger"),
        partial(convex, lambda w: -2 * jnp.sqrt(w)),
        quick=("reinforce",),
    ),
    "order": Case(
        f_divergence(TARGET, guide, lambda r: jnp.exp(3 * r) / 6),
        partial(convex, lambda w: w**3 / 6),
    ),
    "vimco": Case(
        vimco(TARGET, guide, 2), partial(importance_weighted, 2), names="", orders=1, quick=ONE
    ),
    "wake": Case(wake(TARGET, guide, 2), learned_by_weight, names="", quick=ONE),
    "wake_p": Case(
        wake_p(TARGET, guide, 2), lambda p, still: importance_weighted(2, still), names=""
    ),
    "sleep": Case(
        sleep(lambda p, seen: Target(model, (), seen), reading),
        asleep,
        names="",
        more=({"y": 0},),
        quick=ONE,
    ),
    "forward_kl": Case(forward_kl(TARGET, guide, 2), forward, names=""),
    "forward_kl of the posterior": Case(
        forward_kl(TARGET, guide, posterior), forward_exactly, names="", quick=ONE
    ),
    "symmetric_kl": Case(symmetric_kl(TARGET, guide, 2), symmetric, hows=("reinforce",)),
    "symmetric_kl of the posterior": Case(
        symmetric_kl(TARGET, guide, posterior), symmetric_exactly, hows=ONE
    ),
    "hvi": Case(hvi(TARGET, wide, back), partial(hierarchical, 1), "abc", quick=("reinforce",)),
    "iwhvi": Case(iwhvi(TARGET, wide, back, 2), partial(hierarchical, 2), "abc", hows=ONE),
    "diwhvi": Case(diwhvi(TARGET, wide, back, 1, 2), doubly_weighted, "abc", hows=("reinforce",)),
}
HOW = {"reinforce": reinforce(), "enumerate": enumerate_(), "measure valued": measure_valued()}


def cases():
    for name, case in OBJECTIVES.items():
        for how in case.hows if case.names else ("reinforce",):
            marks = () if how in case.quick else pytest.mark.slow
            yield pytest.param(name, how, id=f"{name}-{how}", marks=marks)


def derivatives(f, p, orders=2):
    """The value, and as many derivatives; the second by forward over reverse."""
    if orders == 1:
        return jax.value_and_grad(f)(p)
    return f(p), *jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))


@pytest.mark.parametrize("name, how", cases())
def test_the_mean_and_its_derivatives(name, how):
    case = OBJECTIVES[name]
    estimate = expectation(case.objective, dict.fromkeys(case.names, HOW[how]))

    def at(p):
        return estimate(p, *case.more)

    p = jnp.asarray(0.4)
    found = jax.jit(integrate(lambda p: derivatives(at, p, case.orders)))(p)
    right = jax.jit(lambda p, still: derivatives(lambda p: case.mean(p, still), p, case.orders))
    right = np.asarray(right(p, p))
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)
    assert np.all(right != 0) or name == "wake_p"  # which moves the model alone


def test_bounds_of_guides_with_a_choice_summed_out_grow_to_the_exact_one():
    """A density that n particles estimate gives a bound below that of the density itself."""
    q = of_wide(0.4)[0].sum(0)
    right = np.sum(q * np.log(joint() / q))
    values = [float(hierarchical(n, 0.4)) for n in (1, 2, 4)]
    assert values[0] < values[1] < values[2] < right
    assert right - values[2] < (right - values[0]) / 2
    found = jax.jit(integrate(iwhvi(TARGET, wide, back, 4)))(0.4)
    assert_allclose(found, values[2], rtol=EXACT)
    hidden = marginalize(wide, select("a", "b"), by_importance(2))
    by_prior = float(jax.jit(integrate(elbo(TARGET, hidden)))(0.4))
    assert by_prior < right


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


def test_wake_p_moves_the_model_alone():
    """Its derivative is that of the bound of two draws, by the model's parameter."""
    only_a = gen(lambda s, p: sample("a", dist.Bernoulli(p)))
    objective = wake_p(lambda s, p: Target(model_of, (s,), {"y": 1}), only_a, 2)

    def mean(s, p):
        q, joint = jnp.stack([1 - p, p]), jnp.stack([0.1 * (1 - s), 0.5 * s])
        w = joint / q
        return jnp.sum(q[:, None] * q * jnp.log((w[:, None] + w) / 2))

    found = integrate(jax.value_and_grad(expectation(objective), (0, 1)))(0.3, 0.4)
    assert_allclose(found[0], mean(0.3, 0.4), rtol=EXACT)
    assert_allclose(found[1], (jax.grad(mean)(0.3, 0.4), 0.0), rtol=EXACT)


def test_several_objectives_stand_in_one():
    """Wake for both sides, and a sleep: the guide's derivative is the sum of theirs."""

    def made(p, seen):
        return Target(model, (), seen)

    both = (wake(made, reading, 2), sleep(made, reading))
    p, seen = jnp.asarray(0.4), {"y": 1}
    slope = jax.grad(expectation(lambda p: both[0](p, seen) + both[1](p, seen)))
    right = jax.grad(learned_by_weight)(p, p) + jax.grad(asleep)(p)
    assert_allclose(jax.jit(integrate(slope))(p), right, rtol=EXACT)


def moments(objective, p, how):
    """The mean of a gradient, and its variance: exactly."""
    slope = jax.grad(expectation(objective, how))

    def both(p):
        one = slope(p)
        return one, one**2

    first, second = jax.jit(integrate(both))(p)
    return first, second - first**2


@gen
def coin(p):
    sample("a", dist.Bernoulli(p))


COIN = Target(model_of, (0.3,), {"y": 1})


def test_vimco_has_the_gradient_of_the_bound_with_less_variance():
    """Of three particles: a tenth of the variance of the plain score function."""
    p = jnp.asarray(0.4)
    w = jnp.array([0.07, 0.15])
    every = np.stack(np.meshgrid(*[[0, 1]] * 3), -1).reshape(-1, 3)

    def mean(p):
        q = jnp.stack([1 - p, p])
        return jnp.sum(jnp.prod(q[every], 1) * jnp.log(jnp.mean((w / q)[every], 1)))

    found, variance = moments(vimco(COIN, coin, 3), p, {})
    plain, most = moments(iwelbo(COIN, coin, 3), p, {"a": reinforce()})
    assert_allclose((found, plain), (jax.grad(mean)(p),) * 2, rtol=EXACT)
    assert variance < most / 10


@gen
def normal(s):
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(s * z, 0.5))


def on(s):
    return Target(normal, (s,), {"y": 0.7})


@gen
def mean_field(m):
    sample("z", dist.Normal(m, 0.8))


@gen
def free(theta):
    sample("z", dist.Normal(theta[0], jnp.exp(theta[1])))


def test_landing_has_the_gradient_of_the_bound():
    """The bound of two normals in closed form; the integrand is quadratic, so 8 nodes are exact."""

    def mean(theta):
        m, v = theta[0], jnp.exp(2 * theta[1])
        likelihood = -((0.7 - 0.9 * m) ** 2 + 0.81 * v) / 0.5 - jnp.log(0.5 * jnp.sqrt(2 * jnp.pi))
        return likelihood - (m**2 + v) / 2 + theta[1] + 0.5

    theta = jnp.array([0.3, -0.2])
    estimate = expectation(elbo(on(0.9), free, landing=True))
    found = jax.jit(integrate(jax.value_and_grad(estimate), nodes=8))(theta)
    right = jax.value_and_grad(mean)(theta)
    assert_allclose(found[0], right[0], rtol=1e-12)
    assert_allclose(found[1], right[1], rtol=1e-12)


def test_landing_has_no_variance_at_the_posterior():
    """The gradient is zero draw by draw, where that of the plain bound is not."""
    precision = 1 + 0.81 / 0.25
    theta = jnp.array([0.9 * 0.7 / 0.25 / precision, -np.log(precision) / 2])
    keys = jax.random.split(jax.random.key(0), 20)

    def gradients(objective):
        slope = seed(jax.grad(expectation(objective)))
        return jax.jit(jax.vmap(lambda key: slope(key, theta)))(keys)

    assert np.abs(gradients(elbo(on(0.9), free, landing=True))).max() < 1e-13
    assert np.abs(gradients(elbo(on(0.9), free))).max() > 1


@gen
def walk():
    def step(z, _):
        z = sample("z", dist.Normal(0.6 * z, 0.7))
        sample("y", dist.Normal(z, 0.5))
        return z, None

    jax.lax.scan(step, 0.0, None, length=2)


@gen
def walking(theta):
    def step(z, _):
        return sample("z", dist.Normal(theta[0] + theta[1] * z, 0.8)), None

    jax.lax.scan(step, 0.1, None, length=2)


def test_landing_goes_through_loops():
    """Both gradients are of polynomials of degree 2 in normals, so that 4 nodes are exact."""
    target, theta = Target(walk, (), {"y": jnp.array([0.4, -0.2])}), jnp.array([0.3, -0.4])
    landing = expectation(elbo(target, walking, landing=True))
    found = jax.jit(integrate(jax.value_and_grad(landing), nodes=4))(theta)
    right = jax.jit(jax.value_and_grad(integrate(elbo(target, walking), nodes=4)))(theta)
    assert_allclose(found[0], right[0], rtol=1e-12)
    assert_allclose(found[1], right[1], rtol=1e-11)


@gen
def switches():
    def step(z, _):
        z = sample("z", dist.Bernoulli(0.3 + 0.4 * z))
        sample("y", dist.Bernoulli(0.2 + 0.5 * z))
        return z, None

    jax.lax.scan(step, 0, None, length=2)


@gen
def switching(p):
    def step(z, _):
        return sample("z", dist.Bernoulli(jnp.where(z == 1, p, p**2))), None

    jax.lax.scan(step, 0, None, length=2)


def test_vimco_goes_through_loops():
    target, p = Target(switches, (), {"y": jnp.array([1, 0])}), jnp.asarray(0.4)
    found = jax.jit(integrate(jax.value_and_grad(expectation(vimco(target, switching, 2)))))(p)
    right = jax.jit(jax.value_and_grad(integrate(iwelbo(target, switching, 2))))(p)
    assert_allclose(found, right, rtol=EXACT)


def jumping():
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(jnp.where(z > 0, 1.0, -1.0), 0.5))


def test_what_moves_takes_no_other_strategy_and_crosses_no_jump():
    key, landing = jax.random.key(0), elbo(on(0.9), mean_field, landing=True)
    with pytest.raises(AddressNotFound):
        seed(expectation(landing, {"z": reinforce()}))(key, 0.3)
    across = elbo(Target(gen(jumping), (), {"y": 0.7}), mean_field, landing=True)
    with pytest.raises(GradientThroughDraw, match="a jump"):
        jax.grad(lambda m: seed(expectation(across))(key, m))(0.3)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("doubly", [False, True])
def test_reparameterised_gradients_have_the_same_mean(doubly, shared):
    """By quadrature: the error is at most ten times what the number of nodes changes."""
    m = jnp.asarray(0.3)
    target = (lambda m: on(0.6 + m)) if shared else on(0.9)  # the model may have the parameter, too
    objective = iwelbo(target, mean_field, 2)
    estimate = expectation(iwelbo(target, mean_field, 2, doubly=doubly))

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


def several_heads():
    sample("u", dist.Normal(0.0, 1.0).expand([5]))


WITHIN = Target(gen(unit), (), {"y": 1})
FIVE = Target(gen(several_heads))


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
        (lambda p: sample("u", dist.Normal(p, 1.0).expand([5, 1])), FIVE, "shape (5, 1)"),
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


@gen
def other(x, p):
    sample("c", dist.Bernoulli(p))


@gen
def lacking(p):
    c = sample("c", dist.Bernoulli(p))
    sample("a", dist.Bernoulli(0.2 + 0.6 * c * p))


ESTIMATED = normalize(TARGET, by_importance(2))


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: elbo(TARGET, guide, landing=True), NoStrategy, '"a" does not move'),
        (lambda: iwelbo(TARGET, guide, 2, doubly=True), NoStrategy, '"a" does not move'),
        (lambda: elbo(TARGET, ESTIMATED, landing=True), InvalidArgument, "the guide's density"),
        (lambda: elbo(TARGET, ESTIMATED, analytic=True), InvalidArgument, "the guide's density"),
        (lambda: vimco(TARGET, ESTIMATED, 2), InvalidArgument, "the guide's density"),
        (lambda: vimco(TARGET, guide, 1), InvalidArgument, "2 or more"),
        (
            lambda: elbo(on(0.9), mean_field, landing=True, analytic=True),
            InvalidArgument,
            "not both",
        ),
        (lambda: renyi(TARGET, guide, -0.5, 2), InvalidArgument, "0 <= alpha"),
        (lambda: f_divergence(TARGET, guide, "total variation"), InvalidArgument, "hellinger"),
        (lambda: f_divergence(TARGET, guide, "chi"), InvalidArgument, "chi_square"),
        (lambda: f_divergence(TARGET, guide, lambda r: r), InvalidArgument, "not convex"),
        (lambda: forward_kl(TARGET, guide, mean_field), GuideMismatch, "does not make the latents"),
        (lambda: forward_kl(TARGET, guide, 0), InvalidArgument, "1 or more"),
        (lambda: sleep(TARGET, guide), InvalidArgument, "what the target observes"),
        (lambda: hvi(TARGET, lacking, other), GuideMismatch, 'make "b" in the guide'),
        (
            lambda: hvi(
                TARGET, wide, gen(lambda x, p: [sample(z, dist.Bernoulli(p)) for z in "cd"])
            ),
            AddressNotFound,
            'names "d"',
        ),
        (lambda: hvi(TARGET, wide, gen(lambda x, p: None)), InvalidArgument, "makes no choice"),
    ],
)
def test_what_would_be_wrong_is_refused(make, kind, words):
    with pytest.raises(PPLError) as caught:
        seed(make())(jax.random.key(0), 0.4)
    assert type(caught.value) is kind and words in str(caught.value), str(caught.value)
    assert caught.value.fix and "test_objectives.py" in str(caught.value)
