"""Objectives where something is zero, moves, or is held: what a maintainer's reading found."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from inference import (
    Objective,
    elbo,
    f_divergence,
    fit,
    forward_kl,
    iwelbo,
    minibatch,
    mmd,
    pathfinder,
    symmetric_kl,
    vimco,
    wake,
)
from ppl import (
    GenerativeFunction,
    Target,
    expectation,
    factor,
    gen,
    integrate,
    observe,
    reinforce,
    sample,
    seed,
)
from ppl.errors import AddressNotFound, GradientThroughDraw, InvalidArgument


def log_normal(m):
    sample("b", dist.LogNormal(m, 0.5))


def below():
    b = sample("b", dist.HalfNormal(1.0))
    sample("y", dist.Uniform(0.0, b))


def below_in_place():
    observe(dist.Uniform(0.0, sample("b", dist.HalfNormal(1.0))), 1.0)


BELOW = Target(gen(below), (), {"y": 1.0})


@pytest.mark.parametrize("target", [BELOW, Target(gen(below_in_place))], ids=["choice", "observe"])
@pytest.mark.parametrize(
    "objective", [lambda t, g: f_divergence(t, g, "hellinger"), lambda t, g: iwelbo(t, g, 2)]
)
def test_an_observed_support_that_moves_with_a_latent_is_a_jump(target, objective):
    """y = 1 is possible where b > 1, and the density jumps there from 1 to 0."""
    made = objective(target, gen(log_normal))
    with pytest.raises(GradientThroughDraw, match="jump"):
        seed(jax.grad(expectation(made)))(jax.random.key(0), 0.2)
    seed(jax.grad(expectation(made, {"b": reinforce()})))(jax.random.key(0), 0.2)


@gen
def coin(s):
    fair = sample("fair", dist.Bernoulli(s))
    sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))


@gen
def guess(s, p):
    sample("fair", dist.Bernoulli(p))


def of(s, p):
    return Target(coin, (s,), {"heads": 1})


def test_a_symmetric_divergence_does_not_move_the_target():
    posterior = gen(lambda s, p: sample("fair", dist.Bernoulli(0.4)))
    for made in (symmetric_kl(of, guess, posterior), symmetric_kl(of, guess, 2)):
        assert integrate(jax.grad(expectation(made)))(0.5, 0.3) == 0


class Held:
    """A guide's function with its parameter inside."""

    def __init__(self, p):
        self.p = p

    def __call__(self):
        sample("fair", dist.Bernoulli(self.p))


jax.tree_util.register_pytree_node(Held, lambda h: ((h.p,), None), lambda _, c: Held(*c))


@pytest.mark.parametrize("make", [lambda t, g: wake(t, g, 2), lambda t, g: vimco(t, g, 2)])
def test_a_parameter_in_a_guides_leaves_is_held_like_an_argument(make):
    target = Target(coin, (0.5,), {"heads": 1})
    by_argument = make(target, gen(lambda p: sample("fair", dist.Bernoulli(p))))

    def in_leaves(p):
        return make(target, GenerativeFunction(Held(p), name="held"))()

    right = integrate(jax.grad(expectation(by_argument)))(0.3)
    assert_allclose(integrate(jax.grad(expectation(in_leaves)))(0.3), right, rtol=1e-11)
    assert right != 0


def test_an_impossible_outcome_has_no_weight():
    """With fair = 1 impossible: E_q[w log w] = (1 - q) w log w, w = 0.75 / (1 - q)."""
    target = Target(coin, (0.0,), {"heads": 1})
    guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    bound = f_divergence(target, guide, "forward_kl")
    value, slope = integrate(jax.value_and_grad(expectation(bound, {"fair": reinforce()})))(0.3)
    right, right_slope = jax.value_and_grad(lambda q: -0.75 * jnp.log(0.75 / (1 - q)))(0.3)
    assert_allclose([value, slope], [right, right_slope], rtol=1e-11)
    for made in (wake(target, guide, 2), forward_kl(target, guide, 2)):
        assert np.isfinite(integrate(jax.grad(made))(0.3))  # two weights of zero have no share


def test_a_kernel_with_a_kink_has_a_derivative():
    """exp(-|a - b|), of a norm whose derivative at 0 is no number: the same as by |a - b|."""
    near = gen(lambda m: sample("x", dist.Normal(m, 1.0)))
    data = np.array([[0.1], [0.7], [1.5]])
    slopes = [
        seed(jax.grad(expectation(mmd(near, data, kernel))))(jax.random.key(0), 0.3)
        for kernel in (
            lambda a, b: jnp.exp(-jnp.linalg.norm(a - b)),
            lambda a, b: jnp.exp(-jnp.sum(jnp.abs(a - b))),
        )
    ]
    assert_allclose(*slopes, rtol=1e-12)


def test_a_run_of_ones_own_is_run_and_minibatches_are_for_linear_ones():
    whole = Target(coin, (0.5,), {"heads": 1})
    guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    mine = Objective("elbo", whole, guide, lambda target, guide, args: 12345.0)
    assert seed(mine)(jax.random.key(0), 0.4) == 12345
    some = minibatch(lambda i: whole, 3, 2)
    with pytest.raises(InvalidArgument, match="no elbo of a minibatch"):
        seed(Objective("elbo", some, guide, mine.run))(jax.random.key(0), 0.4)
    with pytest.raises(AddressNotFound, match='"zz"'):
        local = gen(lambda p, numbers: sample("fair", dist.Bernoulli(p)))
        seed(elbo(minibatch(lambda i: whole, 3, 2, local="zz"), local))(jax.random.key(0), 0.4)


def test_an_infinite_parameter_stays_in_the_average():
    found = fit(jax.random.key(0), lambda p: -(p[0] ** 2), jnp.array([1.0, jnp.inf]), steps=3)
    assert np.isfinite(found.parameters[0]) and found.parameters[1] == jnp.inf


@pytest.mark.slow
def test_a_mixture_with_a_part_of_no_weight_is_fitted_on():
    """Two modes, one of which is e^1000 times as high."""

    @gen
    def two():
        x = sample("x", dist.Normal(0.0, 5.0))
        factor(jnp.logaddexp(-((x - 4) ** 2) * 8, -1000 - (x + 4) ** 2 * 8))

    target = Target(two)
    found = pathfinder(jax.random.key(0), target, paths=4)
    fitted = fit(jax.random.key(1), elbo(target, found.guide), found.parameters, steps=3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(fitted.parameters))
