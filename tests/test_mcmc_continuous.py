"""Kernels on continuous latents keep their target, alone and in every composition; and move.

Quadrature where a kernel's draws can be integrated (walks, Langevin, Hamiltonian), e-values
from exact starts where they cannot (trees, slices). Each of the at most 20 random checks of a
right kernel alarms with probability at most ALPHA, by Ville's inequality: 2e-8 together.

Past 400 lines since the same few targets serve every kernel.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from inference import Weighted, as_kernel, cycle, each, hmc, iterate, lift, mh, mixture, nuts, spawn
from inference.mcmc.delayed import FIRST, delayed_acceptance
from inference.mcmc.hmc import Hamiltonian
from inference.mcmc.langevin import mala
from inference.mcmc.metric import Metric, kinetic_energy
from inference.mcmc.random_walk import random_walk
from inference.mcmc.slices import elliptical_slice, prior_draw, slice_sample
from inference.mcmc.space import Space
from ppl import Target, draw, factor, gen, integrate, record, sample, seed, select
from ppl.errors import InvalidArgument
from semantics import check_kernel_quadrature, check_kernel_sampled
from semantics.evidence.e_values import multinomial
from tests.mutants.hamiltonian import RATE

ALPHA = 1e-9
KEY = jax.random.key(20261125)


@gen
def beside():
    """A discrete latent beside those that move; the mean of `x` depends on it."""
    k = sample("k", dist.Bernoulli(0.4))
    x = sample("x", dist.Normal(jnp.where(k == 1, 1.0, -0.5), jnp.array([1.0, 0.5])))
    scale = sample("scale", dist.Gamma(3.0, 2.0))
    sample("y", dist.Normal(x[0] * x[1] + k, scale))


BESIDE = Target(beside, (), {"y": 0.7})
BOTH = select("x", "scale")


def screened(target, selection=None, **how):
    """Delayed acceptance, by a target that the data count for half in."""
    cheap = Target(cheaper, target.args, target.observations)
    return delayed_acceptance(random_walk(cheap, selection, **how), cheap, target)


@gen
def cheaper():
    k = sample("k", dist.Bernoulli(0.5))
    x = sample("x", dist.Normal(jnp.where(k == 1, 0.8, -0.3), jnp.array([1.1, 0.6])))
    scale = sample("scale", dist.Gamma(3.0, 2.0))
    sample("y", dist.Normal(x[0] * x[1] + k, 1.4 * scale))


KERNELS = {
    "random walk": partial(random_walk, selection=BOTH, step_size=0.8, dense=True),
    "mala": partial(mala, selection=BOTH, step_size=0.9),
    "hmc": partial(hmc, selection=BOTH, steps=3, step_size=0.6, dense=True),
    "nuts": partial(nuts, selection=BOTH, step_size=0.6, max_depth=4),
    "slice": partial(slice_sample, selection=BOTH, width=1.0, most=3),
    "slice, direction": partial(slice_sample, selection=BOTH, along="direction", most=2),
    "elliptical slice": partial(elliptical_slice, selection="x"),
    "delayed": partial(screened, selection=BOTH, step_size=0.8),
}


# -- invariance ------------------------------------------------------------------------------------


def composed(make, target):
    """The kernel in a mixture in a cycle with a discrete move, twice."""
    some = mixture([make(target), mh(target, "scale")], [0.8, 0.2])
    return iterate(cycle(mh(target, "k"), some), 2)


def everywhere(make, target):
    """That as a move of particles: three copies of the start move at once, and any of them is
    the result."""
    moves = each(lift(composed(make, target)))

    def kernel(trace):
        moved = moves(spawn(3)(Weighted(trace, jnp.zeros(())))).value
        i = draw(dist.DiscreteUniform(0, 2))
        return jax.tree.map(lambda leaf: leaf[i], moved)

    return kernel


@pytest.mark.slow
@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
def test_kernels_keep_a_target_in_all_compositions(make):
    how = partial(everywhere, make)
    check_kernel_sampled(how, BESIDE, KEY, alpha=ALPHA, sizes=(200, 2000)).require()


QUADRATURE = {
    "random walk": partial(random_walk, step_size=0.8),
    "mala": partial(mala, step_size=0.4),
    "hmc": partial(hmc, steps=3, step_size=0.2),
    "hmc, dense": partial(hmc, steps=2, step_size=0.3, dense=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", QUADRATURE.values(), ids=QUADRATURE)
def test_kernels_are_invariant_to_one_in_a_million(make):
    """On a positive latent, where the Jacobian counts."""
    assert check_kernel_quadrature(make, RATE).require().error <= 1e-6


@gen
def switched():
    k = sample("k", dist.Bernoulli(0.4))
    x = sample("x", dist.Normal(jnp.where(k == 1, 1.0, -0.5), 1.0))
    sample("y", dist.Normal(x + 0.3 * x**2, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("make", [QUADRATURE["hmc"], QUADRATURE["random walk"]])
def test_a_selection_beside_a_discrete_latent_by_quadrature(make):
    target = Target(switched, (), {"y": 1.0})

    def both(target):
        return cycle(make(target, selection="x"), mh(target, "k"))

    def seen(latents):
        return {"k": latents["k"], "x": jnp.sin(latents["x"]), "kx": latents["k"] * latents["x"]}

    verdict = check_kernel_quadrature(both, target, statistics=seen)
    assert verdict.require().error <= 1e-6


@gen
def pair():
    a = sample("a", dist.Normal(0.0, 1.0))
    b = sample("b", dist.Normal(0.5 * a, 1.0))
    sample("y", dist.Normal(a + b, 1.0))


@pytest.mark.slow
def test_two_positions_and_two_momenta_by_quadrature():
    """Four dimensions: a grid of 45^4 points beside the accept step."""
    make = partial(hmc, steps=2, step_size=0.3)
    verdict = check_kernel_quadrature(
        make, Target(pair, (), {"y": 0.7}), nodes=(30, 45), bounds=(-5.5, 5.5)
    )
    assert verdict.require().error <= 1e-6


def test_delayed_acceptance_by_quadrature():
    cheap = Target(RATE.model, (), {"y": 0.9})

    def make(target):
        return delayed_acceptance(random_walk(cheap, step_size=0.8), cheap, target)

    assert check_kernel_quadrature(make, RATE).require().error <= 1e-6


@gen
def normal():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 1.0))


NORMAL = Target(normal, (), {"y": 2.0})
POSTERIOR = stats.norm(1.0, math.sqrt(0.5))

FROM_AFAR = {
    "random walk": random_walk(NORMAL, step_size=1.7),
    "mala": mala(NORMAL, step_size=1.0),
    "hmc": hmc(NORMAL, steps=3, step_size=0.4),
    "nuts": nuts(NORMAL, step_size=0.4),
    "slice": slice_sample(NORMAL),
    "slice, direction": slice_sample(NORMAL, along="direction"),
    "elliptical slice": elliptical_slice(NORMAL),
}


def log_e_from_afar(kernel):
    """Evidence against the posterior as the law of 2000 chains after 60 steps from 2.5."""
    trace = NORMAL.at({"mu": 2.5})[0]
    run = seed(lambda: as_kernel(iterate(kernel, 60))(trace)["mu"])
    found = jax.jit(jax.vmap(run))(jax.random.split(KEY, 2000))
    bins = np.searchsorted(POSTERIOR.ppf(np.arange(1, 10) / 10), np.asarray(found))
    return float(multinomial(np.bincount(bins, minlength=10), np.full(10, 0.1)))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", FROM_AFAR.values(), ids=FROM_AFAR)
def test_kernels_move_to_the_target(kernel):
    """What is left of the start after 60 steps is below 1e-6: each forgets a quarter of it or
    more in a step. So this adds at most 2000 * 1e-6 of a nat to the evidence against it."""
    assert log_e_from_afar(kernel) < -math.log(ALPHA)


def test_a_kernel_that_stays_does_not():
    assert log_e_from_afar(lambda trace: trace) > 1000


# -- what they are ---------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [0.3, 1.0, 4.0])
def test_mala_accepts_by_hastings_ratio_of_langevin_proposals(x):
    """One leapfrog step accepted by energies is Roberts and Tweedie's proposal by densities."""
    h, kernel = 0.9, mala(RATE, step_size=0.9)
    trace = RATE.at({"x": x})[0]
    run = record(lambda: kernel.step(kernel.parameters, kernel.enter(trace))[1]["accept"])
    probability, tape = run(KEY)
    (noise,) = [value for value in tape.values() if jnp.issubdtype(value.dtype, jnp.floating)]

    def potential(z):
        return RATE.potential({"x": z})

    def log_proposal(to, at):
        return stats.norm.logpdf(to, at - h**2 / 2 * jax.grad(potential)(at), h)

    z = jnp.log(x)
    q = z - h**2 / 2 * jax.grad(potential)(z) + h * noise[0]
    ratio = potential(z) - potential(q) + log_proposal(z, q) - log_proposal(q, z)
    # a few dozen operations in float64
    np.testing.assert_allclose(probability, min(1.0, math.exp(ratio)), rtol=1e-12)


def test_momenta_have_the_covariance_of_the_mass_matrix():
    inverse_mass = jnp.array([[2.0, 0.6, 0.1], [0.6, 1.0, -0.2], [0.1, -0.2, 0.5]])
    system = Hamiltonian(Space(BESIDE, BOTH))

    def outer():
        r = system.momentum(inverse_mass)
        return r[:, None] * r

    exact = np.linalg.inv(inverse_mass)
    np.testing.assert_allclose(jax.jit(integrate(outer, nodes=3))(), exact, atol=1e-12)


@pytest.mark.parametrize("inverse_mass", [jnp.array([0.3, 2.0]), jnp.array([[1.0, 0.5], [0.5, 2]])])
def test_steps_have_the_covariance_of_the_metric(inverse_mass):
    metric = Metric(1.0, inverse_mass)
    factor = np.stack([metric.spread(e) for e in jnp.eye(2)], 1)
    full = np.diag(inverse_mass) if inverse_mass.ndim == 1 else inverse_mass
    np.testing.assert_allclose(factor @ factor.T, full, atol=1e-12)
    np.testing.assert_allclose(metric.deviations, np.sqrt(np.diag(full)), atol=1e-12)


def test_no_kinetic_energy_is_negative():
    """Sums of products that overflow, of both signs, were -inf: such a point was accepted."""
    rng = np.random.default_rng(0)
    mass = jnp.asarray(np.cov(rng.normal(size=(10, 30))), jnp.float32)
    r = rng.normal(size=(1000, 10)) * 10.0 ** rng.uniform(15, 28, size=(1000, 1))
    found = jax.jit(jax.vmap(partial(kinetic_energy, mass)))(jnp.asarray(r, jnp.float32))
    exact = 0.5 * np.einsum("ij,jk,ik->i", r, np.asarray(mass, float), r)
    np.testing.assert_array_equal(found[exact > 3.5e38], np.inf)
    small = exact < 1e36
    rounding = 10 * np.linalg.cond(mass) * np.finfo(np.float32).eps
    np.testing.assert_allclose(found[small], exact[small], rtol=rounding)


def test_delayed_acceptance_tunes_the_kernel_of_the_first_stage():
    cheap = Target(normal, (), {"y": 1.0})
    first = random_walk(cheap)
    kernel = delayed_acceptance(first, cheap, NORMAL)
    trace, stats = NORMAL.at({"mu": 0.5})[0], {FIRST + "accept": jnp.asarray(0.9), "accept": 0.1}
    state = kernel.enter(trace)
    found = kernel.tuning.update(kernel.tuning.init(state, 10), state, stats)
    point = first.enter(state.cheap)
    mine = first.tuning.update(first.tuning.init(point, 10), point, {"accept": 0.9})
    assert float(found.metric.step_size) == float(mine.metric.step_size)


@pytest.mark.slow
def test_means_and_draws_of_gaussian_choices_in_loops():
    """Of a plate, a scan and a vector: the means that the rest of the trace gives."""
    covariance = jnp.array([[1.0, 0.5], [0.5, 2.0]])

    @gen
    def model():
        m = sample("m", dist.Gamma(2.0, 1.0))
        plate = jax.vmap(lambda i: sample("plate", dist.Normal(m * i, 1.0)))(jnp.arange(3.0))

        def one(carry, i):
            s = sample("s", dist.Normal(carry, 0.5))
            return carry + m, s

        _, s = jax.lax.scan(one, m, jnp.arange(4))
        sample("vector", dist.MultivariateNormal(jnp.array([m, 1.0]), covariance))
        sample("y", dist.Normal(plate.sum() + s.sum(), 1.0))

    target = Target(model, (), {"y": 0.0})
    paths = [("plate",), ("s",), ("vector",)]
    trace = seed(target.generate)(KEY, {"m": 1.5})[0]
    means, drawn = seed(lambda: prior_draw(target, trace, paths))(KEY)
    assert means[("plate",)].tolist() == [0.0, 1.5, 3.0]
    assert means[("s",)].tolist() == [1.5, 3.0, 4.5, 6.0]
    assert means[("vector",)].tolist() == [1.5, 1.0]
    assert {path: value.shape for path, value in drawn.items()} == {
        ("plate",): (3,),
        ("s",): (4,),
        ("vector",): (2,),
    }
    how = lambda t: elliptical_slice(t, select("plate", "s", "vector"))  # noqa: E731
    check_kernel_sampled(how, target, KEY, alpha=ALPHA, sizes=(200, 2000)).require()


@pytest.mark.parametrize("make", [slice_sample, partial(slice_sample, along="direction")])
def test_a_slice_without_a_density_stays_and_says_so(make):
    @gen
    def undefined():
        x = sample("x", dist.Normal(0.0, 1.0))
        factor(jnp.where(x == x, jnp.nan, 0.0))

    target = Target(undefined)
    kernel = make(target)
    trace = seed(target.generate)(KEY)[0]
    point, stats = seed(kernel.step)(KEY, kernel.parameters, kernel.enter(trace))
    assert bool(stats["refused"])
    assert point.z.tolist() == [float(trace["x"])]


# -- errors ----------------------------------------------------------------------------------------


@gen
def chain():
    k = sample("k", dist.Bernoulli(0.5))
    a = sample("a", dist.Normal(0.0, 1.0))
    b = sample("b", dist.Normal(a, 1.0))
    scale = sample("scale", dist.HalfNormal(1.0))
    c = jax.lax.cond(k == 1, lambda: sample("c", dist.Normal(0.0, 1.0)), lambda: 0.0)
    sample("y", dist.Normal(b + c, scale))


CHAIN = Target(chain, (), {"y": 1.0})


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: elliptical_slice(CHAIN, "scale"), 'The prior of "scale" is not Gaussian.'),
        (lambda: elliptical_slice(CHAIN, "k"), 'The prior of "k" is not Gaussian.'),
        (lambda: elliptical_slice(CHAIN, "c"), '"c" is not always there'),
        (lambda: elliptical_slice(CHAIN, select("a", "b")), 'The prior of "b" depends on what'),
        (lambda: random_walk(CHAIN, "k"), '"k" is discrete'),
        (lambda: slice_sample(CHAIN, "a", along="lines"), "along is none of its choices"),
        (lambda: slice_sample(CHAIN, "a", most=0), "most is not a number"),
        (lambda: delayed_acceptance(mh(NORMAL, "mu"), NORMAL, CHAIN), "other latents"),
    ],
)
def test_what_cannot_be_is_refused(make, what):
    with pytest.raises(InvalidArgument, match=what) as found:
        make()
    assert len(str(found.value).splitlines()) <= 12


def test_latents_in_turn_need_no_joint_prior():
    """Each of a chain of Gaussians is Gaussian given the rest."""
    both = cycle(elliptical_slice(CHAIN, "a"), elliptical_slice(CHAIN, "b"))
    trace = CHAIN.at({"k": 0, "a": 0.1, "b": 0.2, "scale": 1.0, "c": 0.0})[0]
    moved = seed(both)(KEY, trace)
    assert float(moved["a"]) != 0.1 and float(moved["b"]) != 0.2
    assert float(moved.score) == pytest.approx(float(CHAIN.log_density(CHAIN.choices(moved))))
