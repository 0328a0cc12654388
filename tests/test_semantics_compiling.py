"""What checks compile with few optimisations has the numbers of what is optimised."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from semantics.compiling import UNFUSED


def test_slopes_of_the_larger_of_two_are_right():
    """With fusions, level 0 of jax 0.10.2 is off by 2.6: `findings/jax_hypot_gradient_unoptimised`.

    `jnp.hypot` asks in its derivative which of two numbers the larger one was.
    """

    def f(x, y):
        return jnp.hypot(jnp.exp(x) * jnp.cos(y) + x, jnp.exp(x) * jnp.sin(y) - x)

    x, y = np.random.default_rng(0).normal(size=(2, 500))
    found = jax.jit(jax.vmap(jax.grad(f)), compiler_options=UNFUSED)(x, y)
    a, b = np.exp(x) * np.cos(y) + x, np.exp(x) * np.sin(y) - x
    by_hand = a * (np.exp(x) * np.cos(y) + 1) + b * (np.exp(x) * np.sin(y) - 1)
    # slopes are at most 22, and the nearest (a, b) is .05 from 0: some 1e-16 * 22 / .05 of error
    assert_allclose(found, by_hand / np.hypot(a, b), rtol=0, atol=1e-9)
