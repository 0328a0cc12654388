"""Exact sums inside other algorithms: NUTS with states drawn back, filters of regimes, SMC².

Each is compared with sums over all paths, and with quadrature over the parameters.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from inference import (
    annealed,
    filter_series,
    gaussian,
    log_evidence,
    mh,
    multinomial,
    nuts,
    particle_gibbs,
    random_walk,
    restore,
    sample_posterior,
    smc2,
    sum_out,
    unit,
)
from ppl import Target, gen, integrate, sample, seed, select
from ppl.errors import InvalidArgument
from semantics import check_kernel
from semantics.compiling import QUICK

EXACT = 1e-10
# Of the largest deviation of a mean, in its standard errors. With 320 batches Student's law gives
# 8 of them a probability of 2e-14, so that 3e-12 is left where batches are not quite normal.
FAR = 8.0


def rule(low, high, nodes=40):
    """Gauss and Legendre's nodes and weights."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return low + (high - low) * (x + 1) / 2, w * (high - low) / 2


def assert_mean(values, expected):
    """Rows of independent batches have this mean."""
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(0) - expected) < FAR * error + 1e-12)


# -- a hidden Markov model inside NUTS -----------------------------------------------------------

SEEN = np.array([0.2, 1.6, 1.4, -0.3])


@gen
def hidden():
    stay = sample("stay", dist.Beta(4.0, 2.0))
    level = sample("level", dist.Normal(1.0, 1.0))

    def step(z, _):
        z = sample("z", dist.Bernoulli(jnp.where(z == 1, stay, 1 - stay)))
        sample("y", dist.Normal(level * z, 1.5))
        return z, None

    lax.scan(step, 0, None, length=4)


def hidden_exactly():
    """E of (stay, level, each z, z of two steps together), on grids of both, over all paths."""
    (stay, by_stay), (level, by_level) = rule(0.0, 1.0), rule(-4.0, 6.0, 80)
    stay, level = stay[:, None], level[None]
    prior = stay**3 * (1 - stay) * np.exp(-((level - 1) ** 2) / 2)
    prior = prior * by_stay[:, None] * by_level
    total, sums = 0.0, 0.0
    for path in itertools.product((0, 1), repeat=4):
        z = np.array(path)
        changes = np.count_nonzero(np.diff((0, *path)))
        p = prior * stay ** (4 - changes) * (1 - stay) ** changes
        p = p * np.exp(-((SEEN - level[..., None] * z) ** 2).sum(-1) / (2 * 1.5**2))
        total += p.sum()
        kept = [p.sum() * each for each in (*z, *(z[1:] * z[:-1]))]
        sums = sums + np.array([(p * stay).sum(), (p * level).sum(), *kept])
    return sums / total


@pytest.mark.slow
def test_states_drawn_back_over_draws_of_nuts_have_the_joint_law():
    """Parameters, each state, and neighbours together: the draw of all states is a joint one."""
    quiet = sum_out(hidden, "z")
    target = Target(quiet, (), {"y": SEEN})
    draws = sample_posterior(
        jax.random.key(0), target, nuts(target), draws=2000, warmup=500, progress=False
    )

    @jax.jit
    @jax.vmap
    def back(key, latents):
        return seed(restore)(key, quiet, target.at(latents)[0])["z"]

    flat = {name: np.reshape(x, -1) for name, x in draws.choices.items()}
    z = np.asarray(back(jax.random.split(jax.random.key(1), 8000), flat))
    columns = [flat["stay"], flat["level"], *z.T, *(z[:, 1:] * z[:, :-1]).T]
    batches = np.stack(columns, -1).reshape(320, 25, -1).mean(1)
    assert_mean(batches, hidden_exactly())


# -- a linear system that switches ---------------------------------------------------------------

LINES = np.array([0.3, 1.1, -0.4, 0.8, 2.0])


@gen(static_argnames="length")
def switching(stay, length):
    """The regime decides how the state goes on, and how noisy that is."""

    def step(carry, _):
        k, x = carry
        k = sample("k", dist.Bernoulli(jnp.where(k == 1, stay, 1 - stay)))
        x = sample("x", dist.Normal(jnp.where(k == 1, -0.8, 0.9) * x, jnp.where(k == 1, 1.0, 0.3)))
        sample("y", dist.Normal(x, 0.5))
        return (k, x), None

    first = sample("first", dist.Normal(0.0, 1.0))
    lax.scan(step, (0, first), None, length=length)


def given_regimes(path):
    """log p(y | regimes): each observation is linear in the first state and the steps' noises."""
    by, rows, variances = np.ones(1), [], [1.0]
    for k in path:
        by = np.append(by * (-0.8 if k else 0.9), 1.0)
        rows.append(np.pad(by, (0, len(path) + 1 - len(by))))
        variances.append(1.0 if k else 0.3**2)
    covariance = np.array(rows) @ np.diag(variances) @ np.array(rows).T + 0.25 * np.eye(len(path))
    return dist.MultivariateNormal(0.0, covariance).log_prob(LINES[: len(path)])


def over_regimes(stay, length=5):
    """All paths of regimes, and p(y, path), for an array of `stay`."""
    paths = np.array(list(itertools.product((0, 1), repeat=length)))
    changes = np.count_nonzero(np.diff(paths, prepend=0), axis=1)
    given = [np.exp(float(given_regimes(path))) for path in paths]
    p = [stay ** (length - n) * (1 - stay) ** n * g for n, g in zip(changes, given, strict=True)]
    return paths, np.stack(p)


LINEAR = select("first", "x")


def test_the_regimes_have_the_law_of_the_model_without_its_states():
    """At each path; and their sum, by the mean over `generate`, is that over all paths."""
    quiet = sum_out(switching, LINEAR)
    paths, expected = over_regimes(0.7)
    score = lambda k: quiet.assess({"k": k, "y": LINES}, 0.7, 5)[0]  # noqa: E731
    found = jax.jit(jax.vmap(score), compiler_options=QUICK)(jnp.asarray(paths))
    np.testing.assert_allclose(found, np.log(expected), rtol=0, atol=EXACT)


def test_regimes_and_states_are_not_summed_out_together_along_a_loop():
    """Their law is a mixture of 2^t Gaussians after t steps."""
    both = sum_out(switching, select("first", "x", "k"))
    with pytest.raises(InvalidArgument, match="depends on more and more choices") as told:
        both.sites(0.7, 5)
    assert '"k" at ' in str(told.value)


def test_the_evidence_of_a_filter_of_regimes_is_unbiased_over_all_its_paths():
    """Two particles of regimes for two steps, with the states summed out by `sum_out`."""
    target = Target(sum_out(switching, LINEAR), (0.7, 2), {"y": LINES[:2]})
    run = filter_series(target, "k", 2, scheme=multinomial)
    found = integrate(lambda: jnp.exp(log_evidence(run(unit()))))()
    assert abs(found / over_regimes(0.7, 2)[1].sum() - 1) < EXACT


@pytest.mark.slow
def test_the_evidence_of_a_filter_of_regimes():
    """320 runs of 20 particles for five steps; weights of regimes alone are bounded."""
    target = Target(sum_out(switching, LINEAR), (0.7, 5), {"y": LINES})
    run = seed(lambda: log_evidence(filter_series(target, "k", 20)(unit())))
    logs = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(2), 320))
    assert_mean(np.exp(np.asarray(logs))[:, None], over_regimes(0.7)[1].sum())


@pytest.mark.slow
def test_particle_gibbs_keeps_the_law_of_regimes():
    target = Target(sum_out(switching, LINEAR), (0.7, 2), {"y": LINES[:2]})
    assert check_kernel(lambda t: particle_gibbs(t, "k", 2), target).passed


# -- parameters by SMC² --------------------------------------------------------------------------


@gen(static_argnames="length")
def unknown(length):
    stay = sample("stay", dist.Beta(4.0, 2.0))
    sample("series", switching(stay, length))


def of_stay(length):
    """The evidence and the mean of `stay`, by quadrature over it and sums over paths: exact,
    since polynomials of a degree below 80."""
    stay, w = rule(0.0, 1.0)
    p = w * 20 * stay**3 * (1 - stay) * over_regimes(stay, length)[1].sum(0)
    return p.sum(), (p * stay).sum() / p.sum()


LINEAR_INSIDE = select(("series", "first"), ("series", "x"))


@pytest.mark.slow
def test_smc2_over_regimes_with_the_states_summed_out():
    """Evidence, and the mean of the parameter times the evidence, of 320 runs."""
    quiet = sum_out(unknown, LINEAR_INSIDE)
    target = Target(quiet, (5,), {"series": {"y": LINES}})
    step = smc2(target, ("series", "k"), 16, 8, lambda t: mh(t, "stay"))

    def run():
        found = step(unit())
        weights = jnp.exp(found.log_weight) / 16
        return jnp.stack([weights.sum(), weights @ found.value["stay"]])

    found = jax.jit(jax.vmap(seed(run)))(jax.random.split(jax.random.key(3), 320))
    evidence, mean = of_stay(5)
    assert_mean(np.asarray(found), np.array([evidence, evidence * mean]))


# -- the hyperparameters of a process that is summed out -----------------------------------------

TIMES = jnp.array([0.0, 0.4, 1.5, 1.7, 3.0, 3.2])
VALUES = np.array([0.4, 0.7, -0.6, -0.9, 0.3, 0.5])


@gen
def smooth():
    scale = sample("scale", dist.LogNormal(0.0, 0.7))
    size = sample("size", dist.LogNormal(0.0, 0.5))
    f = sample("f", gaussian.gp(gaussian.Matern32(scale, size), TIMES))
    sample("y", dist.Normal(f, 0.1**0.5))


def of_scale():
    """Evidence, and the posterior mean of log scale, with dense matrices on a grid of logs."""
    (u, by_u), (v, by_v) = rule(-4.2, 4.2, 60), rule(-3.0, 3.0, 60)
    times = np.asarray(TIMES)
    apart = np.abs(times[:, None] - times) / np.exp(u)[:, None, None] * np.sqrt(3)
    shape = ((1 + apart) * np.exp(-apart))[:, None]
    covariance = np.exp(2 * v)[:, None, None] * shape + 0.1 * np.eye(len(times))
    squares = np.linalg.solve(covariance, VALUES[:, None])[..., 0] @ VALUES
    log_p = -(squares + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2
    prior = np.exp(-((u[:, None] / 0.7) ** 2) / 2 - (v / 0.5) ** 2 / 2) / (2 * np.pi * 0.35)
    p = prior * np.exp(log_p) * by_u[:, None] * by_v
    return float(p.sum()), float((p * u[:, None]).sum() / p.sum())


@pytest.mark.slow
def test_annealing_to_hyperparameters_with_the_process_summed_out():
    """Evidence, and the mean of the log scale times the evidence, of 320 runs."""
    target = Target(sum_out(smooth, "f"), (), {"y": VALUES})
    powers = jnp.array([0.0, 0.1, 0.4, 1.0])
    step = annealed(target, 32, lambda t: random_walk(t, step_size=0.5), powers)

    def run():
        found = step(unit())
        weights = jnp.exp(found.log_weight) / 32
        return jnp.stack([weights.sum(), weights @ jnp.log(found.value["scale"])])

    found = jax.jit(jax.vmap(seed(run)))(jax.random.split(jax.random.key(4), 320))
    evidence, mean = of_scale()
    assert_mean(np.asarray(found), np.array([evidence, evidence * mean]))
