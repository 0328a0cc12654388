"""Of the axes that are said to correspond, slice n of the result is made of slice n alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.estimators.axes import pairs_of

A, B = jnp.arange(6.0).reshape(2, 3) + 0.5, jnp.arange(6.0).reshape(2, 3) ** 2
M = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)

# what it is, the function, its operands, and the pairs that must be found
CASES = {
    "stack in front": (lambda a, b: jnp.stack([a, b]), (A, B), [{0: 1, 1: 2}] * 2),
    "stack inside": (lambda a, b: jnp.stack([a, b], 1), (A, B), [{0: 0, 1: 2}] * 2),
    "stack behind": (lambda a, b: jnp.stack([a, b], -1), (A, B), [{0: 0, 1: 1}] * 2),
    "unstack": (lambda a: jnp.unstack(a, axis=1), (A,), [{0: 0}]),
    "split": (lambda a: jnp.split(a, [1], 1), (A,), [{0: 0}]),
    "tile": (lambda a: jnp.tile(a, (1, 2)), (A,), [{0: 0}]),
    "relu": (jax.nn.relu, (A,), [{0: 0, 1: 1}]),
    "softplus": (jax.nn.softplus, (A,), [{0: 0, 1: 1}]),
    "logsumexp": (lambda a: jax.nn.logsumexp(a, 1), (A,), [{0: 0}]),
    "a rule of one's own": (
        jax.custom_jvp(lambda a, m: jnp.sum(jnp.tanh(a @ m), 1)),
        (A, M),
        [{0: 0}, {}],
    ),
    "a rule in reverse": (
        jax.custom_vjp(lambda a, m: jnp.transpose(jnp.tanh(a @ m))),
        (A, M),
        [{0: 1}, {1: 0}],
    ),
    "two ways that differ": (jax.custom_jvp(lambda s: s + s.T), (A[:, :2],), [{}]),
}
CASES["a rule of one's own"][0].defjvp(lambda p, t: (p[0], t[0]))
CASES["a rule in reverse"][0].defvjp(lambda *p: (p[0], None), lambda r, g: (g, g))
CASES["two ways that differ"][0].defjvp(lambda p, t: (p[0], t[0]))


@pytest.mark.parametrize("name", CASES)
def test_axes_correspond(name):
    f, operands, wanted = CASES[name]
    closed = jax.make_jaxpr(lambda *xs: jax.tree.leaves(f(*xs)))(*operands)
    # the whole function as one operation, by the rules of its parts
    shapes = [jax.typeof(x) for x in operands]
    rows = pairs_of("jit", {"jaxpr": closed}, shapes, closed.out_avals)
    assert all(row == wanted for row in rows)
    before = jax.tree.leaves(f(*operands))
    for row, left in zip(rows, range(len(before)), strict=True):
        for i, pairs in enumerate(row):
            for axis, place in pairs.items():
                for n in range(operands[i].shape[axis]):
                    at = (slice(None),) * axis + (n,)
                    moved = [x.at[at].add(1.0) if i == j else x for j, x in enumerate(operands)]
                    after = jax.tree.leaves(f(*moved))[left]
                    changed = np.moveaxis(np.asarray(after != before[left]), place, 0)
                    assert not np.delete(changed, n, 0).any()
