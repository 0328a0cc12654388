"""Kernels that move in unconstrained space by noise and gradients, and their classical bugs.

Random walks, Langevin and Hamiltonian proposals on a positive latent, for which the Jacobian
of the bijection counts; and the no-U-turn sampler, with its trees written out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import Kernel, iterate, random_walk
from inference import hmc as library_hmc
from inference.move import accept
from ppl import Target, Trace, draw, gen, sample
from semantics.contracts.continuous import check_kernel_quadrature
from semantics.contracts.sampled import check_kernel_sampled

from .continuous import CURVED
from .registry import family

Potential = Callable[[jax.Array], jax.Array]
KEY = jax.random.key(4)


@gen
def rate():
    x = sample("x", dist.Gamma(3.0, 2.0))
    sample("y", dist.Normal(jnp.log(x), 0.7))


RATE = Target(rate, (), {"y": 0.4})


def potential_of(target: Target, wrong: str) -> Potential:
    """-log density in unconstrained space; without its Jacobian, if that is `wrong`."""
    if wrong == "Jacobian":
        return lambda z: -target.log_density(target.constrain({"x": z})[0])
    return lambda z: target.potential({"x": z})


def position(target: Target, trace: Trace) -> jax.Array:
    return target.unconstrain(target.choices(trace))["x"]


def at(target: Target, trace: Trace, z: jax.Array) -> Trace:
    return target.update(trace, target.constrain({"x": z})[0])[0]


# -- random walk (Metropolis et al. 1953) ------------------------------------------------------


def walk(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Gaussian steps on unconstrained space, accepted by the ratio of the densities."""
    potential = potential_of(target, wrong)

    def kernel(trace: Trace) -> Trace:
        z = position(target, trace)
        scale = 0.8 + 0.4 * jnp.tanh(z) if wrong == "scale" else 0.8
        q = z + scale * draw(dist.Normal(0.0, 1.0))
        return accept(trace, at(target, trace, q), potential(z) - potential(q))

    return kernel


def walk_for(target: Target, wrong: str = "") -> Kernel:
    """The library's random walk; of other data, if that is `wrong`, and without saying so.

    The kernel itself says so, and is refused on `target`.
    """
    made_for = Target(rate, (), {"y": -1.0}) if wrong else target
    return replace(random_walk(made_for, step_size=0.8), target=None)


# -- Langevin (Roberts and Tweedie 1996) -------------------------------------------------------

STEP = 0.9


def mala(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """z' ~ N(z + h^2 / 2 grad log p(z), h^2), accepted by Hastings' ratio."""
    potential = potential_of(target, wrong)

    def proposal(z: jax.Array) -> Any:
        drift = STEP**2 * (0.7 if wrong == "drift" else 0.5)
        return dist.Normal(z - drift * jax.grad(potential)(z), STEP)

    def kernel(trace: Trace) -> Trace:
        z = position(target, trace)
        q = draw(proposal(z))
        terms = {
            "target": potential(z) - potential(q),
            "reverse": proposal(q).log_prob(z),
            "forward": -proposal(z).log_prob(q),
        }
        left = ["reverse", "forward"] if wrong == "symmetric" else [wrong]
        ratio = sum(term for name, term in terms.items() if name not in left)
        new = at(target, trace, q)
        return new if wrong == "no accept" else accept(trace, new, ratio)

    return kernel


# -- Hamiltonian (Neal 2011) -------------------------------------------------------------------


def hmc(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Three leapfrog steps in unconstrained space, accepted by the change of energy."""
    potential = potential_of(target, wrong)

    def kernel(trace: Trace) -> Trace:
        z = position(target, trace)
        p = draw(dist.Normal(0.0, 1.0))
        q, r = z, p
        for _ in range(3):
            q, r = leapfrog(potential, q, r, 0.5)
        change = potential(z) - potential(q) + (p**2 - r**2) / 2
        return accept(trace, at(target, trace, q), change)

    return kernel


def leapfrog(potential: Potential, q: Any, p: Any, h: Any) -> tuple[Any, Any]:
    force = jax.grad(lambda q: -potential(q))
    p = p + h / 2 * force(q)
    q = q + h * p
    return q, p + h / 2 * force(q)


def carried(target: Target, wrong: str = "") -> Kernel:
    """Two steps of the library's kernel, whose state has the potential and its gradient; one
    of them stays as it was before the step, if that is `wrong`."""
    kernel = library_hmc(target, steps=1, step_size=0.35)

    def step(metric: Any, phase: Any) -> tuple[Any, Any]:
        new, stats = kernel.step(metric, phase)
        if wrong:
            new = new._replace(**{wrong: getattr(phase, wrong)})
        return new, stats

    return iterate(replace(kernel, step=step), 2)


@gen
def plane():
    x = sample("x", dist.Normal(jnp.zeros(2), jnp.array([1.0, 0.4])))
    sample("y", dist.Normal(x[0] * x[1], 0.5))


PLANE = Target(plane, (), {"y": 0.6})
INVERSE_MASS = jnp.array([[1.0, 0.5], [0.5, 0.3]])


def dense(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Hamiltonian Monte Carlo with a dense mass matrix: p ~ N(0, M), dx = M^-1 p."""
    mass = jnp.linalg.inv(INVERSE_MASS)
    covariance = INVERSE_MASS if wrong == "inverse" else mass
    if wrong == "transposed factor":
        upper = jnp.linalg.cholesky(INVERSE_MASS).T
        covariance = jnp.linalg.inv(upper @ upper.T)

    def kernel(trace: Trace) -> Trace:
        force = jax.grad(lambda x: target.log_density({"x": x}))
        x = trace["x"]
        p = draw(dist.MultivariateNormal(jnp.zeros(2), covariance))
        q, r = x, p
        for _ in range(3):
            r = r + 0.35 * force(q)
            q = q + 0.7 * INVERSE_MASS @ r
            r = r + 0.35 * force(q)
        new, difference, _ = target.update(trace, {"x": q})
        velocity = (lambda p: p) if wrong == "kinetic" else (lambda p: INVERSE_MASS @ p)
        return accept(trace, new, difference + (p @ velocity(p) - r @ velocity(r)) / 2)

    return kernel


# -- no U-turns (Hoffman and Gelman 2014; Betancourt 2017) -------------------------------------


@gen
def strip():
    """Narrow in one direction, so that steps along the other have large errors of energy."""
    x = sample("x", dist.Normal(jnp.zeros(2), jnp.array([1.0, 0.3])))
    sample("y", dist.Normal(x[0], 1.0))


STRIP = Target(strip, (), {"y": 0.5})
DEPTH, LENGTH = 3, 0.55


class Tree(NamedTuple):
    """A trajectory: both ends, the chosen position, log weight, sum of momenta, no U-turn."""

    near: tuple[Any, Any]
    far: tuple[Any, Any]
    chosen: Any
    log_weight: Any
    momentum: Any
    straight: Any


def nuts(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Doubled trajectories, of which one point is chosen by its weight, with one thing `wrong`."""

    def potential(q: jax.Array) -> jax.Array:
        return -target.log_density({"x": q})

    def turned(a: tuple, b: tuple, momentum: Any) -> Any:
        return (a[1] @ momentum <= 0) | (b[1] @ momentum <= 0)

    def tree(level: int, start: tuple, sign: Any, energy: Any) -> Tree:
        if level == 0:
            q, p = leapfrog(potential, *start, sign * LENGTH)
            weight = energy - potential(q) - p @ p / 2
            if wrong == "no weights":
                weight = jnp.zeros_like(weight)
            return Tree((q, p), (q, p), q, weight, p, jnp.asarray(True))
        one = tree(level - 1, start, sign, energy)
        two = tree(level - 1, one.far, sign, energy)
        share = jax.nn.sigmoid(two.log_weight - one.log_weight)
        second = draw(dist.Bernoulli(0.5 if wrong == "uniform" else share)) == 1
        momentum = one.momentum + two.momentum
        return Tree(
            one.near,
            two.far,
            jnp.where(second, two.chosen, one.chosen),
            jnp.logaddexp(one.log_weight, two.log_weight),
            momentum,
            one.straight & two.straight & ~turned(one.near, two.far, momentum),
        )

    def kernel(trace: Trace) -> Trace:
        q = trace["x"]
        p = draw(dist.Normal(jnp.zeros(q.shape), 1.0))
        energy = potential(q) + p @ p / 2
        left, right, chosen, total, momentum = (q, p), (q, p), q, jnp.zeros(()), p
        going = jnp.asarray(True)
        for level in range(DEPTH):
            forward = draw(dist.Bernoulli(0.5)) == 1
            start = jax.tree.map(lambda a, b, f=forward: jnp.where(f, b, a), left, right)
            new = tree(level, start, jnp.where(forward, 1.0, -1.0), energy)
            share = jnp.exp(jnp.minimum(new.log_weight - total, 0.0))
            if wrong == "not biased":
                share = jax.nn.sigmoid(new.log_weight - total)
            if wrong == "always new":
                share = jnp.ones(())
            allowed = going if wrong == "U-turns taken" else going & new.straight
            taken = allowed & (draw(dist.Bernoulli(share)) == 1)
            chosen = jnp.where(taken, new.chosen, chosen)
            left = jax.tree.map(lambda a, b, f=forward: jnp.where(f, a, b), left, new.far)
            right = jax.tree.map(lambda a, b, f=forward: jnp.where(f, b, a), right, new.far)
            total = jnp.logaddexp(total, new.log_weight)
            momentum = momentum + new.momentum
            going = going & new.straight & ~turned(left, right, momentum)
        return target.update(trace, {"x": chosen})[0]

    return kernel


_walk = family("random walk", check_kernel_quadrature, walk, RATE)
_walk_for = family("random walk, library", check_kernel_quadrature, walk_for, RATE)
_mala = family("MALA", check_kernel_quadrature, mala, RATE)
_hmc = family("HMC, positive", check_kernel_quadrature, hmc, RATE)
_carried = family("HMC, carried", check_kernel_quadrature, carried, CURVED, nodes=(60, 90))
_dense = family("HMC, dense", check_kernel_sampled, dense, PLANE, KEY, steps=3)
_nuts = family("NUTS", check_kernel_sampled, nuts, STRIP, KEY, steps=2)

ENTRIES = (
    _walk("correct", "", "steps in unconstrained space"),
    _walk("mutant", "Jacobian", "without the Jacobian of the bijection"),
    _walk("mutant", "scale", "the scale depends on the position, the ratio does not"),
    _walk_for("correct", "", "made for this target"),
    _walk_for("mutant", "other target", "made for other data: a kernel of another target"),
    _mala("correct", "", "as published"),
    _mala("equivalent", "drift", "more drift, in both proposal densities"),
    _mala("mutant", "Jacobian", "without the Jacobian of the bijection"),
    _mala("mutant", "reverse", "without the reverse proposal density"),
    _mala("mutant", "symmetric", "without both proposal densities"),
    _mala("mutant", "no accept", "every proposal accepted"),
    _hmc("correct", "", "three leapfrog steps in unconstrained space"),
    _hmc("mutant", "Jacobian", "without the Jacobian of the bijection"),
    _carried("correct", "", "potential and gradient carried from step to step"),
    _carried("mutant", "gradient", "the carried gradient is that before the step"),
    _carried("mutant", "potential", "the carried potential is that before the step"),
    _dense("correct", "", "a dense mass matrix, long steps"),
    _dense("mutant", "inverse", "momenta with the inverse of the mass matrix"),
    _dense("mutant", "transposed factor", "momenta by the transposed Cholesky factor"),
    _dense("mutant", "kinetic", "kinetic energy with the mass matrix left out"),
    _nuts("correct", "", "multinomial, biased to the new half"),
    _nuts("equivalent", "not biased", "multinomial between the halves too"),
    _nuts("mutant", "uniform", "a doubled subtree chooses its halves evenly"),
    _nuts("mutant", "no weights", "points of a trajectory are chosen evenly"),
    _nuts("mutant", "U-turns taken", "a point of a subtree with a U-turn is taken"),
    _nuts("mutant", "always new", "the new half is always taken"),
)
