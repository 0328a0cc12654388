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
from inference.vi.divergences import forward_kl, symmetric_kl
from inference.vi.f_divergence import f_divergence
from inference.vi.renyi import renyi
from inference.vi.vimco import vimco
from inference.vi.wake import sleep, wake, wake_p
from ppl import (
    Target,
    enumerate_,
    expectation,
    gen,
    integrate,
    measure_valued,
    reinforce,
    sample,
    select,
)
from tests.two_coins import (
    TARGET,
    asleep,
    back,
    bound,
    convex,
    doubly_weighted,
    forward,
    forward_exactly,
    guide,
    hierarchical,
    importance_weighted,
    joint,
    learned_by_weight,
    model,
    model_of,
    of_order,
    of_wide,
    posterior,
    reading,
    symmetric,
    symmetric_exactly,
    wide,
)

EXACT = 1e-11


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
