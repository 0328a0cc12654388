"""NumPyro's enumeration of a hidden Markov model, which multiplies matrices in a tree.

PYTHON benchmarks/statespace/regimes_of_numpyro.py N
"""

import sys

import funsor
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum, log_density
from problem import regimes, run_as_peer

funsor.set_backend("jax")


def model(p, values):
    logits, means = p

    def step(z, value):
        z = numpyro.sample("z", dist.Categorical(logits=logits[z]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=value)
        return z, None

    scan(step, 0, values)


def density(p, values):
    enumerated = enum(config_enumerate(model), first_available_dim=-1)
    return log_density(enumerated, (p, values), {}, {})[0]


if __name__ == "__main__":
    run_as_peer(density, regimes(int(sys.argv[1])))
