"""The data of all programs, and how peers are timed with them.

Nothing of this project is imported, since peers read this file in interpreters of their own.
"""

import jax
import jax.numpy as jnp
import numpy as np

PARAMETERS = (1.5, 0.8, 0.1)
"""Scale and standard deviation of a Matérn-3/2 process, and the variance of the noise."""
STATES = 50
"""Of the hidden Markov model."""


def prepare():
    """Double precision, and calls that run in the thread that makes them.

    JAX hands those that seem long to another thread, which costs 40 microseconds: ten times what
    a small density takes. It is to be called before anything is computed.
    """
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def data(n):
    """A wave with noise at times that are not regular: parameters, times and values.

    In double precision; ten times a unit, on the whole.
    """
    prepare()
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0, n / 10, n))
    values = np.sin(times) + 0.3 * random.normal(size=n)
    return jnp.asarray(PARAMETERS), jnp.asarray(times), jnp.asarray(values)


def regimes(n):
    """A hidden Markov model that stays where it is for some steps: parameters, and n values.

    The parameters are logits of the transitions, a row for each state before, and the mean of
    what is seen in each state, with a standard deviation of one. The state before the first step
    is state zero. In double precision.
    """
    prepare()
    random = np.random.default_rng(0)
    logits = random.normal(size=(STATES, STATES)) + 3 * np.eye(STATES)
    means = np.linspace(-5, 5, STATES)
    weights = np.exp(logits)
    weights /= weights.sum(1, keepdims=True)
    states, z = [], 0
    for _ in range(n):
        z = random.choice(STATES, p=weights[z])
        states.append(z)
    values = means[states] + random.normal(size=n)
    return (jnp.asarray(logits), jnp.asarray(means)), jnp.asarray(values)


def run_as_peer(density, args):
    """Be timed: the log density of the first argument, and its gradient by all that is in it."""
    from serve import compiled, serve

    run, facts = compiled(jax.value_and_grad(density), *args)
    value, slope = jax.jit(jax.value_and_grad(density))(*args)
    slope = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slope)])
    serve(run, value=float(value), slope=slope.tolist(), **facts)
