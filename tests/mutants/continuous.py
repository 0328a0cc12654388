"""Kernels with continuous choices: reversible jump, Hamiltonian Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import Move, metropolize
from inference.move import accept
from ppl import Target, Trace, draw, gen, sample
from semantics.contracts.continuous import check_kernel_quadrature

from .ratios import moves, total
from .registry import family

# -- reversible jump (Green 1995) ------------------------------------------------------------


@gen
def optional_mean():
    k = sample("k", dist.Bernoulli(0.4))
    mu = jax.lax.cond(k == 1, lambda: sample("mu", dist.Normal(1.0, 1.5)), lambda: 0.0)
    sample("y", dist.Normal(mu, 0.5))


@gen
def birth(latents):
    jax.lax.cond(latents["k"] == 0, lambda: sample("u", dist.Normal(0.2, 1.1)), lambda: 0.0)


def jump(x: dict, u: dict) -> tuple[dict, dict]:
    """mu = sinh(u) is born, or dies; the zero of what is absent goes the other way."""
    born = x["k"] == 0
    mu = jnp.where(born, jnp.sinh(u["u"]), u["u"])
    back = jnp.where(born, x["mu"], jnp.arcsinh(x["mu"]))
    return {"k": 1 - x["k"], "mu": mu}, {"u": back}


def make_jump(_: Target) -> Move:
    return Move(birth, jump)


def jump_ratio(wrong: str, target: Target, trace: Trace, u: dict) -> jax.Array:
    """The log ratio of the jump, term by term."""
    x = target.choices(trace)
    new_x, new_u = jump(x, u)
    log_slope = jnp.where(x["k"] == 0, jnp.log(jnp.cosh(u["u"])), -0.5 * jnp.log1p(x["mu"] ** 2))
    terms = {
        "target": target.log_density(new_x) - target.log_density(x),
        "backward": birth.assess(new_u, new_x)[0],
        "forward": -birth.assess(u, x)[0],
        "Jacobian": -log_slope if wrong == "inverse Jacobian" else log_slope,
    }
    return total(terms, wrong)


OPTIONAL_MEAN = Target(optional_mean, (), {"y": 1.2})

_jump = moves("reversible jump", make_jump, OPTIONAL_MEAN, jump_ratio)


# -- between one and two dimensions: the law of the whole kernel, by quadrature -----------------


@gen
def one_or_two():
    k = sample("k", dist.Bernoulli(0.4))
    x = sample("x", dist.Normal(0.5, 1.0))
    y = jax.lax.cond(k == 1, lambda: sample("y", dist.Normal(-0.5, 1.0)), lambda: 0.0)
    sample("seen", dist.Normal(x + y + 0.3 * x * y, 1.0))


@gen
def part(latents):
    at = 0.3 * latents["x"]
    jax.lax.cond(latents["k"] == 0, lambda: sample("u", dist.Normal(at, 0.7)), lambda: 0.0)


def split(x: dict, u: dict) -> tuple[dict, dict]:
    """A part sinh(u) of x is split off, or the two are merged."""
    one = x["k"] == 0
    off = jnp.sinh(u["u"])
    merged = {"x": x["x"] + x["y"], "y": u["u"]}
    new = {name: jnp.where(one, v, merged[name]) for name, v in (("x", x["x"] - off), ("y", off))}
    return {"k": 1 - x["k"], **new}, {"u": jnp.where(one, x["y"], jnp.arcsinh(x["y"]))}


SPLIT = Move(part, split)
ONE_OR_TWO = Target(one_or_two, (), {"seen": 1.2})


def splitting(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """The library's kernel, or one with a term of its ratio `wrong`."""
    if not wrong:
        return metropolize(SPLIT, target)

    def kernel(trace: Trace) -> Trace:
        x = target.choices(trace)
        u = part.simulate(x).choices
        new_x, new_u = split(x, u)
        new, difference = target.moved(trace, new_x)
        one = x["k"] == 0
        log_slope = jnp.log(jnp.cosh(jnp.where(one, u["u"], new_u["u"])))
        terms = {
            "target": difference,
            "backward": part.assess(new_u, new_x)[0],
            "forward": -part.assess(u, x)[0],
            "Jacobian": jnp.where(one, log_slope, -log_slope),
        }
        return accept(trace, new, total(terms, wrong))

    return kernel


def seen(latents: dict) -> dict:
    k, x, y = latents["k"], latents["x"], latents["y"]
    return {
        "k": 1.0 * k,
        "x": jnp.sin(x),
        "kx": k * jnp.sin(x),
        "y": jnp.sin(y),
        "xy": jnp.sin(x + y),
    }


# -- Hamiltonian Monte Carlo (Neal 2011) -----------------------------------------------------


@gen
def curved():
    x = sample("x", dist.Normal(0.3, 1.0))
    sample("y", dist.Normal(x + 0.3 * x**2, 1.0))


CURVED = Target(curved, (), {"y": 1.0})
STEP, STEPS = 0.5, 3


def hmc(target: Target, wrong: str = "") -> Callable[[Trace], Trace]:
    """Leapfrog steps from a fresh momentum, accepted by the change of energy."""

    def force(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: target.log_density({"x": x}))(x)

    def leapfrog(x: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        if wrong == "positions first":
            for _ in range(STEPS):
                x = x + 0.5 * STEP * p
                p = p + STEP * force(x)
                x = x + 0.5 * STEP * p
            return x, p
        for i in range(STEPS):
            p = p + (1.0 if wrong == "half step" and i == 0 else 0.5) * STEP * force(x)
            x = x + STEP * p
            p = p + 0.5 * STEP * force(x)
        return x, p

    def kernel(trace: Trace) -> Trace:
        p = draw(dist.Normal(0.0, 1.0))
        x, p_after = leapfrog(trace["x"], p)
        new, difference, _ = target.update(trace, {"x": x})
        if wrong == "no accept":
            return new
        kinetic = 0.5 * (p**2 - p_after**2)
        sign = {"stale momentum": 0.0, "sign": -1.0}.get(wrong, 1.0)
        potential = 0.0 if wrong == "no potential" else difference
        return accept(trace, new, potential + sign * kinetic)

    return kernel


_split = family(
    "split and merge, by quadrature", check_kernel_quadrature, splitting, ONE_OR_TWO,
    statistics=seen, nodes=(60, 80), bounds=(-5.0, 5.0),
)  # fmt: skip
_hmc = family("HMC", check_kernel_quadrature, hmc, CURVED, nodes=(160, 240))

ENTRIES = (
    _jump("correct", "", "a mean is born as sinh(u), or dies"),
    _jump("mutant", "Jacobian", "without the Jacobian"),
    _jump("mutant", "inverse Jacobian", "with the inverse of the Jacobian"),
    _jump("mutant", "forward", "without the forward auxiliary density"),
    _jump("mutant", "backward", "without the reverse auxiliary density"),
    _jump("mutant", "target", "without the target"),
    _split("correct", "", "a part sinh(u) of x is split off, or merged with it: 1 to 2 dimensions"),
    _split("mutant", "Jacobian", "without the Jacobian"),
    _split("mutant", "backward", "without the density of u at a merge"),
    _hmc("correct", "", "leapfrog with an accept step"),
    _hmc("equivalent", "positions first", "leapfrog that moves the position first"),
    _hmc("mutant", "half step", "the first half step of the momentum is a whole one"),
    _hmc("mutant", "no accept", "every proposal accepted"),
    _hmc("mutant", "stale momentum", "kinetic energy of the momentum at the start, twice"),
    _hmc("mutant", "sign", "kinetic energy with the opposite sign"),
    _hmc("mutant", "no potential", "potential energy left out of the ratio"),
)
