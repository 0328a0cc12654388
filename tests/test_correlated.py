"""Estimates whose randomness is kept and moved a little: exact on finite programs of uniforms.

A program that draws finitely many values by inversion, with probabilities that are multiples
of 1/4, is constant between the quartiles of each uniform: then the rule of midpoints with four
nodes is exact, and with it the law of the kernel on (latents, normals).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from inference import (
    Move,
    auxiliary_marginal,
    correlated,
    cycle,
    filter_series,
    importance,
    lift,
    marginal,
    mh,
    multinomial,
    particle_filter,
    sample_posterior,
    start,
    stratified,
    then,
    unit,
)
from inference.estimated.correlated import autoregressive
from ppl import Target, draw, gen, integrate, sample, seed, select
from ppl.errors import AddressNotFound, CannotIntegrate, InvalidArgument, ShapeError
from ppl.normals import normals_of, on_normals
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a few million products of probabilities in float64
QUARTERS = {"nodes": 4, "rule": "midpoint"}
MOVES = jnp.array([[[0.75, 0.25], [0.5, 0.5]], [[0.25, 0.75], [0.75, 0.25]]])
EMITS = jnp.array([0.75, 0.25])  # weights 3 : 1, so that normalised ones are quarters, too


@gen
def model():
    theta = sample("theta", dist.Bernoulli(0.4))

    def step(k, _):
        k = sample("k", dist.Categorical(MOVES[theta, k]))
        sample("y", dist.Bernoulli(EMITS[k]))
        return k, None

    lax.scan(step, 0, None, length=2)


SEEN = jnp.array([1, 0])
TARGET = Target(model, (), {"y": SEEN})


def evidence(theta):
    """p(theta, y), by the forward algorithm."""
    alpha = np.array([1.0, 0.0])
    for y in np.asarray(SEEN):
        alpha = alpha @ np.asarray(MOVES[theta]) * (EMITS if y else 1 - EMITS)
    return [0.6, 0.4][theta] * alpha.sum()


POSTERIOR = np.array([evidence(theta) for theta in (0, 1)])


def by_filter(rest):
    return filter_series(
        rest, "k", 2, scheme=multinomial, threshold=1.0, order=lambda carry: -carry[0]
    )


def by_importance(rest):
    return importance(rest, 2)


def some_anew(u):
    """The first and last redrawn: reversible for the law of normals, and for that of the nodes."""
    first, last = draw(dist.Normal(0.0, 1.0).expand([2]))
    return u.at[0].set(first).at[-1].set(last)


def all_anew(u):
    return draw(dist.Normal(0.0, 1.0).expand(u.shape))


swap = Move(
    gen(lambda x: sample("to", dist.Bernoulli(jnp.where(x["theta"] == 1, 0.3, 0.8)))),
    lambda x, u: ({"theta": u["to"]}, {"to": x["theta"]}),
)
near = gen(lambda x: sample("theta", dist.Bernoulli(jnp.where(x["theta"] == 1, 0.3, 0.8))))
CASES = {
    "filter, redrawn": (by_filter, "theta", some_anew),
    "importance, redrawn": (by_importance, "theta", all_anew),
    "importance, proposed": (by_importance, near, some_anew),
    "importance, moved": (by_importance, swap, some_anew),
    "importance, normals alone": (by_importance, select(), all_anew),
}


def measure(step):
    """<<step(unit)>> of the latent, the estimate, and numbers that see all normals and pairs."""

    def run():
        s = step(unit())
        u, score = s.value.retval, s.value.score
        bent = jnp.sin(u + 1).sum()
        of = jnp.stack([1.0, jnp.exp(score), bent, bent**2, jnp.exp(score) * bent])
        return jnp.exp(s.log_weight) * (s.value["theta"] == jnp.arange(2))[:, None] * of

    return jax.jit(integrate(run, **QUARTERS), compiler_options=QUICK)()


@pytest.mark.slow
@pytest.mark.parametrize("using, how, refresh", CASES.values(), ids=CASES)
def test_the_measure_of_latents_and_normals_is_kept(using, how, refresh):
    kept = auxiliary_marginal(TARGET, "theta", using)
    before = measure(start(kept))
    np.testing.assert_allclose(before[:, 0], POSTERIOR, rtol=0, atol=EXACT)
    after = measure(then(start(kept), lift(correlated(kept, how, refresh))))
    np.testing.assert_allclose(after, before, rtol=0, atol=EXACT)


def biased(u):
    return draw(dist.Normal(0.0, 1.0).expand(u.shape)) + 0.1 * u + 1.0


def test_normals_that_are_moved_irreversibly_are_seen():
    kept = auxiliary_marginal(TARGET, "theta", by_importance)
    before = measure(start(kept))
    after = measure(then(start(kept), lift(correlated(kept, "theta", biased))))
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.slow
def test_without_correlation_it_is_pseudo_marginal():
    """The joint law of latent and estimate after a step is that of `mh` on `marginal`, which is
    enumerated without normals; and `mh` on the auxiliary marginal is that, too."""

    def law(target, kernel, **how):
        def run():
            s = then(start(target), lift(kernel))(unit())
            powers = jnp.exp(s.value.score * jnp.arange(4))
            return jnp.exp(s.log_weight) * (s.value["theta"] == jnp.arange(2))[:, None] * powers

        return jax.jit(integrate(run, **how), compiler_options=QUICK)()

    plain = marginal(TARGET, "theta", by_importance)
    expected = law(plain, mh(plain, "theta"))
    kept = auxiliary_marginal(TARGET, "theta", by_importance)
    for kernel in (correlated(kept, "theta", 0.0), mh(kept, "theta")):
        np.testing.assert_allclose(law(kept, kernel, **QUARTERS), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("r", [-0.5, 0.0, 0.7, 1.0])
def test_the_autoregressive_move_is_reversible(r):
    """E[u^a u'^b] = E[u^b u'^a] for a, b up to 4, which Gauss's rule of six nodes has exactly.

    Within rounding of sums of size at most 200.
    """

    def moments():
        u = draw(dist.Normal(jnp.zeros(1), 1.0))
        new = autoregressive(r)(u)
        powers = jnp.arange(5)
        return (u**powers)[:, None] * (new**powers)[None]

    found = jax.jit(integrate(moments, nodes=6))()
    np.testing.assert_allclose(found, found.T, rtol=0, atol=200 * EXACT)
    assert abs(found[1, 1] - r) < EXACT


# -- draws as functions of normals -----------------------------------------------------------------

LAWS = {
    "normal": (dist.Normal(1.0, 2.0), stats.norm(1, 2)),
    "uniform": (dist.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "exponential": (dist.Exponential(2.0), stats.expon(scale=0.5)),
    "log normal": (dist.LogNormal(0.3, 0.7), stats.lognorm(0.7, scale=np.exp(0.3))),
    "gumbel": (dist.Gumbel(1.0, 2.0), stats.gumbel_r(1, 2)),
    "logistic": (dist.Logistic(1.0, 2.0), stats.logistic(1, 2)),
    "bernoulli": (dist.Bernoulli(0.3), None),
    "categorical": (dist.Categorical(jnp.array([0.2, 0.3, 0.5])), stats.rv_discrete(values=([0, 1, 2], [0.2, 0.3, 0.5]))),  # noqa: E501
    "binomial": (dist.Binomial(4, 0.3), stats.binom(4, 0.3)),
    "uniform numbers": (dist.DiscreteUniform(2, 5), stats.randint(2, 6)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("d, oracle", LAWS.values(), ids=LAWS)
def test_draws_are_their_quantiles(d, oracle):
    """Against scipy's, at normals with tails of 1e-6; a coin has one at the upper end."""
    z = np.linspace(-4.7, 4.7, 50)
    found = jax.vmap(on_normals(lambda: draw(d)))(jnp.asarray(z)[:, None])
    u = stats.norm.cdf(z)
    expected = (u < 0.3).astype(int) if oracle is None else oracle.ppf(u)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_loops_branches_and_batches_have_normals_of_their_own():
    """Mean and covariance of all draws of a program with every construct, by Gauss's rule."""

    def program(flag):
        cov = jnp.array([[1.0, 0.5], [0.5, 2.0]])
        first = draw(dist.MultivariateNormal(jnp.ones(2), cov))
        each = jax.vmap(lambda m: draw(dist.Normal(m, 1.0)))(jnp.arange(2.0))
        _, steps = lax.scan(lambda c, _: (c, draw(dist.Normal(5.0, 2.0))), 0, None, length=2)
        taken = lax.cond(flag, lambda: draw(dist.Normal(7.0, 1.0)), lambda: draw(dist.Delta(3.0)))
        return jnp.concatenate([first, each, steps, taken[None]])

    assert normals_of(program, True) == 8

    def moments(flag):
        x = on_normals(program)(draw(dist.Normal(0.0, 1.0).expand([8])), flag)
        return x, x[:, None] * x

    for flag in (True, False):
        mean, second = jax.jit(integrate(moments, nodes=2))(flag)
        np.testing.assert_allclose(mean, [1, 1, 0, 1, 5, 5, 7 if flag else 3], atol=EXACT)
        variances = np.diag([1.0, 2.0, 1.0, 1.0, 4.0, 4.0, float(flag)])
        variances[0, 1] = variances[1, 0] = 0.5
        np.testing.assert_allclose(second - np.outer(mean, mean), variances, atol=100 * EXACT)


# -- order, and what it is for ---------------------------------------------------------------------


def test_sorted_particles_have_the_same_measure():
    """Every order of the states, with stratified resampling, which the order matters for."""

    @gen
    def hidden(k, _):
        k = sample("k", dist.Categorical(MOVES[1, k]))
        sample("y", dist.Bernoulli(EMITS[k]))
        return k, None

    def mass(order):
        s = particle_filter(
            hidden, 0, {"y": SEEN}, 2, scheme=stratified, threshold=0.9, order=order
        ).particles
        return (jnp.exp(s.log_weight)[:, None] * (s.value[:, None] == jnp.arange(2))).mean(0)

    alpha = np.array([1.0, 0.0])
    for y in np.asarray(SEEN):
        alpha = alpha @ np.asarray(MOVES[1]) * (EMITS if y else 1 - EMITS)
    for order in (None, lambda k: k, lambda k: -k):
        found = jax.jit(integrate(partial(mass, order), **QUARTERS), compiler_options=QUICK)()
        np.testing.assert_allclose(found, alpha, rtol=0, atol=EXACT)


@pytest.mark.slow
def test_correlated_estimates_are_accepted_more_often():
    """At the same number of particles, from runs with fixed keys of 16 independent chains each.

    The means differ by at least five of their standard errors.
    """

    @gen
    def walk():
        scale = sample("scale", dist.HalfNormal(1.0))

        def step(z, _):
            z = sample("z", dist.Normal(0.9 * z, scale))
            sample("y", dist.Normal(z, 0.5))
            return z, None

        lax.scan(step, 0.0, None, length=25)

    ys = np.random.default_rng(0).normal(size=25).cumsum() / 2
    kept = auxiliary_marginal(
        Target(walk, (), {"y": jnp.asarray(ys)}),
        "scale",
        lambda rest: filter_series(rest, "z", 10, threshold=1.0, order=lambda carry: carry[0]),
    )
    near = gen(lambda x: sample("scale", dist.LogNormal(jnp.log(x["scale"]), 0.1)))

    def rates(r):
        draws = sample_posterior(
            jax.random.key(0), kept, correlated(kept, near, r), chains=16, draws=100, warmup=20,
            initial={"scale": 0.5}, progress=False,
        )  # fmt: skip
        return draws.stats["accept"].mean(1)

    plain, close = rates(0.0), rates(0.99)
    error = np.hypot(plain.std(ddof=1), close.std(ddof=1)) / 4
    assert close.mean() - plain.mean() > 5 * error


@pytest.mark.slow
def test_runs_in_cycles_resume_to_the_same_draws(tmp_path):
    kept = by_one()
    kernel = cycle(correlated(kept, "theta", 0.9), correlated(kept, select(), -0.9))
    run = partial(
        sample_posterior, jax.random.key(0), kept, kernel, chains=2, warmup=3, progress=False,
        checkpoint=tmp_path,
    )  # fmt: skip
    first, again = run(draws=20), run(draws=20)
    assert first["theta"].shape == (2, 20) and (first["theta"] == again["theta"]).all()


# -- what cannot be --------------------------------------------------------------------------------


def waiting(rest):
    """An estimate that draws until it is lucky."""

    def step(s):
        lax.while_loop(lambda k: draw(dist.Bernoulli(0.5)) == k, lambda k: k, 1)
        return importance(rest, 1)(s)

    return step


@gen
def skewed():
    theta = sample("theta", dist.Bernoulli(0.4))
    z = sample("z", dist.Gamma(1.0 + theta, 1.0))
    sample("y", dist.Normal(z, 1.0))


SKEWED = Target(skewed, (), {"y": 1.0})


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda: auxiliary_marginal(TARGET, "theta", waiting), CannotIntegrate, "unknown length"),
        (lambda: auxiliary_marginal(SKEWED, "theta", by_importance), CannotIntegrate, "Gamma"),
        (lambda: auxiliary_marginal(TARGET, "k", by_importance), InvalidArgument, "depend on"),
        (lambda: correlated(TARGET, "theta"), InvalidArgument, "do not keep the randomness"),
        (
            lambda: correlated(by_one(), "theta", 1.5),
            InvalidArgument,
            "correlation is not a number",
        ),
        (lambda: correlated(by_one(), "k"), AddressNotFound, '"k"'),
        (lambda: correlated(by_one(), gen(lambda x: None)), InvalidArgument, "makes no choice"),
        (
            lambda: particle_filter(
                gen(lambda z, _: (sample("y", dist.Normal(z, 1.0)), None)),
                jnp.zeros(2)[0], {"y": jnp.zeros(2)}, 2, order=lambda z: jnp.ones(2),
            ),
            ShapeError,
            "is no number",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, error, says):
    with pytest.raises(error, match=says) as found:
        seed(call)(jax.random.key(0))
    assert "test_correlated.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12


def by_one():
    return auxiliary_marginal(TARGET, "theta", by_importance)
