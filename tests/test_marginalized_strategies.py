"""Strategies of choices that `marginalize` sums out, and keeps, in every construct around it.

The law is estimated by two particles: the choice that was made is followed, and one is drawn anew.
So a run of one marginal has three choices, which all have the strategy, and the density that comes
out is random, and depends on the parameter. Its mean over all of them is a sum of products of
probabilities, of which there are some ten thousand at most, in float64: 1e-11 leaves room.
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

from inference import by_importance, elbo, iwelbo, marginalize
from ppl import (
    Target,
    disarm,
    enumerate_,
    expectation,
    gen,
    integrate,
    leave_one_out,
    measure_valued,
    moving_average,
    reinforce,
    reparam,
    sample,
    without_replacement,
)
from semantics.compiling import QUICK

EXACT = 1e-11
P = jnp.asarray(0.3)
KNOWN = jnp.array([1.0, 0.5])


@gen
def hidden(p):
    """Of two choices the first is summed out."""
    c = sample("c", dist.Bernoulli(p))
    return sample("a", dist.Bernoulli(0.2 + 0.6 * c * p))


MARGINAL = marginalize(hidden, "a", by_importance(2))


def once(p):
    """A number from the choice that is kept, and its density, which is estimated."""
    trace = MARGINAL.simulate(p)
    return trace["a"], jnp.exp(trace.score)


def straight(p):
    a, density = once(p)
    return jnp.sin(a + 2.0 * p) * density + a


def twice(p):
    """The law of the second depends on the first, and on its density."""
    a, density = once(p)
    b, other = once(p * (0.4 + a * density))
    return jnp.sin(a + 2.0 * b) * density * other + p


def chain(p):
    def body(z, x):
        a, density = once(jax.nn.sigmoid(z * p - x))
        return a + 0.5 * z, density * jnp.cos(a + x)

    z, ys = lax.scan(body, p, KNOWN)
    return jnp.sum(ys) + jnp.sin(z)


def branch(p):
    a, density = once(p)
    y = lax.cond(a == 1, lambda: once(p**2)[1], lambda: jnp.sin(p))
    return jnp.exp(y) * density


def switched(p):
    branches = [lambda: p, lambda: once(p)[1] + p**2, lambda: -p]
    return p * jnp.exp(lax.switch(1, branches))


def plate(p):
    a, density = jax.vmap(once)(p * KNOWN)
    return jnp.sum(jnp.sin(a + p) * density * KNOWN)


def together(p):
    a, density = jax.vmap(once)(p * KNOWN)
    return jnp.sum(a * KNOWN + density) ** 2


def compiled(p):
    a, density = jax.jit(once)(p)
    return jnp.exp(a * p) * density


def kept(p):
    @jax.checkpoint
    def inner(p):
        a, density = once(p)
        return jnp.sin(a + p) * density, a

    y, a = inner(p)
    return y * jnp.cos(y) + jnp.exp(a * p)


def counted(p):
    def body(i, s):
        a, density = once(jax.nn.sigmoid(s + i))
        return jnp.sin(s + a) * density

    return lax.fori_loop(0, 2, body, p)


def given(p):
    """The density of what is given is estimated by two new choices."""
    return jnp.exp(p * MARGINAL.assess({"a": 1}, p)[0])


@gen
def model(p):
    a = sample("a", dist.Bernoulli(p))
    sample("y", dist.Bernoulli(0.1 + 0.4 * a))


BOUND = elbo(lambda p: Target(model, (p,), {"y": 1}), MARGINAL)
SEVERAL = iwelbo(lambda p: Target(model, (p,), {"y": 1}), MARGINAL, 2)


def bound(p):
    return BOUND(p)


def bound_of_several(p):
    return SEVERAL(p)


CONTEXTS = [straight, twice, chain, branch, switched, plate, together, compiled, kept, counted]
CONTEXTS += [given, bound, bound_of_several]


def level(before):
    return 0.7 + sum(jnp.sum(jnp.cos(1.0 * z)) for z in jax.tree.leaves(before))


STRATEGIES = {
    "reinforce": reinforce(),
    "constant": reinforce(1.5),
    "a function of what precedes": reinforce(level),
    "moving average": reinforce(moving_average(0.8)),
    "leave one out": reinforce(leave_one_out(2)),
    "enumerate": enumerate_(),
    "top": enumerate_(top=1),
    "measure valued": measure_valued(),
    "disarm": disarm(),
    "without replacement": without_replacement(1),
}


def derivatives(f, p):
    (value, slope), (_, curvature) = jax.jvp(jax.value_and_grad(f), (p,), (jnp.ones(()),))
    return value, slope, curvature


def quickly(f, *args):
    return np.asarray(jax.jit(f, compiler_options=QUICK)(*args))


DEEP = {twice, chain, counted, bound_of_several}
"""Where a marginal follows another one: values side by side in both have too many paths."""
SEVERAL_VALUES = {"leave one out", "disarm"}
SCALARS_ONLY = {("together", "top"), ("together", "without replacement")}
QUICK_ROWS = {("straight", "reinforce"), ("bound", "measure valued")}


def cases():
    """One in five, so that each strategy and each construct has its turns; the others if long."""
    for i, context in enumerate(CONTEXTS):
        for j, name in enumerate(STRATEGIES):
            key = context.__name__, name
            if key in SCALARS_ONLY or (context in DEEP and name in SEVERAL_VALUES):
                continue
            marks = [] if key in QUICK_ROWS else [pytest.mark.slow]
            if (i + j) % 5 and key not in QUICK_ROWS and not LONG:
                marks.append(pytest.mark.skip("all pairs: GIRY_LONG=1"))
            yield pytest.param(context, name, id="-".join(key), marks=marks)


@pytest.mark.parametrize("context, name", cases())
def test_strategies_of_what_is_marginalized(context, name):
    """The value, and two derivatives; both choices have the strategy."""
    right = quickly(partial(derivatives, integrate(context)), P)
    assert np.all(np.abs(right) > 0.01)
    made = "c" if context is given else "ca"
    estimate = expectation(context, dict.fromkeys(made, STRATEGIES[name]))
    found = quickly(integrate(partial(derivatives, estimate)), P)
    assert_allclose(found, right, rtol=EXACT, atol=EXACT)


def smooth_hidden(p):
    c = sample("c", dist.Normal(p, 1.0))
    return sample("a", dist.Normal(jnp.sin(c) * p, 0.5 + p**2))


@pytest.mark.parametrize("way", [lambda f: f, jax.jit, jax.checkpoint])
def test_normal_choices_of_a_marginal_move(way):
    """The nodes of a rule move as values do, so both sides are the same sum, of 6 nodes each."""
    marginal = marginalize(gen(smooth_hidden), "a", by_importance(2))

    def program(p):
        trace = way(lambda p: marginal.simulate(p))(p)
        return jnp.cos(trace["a"]) * trace.score + p * trace["a"]

    estimate = expectation(program, dict.fromkeys("ca", reparam()))
    found = quickly(integrate(partial(derivatives, estimate), nodes=6), P)
    right = quickly(partial(derivatives, integrate(program, nodes=6)), P)
    assert_allclose(found, right, rtol=EXACT)
