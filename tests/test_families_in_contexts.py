"""Values of all kinds of laws that move with their parameters, and differences of laws, in every
construct.

`test_pathwise.py` compares each law's derivatives with those of fine sums. Here a construct is
compared with the same program written out as a straight line, both by the same few nodes for each
number that an estimate draws: a construct may not change what a choice does, so both means are
the same sum, of some thousand terms, however coarse the rule. The two are compiled differently, and
the velocities of gamma variables at the ends of a coarse grid magnify last digits up to 1e7 times.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from long import LONG
from numpy.testing import assert_allclose

from ppl import draw, enumerate_, expectation, integrate, measure_valued, reparam
from semantics.compiling import QUICK

SAME = 1e-8
P = jnp.asarray(0.6)
KNOWN = jnp.array([1.0, 0.5])
PARTS = jnp.array([1.0, 2.0, -1.0])


def dirichlet(x):
    return dist.Dirichlet(jnp.stack([x, 2 + 0 * x, 1 + x], -1))


def mixture(x):
    weights = jnp.stack([x / 4, 1 - x / 4], -1)
    return dist.MixtureSameFamily(
        dist.Categorical(probs=weights),
        dist.Normal(jnp.stack([x, -x], -1), jnp.stack([x, 1 + 0 * x], -1)),
    )


MOVING = {
    "Gamma": lambda x: dist.Gamma(x, 1 + x),
    "Beta": lambda x: dist.Beta(x, 2 * x),
    "Dirichlet": dirichlet,
    "StudentT": lambda x: dist.StudentT(x + 4, x, 0.5 * x),
    "Chi2": lambda x: dist.Chi2(3 * x),
    "InverseGamma": lambda x: dist.InverseGamma(x + 1, x),
    "VonMises": lambda x: dist.VonMises(0.2 * x, x),
    "TruncatedNormal": lambda x: dist.TruncatedNormal(x, 1 + x, low=0.0),
    "mixture": mixture,
    "Kumaraswamy": lambda x: dist.Kumaraswamy(x, 1 + x),
    "LogNormal": lambda x: dist.LogNormal(x / 5, 0.5 * x),
}
VALUED = {
    "Normal": lambda x: dist.Normal(x, 0.5 * x),
    "Exponential": dist.Exponential,
    "Gamma": lambda x: dist.Gamma(x, 1 + x),
    "Beta": lambda x: dist.Beta(x, 2 * x),
}


def one(choice, x):
    """A choice whose law has the parameter exp(tanh(x)) or so, and a number of moderate size."""
    make, how = choice
    z = draw(make(1.5 + 0.5 * jnp.tanh(x)), how)
    return jnp.tanh((z @ PARTS if make is dirichlet else z) / 2)


def chain(choice, p):
    def body(c, x):
        z = one(choice, c * p + x)
        return c + 0.5 * z, jnp.cos(z + c)

    c, ys = lax.scan(body, p, KNOWN)
    return jnp.sum(ys) + jnp.sin(c)


def chain_in_line(choice, p):
    c, total = p, 0.0
    for x in KNOWN:
        z = one(choice, c * p + x)
        c, total = c + 0.5 * z, total + jnp.cos(z + c)
    return total + jnp.sin(c)


def counted(choice, p):
    return lax.fori_loop(0, 2, lambda i, s: jnp.sin(s * p + one(choice, s + i)), p)


def counted_in_line(choice, p):
    s = jnp.sin(p * p + one(choice, p))
    return jnp.sin(s * p + one(choice, s + 1))


def branch(choice, p):
    a = draw(dist.Bernoulli(p), enumerate_())
    y = lax.cond(a == 1, lambda: p * one(choice, p**2), lambda: jnp.sin(one(choice, -p)))
    return jnp.exp(y) * (1 + a)


def branch_in_line(choice, p):
    return 2 * p * jnp.exp(p * one(choice, p**2)) + (1 - p) * jnp.exp(jnp.sin(one(choice, -p)))


def switched(choice, p):
    z = one(choice, p)
    return p * lax.switch(1, [lambda: p, lambda: jnp.cos(one(choice, z * p)) + z, lambda: -p])


def switched_in_line(choice, p):
    z = one(choice, p)
    return p * (jnp.cos(one(choice, z * p)) + z)


def plate(choice, p):
    z = jax.vmap(lambda x: one(choice, x * p))(KNOWN)
    return jnp.sum(jnp.sin(z + p * KNOWN))


def vector(choice, p):
    return jnp.sum(jnp.sin(one(choice, p * KNOWN) + p * KNOWN))


def plate_in_line(choice, p):
    return sum(jnp.sin(one(choice, x * p) + p * x) for x in KNOWN)


def together(choice, p):
    z = jax.vmap(lambda x: one(choice, x * p))(KNOWN)
    return p * jnp.sin(jnp.sum(z * KNOWN)) ** 2


def together_in_line(choice, p):
    return p * jnp.sin(sum(one(choice, x * p) * x for x in KNOWN)) ** 2


def compiled(choice, p):
    inner = jax.jit(lambda x: (one(choice, x), jnp.cos(x)))
    a, c = inner(p)
    b, d = inner(a * p)
    return jnp.exp(a * c) * (b + d)


def compiled_in_line(choice, p):
    a = one(choice, p)
    b = one(choice, a * p)
    return jnp.exp(a * jnp.cos(p)) * (b + jnp.cos(a * p))


def kept(choice, p):
    @jax.checkpoint
    def inner(p):
        a = one(choice, p)
        return jnp.sin(a + p), a

    y, a = inner(p)
    return y * jnp.cos(one(choice, y)) + jnp.exp(a * p)


def kept_in_line(choice, p):
    a = one(choice, p)
    y = jnp.sin(a + p)
    return y * jnp.cos(one(choice, y)) + jnp.exp(a * p)


def rows(choice, p):
    z = jax.vmap(lambda x: one(choice, x * p))(KNOWN)

    def body(c, z):
        return c * p + jnp.cos(z), c * z

    c, w = lax.scan(body, p, z)
    return c + jnp.sum(w)


def rows_in_line(choice, p):
    a, b = (one(choice, x * p) for x in KNOWN)
    c = p * p + jnp.cos(a)
    return c * p + jnp.cos(b) + p * a + c * b


IN_LINE = {chain: chain_in_line, counted: counted_in_line, branch: branch_in_line}
IN_LINE |= {switched: switched_in_line, plate: plate_in_line, vector: plate_in_line}
IN_LINE |= {together: together_in_line, compiled: compiled_in_line, kept: kept_in_line}
IN_LINE |= {rows: rows_in_line}


def derivatives(f, p):
    (value, slope), (_, curvature) = jax.jvp(jax.value_and_grad(f), (p,), (jnp.ones(()),))
    return value, slope, curvature


def mean(context, make, how, nodes):
    estimate = expectation(partial(context, (make, how)))
    run = integrate(partial(derivatives, estimate), nodes=nodes)
    return np.asarray(jax.jit(run, compiler_options=QUICK)(P))


def cases(laws, quick):
    """One in three, so that each law and each construct has its turns; the others if long."""
    for i, context in enumerate(IN_LINE):
        for j, name in enumerate(laws):
            key = context.__name__, name
            marks = [] if key in quick else [pytest.mark.slow]
            if (i + j) % 3 and key not in quick and not LONG:
                marks.append(pytest.mark.skip("all pairs: GIRY_LONG=1"))
            yield pytest.param(context, name, id="-".join(key), marks=marks)


FEW = {"Dirichlet": 3, "Beta": 4, "StudentT": 4}
"""Nodes for each number that is drawn, where a choice takes several of them."""


@pytest.mark.parametrize("context, name", cases(MOVING, {("plate", "mixture"), ("kept", "Gamma")}))
def test_values_move_in_every_construct(context, name):
    """The value, and two derivatives."""
    of = partial(mean, make=MOVING[name], how=reparam(), nodes=FEW.get(name, 6))
    assert_allclose(of(context), of(IN_LINE[context]), rtol=SAME, atol=SAME)


@pytest.mark.parametrize("context, name", cases(VALUED, {("switched", "Exponential")}))
def test_differences_of_laws_in_every_construct(context, name):
    """The value, and two derivatives, whose worlds have noise of their own.

    The second derivative by two elements of one array that a loop reads has worlds of both, with
    other noise in them than two choices have: a rule of two nodes differs there in the fifth digit
    (2e-4 of 5.6 for Beta, and with three nodes -9e-5 of 4.0), so it is not compared.
    """
    of = partial(mean, make=VALUED[name], how=measure_valued(), nodes=2)
    some = slice(2) if context is rows else slice(3)
    assert_allclose(of(context)[some], of(IN_LINE[context])[some], rtol=SAME, atol=SAME)
