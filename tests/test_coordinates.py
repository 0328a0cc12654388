"""Unconstrained coordinates where supports depend on other choices, and improper priors.

The log Jacobian is compared with the determinant that JAX computes, and the potential with
NumPyro's of the same model; both to 1e-10: some tens of roundings of numbers up to 1e3.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

from inference import sample_posterior
from inference.mcmc.nuts import nuts
from inference.mcmc.space import Space
from inference.running.starting import initial_trace
from ppl import Target, errors, gen, sample, seed, select
from ppl.addresses import flatten
from ppl.interop import from_numpyro

constraints = dist.constraints
Y = jnp.array([1.0, -0.5, 2.0])


def choose(name: str, d: Any, obs: Any = None) -> Any:
    return numpyro.sample(name, d, obs=obs)


def flat(support: Any = constraints.real, shape=()):
    return dist.ImproperUniform(support, (), shape)


def regression(y):
    beta = choose("beta", flat(shape=(2,)))
    sigma = choose("sigma", flat(constraints.positive))
    choose("y", dist.Normal(beta[0] + beta[1] * jnp.arange(3.0), sigma), obs=y)


def volatility(y):
    """The constraints of a GARCH(1, 1): beta1 lies between 0 and 1 - alpha1."""
    alpha0 = choose("alpha0", flat(constraints.positive))
    alpha1 = choose("alpha1", dist.Uniform(0.0, 1.0))
    beta1 = choose("beta1", flat(constraints.interval(0.0, 1 - alpha1)))
    scale = jnp.sqrt(alpha0 + alpha1 * y[:-1] ** 2 + beta1)
    choose("y", dist.Normal(0.0, scale), obs=y[1:])


def bounded(y):
    """Bounds from a latent, in a vector of increasing numbers and in a truncated plate."""
    low = choose("low", dist.Normal(0.0, 1.0))
    mu = choose("mu", flat(constraints.ordered_vector, (3,)))
    with numpyro.plate("J", 3):
        x = choose("x", dist.TruncatedNormal(mu, 1.0, low=low))
        choose("u", dist.Uniform(low, x))
    p = choose("p", flat(constraints.simplex, (3,)))
    choose("y", dist.Normal(x, p), obs=y)


MODELS = [regression, volatility, bounded]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_potential_is_numpyros(model):
    target = Target(from_numpyro(model), (Y,))
    shapes = target.coordinates().shapes
    for key in jax.random.split(jax.random.key(0), 3):
        keys = jax.random.split(key, len(shapes))
        z = {
            path[0]: jax.random.normal(k, shape)
            for k, (path, shape) in zip(keys, shapes.items(), strict=True)
        }
        u, du = jax.value_and_grad(target.potential)(z)
        v, dv = jax.value_and_grad(lambda z: potential_energy(model, (Y,), {}, z))(z)
        np.testing.assert_allclose(u, v, rtol=0, atol=1e-10)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), du, dv)


@gen
def nested(high):
    """Supports that depend on arguments, on the step before in a loop, and on the branch."""
    x = sample("x", dist.Uniform(0.0, high))

    def rise(before, _):
        now = sample("now", dist.Uniform(before, before + 1.0))
        return now, now

    _, path = jax.lax.scan(rise, x, None, length=3)
    each = jax.vmap(lambda low: sample("each", dist.Uniform(low, 2 * low)))(path)
    kind = sample("kind", dist.Bernoulli(0.5))
    side = jax.lax.cond(
        kind == 1,
        lambda: sample("side", dist.Uniform(0.0, x)),
        lambda: sample("side", dist.Uniform(x, 2 * x)),
    )
    sample("y", dist.Normal(each.sum() + side, 1.0))


CONTINUOUS = ("x", "now", "each", "side")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("names", [CONTINUOUS, ("now", "side"), ("x",)])
def test_coordinates_given_the_rest(kind, names):
    """The way back is the inverse, the Jacobian is JAX's, and the density changes by it."""
    target = Target(nested, (2.0,), {"y": 1.0})
    trace, _ = seed(target.generate)(jax.random.key(0), {"kind": kind})
    space = Space(target, select(*names))
    z = space.position(trace)
    chosen = {path: flatten(trace.choices)[path] for path in space.paths}
    for path, value in chosen.items():
        np.testing.assert_allclose(space.constrain(trace, z)[0][path], value, rtol=0, atol=1e-12)
    moved = z + 0.1
    there = space.trace(trace, moved)
    if names != ("x",):  # the others keep their values, which a new x may exclude
        np.testing.assert_allclose(space.position(there), moved, rtol=0, atol=1e-10)

    def values(z):
        return jnp.concatenate([jnp.ravel(x) for x in space.constrain(trace, z)[0].values()])

    log_det = space.constrain(trace, moved)[1]
    expected = jnp.linalg.slogdet(jax.jacobian(values)(moved))[1]
    np.testing.assert_allclose(log_det, expected, rtol=0, atol=1e-10)
    difference = space.log_density(trace)(moved) - space.log_density(trace)(z)
    dets = log_det - space.constrain(trace, z)[1]
    np.testing.assert_allclose(difference, there.score - trace.score + dets, rtol=0, atol=1e-10)


def test_starts_lie_in_supports_that_move():
    """Each coordinate of a start is in (-2, 2), given the values of the others."""
    target = Target(nested, (2.0,), {"y": 1.0})
    space = Space(target, select(*CONTINUOUS))
    start = jax.jit(seed(lambda: initial_trace(target, "uniform", {})))
    for i in range(10):
        trace = start(jax.random.key(i))
        assert jnp.isfinite(trace.score)
        assert (jnp.abs(space.position(trace)) < 2.0).all()


def test_an_improper_prior_is_no_random_program_but_a_density():
    @gen
    def model():
        mu = sample("mu", flat())
        sample("y", dist.Normal(mu, 1.0))

    assert float(model.assess({"mu": 3.0, "y": 3.0})[0]) == pytest.approx(-0.9189385332046727)
    trace, log_weight = model.generate({"mu": 3.0, "y": 3.0})
    changed, ratio, _ = model.update(trace, {"mu": 4.0})
    assert float(log_weight) == pytest.approx(-0.9189385332046727, abs=1e-15)
    assert float(ratio) == pytest.approx(-0.5, abs=1e-15) and float(changed["mu"]) == 4.0
    target = Target(model, (), {"y": 1.0})
    for run in (
        lambda: seed(target.generate)(jax.random.key(0)),
        lambda: seed(lambda: target.regenerate(trace, "mu"))(jax.random.key(0)),
        lambda: sample_posterior(jax.random.key(0), target, nuts(target), initial="prior"),
    ):
        with pytest.raises(errors.CannotSimulate, match="improper prior") as caught:
            run()
        assert any(place.startswith('"mu" at') for place in caught.value.where)


def test_a_support_without_a_bijection_is_an_error():
    @gen
    def model():
        sample("x", flat(constraints.sphere, (3,)))

    with pytest.raises(errors.InvalidArgument, match="no bijection"):
        Target(model).coordinates()
