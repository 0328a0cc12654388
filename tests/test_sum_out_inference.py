"""Summed models in inference: filters, kernels, bounds, missing data, contracts of models.

Tolerances as in `test_sum_out_laws`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from summed_models import FINITE, GIVEN, MODELS, MOVE, YS, family, same, steps, value_and_slopes

from inference import (
    beliefs,
    elbo,
    filter_beliefs,
    gibbs,
    importance,
    log_evidence,
    most_likely,
    multinomial,
    nuts,
    particle_filter,
    rao_blackwell,
    restore,
    sample_posterior,
    sum_out,
    unit,
)
from ppl import (
    Masked,
    Target,
    gen,
    integrate,
    paths,
    sample,
    seed,
    select,
)
from semantics import check_generative_function, check_kernel, check_proper
from semantics.compiling import QUICK

EXACT, LAW = 1e-10, 1e-12


EXACT, LAW = 1e-10, 1e-12
# -- the contracts of models ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", FINITE)
def test_the_laws_of_generative_functions(name):
    model, summed = FINITE[name]
    for verdict in check_generative_function(sum_out(model, summed), 0.6):
        assert verdict.passed, verdict


def test_generate_is_proper():
    """With some choices observed, by importance sampling of one and of two."""
    target = Target(sum_out(family, select("a", "b")), (0.6,), {"d": 1})
    assert check_proper(lambda t: importance(t, 2), target).passed


def test_masked_elements_are_left_out():
    """The density of the rest, and what is drawn for them has its law."""
    quiet = sum_out(steps, "z")
    whole = lambda first: jnp.exp(quiet.assess({"y": jnp.array([first, 1]), "end": 2}, 0.6)[0])  # noqa: E731
    seen = {"y": Masked(jnp.array([0, 1]), jnp.array([False, True])), "end": 2}
    found, weights = paths(lambda: quiet.generate(seen, 0.6))()
    trace, log_weight = found
    total = whole(0) + whole(1)
    masses = [jnp.sum(jnp.exp(log_weight) * weights * (trace["y"][:, 0] == v)) for v in (0, 1)]
    np.testing.assert_allclose(masses, [whole(0), whole(1)], rtol=0, atol=LAW)
    assert abs(sum(masses) - total) < LAW


@pytest.mark.slow
def test_missing_elements_are_the_model_without_them():
    """`missing=` by enumeration: rows and elements that are not known have no density."""
    missing = {"w": jnp.array([True, False, False]), "x": jnp.array([False, True, False])}
    for name in ("arrays", "copies"):
        quiet = sum_out(MODELS[name], select("k", "z"), missing=missing)
        given = GIVEN[name]
        found = value_and_slopes(quiet, given)[0]
        p = lambda k: jnp.array([0.2, 0.5, 0.7]) * (1 + k) / (3 if name == "arrays" else 2)  # noqa: E731, B023
        prior = MOVE[0] if name == "arrays" else jnp.array([0.6, 0.4])
        total = 0.0
        for k in range(len(prior)):
            each = 1.0
            for z in (0, 1):
                x = jnp.where(missing["x"], 1.0, jnp.exp(dist.Normal(1.2 * z, 1.0).log_prob(YS)))
                rate = (0.2 + 0.5 * z) / ((1 + k) if name == "arrays" else 1)
                w = jnp.where(given["w"] == 1, rate, 1 - rate)
                w = jnp.where(missing["w"], 1.0, w)
                each = each + (p(k) if z else 1 - p(k)) * x * w - (1.0 if z == 0 else 0.0)
            scored = jnp.exp(0.2 * k) if name == "arrays" else 1.0
            total = total + prior[k] * scored * jnp.prod(each)
        assert abs(found - jnp.log(total)) < EXACT


# -- as a part of inference ------------------------------------------------------------------------


@gen
def hidden(stay):
    def step(z, _):
        z = sample("z", dist.Bernoulli(jnp.where(z == 1, stay, 1 - stay)))
        sample("y", dist.Normal(2.0 * z, 1.0))
        return z, None

    lax.scan(step, 0, None, length=3)


def test_evidence_is_that_of_filters_over_beliefs():
    """One particle over `rao_blackwell`, `filter_beliefs`, and a filter of a summed step."""
    expected = sum_out(hidden, "z").assess({"y": YS}, 0.7)[0]
    target = Target(hidden, (0.7,), {"y": YS})
    run = filter_beliefs(target, "z", "z", 1)
    found = seed(lambda: log_evidence(run(unit())))(jax.random.key(0))
    assert abs(found - expected) < EXACT

    @gen
    def step(z, _):
        z = sample("z", dist.Bernoulli(jnp.where(z == 1, 0.7, 0.3)))
        sample("y", dist.Normal(2.0 * z, 1.0))
        return z, None

    belief_step, start = rao_blackwell(step, "z", 0)
    filtered = seed(lambda: particle_filter(belief_step, start, {"y": YS}, 1).particles)
    assert abs(log_evidence(filtered(jax.random.key(1))) - expected) < EXACT


def test_a_summed_step_in_a_filter_is_unbiased():
    """E[evidence] of two particles, over all paths, is the sum over all states."""

    @gen
    def step(z, _):
        u = sample("u", dist.Bernoulli(0.3))
        z = sample("z", dist.Bernoulli(jnp.where(z == 1, 0.7, 0.3)))
        sample("y", dist.Bernoulli(0.1 + 0.4 * z + 0.4 * u))
        return z, None

    ys = {"y": jnp.array([1, 0])}
    quiet = sum_out(step, "u")

    def evidence():
        run = particle_filter(quiet, 0, ys, 2, scheme=multinomial)
        return jnp.exp(log_evidence(run.particles))

    found = integrate(evidence)()
    y = 0.3 * jnp.array([0.5, 0.9]) + 0.7 * jnp.array([0.1, 0.5])
    move = jnp.array([[0.7, 0.3], [0.3, 0.7]])
    expected = ((jnp.array([1.0, 0.0]) @ move * y) @ move * (1 - y)).sum()
    assert abs(found - expected) < LAW


@pytest.mark.slow
def test_kernels_keep_the_summed_posterior():
    target = Target(sum_out(family, "b"), (0.6,), {"d": 1})
    assert check_kernel(lambda t: gibbs(t, "a"), target).passed


@gen
def mixture():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    z = sample("z", dist.Categorical(MOVE[1]).expand([3]))
    sample("y", dist.Normal(mu * z, 0.5))


def posterior_mean():
    """By the trapezoid rule in steps of 0.01, for a smooth density that vanishes at both ends."""
    mu = jnp.arange(-8.0, 8.0, 0.01)
    each = dist.Normal(mu[:, None, None] * jnp.arange(3.0), 0.5).log_prob(YS[:, None])
    logs = jax.nn.logsumexp(each + jnp.log(MOVE[1]), -1).sum(-1)
    logs = logs + dist.Normal(0.0, 1.0).log_prob(mu)
    weights = jnp.exp(logs - logs.max())
    mean = jnp.sum(weights * mu) / weights.sum()
    return mean, jnp.log(weights.sum() * 0.01) + logs.max(), mu, logs


@pytest.mark.slow
def test_a_bound_on_the_evidence_is_that_by_quadrature():
    """E[log p - log q] for a normal guide: the mean of the estimator, by 60 Gauss nodes.

    The integrand is log of a mixture of Gaussians: with 60 nodes the difference from the
    trapezoid rule is below 1e-6, as that of 40 and 60 nodes shows.
    """
    guide = gen(lambda: sample("mu", dist.Normal(0.3, 0.2)))
    target = Target(sum_out(mixture, "z"), (), {"y": YS})
    objective = elbo(target, guide)
    found = integrate(lambda: objective(), nodes=60)()
    _, _, mu, logs = posterior_mean()
    q = dist.Normal(0.3, 0.2).log_prob(mu)
    expected = jnp.sum(jnp.exp(q) * (logs - q)) * 0.01
    assert abs(found - expected) < 1e-6


@pytest.mark.slow
def test_nuts_on_a_summed_model():
    """The mean of mu within seven standard errors of batches of 100: false alarm below 1e-9."""
    target = Target(sum_out(mixture, "z"), (), {"y": YS})
    draws = sample_posterior(jax.random.key(0), target, nuts(target), draws=2000, progress=False)
    mu = np.asarray(draws["mu"]).reshape(-1, 100).mean(-1)
    error = mu.std(ddof=1) / np.sqrt(len(mu))
    assert abs(mu.mean() - posterior_mean()[0]) < 7 * error


@pytest.mark.slow
def test_beliefs_modes_and_draws_map_over_traces():
    """Under `vmap` of traces they are those of each trace."""
    quiet = sum_out(hidden, "z")
    rows = jnp.stack([YS, -YS])
    traces = jax.vmap(lambda y: quiet.generate({"y": y}, 0.7)[0])(rows)
    keys = jax.random.split(jax.random.key(0), 2)
    run = lambda t, k: (  # noqa: E731
        beliefs(quiet, t)["z"].probs,
        most_likely(quiet, t)["z"],
        seed(restore)(k, quiet, t)["z"],
    )
    together = jax.jit(jax.vmap(run), compiler_options=QUICK)(traces, keys)
    for i in range(2):
        one = run(jax.tree.map(lambda leaf: leaf[i], traces), keys[i])  # noqa: B023
        same(jax.tree.map(lambda leaf: leaf[i], together), one, LAW)  # noqa: B023
