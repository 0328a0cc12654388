"""NumPyro models keep their density; targets are potentials for NumPyro's samplers.

Densities are compared at draws from the models, to 1e-10: sums of some ten terms
of size up to 1e3 in float64, computed in two ways.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from budget import level_of
from numpyro import handlers
from numpyro.contrib.control_flow import cond as numpyro_cond
from numpyro.contrib.control_flow import scan as numpyro_scan
from numpyro.infer import HMC
from numpyro.infer.util import log_density, potential_energy
from scipy.stats import norm

from ppl import Target, gen, paths, sample, seed
from ppl.errors import (
    InvalidArgument,
    PPLError,
    PythonControlFlow,
    ShapeError,
    SupportError,
)
from ppl.interop import from_numpyro
from semantics import check_kernel_sampled, numpyro_kernel

Y = jnp.array([28.0, 8.0, -3.0, 7.0])
SIGMA = jnp.array([15.0, 10.0, 16.0, 11.0])
WHERE = jnp.array([True, False, True, True])


def schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("J", len(sigma)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def plates(y):
    with numpyro.plate("a", 4, dim=-1):
        p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("b", 2, dim=-2):
            x = numpyro.sample("x", dist.Gamma(2.0, jnp.array([1.0, 2.0, 3.0, 4.0])))
    numpyro.sample("w", dist.Normal(0.0, jnp.ones((4, 3))).to_event(1), sample_shape=(2,))
    numpyro.sample("cov", dist.LKJCholesky(3, 2.0))
    numpyro.sample("y", dist.Normal(x.sum(), p.max()), obs=y)  # the data broadcast


def scored(y):
    a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
    numpyro.factor("one", -0.5 * a)
    with numpyro.plate("J", 4), handlers.scale(scale=2.5):
        b = numpyro.sample("b", dist.Normal(a, 1.0))
        numpyro.factor("many", -b * b)
        numpyro.sample("y", dist.Normal(b, 1.0), obs=y)


def masked(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with handlers.mask(mask=WHERE), numpyro.plate("J", 4):
        b = numpyro.sample("b", dist.Exponential(jnp.exp(a)))
        with handlers.scale(scale=0.5):
            numpyro.sample("c", dist.Normal(b, 1.0))
        numpyro.sample("y", dist.Normal(a, 1.0), obs=jnp.where(WHERE, y, jnp.nan))
    numpyro.sample("d", dist.Normal(0.0, jnp.ones(4)).mask(WHERE).to_event(1))
    with numpyro.plate("K", 2, dim=-2), numpyro.plate("J2", 4, dim=-1):
        numpyro.sample("e", dist.Normal(a, jnp.ones(4)).mask(~WHERE))
    numpyro.sample("f", dist.Normal(a, jnp.ones(4)), obs=y, obs_mask=WHERE)


def series(y):
    def step(x, y):
        x = numpyro.sample("x", dist.Normal(0.9 * x, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, 2 * x

    start = numpyro.sample("start", dist.Normal(0.0, 1.0))
    _, twice = numpyro_scan(step, start, y)
    numpyro.deterministic("twice", twice)


def reparametrised(y):
    with handlers.reparam(config={"x": numpyro.infer.reparam.LocScaleReparam(0.0)}):
        x = numpyro.sample("x", dist.Normal(3.0, 2.0))
    with handlers.scope(prefix="inner"):
        numpyro.sample("z", dist.Normal(x, 1.0))


def kept(y):
    numpyro.sample("u", dist.Normal(numpyro.sample("v", dist.Normal(0.0, 1.0)), 1.0))


MODELS = {
    "schools": (schools, (SIGMA, Y)),
    "plates": (plates, (Y,)),
    "scored": (scored, (Y,)),
    "masked": (masked, (Y,)),
    "series": (series, (Y,)),
    "reparametrised": (reparametrised, (Y,)),
    "conditioned": (handlers.condition(kept, {"u": jnp.array(0.3)}), (Y,)),
    "substituted": (handlers.substitute(kept, {"v": jnp.array(0.3)}), (Y,)),
}
each = pytest.mark.parametrize("model, args", MODELS.values(), ids=MODELS.keys())


LONG = {"plates", "masked"}


@pytest.mark.parametrize(
    "model, args",
    [
        pytest.param(*m, id=k, marks=pytest.mark.slow if k in LONG else ())
        for k, m in MODELS.items()
    ],
)
def test_density_and_potential(model, args):
    target = Target(from_numpyro(model), args)
    mine, theirs = [], []
    for i in range(3):
        values = target.choices(seed(target.generate)(jax.random.key(i))[0])
        mine.append(target.log_density(values))
        theirs.append(log_density(model, args, {}, values)[0])
        z = target.unconstrain(values)
        u, du = jax.jit(jax.value_and_grad(target.potential))(z)
        v, dv = jax.jit(jax.value_and_grad(lambda z: potential_energy(model, args, {}, z)))(z)
        if model is masked:  # numpyro masks the Jacobian of a masked site, here exp
            v -= z["b"][~WHERE].sum()
            dv["b"] -= ~WHERE
        np.testing.assert_allclose(u, v, rtol=0, atol=1e-10)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), du, dv)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)
    assert len(set(map(float, mine))) == 3


def test_sites_and_return_value():
    gf = from_numpyro(schools)
    assert {p[0]: s.shape for p, s in gf.sites(SIGMA, Y).items()} == {
        "mu": (),
        "tau": (),
        "z": (4,),
    }
    assert ("y",) in gf.sites(SIGMA)  # without obs it is a choice
    assert "test_interop.py" in gf.sites(SIGMA)[("mu",)].source
    trace = seed(gf.simulate)(jax.random.key(0), SIGMA)
    np.testing.assert_allclose(trace.retval["theta"], trace["mu"] + trace["tau"] * trace["z"])


def test_masked_choices_are_properly_weighted():
    """generate's total mass is the integral of the density, masked elements counting one each."""

    def model():
        with handlers.mask(mask=jnp.array([True, False])), handlers.scale(scale=2.0):
            numpyro.sample("x", dist.Bernoulli(jnp.array([0.3, 0.3])))

    weights, p = jax.jit(paths(lambda: jnp.exp(from_numpyro(model).generate({})[1])))()
    assert float((weights * p).sum()) == pytest.approx(2 * (0.3**2 + 0.7**2), abs=1e-12)


def test_inside_our_models_and_control_flow():
    def inner(p):
        x = jax.lax.cond(
            p > 0.5,
            lambda: numpyro.sample("x", dist.Bernoulli(p)),
            lambda: 1 - numpyro.sample("x", dist.Bernoulli(1 - p)),
        )
        numpyro.deterministic("out", x)

    gf = from_numpyro(inner)
    outer = gen(lambda p: jax.vmap(lambda q: sample("sub", gf(q))["out"])(p))
    with handlers.seed(rng_seed=0), handlers.trace() as outside:
        score, out = outer.assess({"sub": {"x": jnp.array([1, 1])}}, jnp.array([0.25, 0.75]))
    assert not outside
    np.testing.assert_allclose(score, 2 * np.log(0.75))
    np.testing.assert_array_equal(out, [0, 1])


def test_static_arguments():
    def model(n, loc):
        with numpyro.plate("n", n):
            numpyro.sample("x", dist.Normal(loc, 1.0))

    assert from_numpyro(model, static_argnames=("n",)).sites(3, 0.0)[("x",)].shape == (3,)
    with pytest.raises(PythonControlFlow):
        from_numpyro(model).sites(3, 0.0)


@pytest.mark.slow
def test_a_kernel_of_numpyro_samples_our_model():
    """HMC driven by `Target.potential` leaves the posterior invariant: an e-value from exact
    starts (false alarm 1e-8); without the potential's data it does not."""

    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        scale = sample("scale", dist.LogNormal(0.0, 0.5))
        sample("y", dist.Normal(mu, scale * jnp.ones(4)))

    def hmc(potential):
        return HMC(
            potential_fn=potential,
            step_size=0.4,
            trajectory_length=None,
            num_steps=3,
            adapt_step_size=False,
        )

    def kernel(target):
        return numpyro_kernel(hmc, target)

    def blind(target):
        return numpyro_kernel(hmc, Target(model, (), {"y": jnp.zeros(4)}))

    target = Target(model, (), {"y": jnp.zeros(4)})
    level = level_of("a kernel of numpyro on our potential")
    how = {"alpha": level, "sizes": (200, 1800), "steps": 5}
    check_kernel_sampled(kernel, target, jax.random.key(0), **how).require()
    assert not check_kernel_sampled(blind, target, jax.random.key(0), **how)


def parameter():
    numpyro.param("loc", 0.0)


def subsampled():
    with numpyro.plate("N", 10, subsample_size=5):
        numpyro.sample("x", dist.Normal(0.0, 1.0))


def keyed():
    numpyro.prng_key()


def mutable():
    numpyro.primitives.mutable("state", {"n": 0})


def branched():
    numpyro_cond(True, lambda _: 0, lambda _: 1, None)


def buried():
    def step(c, _):
        return numpyro.deterministic("c", c + 1), None

    jax.lax.scan(step, 0, None, length=2)


def off_support():
    numpyro.sample("y", dist.Exponential(1.0), obs=np.array([1.0, -1.0]))


@pytest.mark.parametrize(
    "model, kind, words, fix",
    [
        (parameter, InvalidArgument, "a parameter", "handlers.substitute"),
        (subsampled, InvalidArgument, "subsamples", "handlers.scale"),
        (keyed, InvalidArgument, "a random key", "numpyro.sample"),
        (mutable, InvalidArgument, "a mutable site", "pass the state"),
        (branched, InvalidArgument, "numpyro's cond", "jax.lax.cond"),
        (buried, InvalidArgument, "inside control flow", "outside"),
        (off_support, SupportError, "outside the support", "check the data"),
    ],
)
def test_errors(model, kind, words, fix):
    with pytest.raises(kind, match=words) as caught:
        from_numpyro(model).sites()
    assert fix in caught.value.fix
    assert any("test_interop.py" in place for place in caught.value.where)
    from numpyro.primitives import _PYRO_STACK

    assert not _PYRO_STACK


def test_values_for_parameters_and_subsamples():
    given = handlers.substitute(parameter, {"loc": 1.0})
    assert not from_numpyro(given).sites()
    with pytest.raises(PPLError, match="takes a model"):
        from_numpyro(3)  # pyright: ignore


# R14: NumPyro broadcasts (5, 1) against a plate of 5 to 25 terms; every axis of every plate counts
@pytest.mark.parametrize("shape", [(5, 1), (), (1,), (4, 1), (5, 3, 1)])
def test_data_that_do_not_fit_a_plate(shape):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", 5):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(ShapeError, match="plate") as caught:
        Target(from_numpyro(model), (jnp.zeros(shape),))
    assert "5 along that axis" in str(caught.value)
    if shape == (5, 1):
        assert caught.value.fix == "reshape the data: jnp.reshape(value, (5,))"


def test_data_that_fit_their_plates():
    """Two plates, events of two, and an axis that no plate has: the density is NumPyro's."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("columns", 3, dim=-1), numpyro.plate("rows", 2, dim=-2):
            numpyro.sample("y", dist.Normal(mu, jnp.ones(2)).to_event(1), obs=y)

    for shape in ((2, 3, 2), (4, 2, 3, 2)):
        y = jnp.linspace(-1.0, 1.0, int(np.prod(shape))).reshape(shape)
        ours = Target(from_numpyro(model), (y,)).log_density({"mu": 0.3})
        theirs = norm.logpdf(0.3) + norm.logpdf(np.asarray(y), 0.3).sum()
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    with pytest.raises(ShapeError, match="rows"):
        Target(from_numpyro(model), (jnp.zeros((1, 3, 2)),))
