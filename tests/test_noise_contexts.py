"""Functions of the noise behind a choice, in every construct: `relax` and `rebar`, exactly.

At the parameter P every choice here is 1 with probability 1/3, whatever came before; elsewhere it
is not, so all derivatives depend on the parameter. Two facts make the means of estimates sums:

- A value is 1 where its uniform u is above 2/3. So with n a multiple of 3 no cell of the midpoint
  rule is cut by a jump, and what is constant on both sides of it is integrated exactly.
- The controls are polynomials, of degree 2, of y = sigmoid(z - a), a the log odds at P: there
  y = u, dy/da = y (1 - y), and d2y/da2 is of degree 3. For the noise given the value, too, as
  it is a + logit(r) with r linear in its own uniform v: dr/dp dp/da / (r (1 - r)), the velocity
  of logit(r), times the y (1 - y) of dy/dz leaves a polynomial.

A control enters by itself, times scores, which are constant: each term is a polynomial of one
uniform, of degree 2 + 2 in second derivatives. The error of the midpoint rule then is
c n^-2 + d n^-4 exactly, and three numbers of nodes find the limit. Its weights add up to at most
4, so that the errors of sums of some ten thousand products stay below 1e-11.
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

from inference import by_importance, elbo, marginalize
from ppl import (
    Target,
    disarm,
    draw,
    enumerate_,
    expectation,
    gen,
    integrate,
    leave_one_out,
    measure_valued,
    rebar,
    reinforce,
    relax,
    sample,
)
from semantics.compiling import QUICK

EXACT = 1e-11
P = 0.3
ODDS = -np.log(2.0)
"""The log odds of 1/3."""


def law(shift):
    """Of a choice that has probability 1/3 where `shift`, a multiple of p - P, is zero."""
    return dist.Bernoulli(logits=ODDS + shift)


def flip(shift, how):
    return draw(law(shift), how)


def control(z, before):
    """Of the elements and of the choices before, if they have names."""
    y = jax.nn.sigmoid(z - ODDS)
    return jnp.sum(0.7 * y**2 - y) * (1 + 0.5 * before.get("a", 0)) + jnp.sum(y) ** 2


def rest(y, before):
    """0.4 at 0 and 1.6 at 1; between them a polynomial of sigmoid(z - ODDS)."""
    y = y / (y + (1 - y) * np.exp(ODDS))
    return 0.4 + 0.5 * y + 0.7 * y**2 + 0.1 * before.get("a", 0)


NOISE = {"relax": relax(control), "rebar": rebar(rest, temperature=1.0, scale=0.8)}


def straight(how, p):
    q = p - P
    a = flip(q, how)
    b = flip(jnp.where(a == 1, 2 * q, jnp.sin(q)), how)
    return jnp.sin(a + 2.0 * b) * p + b * a + jnp.exp(b)


def chain(how, p):
    def body(c, x):
        z = flip(jnp.cos(c + x) * (p - P), how)
        return c + 0.5 * z, jnp.cos(z + c)

    c, ys = lax.scan(body, p, jnp.arange(2.0))
    return jnp.sum(ys) + jnp.sin(c)


def terms_of_a_loop(how, p):
    def body(c, x):
        z = flip((1 + x) * (p - P), how)
        return c + jnp.cos(z * p + x), jnp.sin(z)

    c, ys = lax.scan(body, 0.0, jnp.arange(2.0), reverse=True)
    return c + 3 * jnp.sum(ys)


def branch(how, p):
    a = flip(p - P, how)
    y = lax.cond(a == 1, lambda: 2.0 * flip(p**2 - P**2, how), lambda: jnp.sin(p))
    return jnp.exp(y)


def switched(how, p):
    a = flip(p - P, how)
    branches = [lambda: jnp.sin(p), lambda: 2.0 * flip(3 * (p - P), how), lambda: p]
    return p * jnp.exp(lax.switch(a, branches) + a)


def known_branch(how, p):
    a = lax.switch(1, [lambda: jnp.sin(p), lambda: 2.0 * flip(p - P, how), lambda: p])
    return p * jnp.exp(a)


def plate(how, p):
    z = jax.vmap(lambda k: flip(k * (p - P), how))(jnp.array([1.0, 2.5]))
    return jnp.sum(jnp.sin(z + p * jnp.arange(2.0))) / 2


def together(how, p):
    z = flip((p - P) * jnp.array([1.0, 2.5]), how)
    return p * jnp.sin(jnp.sum(z * jnp.array([1.0, 2.0])))


def kept(how, p):
    @jax.checkpoint
    def inner(p):
        a = flip(p - P, how)
        return jnp.sin(a + p), a

    y, a = inner(p)
    return y * jnp.cos(y) + jnp.exp(a * p)


def compiled(how, p):
    inner = jax.jit(lambda q: (flip(q, how), jnp.cos(q)))
    a, c = inner(p - P)
    b, d = inner(2 * (p - P))
    return jnp.exp(a * c) * (b + d)


def counted(how, p):
    def body(i, s):
        return jnp.sin(s + flip((1 + s) * (p - P), how) + i)

    return lax.fori_loop(0, 2, body, p)


def read_by_rows(how, p):
    z = flip((p - P) * jnp.array([1.0, 2.5]), how)

    def body(c, z):
        w = draw(dist.Bernoulli(jnp.where(z == 1, p, p**2)), reinforce())
        return c + jnp.sin(z + w * p), w

    c, w = lax.scan(body, 0.0, z)
    return c + jnp.sum(w * jnp.cos(z))


def made_and_read_by_rows(how, p):
    ks = jnp.array([1.0, 2.5])
    _, z = lax.scan(lambda c, k: (c, flip(k * (p - P), how)), 0.0, ks)
    return lax.scan(lambda c, z: (c + jnp.sin(2 * z + p) * (1 + c), None), 0.0, z)[0]


@gen
def pair(p):
    a = sample("a", law(p - P))
    b = sample("b", law(jnp.where(a == 1, 2.0, jnp.sin(p)) * (p - P)))
    return jnp.sin(a + 2.0 * b) * p


def by_address(how, p):
    """The strategies are given by address, and controls see "a" before "b"."""
    return expectation(lambda p: pair.simulate(p).retval, {"a": how, "b": how})(p)


@gen
def hidden(p):
    c = sample("c", law(p - P))
    sample("a", dist.Bernoulli(0.2 + 0.6 * c * p))


@gen
def model(p):
    a = sample("a", dist.Bernoulli(p))
    sample("y", dist.Bernoulli(0.1 + 0.4 * a))


BOUND = elbo(lambda p: Target(model, (p,), {"y": 1}), marginalize(hidden, "a", by_importance(2)))


def marginalized(how, p):
    """The choice is summed out by two particles: one value is followed, the other drawn anew."""
    return expectation(BOUND, {"c": how, "a": enumerate_()})(p)


CONTEXTS = [straight, chain, terms_of_a_loop, branch, switched, known_branch, plate, together]
CONTEXTS += [kept, compiled, counted, read_by_rows, made_and_read_by_rows]
CONTEXTS += [by_address, marginalized]
ESTIMATES = {by_address, marginalized}
"""Contexts that are estimates already, since their strategies are given by address."""
MEANS = {
    by_address: lambda p: pair.simulate(p).retval,
    marginalized: BOUND,
}
"""What such a context is the mean of."""
QUICK_ROWS = {("straight", "relax"), ("kept", "rebar")}
BOTH = {chain, branch, plate, by_address, marginalized}
"""Where `rebar`, which is `relax` by another function, is tried each time."""


def cases():
    for context in CONTEXTS:
        for name in NOISE:
            key = context.__name__, name
            marks = [] if key in QUICK_ROWS else [pytest.mark.slow]
            if name == "rebar" and context not in BOTH and key not in QUICK_ROWS and not LONG:
                marks.append(pytest.mark.skip("like another: GIRY_LONG=1"))
            yield pytest.param(context, name, id="-".join(key), marks=marks)


def derivatives(f, p):
    """The value, and two derivatives, the second by forward over reverse; in one run of `f`."""
    (value, slope), (_, curvature) = jax.jvp(jax.value_and_grad(f), (p,), (jnp.ones(()),))
    return value, slope, curvature


NODES = (3, 6, 9)


def mean(f, *args):
    """The mean of all results of `f`, for which midpoints err by c n^-2 + d n^-4.

    The weights make 1 of 1, and nothing of n^-2 and n^-4.
    """
    powers = [[n ** (-2.0 * k) for n in NODES] for k in range(3)]
    weights = np.linalg.solve(powers, [1.0, 0.0, 0.0])

    def by(n):
        run = jax.jit(integrate(f, nodes=n, rule="midpoint"), compiler_options=QUICK)
        return jax.tree.map(np.asarray, run(*args))

    found = [by(n) for n in NODES]
    return jax.tree.map(lambda *parts: sum(map(np.multiply, weights, parts)), *found)


@pytest.mark.parametrize("context, name", cases())
def test_a_function_of_the_noise_leaves_the_mean(context, name):
    """The value, and first and second derivatives."""
    program, p = partial(context, NOISE[name]), jnp.asarray(P)
    estimate = program if context in ESTIMATES else expectation(program)
    plain = MEANS.get(context, partial(context, None))
    right = jax.jit(partial(derivatives, integrate(plain)), compiler_options=QUICK)(p)
    assert np.all(np.abs(right) > 0.01)
    assert_allclose(mean(partial(derivatives, estimate), p), right, rtol=EXACT, atol=EXACT)


OTHERS = {
    "reinforce": reinforce(),
    "leave one out": reinforce(leave_one_out(2)),
    "enumerate": enumerate_(),
    "measure valued": measure_valued(),
    "disarm": disarm(),
}


def beside(hows, p, r):
    """Two choices, the second of which depends on the first, with two parameters."""
    a = flip((p - P) + 0.5 * r, hows[0])
    b = flip((1 + a) * (p - P) * (1 + r) + r, hows[1])
    return jnp.sin(a + 2.0 * b) * p + b * a * jnp.cos(r - 1) + jnp.exp(b)


def beside_others():
    for name in OTHERS:
        for first in (True, False):
            marks = () if name == "enumerate" and first else pytest.mark.slow
            yield pytest.param(name, first, marks=marks)


@pytest.mark.parametrize("name, first", beside_others())
def test_beside_another_strategy_with_mixed_derivatives(name, first):
    """The gradient, and the Hessian of two parameters times (1, 2), from one run of the program."""
    hows = (NOISE["relax"], OTHERS[name]) if first else (OTHERS[name], NOISE["relax"])
    at, along = (jnp.asarray(P), jnp.asarray(0.0)), (jnp.asarray(1.0), jnp.asarray(2.0))

    def both(f):
        return lambda *at: jax.jvp(jax.grad(f, (0, 1)), at, along)

    found = mean(both(expectation(partial(beside, hows))), *at)
    plain = integrate(partial(beside, (None, None)))
    right = jax.jit(both(plain), compiler_options=QUICK)(*at)
    found, right = (np.array(jax.tree.leaves(x)) for x in (found, right))
    assert np.all(np.abs(right) > 0.01)
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)
