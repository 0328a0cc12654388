"""Baselines of the choices before, in every construct: derivatives stay, exactly.

A baseline that saw its own choice, or one that comes later, would change the mean: all baselines
here depend on all that they are given. Choices have addresses, since those without are not given.

Both sides are sums of at most some thousand products in float64, as in `test_expectation.py`.
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

from ppl import (
    expectation,
    gen,
    integrate,
    learned,
    moving_average,
    reinforce,
    repeat,
    sample,
    scan,
    switch,
    vmap,
)
from ppl.addresses import flatten
from semantics.compiling import QUICK

EXACT = 1e-11
P = jnp.asarray(0.3)
KNOWN = jnp.array([1.0, 0.5])


def flip(address, p):
    return sample(address, dist.Bernoulli(p))


def two(p, a):
    """Two choices, the second of which depends on the first."""
    b = flip("b", jnp.where(a == 1, p**2, 1 - p))
    c = flip("c", jax.nn.sigmoid(b - a * p))
    return jnp.sin(b + 2.0 * c + a) + p * b


def straight(p):
    a = flip("a", p)
    return jnp.exp(two(p, a) * (1 + a))


def chain(p):
    a = flip("a", p)

    def body(z, x):
        y = two(x * p, z)
        return jnp.where(y > 0, 1, 0), jnp.cos(y + a)

    return jnp.sum(lax.scan(body, a, KNOWN)[1]) + a * p


def backwards(p):
    a = flip("a", p)

    def body(c, x):
        z = flip("z", jax.nn.sigmoid(c * p + x))
        return c + 0.5 * z, jnp.sin(z + c)

    c, ys = lax.scan(body, 1.0 * a, KNOWN, reverse=True)
    return jnp.sum(ys) * c + p


def counted(p):
    a = flip("a", p)

    def body(i, s):
        z = flip("z", jax.nn.sigmoid(s + i * p))
        return jnp.sin(s + z + flip("w", jnp.where(z == 1, p, 0.2)))

    return lax.fori_loop(0, 2, body, p + a)


def branch(p):
    a = flip("a", p)
    y = lax.cond(a == 1, lambda: two(p, a), lambda: jnp.cos(p) * flip("d", p**2))
    return jnp.exp(y + a * flip("e", 0.5 + p * jnp.sin(y) / 2))


def known_branch(p):
    a = flip("a", p)
    return lax.switch(1, [lambda: p, lambda: two(p, a), lambda: -p]) * (1 + a)


def plate(p):
    a = flip("a", p)
    ys = jax.vmap(lambda x: two(p * x, a))(KNOWN)
    return jnp.sum(ys * KNOWN) ** 2


def apart(p):
    """Terms that depend on one element each have the score of that one only."""
    a = flip("a", p)
    return jnp.sum(jax.vmap(lambda x: two(p * x, a))(KNOWN) * KNOWN)


def vector(p):
    a = flip("a", p)
    b = flip("b", p * KNOWN * (1 - 0.5 * a))
    c = flip("c", jax.nn.sigmoid(b - p))
    return jnp.sum(jnp.sin(b + 2.0 * c + a)) ** 2


def rows(p):
    """A vector that a loop reads row by row, with a choice for each."""
    z = flip("z", p * KNOWN)

    def body(c, z):
        w = flip("w", jnp.where(z == 1, p, p**2))
        return c + jnp.sin(z + w * p), w

    c, w = lax.scan(body, 0.0, z)
    return c + jnp.sum(w * jnp.cos(z))


def compiled(p):
    a = flip("a", p)
    return jnp.exp(jax.jit(two)(p, a)) * (1 + a)


def kept(p):
    a = flip("a", p)
    return jnp.exp(jax.checkpoint(two)(p, a)) * (1 + a)


def called(p):
    """By the combinators of the language, some within others."""
    a = flip("a", p)
    step = gen(lambda z, x: (flip("z", jax.nn.sigmoid(z * p + x)), None))
    last, _ = sample("s", scan(step, 2)(a, KNOWN))
    once = gen(lambda: two(p, a))
    many = sample("r", repeat(gen(lambda: flip("u", p * (1 + last) / 2)), 2)())
    y = sample("y", switch(once, gen(lambda: p**2))(last))
    many = jnp.sum(many) + jnp.sum(sample("v", vmap(gen(lambda x: flip("w", x * p)))(KNOWN[:1])))
    return y * jnp.exp(many) + last


CONTEXTS = [straight, chain, backwards, counted, branch, known_branch, plate, apart, vector, rows]
CONTEXTS += [compiled, kept, called]


def level(before):
    """Of all leaves, and of their number, at each of their places."""
    leaves = jax.tree.leaves(before)
    return 0.4 * len(leaves) + sum(jnp.sum(jnp.cos(2.0 * z) + z) for z in leaves)


def of_parameters(parameters, before):
    return parameters["level"] + parameters["slope"] * level(before)


HOW = {
    "a function of what precedes": reinforce(level),
    "moving average": reinforce(moving_average(0.8)),
    "learned": reinforce(learned(of_parameters, {"level": 0.5, "slope": -0.3})),
}


def derivatives(f, p):
    (value, slope), (_, curvature) = jax.jvp(jax.value_and_grad(f), (p,), (jnp.ones(()),))
    return value, slope, curvature


def drawn(context, p):
    return gen(context).simulate(p).retval


def strategies(context, how):
    return dict.fromkeys(gen(context).sites(P), how)


def quickly(f, *args):
    return jax.jit(f, compiler_options=QUICK)(*args)


def cases():
    for context in CONTEXTS:
        for name in HOW:
            quick = context is straight and name == "a function of what precedes"
            marks = [] if quick else [pytest.mark.slow]
            if name == "learned" and not LONG:
                marks.append(pytest.mark.skip("the two others together: GIRY_LONG=1"))
            yield pytest.param(context, name, id=f"{context.__name__}-{name}", marks=marks)


@pytest.mark.parametrize("context, name", cases())
def test_a_baseline_leaves_the_mean(context, name):
    """The value, and two derivatives with respect to the parameter of the program."""
    program = partial(drawn, context)
    right = np.asarray(quickly(partial(derivatives, integrate(program)), P))
    assert np.all(np.abs(right) > 0.01)
    estimate = expectation(program, strategies(context, HOW[name]))
    found = np.asarray(quickly(integrate(partial(derivatives, estimate)), P))
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.__name__)
def test_a_baseline_sees_choices_before_it_and_no_others(context):
    """All of them see the first choice, and "c" sees "b", which is drawn beside it."""
    order = list(gen(context).sites(P))
    seen = {path: set(order) for path in order}

    def noting(path):
        def level(before):
            seen[path] &= set(flatten(before))
            return 0.0

        return reinforce(level)

    estimate = expectation(partial(drawn, context), {path: noting(path) for path in order})
    jax.eval_shape(integrate(jax.grad(estimate)), P)
    first = order[0]
    for i, path in enumerate(order):
        assert seen[path] <= set(order[:i])
        assert first in seen[path] or path == first
        assert path[-1] != "c" or (*path[:-1], "b") in seen[path]


HOW_MANY = {straight: 3, chain: 5, backwards: 3, counted: 5, branch: 3 + P, known_branch: 3}
HOW_MANY |= {plate: 5, apart: 5, vector: 5, rows: 4, compiled: 3, kept: 3}
"""Choices that are made in a run; of a branch with probability P one more."""


@pytest.mark.parametrize(
    "context", [pytest.param(c, marks=pytest.mark.slow, id=c.__name__) for c in HOW_MANY]
)
def test_the_error_of_a_moving_average_is_counted_once_for_each_choice(context):
    """Its derivative is the sum over choices of what comes after less the level: linear in it."""
    program = partial(drawn, context)

    def estimate(level):
        return expectation(program, strategies(context, reinforce(moving_average(level))))(P)

    slope = quickly(jax.vmap(integrate(jax.grad(estimate))), jnp.array([0.5, 1.5, 3.0]))
    assert_allclose(np.diff(slope), -HOW_MANY[context] * np.array([1.0, 1.5]), rtol=1e-10)
