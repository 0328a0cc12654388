"""Sticking the landing in every construct: the gradient of the bound, and none at the posterior.

All choices are normal, with locations that are linear in the choices before and scales that no
choice moves; so log densities are quadratic in the noise, and derivatives by paths are, too.
Gauss's rule of 4 nodes is exact up to degree 7. Sums of some hundred products of numbers below 100
err by less than 1e-11.

With a function of the same form as the guide for a model, and nothing observed, the posterior is
the guide at the model's parameters.

`landing` has the right first derivatives only, and so has `doubly`: no more is compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from numpy.testing import assert_allclose

from inference import elbo, iwelbo
from ppl import Target, draw, expectation, gen, integrate, repeat, sample, scan, vmap
from ppl.errors import GradientThroughDraw, NoStrategy
from semantics.compiling import QUICK

EXACT = 1e-11
MODEL = jnp.array([0.5, -0.1, 0.4])
GUIDE = jnp.array([0.3, -0.2, 0.6])
KNOWN = jnp.array([1.0, 2.5])


def normal(address, theta, before, scale=1.0):
    """The location is linear in what comes before; the scale has a parameter of its own."""
    return sample(address, dist.Normal(theta[0] + theta[2] * before, scale * jnp.exp(theta[1])))


def straight(theta):
    a = normal("a", theta, 1.0)
    normal("b", theta, a, 0.5)


def chain(theta):
    def body(z, x):
        return normal("z", theta, z + x), z

    lax.scan(body, theta[0], jnp.array([0.3, -0.4]))


def backwards(theta):
    def body(z, x):
        return normal("z", theta * x, z), z

    lax.scan(body, 0.2, KNOWN, reverse=True)


def counted(theta):
    lax.fori_loop(0, 2, lambda i, z: z / 2 + normal("z", theta, z + i), theta[0])


def branch(theta):
    """Which branch is known when the program runs, and not before."""
    a = normal("a", theta, 1.0)
    one = lambda: normal("b", theta, a)  # noqa: E731
    other = lambda: normal("b", theta**2, a - 1)  # noqa: E731
    lax.cond(theta[0] < 0.4, one, other)


def known_branch(theta):
    a = normal("a", theta, 1.0)
    lax.switch(1, [lambda: a, lambda: normal("b", theta, a), lambda: -a])


def branch_within_a_loop(theta):
    def body(z, i):
        branches = [lambda: normal("z", theta, z), lambda: normal("z", -theta, z)]
        return lax.switch(i, branches), None

    lax.scan(body, 0.5, jnp.array([1, 0]))


def plate(theta):
    a = normal("a", theta, 1.0)
    jax.vmap(lambda x: normal("z", x * theta, a))(KNOWN)


def vector(theta):
    a = normal("a", theta, 1.0)
    normal("z", theta, a * KNOWN, KNOWN)


def matrix(theta):
    """Two values that depend on each other, and one that depends on both."""
    factor = jnp.array([[1.0, 0.0], [theta[2], 2.0]]) * jnp.exp(theta[1])
    z = sample("z", dist.MultivariateNormal(theta[0] * KNOWN, scale_tril=factor))
    normal("b", theta, z[0] - z[1])


def compiled(theta):
    inner = jax.jit(lambda x: normal("b", theta, x))
    inner(normal("a", theta, 1.0) ** 1)


def kept(theta):
    inner = jax.checkpoint(lambda theta, x: normal("b", theta, x) + x)
    normal("c", theta, inner(theta, normal("a", theta, 1.0)))


def called(theta):
    """Generative functions within others, and the combinators of the language."""
    step = gen(lambda z, x: (normal("z", theta, z + x), None))
    last, _ = sample("s", scan(step, 2)(0.1, jnp.array([0.3, -0.4])))
    sample("v", vmap(gen(lambda x: normal("w", theta, x)))(last * KNOWN[:1]))


def repeated(theta):
    a = normal("a", theta, 1.0)
    sample("r", repeat(gen(lambda: normal("z", theta, a)), 2)())


def rows(theta):
    """A vector that a loop reads row by row."""
    z = sample("z", dist.Normal(theta[0] * KNOWN, jnp.exp(theta[1])))
    lax.scan(lambda c, z: (c + normal("w", theta, z), None), 0.0, z)


CONTEXTS = [straight, chain, backwards, counted, branch, known_branch, branch_within_a_loop]
CONTEXTS += [plate, vector, matrix, compiled, kept, called, repeated, rows]
FAST = {plate}


def contexts():
    for context in CONTEXTS:
        marks = () if context in FAST else pytest.mark.slow
        yield pytest.param(context, id=context.__name__, marks=marks)


def quickly(f, *args):
    return jax.tree.map(np.asarray, jax.jit(f, compiler_options=QUICK)(*args))


def in_parts(target, guide):
    """The bound of `matrix`, whose vector is made of two numbers, for quadrature."""

    def bound(theta):
        e = draw(dist.Normal(0.0, jnp.exp(theta[1])).expand([2]))
        z = theta[0] * KNOWN + jnp.stack([e[0], theta[2] * e[0] + 2 * e[1]])
        b = draw(dist.Normal(theta[0] + theta[2] * (z[0] - z[1]), jnp.exp(theta[1])))
        choices = {"z": z, "b": b}
        return target.log_density(choices) - guide.assess(choices, theta)[0]

    return bound


@pytest.mark.parametrize("context", contexts())
def test_landing_has_the_gradient_of_the_bound(context):
    """The bound's value, too. Without the guide's score the means are those with it."""
    target, guide = Target(gen(context), (MODEL,), {}), gen(context)
    landing = expectation(elbo(target, guide, landing=True))
    found = quickly(integrate(jax.value_and_grad(landing), nodes=4), GUIDE)
    bound = in_parts(target, guide) if context is matrix else elbo(target, guide)
    right = quickly(jax.value_and_grad(integrate(bound, nodes=4)), GUIDE)
    assert np.all(np.abs(np.append(*right)) > 0.01)
    assert_allclose(found[0], right[0], rtol=EXACT)
    assert_allclose(found[1], right[1], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("context", contexts())
def test_at_the_posterior_no_draw_has_a_gradient(context):
    """Of `landing` and of `doubly`; that of the plain bound varies from draw to draw."""
    target, guide = Target(gen(context), (MODEL,), {}), gen(context)

    def spread(objective, nodes):
        slope = jax.grad(expectation(objective))
        return quickly(integrate(lambda theta: slope(theta) ** 2, nodes=nodes), MODEL)

    # each of some ten terms errs by 1e-15 of numbers below 100
    assert np.all(spread(elbo(target, guide, landing=True), 3) < (1e-12) ** 2)
    assert np.all(spread(iwelbo(target, guide, 2, doubly=True), 2) < (1e-12) ** 2)
    assert np.all(spread(elbo(target, guide), 3) > 0.1)


def test_a_models_parameters_beside_the_landing():
    """Parameters of the model only, of both, and of the guide only: the score that is left out
    is the guide's, and not the model's."""
    objective = elbo(
        lambda model, both, _: Target(gen(chain), (model * both,), {}),
        gen(lambda model, both, theta: chain(theta + both)),
        landing=True,
    )
    plain = elbo(objective.target, objective.guide)
    at = MODEL, jnp.asarray(1.1), GUIDE
    found = quickly(integrate(jax.grad(expectation(objective), (0, 1, 2)), nodes=4), *at)
    right = quickly(jax.grad(integrate(plain, nodes=4), (0, 1, 2)), *at)
    for one, other in zip(found, right, strict=True):
        assert_allclose(one, other, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("way", [lambda f: f, jax.jit, jax.checkpoint])
def test_a_jump_or_a_discrete_choice_in_any_construct_is_refused(way):
    """In a loop whose body is as it is, compiled, or computed again for the derivative."""

    def walk(step):
        def body(c, _):
            return way(step)(c), None

        return lambda theta: lax.scan(body, theta, None, length=2)[0]

    def across(theta):
        z = normal("z", jnp.stack([theta, 0.0, 1.0]), 1.0)
        return jnp.where(z > theta, 0.0, z)

    def discrete(theta):
        return 0.5 * sample("z", dist.Bernoulli(jax.nn.sigmoid(theta)))

    for step, kind in ((across, GradientThroughDraw), (discrete, NoStrategy)):
        of = gen(walk(step))
        estimate = expectation(elbo(Target(of, (0.5,), {}), of, landing=True))
        with pytest.raises(kind):
            integrate(jax.grad(estimate), nodes=2)(0.3)
