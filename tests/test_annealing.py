"""Annealing: the whole measure exactly when small, whatever the schedule and the resampling."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Kernel,
    Weighted,
    accept,
    adaptive_annealing,
    annealed,
    each,
    hmc,
    lift,
    log_evidence,
    log_evidence_error,
    mh,
    multinomial,
    particle_metric,
    random_walk,
    retarget,
    reverse_annealed,
    spawn,
    start,
    stretch,
    temper,
    then,
    unit,
)
from inference.smc.adaptive import next_power
from inference.smc.annealing import on_latents
from ppl import Target, draw, gen, integrate, sample, seed
from ppl.errors import InvalidArgument
from semantics import check_proper
from semantics.compiling import QUICK
from tests.mutants.cases import BRANCHES, OPTIONAL, positive

EXACT = 1e-12  # sums of at most a million products of probabilities in float64


@gen
def coins(p):
    """Three sorts of coins, of which the first never shows heads."""
    a = sample("a", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
    b = sample("b", dist.Bernoulli(jnp.array([0.3, 0.6, 0.5])[a]))
    sample("heads", dist.Bernoulli(jnp.array([0.0, 0.4, p])[a] + 0.1 * a * b))


TARGET = Target(coins, (0.8,), {"heads": 1})
ONE = Target(
    gen(lambda: sample("y", dist.Bernoulli(0.2 + 0.7 * sample("x", dist.Bernoulli(0.4))))),
    (),
    {"y": 1},
)


@gen
def gaussian():
    sample("y", dist.Normal(sample("x", dist.Normal(0.0, 1.0)), 0.3))


def walk(y):
    return Target(gaussian, (), {"y": y})


def swaps(target):
    """A kernel of one's own, which is not reversible: one site after the other."""
    return lambda trace: mh(target, "b")(mh(target, "a")(trace))


def flipped(target):
    """One draw: a flip of x, accepted or not."""

    def kernel(trace):
        moved, log_ratio, _ = target.update(trace, {"x": 1 - trace["x"]})
        return accept(trace, moved, log_ratio)

    return kernel


RUNS = {
    "resampled always": (2, (0.0, 0.3, 1.0), {"threshold": 1.0}),
    "resampled when few count": (3, (0.0, 0.5, 1.0), {"threshold": 0.9}),
    "never resampled": (2, (0.1, 0.3, 0.6, 1.0), {"threshold": 0.0}),
    "from a power above zero": (3, (0.4, 1.0), {"threshold": 0.95}),
    "one power": (3, (1.0,), {}),
    "waste-free": (4, (0.3, 1.0), {"chains": 2}),
    "waste-free, one chain": (2, (0.0, 0.3, 1.0), {"chains": 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("n, powers, options", RUNS.values(), ids=RUNS)
def test_annealing_is_proper(n, powers, options):
    step = partial(annealed, n=n, kernel=flipped, powers=powers, scheme=multinomial, **options)
    check_proper(step, ONE).require()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"threshold": 0.8}, {"threshold": 0.0}])
def test_annealing_is_proper_where_the_likelihood_is_zero(options):
    powers = (0.0, 0.4, 1.0)
    step = partial(annealed, n=2, kernel=lambda t: mh(t, "a"), powers=powers, **options)
    check_proper(lambda t: step(t, scheme=multinomial), TARGET).require()


@pytest.mark.slow
def test_annealing_is_proper_where_dimensions_change():
    """Latents in branches: the kernel's choice takes one."""
    step = partial(annealed, n=1, kernel=lambda t: mh(t, "a"), powers=(0.0, 1.0), threshold=0.0)
    check_proper(step, positive(OPTIONAL, BRANCHES), max_examples=5).require()


def test_retargeting_is_proper():
    """Between powers, and between models; from the first coin, which has no mass, too."""

    def other(target):
        return Target(coins, (0.3,), target.observations)

    check_proper(lambda t: retarget(other(t), t), TARGET, source=other).require()
    half = partial(temper, power=0.5)
    check_proper(lambda t: retarget(half(t), t), TARGET, source=half).require()


def by_hand(powers, kernels):
    """`annealed` of two independent particles, written out in traces."""
    targets = [temper(ONE, power) for power in powers]
    steps = [start(targets[0])]
    for before, now, kernel in zip(targets[:-1], targets[1:], kernels, strict=True):
        steps += [retarget(before, now), lift(kernel(now)) if kernel else then()]
    return then(spawn(2), each(then(*steps, retarget(targets[-1], ONE))))


def moments(step):
    """Of the log evidence: what annealing does, in three numbers."""
    run = integrate(lambda: log_evidence(step(unit())) ** jnp.arange(1, 4))
    return jax.jit(run, compiler_options=QUICK)()


def test_retargets_are_annealing():
    powers = (0.3, 0.7, 1.0)
    ours = annealed(ONE, 2, flipped, powers, threshold=0.0)
    expected = moments(by_hand(powers, (flipped, flipped)))
    np.testing.assert_allclose(moments(ours), expected, rtol=0, atol=EXACT)


def test_reversed_annealing_is_proper():
    """From the posterior to the prior where the likelihood is not zero, value by value."""
    powers = (0.0, 0.3, 1.0)
    back = lambda _: reverse_annealed(TARGET, swaps, powers)  # noqa: E731
    check_proper(back, temper(TARGET, 0.0), source=lambda _: TARGET).require()


def test_bounds_from_both_sides():
    """E[Z] = Z forwards, E[1 / Z] = 1 / Z backwards, and the means of logs lie around log Z."""
    posterior, powers = jnp.array([0.6 * 0.2, 0.4 * 0.9]), (0.0, 0.3, 1.0)
    z = posterior.sum()

    def forwards():
        return log_evidence(annealed(ONE, 2, flipped, powers, threshold=0.0)(unit()))

    def backwards():
        x = draw(dist.CategoricalProbs(posterior / z))
        start = Weighted(ONE.at({"x": x})[0], jnp.zeros(()))
        return reverse_annealed(ONE, flipped, powers)(start).log_weight

    def means(run):
        both = integrate(lambda: (lambda w: jnp.array([jnp.exp(w), w]))(run()))
        return jax.jit(both)()

    (up, lower), (down, minus_upper) = means(forwards), means(backwards)
    np.testing.assert_allclose([up, down], [z, 1 / z], rtol=0, atol=EXACT)
    assert lower < jnp.log(z) < -minus_upper


# -- powers and kernels found from the particles -------------------------------------------------


def adapted(**options):
    """Two particles of `ONE`, whose levels differ or not."""
    how = {"fraction": 0.9, "max_stages": 2, "scheme": multinomial, **options}
    return adaptive_annealing(ONE, 2, flipped, **how)


@pytest.mark.slow
def test_found_powers_bias_the_evidence_and_a_second_run_does_not():
    """E[Z] of the run that finds them, of one with what it found, and of one that finds none.

    By hand: two equal starts go to 1 at once, 0.6^2 0.2 + 0.4^2 0.9. At unequal ones
    (2 * 0.6 * 0.4) the power b is where 0.2^b is half of 0.9^b. From 0 a flip is then sure, from
    1 of probability 3/4, and (0.9 / 2 + 3/4 * 2 * 0.2 + 1/4 * 0.9) / 2 is the mean weight.
    """

    def both():
        first = adapted(threshold=0.0)
        again = annealed(ONE, 2, flipped, first.powers, threshold=0.0)(unit())
        return jnp.exp(jnp.array([log_evidence(first.particles), log_evidence(again)]))

    def at_once():
        found = [adapted(max_stages=1, chains=chains) for chains in (None, 1)]
        return jnp.exp(jnp.array([log_evidence(each.particles) for each in found]))

    biased, unbiased = jax.jit(integrate(both))()
    np.testing.assert_allclose(unbiased, 0.48, rtol=0, atol=EXACT)
    np.testing.assert_allclose(jax.jit(integrate(at_once))(), 0.48, rtol=0, atol=EXACT)
    expected = 0.36 * 0.2 + 0.16 * 0.9 + 0.48 * (0.45 + 0.3 + 0.225) / 2  # 0.45
    np.testing.assert_allclose(biased, expected, rtol=0, atol=EXACT)


def test_the_kernel_takes_the_parameters_of_its_power():
    """A kernel that moves with probability 1 at one power and 0 at the other, by hand."""

    def sometimes(target):
        move = flipped(target)

        def step(p, trace):
            goes = draw(dist.Bernoulli(p)) == 1
            return jax.tree.map(partial(jnp.where, goes), move(trace), trace), {}

        return Kernel("sometimes", step, 0.5)

    powers = (0.3, 0.7, 1.0)
    for given, moves in (((1.0, 0.0), (flipped, None)), ((0.0, 1.0), (None, flipped))):
        step = annealed(ONE, 2, sometimes, powers, threshold=0.0, parameters=jnp.array(given))
        np.testing.assert_allclose(
            moments(step), moments(by_hand(powers, moves)), rtol=0, atol=EXACT
        )


@pytest.mark.parametrize("before", [0.0, 0.2])
def test_the_next_power_is_where_particles_count_by_the_fraction(before):
    """Zhou, Johansen and Aston (2016), in the definition's own words; dead particles are none."""
    rng = np.random.default_rng(0)
    level, weights = 9 * rng.normal(size=20), rng.exponential(size=20)
    level[3], weights[7] = -np.inf, 0.0
    alive = (weights > 0) & (level > -np.inf)
    power = float(next_power(jnp.array(level), jnp.log(weights), jnp.array(before), 0.3))
    normal = np.where(alive, weights, 0.0) / weights.sum()
    v = np.where(alive, np.exp((power - before) * np.where(alive, level, 0.0)), 0.0)
    expected = 0.3 * (normal @ v**2)  # the conditional effective number over n
    np.testing.assert_allclose((normal @ v) ** 2, expected, rtol=1e-10)
    assert before < power < 1
    assert next_power(jnp.array(level / 1e3), jnp.log(weights), jnp.array(before), 0.3) == 1
    assert next_power(jnp.full(2, -jnp.inf), jnp.zeros(2), jnp.array(before), 0.3) == 1


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_a_metric_of_the_particles(dense):
    """Their weighted covariance in unconstrained space, shrunk."""

    @gen
    def pair():
        s = sample("s", dist.LogNormal(0.0, 0.5))
        sample("y", dist.Normal(sample("x", dist.Normal(0.0, s)), s))

    rng = np.random.default_rng(0)
    s, x, w = rng.exponential(size=9), rng.normal(size=9), rng.exponential(size=9)
    kernel = on_latents(Target(pair, (), {"y": 1.0}), lambda t: hmc(t, steps=1, dense=dense), 0.5)
    particles = Weighted({"s": jnp.array(s), "x": jnp.array(x)}, jnp.log(w))
    found = particle_metric(kernel, particles)
    covariance = np.cov(np.log(s), x, aweights=w, ddof=0)
    m = w.sum() ** 2 / (w**2).sum()
    r2 = covariance[0, 1] ** 2 / covariance.diagonal().prod()
    share = (1 - r2) ** 2 / m / r2  # what chance makes of r^2
    assert (5 / (m + 5)) ** 2 < share < 1
    expected = covariance * np.array([[1, 1 - share], [1 - share, 1]])
    expected = expected if dense else np.diagonal(expected)
    np.testing.assert_allclose(found.inverse_mass, expected, rtol=1e-12)
    assert found.step_size == kernel.parameters.step_size


@pytest.mark.slow
def test_runs_side_by_side_are_the_runs():
    """Stages that are not needed change nothing, under `vmap` as without."""
    step = {"tune": particle_metric, "fraction": 0.3, "max_stages": 12}
    run = seed(lambda y: adaptive_annealing(walk(y), 8, random_walk, **step))
    key, ys = jax.random.key(0), jnp.array([0.1, 9.0])
    together = jax.jit(jax.vmap(run, in_axes=(None, 0)), compiler_options=QUICK)(key, ys)
    run = jax.jit(run, compiler_options=QUICK)
    alone = [run(key, y) for y in ys]
    for i, found in enumerate(alone):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-9),
            (together.particles.log_weight, together.powers, together.parameters),
            (found.particles.log_weight, found.powers, found.parameters),
        )
    few, many = (int(found.stages) for found in alone)
    assert few < many <= 12
    powers = alone[0].powers
    assert (powers[few:] == 1).all() and (jnp.diff(powers[: few + 1]) > 0).all()
    assert (alone[0].history.log_evidence[few - 1 :] == alone[0].history.log_evidence[-1]).all()


# -- many runs, dead particles, and what cannot be -----------------------------------------------


def test_particles_without_mass_keep_none():
    """Data that no latents explain: weights -inf and no NaN; and a retargeted dead trace."""

    @gen
    def never(p):
        sample("heads", dist.Bernoulli(p * jax.nn.sigmoid(sample("x", dist.Normal(0.0, 1.0)))))

    impossible, key = Target(never, (0.0,), {"heads": 1}), jax.random.key(0)
    for make, chains in ((random_walk, None), (lambda t: hmc(t, steps=2), 2)):
        step = annealed(impossible, 4, make, (0.0, 0.5, 1.0), chains=chains)
        found = jax.jit(seed(step))(key, unit())
        assert found.log_weight.tolist() == [-np.inf] * 4
        assert not jnp.isnan(found.value["x"]).any()
        assert log_evidence_error(found.log_weight) == np.inf
    dead = Weighted(impossible.at({"x": 0.0})[0], jnp.zeros(()))
    assert retarget(impossible, Target(never, (0.5,), {"heads": 1}))(dead).log_weight == -np.inf


def test_the_error_is_that_of_the_mean():
    """The delta method, by the definition."""
    weights = np.array([1.0, 2.0, 4.0, 0.5])
    error = weights.std(ddof=1) / np.sqrt(4) / weights.mean()
    np.testing.assert_allclose(log_evidence_error(jnp.log(weights) - 900), error, rtol=1e-12)


CALLS = {
    "no particle": (lambda: annealed(ONE, 0, flipped), "is not a number"),
    "powers that fall": (lambda: annealed(ONE, 2, flipped, (0.0, 0.6, 0.3, 1.0)), "increase to 1"),
    "no number": (lambda: annealed(ONE, 2, flipped, (0.0, np.nan, 1.0)), "increase to 1"),
    "powers that end early": (lambda: reverse_annealed(ONE, flipped, (0.0, 0.5)), "increase to 1"),
    "one power": (lambda: annealed(ONE, 2, flipped, 1), "powers is not a number"),
    "no likelihood": (lambda: annealed(Target(coins, (0.5,)), 2, swaps), "no likelihood"),
    "chains": (lambda: annealed(ONE, 6, flipped, chains=4), "share the particles evenly"),
    "a population": (lambda: annealed(walk(2.0), 6, lambda t: stretch(t, 4)), "single traces"),
    "fractions": (lambda: adapted(fraction=1.0), "fraction is not a number"),
    "no stage": (lambda: adapted(max_stages=0), "max_stages is not a number"),
    "no metric": (lambda: adapted(tune=particle_metric), "Particles give a metric"),
    "other latents": (lambda: retarget(ONE, TARGET), "latent of one target and not of the other"),
}


@pytest.mark.parametrize("call, says", CALLS.values(), ids=CALLS)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(InvalidArgument, match=says) as found:
        seed(lambda: call()(unit()))(jax.random.key(0))
    assert "test_annealing.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12
