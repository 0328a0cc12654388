"""Loops whose choices are given covariances: no factor of them is needed, and the numbers are
those of the same loop gone through step by step, which takes the factors."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from numpy.testing import assert_allclose

from inference import sum_out
from inference.exact.factored import covariances
from ppl import gen, sample, select
from ppl.errors import SupportError

GAPS = jnp.array([0.3, 0.1, 1.2, 0.7])
YS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))


def walk(at_once, carried, jitter=0.0):
    """States and what is seen of them have covariances that depend on gaps and arguments."""

    @gen
    def model(rate, spread):
        shared = jnp.array([[1.0, 0.4], [0.4, 0.9]])

        def step(state, gap):
            x, speed = state if carried else (state, 0.0)
            move = jnp.array([[1.0, gap], [-0.2, 0.8]])
            x = sample("x", dist.MultivariateNormal(move @ x + speed, shared * gap * rate + jitter))
            seen = 0.5 * jnp.eye(2) + spread * gap * jnp.ones((2, 2))
            y = sample("y", dist.MultivariateNormal(x, seen))
            return (x, 0.1 * x[0] + speed) if carried else x, (None if at_once else (y, 2 * y))

        start = jnp.array([0.2, -0.1])
        lax.scan(step, (start, 0.0) if carried else start, GAPS)

    return model


@pytest.mark.parametrize("carried", [False, True])
def test_with_factors_and_without(carried):
    def both(at_once):
        quiet = sum_out(walk(at_once, carried), "x")
        density = lambda r, s: quiet.assess({"y": YS}, r, s)[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(density, (0, 1)))

    one, other = both(True), both(False)
    assert "cholesky" in other.lower(1.3, 0.2).as_text()
    assert "cholesky" not in one.lower(1.3, 0.2).as_text()
    for found, right in zip(jax.tree.leaves(one(1.3, 0.2)), jax.tree.leaves(other(1.3, 0.2)),
                            strict=True):  # fmt: skip
        assert_allclose(found, right, rtol=1e-10)
    # at a rate of zero nothing moves by chance, and there is no factor: the states are certain
    value, slopes = one(0.0, 0.2)
    x, total = np.array([0.2, -0.1]), 0.0
    speed = 0.0
    for gap, y in zip(np.asarray(GAPS), np.asarray(YS), strict=True):
        x = np.array([[1.0, gap], [-0.2, 0.8]]) @ x + speed
        speed = 0.1 * x[0] + speed if carried else 0.0
        seen = dist.MultivariateNormal(x, 0.5 * np.eye(2) + 0.2 * gap)
        total += float(seen.log_prob(y))
    assert_allclose(value, total, rtol=1e-12)
    assert np.all(np.isfinite(np.asarray(slopes)))


def test_what_is_no_covariance_is_not_one():
    """A matrix that is not positive semidefinite has no density, with or without its factor."""
    quiet = sum_out(walk(True, False), "x")
    density = jax.jit(lambda r, s: quiet.assess({"y": YS}, r, s)[0])
    assert np.isnan(density(-1.0, 0.2))
    assert np.isnan(density(1.0, -9.0))
    bent = sum_out(walk(True, False, jitter=jnp.array([[0.0, 2.0], [2.0, 0.0]])), "x")
    with pytest.raises(SupportError, match="not a number"):
        bent.assess({"y": YS}, 1.0, 0.2)


def test_which_outputs_are_factors():
    """Of other triangles, of factors that are turned or scaled, there is none."""

    def f(s):
        root = jnp.linalg.cholesky(s)
        upper = jnp.triu(root)
        return [root, root.T, 2 * root, upper, lax.linalg.cholesky(3 * s), s]

    found = covariances(f, [jax.ShapeDtypeStruct((2, 2), float)])
    assert sorted(found) == [0, 4]
    s = jnp.array([[2.0, 0.3], [0.3, 1.0]])
    assert_allclose(found[0](s), s, rtol=1e-15)
    assert_allclose(found[4](s), 3 * s, rtol=1e-15)


def test_a_covariance_beside_other_noise():
    """The next state is a choice of this covariance about another choice of the same step."""

    def model(at_once):
        @gen
        def twice(rate):
            def step(x, gap):
                e = sample("e", dist.Normal(0.0, jnp.array([0.5, 1.5])))
                shared = jnp.array([[1.0, 0.4], [0.4, 0.9]]) * gap * rate
                x = sample("x", dist.MultivariateNormal(0.9 * x + e, shared))
                y = sample("y", dist.Normal(x, 0.3))
                return x, (None if at_once else (y, 2 * y))

            lax.scan(step, jnp.zeros(2), GAPS)

        return sum_out(twice, select("e", "x"))

    one, other = (jax.value_and_grad(lambda r, q=q: q.assess({"y": YS}, r)[0])
                  for q in (model(True), model(False)))  # fmt: skip
    assert_allclose(jax.jit(one)(1.3), jax.jit(other)(1.3), rtol=1e-10)
