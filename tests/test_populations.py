"""Tempered targets, parallel tempering, and ensembles.

Tolerance 1e-12: sums of at most 1e5 path probabilities in float64. The kernels themselves
are checked on the product of their members' targets in the kill matrix.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import hmc, mh, sample_posterior
from inference.mcmc.ensemble import stretch
from inference.mcmc.gibbs import gibbs
from inference.mcmc.mh_each import mh_each
from inference.mcmc.tempering import even_ladder, parallel_tempering
from inference.targets.temper import temper
from ppl import Masked, Target, draw, errors, factor, gen, sample, seed, select
from semantics import check_kernel, target_measure
from tests import models
from tests.mutants.plates import APART, Z
from tests.mutants.populations import COIN

EXACT = 1e-12


# -- temper -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_the_power_is_taken_around_every_construct(name):
    """log p of the whole, times the power; at power 1 the model itself."""
    target = Target(models.MODELS[name], (0.3,))
    trace, _ = seed(target.generate)(jax.random.key(0))
    for power in (0.3, 1.0):
        tempered, _ = temper(target, power, "everything").at(trace.choices)
        np.testing.assert_allclose(tempered.score, power * trace.score, rtol=0, atol=EXACT)


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_the_likelihood_alone_is_tempered(power):
    """log p(latents) + power * log p(observations | latents), by `project`."""
    trace, _ = seed(APART.generate)(jax.random.key(0))
    prior = APART.model.project(trace, select(Z))
    likelihood = APART.model.project(trace, select(("s", "y")))
    found = temper(APART, power).log_density(APART.choices(trace))
    np.testing.assert_allclose(found, prior + power * likelihood, rtol=0, atol=EXACT)


def test_power_zero_is_the_prior_where_the_likelihood_is_not_zero():
    @gen
    def model():
        a = sample("a", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
        sample("y", dist.Bernoulli(jnp.array([0.0, 0.5, 1.0])[a]))
        factor(jnp.log(jnp.array([1.0, 2.0, 3.0]))[a])

    measure = target_measure(temper(Target(model, (), {"y": 1}), 0.0))
    expected = {0: 0.0, 1: 0.3, 2: 0.5}
    for a, mass in expected.items():
        assert abs(float(measure[((("a",), a),)]) - mass) < EXACT


def test_kernels_take_tempered_targets():
    """A tempered target is a target: kernels that work inside of its plates do, too."""
    tempered = temper(APART, 0.4)
    check_kernel(lambda t: gibbs(t, Z), tempered).require()
    check_kernel(lambda t: mh_each(t, Z), tempered).require()


GUESSED = gen(
    lambda: sample(
        "y", dist.Bernoulli(0.2 + 0.3 * draw(dist.Bernoulli(sample("p", dist.Beta(1, 1)))))
    )
)
SEVERAL = gen(lambda: sample("y", dist.Bernoulli(sample("p", dist.Beta(1, 1))).expand([2])))
HALF = Target(SEVERAL, (), {"y": Masked(jnp.array([1, 0]), jnp.array([True, False]))})


def redraw(target):
    return mh(target, "b")


MISTAKES = {
    "nothing": (lambda: temper(BENT, 0.5), "The target has no likelihood to temper."),
    "estimated": (lambda: temper(Target(GUESSED, (), {"y": 1}), 0.5), "The model draws without"),
    "partly": (lambda: temper(HALF, 0.5), "The target observes part of an array"),
    "unknown": (lambda: temper(COIN, 0.5, "prior"), "of is none of its choices."),
    "rising": (lambda: parallel_tempering(COIN, redraw, (1.0, 0.2, 0.5)), "The powers of a ladder"),
    "not one": (lambda: parallel_tempering(COIN, redraw, (0.9, 0.5)), "The powers of a ladder"),
    "flat": (
        lambda: parallel_tempering(COIN, redraw, (1.0, 0.0), of="everything"),
        "The powers of a ladder",
    ),
    "populations": (
        lambda: parallel_tempering(BENT, lambda t: stretch(t, 4), (1.0, 0.5), of="everything"),
        "Tempering needs a kernel on single traces.",
    ),
    "few": (lambda: stretch(BENT, 3), "The ensemble is too small to move in all directions."),
    "scale": (lambda: stretch(BENT, 4, scale=1.0), "scale is not a number of that kind."),
}  # fmt: skip


@gen
def bent():
    x = sample("x", dist.Normal(0.3, 1.0))
    sample("w", dist.Normal(x * x, 1.0))


BENT = Target(bent)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    make, says = MISTAKES[name]
    with pytest.raises(errors.InvalidArgument) as caught:
        make()
    text = str(caught.value)
    assert text.startswith(says) and "test_populations.py" in text and "fix:" in text
    assert len(text.splitlines()) <= 12


# -- the ladder -------------------------------------------------------------------------------


def exact_swaps(powers):
    """The mean probability of a swap of neighbours on the coin, by hand."""
    prior, likelihood = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.5, 0.9])
    found = []
    for cold, hot in itertools.pairwise(powers):
        p, q = prior * likelihood**cold, prior * likelihood**hot
        ratio = (likelihood[None, :] / likelihood[:, None]) ** (cold - hot)
        pairs = np.outer(p / p.sum(), q / q.sum())
        found.append((pairs * np.minimum(ratio, 1.0)).sum())
    return np.array(found)


def test_even_parts_of_the_barrier():
    """The barrier between new neighbours is the same for all; the ends stay."""
    powers, swaps = jnp.array([1.0, 0.7, 0.3, 0.1, 0.0]), jnp.array([0.9, 0.2, 0.5, 0.7])
    barrier = np.concatenate([[0.0], np.cumsum(1.0 - swaps)])
    made = even_ladder(powers, swaps)
    steps = np.diff(np.interp(-np.asarray(made), -np.asarray(powers), barrier))
    np.testing.assert_allclose(steps, barrier[-1] / 4, rtol=0, atol=EXACT)
    assert made[0] == 1 and made[-1] == 0


def test_adapted_swaps_are_refused_alike():
    """Fed with exact swap rates, the ladder comes to where they are equal."""
    powers = jnp.array([1.0, 0.95, 0.3, 0.0])
    before = np.ptp(exact_swaps(np.asarray(powers)))
    for _ in range(10):
        powers = even_ladder(powers, jnp.asarray(exact_swaps(np.asarray(powers))))
    # each round contracts the differences; ten of them by far more than a hundred
    assert np.ptp(exact_swaps(np.asarray(powers))) < before / 100


def test_adaptation_is_over_before_the_warm_up_is():
    """Powers move at the ends of rounds in its first half, and keep their order and ends."""
    steps = 100
    kernel = parallel_tempering(COIN, redraw, (1.0, 0.9, 0.5, 0.0))
    tuning = kernel.warm()

    def run():
        ladder = kernel.enter(jax.vmap(lambda b: COIN.at({"b": b})[0])(jnp.array([0, 1, 2, 2])))

        def step(carry, _):
            found, ladder = carry
            ladder, stats = kernel.step(tuning.parameters(found), ladder)
            found = tuning.update(found, ladder, stats)
            return (found, ladder), tuning.parameters(found)[0]

        start = (tuning.init(ladder, steps), ladder)
        (found, _), history = jax.lax.scan(step, start, None, length=steps)
        return history, tuning.freeze(found)[0]

    history, frozen = jax.jit(seed(run))(jax.random.key(0))
    changes = [i for i in range(1, steps) if (history[i] != history[i - 1]).any()]
    assert changes == [15, 47]  # rounds of 16 and 32 steps
    assert (np.diff(history, axis=1) < 0).all()
    assert (history[:, 0] == 1).all() and (history[:, -1] == 0).all()
    assert (frozen == history[-1]).all()


@gen
def valley():
    """Two narrow modes, and a kernel that cannot go from one to the other."""
    x = sample("x", dist.Normal(0.0, 3.0))
    sample("y", dist.Normal(jnp.abs(x), 0.1))


@pytest.mark.slow
def test_a_run_draws_from_the_coldest_chain():
    """Kernels that tune are tuned at each power, and all draws are where the target has mass."""
    target = Target(valley, (), {"y": 3.0})
    kernel = parallel_tempering(target, lambda t: hmc(t, steps=3), (1.0, 0.1, 0.01, 0.0))
    draws = sample_posterior(
        jax.random.key(0), target, kernel, draws=500, warmup=300, chains=2, progress=False
    )
    x = draws["x"]
    assert x.shape == (2, 500)
    # 7 standard deviations: 2.6e-12 a draw of the target, below 1e-8 for all 1000 of them, as
    # tests/budget.py has it; under the prior it is 0.8
    assert not (np.abs(np.abs(x) - 3.0) > 0.7).any()


# -- the stretch move -------------------------------------------------------------------------


def test_it_is_affine_invariant():
    """On an affine image of the target the same draws make the image of the ensemble."""
    scale, shift = jnp.array([[2.0, 0.0], [1.5, 0.1]]), jnp.array([3.0, -1.0])

    @gen
    def plain():
        x = sample("x", dist.Normal(0.0, 1.0))
        sample("w", dist.Normal(x, 1.0))

    @gen
    def image():
        u = sample("x", dist.Normal(3.0, 2.0))
        x = (u - shift[0]) / scale[0, 0]
        sample("w", dist.Normal(shift[1] + scale[1, 0] * x + scale[1, 1] * x, scale[1, 1]))

    z = jax.random.normal(jax.random.key(1), (6, 2))

    @functools.partial(jax.jit, static_argnums=0)
    def moved(model, z):
        target = Target(model)
        traces = jax.vmap(lambda z: target.at({"x": z[0], "w": z[1]})[0])(z)
        new = seed(stretch(target, 6))(jax.random.key(2), traces)
        return jnp.stack([new["x"], new["w"]], -1)

    mapped = moved(plain, z) @ scale.T + shift
    np.testing.assert_allclose(moved(image, z @ scale.T + shift), mapped, rtol=0, atol=EXACT)
    assert (mapped != z @ scale.T + shift).any()


def test_the_rest_of_a_trace_stays():
    """With a selection every member keeps its own other latents."""
    kernel = stretch(BENT, 4, "w")

    @jax.jit
    def run():
        traces = jax.vmap(seed(lambda: BENT.generate()[0]))(jax.random.split(jax.random.key(0), 4))
        moved = seed(kernel)(jax.random.key(1), traces)
        return traces, moved, jax.vmap(BENT.log_density)(moved.choices)

    traces, moved, scores = run()
    assert (moved["x"] == traces["x"]).all() and (moved["w"] != traces["w"]).any()
    np.testing.assert_allclose(moved.score, scores, rtol=0, atol=EXACT)
