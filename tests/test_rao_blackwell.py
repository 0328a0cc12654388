"""Gaussian parts summed out: Kalman's numbers, and whole measures by enumeration of the rest.

Past 400 lines since the same few models and their enumeration serve both kinds of latents.
"""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from inference import (
    Belief,
    conditional_filter,
    filter_beliefs,
    genealogy,
    lift,
    log_evidence,
    marginal,
    mh,
    multinomial,
    particle_filter,
    rao_blackwell,
    start,
    then,
    unit,
)
from ppl import (
    Masked,
    Target,
    draw,
    factor,
    gen,
    integrate,
    observe,
    repeat,
    sample,
    select,
)
from ppl import seed as seeded
from ppl.affine import AFFINE, CONSTANT, orders
from ppl.errors import AddressNotFound, InvalidArgument, ShapeError
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a million products of densities in float64


def kalman(mean, cov, steps):
    """Log evidence, mean and covariance: textbook, with inverses (Kalman 1960).

    Each step is (F, b, Q, H, c, R, y); y None is missing.
    """
    total = 0.0
    for f, b, q, h, c, r, y in steps:
        mean, cov = f @ mean + b, f @ cov @ f.T + q
        if y is None:
            continue
        s = h @ cov @ h.T + r
        e = y - h @ mean - c
        total -= 0.5 * (e @ np.linalg.inv(s) @ e + np.log(np.linalg.det(2 * np.pi * s)))
        gain = cov @ h.T @ np.linalg.inv(s)
        mean, cov = mean + gain @ e, cov - gain @ h @ cov
    return total, mean, cov


# -- all linear and Gaussian: nothing is sampled ------------------------------------------------

RNG = np.random.default_rng(0)
F = np.array([[0.9, 0.3, 0.0], [-0.2, 0.8, 0.1], [0.0, 0.1, 0.7]])
Q = np.array([[0.5, 0.1, 0.0], [0.1, 0.4, 0.1], [0.0, 0.1, 0.3]])
H = np.array([[1.0, 0.5, 0.0], [0.0, 0.3, 1.0]])
R = np.array([[0.3, 0.1], [0.1, 0.4]])
YS = RNG.normal(size=(6, 2))
XS = RNG.normal(size=6)
FIRST = RNG.normal(size=3)
SPREAD = np.diag([1.0, 0.0, 2.0])  # the second is known


@gen
def vector(z, x):
    z = sample("z", dist.MultivariateNormal(F @ z + x, Q))
    sample("y", dist.MultivariateNormal(H @ z - 1.0, R))
    return z, 2 * z[0]


@gen
def scalars(state, x):
    """The same by scalars, in a state that is a dict, in a nested call, in another order."""

    def body(z):
        mean = F @ z + x
        factor = np.linalg.cholesky(Q)
        e = [sample(f"e{i}", dist.Normal(0.0, 1.0)) for i in range(3)]
        return mean + factor @ jnp.stack(e)

    z = jnp.array([state["b"], *state["a"]])
    z = sample("moves", gen(body)(z))
    noise = np.linalg.cholesky(R)
    u = sample("u", dist.Normal(0.0, noise[0, 0]))
    first = jnp.dot(H[0], z) - 1.0 + u
    sample("first", dist.Normal(first, 1e-7))
    second = jnp.dot(H[1], z) - 1.0 + noise[1, 0] / noise[0, 0] * u
    sample("second", dist.Normal(second, noise[1, 1]))
    return {"a": z[1:], "b": z[0]}, {"twice": 2 * z[0], "x": x}


def steps_of(ys=YS):
    return [(F, np.full(3, x), Q, H, np.full(2, -1.0), R, y) for x, y in zip(XS, ys, strict=True)]


def run(step, start, ys, n=1, key=0, **options):
    found = lambda: particle_filter(step, start, ys, n, **options)  # noqa: E731
    return jax.jit(seeded(found))(jax.random.key(key))


def test_a_linear_gaussian_model_is_kalmans():
    """Evidence, mean and covariance after each step, to rounding: within 1e-12 of size 1 to 20."""
    step, start = rao_blackwell(vector, "z", jnp.asarray(FIRST), XS[0])
    start = replace(start, covariance=jnp.asarray(SPREAD))
    record = lambda s: (s.value.state[0], s.value.covariance[0])  # noqa: E731
    found = run(step, start, {"y": YS}, xs=XS, record=record)
    for t in range(6):
        total, mean, cov = kalman(FIRST, SPREAD, steps_of()[: t + 1])
        np.testing.assert_allclose(found.history.log_evidence[t], total, rtol=0, atol=EXACT)
        np.testing.assert_allclose(found.history.record[0][t], mean, rtol=0, atol=EXACT)
        np.testing.assert_allclose(found.history.record[1][t], cov, rtol=0, atol=EXACT)
    trace, _ = jax.jit(seeded(step.generate))(jax.random.key(0), {"y": YS[0]}, start, XS[0])
    assert abs(trace.retval[1] - 2 * trace.retval[0].state[0]) < EXACT


def test_scalars_in_a_nested_call_are_the_same():
    """But for the noise of 1e-7, of a relative 1e-13 in variance, at condition numbers of 10."""
    init = {"a": jnp.asarray(FIRST[1:]), "b": jnp.asarray(FIRST[0])}
    step, start = rao_blackwell(scalars, select("moves", "u"), init, XS[0])
    order = np.array([1, 2, 0])
    start = replace(start, covariance=jnp.asarray(SPREAD[np.ix_(order, order)]))
    assert list(step.sites(start, XS[0])) == [("first",), ("second",)]
    ys = {"first": YS[:, 0], "second": YS[:, 1]}
    found = run(step, start, ys, xs=XS).particles
    total, mean, cov = kalman(FIRST, SPREAD, steps_of())
    belief = jax.tree.map(lambda leaf: leaf[0], found.value)
    np.testing.assert_allclose(found.log_weight[0], total, rtol=0, atol=1e-9)
    np.testing.assert_allclose(belief.state["b"], mean[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(belief.state["a"], mean[1:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(belief.covariance, cov[np.ix_(order, order)], rtol=0, atol=1e-9)
    trace, _ = jax.jit(step.generate)({"first": 0.0, "second": 1.0}, start, 0.5)
    assert set(trace.retval[1]) == {"twice", "x"} and trace.retval[1]["x"] == 0.5


@pytest.mark.slow
def test_the_gradient_of_the_evidence_is_that_of_kalmans():
    """By the score of the joint normal of all data: an independent derivative, to rounding."""

    def ours(theta):
        @gen
        def walk(z, _):
            z = sample("z", dist.Normal(theta[0] * z, jnp.exp(theta[1])))
            sample("y", dist.Normal(z, jnp.exp(theta[2])))
            return z, None

        step, start = rao_blackwell(walk, "z", 0.3)
        run = seeded(
            lambda: log_evidence(particle_filter(step, start, {"y": YS[:, 0]}, 1).particles)
        )
        return run(jax.random.key(0))

    def joint(theta):
        powers = jnp.tril(theta[0] ** jnp.maximum(jnp.arange(6)[:, None] - jnp.arange(6), 0))
        cov = jnp.exp(2 * theta[1]) * powers @ powers.T + jnp.exp(2 * theta[2]) * jnp.eye(6)
        mean = 0.3 * theta[0] ** jnp.arange(1, 7)
        return dist.MultivariateNormal(mean, cov).log_prob(YS[:, 0])

    theta = jnp.array([0.8, -0.5, 0.1])
    for derivative in (jax.grad, jax.hessian):
        found, expected = (
            jax.jit(derivative(f), compiler_options=QUICK)(theta) for f in (ours, joint)
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


def test_long_series_in_single_precision_stay_positive():
    """Position and speed, nearly noiseless, from a diffuse start: 3,000 steps in float32.

    The evidence is that in float64 but for rounding: of each of 3,000 terms, of size 10 at most,
    some 30 operations, and of their sum.
    """

    @gen
    def ballistic(z, _):
        z = sample("z", dist.MultivariateNormal(jnp.array([z[0] + z[1], z[1]]), 1e-4 * jnp.eye(2)))
        sample("y", dist.Normal(z[0], 1.0))
        return z, None

    def total(x64):
        with jax.enable_x64(x64):
            step, start = rao_blackwell(ballistic, "z", jnp.zeros(2))
            start = replace(start, covariance=1e6 * jnp.eye(2))
            ys = {"y": jnp.asarray(np.random.default_rng(1).normal(size=3000), float)}
            keep = lambda s: s.value.covariance[0]  # noqa: E731
            found = run(step, start, ys, record=keep)
            assert found.particles.log_weight.dtype == (jnp.float64 if x64 else jnp.float32)
            lowest = np.linalg.eigvalsh(np.asarray(found.history.record, np.float64))[:, 0]
            return float(found.particles.log_weight[0]), lowest

    (single, lowest), (double, _) = total(False), total(True)
    assert (lowest > 0).all()
    assert abs(single - double) < 3000 * 10 * 30 * 2**-24


# -- regimes sampled, the rest summed out --------------------------------------------------------

MOVES = np.array([[0.7, 0.3], [0.4, 0.6]])
SLOPE, STEP, NOISE = np.array([0.9, -0.5]), np.array([0.3, 1.2]), np.array([0.4, 0.9])
SEEN = np.array([0.8, -1.1, 0.4])
INPUT = np.array([0.1, 0.5, -0.2])


@gen
def switching(state, x):
    z, k = state
    k = sample("k", dist.Categorical(jnp.asarray(MOVES)[k]))
    z = sample("z", dist.Normal(jnp.asarray(SLOPE)[k] * z + x, jnp.asarray(STEP)[k]))
    sample("y", dist.Normal(2.0 * z, jnp.asarray(NOISE)[k]))
    return (z, k), None


@gen
def branching(state, x):
    """The same, with regimes as branches: in the second the noise is a summed choice."""
    z, k = state
    k = sample("k", dist.Categorical(jnp.asarray(MOVES)[k]))

    def calm(z):
        return sample("z", dist.Normal(SLOPE[0] * z + x, STEP[0]))

    def wild(z):
        return SLOPE[1] * z + x + STEP[1] * sample("e", dist.Normal(0.0, 1.0))

    z = lax.cond(k == 0, calm, wild, z)
    sample("y", dist.Normal(2.0 * z, jnp.asarray(NOISE)[k]))
    return (z, k), None


def of_paths(steps, missing=()):
    """By regimes, the mass p(path, y) and the mean of z given both."""
    found = {}
    for path in itertools.product((0, 1), repeat=steps):
        prior, before, model = 1.0, 0, []
        one = np.eye(1)
        for t, k in enumerate(path):
            prior, before = prior * MOVES[before, k], k
            y = None if t in missing else SEEN[t : t + 1]
            model.append(
                (SLOPE[k] * one, INPUT[t : t + 1], STEP[k] ** 2 * one, 2 * one, 0.0,
                 NOISE[k] ** 2 * one, y)
            )  # fmt: skip
        total, mean, cov = kalman(np.array([0.2]), np.array([[0.5]]), model)
        found[path] = prior * np.exp(total), mean[0], cov[0, 0]
    return found


def marginal_of(model):
    names = select("z", "e") if model is branching else "z"
    step, start = rao_blackwell(model, names, (0.2, 0), 0.1)
    return step, replace(start, covariance=jnp.array([[0.5]]))


@gen
def guess(belief, x, observed):
    """A proposal that looks at the belief and at what is seen."""
    far = jnp.abs(observed["y"] - 2 * belief.state[0]) > 1
    sample("k", dist.Categorical(jnp.where(far, jnp.array([0.2, 0.8]), jnp.array([0.6, 0.4]))))


FILTERS = {
    "bootstrap": {"threshold": 1.0},
    "adaptive": {"threshold": 0.9},
    "guided": {"threshold": 0.9, "proposal": guess},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", [switching, branching], ids=["selects", "branches"])
@pytest.mark.parametrize("n, steps", [(2, 3), (3, 2)])
@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
def test_the_measure_of_regime_mean_and_covariance_is_exact(options, n, steps, model):
    step, start = marginal_of(model)

    def measure():
        ys = {"y": jnp.asarray(SEEN[:steps])}
        s = particle_filter(
            step, start, ys, n, xs=jnp.asarray(INPUT[:steps]), scheme=multinomial, **options
        ).particles
        z, k = s.value.state
        of = jnp.stack([jnp.ones(n), z, z**2, s.value.covariance[:, 0, 0]], -1)
        here = (k[:, None] == jnp.arange(2))[:, :, None] * of[:, None, :]
        return (jnp.exp(s.log_weight)[:, None, None] * here).mean(0)

    expected = np.zeros((2, 4))
    for path, (mass, mean, var) in of_paths(steps).items():
        expected[path[-1]] += mass * np.array([1.0, mean, mean**2, var])
    found = jax.jit(integrate(measure), compiler_options=QUICK)()
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


@pytest.mark.slow
def test_conditional_filters_and_genealogies_take_beliefs():
    """The law of regimes' paths from `conditional_filter`, given each of them in turn, is kept."""
    step, start = marginal_of(switching)
    mass = {path: found[0] for path, found in of_paths(2).items()}
    ys, xs = {"y": jnp.asarray(SEEN[:2])}, jnp.asarray(INPUT[:2])

    def after(path):
        found = conditional_filter(step, start, ys, {"k": path}, 2, xs=xs)
        s = genealogy(found)
        code = (s.value["k"] * jnp.array([2, 1])).sum(-1)
        weights = jnp.exp(s.log_weight)[:, None]
        return (weights * (code[:, None] == jnp.arange(4))).sum(0) / weights.sum()

    moved = jax.jit(jax.vmap(integrate(after)))(jnp.array(list(mass)))
    expected = np.array(list(mass.values()))
    np.testing.assert_allclose(expected @ np.asarray(moved), expected, rtol=0, atol=EXACT)


def test_missing_data_in_a_branch_are_left_out():
    """No draw in the place of what is missing: one number, not its mean over draws."""

    @gen
    def with_gaps(state, x):
        z, k = state
        k = sample("k", dist.Categorical(jnp.asarray(MOVES)[k]))
        z = sample("z", dist.Normal(jnp.asarray(SLOPE)[k] * z + x["in"], jnp.asarray(STEP)[k]))
        noise = jnp.asarray(NOISE)[k]
        lax.cond(x["seen"], lambda: sample("y", dist.Normal(2.0 * z, noise)), lambda: 0.0)
        return (z, k), None

    seen = jnp.array([True, False, True])
    xs = {"in": jnp.asarray(INPUT), "seen": seen}
    step, start = rao_blackwell(with_gaps, "z", (0.2, 0), jax.tree.map(lambda leaf: leaf[0], xs))
    start = replace(start, covariance=jnp.array([[0.5]]))

    def measure(shift):
        ys = {"y": Masked(jnp.asarray(SEEN) + shift * ~seen, seen)}
        s = particle_filter(step, start, ys, 2, xs=xs, scheme=multinomial).particles
        of = jnp.stack([jnp.ones(2), s.value.state[0]], -1)
        return (jnp.exp(s.log_weight)[:, None] * of).mean(0)

    # a masked datum is drawn, and the draw not used: any rule is exact
    found = [jax.jit(integrate(measure, nodes=2))(shift) for shift in (0.0, 5.0)]
    masses = of_paths(3, missing=(1,)).values()
    expected = [sum(m for m, *_ in masses), sum(m * mean for m, mean, _ in masses)]
    np.testing.assert_allclose(found, [expected] * 2, rtol=0, atol=EXACT)


def test_what_is_drawn_from_a_belief_is_conditioned_on():
    """An unobserved choice is drawn by its predictive law: the state's law is that without it."""
    step, start = marginal_of(switching)

    def moments():
        s = particle_filter(step, start, {"k": jnp.array([1])}, 1, xs=jnp.array([0.1])).particles
        z, var = s.value.state[0][0], s.value.covariance[0, 0, 0]
        return jnp.exp(s.log_weight[0]) * jnp.array([1.0, z, z**2 + var])

    found = jax.jit(integrate(moments, nodes=8))()  # polynomials of degree 2 in the draw
    mean = SLOPE[1] * 0.2 + 0.1
    second = mean**2 + SLOPE[1] ** 2 * 0.5 + STEP[1] ** 2
    np.testing.assert_allclose(found, MOVES[0, 1] * np.array([1, mean, second]), atol=EXACT)


def test_weights_vary_no_more_than_those_of_particles_with_values():
    """E[w^2] of one particle, both exactly: sums over regimes, and Gauss's rule for the values.

    By the law of total variance the one is at most the other (Doucet et al. 2000). Gauss's rule
    converges geometrically, so that the error at 40 nodes is below the difference to 30.
    """
    ys, xs = {"y": jnp.asarray(SEEN[:2])}, jnp.asarray(INPUT[:2])

    def moments(step, start):
        s = particle_filter(step, start, ys, 1, xs=xs, scheme=multinomial).particles
        return jnp.exp(s.log_weight[0] * jnp.arange(1, 3))

    step, start = rao_blackwell(switching, "z", (0.2, 0), 0.1)
    mean, square = jax.jit(integrate(partial(moments, step, start)))()
    found, error = jax.jit(integrate(partial(moments, switching, (0.2, 0)), nodes=(30, 40)))()
    assert abs(found[0] - mean) < error[0]
    assert found[1] - square > error[1]


# -- as the estimate of a marginal --------------------------------------------------------------


@gen
def series():
    """A parameter, data outside of the series, and a factor of what it returns besides."""
    theta = sample("theta", dist.Bernoulli(0.4))
    sample("w", dist.Normal(1.0 * theta, 1.0))

    def step(state, x):
        state = switching_with(theta, state, x)
        return state, x

    _, xs = lax.scan(step, (0.2, 0), jnp.asarray(INPUT[:2]))
    factor(xs.sum() * theta)


def switching_with(theta, state, x):
    z, k = state
    k = sample("k", dist.Categorical(jnp.asarray(MOVES)[k]))
    z = sample("z", dist.Normal(jnp.asarray(SLOPE)[k] * z + x + theta, jnp.asarray(STEP)[k]))
    sample("y", dist.Normal(2.0 * z, jnp.asarray(NOISE)[k]))
    return z, k


def joint_mass(theta):
    """p(theta, w, y) and the factor: regimes one by one, a Kalman filter for each."""
    total = 0.0
    for path in itertools.product((0, 1), repeat=2):
        prior, before, model, one = 1.0, 0, [], np.eye(1)
        for t, k in enumerate(path):
            prior, before = prior * MOVES[before, k], k
            model.append(
                (SLOPE[k] * one, INPUT[t : t + 1] + theta, STEP[k] ** 2 * one, 2 * one, 0.0,
                 NOISE[k] ** 2 * one, SEEN[t : t + 1])
            )  # fmt: skip
        total += prior * np.exp(kalman(np.array([0.2]), np.zeros((1, 1)), model)[0])
    outside = [0.6, 0.4][theta] * np.exp(-0.5 * (0.7 - theta) ** 2) / np.sqrt(2 * np.pi)
    return total * outside * np.exp(INPUT[:2].sum() * theta)


@pytest.mark.slow
def test_kernels_on_the_parameters_are_exact():
    """Particle marginal Metropolis-Hastings with beliefs keeps the parameter's exact measure."""
    target = Target(series, (), {"w": 0.7, "y": jnp.asarray(SEEN[:2])})
    kept = marginal(
        target,
        "theta",
        lambda rest: filter_beliefs(rest, select("k", "z"), "z", 2, scheme=multinomial),
    )

    def measure(step):
        def run():
            s = step(unit())
            return jnp.exp(s.log_weight) * (s.value["theta"] == jnp.arange(2))

        return jax.jit(integrate(run), compiler_options=QUICK)()

    expected = [joint_mass(theta) for theta in (0, 1)]
    for step in (start(kept), then(start(kept), lift(mh(kept, "theta")))):
        np.testing.assert_allclose(measure(step), expected, rtol=0, atol=EXACT)


# -- more shapes, and what is passed by ---------------------------------------------------------


def test_arrays_of_any_shape_and_steps_beside_them():
    """A matrix seen through another; loops, maps, factors and draws that have nothing to do
    with it; `jit` and `checkpoint` around what has."""
    weights, scales = RNG.normal(size=(2, 2)), np.array([[0.5, 1.0], [2.0, 0.7]])

    @gen
    def matrices(z, x):
        flips = sample("flips", repeat(gen(lambda: sample("f", dist.Bernoulli(0.5))), 2)())
        factor(x * flips.sum())
        shift = lax.fori_loop(0, 2, lambda i, s: s + draw(dist.Bernoulli(1.0)), 0)
        z = jax.checkpoint(lambda z: sample("z", dist.Normal(weights @ z, scales).to_event(1)))(z)
        seen = jax.jit(lambda z: (z.T + shift).astype(float))(z)
        sample("y", dist.Normal(seen, 0.5).to_event(2))
        return z, None

    step, start = rao_blackwell(matrices, "z", jnp.ones((2, 2)), 0.3)
    assert step.sites(start, 0.3)[("y",)].shape == (2, 2)
    ys = {"y": RNG.normal(size=(3, 2, 2))}

    def mass():
        s = particle_filter(step, start, ys, 1, xs=jnp.full(3, 0.3), scheme=multinomial).particles
        return jnp.exp(s.log_weight[0])

    f = np.kron(weights, np.eye(2))
    swap = np.eye(4)[[0, 2, 1, 3]]
    model = [
        (f, 0.0, np.diag(scales.ravel() ** 2), swap, np.full(4, 2.0), 0.25 * np.eye(4), y.ravel())
        for y in ys["y"]
    ]
    expected = kalman(np.ones(4), np.zeros((4, 4)), model)[0] + 6 * np.log((1 + np.exp(0.3)) / 2)
    found = jnp.log(jax.jit(integrate(mass))())
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


def test_whether_code_is_affine_is_never_wrong():
    """Affine code has one Jacobian everywhere; what has not is not said to be affine."""
    a, zs = jnp.asarray(RNG.normal(size=(3, 3))) + 3 * jnp.eye(3), RNG.normal(size=(2, 3))
    affine = [
        lambda z: a @ z,
        lambda z: jnp.where(a[0] > 0, z, 1.0),
        lambda z: jnp.linalg.solve(a, z),
        lambda z: lax.fori_loop(0, 3, lambda i, s: a @ s, z),
        lambda z: z.at[1].set(2.0).at[0].add(z[2]),
        lambda z: jnp.stack([z[1], 1.0]),
        lambda z: lax.cond(a[0, 0] > 0, lambda z: 2 * z, lambda z: z, z),
        lambda z: (z / a[0]).mean() + z[jnp.argmax(a[0])],
        lambda z: jnp.roll(z, 1),
    ]
    curved = [
        lambda z: z * z,
        lambda z: z @ z,
        lambda z: jnp.maximum(z, 0),
        lambda z: a[0] / z,
        lambda z: a[jnp.argmax(z)],
        lambda z: z > 0,
        lambda z: z.astype(int),
        lambda z: lax.cond(z[0] > 0, lambda: 1.0, lambda: 2.0),
        lambda z: lax.fori_loop(0, 3, lambda i, s: s * z, z),
        jnp.exp,
        jnp.floor,
        jnp.sort,
        jax.nn.relu,
        lax.stop_gradient,
    ]
    for f in affine:
        (order,) = orders(lambda z, f=f: [f(z)], [zs[0]], [AFFINE])
        assert order == AFFINE
        one, other = (jax.jacfwd(f)(z) for z in zs)
        np.testing.assert_allclose(one, other, rtol=0, atol=EXACT)
    for f in curved:
        (order,) = orders(lambda z, f=f: [f(z)], [zs[0]], [AFFINE])
        assert order.degree == 2 and order.why
    assert orders(lambda z: [jnp.exp(z)], [zs[0]], [CONSTANT]) == [CONSTANT]


def test_loops_and_copies_are_as_written_out():
    """The same step by a loop and a `vmap`, and by names: one filter, to rounding."""

    @gen
    def looped(z, _):
        z = sample("z", dist.Normal(0.9 * z, 1.0))

        def one(w, _):
            w = sample("w", dist.Normal(w, 0.5))
            sample("y", dist.Normal(w, 0.3))
            return w, None

        w, _ = lax.scan(one, z, None, length=3)
        jax.vmap(lambda slope: sample("v", dist.Normal(slope * z, 1.0)))(jnp.arange(1.0, 3.0))
        return z + 0.1 * w, 2 * w

    @gen
    def written(z, _):
        z = w = sample("z", dist.Normal(0.9 * z, 1.0))
        for i in range(3):
            w = sample(f"w{i}", dist.Normal(w, 0.5))
            sample(f"y{i}", dist.Normal(w, 0.3))
        sample("v", dist.Normal(jnp.arange(1.0, 3.0) * z, 1.0))
        return z + 0.1 * w, 2 * w

    ys, vs = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))
    found = []
    for model, data in ((looped, {"y": ys}), (written, {f"y{i}": ys[:, i] for i in range(3)})):
        names = select("z", *(["w"] if model is looped else [f"w{i}" for i in range(3)]))
        found.append(run(*rao_blackwell(model, names, 0.3), {**data, "v": vs}).particles)
    one, other = found
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=EXACT),
        (one.value, one.log_weight),
        (other.value, other.log_weight),
    )


# -- what cannot be -----------------------------------------------------------------------------


def stepping(body, z="z"):
    """A step that makes z, and then something of it."""

    def step(state, _):
        value = sample(z, dist.Normal(state, 1.0))
        return body(value), None

    return gen(step)


def then_choice(d):
    return stepping(lambda z: (sample("k", d(z)), z)[1])


def put_out(z):
    seen = lambda c, _: (c + sample("y", dist.Normal(c, 1.0)), c)  # noqa: E731
    return lax.scan(seen, z, None, length=2)[1][1]


def in_a_branch(z):
    lax.cond(z > 0, lambda: sample("y", dist.Normal(0.0, 1.0)), lambda: 0.0)
    return z


REFUSED = {
    "another kind": (then_choice(lambda z: dist.Bernoulli(logits=z)), '"k" does not depend in a'),
    "scale": (then_choice(lambda z: dist.Normal(0.0, jnp.abs(z) + 1.0)), "a scale that depends"),
    "curved mean": (then_choice(lambda z: dist.Normal(jnp.exp(z), 1.0)), "made by `exp`"),
    "heavy tails": (then_choice(lambda z: dist.StudentT(3.0, z, 1.0)), "a choice from StudentT"),
    "factor": (stepping(lambda z: (factor(z), z)[1]), "A factor does not depend"),
    "observe": (stepping(lambda z: (observe(dist.Normal(z, 1.0), 0.0), z)[1]), "by address"),
    "draw": (stepping(lambda z: (draw(dist.Normal(z, 1.0)), z)[1]), "A draw does not depend"),
    "put out": (stepping(put_out), 'what a loop with "y" puts out'),
    "branch": (stepping(in_a_branch), "a choice between branches"),
    "state": (stepping(jnp.sin), "the next state, made by `sin`"),
    "rounded state": (stepping(jnp.floor), "the next state, made by `floor`"),
    "y": (gen(lambda z, _: (z, sample("z", dist.Normal(z, 1.0)) ** 2)), "y, made by"),
    "no pair": (gen(lambda z, _: sample("z", dist.Normal(z, 1.0))), "that is no pair"),
    "structure": (stepping(lambda z: (z, z)), "another structure"),
    "half normal": (gen(lambda z, _: (sample("z", dist.HalfNormal(1.0)), None)), "HalfNormal"),
}


@pytest.mark.parametrize("model, says", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(model, says):
    with pytest.raises(InvalidArgument, match=says) as found:
        rao_blackwell(model, "z", 0.0)
    assert "test_rao_blackwell.py" in str(found.value)
    assert '"z"' in str(found.value) or says in ("that is no pair", "another structure")
    assert len(str(found.value).splitlines()) <= 12


def test_other_names_and_sizes_are_refused():
    with pytest.raises(AddressNotFound, match='did you mean "z"'):
        rao_blackwell(vector, "zz", jnp.zeros(3), 0.0)
    step, start = rao_blackwell(vector, "z", jnp.zeros(3), 0.0)
    with pytest.raises(ShapeError, match="size of its Gaussian leaves"):
        step.sites(Belief(start.state, jnp.eye(2)), 0.0)
