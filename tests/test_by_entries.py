"""Programs of small arrays run on their entries are the programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from inference.exact.by_entries import ByEntries, together

A = jnp.array([[1.5, -0.3], [0.2, 0.7]])
V = jnp.array([0.4, -1.1])
PROGRAMS = {
    "products": (lambda a, v: a @ a.T @ v + jnp.outer(v, v) @ jnp.eye(2)[1], A, V),
    "a stack of products": (lambda a, v: jnp.stack([a, 2 * a]) @ a, A, V),
    "by indices": (lambda a, v: a[1, 0] * v[::-1] + a[:, -1] + jnp.roll(v, 1), A, V),
    "a moving index": (lambda a, v: a[jnp.argmax(v)], A, V),
    "put in": (lambda a, v: jnp.zeros((3, 3)).at[:2, 1:].set(a).at[2].add(v[0]), A, V),
    "zeros and ones": (lambda a, v: (jnp.eye(2) * a + 0 * a) @ jnp.tril(a) - jnp.zeros(2), A, V),
    "sums": (lambda a, v: a.sum(0) * a.sum() + jnp.trace(a) * v.mean() + a.max(1), A, V),
    "functions": (lambda a, v: jnp.where(v > 0, jnp.sqrt(abs(v)), jnp.exp(v)) ** 3 / a, A, V),
    "joined": (lambda a, v: jnp.block([[a, v[:, None]], [v[None], jnp.ones((1, 1))]]).T, A, V),
    "turned": (lambda a, v: jnp.moveaxis(a[None, :, :, None], 1, -1).reshape(4) @ a.ravel(), A, V),
    "branches": (
        lambda a, v: lax.cond(v[0] > 0, lambda: a @ v, lambda: jnp.zeros(2)) + v, A, V,
    ),
    "a function with a rule": (lambda a, v: jax.nn.relu(v) @ a, A, V),
    "a factor": (lambda a, v: jnp.linalg.cholesky(a @ a.T + jnp.eye(2)) @ v, A, V),
    "whole numbers": (lambda a, v: a * (jnp.arange(4).reshape(2, 2) // 3) + v.astype(int), A, V),
    "large beside small": (lambda a, v: (jnp.ones((30, 2)) @ a) @ v, A, V),
    "nothing": (lambda a, v: jnp.sum(a[:0]) + v[:0].sum(), A, V),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_entries_are_those_of_the_program(name):
    """To rounding of sums of some terms of size one, with slopes, by rows side by side too."""
    f, *args = PROGRAMS[name]
    made = ByEntries(lambda *x: [f(*x)], *args)
    assert made.able

    def whole(*x):
        out = jax.eval_shape(f, *x)
        return together(made(*x)[0], out.dtype).reshape(out.shape)

    rows = [jnp.stack([x, 1.3 * x, x + 0.1]) for x in args]
    for run in (lambda g: g(*args), lambda g: jax.vmap(g)(*rows), lambda g: jax.jacobian(g)(*args),
                lambda g: jax.jit(jax.vmap(jax.jacrev(g)))(*rows)):  # fmt: skip
        np.testing.assert_allclose(run(whole), run(f), rtol=1e-13, atol=1e-13)


def test_loops_are_not_taken_apart():
    assert not ByEntries(lambda v: [lax.scan(lambda c, x: (c + x, c), 0.0, v)[1]], V).able


def test_what_is_known_is_known_through_a_program():
    """Unit vectors cost nothing, and an infinite number beside a zero is not one."""
    made = ByEntries(lambda a: [a @ jnp.eye(2) @ jnp.zeros(2)], A)
    found = jax.make_jaxpr(lambda a: [float(x) for x in made(a)[0]])(A)
    assert not found.eqns or all(e.primitive.name in ("slice", "squeeze") for e in found.eqns)
    assert [float(x) for x in made(A.at[0, 0].set(jnp.inf))[0]] == [0.0, 0.0]
