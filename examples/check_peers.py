"""Kernels of BlackJAX and NumPyro, checked on a small hierarchical model in five lines each.

Run with `python -m examples.check_peers`. Exits 0 only if both libraries' Hamiltonian Monte
Carlo passes, and a copy that never rejects fails. The probability that a right kernel fails
is at most 1e-8 each, and no chain has to converge.
"""

import importlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.infer import HMC
from rich.console import Console

from ppl import Target, gen, sample
from semantics.contracts.sampled import blackjax_kernel, check_kernel_sampled, numpyro_kernel
from semantics.report import table


@gen
def groups():
    """Three groups whose means vary by tau around mu; one observation of each."""
    mu = sample("mu", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.LogNormal(0.0, 0.5))
    theta = sample("theta", dist.Normal(mu, tau).expand([3]))
    sample("y", dist.Normal(theta, jnp.array([0.5, 1.0, 2.0])))


# The check draws its own data: these say which choices are observed.
target = Target(groups, (), {"y": jnp.zeros(3)})


class Algorithm(NamedTuple):
    """What BlackJAX calls a sampling algorithm."""

    init: object
    step: object


def checks(blackjax):
    """The verdicts on BlackJAX's kernel, NumPyro's, and a broken copy of the first."""

    def blackjax_hmc(log_p):
        return blackjax.hmc(log_p, 0.3, jnp.ones(5), 4)

    def numpyro_hmc(potential):
        return HMC(
            potential_fn=potential,
            step_size=0.3,
            trajectory_length=None,
            num_steps=4,
            adapt_step_size=False,
        )

    def never_rejects(log_p):
        hmc = blackjax_hmc(log_p)

        def step(key, state):
            _, info = hmc.step(key, state)
            return info.proposal, info

        return Algorithm(hmc.init, step)

    key = jax.random.key(0)
    return {
        "blackjax.hmc": check_kernel_sampled(
            lambda t: blackjax_kernel(blackjax_hmc, t), target, key
        ),
        "numpyro HMC": check_kernel_sampled(lambda t: numpyro_kernel(numpyro_hmc, t), target, key),
        "blackjax.hmc, never rejects": check_kernel_sampled(
            lambda t: blackjax_kernel(never_rejects, t), target, key
        ),
    }


def main() -> int:
    try:
        blackjax = importlib.import_module("blackjax")
    except ImportError:
        print("nothing to check: blackjax is not installed (pip install blackjax)")
        return 0
    found = checks(blackjax)
    shown = [type(v)(**{**vars(v), "check": name}) for name, v in found.items()]
    Console(width=100).print(table(shown, "Kernels of other libraries: invariant?"))
    broken = found["blackjax.hmc, never rejects"]
    print(f"never rejects: {broken.witness}")
    right = [verdict.passed for verdict in found.values()] == [True, True, False]
    print("as expected" if right else "NOT as expected")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
