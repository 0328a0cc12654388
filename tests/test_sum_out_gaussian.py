"""Gaussian choices summed out: exact densities, laws and draws, against dense linear algebra.

The oracle knows nothing of Kalman filters: the log density of a model is a quadratic function of
its Gaussian choices, so its integral, its mode and its covariance come from its gradient and its
Hessian. Dimensions are below 40 and conditions below 1e4, so that both sides are right to 1e-11.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from inference import (
    beliefs,
    filter_beliefs,
    log_evidence,
    most_likely,
    nuts,
    restore,
    sample_posterior,
    sum_out,
    unit,
)
from ppl import Target, gen, sample, seed, select
from ppl.addresses import flatten, nest
from ppl.errors import InvalidArgument

EXACT = 1e-10


def dense(model, chosen, given, *args):
    """The log of the integral over the chosen choices; their mode and covariance, flat."""
    sites = model.sites(*args)
    zeros = {path: jnp.zeros(site.shape) for path, site in sites.items() if chosen(path)}
    flat, unflat = ravel_pytree(zeros)

    def log_density(x):
        return model.assess(nest({**flatten(given), **unflat(x)}), *args)[0]

    precision = -jax.hessian(log_density)(flat)
    mode = jnp.linalg.solve(precision, jax.grad(log_density)(flat))
    spread = len(flat) * jnp.log(2 * jnp.pi) - jnp.linalg.slogdet(precision)[1]
    return log_density(mode) + spread / 2, mode, jnp.linalg.inv(precision)


def flat_of(choices, model, chosen, *args):
    paths = sorted(path for path in model.sites(*args) if chosen(path))
    return ravel_pytree({path: flatten(choices)[path] for path in paths})[0]


# -- models: each has one argument, and takes its place in densities -----------------------------


@gen
def straight(t):
    """Vectors, a covariance, data that later means are multiplied by."""
    a = sample("a", dist.Normal(t, 1.0))
    b = sample("b", dist.Normal(jnp.array([1.0, 2.0]) * a, 0.5))
    c = sample("c", dist.MultivariateNormal(b, jnp.array([[1.0, 0.3], [0.3, 0.5]]) * t))
    x = sample("x", dist.Normal(a + c[0], 0.7))
    sample("y", dist.Normal(c * x, t))
    sample("z", dist.MultivariateNormal(b, 0.3 * jnp.eye(2) + 0.1))


@gen
def moving(t):
    """A loop whose state is not reversible, with a choice from outside in each step."""
    drift = sample("drift", dist.Normal(0.0, 1.0))

    def step(state, gap):
        place, speed = state
        speed = sample("speed", dist.Normal(0.9 * speed + 0.1 * drift, t))
        place = place + speed * gap
        sample("y", dist.Normal(place + t, 0.3))
        sample("w", dist.Normal(jnp.stack([place, speed]), 0.4))
        return (place, speed), None

    first = sample("first", dist.Normal(0.0, 2.0))
    (place, speed), _ = lax.scan(step, (first, 0.0), jnp.array([0.1, 0.0, 0.7, 0.3]))
    sample("end", dist.Normal(place + speed + drift, 0.5))


@gen
def backwards(t):
    """A reversed loop, vectors of states, singular noise of the state."""

    def step(z, x):
        e = sample("e", dist.Normal(0.0, t))
        z = jnp.array([[0.5, 0.3], [-0.2, 0.8]]) @ z + jnp.array([1.0, 0.5]) * e
        sample("y", dist.Normal(z[0] + x, 0.5))
        return z, None

    z = sample("z", dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.4], [0.4, 2.0]])))
    lax.scan(step, z, jnp.arange(3.0), reverse=True)


@gen
def plates(t):
    """Copies that have a choice in common, and read those of other copies row by row."""
    g = sample("g", dist.Normal(0.0, 1.0))
    f = jax.vmap(lambda m: sample("f", dist.Normal(m * t, 1.0)))(jnp.arange(3.0))

    def one(x, f):
        u = sample("u", dist.Normal(g * x, 1.0))
        sample("y", dist.Normal(u + f, t))

    jax.vmap(one)(jnp.arange(3.0), f)
    sample("q", dist.Normal(2 * f, 1.0))


@gen
def panel(t):
    """A loop in each copy, and a branch."""

    def series(level):
        def step(z, _):
            z = sample("z", dist.Normal(0.8 * z + level, t))
            sample("y", dist.Normal(z, 0.5))
            return z, None

        return lax.scan(step, 0.0, None, length=3)[0]

    ends = jax.vmap(series)(jnp.array([0.1, -0.3]))
    total = lax.cond(t > 1, lambda: ends[0] - ends[1], lambda: 3.0 * ends[0])
    sample("q", dist.Normal(total, 1.0))


MODELS = {
    "straight": (straight, select("a", "b", "c")),
    "moving": (moving, select("drift", "first", "speed")),
    "backwards": (backwards, select("z", "e")),
    "plates": (plates, select("g", "f", "u")),
    "panel": (panel, select("z")),
}
NAMES = [pytest.param(n, marks=[] if n == "straight" else [pytest.mark.slow]) for n in MODELS]
T = 1.3


def given_of(model, chosen, *args):
    """Values of the other choices, far from their means."""
    random = np.random.default_rng(3)
    sites = model.sites(*args)
    return nest({p: jnp.asarray(random.normal(size=s.shape)) for p, s in sites.items()
                 if not chosen(p)})  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_density_and_its_derivative_are_those_of_the_integral(name):
    model, chosen = MODELS[name]
    quiet, given = sum_out(model, chosen), given_of(model, chosen, T)
    assert list(quiet.sites(T)) == [path for path in model.sites(T) if not chosen(path)]

    found = jax.jit(jax.value_and_grad(lambda t: quiet.assess(given, t)[0]))(T)
    right = jax.jit(jax.value_and_grad(lambda t: dense(model, chosen, given, t)[0]))(T)
    assert_allclose(found, right, rtol=EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_beliefs_and_the_likeliest_values(name):
    model, chosen = MODELS[name]
    quiet, given = sum_out(model, chosen), given_of(model, chosen, T)
    trace, _ = jax.jit(quiet.generate)(given, T)
    _, mode, covariance = jax.jit(lambda: dense(model, chosen, given, T))()
    likeliest = jax.jit(lambda trace: most_likely(quiet, trace))(trace)
    assert_allclose(flat_of(likeliest.choices, model, chosen, T), mode, atol=EXACT)
    laws = flatten(jax.jit(lambda trace: beliefs(quiet, trace))(trace))
    means = nest({path: law.mean for path, law in laws.items()})
    variances = nest({path: law.variance for path, law in laws.items()})
    assert_allclose(flat_of(means, model, chosen, T), mode, atol=EXACT)
    assert_allclose(flat_of(variances, model, chosen, T), jnp.diag(covariance), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_restored_values_are_a_joint_draw(name):
    """Whitened by the exact law, n draws have mean 0 and covariance 1.

    A mean of n standard normals is off by more than 7 / sqrt(n) with probability 3e-12, and a mean
    of products of two, whose tails are longer, by more than 8 / sqrt(n) (squares: 8 sqrt(2 / n))
    with less than that.
    """
    model, chosen = MODELS[name]
    quiet, given = sum_out(model, chosen), given_of(model, chosen, T)
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


def test_missing_elements_are_left_out():
    """As in the model without them, whatever their values are."""
    there = np.array([[True, True], [False, True], [True, False], [False, False]])
    seen = np.array([True, False, True, False])
    chosen = select("drift", "first", "speed")
    missing = {"y": jnp.asarray(~seen), "w": jnp.asarray(~there)}
    quiet, given = sum_out(moving, chosen, missing=missing), given_of(moving, chosen, T)

    @gen
    def without(t):
        drift = sample("drift", dist.Normal(0.0, 1.0))
        place, speed = sample("first", dist.Normal(0.0, 2.0)), 0.0
        for i, gap in enumerate([0.1, 0.0, 0.7, 0.3]):
            speed = sample(f"speed{i}", dist.Normal(0.9 * speed + 0.1 * drift, t))
            place = place + speed * gap
            if seen[i]:
                sample(f"y{i}", dist.Normal(place + t, 0.3))
            for j, value in enumerate((place, speed)):
                if there[i, j]:
                    sample(f"w{i}{j}", dist.Normal(value, 0.4))
        sample("end", dist.Normal(place + speed + drift, 0.5))

    others = {f"y{i}": given["y"][i] for i in range(4) if seen[i]}
    others |= {f"w{i}{j}": given["w"][i, j] for i in range(4) for j in range(2) if there[i, j]}
    others["end"] = given["end"]
    hidden = select("drift", "first", *(f"speed{i}" for i in range(4)))

    def found(t, filler):
        y = jnp.where(seen, given["y"], filler)
        w = jnp.where(there, given["w"], filler)
        return quiet.assess({"y": y, "w": w, "end": given["end"]}, t)[0]

    slope = jax.jit(jax.value_and_grad(found, (0, 1)))
    right = jax.jit(jax.value_and_grad(lambda t: dense(without, hidden, others, t)[0]))(T)
    for filler in (0.0, 1e6):
        value, (by_t, by_filler) = slope(T, filler)
        assert_allclose((value, by_t), right, rtol=EXACT)
        assert by_filler == 0


@pytest.mark.slow
def test_both_kinds_of_choices():
    """Gaussian choices that depend on a finite one: a mixture, of which draws restore both."""

    @gen
    def mixed(t):
        k = sample("k", dist.Bernoulli(0.3))
        a = sample("a", dist.Normal(2.0 * k, 1.0))
        b = sample("b", dist.Normal(a, 1.0 + k))
        sample("x", dist.Normal(a + b, t))
        sample("y", dist.Normal(b * (1 + k), 1.0))

    given, hidden = {"x": 0.3, "y": -0.2}, select("a", "b")
    each = [dense(mixed, hidden, {**given, "k": k}, T) for k in (0, 1)]
    right = jax.nn.logsumexp(jnp.stack([log for log, _, _ in each]))
    at_once, one_by_one = sum_out(mixed, hidden | select("k")), sum_out(sum_out(mixed, "k"), hidden)
    for quiet in (at_once, one_by_one):
        assert list(quiet.sites(T)) == [("x",), ("y",)]
        assert_allclose(quiet.assess(given, T)[0], right, rtol=EXACT)
    trace, _ = at_once.generate(given, T)
    restored = jax.jit(jax.vmap(lambda key: seed(restore)(key, at_once, trace).choices))
    n = 20_000
    draws = restored(jax.random.split(jax.random.key(1), n))
    chance = float(jnp.exp(each[1][0] - right))
    # off by more than 7 standard errors with probability 3e-12 each
    assert abs(np.mean(draws["k"]) - chance) < 7 * (chance * (1 - chance) / n) ** 0.5
    for k in (0, 1):
        mine = np.asarray(draws["b"])[np.asarray(draws["k"]) == k]
        _, mode, covariance = each[k]
        assert abs(mine.mean() - mode[1]) < 7 * (covariance[1, 1] / len(mine)) ** 0.5
    for f in (beliefs, most_likely):
        with pytest.raises(InvalidArgument, match="Gaussian"):
            f(at_once, trace)


@pytest.mark.slow
def test_a_summed_series_is_a_filter_with_one_particle():
    """By `filter_beliefs`, over the step that `rao_blackwell` makes of the same loop."""

    @gen
    def series():
        def step(z, _):
            z = sample("z", dist.Normal(0.8 * z, 1.0))
            sample("y", dist.Normal(z, 0.5))
            return z, None

        lax.scan(step, 0.0, None, length=5)

    given = {"y": jnp.array([0.3, -1.0, 2.0, 0.1, 0.4])}
    found, _ = sum_out(series, "z").assess(given)
    step = filter_beliefs(Target(series, (), given), "z", "z", 1)
    assert_allclose(found, seed(lambda: log_evidence(step(unit())))(jax.random.key(0)), rtol=EXACT)
    assert_allclose(found, dense(series, select("z"), given)[0], rtol=EXACT)


@pytest.mark.slow
def test_in_a_posterior():
    """NUTS over a scale, its states summed out: the mean is that of quadrature."""

    @gen
    def walk(n):
        scale = sample("scale", dist.LogNormal(0.0, 0.5))

        def step(z, _):
            z = sample("z", dist.Normal(z, scale))
            sample("y", dist.Normal(z, 0.5))
            return z, None

        lax.scan(step, 0.0, None, length=8)

    ys = jnp.array([0.1, 0.9, 0.8, 1.7, 2.9, 2.2, 3.5, 3.3])
    quiet = sum_out(walk, "z")
    target = Target(quiet, (0,), {"y": ys})
    draws = sample_posterior(
        jax.random.key(0), target, nuts(target), chains=2, draws=1000, progress=False
    )
    at = jnp.linspace(-3.0, 2.0, 400)
    logs = jax.jit(jax.vmap(lambda u: quiet.assess({"scale": jnp.exp(u), "y": ys}, 0)[0] + u))(at)
    weights = jax.nn.softmax(logs)
    mean = float(jnp.sum(weights * jnp.exp(at)))
    sd = float(jnp.sqrt(jnp.sum(weights * (jnp.exp(at) - mean) ** 2)))
    # 2,000 draws are worth 300 at least: 7 standard errors of the mean are .4 sd
    assert abs(float(jnp.mean(draws["scale"])) - mean) < 0.4 * sd


@gen
def bent(t):
    a = sample("a", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(jnp.exp(a), t))


@gen
def scaled(t):
    a = sample("a", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(t, jnp.abs(a)))


@gen
def counted(t):
    a = sample("a", dist.Normal(0.0, 1.0))
    sample("y", dist.Poisson(jnp.exp(a) * t))


@gen
def skewed(t):
    a = sample("a", dist.Gamma(2.0, 1.0))
    sample("y", dist.Normal(a, t))


@gen
def later(t):
    zs = lax.scan(lambda c, _: (c, sample("a", dist.Normal(c, 1.0))), t, None, length=3)[1]
    sample("y", dist.Normal(zs, 1.0))


@gen
def chosen_by(t):
    a = sample("a", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(lax.cond(a > 0, lambda: 1.0, lambda: 2.0), t))


@pytest.mark.parametrize(
    "model, words",
    [
        (bent, "`exp`"),
        (scaled, "scale"),
        (counted, "Poisson"),
        (skewed, "Gamma"),
        (later, "loop"),
        (chosen_by, "not affine"),
    ],
)
def test_what_cannot_be_summed_is_refused(model, words):
    """Before anything is compiled, with the addresses and their lines."""
    with pytest.raises(InvalidArgument, match=words) as caught:
        sum_out(model, "a").sites(1.0)
    assert '"a" at' in str(caught.value) and "test_sum_out_gaussian.py" in str(caught.value)
    assert caught.value.fix
