"""Marginals whose estimate is none: kernels of gradients move the parameters.

Values against the forward algorithm in numpy and dense Gaussians; gradients against central
differences of those in float64: a step of 1e-5 leaves less than 1e-7 of third derivatives and
of rounding, for numbers up to 1e2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from inference import (
    Weighted,
    auxiliary_marginal,
    correlated,
    filter_beliefs,
    filter_series,
    hmc,
    importance,
    marginal,
    mh,
    multinomial,
    nuts,
    random_walk,
    resample,
    then,
    when_ess_below,
)
from inference.mcmc.slices import slice_sample
from ppl import Target, draw, factor, gen, sample, seed, select
from ppl.errors import InvalidArgument
from ppl.estimates import estimating_draw
from semantics.compiling import QUICK

KEY = jax.random.key(0)
Y = jnp.array([0.5, -1.0, 2.0, 0.25])


@gen
def switching():
    stay = sample("stay", dist.Beta(3.0, 2.0))
    high = sample("high", dist.Normal(1.0, 1.0))

    def step(k, _):
        k = sample("k", dist.Bernoulli(jnp.where(k == 1, stay, 1 - stay)))
        sample("y", dist.Normal(high * k, 1.0))
        return k, None

    jax.lax.scan(step, 0, None, length=4)


def forward(stay, high, xp=np, log_density=stats.norm.logpdf):
    """The forward algorithm, by probabilities."""
    alpha = xp.array([1.0, 0.0])
    move = xp.array([[stay, 1 - stay], [1 - stay, stay]])
    for y in Y:
        alpha = (alpha @ move) * xp.exp(log_density(y, xp.array([0.0, high]), 1.0))
    return xp.log(alpha.sum())


def of_switching(stay, high):
    prior = stats.beta.logpdf(stay, 3.0, 2.0) + stats.norm.logpdf(high, 1.0, 1.0)
    return prior + forward(stay, high)


@gen
def level():
    """A local level: linear-Gaussian, with the scale of its moves and of the noise."""
    move, noise = sample("move", dist.HalfNormal(1.0)), sample("noise", dist.HalfNormal(1.0))

    def step(z, _):
        z = sample("z", dist.Normal(z, move))
        sample("y", dist.Normal(z, noise))
        return z, None

    jax.lax.scan(step, 0.0, None, length=4)


def of_level(move, noise):
    times = np.arange(1, 5)
    cov = move**2 * np.minimum.outer(times, times) + noise**2 * np.eye(4)
    prior = stats.halfnorm.logpdf(move) + stats.halfnorm.logpdf(noise)
    return prior + stats.multivariate_normal.logpdf(Y, np.zeros(4), cov)


def beliefs(address):
    return lambda rest: filter_beliefs(rest, address, address, 1)


def with_draws(address):
    """The same, and a draw after it that the evidence does not depend on."""

    def noisily(s):
        return Weighted((s.value, draw(dist.Normal(0.0, 1.0)).sum()), s.log_weight)

    return lambda rest: then(filter_beliefs(rest, address, address, 1), noisily)


SWITCHING, LEVEL = (Target(model, (), {"y": Y}) for model in (switching, level))
EXACT = {
    "hidden Markov model": (SWITCHING, ("stay", "high"), beliefs("k"), of_switching),
    "Kalman filter": (LEVEL, ("move", "noise"), beliefs("z"), of_level),
    "draws of no consequence": (LEVEL, ("move", "noise"), with_draws("z"), of_level),
}
AT = np.array([0.6, 0.9])


@pytest.mark.slow
@pytest.mark.parametrize("target, names, using, expected", EXACT.values(), ids=EXACT)
def test_the_density_of_an_exact_marginal(target, names, using, expected):
    """No keys, and values and gradients of the exact density."""
    kept = marginal(target, select(*names), using)
    assert estimating_draw(kept) is None
    log_p = lambda x: kept.log_density(dict(zip(names, x, strict=True)))  # noqa: E731
    found, slope = jax.jit(jax.value_and_grad(log_p), compiler_options=QUICK)(jnp.asarray(AT))
    np.testing.assert_allclose(found, expected(*AT), rtol=0, atol=1e-12)
    ends = [[expected(*(AT + s * h)) for s in (1, -1)] for h in 1e-5 * np.eye(2)]
    np.testing.assert_allclose(slope, -np.diff(ends)[:, 0] / 2e-5, rtol=0, atol=1e-7)
    nuts(kept)  # which says at once what it cannot move


@pytest.mark.slow
def test_a_kernel_moves_an_exact_marginal_as_the_density_written_out():
    """Hamiltonian steps on the marginal, and on a model that scores the forward algorithm."""

    @gen
    def written():
        stay, high = sample("stay", dist.Beta(3.0, 2.0)), sample("high", dist.Normal(1.0, 1.0))
        log_normal = lambda y, loc, scale: dist.Normal(loc, scale).log_prob(y)  # noqa: E731
        factor(forward(stay, high, jnp, log_normal))

    ends = []
    for target in (marginal(SWITCHING, select("stay", "high"), beliefs("k")), Target(written)):
        kernel = hmc(target, steps=3, step_size=0.2)
        trace = target.at({"stay": 0.6, "high": 0.9})[0]
        moved = jax.jit(seed(kernel), compiler_options=QUICK)(KEY, trace)
        ends.append([moved["stay"], moved["high"], moved.score])
    assert abs(ends[0][0] - 0.6) > 1e-3  # it was accepted
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-10)


@gen
def noisy():
    """A positive latent, whose likelihood is estimated by a draw."""
    scale = sample("scale", dist.HalfNormal(1.0))
    z = sample("z", dist.Normal(0.0, scale))
    sample("y", dist.Normal(z, 1.0))


NOISY = marginal(Target(noisy, (), {"y": 1.0}), "scale", lambda rest: importance(rest, 3))


@pytest.mark.parametrize("off, accept", [(-50.0, 1.0), (50.0, 0.0)])
def test_a_random_walk_keeps_the_estimate_of_its_state(off, accept):
    """A state far above, or below, what would be estimated anew: the ratio is that of the state.

    So the law of the latents is exact (Andrieu and Roberts 2009).
    """
    kernel = random_walk(NOISY, step_size=0.1)
    trace = seed(NOISY.at)(KEY, {"scale": 1.0})[0]
    trace = type(trace)(**{**vars(trace), "score": trace.score + off})
    state = kernel.enter(trace)  # without a draw
    np.testing.assert_allclose(state.log_density, trace.score, rtol=0, atol=1e-12)  # at z = 0
    end, stats = seed(kernel.step)(KEY, kernel.parameters, state)
    np.testing.assert_allclose(stats["accept"], accept, rtol=0, atol=1e-12)
    left = kernel.leave(end)
    again = kernel.enter(left)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)  # but for log(exp(z))
    if accept:
        assert left["scale"] != 1.0
        z = jnp.log(left["scale"])
        np.testing.assert_allclose(end.log_density, left.score + z, rtol=0, atol=1e-12)
    else:
        assert left["scale"] == 1.0 and left.score == trace.score


ESTIMATES = {
    "beliefs of some": (
        SWITCHING, ("stay", "high"), lambda rest: filter_beliefs(rest, "k", "k", 2)
    ),
    "a filter": (LEVEL, ("move", "noise"), lambda rest: filter_series(rest, "z", 1)),
    "importance": (LEVEL, ("move", "noise"), lambda rest: importance(rest, 1)),
}  # fmt: skip
GRADIENTS = {
    "nuts": nuts,
    "hmc": lambda target: hmc(target, steps=3),
    "slices": slice_sample,
}


@pytest.mark.parametrize("target, names, using", ESTIMATES.values(), ids=ESTIMATES)
@pytest.mark.parametrize("make", GRADIENTS.values(), ids=GRADIENTS)
def test_an_estimated_marginal_names_its_draw_and_the_kernels_to_use(make, target, names, using):
    kept = marginal(target, select(*names), using)
    found = estimating_draw(kept)
    assert found is not None
    with pytest.raises(InvalidArgument, match="only estimated") as caught:
        make(kept)
    message = str(caught.value)
    assert found.place in message and "test_exact_marginals.py" in message
    assert "mh" in message and "seed" not in message and len(message.splitlines()) <= 12
    for kernel in (mh(kept, names[0]), random_walk(kept)):  # as it says
        assert kernel.step is not None
    wide = auxiliary_marginal(target, select(*names), lambda rest: importance(rest, 1))
    assert correlated(wide, names[0]).name == "correlated"


def test_one_particle_is_never_resampled():
    """Then nothing is drawn, and a scheme that is none is still refused."""
    one = Weighted(jnp.array([3.0]), jnp.array([-2.0]))
    for step in (resample, when_ess_below(1.0), lambda s: resample(s, multinomial)):
        after = step(one)
        assert after.value.tolist() == [3.0] and after.log_weight.tolist() == [-2.0]
    with pytest.raises(InvalidArgument, match="resampling scheme"):
        resample(one, lambda weights: weights)
