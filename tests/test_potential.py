"""The public density of a target is the one that kernels see: a registry of kinds of targets.

For each kind, at random unconstrained points: `potential` and its gradient against `Space`'s,
`log_density` against scipy's at the constrained values, and `unconstrain` against what was
constrained; or the exact error of what the kind cannot do. Comparisons are to 1e-10, some tens
of roundings of numbers up to 1e3.
"""

import math
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS
from scipy import stats

from inference import filter_beliefs, filter_series, marginal, temper
from inference.mcmc.space import Space
from inference.targets.restrict import restricted
from ppl import Masked, Target, draw, errors, factor, gen, sample
from ppl.addresses import flatten, nest
from ppl.distributions import log_density
from ppl.masks import leading
from semantics.compiling import QUICK
from tests.every_distribution import EVERY, NO_SAMPLER, N, values

KEY = jax.random.key(0)
CLOSE = {"rtol": 0, "atol": 1e-10}
Y = jnp.array([0.5, -1.0, 2.0, 0.25])
SEEN = jnp.array([True, False, True, True])
HOLES = jnp.where(SEEN, Y, jnp.nan)  # what is missing is never looked at


def normal(x, loc=0.0, scale=1.0):
    return stats.norm.logpdf(np.asarray(x), np.asarray(loc), np.asarray(scale)).sum()


@gen
def location():
    mu = sample("mu", dist.Normal(0.0, 2.0))
    sample("y", dist.Normal(mu, 1.0).expand([4]))


@gen
def vectors():
    mu = sample("mu", dist.Normal(0.0, 2.0).expand([2]))
    cov = jnp.array([[1.0, 0.5], [0.5, 2.0]])
    jax.vmap(lambda _: sample("y", dist.MultivariateNormal(mu, cov)))(jnp.arange(4))


@gen
def mapped():
    mu, scale = sample("mu", dist.Normal(0.0, 2.0)), sample("scale", dist.HalfNormal(1.0))
    jax.vmap(lambda x: sample("y", dist.Normal(mu * x, scale)))(jnp.arange(4.0))


@gen
def hidden():
    """A latent random walk, seen with noise: nothing depends on what is seen."""

    def step(z, _):
        z = sample("z", dist.Normal(z, 1.0))
        sample("y", dist.Normal(z, 0.5))
        return z, None

    jax.lax.scan(step, 0.0, None, length=4)


@gen
def counts():
    """Missing counts, whose sampler has no base."""
    rate = sample("rate", dist.Gamma(2.0, 1.0))
    sample("y", dist.Poisson(rate).expand([4]))


@gen
def two():
    a = sample("a", dist.Normal(0.0, 1.0))
    b = sample("b", dist.Normal(a, 1.0))
    sample("c", dist.Normal(a + b, 1.0))


@gen
def supports():
    rate = sample("rate", dist.Gamma(2.0, 1.0))
    p = sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    sample("y", dist.Normal(p, 1 / rate))


@gen
def cuts():
    ordered = dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.transforms.OrderedTransform()
    )
    sample("y", dist.Normal(sample("cuts", ordered), 1.0))


@gen
def correlation():
    tril = sample("tril", dist.LKJCholesky(3, 2.0))
    sample("y", dist.MultivariateNormal(jnp.zeros(3), scale_tril=tril))


@gen
def triangle():
    """A support that another latent bounds."""
    x = sample("x", dist.Exponential(1.0))
    sample("y", dist.Normal(sample("u", dist.Uniform(0.0, x)), 1.0))


@gen
def improper():
    mu = sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    scale = sample("scale", dist.ImproperUniform(dist.constraints.positive, (), ()))
    sample("y", dist.Normal(mu, scale).expand([4]))


@gen
def scored():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    factor(-(mu**4))


@gen
def switch():
    p = sample("p", dist.Beta(2.0, 2.0))

    def step(z, _):
        z = sample("z", dist.Bernoulli(jnp.where(z == 1, p, 1 - p)))
        sample("y", dist.Normal(1.0 * z, 1.0))
        return z, None

    jax.lax.scan(step, 0, None, length=4)


SWITCH = Target(switch, (), {"y": Y})


def forward(p, y=Y):
    """log p(y | p) of `switch`, by the forward algorithm."""
    alpha = np.array([1.0, 0.0])
    move = np.array([[p, 1 - p], [1 - p, p]])
    for value in np.asarray(y):
        alpha = alpha @ move * stats.norm.pdf(value, [0.0, 1.0])
    return np.log(alpha.sum())


class Kind(NamedTuple):
    target: Target
    density: Any  # from the latents to the log density, by other means


def masked(model, y=HOLES, seen=SEEN):
    return Target(model, (), {"y": Masked(y, seen)})


Y3 = jnp.array([0.5, -1.0, 2.0])
ROWS = jnp.stack([Y, 2 * Y], 1)
COV: Any = np.array([[1.0, 0.5], [0.5, 2.0]])
kept = np.asarray(SEEN)


def lkj_cholesky(tril):
    """LKJ(2) in three dimensions, by the onion: row i + 1 has squared radius Beta(i / 2, b_i)."""
    total = 0.0
    for i, b in ((1, 2.5), (2, 2.0)):
        row = np.asarray(tril)[i, :i]
        square = (row**2).sum()
        # density of the radius squared, uniform on the sphere of i dimensions
        area = math.log(2 * math.pi ** (i / 2) / math.gamma(i / 2))
        jacobian = math.log(2.0) - (i - 1) * 0.5 * math.log(square) + 0.5 * math.log(square)
        total += stats.beta.logpdf(square, i / 2, b) + jacobian - area
    return total


KINDS = {
    "plain": Kind(
        Target(location, (), {"y": Y}),
        lambda x: normal(x["mu"], 0.0, 2.0) + normal(Y, x["mu"]),
    ),
    "masked elements": Kind(
        masked(location),
        lambda x: normal(x["mu"], 0.0, 2.0) + normal(Y[kept], x["mu"]),
    ),
    "masked rows": Kind(
        Target(vectors, (), {"y": Masked(jnp.where(SEEN[:, None], ROWS, jnp.nan), SEEN)}),
        lambda x: (
            normal(x["mu"], 0.0, 2.0)
            + stats.multivariate_normal.logpdf(ROWS[kept], np.asarray(x["mu"]), COV).sum()
        ),
    ),
    "masked in vmap": Kind(
        masked(mapped),
        lambda x: (
            normal(x["mu"], 0.0, 2.0)
            + stats.halfnorm.logpdf(x["scale"])
            + normal(Y[kept], x["mu"] * np.arange(4.0)[kept], x["scale"])
        ),
    ),
    "masked in scan": Kind(
        masked(hidden),
        lambda x: normal(np.diff(x["z"], prepend=0.0)) + normal(Y[kept], x["z"][kept], 0.5),
    ),
    "masked counts": Kind(
        masked(counts, jnp.array([3, -1, 0, 5]), SEEN),
        lambda x: (
            stats.gamma.logpdf(x["rate"], 2.0) + stats.poisson.logpmf([3, 0, 5], x["rate"]).sum()
        ),
    ),
    "nothing seen": Kind(
        masked(location, seen=jnp.zeros(4, bool)), lambda x: normal(x["mu"], 0.0, 2.0)
    ),
    "observed in part": Kind(
        Target(two, (), {"b": 0.3}),
        lambda x: normal(x["a"]) + normal(0.3, x["a"]) + normal(x["c"], x["a"] + 0.3),
    ),
    "positive, simplex": Kind(
        Target(supports, (), {"y": Y3}),
        lambda x: (
            stats.gamma.logpdf(x["rate"], 2.0)
            + stats.dirichlet.logpdf(np.asarray(x["p"]) / np.sum(x["p"]), [1.0, 2.0, 3.0])
            + normal(Y3, x["p"], 1 / x["rate"])
        ),
    ),
    "ordered": Kind(
        Target(cuts, (), {"y": Y3}),
        lambda x: (
            normal(x["cuts"][0])
            + normal(np.log(np.diff(x["cuts"])))
            - np.log(np.diff(x["cuts"])).sum()
            + normal(Y3, x["cuts"])
        ),
    ),
    "correlation Cholesky": Kind(
        Target(correlation, (), {"y": Y3}),
        lambda x: (
            lkj_cholesky(x["tril"])
            + stats.multivariate_normal.logpdf(Y3, np.zeros(3), x["tril"] @ x["tril"].T)
        ),
    ),
    "dependent supports": Kind(
        Target(triangle, (), {"y": 0.5}),
        lambda x: stats.expon.logpdf(x["x"]) - np.log(x["x"]) + normal(0.5, x["u"]),
    ),
    "improper": Kind(Target(improper, (), {"y": Y}), lambda x: normal(Y, x["mu"], x["scale"])),
    "a factor": Kind(Target(scored), lambda x: normal(x["mu"]) - x["mu"] ** 4),
    "tempered": Kind(
        temper(Target(location, (), {"y": Y}), 0.25),
        lambda x: normal(x["mu"], 0.0, 2.0) + 0.25 * normal(Y, x["mu"]),
    ),
    "restricted": Kind(
        restricted(Target(location, (), {"y": Y}), -8.0),
        lambda x: normal(x["mu"], 0.0, 2.0) if normal(Y, x["mu"]) > -8.0 else -np.inf,
    ),
    "exact marginal": Kind(
        marginal(SWITCH, "p", lambda rest: filter_beliefs(rest, "z", "z", 1)),
        lambda x: stats.beta.logpdf(x["p"], 2.0, 2.0) + forward(x["p"]),
    ),
}


def points(target, n=3):
    """Random unconstrained points, stacked."""
    shapes = target.coordinates().shapes
    keys = jax.random.split(KEY, max(1, len(shapes)))
    return nest(
        {p: jax.random.normal(k, (n, *s)) for k, (p, s) in zip(keys, shapes.items(), strict=False)}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_public_density_is_what_kernels_see(name):
    target, density = KINDS[name]
    z = points(target)
    space = Space(target)
    assert space.everything  # so that a kernel keeps no trace beside z

    def flat(z):
        return jnp.concatenate([jnp.ravel(flatten(z)[p]) for p in space.paths])

    def both(z):
        values, log_det = target.constrain(z)
        mine = jax.value_and_grad(target.potential)(z)
        kernels = jax.value_and_grad(lambda z: -space.log_density(None)(flat(z)))(z)
        back = target.unconstrain(values)
        return values, log_det, target.log_density(values), mine, kernels, back

    values, log_det, log_p, mine, kernels, back = jax.jit(jax.vmap(both), compiler_options=QUICK)(z)
    assert target.latents == space.paths
    assert set(flatten(values)) == set(flatten(back)) == set(target.latents)
    expected = [
        density(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], values)) for i in range(3)
    ]
    np.testing.assert_allclose(log_p, expected, **CLOSE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), mine, kernels)
    np.testing.assert_allclose(mine[0], -(np.asarray(log_p) + log_det), **CLOSE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), back, z)
    one = jax.tree.map(lambda leaf: leaf[0], values)
    np.testing.assert_allclose(target.log_density(one), expected[0], **CLOSE)  # eager, no key


@gen
def mixed():
    k = sample("k", dist.Bernoulli(0.5))
    sample("y", dist.Normal(sample("x", dist.Normal(1.0 * k, 1.0)), 1.0))


@gen
def sometimes():
    k = sample("k", dist.Bernoulli(0.5))
    x = jax.lax.cond(k == 1, lambda: sample("x", dist.Normal(0.0, 1.0)), lambda: 0.0)
    sample("y", dist.Normal(x, 1.0))


@gen
def noisy():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu + draw(dist.Normal(0.0, 1.0)), 1.0))


@gen
def autoregression():
    scale = sample("scale", dist.HalfNormal(1.0))
    step = lambda y, _: (sample("y", dist.Normal(y, scale)), None)  # noqa: E731
    jax.lax.scan(step, 0.0, None, length=4)


@gen
def read_below():
    """A latent that reads what may be missing."""
    y = sample("y", dist.Normal(sample("mu", dist.Normal(0.0, 1.0)), 1.0).expand([4]))
    sample("x", dist.Normal(y.sum(), 1.0))


@gen
def read_by_factor():
    y = sample("y", dist.Normal(sample("mu", dist.Normal(0.0, 1.0)), 1.0).expand([4]))
    factor(-y.sum())


@gen
def bounding():
    y = sample("y", dist.Exponential(sample("rate", dist.HalfNormal(1.0))).expand([4]))
    sample("x", dist.Uniform(0.0, y.max()))


by_particles = marginal(SWITCH, "p", lambda rest: filter_beliefs(rest, "z", "z", 2))
by_filter = marginal(SWITCH, "p", lambda rest: filter_series(rest, "z", 2))
DISCRETE = '"k" is discrete and has no unconstrained space'
LATENT = 'depends on elements of "y" that are not observed: they are latent'
ESTIMATED = "needs a density, and that of .* is only estimated"
REFUSED = {
    # target, latents, what potential says, what Space says, what log_density says (None: a number)
    "discrete": (Target(mixed, (), {"y": 0.0}), {"k": 1, "x": 0.0}, DISCRETE, DISCRETE, None),
    "in a branch": (
        Target(sometimes, (), {"y": 0.0, "k": 1}), {"x": 0.0},
        '"x" is not always there', '"x" is not always there', None,
    ),
    "nothing latent": (
        Target(two, (), {"a": 0.0, "b": 0.0, "c": 0.0}), {}, None, "no latent choice to move", None
    ),
    "draws": (Target(noisy, (), {"y": 0.0}), {"mu": 0.0}, ESTIMATED, ESTIMATED, "randomness"),
    "estimated marginal": (by_particles, {"p": 0.3}, ESTIMATED, ESTIMATED, "randomness"),
    "estimated by a filter": (by_filter, {"p": 0.3}, ESTIMATED, ESTIMATED, "randomness"),
    "masked autoregression": (
        masked(autoregression), {"scale": 1.0}, f'"y" {LATENT}', None, f'"y" {LATENT}'
    ),
    "masked above a latent": (
        masked(read_below), {"mu": 0.0, "x": 0.0}, f'"x" {LATENT}', None, f'"x" {LATENT}'
    ),
    "masked above a factor": (
        masked(read_by_factor), {"mu": 0.0}, f"A factor {LATENT}", None, f"A factor {LATENT}"
    ),
    "masked above a support": (
        masked(bounding), {"rate": 1.0, "x": 0.1}, f'"x" {LATENT}', None, f'"x" {LATENT}'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_public_density_says_so(name):
    target, latents, potential, kernels, density = REFUSED[name]
    for says, run in (
        (potential, lambda: target.potential(latents)),
        (potential, lambda: jax.grad(target.potential)(jax.tree.map(float, latents))),
        (kernels, lambda: Space(target)),
        (density, lambda: target.log_density(latents)),
    ):
        if says is None:
            run()
            continue
        with pytest.raises(errors.PPLError, match=says) as found:
            run()
        message = str(found.value)
        assert "test_potential.py" in message and len(message.splitlines()) <= 12


@pytest.mark.slow
def test_samplers_of_others_take_missing_data():
    """Three steps of NumPyro's and BlackJAX's NUTS, with missing data and without their rows.

    From the same keys they are the same chains: rounding of 1e-16 grows by less than 1e6 in
    trajectories of at most 7 steps. No draw is made where a key is not given.
    """
    whole = Target(gen(lambda: location_of(3)), (), {"y": Y[SEEN]})
    found: list[list] = [[], []]
    for target, ends in zip((masked(location), whole), found, strict=True):
        sampler = NUTS(potential_fn=target.potential, step_size=0.4, max_tree_depth=3)
        state = sampler.init(KEY, 0, {"mu": jnp.array(0.3)}, (), {})
        step = jax.jit(lambda state, s=sampler: s.sample(state, (), {}), compiler_options=QUICK)
        for _ in range(3):
            state = step(state)
            ends.append(state.z["mu"])
        log_p = lambda z, t=target: -t.potential(z)  # noqa: E731
        peer: Any = blackjax.nuts(log_p, 0.4, jnp.ones(1), max_num_doublings=3)
        state, step = peer.init({"mu": jnp.array(0.3)}), jax.jit(peer.step, compiler_options=QUICK)
        for key in jax.random.split(KEY, 3):
            state = step(key, state)[0]
            ends.append(state.position["mu"])
    mine, theirs = map(np.asarray, found)
    np.testing.assert_allclose(mine, theirs, **CLOSE)
    assert len(np.unique(mine)) == 6  # and none of them stays where it is


def location_of(n):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    sample("y", dist.Normal(mu, 1.0).expand([n]))


def test_missing_data_that_others_depend_on_are_latent_as_the_error_says():
    """The fix of the error, followed: an autoregression whose missing elements are latent.

    Given the scale, the density is that of a Gaussian in the latents: its integral is exact by
    its mode and curvature, and is the density of what is observed, by the dense covariance.
    """

    @gen
    def filled(y, seen):
        scale = sample("scale", dist.HalfNormal(1.0))

        def step(before, row):
            y, seen = row
            d = dist.Normal(before, scale)
            x = sample("x", d)
            factor(jnp.where(seen, d.log_prob(y), 0.0))
            return jnp.where(seen, y, x), None

        jax.lax.scan(step, 0.0, (jnp.where(seen, y, 0.0), seen))

    with pytest.raises(errors.InvalidArgument) as found:
        masked(autoregression).log_density({"scale": 1.0})
    for part in ('x = sample("x", d)', "factor(jnp.where(seen, d.log_prob(y), 0.0))"):
        assert part in str(found.value)
    target, scale = Target(filled, (HOLES, SEEN)), 0.7
    log_p = lambda x: target.log_density({"scale": scale, "x": x})  # noqa: E731
    curvature = -jax.hessian(log_p)(jnp.zeros(4))
    mode = jnp.linalg.solve(curvature, jax.grad(log_p)(jnp.zeros(4)))
    normaliser = 2 * math.log(2 * math.pi) - jnp.linalg.slogdet(curvature)[1] / 2
    steps: Any = np.minimum.outer(np.arange(1, 5), np.arange(1, 5))[np.ix_(kept, kept)]
    dense = stats.multivariate_normal.logpdf(Y[kept], np.zeros(3), scale**2 * steps)
    expected = stats.halfnorm.logpdf(scale) + dense
    np.testing.assert_allclose(log_p(mode) + normaliser, expected, **CLOSE)


NEVER = {
    # why numpyro's own cannot be differentiated, or not be put together again
    "GaussianCopula": "asks for a package",
    "GaussianCopulaBeta": "asks for a package",
    "HurdleNegativeBinomial2": "is no pytree",
    "Levy": "has no support",
}
FAST = {"Normal", "Poisson", "MultivariateNormal", "TwoSidedTruncatedDistribution", "Delta"}
ROWS3 = np.array([True, False, True])


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(set(EVERY) - NO_SAMPLER - set(NEVER))
    ],
)
def test_missing_elements_of_every_distribution_leave_no_trace(name):
    """The value is that of what is seen, by numpyro; so is the slope in every parameter.

    What stands in for a missing element has a finite density and slope, or these would be
    0 times infinity, which is no number.
    """
    d = EVERY[name]((N,))
    seen = values(d)
    blank = jnp.nan if jnp.issubdtype(seen.dtype, jnp.floating) else -7
    rows = np.broadcast_to(leading(ROWS3, len(d.batch_shape)), d.batch_shape)
    holes = jnp.where(leading(rows, seen.ndim), seen, blank)
    leaves, tree = jax.tree.flatten(d)
    moves = [i for i, x in enumerate(leaves) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]

    def remade(parameters):
        return tree.unflatten([parameters.get(i, leaf) for i, leaf in enumerate(leaves)])

    def mine(parameters):
        model = gen(lambda parameters: sample("y", remade(parameters)))
        return Target(model, (parameters,), {"y": Masked(holes, rows)}).log_density({})

    def of_seen(parameters):
        return jnp.where(rows, log_density(remade(parameters), jnp.asarray(seen)), 0.0).sum()

    parameters = {i: jnp.asarray(leaves[i], float) for i in moves}
    found, slopes = jax.value_and_grad(mine)(parameters)
    expected = np.asarray(d.log_prob(seen))[rows].sum()
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    for i, slope in jax.grad(of_seen)(parameters).items():
        assert np.isfinite(slope).all()
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-9, atol=1e-9)
