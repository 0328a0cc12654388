"""Kernels with continuous draws: quadrature in phase space, and e-values from exact starts.

Each mutant is a right kernel of this file with one thing wrong, and is seen by the same call.
A sampled check of a right kernel alarms with probability at most its alpha = 1e-8 (Ville).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC
from scipy import stats

from inference import mh
from inference.move import accept
from ppl import Masked, Target, draw, errors, factor, gen, sample
from semantics.contracts.continuous import check_kernel_quadrature
from semantics.contracts.sampled import (
    Opaque,
    blackjax_kernel,
    check_kernel_sampled,
    check_pure_kernel,
    numpyro_kernel,
)

KEY = jax.random.key(20261124)


@gen
def normal():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(x, 1.0))


@gen
def rate():
    x = sample("x", dist.Gamma(3.0, 2.0))
    sample("y", dist.Normal(jnp.log(x), 0.7))


@gen
def with_momentum():
    """The state of a sampler that keeps its momentum."""
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("m", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(x, 1.0))


GAUSSIAN, POSITIVE = Target(normal, (), {"y": 0.4}), Target(rate, (), {"y": 0.4})
PHASE_SPACE = Target(with_momentum, (), {"y": 0.4})


# -- kernels, right and wrong ------------------------------------------------------------------


def random_walk(target, jacobian=True, power=1.0):
    """Metropolis on unconstrained space."""

    def kernel(trace):
        old = target.choices(trace)
        z = target.unconstrain(old)
        proposed = {"x": z["x"] + draw(dist.Normal(0.0, 0.8))}
        new = target.constrain(proposed)[0]
        log_ratio = target.potential(z) - target.potential(proposed)
        if not jacobian:
            log_ratio = target.log_density(new) - target.log_density(old)
        return accept(trace, target.update(trace, new)[0], power * log_ratio)

    return kernel


def mala(target, proposal_ratio=True):
    """Langevin proposals (Roberts and Tweedie 1996)."""
    step = 0.9

    def proposal(z):
        return dist.Normal(z["x"] - step**2 / 2 * jax.grad(target.potential)(z)["x"], step)

    def kernel(trace):
        z = target.unconstrain(target.choices(trace))
        proposed = {"x": draw(proposal(z))}
        log_ratio = target.potential(z) - target.potential(proposed)
        if proposal_ratio:
            backward, forward = proposal(proposed), proposal(z)
            log_ratio += backward.log_prob(z["x"]) - forward.log_prob(proposed["x"])
        new = target.constrain(proposed)[0]
        return accept(trace, target.update(trace, new)[0], log_ratio)

    return kernel


def leapfrog(potential, q, p, step, n, last=0.5):
    """n steps; `last` is the share of the last kick, half a step if right."""
    kick = jax.grad(potential)
    p = p - step / 2 * kick(q)
    for i in range(n):
        q = q + step * p
        p = p - (last if i == n - 1 else 1.0) * step * kick(q)
    return q, p


def hmc(target, last=0.5, accepting=True, step=0.4):
    """Hamiltonian Monte Carlo (Duane, Kennedy, Pendleton and Roweth 1987) with a new momentum."""

    def kernel(trace):
        z, p = target.unconstrain(target.choices(trace))["x"], draw(dist.Normal(0.0, 1.0))
        potential = lambda q: target.potential({"x": q})  # noqa: E731
        q, r = leapfrog(potential, z, p, step, 3, last)
        log_ratio = potential(z) + p**2 / 2 - potential(q) - r**2 / 2
        new = target.update(trace, target.constrain({"x": q})[0])[0]
        return accept(trace, new, log_ratio) if accepting else new

    return kernel


def persistent(target, refreshed=True):
    """HMC whose momentum is a latent: refreshed in part and turned back on rejection
    (Horowitz 1991), or stale."""

    def kernel(trace):
        x, p = trace["x"], trace["m"]
        if refreshed:
            p = 0.6 * p + 0.8 * draw(dist.Normal(0.0, 1.0))
        start = target.update(trace, {"m": -p if refreshed else p})[0]
        potential = lambda q: target.potential({"x": q, "m": 0.0})  # noqa: E731
        q, r = leapfrog(potential, x, p, 0.9, 3)
        log_ratio = potential(x) + p**2 / 2 - potential(q) - r**2 / 2
        return accept(start, target.update(trace, {"x": q, "m": r})[0], log_ratio)

    return kernel


# -- quadrature --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [random_walk, mala, hmc])
def test_right_kernels_with_accept_steps_are_invariant(kernel):
    check_kernel_quadrature(kernel, POSITIVE).require()


def test_resolution_of_a_walk_is_better_than_one_in_a_million():
    assert check_kernel_quadrature(random_walk, GAUSSIAN).require().threshold < 1e-6


@pytest.mark.slow
def test_momentum_in_the_state_in_three_dimensions():
    check_kernel_quadrature(persistent, PHASE_SPACE, nodes=(60, 90), bounds=(-6, 6)).require()


MUTANTS = {
    "wrong last half step": partial(hmc, last=1.0),
    "no accept": partial(hmc, accepting=False, step=0.5),
    "no proposal ratio": partial(mala, proposal_ratio=False),
    "no Jacobian": partial(random_walk, jacobian=False),
    "a temperature of 1.001": partial(random_walk, power=1 / 1.001),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_kernels_are_seen_on_the_grid(mutant):
    verdict = check_kernel_quadrature(MUTANTS[mutant], POSITIVE)
    assert not verdict.passed
    assert "under the kernel" in verdict.witness  # and is not merely unresolved


def test_stale_momentum_is_seen():
    verdict = check_kernel_quadrature(partial(persistent, refreshed=False), PHASE_SPACE)
    assert not verdict.passed
    assert "under the kernel" in verdict.witness


def test_the_error_is_the_departure():
    # x ~ N(0, 1), moved by 1: E[sin(x + 1)] = exp(-1/2) sin 1, and E[sin x] = 0
    target = Target(gen(lambda: sample("x", dist.Normal(0.0, 1.0))))
    verdict = check_kernel_quadrature(
        lambda t: lambda trace: t.update(trace, {"x": trace["x"] + 1.0})[0],
        target,
        statistics=lambda latents: {"s": jnp.sin(latents["x"])},
    )
    assert not verdict.passed
    assert abs(verdict.error - math.exp(-0.5) * math.sin(1.0)) < verdict.threshold == 1e-10
    assert verdict.witness == "E[statistic['s']] changes by 0.5104 under the kernel"


def prior(target):
    """Ignores the data: a draw of the model."""
    return lambda trace: target.update(trace, {"x": draw(dist.Normal(0.0, 1.0))})[0]


def test_a_grid_that_is_too_coarse_or_too_small_does_not_pass():
    still = lambda t: lambda trace: trace  # noqa: E731
    coarse = check_kernel_quadrature(hmc, POSITIVE, nodes=(30, 40))
    small = check_kernel_quadrature(still, GAUSSIAN, bounds=(-1.0, 1.0))
    assert [coarse.passed, small.passed] == [False, False]
    assert coarse.witness.startswith("not resolved") and "give other nodes" in coarse.witness
    assert small.witness.startswith("not resolved") and "give other bounds" in small.witness


def forgets_score(target):
    """Invariant but for the trace's score."""
    walk = random_walk(target)
    return lambda trace: dataclasses.replace(walk(trace), score=trace.score)


def moves_data(target):
    return lambda trace: target.model.update(trace, {"y": trace["y"] + 1.0})[0]


@pytest.mark.parametrize("kernel", [forgets_score, moves_data])
def test_stale_scores_and_moved_observations_are_seen(kernel):
    on_grid = check_kernel_quadrature(kernel, GAUSSIAN, nodes=(100, 150))
    by_chance = check_kernel_sampled(kernel, GAUSSIAN, KEY)
    assert not on_grid.passed
    assert on_grid.check == "fresh score"
    assert by_chance.error == math.inf
    assert by_chance.n == 200
    assert on_grid.witness == by_chance.witness


def test_nodes_are_two_counts_in_order():
    with pytest.raises(errors.InvalidArgument, match="compares two grids"):
        check_kernel_quadrature(random_walk, GAUSSIAN, nodes=(120, 80))


# -- sampling ----------------------------------------------------------------------------------


def sweep(target):
    return lambda trace: mh(target, "scale")(mh(target, "x")(trace))


@gen
def hierarchy():
    """Five dimensions, two of them data, and an integer: any number would do."""
    scale = sample("scale", dist.LogNormal(0.0, 0.5))
    k = sample("k", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    x = sample("x", dist.Normal(jnp.zeros(2), scale))
    sample("y", dist.Normal(x + k, 0.5))


HIERARCHY = Target(hierarchy, (), {"y": jnp.zeros(2)})


@pytest.mark.slow
def test_right_kernels_do_not_alarm():
    check_kernel_sampled(sweep, HIERARCHY, KEY).require()
    check_kernel_sampled(hmc, POSITIVE, KEY, reversible=True, steps=2).require()


@pytest.mark.slow
def test_null_checks_alarm_as_rarely_as_they_say():
    # P(e >= 100) <= 1/100 in each of 60 independent checks: more than the 1e-9 quantile of
    # the binomial law has probability at most 1e-9
    keys = jax.random.split(jax.random.key(1), 60)
    alarms = sum(
        not check_kernel_sampled(hmc, POSITIVE, key, alpha=0.01, sizes=(150, 250)) for key in keys
    )
    assert alarms <= stats.binom.isf(1e-9, len(keys), 0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant, n",
    [
        ("wrong last half step", 22200),
        ("no accept", 22200),
        ("no Jacobian", 2200),
    ],
)
def test_wrong_kernels_are_caught(mutant, n):
    # from an exact start one application shows the least of the bias, twenty most of it
    verdict = check_kernel_sampled(MUTANTS[mutant], POSITIVE, KEY, steps=20)
    assert not verdict.passed
    assert verdict.n <= n


def test_posterior_that_equals_the_prior_is_seen_by_the_joint_density():
    alone = lambda latents, data: {"x": latents["x"]}  # noqa: E731
    verdict = check_kernel_sampled(prior, GAUSSIAN, KEY, statistics=alone)
    assert not verdict.passed
    assert verdict.witness.startswith("log p(latents, data): mean ")


@pytest.mark.slow
def test_a_cycle_of_three_is_invariant_but_not_reversible():
    @gen
    def die():
        sample("x", dist.DiscreteUniform(0, 2))
        sample("y", dist.Normal(0.0, 1.0))

    target = Target(die, (), {"y": 0.0})
    turn = lambda t: Opaque(lambda key, latents: {"x": (latents["x"] + 1) % 3})  # noqa: E731
    check_kernel_sampled(turn, target, KEY).require()
    assert not check_kernel_sampled(turn, target, KEY, reversible=True)


def test_kernels_that_return_nan_fail():
    nan = lambda t: Opaque(lambda key, latents: {"x": latents["x"] * jnp.nan})  # noqa: E731
    verdict = check_kernel_sampled(nan, GAUSSIAN, KEY)
    assert verdict.witness == "log p(latents, data): NaN after the kernel at 200 of 200 starts"


def test_kernels_that_remember_are_not_pure():
    count = itertools.count()

    def warming(target):
        return Opaque(lambda key, latents: {"x": latents["x"] * 0.9 ** next(count)})

    def noisy(target):
        return Opaque(lambda key, latents: {"x": jax.random.normal(key)})

    assert check_pure_kernel(noisy, GAUSSIAN, KEY).require().error == 0.0
    verdict = check_kernel_sampled(warming, GAUSSIAN, KEY)
    assert (verdict.check, verdict.passed, verdict.error) == ("pure", False, 1.0)


def test_what_cannot_be_sampled_is_refused():
    scored = Target(gen(lambda: factor(sample("x", dist.Normal(0.0, 1.0)))))
    with pytest.raises(errors.CannotSimulate):
        check_kernel_sampled(lambda t: lambda trace: trace, scored, KEY)
    part = Target(hierarchy, (), {"y": Masked(jnp.zeros(2), jnp.array([True, False]))})
    with pytest.raises(errors.InvalidArgument, match="cannot be made"):
        check_kernel_sampled(sweep, part, KEY)
    with pytest.raises(errors.InvalidArgument, match="cannot be made"):
        check_kernel_sampled(random_walk, GAUSSIAN, KEY, sizes=())
    wide = lambda t: Opaque(lambda key, latents: {"x": jnp.zeros(2)})  # noqa: E731
    with pytest.raises(errors.InvalidArgument, match="other latents"):
        check_kernel_sampled(wide, GAUSSIAN, KEY)


# -- other libraries ---------------------------------------------------------------------------


def numpyro_hmc(potential, step_size=0.5):
    return HMC(
        potential_fn=potential,
        step_size=step_size,
        trajectory_length=None,
        num_steps=3,
        adapt_step_size=False,
    )


@pytest.mark.slow
def test_numpyro_kernel_moves_and_is_invariant():
    # a kernel that stays put would pass
    step = numpyro_kernel(numpyro_hmc, POSITIVE).step
    start = {"x": jnp.asarray(0.7)}
    moved = jax.vmap(lambda key: step(key, start)["x"] != start["x"])(jax.random.split(KEY, 20))
    assert moved.sum() > 10
    check_kernel_sampled(lambda t: numpyro_kernel(numpyro_hmc, t), POSITIVE, KEY).require()


@pytest.mark.slow
def test_blackjax_kernel_is_invariant_and_reversible_and_not_without_its_accept():
    blackjax = pytest.importorskip("blackjax")

    def build(log_p):
        return blackjax.hmc(log_p, 0.6, jnp.ones(1), 3)

    class Unadjusted:
        """The same, with every proposal taken."""

        def __init__(self, log_p):
            self.init, self.inner = build(log_p).init, build(log_p).step

        def step(self, key, state):
            _, info = self.inner(key, state)
            return info.proposal, info

    right = check_kernel_sampled(
        lambda t: blackjax_kernel(build, t), POSITIVE, KEY, reversible=True
    )
    right.require()
    assert not check_kernel_sampled(lambda t: blackjax_kernel(Unadjusted, t), POSITIVE, KEY)


# R13: discrete states were refused; a state of both kinds is of the same case
@pytest.mark.slow
def test_blackjax_kernel_moves_discrete_latents():
    """Random-walk Metropolis on (k, x), k ~ Bernoulli(.3), x ~ Exponential(1 + k)."""
    blackjax = pytest.importorskip("blackjax")

    @gen
    def both():
        k = sample("k", dist.Bernoulli(0.3))
        sample("x", dist.Exponential(1.0 + k))

    def propose(key, position):
        flip, step = jax.random.split(key)
        k = position["k"] ^ jax.random.bernoulli(flip, 0.5).astype(position["k"].dtype)
        return {"k": k, "x": position["x"] + jax.random.normal(step)}

    target = Target(both)
    seen = []

    def build(log_p):
        seen.append(log_p)
        return blackjax.rmh(log_p, propose)

    start = {"k": jnp.asarray(1), "x": jnp.asarray(0.7)}
    step = blackjax_kernel(build, target).step
    ends = jax.vmap(lambda key: step(key, start))(jax.random.split(KEY, 50))
    assert set(np.asarray(ends["k"]).tolist()) == {0, 1} and (ends["x"] > 0).all()
    (log_p,) = seen
    at = float(log_p({"k": jnp.asarray(1), "x": jnp.log(0.7)}))  # the Jacobian of exp is x
    np.testing.assert_allclose(at, np.log(0.3) + np.log(2.0) - 2 * 0.7 + np.log(0.7), rtol=1e-12)


@pytest.mark.slow
def test_the_example_of_both_libraries():
    pytest.importorskip("blackjax")
    from examples.check_peers import main

    assert main() == 0


# -- second moments ----------------------------------------------------------------------------


@gen
def pair():
    x = sample("x", dist.Normal(2.0, 1.0))
    sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(x, 10.0))


def test_a_correlation_that_marginals_do_not_show_is_seen():
    """Each latent keeps its law, and the density its median; only their product tells."""

    def correlated(target):
        def step(key, latents):
            noise = math.sqrt(1 - 0.3**2) * jax.random.normal(key)
            return {"x": latents["x"], "z": 0.3 * (latents["x"] - 2.0) + noise}

        return Opaque(step)

    verdict = check_kernel_sampled(correlated, Target(pair, (), {"y": 0.5}), KEY)
    assert not verdict and verdict.witness.startswith("(x - m) * (z - m): mean 0.")
