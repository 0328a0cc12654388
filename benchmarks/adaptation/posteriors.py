"""Twelve posteriors on which a warm-up is tried: data are simulated, from fixed seeds."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.typing import ArrayLike

from ppl import Target, gen, sample

SCHOOLS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools_apart() -> Target:
    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 5.0))
        tau = sample("tau", dist.HalfCauchy(5.0))
        z = sample("z", dist.Normal(jnp.zeros(8), 1.0))
        sample("y", dist.Normal(mu + tau * z, ERRORS))

    return Target(model, (), {"y": SCHOOLS})


def schools_centred() -> Target:
    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 5.0))
        tau = sample("tau", dist.HalfCauchy(5.0))
        theta = sample("theta", dist.Normal(mu, tau).expand([8]))
        sample("y", dist.Normal(theta, ERRORS))

    return Target(model, (), {"y": SCHOOLS})


def logistic() -> Target:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1000, 25))
    y = rng.random(1000) < 1 / (1 + np.exp(-x @ rng.normal(size=25) / 2))

    @gen
    def model(x):
        beta = sample("beta", dist.Normal(jnp.zeros(25), 1.0))
        sample("y", dist.Bernoulli(logits=x @ beta))

    return Target(model, (jnp.asarray(x),), {"y": jnp.asarray(y, int)})


def varying_intercepts() -> Target:
    """919 measurements in 85 groups of unlike size."""
    rng = np.random.default_rng(2)
    group, floor = rng.integers(0, 85, 919), (rng.random(919) < 0.2).astype(float)
    y = 1.4 + 0.3 * rng.normal(size=85)[group] - 0.6 * floor + 0.75 * rng.normal(size=919)

    @gen
    def model(group, floor):
        mu = sample("mu", dist.Normal(0.0, 5.0))
        tau = sample("tau", dist.HalfNormal(1.0))
        slope = sample("slope", dist.Normal(0.0, 5.0))
        noise = sample("noise", dist.HalfNormal(2.0))
        level = sample("level", dist.Normal(mu, tau).expand([85]))
        sample("y", dist.Normal(level[group] + slope * floor, noise))

    return Target(model, (jnp.asarray(group), jnp.asarray(floor)), {"y": jnp.asarray(y)})


def garch() -> Target:
    rng, variance, y = np.random.default_rng(3), 1.0, []
    for noise in rng.normal(size=200):
        y.append(5 + np.sqrt(variance) * noise)
        variance = 1 + 0.3 * (y[-1] - 5) ** 2 + 0.4 * variance

    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 10.0))
        a0 = sample("a0", dist.HalfNormal(5.0))
        a1 = sample("a1", dist.Uniform(0.0, 1.0))
        b1 = sample("b1", dist.Uniform(0.0, 1.0 - a1))

        def step(variance, _):
            y = sample("y", dist.Normal(mu, jnp.sqrt(variance)))
            return a0 + a1 * (y - mu) ** 2 + b1 * variance, None

        lax.scan(step, jnp.ones(()), None, length=200)

    return Target(model, (), {"y": jnp.asarray(y)})


def arma() -> Target:
    rng, y, off = np.random.default_rng(4), 0.0, 0.0
    seen = []
    for noise in 0.2 * rng.normal(size=200):
        y, off = 0.1 + 0.8 * y + 0.3 * off + noise, noise
        seen.append(y)

    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 10.0))
        phi = sample("phi", dist.Uniform(-1.0, 1.0))
        theta = sample("theta", dist.Uniform(-1.0, 1.0))
        noise = sample("noise", dist.HalfCauchy(2.5))

        def step(carry, _):
            before, off = carry
            mean = mu + phi * before + theta * off
            y = sample("y", dist.Normal(mean, noise))
            return (y, y - mean), None

        lax.scan(step, (jnp.zeros(()), jnp.zeros(())), None, length=200)

    return Target(model, (), {"y": jnp.asarray(seen)})


def poisson_process() -> Target:
    """Counts of a rate whose logarithm is a Gaussian process of 40 points."""
    rng, x = np.random.default_rng(5), np.linspace(0, 10, 40)
    y, squares = rng.poisson(np.exp(1 + np.sin(x))), jnp.asarray((x[:, None] - x) ** 2)

    @gen
    def model():
        length = sample("length", dist.InverseGamma(5.0, 5.0))
        height = sample("height", dist.HalfNormal(2.0))
        mu = sample("mu", dist.Normal(0.0, 2.0))
        z = sample("z", dist.Normal(jnp.zeros(40), 1.0))
        covariance = height**2 * jnp.exp(-squares / (2 * length**2)) + 1e-6 * jnp.eye(40)
        sample("y", dist.Poisson(jnp.exp(mu + jnp.linalg.cholesky(covariance) @ z)))

    return Target(model, (), {"y": jnp.asarray(y)})


def ridge() -> Target:
    """Only the sum of four is seen, each with a tail of a power law."""

    @gen
    def model():
        x = sample("x", dist.StudentT(3.0, 0.0, 1.0).expand([4]))
        sample("y", dist.StudentT(3.0, x.sum(), 0.05))

    return Target(model, (), {"y": jnp.zeros(())})


def populations(theta: ArrayLike, start: ArrayLike) -> jnp.ndarray:
    """Hunters and hunted, at twenty times: Runge and Kutta's method, ten steps between them."""
    theta, h = jnp.asarray(theta), 0.1

    def slope(z):
        return jnp.stack(
            [(theta[0] - theta[1] * z[1]) * z[0], (-theta[2] + theta[3] * z[0]) * z[1]]
        )

    def step(z, _):
        k1 = slope(z)
        k2 = slope(z + h / 2 * k1)
        k3 = slope(z + h / 2 * k2)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(z + h * k3))
        return z, z

    return lax.scan(step, jnp.asarray(start), None, length=200)[1][9::10]


def predator_prey() -> Target:
    rng = np.random.default_rng(6)
    truth = np.asarray(populations([0.55, 0.028, 0.84, 0.026], [33.0, 6.0]))
    y = np.log(truth) + 0.25 * rng.normal(size=truth.shape)

    @gen
    def model():
        usual = jnp.log(jnp.array([0.5, 0.03, 0.8, 0.03]))
        theta = sample("theta", dist.LogNormal(usual, 0.5))
        start = sample("start", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]))
        noise = sample("noise", dist.LogNormal(-1.0, 1.0).expand([2]))
        z = jnp.maximum(populations(theta, start), 1e-10)
        sample("y", dist.Normal(jnp.log(z), noise))

    return Target(model, (), {"y": jnp.asarray(y)})


def raw_units() -> Target:
    """A regression on height in inches, age in years and its square: none of them centred."""
    rng = np.random.default_rng(7)
    height, age = rng.normal(66, 4, 400), rng.normal(45, 15, 400)
    y = 6 + 0.05 * height + 0.9 * rng.normal(size=400)

    @gen
    def model(height, age):
        a = sample("a", dist.Normal(0.0, 100.0))
        beta = sample("beta", dist.Normal(0.0, 10.0).expand([3]))
        noise = sample("noise", dist.HalfNormal(5.0))
        mean = a + beta[0] * height + beta[1] * age + beta[2] * age**2 / 100
        sample("y", dist.Normal(mean, noise))

    return Target(model, (jnp.asarray(height), jnp.asarray(age)), {"y": jnp.asarray(y)})


def stochastic_volatility() -> Target:
    rng, state, y = np.random.default_rng(8), -1.0, []
    for _ in range(500):
        state = -1 + 0.95 * (state + 1) + 0.25 * rng.normal()
        y.append(np.exp(state / 2) * rng.normal())

    @gen
    def model():
        phi = sample("phi", dist.Uniform(-1.0, 1.0))
        scale = sample("scale", dist.HalfCauchy(2.0))
        mu = sample("mu", dist.Cauchy(0.0, 10.0))
        z = scale * sample("z", dist.Normal(jnp.zeros(500), 1.0))

        def step(before, noise):
            now = phi * before + noise
            return now, now

        z = z.at[0].set(z[0] / jnp.sqrt(1 - phi**2))
        states = lax.scan(step, jnp.zeros(()), z)[1]
        sample("y", dist.Normal(0.0, jnp.exp((mu + states) / 2)))

    return Target(model, (), {"y": jnp.asarray(y)})


def item_response() -> Target:
    """200 people answer 20 questions."""
    rng = np.random.default_rng(9)
    ability, difficulty = rng.normal(size=(200, 1)), rng.normal(size=20)
    y = rng.random((200, 20)) < 1 / (1 + np.exp(difficulty - ability))

    @gen
    def model():
        scale = sample("scale", dist.HalfNormal(2.0))
        mu = sample("mu", dist.Normal(0.0, 2.0))
        ability = sample("ability", dist.Normal(jnp.zeros(200), 1.0))
        z = sample("z", dist.Normal(jnp.zeros(20), 1.0))
        sample("y", dist.Bernoulli(logits=ability[:, None] - (mu + scale * z)))

    return Target(model, (), {"y": jnp.asarray(y, int)})


POSTERIORS = {
    "eight schools": schools_apart,
    "eight schools, centred": schools_centred,
    "logistic 1000 x 25": logistic,
    "varying intercepts": varying_intercepts,
    "GARCH": garch,
    "ARMA": arma,
    "Poisson process": poisson_process,
    "ridge": ridge,
    "predator-prey": predator_prey,
    "raw units": raw_units,
    "stochastic volatility": stochastic_volatility,
    "item response": item_response,
}
