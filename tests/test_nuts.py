"""Trees of the no-U-turn sampler: what they visit, by brute force; and chains on their own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.mcmc.tree import grow
from inference.mcmc.turning import Point
from tests.budget import assert_law

KEY = jax.random.key(20261126)
DEPTH = 5
INVERSE_MASS = np.array([[1.0, 0.3], [0.3, 0.5]])


def potential(z):
    """Curved, so that trajectories have many shapes."""
    return 0.5 * z[0] ** 2 + (z[1] - 0.5 * z[0] ** 2) ** 2


def gradient(z):
    tilt = z[1] - 0.5 * z[0] ** 2
    return np.array([z[0] - 2.0 * tilt * z[0], 2.0 * tilt])


def bits(key):
    return jax.random.bits(key, (2,), jnp.uint32)


def one_tree(step_size, z, r, bits):
    value, slope = jax.value_and_grad(potential)(z)
    inverse_mass = jnp.asarray(INVERSE_MASS, z.dtype)
    return grow(potential, Point(z, r, slope), value, inverse_mass, step_size, bits, DEPTH)


many_trees = jax.jit(jax.vmap(one_tree, (None, 0, 0, 0)))


# -- what is visited, and chosen -------------------------------------------------------------------


def energy(z, r):
    return potential(z) + 0.5 * r @ INVERSE_MASS @ r


def leapfrog(h, z, r):
    r = r - 0.5 * h * gradient(z)
    z = z + h * INVERSE_MASS @ r
    return z, r - 0.5 * h * gradient(z)


def turns(points):
    """The criterion, on the points of a subtree in the order of time."""
    (z, r), (end, s) = points[0], points[-1]
    before, after = points[len(points) // 2 - 1][0], points[len(points) // 2][0]
    lines = [(end - z) @ r, (end - z) @ s, (after - z) @ r, (end - before) @ s]
    return min(lines) <= 0


class Brute:
    """A trajectory that remembers every point, where time goes on in the given directions.

    `kept` are the points that can be chosen, by their time, and `chances` how probable each is.
    """

    def __init__(self, step_size, z, r, directions):
        self.kept, self.chances, self.accepted = {0: (z, r)}, {0: 1.0}, []
        whole = 1.0
        for self.depth, sign in enumerate(directions, 1):
            last = max(self.kept) if sign > 0 else min(self.kept)
            new, weights, stopped = [self.kept[last]], [], False
            while len(weights) < 2 ** (self.depth - 1) and not stopped:
                new.append(leapfrog(sign * step_size, *new[-1]))
                weights.append(np.exp(energy(z, r) - energy(*new[-1])))
                sizes = [2**k for k in range(1, self.depth) if len(weights) % 2**k == 0]
                stopped = any(turns(new[-size:][::sign]) for size in sizes)
            self.accepted += [min(1.0, w) for w in weights]
            if stopped:
                break
            times = [last + sign * i for i in range(1, len(new))]
            self.kept.update(zip(times, new[1:], strict=True))
            half = sum(weights)
            taken = min(1.0, half / whole)
            self.chances = {t: (1 - taken) * p for t, p in self.chances.items()}
            self.chances.update({t: taken * w / half for t, w in zip(times, weights, strict=True)})
            whole += half
            if turns([self.kept[t] for t in sorted(self.kept)]):
                break


def every_brute(step_size, z, r):
    return [Brute(step_size, z, r, d) for d in itertools.product((1, -1), repeat=DEPTH)]


def test_a_tree_visits_what_recursion_visits():
    """For one of the sequences of directions, steps, doublings and acceptances are those of
    brute force; and the chosen point is one of those kept."""
    n, step_size = 40, 0.2
    z, r = np.random.default_rng(3).normal(size=(2, n, 2))
    trees = many_trees(step_size, z, r, jax.vmap(bits)(jax.random.split(KEY, n)))
    for i in range(n):
        tree = jax.tree.map(lambda x, i=i: np.asarray(x[i]), trees)
        same = [
            found
            for found in every_brute(step_size, z[i], r[i])
            if (len(found.accepted), found.depth) == (tree.steps, tree.depth)
            and abs(sum(found.accepted) - tree.accept) < 1e-9
        ]
        kept = [point[0] for found in same for point in found.kept.values()]
        assert any(np.abs(tree.chosen.z - x).max() < 1e-9 for x in kept)
    assert set(np.asarray(trees.depth)) >= {2, 3, 4, 5}
    assert not np.any(trees.diverging)


def test_a_point_is_chosen_with_its_probability():
    """From one start, with steps so long that the weights differ by half: the law of the
    chosen point, averaged over the directions."""
    n, step_size = 10_000, 0.75
    z, r = np.array([1.2, -0.4]), np.array([0.5, 1.1])
    points, law = {}, {}
    for found in every_brute(step_size, z, r):
        points.update({t: point[0] for t, point in found.kept.items()})
        for t, p in found.chances.items():
            law[t] = law.get(t, 0.0) + p / 2**DEPTH
    keys = jax.vmap(bits)(jax.random.split(KEY, n))
    chosen = many_trees(step_size, np.tile(z, (n, 1)), np.tile(r, (n, 1)), keys).chosen.z
    times = sorted(law)
    distances = np.abs(np.asarray(chosen)[:, None] - np.array([points[t] for t in times])).max(-1)
    assert distances.min(1).max() < 1e-9
    counts = np.bincount(distances.argmin(1), minlength=len(times))
    assert_law("choices of a tree", counts, [law[t] for t in times])


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


@pytest.mark.slow
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
    tree = jax.eval_shape(one_tree, 0.1, z, z, jnp.zeros(2, jnp.uint32))
    assert {x.dtype for x in tree.chosen} == {jnp.dtype(dtype)}
