"""Models of copies with parents outside, each with the weight of all its choices in NumPy.

A weight is a product of probabilities, without logarithms, and analytic in the argument: its
derivative is the imaginary part at a complex step.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ppl import factor, gen, sample

YS = np.array([0.3, -1.0, 2.0])
WS = np.array([0, 1, 1])
PAIRS = np.array([[0.3, -1.0, 2.0], [1.0, 0.2, -0.4]])
BITS = np.array([[0, 1, 1], [1, 1, 0]])
P = np.array([0.2, 0.5, 0.7])


class Case(NamedTuple):
    """A model of one argument; the number of values and the shape of each summed choice; what
    is given; the weight of all choices; and whether it is gone through one copy after another."""

    model: Any
    summed: dict[str, tuple[int, tuple[int, ...]]]
    given: dict[str, np.ndarray]
    weight: Callable[[Any, dict], Any]
    loops: bool = False


def outcomes(case: Case) -> list[dict[str, np.ndarray]]:
    """All values of the summed choices."""
    rows = [itertools.product(range(n), repeat=int(np.prod(shape)))
            for n, shape in case.summed.values()]  # fmt: skip
    return [
        {name: np.reshape(row, shape).astype(int)
         for (name, (_, shape)), row in zip(case.summed.items(), each, strict=True)}
        for each in itertools.product(*map(list, rows))
    ]  # fmt: skip


def normal(x, mean):
    return np.exp(-0.5 * (x - mean) ** 2) / np.sqrt(2 * np.pi)


def coin(x, p):
    return np.where(x == 1, p, 1 - p)


def N(mean):
    return dist.Normal(1.0 * mean, 1.0)


@gen
def common(p):
    """Several choices in a copy, and what copies put out is read later, with the parent."""
    k = sample("k", dist.Bernoulli(p))

    def one(q):
        z = sample("z", dist.Bernoulli(q * (1 + k) / 2))
        x = sample("x", N(z + k))
        w = sample("w", dist.Bernoulli(0.2 + 0.5 * z * jnp.tanh(x) ** 2))
        return z + k, x * w, q

    zk, xw, q = jax.vmap(one)(jnp.asarray(P))
    sample("later", N(zk * q + xw))
    sample("end", dist.Bernoulli(0.2 + 0.6 * k))


def of_common(p, v):
    k, z = v["k"], v["z"]
    found = coin(k, p) * np.prod(coin(z, P * (1 + k) / 2) * normal(YS, z + k))
    found = found * np.prod(coin(WS, 0.2 + 0.5 * z * np.tanh(YS) ** 2))
    return found * np.prod(normal(-YS, (z + k) * P + YS * WS)) * coin(1, 0.2 + 0.6 * k)


@gen
def two(p):
    """Two parents, one with a matrix of rows that may be impossible; a factor in each copy."""
    a = sample("a", dist.Bernoulli(p))
    b = sample("b", dist.Categorical(jnp.stack([1 - p, 0.0 * p, p])))

    def one(q):
        z = sample("z", dist.Bernoulli(q * (1 + a) / 2))
        sample("x", N(z + b))
        factor(0.3 * z * b * p)

    jax.vmap(one)(jnp.asarray(P))


def of_two(p, v):
    a, b, z = v["a"], v["b"], v["z"]
    found = coin(a, p) * np.stack([1 - p, 0.0 * p, p])[b]
    each = coin(z, P * (1 + a) / 2) * normal(YS, z + b) * np.exp(0.3 * z * b * p)
    return found * np.prod(each)


@gen
def nested(p):
    """Copies in copies: a parent of all, and one in each group."""
    k = sample("k", dist.Bernoulli(p))

    def group(q):
        g = sample("g", dist.Bernoulli(q * (1 + k) / 2))
        sample("u", N(g + k))

        def one(r):
            z = sample("z", dist.Bernoulli(r * (1 + g) / 2))
            sample("x", N(z + g + k))
            sample("w", dist.Bernoulli(0.2 + 0.3 * z + 0.1 * k))

        jax.vmap(one)(jnp.asarray(P))

    jax.vmap(group)(jnp.array([0.4, 0.9]))


def of_nested(p, v):
    k, g, z = v["k"], v["g"], v["z"]
    found = coin(k, p) * np.prod(coin(g, np.array([0.4, 0.9]) * (1 + k) / 2))
    found = found * np.prod(normal(YS[:2], g + k))
    each = coin(z, P * (1 + g[:, None]) / 2) * normal(PAIRS, z + g[:, None] + k)
    return found * np.prod(each * coin(BITS, 0.2 + 0.3 * z + 0.1 * k))


@gen
def inside(p):
    """A parent with the plate, another outside, and what is read of both later."""
    a = sample("a", dist.Bernoulli(p * jnp.asarray(P)))
    b = sample("b", dist.Bernoulli(p))

    def one(a, q):
        z = sample("z", dist.Bernoulli(q * (1 + a) / 2))
        sample("x", N(z + a + b))

    jax.vmap(one)(a, jnp.asarray(P))
    sample("later", N(a - b))


def of_inside(p, v):
    a, b, z = v["a"], v["b"], v["z"]
    each = coin(a, p * P) * coin(z, P * (1 + a) / 2) * normal(YS, z + a + b)
    return coin(b, p) * np.prod(each * normal(-YS, a - b))


TABLE = np.array([
    [[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]],
    [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]],
    [[0.7, 0.3], [0.0, 1.0], [0.5, 0.5]],
])  # fmt: skip


@gen
def impossible(p):
    """Rows with zeros: of the values of the parent one is excluded by a copy, one by what is
    seen later."""
    k = sample("k", dist.Categorical(jnp.stack([(1 - p) / 2, p, (1 - p) / 2])))

    def one(rows):
        z = sample("z", dist.Categorical(rows[k]))
        sample("w", dist.Categorical(jnp.array([[1.0, 0.0], [0.25, 0.75]])[z]))

    jax.vmap(one)(jnp.asarray(TABLE))
    sample("end", dist.Bernoulli(jnp.where(k == 0, 0.0, 0.5)))


def of_impossible(p, v):
    k, z = v["k"], v["z"]
    seen = np.array([[1.0, 0.0], [0.25, 0.75]])[z, WS]
    law = np.stack([(1 - p) / 2, p, (1 - p) / 2])
    return law[k] * np.prod(TABLE[np.arange(3), k, z] * seen) * (0.5 if k else 0.0)


@gen
def in_scan(p):
    """Copies in each step of a loop, whose state is their parent."""

    def step(k, q):
        k = sample("k", dist.Bernoulli(0.2 + 0.6 * k * q))

        def one(r):
            z = sample("z", dist.Bernoulli(r * (1 + k) / 2))
            sample("x", N(z + k))

        jax.vmap(one)(jnp.asarray(P))
        return k, None

    lax.scan(step, 0, p * jnp.ones(2))


def of_in_scan(p, v):
    k, z = v["k"], v["z"]
    found = coin(k[0], 0.2) * coin(k[1], 0.2 + 0.6 * k[0] * p)
    return found * np.prod(coin(z, P * (1 + k[:, None]) / 2) * normal(PAIRS, z + k[:, None]))


def chain(several: bool) -> Any:
    """A loop in each copy, that makes one choice that is kept, or two in turn."""

    @gen
    def model(p):
        k = sample("k", dist.Bernoulli(p))

        def one(q):
            def step(z, _):
                z = sample("z", dist.Bernoulli(0.1 + q * z + 0.2 * k))
                sample("y", N(z + k))
                if several:
                    sample("w", dist.Bernoulli(0.2 + 0.5 * z))
                return z, None

            return lax.scan(step, 0, None, length=3)[0]

        z = jax.vmap(one)(jnp.array([0.2, 0.6]))
        sample("later", N(z * (1 + k)))

    return model


def of_chain(p, v, several=False):
    k, z = v["k"], v["z"]
    before = np.concatenate([np.zeros((2, 1)), z[:, :-1]], 1)
    heads = 0.1 + np.array([[0.2], [0.6]]) * before + 0.2 * k
    found = coin(k, p) * np.prod(coin(z, heads) * normal(PAIRS, z + k))
    if several:
        found = found * np.prod(coin(BITS, 0.2 + 0.5 * z))
    return found * np.prod(normal(YS[:2], z[:, -1] * (1 + k)))


FLAGS = np.array([True, False, True])


@gen
def branches(p):
    """A choice in a branch that some of the copies take."""
    k = sample("k", dist.Bernoulli(p))

    def one(q, flag):
        z = sample("z", dist.Bernoulli(q * (1 + k) / 2))
        w = lax.cond(flag, lambda: sample("w", dist.Bernoulli(1.0 * z * k)), lambda: z)
        sample("x", N(z + k))
        return w + z

    z = jax.vmap(one)(jnp.asarray(P), jnp.asarray(FLAGS))
    sample("later", N(z * (1 + k)))


def of_branches(p, v):
    k, z, w = v["k"], v["z"], np.array([0, 0, 1])
    found = coin(k, p) * np.prod(coin(z, P * (1 + k) / 2) * normal(YS, z + k))
    found = found * np.prod(np.where(FLAGS, coin(w, 1.0 * z * k), 1.0))
    return found * np.prod(normal(-YS, (np.where(FLAGS, w, z) + z) * (1 + k)))


ONE, THREE = (2, ()), (2, (3,))
CASES = {
    "a common parent": Case(
        common, {"k": ONE, "z": THREE},
        {"x": YS, "w": WS, "later": -YS, "end": np.array(1)}, of_common,
    ),
    "two parents": Case(two, {"a": ONE, "b": (3, ()), "z": THREE}, {"x": YS}, of_two),
    "copies in copies": Case(
        nested, {"k": ONE, "g": (2, (2,)), "z": (2, (2, 3))},
        {"u": YS[:2], "x": PAIRS, "w": BITS}, of_nested,
    ),
    "a parent in the plate": Case(
        inside, {"a": THREE, "b": ONE, "z": THREE}, {"x": YS, "later": -YS}, of_inside,
    ),
    "impossible rows": Case(
        impossible, {"k": (3, ()), "z": THREE}, {"w": WS, "end": np.array(1)}, of_impossible,
    ),
    "in a loop": Case(in_scan, {"k": (2, (2,)), "z": (2, (2, 3))}, {"x": PAIRS}, of_in_scan),
    "loops in copies": Case(
        chain(False), {"k": ONE, "z": (2, (2, 3))}, {"y": PAIRS, "later": YS[:2]}, of_chain,
    ),
    "two choices in turn": Case(
        chain(True), {"k": ONE, "z": (2, (2, 3))}, {"y": PAIRS, "w": BITS, "later": YS[:2]},
        lambda p, v: of_chain(p, v, several=True), loops=True,
    ),
    "branches": Case(
        branches, {"k": ONE, "z": THREE}, {"x": YS, "w": np.array([0, 0, 1]), "later": -YS},
        of_branches, loops=True,
    ),
}  # fmt: skip
