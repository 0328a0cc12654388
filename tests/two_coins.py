"""Two coins and guides of them, with sums over all that they can show, written by hand."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import Target, gen, sample


@gen
def model():
    a = sample("a", dist.Bernoulli(0.3))
    b = sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    sample("y", dist.Bernoulli(0.1 + 0.4 * a + 0.3 * b))


@gen
def guide(p):
    a = sample("a", dist.Bernoulli(p))
    sample("b", dist.Bernoulli(p**2 + (1 - p) * a / 2))


@gen
def posterior(p):
    of_a = joint().reshape(2, 2).sum(1) / joint().sum()
    of_b = joint().reshape(2, 2)[:, 1] / joint().reshape(2, 2).sum(1)
    a = sample("a", dist.Bernoulli(of_a[1]))
    sample("b", dist.Bernoulli(jnp.asarray(of_b)[a]))


TARGET = Target(model, (), {"y": 1})
PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def of_y(y=1):
    """p(y | a, b), by hand."""
    a, b = PAIRS.T
    heads = 0.1 + 0.4 * a + 0.3 * b
    return heads if y else 1 - heads


def joint(y=1):
    """p(a, b, y), by hand."""
    a, b = PAIRS.T
    of_b = np.where(b == 1, 0.2 + 0.5 * a, 0.8 - 0.5 * a)
    return np.where(a == 1, 0.3, 0.7) * of_b * of_y(y)


def of_guide(p):
    """q(a, b), by hand."""
    a, b = PAIRS.T
    heads = p**2 + (1 - p) * a / 2
    return jnp.where(a == 1, p, 1 - p) * jnp.where(b == 1, heads, 1 - heads)


def bound(p, still=None, power=1.0):
    q, prior = of_guide(p), joint() / of_y()
    return jnp.sum(q * (np.log(prior) + power * np.log(of_y()) - jnp.log(q)))


def several(n, value, p):
    """E[value(w_1, ..., w_n)], the weights along the last axis."""
    q = of_guide(p)
    every = np.stack(np.meshgrid(*[np.arange(4)] * n, indexing="ij"), -1).reshape(-1, n)
    return jnp.sum(jnp.prod(q[every], 1) * value((joint() / q)[every]))


def importance_weighted(n, p, still=None):
    return several(n, lambda w: jnp.log(jnp.mean(w, 1)), p)


def of_order(alpha, n, p, still=None):
    power = 1 - alpha
    return several(n, lambda w: jnp.log(jnp.mean(w**power, 1)) / power, p)


def convex(f, p, still=None):
    return several(1, lambda w: -f(w[:, 0]), p)


def learned_by_weight(p, still, known=0.0):
    """Sum of w log q of two draws at `still`, w normalised, less `known` times log p."""
    q, log_q = of_guide(still), jnp.log(of_guide(p)) - known * np.log(joint())
    w = joint() / q
    shares = w[:, None] / (w[:, None] + w[None])
    terms = shares * log_q[:, None] + (1 - shares) * log_q[None]
    return jnp.sum(q[:, None] * q[None] * terms)


def forward(p, still):
    return learned_by_weight(p, still, known=1.0) + importance_weighted(2, still)


def forward_exactly(p, still=None):
    right = joint() / joint().sum()
    return jnp.sum(right * (jnp.log(of_guide(p)) - np.log(right)))


def symmetric(p, still):
    return bound(p) + learned_by_weight(p, still, known=1.0)


def symmetric_exactly(p, still=None):
    return bound(p) - np.log(joint().sum()) + forward_exactly(p)


@gen
def reading(p, seen):
    """A guide that reads what is observed."""
    heads = jnp.where(seen["y"] == 1, p, p / 2)
    guide.fn(heads)


def asleep(p, still=None):
    on, off = jnp.log(of_guide(p)), jnp.log(of_guide(p / 2))
    return jnp.sum(joint(1) * on) + jnp.sum(joint(0) * off)


@gen
def wide(p):
    c = sample("c", dist.Bernoulli(p))
    a = sample("a", dist.Bernoulli(0.2 + 0.6 * c * p))
    sample("b", dist.Bernoulli(0.3 + 0.1 * a + 0.2 * c))


@gen
def back(x, p):
    sample("c", dist.Bernoulli(0.2 + 0.3 * x["a"] + p * x["b"] / 4))


def of_wide(p):
    """q(c, a, b) and r(c | a, b), by hand: a row for each c."""
    a, b = PAIRS.T
    q, r = [], []
    for c in (0, 1):
        of_a, of_b = 0.2 + 0.6 * c * p, 0.3 + 0.1 * a + 0.2 * c
        made = jnp.where(a == 1, of_a, 1 - of_a) * jnp.where(b == 1, of_b, 1 - of_b)
        on = 0.2 + 0.3 * a + p * b / 4
        q.append((p if c else 1 - p) * made)
        r.append(on if c else 1 - on)
    return jnp.stack(q), jnp.stack(r)


def hierarchical(n, p, still=None):
    """With the c that made a, b, and n - 1 others."""
    q, r = of_wide(p)
    ratio, chance = q / r, q
    for _ in range(n - 1):
        ratio = ratio[..., None, :] + (q / r)
        chance = chance[..., None, :] * r
    return jnp.sum(chance * (np.log(joint()) - jnp.log(ratio / n)))


def doubly_weighted(p, still=None):
    """Two pairs, each with the c that made it."""
    q, r = of_wide(p)
    w, chance = (joint() * r / q).reshape(-1), q.reshape(-1)
    return jnp.sum(chance[:, None] * chance * jnp.log((w[:, None] + w) / 2))


@gen
def model_of(s):
    a = sample("a", dist.Bernoulli(s))
    sample("y", dist.Bernoulli(0.1 + 0.4 * a))
