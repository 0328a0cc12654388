"""Gaussian processes on a line drawn in a model, summed out: as dense linear algebra has it.

What reads them value by value is summed in O(n), and what reads them otherwise by matrices; the
oracle is that of `test_sum_out_gaussian`, which knows of neither.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from numpy.testing import assert_allclose
from test_sum_out_gaussian import EXACT, dense, flat_of

from inference import beliefs, gaussian, most_likely, restore, sum_out
from inference.gaussian import Matern12, Matern32, gp
from ppl import Target, gen, sample, seed, select
from ppl.addresses import flatten, nest
from ppl.errors import InvalidArgument

TIMES = jnp.array([0.4, 0.0, 1.1, 2.5, 1.9])
INDEX = jnp.array([0, 1, 1, 4, 2, 0, 3])
T = 0.8


@gen
def read(t):
    """Again and again, scaled and moved, one by itself, in any order."""
    f = sample("f", gp(Matern32(t, 1.3), TIMES, mean=0.3))
    sample("y", dist.Normal(2.0 * f[INDEX] + 1.0, 0.4))
    sample("one", dist.Normal(-f[2] / t, t))
    sample("all", dist.Normal(f.reshape(5, 1), 0.5 + t * jnp.arange(5.0)[:, None]))


@gen
def sometimes(t):
    """Rows of which some read nothing, of a concatenation, by slices and by a mask."""
    f = sample("f", gp(Matern12(1.0, t), TIMES))
    rows = jnp.concatenate([f[1:4], jnp.array([0.5]), f[:1][::-1]])
    sample("y", dist.Normal(jnp.where(jnp.array([1, 0, 1, 1, 1], bool), rows, t), 0.4))


@gen
def copies(t):
    """The plate over what is seen, and a model in a model."""
    f = sample("f", gp(Matern32(1.0), TIMES, mean=lambda x: t * x))

    @gen
    def inner(f):
        sample("y", dist.Normal(f[::2], 0.3))

    def one(value, scale):
        sample("x", dist.Normal(value * t, scale))

    jax.vmap(one)(f, t * jnp.arange(1.0, 6.0))
    sample("inner", inner(f))


@gen
def matrices(t):
    """Sums of values, after others were read one by one; and a loop over places."""
    f = sample("f", gp(Matern32(t), TIMES))
    sample("y", dist.Normal(f[INDEX], 0.4))
    sample("sum", dist.Normal(jnp.sum(f) * t, 0.2))
    sample("again", dist.Normal(f[:2], 0.7))

    def step(total, i):
        sample("z", dist.Normal(f[i] + 0.5 * total, 0.6))
        return f[i], None

    lax.scan(step, 0.0, jnp.arange(3))


@gen
def mixed(t):
    """A level that is summed out, two processes in one mean, and one as data."""
    level = sample("level", dist.Normal(0.0, 1.0))
    f = sample("f", gp(Matern32(t), TIMES, mean=level))
    g = sample("g", gp(Matern12(2.0), TIMES))
    h = sample("h", gp(Matern12(t), TIMES[:2]))
    sample("y", dist.Normal(f + g, 0.4))
    sample("w", dist.Normal(h, 0.4))
    sample("data", gp(Matern12(1.0), TIMES, mean=level * t, noise=0.1))
    sample("end", dist.Normal(f[0], t))


@gen
def apart(t):
    """One process in each copy, and one in a branch."""

    def group(x):
        f = sample("f", gp(Matern32(t), TIMES[:3], mean=x))
        sample("y", dist.Normal(f[jnp.array([0, 2, 2])], 0.4))

    jax.vmap(group)(jnp.array([0.0, 1.0]))

    def branch():
        g = sample("g", gp(Matern12(t), TIMES[:2]))
        sample("z", dist.Normal(g, 0.3))
        return g[0]

    last = lax.cond(t > 0, branch, lambda: jnp.zeros(()))
    sample("end", dist.Normal(last, 1.0))


MODELS = {
    "read": (read, select("f")),
    "sometimes": (sometimes, select("f")),
    "copies": (copies, select("f")),
    "matrices": (matrices, select("f")),
    "mixed": (mixed, select("level", "f", "g", "h")),
    "apart": (apart, select("f", "g")),
}


def given_of(model, chosen):
    random = np.random.default_rng(3)
    sites = model.sites(T)
    return nest({path: jnp.asarray(random.normal(size=site.shape))
                 for path, site in sites.items() if not chosen(path)})  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_as_dense_algebra(name):
    """Density and derivative, means and variances, the likeliest values."""
    model, chosen = MODELS[name]
    given = given_of(model, chosen)
    quiet = sum_out(model, chosen)

    @jax.jit
    def found(t):
        trace, _ = quiet.generate(given, t)
        laws = flatten(beliefs(quiet, trace))
        moments = [nest({p: getattr(law, of) for p, law in laws.items()})
                   for of in ("mean", "variance")]  # fmt: skip
        density = lambda t: quiet.assess(given, t)[0]  # noqa: E731
        return jax.value_and_grad(density)(t), moments, most_likely(quiet, trace).choices

    def exact(t):
        return dense(model, chosen, given, t)

    value, slope = jax.jit(jax.value_and_grad(lambda t: exact(t)[0]))(T)
    _, mode, covariance = jax.jit(exact)(T)
    (score, by_t), (mean, variance), likeliest = found(T)
    assert_allclose(score, value, rtol=EXACT)
    assert_allclose(by_t, slope, rtol=1e-9)
    assert_allclose(flat_of(mean, model, chosen, T), mode, atol=EXACT)
    assert_allclose(flat_of(variance, model, chosen, T), jnp.diag(covariance), rtol=1e-9)
    assert_allclose(flat_of(likeliest, model, chosen, T), mode, atol=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["read", "matrices", "mixed"])
def test_restored_values_are_a_joint_draw(name):
    """Whitened by the exact law: with the bounds of `test_sum_out_gaussian`."""
    model, chosen = MODELS[name]
    given = given_of(model, chosen)
    quiet = sum_out(model, chosen)
    trace, _ = jax.jit(quiet.generate)(given, T)
    _, mode, covariance = jax.jit(lambda: dense(model, chosen, given, T))()

    def one(key):
        return flat_of(seed(restore)(key, quiet, trace).choices, model, chosen, T)

    n = 4000
    draws = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), n))
    white = np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(draws) - mode).T)
    assert np.all(np.abs(white.mean(1)) < 7 / n**0.5)
    off = np.abs(white @ white.T / n - np.eye(len(white)))
    assert np.all(off < 8 * (1 + (2**0.5 - 1) * np.eye(len(white))) / n**0.5)


@pytest.mark.slow
def test_what_is_seen_is_simulated_jointly():
    """What is drawn first is known to what is drawn next: whitened by the prior law of both."""
    quiet, n = sum_out(read, "f"), 4000

    def one(key):
        choices = seed(quiet.simulate)(key, T).choices
        return jnp.concatenate([choices["y"], choices["one"][None], choices["all"][:, 0]])

    draws = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), n)))
    k = Matern32(T, 1.3).covariance(TIMES[:, None], TIMES)
    by = jnp.concatenate([2 * jnp.eye(5)[INDEX], -jnp.eye(5)[2:3] / T, jnp.eye(5)])
    noise = jnp.concatenate([jnp.full(7, 0.4), jnp.array([T]), 0.5 + T * jnp.arange(5.0)])
    mean = by @ jnp.full(5, 0.3) + jnp.concatenate([jnp.ones(7), jnp.zeros(6)])
    covariance = by @ k @ by.T + jnp.diag(noise**2)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - np.asarray(mean)).T)
    assert np.all(np.abs(white.mean(1)) < 7 / n**0.5)
    off = np.abs(white @ white.T / n - np.eye(len(white)))
    assert np.all(off < 8 * (1 + (2**0.5 - 1) * np.eye(len(white))) / n**0.5)


def test_as_the_process_with_its_noise():
    """At 20,000 times, of which some repeat and some are not there: `gp(..., noise=)`."""
    random = np.random.default_rng(0)
    times = jnp.asarray(np.round(random.uniform(0, 2000, 20_000), 1))
    ys, gone = jnp.asarray(random.normal(size=20_000)), jnp.asarray(random.random(20_000) < 0.2)

    @gen
    def model(scale, noise):
        f = sample("f", gp(Matern32(scale), times))
        sample("y", dist.Normal(f, noise))

    quiet = sum_out(model, "f", missing={"y": gone})

    @jax.jit
    def both(scale, noise):
        ours = lambda s, v: quiet.assess({"y": ys}, s, v)[0]  # noqa: E731
        process = lambda s, v: gp(Matern32(s), times, noise=v**2, present=~gone)  # noqa: E731
        theirs = lambda s, v: process(s, v).log_prob(ys)  # noqa: E731
        trace, _ = quiet.generate({"y": ys}, scale, noise)
        told = gaussian.predict(process(scale, noise), ys, times)
        law = beliefs(quiet, trace)["f"]
        found = jax.value_and_grad(ours, (0, 1))(scale, noise), law.mean, law.variance
        right = jax.value_and_grad(theirs, (0, 1))(scale, noise), told.mean, told.variance
        return found, right

    for one, other in zip(*map(jax.tree.leaves, both(1.4, 0.3)), strict=True):
        assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_times_and_places_may_be_of_numpy():
    times, index = np.asarray(TIMES), np.asarray(INDEX)

    @gen
    def model(t):
        f = sample("f", gp(Matern32(t), times))
        sample("y", dist.Normal(f[index], np.full(7, 0.4)))

    target = Target(sum_out(model, "f"), (T,), {"y": np.ones(7)})
    process = gp(Matern32(T), TIMES[INDEX], noise=0.16)
    assert_allclose(jax.jit(target.log_density)({}), process.log_prob(jnp.ones(7)), rtol=1e-12)


def test_what_takes_too_many_covariances_is_refused():
    times = jnp.arange(5000.0)

    @gen
    def model(t):
        f = sample("f", gp(Matern32(t), times))
        sample("y", dist.Normal(jnp.sum(f), 1.0))

    with pytest.raises(InvalidArgument, match="5000"):
        sum_out(model, "f").assess({"y": 0.0}, T)

    @gen
    def absent(t):
        f = sample("f", gp(Matern32(t), TIMES, present=jnp.ones(5, bool)))
        sample("y", dist.Normal(f, 1.0))

    with pytest.raises(InvalidArgument, match="present"):
        sum_out(absent, "f").assess({"y": jnp.zeros(5)}, T)

    @gen
    def curved(t):
        f = sample("f", gp(Matern32(t), TIMES))
        sample("y", dist.Normal(jnp.exp(f), 1.0))

    with pytest.raises(InvalidArgument, match="not affine"):
        sum_out(curved, "f").assess({"y": jnp.zeros(5)}, T)

    @gen
    def unknown(t):
        s = sample("s", dist.Normal(1.0, 0.1))
        f = sample("f", gp(Matern32(s), TIMES))
        sample("y", dist.Normal(f, 1.0))

    with pytest.raises(InvalidArgument, match="scale that depends"):
        sum_out(unknown, select("s", "f")).assess({"y": jnp.zeros(5)}, T)
