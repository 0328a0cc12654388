"""The data of all programs: times that are not regular, and what a wave with noise is at them.

Nothing of this project is imported, since peers read this file in interpreters of their own.
"""

import jax
import jax.numpy as jnp
import numpy as np

PARAMETERS = (1.5, 0.8, 0.1)
"""Scale and standard deviation of a Matérn-3/2 process, and the variance of the noise."""


def data(n):
    """Parameters, times and values, in double precision: ten times a unit, on the whole."""
    jax.config.update("jax_enable_x64", True)
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0, n / 10, n))
    values = np.sin(times) + 0.3 * random.normal(size=n)
    return jnp.asarray(PARAMETERS), jnp.asarray(times), jnp.asarray(values)


def run_as_peer(density, n):
    """Be timed: the log density of all parameters, and its gradient."""
    from serve import compiled, serve

    args = data(n)
    run, facts = compiled(jax.value_and_grad(density), *args)
    value, slope = jax.jit(jax.value_and_grad(density))(*args)
    serve(run, value=float(value), slope=np.asarray(slope).tolist(), **facts)
