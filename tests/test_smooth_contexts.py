"""Derivatives of continuous choices in every construct, exact by quadrature.

All functions are polynomials of the draws, and so are scores and their products; Gauss's rule of n
nodes is exact for degrees below 2n, so both sides are sums to rounding, 1e-9 after derivatives.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax
from long import LONG
from numpy.testing import assert_allclose

from ppl import draw, expectation, integrate, reinforce, reparam


def normal(p, how):
    return draw(dist.Normal(p, 1 + p**2), how)


def straight(how, p):
    a = normal(p, how)
    b = normal(a * p, how)
    return a**2 * p + b * a - b**2


def chain(how, p):
    def body(c, x):
        z = normal(c / 2 + x * p, how)
        return c + 0.5 * z, z**2 - c

    c, ys = lax.scan(body, p, jnp.arange(2.0))
    return jnp.sum(ys) + c**2


def known_branch(how, p):
    a = lax.switch(1, [lambda: p, lambda: 2.0 * normal(p**2, how), lambda: -p])
    return p * a**3


def plate(how, p):
    z = jax.vmap(lambda q: normal(q, how))(p * jnp.array([1.0, 0.5]))
    return jnp.sum(z**2 * p * jnp.arange(1.0, 3.0))


def together(how, p):
    z = normal(p * jnp.array([1.0, 0.5]), how)
    return p * jnp.sum(z * jnp.array([1.0, 2.0])) ** 2


def kept(how, p):
    @jax.checkpoint
    def inner(p):
        a = normal(p, how)
        return a**2 + p, a

    y, a = inner(p)
    return y * a


def compiled(how, p):
    inner = jax.jit(lambda p: (normal(p, how), p**2))
    a, c = inner(p)
    b, d = inner(p**2)
    return (a * c) ** 2 * (b + d)


def counted(how, p):
    return lax.fori_loop(0, 2, lambda i, s: s * p + normal(s, how) ** 2, p)


def row_by_row(how, p):
    z = normal(p * jnp.array([1.0, 0.5]), how)

    def body(c, z):
        return c * p + z**2, c * z

    c, w = lax.scan(body, p, z)
    return c + jnp.sum(w)


CONTEXTS = [straight, chain, known_branch, plate, together, kept, compiled, counted, row_by_row]
HOW = {"reparam": reparam(), "score": reinforce(), "constant": reinforce(0.7)}


QUICK = {straight, plate, kept}


def cases():
    for context in CONTEXTS:
        for name in HOW:
            quick = name == "reparam" and context in QUICK
            long = name == "constant" and not LONG
            marks = [] if quick else [pytest.mark.slow]
            marks += [pytest.mark.skip("like another: GIRY_LONG=1")] if long else []
            yield pytest.param(context, name, id=f"{context.__name__}-{name}", marks=marks)


@pytest.mark.parametrize("context, name", cases())
def test_continuous_choices_in_every_construct(context, name):
    """Polynomials of degree below 16, times scores of degree 4 each: 12 nodes are exact to 23."""
    program = partial(context, HOW[name])

    def both(f, p):
        return f(p), *jax.jvp(jax.grad(f), (p,), (jnp.ones(()),))

    p = jnp.asarray(0.4)
    found = jax.jit(integrate(lambda p: both(expectation(program), p), nodes=12))(p)
    right = jax.jit(lambda p: both(integrate(program, nodes=12), p))(p)
    assert_allclose(found, right, rtol=1e-9)
