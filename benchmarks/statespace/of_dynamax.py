"""dynamax's Kalman filter, of matrices made by P - A P A': its matrix t leads into step t.

PYTHON benchmarks/statespace/of_dynamax.py N
"""

import sys

import jax
import jax.numpy as jnp
from dynamax.linear_gaussian_ssm.inference import (
    ParamsLGSSM,
    ParamsLGSSMDynamics,
    ParamsLGSSMEmissions,
    ParamsLGSSMInitial,
    lgssm_filter,
)
from problem import data, run_as_peer


def density(p, times, values):
    rate = jnp.sqrt(3.0) / p[0]
    whole = p[1] ** 2 * jnp.diag(jnp.array([1.0, rate**2]))

    def move(gap):
        x = rate * gap
        return jnp.exp(-x) * jnp.array([[1 + x, gap], [-rate * x, 1 - x]])

    moves = jax.vmap(move)(jnp.diff(times, prepend=times[:1]))
    noise = whole - moves @ whole @ jnp.swapaxes(moves, -1, -2)
    params = ParamsLGSSM(
        initial=ParamsLGSSMInitial(mean=jnp.zeros(2), cov=whole),
        dynamics=ParamsLGSSMDynamics(
            weights=moves, bias=jnp.zeros(2), input_weights=jnp.zeros((2, 0)), cov=noise
        ),
        emissions=ParamsLGSSMEmissions(
            weights=jnp.array([[1.0, 0.0]]),
            bias=jnp.zeros(1),
            input_weights=jnp.zeros((1, 0)),
            cov=p[2] * jnp.eye(1),
        ),
    )
    return lgssm_filter(params, values[:, None]).marginal_loglik


if __name__ == "__main__":
    run_as_peer(density, data(int(sys.argv[1])))
