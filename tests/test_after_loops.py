"""What a loop scores but does not carry on is computed after it, for all iterations at once."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

from ppl import factor, gen, sample, seed
from ppl.execute import Execute

KEY = jax.random.key(5)
T = 7


@gen
def garch(a):
    """The value goes on to the next variance; the density does not."""
    mu = sample("mu", dist.Normal(0.0, 1.0))

    def step(variance, _):
        y = sample("y", dist.Normal(mu, jnp.sqrt(variance)))
        return 0.5 + a * (y - mu) ** 2 + 0.3 * variance, variance

    return lax.scan(step, 1.0, None, length=T)[1]


@gen
def backwards(a):
    """From the last to the first, two at a time, with a factor and something that all share."""
    scale = jnp.exp(a)

    def step(carry, x):
        sample("k", dist.Poisson(jnp.exp(carry)))
        factor(-carry * x)
        return 0.5 * carry + x, None

    return lax.scan(step, a, jnp.arange(T) * scale, reverse=True, unroll=2)[0]


@gen
def with_a_latent(a):
    """One choice is drawn, and carried; the other one depends on it."""

    def step(z, _):
        z = sample("z", dist.Normal(a * z, 1.0))
        sample("y", dist.StudentT(4.0, z, 0.5))
        return z, None

    return lax.scan(step, 0.0, None, length=T)[0]


@gen
def of_plates(a):
    """Rows of independent choices; a branch, which stays in the loop."""

    def step(level, x):
        jax.vmap(lambda w: sample("y", dist.Normal(level * w, 1.0)))(jnp.arange(3.0))
        shift = lax.cond(x > 2, lambda: sample("b", dist.Normal(level, 1.0)), lambda: 0.0)
        return a * level + shift, None

    return lax.scan(step, 1.0, jnp.arange(T))[0]


@gen
def nested(a):
    """A loop in a loop."""

    def outer(carry, x):
        def inner(c, _):
            y = sample("y", dist.Gamma(jnp.exp(c), 2.0))
            return 0.5 * c + 0.1 * y, None

        c, _ = lax.scan(inner, carry + x, None, length=3)
        sample("z", dist.Normal(c, jnp.exp(x)))
        return c, None

    return lax.scan(outer, a, jnp.linspace(0.0, 1.0, T))[0]


@gen
def side_by_side(a):
    """Copies of a loop."""
    return jax.vmap(lambda b: lax.scan(one_row, b, None, length=T)[0])(a * jnp.arange(1.0, 4.0))


def one_row(c, _):
    y = sample("y", dist.Normal(c, jnp.exp(0.1 * c)))
    return 0.3 * c + 0.2 * y, None


@gen
def handed_on(a):
    """Values go on as they are: from place to place, with what never changes, and out."""

    def step(carry, x):
        scale, last, before, was = carry
        y = sample("y", dist.Normal(0.5 * last - a * before + was, scale))
        return (scale, y, last, x), (before, x)

    return lax.scan(step, (jnp.exp(a), a, 2.0, 0.5), jnp.linspace(0.0, 1.0, T))


@gen
def handed_back(a):
    """The same from the last to the first, under a map."""

    def row(b):
        def step(last, _):
            y = sample("y", dist.Normal(b * last, 1.0))
            return y, last

        return lax.scan(step, b, None, length=T, reverse=True)

    return jax.vmap(row)(a * jnp.arange(1.0, 3.0))


@gen
def trading_places(a):
    """Two carried values trade places."""

    def step(carry, _):
        one, other = carry
        sample("y", dist.Normal(one, jnp.exp(other)))
        return (other, one), one

    return lax.scan(step, (a, 2 * a), None, length=T)


MODELS = [
    garch, backwards, with_a_latent, of_plates, nested, side_by_side, handed_on, handed_back,
    trading_places,
]  # fmt: skip


def both(monkeypatch, run):
    """What `run` gives as it is, and with all of the density in the loops."""
    fast = run()
    monkeypatch.setattr(Execute, "waits", lambda self, step, inputs: False)
    slow = run()
    monkeypatch.undo()
    jax.tree.map(
        # float64 sums of tens of terms in another order
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11),
        fast,
        slow,
    )
    return fast


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_densities_derivatives_and_draws_are_those_of_the_loop(model, monkeypatch):
    trace = seed(lambda: model.generate({}, 0.4)[0])(KEY)
    some = {path: x for path, x in trace.choices.items() if path == "y"} or trace.choices

    def run():
        assess = jax.value_and_grad(lambda a: model.assess(trace.choices, a)[0])

        def at(a):
            drawn, weight = seed(lambda: model.generate(some, a))(KEY)
            other, more, _ = seed(lambda: model.update(drawn, trace.choices, 0.3))(KEY)
            return {
                "assess": assess(a),
                "returned": model.assess(trace.choices, a)[1],
                "generated": (drawn.choices, drawn.score, weight),
                "updated": (other.choices, other.score, more),
                "mapped": jax.vmap(assess)(jnp.array([0.2, 0.4])),
            }

        return jax.jit(at)(0.4)

    found = both(monkeypatch, run)
    with monkeypatch.context() as patched:
        patched.setattr(Execute, "waits", lambda self, step, inputs: False)
        slow = in_loops(model, trace.choices)
    assert slow - in_loops(model, trace.choices)
    assert np.isfinite(found["assess"][0]) and found["assess"][1] != 0


def in_loops(model, choices, copies=1):
    """The names of what is computed in loops."""
    found = set()  # of primitives

    def look(jaxpr, inside):
        for eqn in jaxpr.eqns:
            if inside:
                found.add(eqn.primitive.name)
            for inner in jaxprs_in_params(eqn.params):
                look(inner, inside or eqn.primitive.name == "scan")

    many = jax.vmap(lambda a: model.assess(choices, a)[0])
    look(jax.make_jaxpr(many)(jnp.full(copies, 0.4)).jaxpr, False)
    return found


def test_only_what_is_carried_on_is_in_the_loop():
    """No root and no logarithm of a variance; nor is a factor's term."""
    trace = seed(garch.simulate)(KEY, 0.4)
    names = in_loops(garch, trace.choices)
    assert "mul" in names and not names & {"sqrt", "log", "div"}
    assert not in_loops(backwards, {"k": jnp.arange(T)}) & {"exp", "lgamma", "neg"}


@pytest.mark.parametrize("model", [handed_on, handed_back], ids=lambda model: model.name)
def test_what_only_hands_values_on_is_no_loop(model):
    trace = seed(model.simulate)(KEY, 0.4)
    text = str(jax.make_jaxpr(lambda a: model.assess(trace.choices, a)[0])(0.4))
    assert "scan" not in text and "concatenate" in text
    assert "scan" in str(
        jax.make_jaxpr(lambda a: trading_places.assess({"y": jnp.ones(T)}, a))(0.4)
    )


def test_large_arrays_stay_in_the_loop():
    """They are vectors already: after it they would only take memory."""

    @gen
    def wide(a):
        def step(level, _):
            sample("y", dist.Normal(level * jnp.ones(300), jnp.exp(a)).to_event(1))
            return a * level, None

        return lax.scan(step, 1.0, None, length=T)[0]

    assert "reduce_sum" in in_loops(wide, {"y": jnp.zeros((T, 300))})


def test_many_copies_stay_in_the_loop():
    choices = seed(garch.simulate)(KEY, 0.4).choices
    assert "log" not in in_loops(garch, choices, 10_000)
    assert "log" in in_loops(garch, choices, 2_000_000)


def test_a_loop_of_no_iterations_scores_nothing():
    @gen
    def none(a):
        def step(c, _):
            return c, sample("y", dist.Normal(c, 1.0))

        return lax.scan(step, a, None, length=0)[0]

    assert float(none.assess({"y": jnp.zeros(0)}, 0.4)[0]) == 0.0
