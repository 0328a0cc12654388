"""Trees of the no-U-turn sampler: what they visit, by brute force; and chains on their own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.mcmc.tree import Point, grow

KEY = jax.random.key(20261126)
DEPTH, STEP = 5, 0.2
INVERSE_MASS = np.array([[1.0, 0.3], [0.3, 0.5]])


def potential(z):
    """Curved, so that trajectories have many shapes."""
    return 0.5 * z[0] ** 2 + (z[1] - 0.5 * z[0] ** 2) ** 2


def gradient(z):
    tilt = z[1] - 0.5 * z[0] ** 2
    return np.array([z[0] - 2.0 * tilt * z[0], 2.0 * tilt])


def bits(key):
    return jax.random.bits(key, (2,), jnp.uint32)


def one_tree(z, r, bits):
    start = Point(z, r, jax.grad(potential)(z))
    return grow(
        potential, start, potential(z), jnp.asarray(INVERSE_MASS, z.dtype), STEP, bits, DEPTH
    )


# -- what is visited -------------------------------------------------------------------------------


def energy(z, r):
    return potential(z) + 0.5 * r @ INVERSE_MASS @ r


def leapfrog(z, r, sign):
    r = r - 0.5 * sign * STEP * gradient(z)
    z = z + sign * STEP * INVERSE_MASS @ r
    return z, r - 0.5 * sign * STEP * gradient(z)


def turns(points):
    """The criterion, on the points of a subtree in the order of time."""
    (z, r), (end, s) = points[0], points[-1]
    before, after = points[len(points) // 2 - 1][0], points[len(points) // 2][0]
    lines = [(end - z) @ r, (end - z) @ s, (after - z) @ r, (end - before) @ s]
    return min(lines) <= 0


def visited(z, r, directions):
    """Steps, doublings, acceptance and the points kept, if time goes on in these directions."""
    points, accepted = [(z, r)], []
    for depth, sign in enumerate(directions):
        new = []
        for leaf in range(1, 2**depth + 1):
            at, momentum = new[-1] if new else points[-1 if sign > 0 else 0]
            new.append(leapfrog(at, momentum, sign))
            accepted.append(min(1.0, np.exp(energy(z, r) - energy(*new[-1]))))
            for size in (2**k for k in range(1, depth + 1)):
                if leaf % size == 0 and turns(new[-size:][::sign]):
                    return len(accepted), depth + 1, sum(accepted), points
        points = points + new if sign > 0 else new[::-1] + points
        if turns(points):
            break
    return len(accepted), depth + 1, sum(accepted), points


def test_a_tree_visits_what_recursion_visits():
    """For one of the sequences of directions, steps, doublings and acceptances are those of
    brute force, which remembers every point; and the chosen point is one of those kept."""
    n = 40
    z, r = np.random.default_rng(3).normal(size=(2, n, 2))
    trees = jax.jit(jax.vmap(one_tree))(z, r, jax.vmap(bits)(jax.random.split(KEY, n)))
    for i in range(n):
        tree = jax.tree.map(lambda x, i=i: np.asarray(x[i]), trees)
        found = (visited(z[i], r[i], d) for d in itertools.product((1, -1), repeat=DEPTH))
        same = [
            points
            for steps, depth, accept, points in found
            if (steps, depth) == (tree.steps, tree.depth) and abs(accept - tree.accept) < 1e-9
        ]
        assert any(np.abs(tree.chosen.z - x).max() < 1e-9 for points in same for x, _ in points)
    assert set(np.asarray(trees.depth)) >= {2, 3, 4, 5}
    assert not np.any(trees.diverging)


def test_a_diverging_step_is_not_taken():
    z, r = jnp.array([1.0, 2.0]), jnp.array([0.3, -0.2])
    value, slope = jax.value_and_grad(potential)(z)
    start = Point(z, r, slope)
    tree = grow(potential, start, value, jnp.ones(2), 50.0, jnp.zeros(2, jnp.uint32), DEPTH)
    assert (bool(tree.diverging), int(tree.steps), int(tree.depth)) == (True, 1, 1)
    assert tree.chosen.z.tolist() == z.tolist()
    assert float(tree.chosen.energy) == pytest.approx(float(value) + 0.5 * float(r @ r), rel=1e-14)


# -- chains beside each other ----------------------------------------------------------------------


def mapped(scale, counts, inverse_mass, z, key):
    """A tree whose potential closes over what is mapped: a float and integers."""

    def potential(z):
        return jnp.sum(counts * jnp.exp(z) - 2.0 * z) / scale

    value, slope = jax.value_and_grad(potential)(z)
    momentum, key = jax.random.split(key)
    start = Point(z, jax.random.normal(momentum, z.shape), slope)
    return grow(potential, start, value, inverse_mass, 0.02, bits(key), 8)


def test_a_chain_does_not_depend_on_the_chains_beside_it():
    """One by one, and mapped twice, with arguments that are mapped at either level or both;
    and as one step of a loop."""
    scale, counts = jnp.array([0.3, 3.0]), jnp.array([[1, 2], [3, 1], [2, 2]])
    inverse_mass = jnp.array([[1.0, 0.2], [0.2, 2.0]])
    z = jnp.linspace(-1.0, 1.0, 12).reshape(2, 3, 2)
    keys = jax.random.split(KEY, (2, 3))
    inner = jax.vmap(mapped, (None, 0, None, 0, 0))
    outer = jax.vmap(inner, (0, None, None, 0, 0))
    both = jax.jit(outer)(scale, counts, inverse_mass, z, keys)

    def alone(_, args):
        return None, mapped(args[0], args[1], inverse_mass, args[2], args[3])

    pairs = [(i, j) for i in range(2) for j in range(3)]
    i, j = np.array(pairs).T
    singles = jax.jit(lambda *args: jax.lax.scan(alone, None, args)[1])
    each = singles(scale[i], counts[j], z[i, j], keys[i, j])
    steps = sorted(np.asarray(each.steps))
    assert len(set(steps)) > 2 and steps[-1] > 64  # more than one block of uniforms
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-9), both, each
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_are_those_of_the_potential(dtype):
    z = jnp.ones(2, dtype)
    tree = jax.eval_shape(one_tree, z, z, jnp.zeros(2, jnp.uint32))
    assert {x.dtype for x in tree.chosen} == {jnp.dtype(dtype)}
