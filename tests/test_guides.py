"""Guides that are built from a target: exact densities, exact members, exact gradients.

Where the posterior is in a guide's reach, each single draw of the bound is the log evidence.
Densities are integrated by Gauss-Legendre rules on the supports, means by Gauss-Hermite rules on
the noise: the two know nothing of each other.

Over 400 lines, since every guide is held to the same laws.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpy.testing import assert_allclose

from inference import elbo, iwelbo
from inference.guides.flow import flow
from inference.guides.gaussian import full_rank, low_rank, mean_field
from inference.guides.joint import joint, space_of
from inference.guides.laplace import laplace
from inference.guides.pathfinder import Mixture, pathfinder
from inference.guides.structured import dependences, structured
from inference.guides.triangular import family_of, of_precision
from ppl import PPLError, Target, expectation, gen, integrate, sample, seed
from ppl.errors import InvalidArgument, MissingPackage

KEY = jax.random.key(0)


def mixture(target):
    """What `pathfinder` makes, with two normals at given places."""
    _, one = full_rank(target, scale=0.6)
    two = jax.tree.map(lambda x: jnp.stack([x - 0.4, x + 0.3]), one)
    size = space_of(target).size
    normal = family_of(space_of(target), np.ones((size, size), bool))
    guide = joint(target, Mixture(normal), "mixture")
    return guide, {"log_weights": jnp.array([0.0, 1.0]), **two}


BUILT = {
    "mean field": lambda target: mean_field(target, scale=0.6),
    "full rank": lambda target: full_rank(target, scale=0.6),
    "low rank": lambda target: low_rank(target, 1, scale=0.6),
    "structured": lambda target: structured(target, scale=0.6),
    "flow": lambda target: flow(KEY, target, layers=2, width=4, scale=0.6),
    "mixture": mixture,
}
SLOW = {"flow", "mixture"}
every_guide = pytest.mark.parametrize(
    "make",
    [pytest.param(BUILT[n], id=n, marks=pytest.mark.slow if n in SLOW else ()) for n in BUILT],
)


def built(make, target):
    """A guide at parameters that are none of those it starts with."""
    guide, parameters = make(target)
    leaves, tree = jax.tree.flatten(parameters)
    moved = [x + 0.2 * jnp.cos(i + jnp.arange(x.size)).reshape(x.shape) for i, x in
             enumerate(leaves)]  # fmt: skip
    return guide, jax.tree.unflatten(tree, moved)


# -- densities -------------------------------------------------------------------------------


@gen
def on_simplex():
    sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 1.5])))


@gen
def below_another():
    x = sample("x", dist.HalfNormal(1.0))
    sample("y", dist.Uniform(0.0, x))


def legendre(n):
    x, w = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, w / 2


def simplex_nodes(n):
    """Points of the simplex, and their weights in the first two coordinates."""
    t, w = legendre(n)
    a, b = np.meshgrid(t, t, indexing="ij")
    p = np.stack([a, (1 - a) * b, (1 - a) * (1 - b)], -1).reshape(-1, 3)
    return {"p": p}, (np.outer(w, w) * (1 - a)).ravel()


def triangle_nodes(n):
    """Points 0 < y < x, x = s / (1 - s), and their weights."""
    t, w = legendre(n)
    s, b = np.meshgrid(t, t, indexing="ij")
    x = s / (1 - s)
    return {"x": x.ravel(), "y": (x * b).ravel()}, (np.outer(w, w) * x / (1 - s) ** 2).ravel()


# the density of p has log Jacobian in its first two coordinates
CONSTRAINED = {
    "simplex": (Target(on_simplex), simplex_nodes, lambda x: x["p"][:2] ** 2),
    "moving": (
        Target(below_another),
        triangle_nodes,
        lambda x: jnp.stack([x["y"] / (1 + x["x"]), 1 / (1 + x["x"])]),
    ),
}


@every_guide
@pytest.mark.parametrize("where", CONSTRAINED)
def test_the_density_has_mass_one_and_is_that_of_the_draws(make, where):
    """The rules of 60 nodes an axis and of 24 are within 1e-5, as their halves show."""
    target, nodes, f = CONSTRAINED[where]
    guide, parameters = built(make, target)
    points, weights = nodes(60)

    @jax.jit
    def mass_and_mean(parameters):
        def at(x):
            density = jnp.exp(guide.assess(x, parameters)[0])
            return density, density * f(x)

        density, values = jax.vmap(at)(jax.tree.map(jnp.asarray, points))
        return weights @ density, weights @ values

    mass, mean = mass_and_mean(parameters)
    assert_allclose(mass, 1, atol=1e-5)
    values = expectation(lambda p: f(guide.simulate(p).choices))  # as functions of normals
    drawn = jax.jit(integrate(values, nodes=12))(parameters)
    assert_allclose(drawn, mean, atol=1e-5)


@every_guide
@pytest.mark.parametrize("where", CONSTRAINED)
def test_a_draw_has_the_density_that_is_assessed(make, where):
    target = CONSTRAINED[where][0]
    guide, parameters = built(make, target)

    @seed
    def both(parameters):
        trace = guide.simulate(parameters)
        return trace.score, guide.assess(trace.choices, parameters)[0]

    scores, assessed = jax.jit(jax.vmap(both, (0, None)))(jax.random.split(KEY, 20), parameters)
    assert_allclose(assessed, scores, rtol=1e-10, atol=1e-10)


@every_guide
def test_the_same_in_single_precision(make):
    """Scores are sums of some ten terms of size ten: 1e-5 of them is a hundred roundings."""
    with jax.enable_x64(False):
        target = Target(on_simplex)
        guide, parameters = make(target)
        assert {x.dtype for x in jax.tree.leaves(parameters)} == {jnp.float32.dtype}
        trace = seed(guide.simulate)(KEY, parameters)
        score, _ = seed(guide.assess)(KEY, trace.choices, parameters)
        assert trace["p"].dtype == score.dtype == jnp.float32
        assert_allclose(score, trace.score, rtol=1e-5, atol=1e-4)


def test_outside_of_the_support_the_density_is_zero():
    guide, parameters = mean_field(Target(below_another))
    at = jax.jit(lambda x, y: guide.assess({"x": x, "y": y}, parameters)[0])
    assert np.isfinite(at(2.0, 1.0))
    assert at(2.0, 2.5) == at(-1.0, -2.0) == -jnp.inf


# -- a linear model with normal noise ------------------------------------------------------------


@gen
def linear(x):
    level = sample("level", dist.Normal(1.0, 2.0))
    slope = sample("slope", dist.Normal(level, 1.0))
    sample("y", dist.Normal(level + slope * x, 0.5))


X, Y = jnp.array([-1.0, 0.5, 2.0]), jnp.array([0.3, 1.0, 2.5])
TARGET = Target(linear, (X,), {"y": Y})


def posterior():
    """The mean and the covariance of (level, slope), and the log evidence, by hand."""
    prior_mean, prior = np.array([1.0, 1.0]), np.array([[4.0, 4.0], [4.0, 5.0]])
    design = np.stack([np.ones(3), X], 1)
    seen = design @ prior @ design.T + 0.25 * np.eye(3)
    gain = prior @ design.T @ np.linalg.inv(seen)
    rest = np.asarray(Y) - design @ prior_mean
    evidence = -0.5 * (rest @ np.linalg.solve(seen, rest) + np.linalg.slogdet(2 * np.pi * seen)[1])
    return prior_mean + gain @ rest, prior - gain @ design @ prior, evidence


def moments(mean, covariance):
    return of_precision(space_of(TARGET), jnp.asarray(mean), jnp.linalg.inv(covariance))


def chain():
    def step(z, _):
        z = sample("z", dist.Normal(0.9 * z, 1.0))
        return z, z

    _, z = jax.lax.scan(step, 0.0, jnp.arange(6))
    sample("y", dist.Normal(z, 0.5))


@gen
def sum_of_a_matrix():
    w = sample("w", dist.Normal(jnp.zeros((2, 2)), 1.0))
    sample("y", dist.Normal(jnp.sum(w), 0.5))


def of_noise(prior_precision, design, y):
    """The same by hand, of a prior of mean 0 and y of this design and variance 1/4."""
    covariance = np.linalg.inv(prior_precision + 4 * design.T @ design)
    seen = design @ np.linalg.inv(prior_precision) @ design.T + 0.25 * np.eye(len(y))
    evidence = -0.5 * (y @ np.linalg.solve(seen, y) + np.linalg.slogdet(2 * np.pi * seen)[1])
    return covariance @ design.T @ (4 * y), covariance, evidence


SERIES = np.array([0.5, -1.0, 2.0, 0.1, 0.3, 1.5])
STEPS = np.eye(6) - 0.9 * np.eye(6, k=-1)
LINEAR = {
    "regression": (TARGET, posterior()),
    "chain": (
        Target(gen(chain), (), {"y": jnp.asarray(SERIES)}),
        of_noise(STEPS.T @ STEPS, np.eye(6), SERIES),
    ),
    "matrix": (
        Target(sum_of_a_matrix, (), {"y": 1.5}),
        of_noise(np.eye(4), np.ones((1, 4)), np.array([1.5])),
    ),
}


def exact(name, where):
    """The guide, and its parameters at the posterior."""
    target, (mean, covariance, _) = LINEAR[where]
    if name == "laplace":
        return laplace(target)
    space = space_of(target)
    parameters = of_precision(space, jnp.asarray(mean), jnp.linalg.inv(covariance))
    if name == "full rank":
        return full_rank(target)[0], parameters
    used = dependences(space)[np.tril_indices(space.size, -1)]
    assert_allclose(parameters["coefficients"][~used], 0, atol=1e-12)
    return structured(target)[0], {**parameters, "coefficients": parameters["coefficients"][used]}


at_posteriors = pytest.mark.parametrize(
    "name, where", [(n, w) for n in ("full rank", "structured", "laplace") for w in LINEAR]
)


@at_posteriors
def test_each_draw_of_the_bound_at_the_posterior_is_the_log_evidence(name, where):
    guide, parameters = exact(name, where)
    target, (_, _, evidence) = LINEAR[where]
    bound = jax.jit(jax.vmap(seed(elbo(target, guide)), (0, None)))
    assert_allclose(bound(jax.random.split(KEY, 10), parameters), evidence, rtol=1e-9)


def test_laplace_finds_the_moments_of_a_normal_posterior():
    mean, covariance, _ = posterior()
    far = {"level": jnp.array(50.0), "slope": jnp.array(-30.0)}
    for start in (None, far):
        _, found = laplace(TARGET, start)
        for a, b in zip(
            jax.tree.leaves(found), jax.tree.leaves(moments(mean, covariance)), strict=True
        ):
            assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_low_rank_and_mean_field_reach_their_kind():
    """Priors that are of it: all draws of the bound are 0, the log of a mass of one."""
    factors, scales = jnp.array([[0.5], [-1.0], [2.0]]), jnp.array([1.0, 0.3, 2.0])
    covariance = scales[:, None] * (jnp.eye(3) + factors @ factors.T) * scales
    of_rank = gen(lambda: sample("x", dist.MultivariateNormal(jnp.arange(3.0), covariance)))
    guide, _ = low_rank(Target(of_rank), 1)
    at = {"loc": {"x": jnp.arange(3.0)}, "log_scale": {"x": jnp.log(scales)}, "factors": factors}
    apart = gen(lambda: sample("x", dist.LogNormal(jnp.arange(3.0), scales)))
    plain, _ = mean_field(Target(apart))
    keys = jax.random.split(KEY, 10)
    for model, law, parameters in (of_rank, guide, at), (apart, plain, at):
        bound = jax.jit(jax.vmap(seed(elbo(Target(model), law)), (0, None)))
        assert_allclose(bound(keys, parameters), 0, atol=1e-12)


def test_full_rank_has_the_moments_of_its_parameters():
    mean, covariance = jnp.array([0.5, -1.0]), jnp.array([[2.0, 0.7], [0.7, 0.5]])
    guide, _ = full_rank(TARGET)

    def moment(parameters):
        trace = guide.simulate(parameters)
        z = jnp.stack([trace["level"], trace["slope"]])
        return z, jnp.outer(z - mean, z - mean)

    found = jax.jit(integrate(moment, nodes=4))(moments(mean, covariance))
    assert_allclose(found[0], mean, rtol=1e-12)
    assert_allclose(found[1], covariance, rtol=1e-12)


def by_formula(parameters):
    """log evidence - KL(q, posterior), q a normal whose moments follow from its parameters."""
    loc = jnp.stack(list(parameters["loc"].values()))
    scales = jnp.exp(jnp.stack(list(parameters["log_scale"].values())))
    covariance = jnp.diag(scales**2)
    if "factors" in parameters:
        factors = scales[:, None] * parameters["factors"]
        covariance = covariance + factors @ factors.T
    if "coefficients" in parameters:
        along = jnp.eye(2).at[1, 0].set(parameters["coefficients"][0])
        covariance = along @ covariance @ along.T
    mean, right, evidence = posterior()
    apart = loc - mean
    return evidence - 0.5 * (
        jnp.trace(jnp.linalg.solve(right, covariance))
        + apart @ jnp.linalg.solve(right, apart)
        - 2
        + jnp.linalg.slogdet(right)[1]
        - jnp.linalg.slogdet(covariance)[1]
    )


@pytest.mark.parametrize("name", ["mean field", "full rank", "low rank", "structured"])
def test_gradients_of_normal_guides_are_exact(name):
    """The terms are polynomials of degree two in the noise, but for low rank's, of degree two
    as well: four nodes have no error."""
    guide, parameters = built(BUILT[name], TARGET)
    estimate = jax.value_and_grad(expectation(elbo(TARGET, guide)))
    found = jax.jit(integrate(estimate, nodes=4))(parameters)
    right = jax.value_and_grad(by_formula)(parameters)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert_allclose(a, b, rtol=1e-9, atol=1e-9)


CONSTRAINTS = {
    "positive": dist.HalfNormal(1.5),
    "interval": dist.Uniform(-1.0, 3.0),
    "unit": dist.Beta(2.0, 1.5),
    "above": dist.TruncatedNormal(0.5, 1.0, low=-0.5),
    "simplex": dist.Dirichlet(jnp.array([2.0, 1.5])),
}


@pytest.mark.parametrize("prior", CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_gradients_of_constrained_latents_are_those_of_the_mean(prior):
    """A rule of nodes has the derivative of its own sum: its error is that of the difference."""

    @gen
    def model():
        x = sample("x", prior)
        sample("y", dist.Normal(jnp.sum(x**2), 1.0))

    target = Target(model, (), {"y": 0.8})
    guide, parameters = mean_field(target, scale=0.5)
    objective = elbo(target, guide)
    bound = jax.jit(integrate(objective, nodes=12))
    found = jax.jit(integrate(jax.grad(expectation(objective)), nodes=12))(parameters)
    for name in found:
        way = {**jax.tree.map(jnp.zeros_like, parameters), name: {"x": jnp.ones_like(
            parameters[name]["x"])}}  # fmt: skip
        by_difference = slope_along(bound, parameters, way)
        assert_allclose(jnp.sum(found[name]["x"]), by_difference, rtol=1e-6)


def slope_along(bound, parameters, direction, size=1e-4):
    """A central difference, with an error of the order of size squared."""
    ends = [bound(jax.tree.map(lambda x, d, s=s: x + s * d, parameters, direction))
            for s in (size, -size)]  # fmt: skip
    return (ends[0] - ends[1]) / (2 * size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow", "mixture"])
def test_gradients_of_flows_and_mixtures_are_those_of_the_mean(name):
    """The mixture's terms are no polynomials: the nodes' error is at most 1e-6, as more show."""
    guide, parameters = built(BUILT[name], TARGET)
    objective = elbo(TARGET, guide)
    bound = jax.jit(integrate(objective, nodes=40))
    found = jax.jit(integrate(jax.grad(expectation(objective)), nodes=40))(parameters)
    leaves, tree = jax.tree.flatten(parameters)
    for shift in (0.0, 1.0):
        ways = [jnp.cos(shift + i + jnp.arange(x.size)).reshape(x.shape) for i, x in
                enumerate(leaves)]  # fmt: skip
        by_gradient = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(found), ways, strict=True))
        by_difference = slope_along(bound, parameters, jax.tree.unflatten(tree, ways))
        assert_allclose(by_gradient, by_difference, rtol=1e-5)


def test_doubly_reparameterised_gradients_have_the_same_mean():
    """They need the density of given latents. By quadrature, with an error of 1e-6."""

    @gen
    def single():
        m = sample("m", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(m, 1.0))

    target = Target(single, (), {"y": 0.7})
    guide, parameters = mean_field(target, scale=0.7)
    plain = jax.jit(jax.grad(integrate(iwelbo(target, guide, 2), nodes=32)))(parameters)
    doubly = jax.grad(expectation(iwelbo(target, guide, 2, doubly=True)))
    found = jax.jit(integrate(doubly, nodes=32))(parameters)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        assert_allclose(a, b, atol=1e-5)


@at_posteriors
def test_each_landing_gradient_at_the_posterior_is_zero(name, where):
    guide, parameters = exact(name, where)
    slope = jax.grad(expectation(elbo(LINEAR[where][0], guide, landing=True)))
    found = jax.jit(jax.vmap(seed(slope), (0, None)))(jax.random.split(KEY, 10), parameters)
    for x in jax.tree.leaves(found):
        assert_allclose(x, 0, atol=1e-9)


def test_a_models_parameter_is_learned_beside_the_guides():
    """d/ds of E[log N(y; s z, 1/2)] is E[(y - s z) z] / (1/4), for z of mean m and variance v."""

    @gen
    def scaled(s):
        z = sample("z", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(s * z, 0.5))

    def on(s):
        return Target(scaled, (s,), {"y": 0.7})

    guide, _ = mean_field(on(1.0))
    m, v = 0.3, 0.8**2
    parameters = {"loc": {"z": jnp.array(m)}, "log_scale": {"z": jnp.log(0.8)}}
    objective = expectation(elbo(lambda q, s: on(s), guide))
    slope = jax.jit(integrate(jax.grad(objective, 1), nodes=6))(parameters, 0.9)
    assert_allclose(slope, (0.7 * m - 0.9 * (m**2 + v)) / 0.25, rtol=1e-12)


def test_a_guide_is_a_part_of_a_model():
    guide, parameters = built(BUILT["full rank"], TARGET)
    model = gen(lambda parameters: sample("q", guide(parameters)) and None)
    values = {"level": jnp.array(0.2), "slope": jnp.array(-1.0)}
    score, _ = jax.jit(lambda p: model.assess({"q": values}, p))(parameters)
    assert_allclose(score, guide.assess(values, parameters)[0], rtol=1e-12)
    trace = seed(model.simulate)(KEY, parameters)
    assert_allclose(trace.score, guide.assess(trace["q"], parameters)[0], rtol=1e-12)


def test_other_data_compile_nothing():
    count = []

    @jax.jit
    def bound(objective, key, parameters):
        count.append(1)
        return seed(objective)(key, parameters)

    values = []
    for y in (Y, Y + 1):
        target = Target(linear, (X,), {"y": y})
        guide, parameters = full_rank(target)
        values.append(bound(elbo(target, guide), KEY, parameters))
    assert len(count) == 1 and values[0] != values[1]


def test_ascent_of_a_structured_guide_reaches_the_posterior():
    """By landing gradients, whose noise goes with the distance from the posterior."""
    target, (mean, _, evidence) = LINEAR["chain"]
    guide, parameters = structured(target)
    slope = seed(jax.grad(expectation(elbo(target, guide, landing=True))))
    adam = optax.adam(optax.cosine_decay_schedule(0.05, 1500))

    def step(carry, key):
        parameters, state = carry
        down = jax.tree.map(jnp.negative, slope(key, parameters))
        updates, state = adam.update(down, state)
        return (optax.apply_updates(parameters, updates), state), None

    keys = jax.random.split(KEY, 1500)
    (found, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, adam.init(p)), keys))(parameters)
    bound = jax.jit(jax.vmap(seed(elbo(target, guide)), (0, None)))
    assert_allclose(bound(keys[:20], found), evidence, atol=1e-3)
    assert_allclose(found["loc"]["z"], mean, atol=1e-3)


# -- structure -------------------------------------------------------------------------------


def pattern(model, *args, **observed):
    guide, _ = structured(Target(model, args, observed))
    family = guide.fn.family
    return sorted(zip(family.rows.tolist(), family.columns.tolist(), strict=True))


def groups():
    mu, tau = sample("mu", dist.Normal(0.0, 1.0)), sample("tau", dist.HalfNormal(1.0))
    theta = sample("theta", dist.Normal(mu, tau).expand([3]))
    sample("y", dist.Normal(theta, 1.0))


def causes():
    a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
    sample("c", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(a + b, 1.0))


def locals_first():
    """Summing out what all depend on ties all."""
    x = [sample(name, dist.Normal(0.0, 1.0)) for name in "abc"]
    sample("s", dist.Normal(sum(x), 1.0))


@pytest.mark.parametrize(
    "fn, observed, ties",
    [
        (chain, {"y": jnp.zeros(6)}, [(i, i - 1) for i in range(1, 6)]),
        (groups, {"y": jnp.arange(3.0)}, [(1, 0), *((i, j) for i in (2, 3, 4) for j in (0, 1))]),
        (causes, {"y": 1.0}, [(1, 0)]),
        (locals_first, {}, [(i, j) for i in range(4) for j in range(i)]),
    ],
)
def test_coordinates_depend_on_those_that_the_posterior_ties_them_to(fn, observed, ties):
    assert pattern(gen(fn), **observed) == ties


# -- modes -----------------------------------------------------------------------------------


@gen
def either_side():
    mu = sample("mu", dist.Normal(0.0, 3.0))
    sides = dist.Categorical(probs=jnp.array([0.3, 0.7]))
    sample("y", dist.MixtureSameFamily(sides, dist.Normal(jnp.stack([mu, -mu]), 0.5)))


@pytest.mark.slow
def test_pathfinder_weighs_two_modes():
    """Modes of masses 0.3 and 0.7 at +-4 9/9.25, of variance 9/37, 8 sds from the middle.

    Each normal is one of them, so weights within a mode are equal but for what of the other is
    there, e^-32, and for how far L-BFGS is from the curvature; the tail has no shape.
    """
    found = pathfinder(jax.random.key(3), Target(either_side, (), {"y": 4.0}), paths=6)
    place = np.asarray(found.parameters["loc"]["mu"])
    share = np.exp(found.parameters["log_weights"])
    assert_allclose(abs(place), 4 * 9 / 9.25, rtol=1e-5)
    assert 0 < np.sum(place > 0) < 6
    assert_allclose(np.sum(share[place > 0]), 0.3, rtol=1e-3)
    assert np.isnan(found.pareto_k) or found.pareto_k < 0.7
    assert_allclose(np.exp(found.parameters["log_scale"]["mu"]), np.sqrt(9 / 37), rtol=1e-3)
    evidence = dist.Normal(0.0, np.sqrt(9.25)).log_prob(4.0)
    assert_allclose(found.elbos, evidence + np.log(np.where(place > 0, 0.3, 0.7)), atol=1e-3)
    # 1000 resampled from 1000: a standard error of at most 0.0145 twice, six of which are 0.13
    assert abs(np.mean(found.draws["mu"] > 0) - 0.3) < 0.13


# -- what is refused -----------------------------------------------------------------------------


def discrete():
    k = sample("k", dist.Bernoulli(0.5))
    sample("x", dist.Normal(k, 1.0))


def in_a_branch():
    b = sample("b", dist.Normal(0.0, 1.0))
    jax.lax.cond(b > 0, lambda: sample("x", dist.Normal(0.0, 1.0)), lambda: 0.0)


def flat():
    sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
    sample("z", dist.Normal(0.0, 1.0))


def wrong_flow(key, n):
    from flowjax.bijections import Affine

    return Affine(jnp.zeros(n + 1))


@pytest.mark.parametrize(
    "attempt, words",
    [
        (lambda: mean_field(Target(gen(discrete))), '"k" is discrete'),
        (lambda: structured(Target(gen(in_a_branch))), '"x" is made in some branches only'),
        (lambda: mean_field(TARGET, scale=0.0), "scale"),
        (lambda: low_rank(TARGET, 3), "rank"),
        (lambda: full_rank(linear), "A target was expected"),
        (lambda: mean_field(TARGET, start=3.0), "nested dict"),
        (
            lambda: mean_field(Target(below_another), {"x": jnp.array(1.0), "y": jnp.array(0.0)}),
            "no finite point",
        ),
        (lambda: laplace(Target(gen(flat))), '"x"'),
        (lambda: flow(KEY, TARGET, build=wrong_flow), "shape (2,)"),
        (lambda: flow(KEY, TARGET, build=3), "build is no function"),
        (lambda: pathfinder(KEY, TARGET, paths=0), "paths"),
    ],
)
def test_what_has_no_such_guide_is_refused(attempt, words):
    with pytest.raises(PPLError) as caught:
        attempt()
    assert type(caught.value) is InvalidArgument
    assert words in str(caught.value) and "test_guides.py" in str(caught.value)


@pytest.mark.parametrize(
    "module, name, attempt",
    [
        ("flowjax.flows", "flows", lambda: flow(KEY, TARGET)),
        ("blackjax", "pathfinder", lambda: pathfinder(KEY, TARGET)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module, name, attempt):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=rf"giry\[{name}\]"):
        attempt()
