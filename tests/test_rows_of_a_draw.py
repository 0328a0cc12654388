"""Loops that read the elements of one draw row by row, and join what they have read.

What a row leaves depends on its element and, by the carry, on those before: two parts of one array
of scores, whose values side by side are the same lane. Terms of the carry are credited inside of
the loop where it goes on linearly, so each part counts once there.

Both sides are sums over all paths, in float64, as in `test_expectation.py`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from numpy.testing import assert_allclose

from ppl import (
    disarm,
    draw,
    enumerate_,
    expectation,
    integrate,
    leave_one_out,
    measure_valued,
    reinforce,
)
from semantics.compiling import QUICK

EXACT = 1e-11
P = jnp.asarray(0.6)
KNOWN = jnp.array([1.0, 0.5])

STRATEGIES = {
    "reinforce": reinforce(),
    "constant": reinforce(1.5),
    "leave one out": reinforce(leave_one_out(2)),
    "enumerate": enumerate_(),
    "measure valued": measure_valued(),
    "disarm": disarm(),
}


def flips(how, p):
    return draw(dist.Bernoulli(p * KNOWN), how)


def product(how, p):
    return lax.scan(lambda c, z: (c * jnp.cos(z + p), None), 1.0, flips(how, p))[0]


def nested(how, p):
    return lax.scan(lambda c, z: (jnp.sin(c + z * p), None), p, flips(how, p))[0]


def backwards(how, p):
    read = partial(lax.scan, reverse=True)
    return read(lambda c, z: (jnp.sin(c + z * p), None), p, flips(how, p))[0]


def put_out(how, p):
    c, ys = lax.scan(lambda c, z: (c * p + jnp.cos(z), c * z), p, flips(how, p))
    return c + jnp.sum(ys)


def of_a_batch(how, p):
    z = jax.vmap(lambda x: jnp.tanh(1.0 * draw(dist.Bernoulli(p * x), how)))(KNOWN)
    return lax.scan(lambda c, z: (jnp.sin(c + z * p), c * z), p, z)[0]


def from_a_loop(how, p):
    _, z = lax.scan(lambda c, x: (c, draw(dist.Bernoulli(p * x), how)), 0.0, KNOWN)
    return lax.scan(lambda c, z: (jnp.sin(c + z * p), None), p, z)[0]


def with_a_branch(how, p):
    def body(c, z):
        return lax.cond(z == 1, lambda: jnp.sin(c + p), lambda: c * p), None

    return lax.scan(body, p, flips(how, p))[0]


def two_draws(how, p):
    """The rows of a second one, which depends on the first, are read beside them."""
    z = flips(how, p)
    w = draw(dist.Bernoulli(jnp.where(z == 1, p, p**2)), how)
    return lax.scan(lambda c, zw: (jnp.sin(c + zw[0] + 2.0 * zw[1]), None), p, (z, w))[0]


def row_and_sum(how, p):
    """A second loop reads the rows, and what a first one has put out of those up to each."""
    z = flips(how, p)
    _, sums = lax.scan(lambda c, z: (c + z, c + z), 0.0, z)
    _, ys = lax.scan(lambda c, zs: (c, jnp.sin(zs[0] + 2.0 * zs[1] + p)), 0.0, (z, sums))
    return jnp.sum(ys)


def row_and_column(how, p):
    """A matrix is read by rows and by columns."""
    z = draw(dist.Bernoulli(p * KNOWN * jnp.ones((2, 1))), how)
    _, ys = lax.scan(lambda c, zs: (c, jnp.sin(zs[0] + zs[1] @ KNOWN + p)), 0.0, (z, z.T))
    return jnp.sum(ys)


CONTEXTS = [product, nested, backwards, put_out, of_a_batch, from_a_loop, with_a_branch, two_draws]
CONTEXTS += [row_and_sum, row_and_column]
FAST = {
    ("product", "disarm"),
    ("row_and_sum", "reinforce"),
    ("nested", "measure valued"),
    ("put_out", "leave one out"),
}


def cases():
    for context in CONTEXTS:
        for name in STRATEGIES:
            key = context.__name__, name
            yield pytest.param(
                context, name, id="-".join(key), marks=() if key in FAST else pytest.mark.slow
            )


def derivatives(f, p):
    (value, slope), (_, curvature) = jax.jvp(jax.value_and_grad(f), (p,), (jnp.ones(()),))
    return value, slope, curvature


def quickly(f):
    return np.asarray(jax.jit(f, compiler_options=QUICK)(P))


@pytest.mark.parametrize("context, name", cases())
def test_each_row_counts_once(context, name):
    """The value, and two derivatives."""
    right = quickly(partial(derivatives, integrate(partial(context, None))))
    assert np.all(np.abs(right) > 1e-3)
    estimate = expectation(partial(context, STRATEGIES[name]))
    found = quickly(integrate(partial(derivatives, estimate)))
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)
