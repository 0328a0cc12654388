"""Latents integrated out by estimates: the law of the others is exact, by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    each,
    filter_series,
    importance,
    lift,
    marginal,
    mh,
    multinomial,
    sample_posterior,
    smc2,
    start,
    then,
    unit,
)
from ppl import Masked, Target, draw, factor, gen, integrate, sample, scan, seed, select
from ppl.errors import InvalidArgument, NonFiniteStart
from semantics import check_proper
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a million products of probabilities in float64
FLIPS = jnp.array([0.2, 0.6])
EMITS = jnp.array([0.9, 0.2])
SEEN = [1, 0]
SCALES = [0.5, 1.0]


@gen
def step(k, flip):
    new = sample("k", dist.Bernoulli(jnp.where(k == 1, 1 - flip, flip)))
    sample("y", dist.Bernoulli(EMITS[new]))
    return new, flip


@gen
def model():
    """A kept choice, one made from it, data outside of the series, a factor after it."""
    theta = sample("theta", dist.Bernoulli(0.4))
    more = sample("more", dist.Bernoulli(FLIPS[theta]))
    sample("z", dist.Bernoulli(FLIPS[more]))
    _, flips = sample("chain", scan(step)(0, FLIPS[theta] * jnp.array(SCALES)))
    factor(flips.sum())  # of what the steps return, but not of their choices


DATA = {"z": 1, "chain": {"y": jnp.array(SEEN)}}
target = Target(model, (), DATA)


def mass(theta, more):
    """p(theta, more, z, y), by hand."""
    flip = float(FLIPS[theta])
    p = [0.6, 0.4][theta] * (flip if more else 1 - flip) * float(FLIPS[more])
    p *= np.exp(flip * sum(SCALES))
    total = 0.0
    for path in itertools.product((0, 1), repeat=2):
        q, before = 1.0, 0
        for k, y, scale in zip(path, SEEN, SCALES, strict=True):
            q *= flip * scale if k != before else 1 - flip * scale
            q *= float(EMITS[k]) if y else 1 - float(EMITS[k])
            before = k
        total += q
    return p * total


def by_filter(rest):
    return filter_series(rest, "chain", 2, scheme=multinomial)


def by_importance(rest):
    return importance(rest, 2)


POSTERIOR = np.array([[mass(theta, more) for more in (0, 1)] for theta in (0, 1)])
CASES = {
    "filter": (("theta", "more"), by_filter, POSTERIOR),
    "importance": (("theta", "more"), by_importance, POSTERIOR),
    "some kept": (("theta",), by_importance, POSTERIOR.sum(1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("keep, using, expected", CASES.values(), ids=CASES)
def test_kernels_on_estimates_are_exact(keep, using, expected):
    """The marginal target has the mass p(kept, data), and Metropolis-Hastings keeps it."""
    kept = marginal(target, select(*keep), using)

    def measure(step):
        def run():
            s = step(unit())
            at = tuple(s.value[name] for name in keep)
            return jnp.exp(s.log_weight) * jnp.zeros(expected.shape).at[at].set(1.0)

        return jax.jit(integrate(run))()

    for step in (start(kept), then(start(kept), lift(mh(kept, "theta")))):
        np.testing.assert_allclose(measure(step), expected, rtol=0, atol=EXACT)


def series(reverse=False):
    def model():
        sample("z", dist.Bernoulli(0.3))
        _, flips = sample("chain", scan(step, reverse=reverse)(0, jnp.array(SCALES)))
        factor(flips.sum())

    return gen(model)


SEEN_IN_PART = {"z": 1, "chain": {"y": Masked(jnp.array(SEEN), jnp.array([True, False]))}}
SERIES = {
    "forward": (Target(series(), (), DATA), {"threshold": 1.0}),
    "reverse, adaptive": (Target(series(reverse=True), (), DATA), {"threshold": 0.8}),
}


@pytest.mark.parametrize("target, options", SERIES.values(), ids=SERIES)
def test_a_filter_is_a_proper_step_to_the_target(target, options):
    check_proper(
        lambda t: filter_series(t, "chain", 3, scheme=multinomial, **options), target
    ).require()


def test_a_filter_of_data_seen_in_part_has_their_evidence():
    def evidence(data):
        s = filter_series(Target(series(), (), data), "chain", 2, scheme=multinomial)(unit())
        return jnp.exp(s.log_weight).mean()

    whole = [{"z": 1, "chain": {"y": jnp.array([1, y])}} for y in (0, 1)]
    expected = sum(jax.jit(integrate(evidence), compiler_options=QUICK)(data) for data in whole)
    found = jax.jit(integrate(evidence), compiler_options=QUICK)(SEEN_IN_PART)
    assert abs(found - expected) < EXACT


# -- filters inside particles ----------------------------------------------------------------------


@gen
def one_parameter(scales):
    theta = sample("theta", dist.Bernoulli(0.4))
    sample("z", dist.Bernoulli(FLIPS[theta]))
    _, flips = sample("chain", scan(step)(0, FLIPS[theta] * scales))
    factor(flips.sum())


def on_theta(target):
    return mh(target, "theta")


@pytest.mark.slow
@pytest.mark.parametrize(
    "n, inner, steps, moves", [(2, 1, 2, [1]), (1, 2, 2, []), (1, 1, 3, [1, 2])]
)
def test_smc2_is_proper_for_the_parameters(n, inner, steps, moves):
    """Against importance sampling of everything."""
    data = {"z": 1, "chain": {"y": jnp.array([1, 0, 1])[:steps]}}
    whole = Target(one_parameter, (jnp.array([0.5, 1.0, 0.8])[:steps],), data)

    def measure(step):
        def run():
            s = step(unit())
            weights = jnp.atleast_1d(jnp.exp(s.log_weight))[:, None]
            return (weights * (jnp.atleast_1d(s.value["theta"])[:, None] == jnp.arange(2))).mean(0)

        return jax.jit(integrate(run))()

    found = smc2(whole, "chain", n, inner, on_theta, moves=moves, scheme=multinomial, threshold=0.9)
    np.testing.assert_allclose(measure(found), measure(start(whole)), rtol=0, atol=EXACT)


def test_moving_only_when_few_particles_count_is_seen():
    """Whether few count depends on where they are: not a proper step, with a right kernel."""
    coin = Target(
        gen(lambda: sample("y", dist.Bernoulli(EMITS[sample("x", dist.Bernoulli(0.3))]))),
        (),
        {"y": 1},
    )

    def adaptive(t):
        def step(s):
            few = s.log_weight[0] != s.log_weight[1]
            return jax.lax.cond(few, each(lift(mh(t, "x"))), lambda s: s, s)

        return then(importance(t, 2), step)

    assert not check_proper(adaptive, coin).passed


# -- what cannot be ------------------------------------------------------------------------------


@gen
def noisy():
    theta = sample("theta", dist.Bernoulli(0.4))
    factor(jnp.log(0.5 + draw(dist.Bernoulli(FLIPS[theta]))))


def test_no_finite_start_of_an_estimate_is_said():
    """All of the densities are estimates that are zero."""
    nothing = Target(walled, (), {"chain": {"y": jnp.array([1, 1])}})
    rates = marginal(nothing, "theta", lambda rest: filter_series(rest, "chain", 2))
    with pytest.raises(NonFiniteStart) as found:
        sample_posterior(
            jax.random.key(0), rates, mh(rates, "theta"), draws=2, warmup=1, progress=False
        )
    assert found.value.rows[-1][0] == '"theta"'


@gen
def walled():
    theta = sample("theta", dist.Bernoulli(0.4))

    @gen
    def one(k, _):
        k = sample("k", dist.Bernoulli(FLIPS[theta]))
        sample("y", dist.Bernoulli(0.0 * k))
        return k, None

    sample("chain", scan(one, 2)(0))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: marginal(target, "more", by_importance), 'depend on "theta"'),
        (lambda: marginal(target, "chain", by_importance), 'depend on "theta"'),
        (lambda: marginal(Target(noisy), "theta", by_importance), "draws without addresses"),
        (lambda: filter_series(target, "chain", 2), '"theta" is latent, too'),
        (lambda: smc2(target, "more", 2, 2, on_theta), "not a series of states"),
        (lambda: smc2(target, "chain", 2, 2, on_theta, moves=[2]), "between two observations"),
        (lambda: filter_series(target, "more", 2), "not a series of states"),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(InvalidArgument, match=says) as found:
        seed(call)(jax.random.key(0))
    assert "test_pseudo.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12
