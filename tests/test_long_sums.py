"""What adds up over a long loop is rounded about once, in float32 too.

Every program below adds T terms that are all the same number, whatever is drawn: a uniform
density on an interval of length w is 1/w everywhere. So the sum of T steps is T times that of
one step, which is the reference. A plain float32 sum of 10,000 terms is off by hundreds of
units in the last place, always to one side.

Derivation of the bound: compensated sums are off by 2 eps times the sum of absolute terms
(Kahan), the result is rounded once more, and a term may be compiled with another last digit in
the loop than out of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Weighted,
    annealed,
    conditional_filter,
    each,
    filter_beliefs,
    filter_series,
    islands,
    log_evidence,
    merged,
    mh,
    multinomial,
    over,
    particle_filter,
    recorded,
    reweight,
    run_particles,
    smc2,
    unit,
    within,
)
from ppl import Target, gen, sample, seed
from ppl.summation import nothing, plus

STEPS = 10_000
BOUND = 4 * np.finfo(np.float32).eps
PAIRWISE = np.log2(STEPS) / 2 * np.finfo(np.float32).eps
"""Of a sum of an array, which JAX adds up in pairs or finer: log2(n) roundings (Higham 1993)."""
W = 4.1327  # log 1.4189


def flat(name, width=W):
    return sample(name, dist.Uniform(0.0, width))


@gen(static_argnames="steps")
def scanned(steps, width):
    jax.lax.scan(lambda c, _: (c, flat("y", width)), None, None, length=steps)


@gen(static_argnames="steps")
def counted(steps, width):
    jax.lax.fori_loop(0, steps, lambda i, c: c + flat("y", width), 0.0)


@gen(static_argnames="steps")
def mapped(steps, width):
    jax.vmap(lambda _: flat("y", width))(jnp.arange(steps))


@gen(static_argnames="steps")
def array(steps, width):
    sample("y", dist.Uniform(0.0, width).expand([steps]))


@gen(static_argnames="steps")
def nested(steps, width):
    """Loops in a loop, and in a branch of it."""
    flag = sample("flag", dist.Uniform(0.0, 1.0)) < 2.0

    def outer(c, _):
        def inner():
            return jax.lax.scan(lambda c, _: (c, flat("y", width)), 0.0, None, length=10)[0]

        return jax.lax.cond(flag, inner, lambda: 0.0), None

    if steps > 1:
        jax.lax.scan(outer, 0.0, None, length=steps // 10)
    else:
        flat("y", width)


MODELS = {m.name: m for m in (scanned, counted, mapped, array, nested)}


def methods(model, steps):
    """The score or weight that each of the six methods adds up."""
    width = jnp.float32(W)
    trace = seed(model.simulate)(jax.random.key(0), steps, width)
    yield "simulate", trace.score
    yield "assess", model.assess(trace.choices, steps, width)[0]
    given, weight = seed(model.generate)(jax.random.key(1), trace.choices, steps, width)
    yield "generate", given.score
    yield "generate's weight", weight
    yield "project", model.project(trace, "y")
    new, ratio, _ = seed(model.update)(jax.random.key(2), trace, {}, steps, width * width)
    yield "update", new.score / 2
    yield "update's weight", ratio
    yield "regenerate", seed(model.regenerate)(jax.random.key(3), trace, "y")[0].score


def close(total, term, steps=STEPS, bound=BOUND):
    exact = steps * np.float64(term)
    assert total.dtype == jnp.float32
    assert abs(np.float64(total) - exact) <= bound * abs(exact), (float(total), exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_scores_and_weights_of_long_loops(name):
    """S16, swept: each construct by each method."""
    with jax.enable_x64(False):
        one = jax.jit(lambda: dict(methods(MODELS[name], 1)))()
        many = jax.jit(lambda: dict(methods(MODELS[name], STEPS)))()
        for method, total in many.items():
            bound = PAIRWISE if name in ("mapped", "array") else BOUND
            close(total, one[method], bound=bound)


@gen
def hidden(z, _):
    z = sample("z", dist.Uniform(0.0, 1.0))
    flat("y")
    return z, None


@gen(static_argnames="steps")
def series(steps):
    def step(z, _):
        flat("y")
        return sample("z", dist.Uniform(0.0, 1.0)), None

    sample("scale", dist.Uniform(0.0, 1.0))
    jax.lax.scan(step, 0.0, None, length=steps)


@gen(static_argnames="steps")
def switching(steps):
    def step(z, _):
        z = sample("z", dist.Bernoulli(0.5))
        flat("y", jnp.where(z == 1, W, W))
        return z, None

    jax.lax.scan(step, 0, None, length=steps)


def data(steps):
    return {"y": jnp.ones(steps)}


def of_series(steps, scale=0.5):
    return Target(series, (steps,), data(steps) | ({} if scale is None else {"scale": scale}))


A = -1.4189  # what `over` adds, as a number


def adding(steps):
    return over(lambda a: reweight(lambda x: a), jnp.full(steps, A))


PARTICLES = {
    "over": adding,
    "over, one value": lambda steps: lambda s: adding(steps)(Weighted(0.0, jnp.zeros(()))),
    "over, islands": lambda steps: lambda s: merged(
        over(lambda a: each(within(reweight(lambda x: a))), jnp.full(steps, A))(
            islands(2, 2)(Weighted(0.0, jnp.zeros(())))
        )
    ),
    "recorded": lambda steps: lambda s: Weighted(
        0.0,
        recorded(lambda a: reweight(lambda x: a), jnp.full(steps, A))(s)[1].log_evidence[-1],
    ),
    "particle_filter": lambda steps: lambda s: particle_filter(
        hidden, 0.0, data(steps), 3
    ).particles,
    "particle_filter, resampled": lambda steps: lambda s: particle_filter(
        hidden, 0.0, data(steps), 3, threshold=1.0, scheme=multinomial,
        lookahead=lambda z, x, seen: 0.25,
    ).particles,
    "conditional_filter": lambda steps: lambda s: conditional_filter(
        hidden, 0.0, data(steps), {"z": jnp.full(steps, 0.5)}, 3
    ).particles,
    "filter_series": lambda steps: filter_series(of_series(steps), "z", 3),
    "filter_beliefs": lambda steps: filter_beliefs(
        Target(switching, (steps,), data(steps)), "z", "z", 1
    ),
    "smc2": lambda steps: smc2(
        of_series(steps, scale=None), "z", 2, 2, lambda t: mh(t, "scale"), moves=()
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTICLES)
def test_evidence_of_long_series(name):
    """S16, swept: all that carries weights through a loop."""

    def evidence(steps):
        start = Weighted(jnp.zeros(2), jnp.zeros(2))
        step = PARTICLES[name](steps)
        begun = unit() if name.startswith(("filter_", "smc2")) else start
        return log_evidence(step(begun))

    with jax.enable_x64(False):
        one, many = (jax.jit(seed(lambda n=n: evidence(n)))(jax.random.key(0)) for n in (1, STEPS))
        close(many, one)


def test_annealing_in_many_steps():
    """The powers' differences add up to the whole likelihood, whatever it is of the latents."""
    level = -np.float32(1e4)

    @gen
    def model():
        sample("x", dist.Bernoulli(0.5))
        sample("y", dist.Uniform(0.0, jnp.exp(80.0 * jnp.ones(125))).to_event(1))

    with jax.enable_x64(False):
        step = annealed(Target(model, (), {"y": jnp.ones(125)}), 2, lambda t: mh(t, "x"), 1000)
        run = jax.jit(seed(lambda: log_evidence(step(unit()))))
        close(run(jax.random.key(0)), level, 1)


def test_runs_in_blocks():
    """A run driven by the host carries the same sums."""
    with jax.enable_x64(False):

        def filtering():
            return particle_filter(hidden, 0.0, data(STEPS), 3)

        one = log_evidence(
            seed(lambda: particle_filter(hidden, 0.0, data(1), 3).particles)(jax.random.key(0))
        )
        close(run_particles(jax.random.key(0), filtering, progress=False).log_evidence, one)


def test_what_is_not_finite_stays_so():
    """Weights of zero and numbers that are none do what they do to a plain sum."""
    for terms in ([1.0, -jnp.inf, 2.0], [1.0, jnp.inf, 2.0], [1.0, jnp.nan], [jnp.inf, -jnp.inf]):
        total, expected = nothing(jnp.float32(0.0)), np.float32(0.0)
        with np.errstate(invalid="ignore"):
            for term in terms:
                total, expected = plus(total, jnp.float32(term)), expected + np.float32(term)
        np.testing.assert_array_equal(total.value, expected)


def test_a_compensated_sum_has_the_gradient_of_the_plain_one():
    def total(x):
        def step(s, i):
            return plus(s, x * i), None

        return jax.lax.scan(step, nothing(x), jnp.arange(4, dtype=jnp.float32))[0].value

    x = jnp.float32(1.5)
    assert jax.grad(total)(x) == jax.jvp(total, (x,), (x / x,))[1] == 0 + 1 + 2 + 3


def test_doubles_carry_nothing():
    assert nothing(jnp.zeros(())).lost is None
