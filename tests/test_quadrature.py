"""Quadrature rules: their nodes and weights at any count, and derivatives beside jumps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.scipy import special
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

from ppl import draw, errors, gen, integrate, paths, quadrature, sample
from semantics import check_gradient

EPS = np.finfo(float).eps


def of_normal(k):
    return 0.0 if k % 2 else float(math.prod(range(1, k, 2)))


def of_uniform(k):
    return 1 / (k + 1)


def moments_are_exact(n):
    """Weights sum to one; moments of degree < 2n are those of the law, to rounding.

    A sum of n positive terms whose factors are right to some n eps each (the recurrence has n
    steps) is right to 2 n eps.
    """
    for kind, moment in (("normal", of_normal), ("uniform", of_uniform)):
        x, w = quadrature.gauss(kind, n)
        assert np.all(np.diff(x) > 0) and np.all(w >= 0)
        for k in range(min(2 * n, 9)):
            scale = max(1.0, moment(k + k % 2))
            assert abs(w @ x**k - moment(k)) <= 2 * (n + 8) * EPS * scale, (kind, n, k)
        u, w = quadrature.midpoints(kind, n)
        assert abs(w.sum() - 1) <= n * EPS and abs(w @ u - moment(1)) <= 4 * n * EPS


# S15: the weights of the Hermite rule underflowed beyond 370 nodes; each rule is swept
@pytest.mark.parametrize("n", [*range(1, 33), 63, 64, 128, 369, 380, 400, 511, 640, 1000])
def test_rules_are_exact_at_any_count(n):
    moments_are_exact(n)


@pytest.mark.slow
def test_rules_are_exact_at_every_count():
    for n in range(1, 1001):
        moments_are_exact(n)


def test_nodes_are_those_of_numpy():
    for n in (5, 20, 50):
        for kind, theirs in (
            ("normal", np.polynomial.hermite_e.hermegauss),
            ("uniform", np.polynomial.legendre.leggauss),
        ):
            x, w = quadrature.gauss(kind, n)
            y, v = theirs(n)
            y = y if kind == "normal" else (y + 1) / 2
            np.testing.assert_allclose(x, y, atol=100 * EPS)
            np.testing.assert_allclose(w, v / v.sum(), rtol=1e-10, atol=1e-300)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["gauss", "midpoint", "trapezoid"])
@pytest.mark.parametrize("n", [2, 30, 300, 1000])
def test_every_rule_has_all_the_probability(rule, n):
    """The grid of the trapezoid rule has it as soon as its spacing is below one."""
    for d in (dist.Normal(0.5, 1.0), dist.Uniform(1.0, 3.0), dist.Gamma(2.0, 1.0)):
        fine = rule != "trapezoid" and type(d) is not dist.Gamma
        if not fine and n < 100:
            continue
        bounds = (-40.0, 40.0)
        mass = integrate(lambda d=d: draw(d) * 0 + 1, nodes=n, rule=rule, bounds=bounds)()
        assert abs(float(mass) - 1) < 1e-9, d


def test_many_nodes_have_the_right_moment():
    value, error = integrate(lambda: draw(dist.Normal(0.0, 1.0)) ** 2, nodes=(380, 400))()
    np.testing.assert_allclose(value, 1, atol=1e-12)
    assert float(error) < 1e-12


@pytest.mark.slow
def test_probability_that_no_node_sees_is_in_the_error():
    """Both grids end at 8: nothing is known of what lies at 100, and half of what lies at 8."""
    far = lambda t: draw(dist.Normal(t, 1.0))  # noqa: E731
    found = integrate(far, nodes=(40, 60), rule="trapezoid")
    assert np.isinf(found(100.0).error) and np.isinf(found(8.0).error)
    lost = 1 - norm.cdf(2.0)  # at 6: the share of the value is in the error
    np.testing.assert_allclose(found(6.0).error, 6.0 * lost, rtol=0.3)
    assert float(found(0.5).error) < 1e-9
    verdict = check_gradient(lambda t: 0.0 * t, far, (100.0,), nodes=(40, 60), rule="trapezoid")
    assert not verdict.passed and "other bounds" in verdict.witness


@pytest.mark.parametrize("nodes", [0, -3, 2.5, (8, 0), (8,), (1, 2, 3)])
def test_no_number_of_nodes(nodes):
    with pytest.raises(errors.InvalidArgument, match="whole numbers"):
        integrate(lambda: 1.0, nodes=nodes)
    with pytest.raises(errors.InvalidArgument, match="whole numbers"):
        paths(lambda: 1.0, nodes=nodes)


def test_a_grid_of_one_node():
    with pytest.raises(errors.InvalidArgument, match="two nodes"):
        integrate(lambda: draw(dist.Gamma(2.0, 1.0)), nodes=1)()


# -- derivatives beside jumps -------------------------------------------------------------------
#
# x ~ N(t, 1), and an integrand of x whose mean's derivative is known: E[f]' = sum of the jumps'
# heights times the density there, for a piecewise constant f.

AT = 0.5


def x_of(t):
    return draw(dist.Normal(t, 1.0))


def density(at, t=AT):
    return float(norm.pdf(at - t))


def by_scan(t):
    def step(c, _):
        return c + jnp.where(draw(dist.Normal(t, 1.0)) > 0, 1.0, 0.0), None

    return lax.scan(step, 0.0, None, length=1)[0]


def by_while(t):
    x = x_of(t)
    return lax.while_loop(lambda n: n < x, lambda n: n + 1.0, 0.0)


def by_cond(t):
    return lax.cond(x_of(t) > 0, lambda: 1.0, lambda: 0.0)


def by_vmap(t):
    return jax.vmap(lambda _: jnp.where(draw(dist.Normal(t, 1.0)) > 0, 1.0, 0.0))(jnp.arange(1))[0]


def in_a_law(t):
    return draw(dist.Bernoulli(jnp.where(x_of(t) > 0, 0.75, 0.25))) * 2.0


@gen
def latent(t):
    x = sample("x", dist.Normal(t, 1.0))
    return jnp.where(x > 0, 1.0, 0.0)


JUMPS = {
    "where": (lambda t: jnp.where(x_of(t) > 0, 1.0, 0.0), [0.0]),
    "mask": (lambda t: (x_of(t) >= 0) * 1.0, [0.0]),
    "sign": (lambda t: 0.5 * jnp.sign(x_of(t)), [0.0]),
    "floor": (lambda t: jnp.floor(x_of(t) / 6.0), [-6.0, 0.0, 6.0]),
    "ceil": (lambda t: jnp.ceil(x_of(t) / 6.0), [-6.0, 0.0, 6.0]),
    "round": (lambda t: jnp.round(x_of(t) / 12.0 + 0.5), [0.0]),
    "cast": (lambda t: jnp.floor(x_of(t) / 6.0).astype(int) * 1.0, [-6.0, 0.0, 6.0]),
    "argmax": (lambda t: 1.0 * jnp.argmax(jnp.stack([0.0, x_of(t)])), [0.0]),
    "argsort": (lambda t: 1.0 * jnp.argsort(jnp.stack([0.0, x_of(t)]))[1], [0.0]),
    "searchsorted": (lambda t: 1.0 * jnp.searchsorted(jnp.zeros(1), x_of(t)), [0.0]),
    "index": (lambda t: jnp.array([0.0, 1.0])[(x_of(t) > 0).astype(int)], [0.0]),
    "cond": (by_cond, [0.0]),
    "scan": (by_scan, [0.0]),
    "while": (by_while, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    "vmap": (by_vmap, [0.0]),
    "jit": (lambda t: jax.jit(lambda x: jnp.where(x > 0, 1.0, 0.0))(x_of(t)), [0.0]),
    "law": (in_a_law, [0.0]),
    "model": (lambda t: latent.simulate(t).retval, [0.0]),
}  # fmt: skip


FOLLOWED = ("where", "floor", "while", "law", "model")


# S14: the derivative was 0, and an estimator of 0 passed as unbiased
@pytest.mark.slow
@pytest.mark.parametrize("name", JUMPS)
def test_nodes_that_move_never_cross_a_jump(name):
    f, places = JUMPS[name]
    for rule in ("gauss", "midpoint"):
        with pytest.raises(errors.GradientThroughDraw, match=r"test_quadrature\.py") as caught:
            jax.eval_shape(jax.grad(integrate(f, nodes=6, rule=rule)), AT)
        assert len(caught.value.where) == 2 and "trapezoid" in str(caught.value.fix)
    if name not in FOLLOWED:
        return
    # the fix: the density's derivative is at most 1/4, and each jump is misplaced by half a spacing
    exact, h = sum(density(at) for at in places), 20 / 3999
    found = jax.grad(integrate(f, nodes=4000, rule="trapezoid", bounds=(-10.0, 10.0)))(AT)
    np.testing.assert_allclose(found, exact, atol=len(places) * h / 8)


positive = JUMPS["where"][0]


def score_function(t):
    x = x_of(t)
    return (x > 0) * jax.grad(lambda m: norm.logpdf(x - m))(t)


def test_a_gradient_through_a_jump_is_not_certified():
    wrong = lambda t: 0.0 * t  # noqa: E731
    for estimator in (wrong, score_function):
        with pytest.raises(errors.GradientThroughDraw, match="trapezoid"):
            check_gradient(estimator, positive, (AT,), nodes=(8, 12))
    staying = {"nodes": (400, 600), "rule": "trapezoid"}
    check_gradient(score_function, positive, (AT,), **staying).require()
    failed = check_gradient(wrong, positive, (AT,), **staying)
    assert not failed.passed
    np.testing.assert_allclose(failed.error, density(0.0), atol=1e-3)


def test_where_the_jump_moves_no_rule_is_right():
    """P(z > t) for z ~ N(0, 1): the nodes stay, the jump does not; and x = t + z."""
    moved = lambda t: jnp.where(draw(dist.Normal(0.0, 1.0)) > t, 1.0, 0.0)  # noqa: E731
    shifted = lambda t: jnp.where(t + draw(dist.Normal(0.0, 1.0)) > 0, 1.0, 0.0)  # noqa: E731
    scaled = lambda t: jnp.where(draw(dist.Uniform(0.0, t)) > 0.2, 1.0, 0.0)  # noqa: E731
    for f in (moved, shifted, scaled):
        for rule in ("gauss", "midpoint", "trapezoid"):
            with pytest.raises(errors.GradientThroughDraw, match="enter the distribution"):
                jax.grad(integrate(f, nodes=8, rule=rule))(AT)


@pytest.mark.parametrize("take", [jax.grad, jax.jacfwd, lambda f: jax.jit(jax.grad(f)),
                                  lambda f: lambda t: jax.vmap(jax.grad(f))(jnp.ones(2) * t),
                                  lambda f: lambda t: jax.jvp(f, (t,), (1.0,)),
                                  lambda f: lambda t: jax.linearize(f, t)])  # fmt: skip
def test_every_way_to_differentiate(take):
    for f in (
        integrate(positive, nodes=4),
        jax.jit(integrate(positive, nodes=4)),
        lambda t: integrate(lambda: positive(t), nodes=4)(),
        lambda t: integrate(positive, nodes=(4, 6))(t).value,
        lambda t: jnp.sum(jnp.multiply(*paths(positive, nodes=4)(t))),
    ):
        with pytest.raises(errors.GradientThroughDraw):
            take(f)(AT)


# what is smooth, or jumps elsewhere, is differentiated as before: E[f]' by the closed form
SMOOTH = {
    "square": (lambda t: x_of(t) ** 2, 2 * AT),
    "abs": (lambda t: jnp.abs(x_of(t + 9)), 1.0),
    "relu": (lambda t: jax.nn.relu(x_of(t + 9)), 1.0),
    "leaky": (lambda t: jax.nn.leaky_relu(x_of(t + 9)), 1.0),
    "clip": (lambda t: jnp.clip(x_of(t), -20.0, 20.0), 1.0),
    "ndtr": (lambda t: special.ndtr(x_of(t)), float(norm.pdf(AT / 2**0.5)) / 2**0.5),
    "logaddexp": (lambda t: jnp.logaddexp(x_of(t + 40), 0.0), 1.0),
    "sort": (lambda t: jnp.sort(jnp.stack([x_of(t), -20.0]))[1], 1.0),
    "parameter": (lambda t: jnp.where(t > 0, x_of(t), 3.0), 1.0),
    "another draw": (lambda t: x_of(t) * jnp.where(draw(dist.Normal(0.0, 1.0)) > 0, 1.0, 0.0), 0.5),
    "finite draw": (lambda t: jnp.where(draw(dist.Bernoulli(0.5)) == 1, x_of(t), 0.0), 0.5),
    "unused": (lambda t: (x_of(t), x_of(t) > 0)[0], 1.0),
    "known range": (lambda t: jnp.where(jnp.exp(x_of(t)) + 1 > 1, x_of(t), 0.0), 1.0),
    "support": (lambda t: jnp.where(draw(dist.LogNormal(t, 1.0)) > 0, x_of(t), 0.0), 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_is_differentiated(name):
    f, exact = SMOOTH[name]
    np.testing.assert_allclose(jax.grad(integrate(f, nodes=24))(AT), exact, rtol=1e-9)


def test_a_clipped_value_reaches_the_end_of_its_range():
    """max(x, 0) > 0 is a jump of x, although max(x, 0) lies in [0, inf)."""
    for f in (lambda x: jnp.maximum(x, 0.0) * 0.5 > 0, lambda x: jnp.abs(jnp.clip(x, 0, 1)) > 0):
        with pytest.raises(errors.GradientThroughDraw):
            jax.grad(integrate(lambda t, f=f: jnp.where(f(x_of(t)), 1.0, 0.0), nodes=8))(AT)


# E[log density] under a distribution itself: minus its entropy, whose derivative is known
ENTROPY = {
    "Normal": (lambda t: dist.Normal(0.0, t), -1 / AT),
    "HalfNormal": (dist.HalfNormal, -1 / AT),
    "LogNormal": (lambda t: dist.LogNormal(0.0, t), -1 / AT),
    "Exponential": (dist.Exponential, 1 / AT),
    "Laplace": (lambda t: dist.Laplace(0.0, t), -1 / AT),
    "Gamma": (lambda t: dist.Gamma(2.0, t), 1 / AT),
    "StudentT": (lambda t: dist.StudentT(9.0, 0.0, t), -1 / AT),
    "Cauchy": (lambda t: dist.Cauchy(0.0, t), -1 / AT),
    "HalfCauchy": (dist.HalfCauchy, -1 / AT),
    "Weibull": (lambda t: dist.Weibull(t, 2.0), -1 / AT),
    "Logistic": (lambda t: dist.Logistic(0.0, t), -1 / AT),
    "Gumbel": (lambda t: dist.Gumbel(0.0, t), -1 / AT),
    "InverseGamma": (lambda t: dist.InverseGamma(3.0, t), -1 / AT),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTROPY)
def test_checks_of_a_support_are_no_jumps(name):
    make, exact = ENTROPY[name]
    model = gen(lambda t: sample("x", make(t)))
    found = jax.jit(jax.grad(integrate(lambda t: model.simulate(t).score, nodes=64)))(AT)
    np.testing.assert_allclose(found, exact, rtol=2e-2)  # Gauss's error at a logarithm


def test_nodes_are_those_of_the_precision_in_use():
    """E[x^4] = 3 by four nodes, to the last digit, after a 32-bit program with the same nodes.

    jax 0.10.2 gives a NumPy array that a 32-bit program has closed over to 64-bit ones as it was
    rounded there: findings/jax_numpy_constant_keeps_precision.sh.
    """

    def fourth(s):
        return draw(dist.Normal(0.0, s)) ** 4

    with jax.enable_x64(False):
        kept = jax.jit(integrate(fourth, nodes=4))
        assert_allclose(kept(1.0), 3.0, rtol=1e-5)
    assert_allclose(jax.jit(integrate(lambda s: fourth(s), nodes=4))(1.0), 3.0, rtol=1e-14)
