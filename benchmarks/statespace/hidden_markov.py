"""The states of a hidden Markov model summed out of a written model, against loops and peers.

There are 50 states, and every state may follow every other. Evidence, and its gradient by all
logits of transitions and all means, in double precision. By hand it is done in two ways: with
logarithms of weights, and with weights that are divided by their sum in each step, which has no
logarithm of a sum for each pair of states.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.nn import log_softmax, logsumexp, softmax
from jax.scipy.stats import norm

from inference import sum_out
from ppl import gen, sample

from ..measure import Figure
from .costs import costs, first_call, peers, slopes, values
from .problem import STATES, regimes

GOAL = 1.1
SCRIPTS = {"dynamax": "regimes_of_dynamax.py", "NumPyro": "regimes_of_numpyro.py"}
LONGEST = {"NumPyro": 1_000}
"""What a peer has memory for: a tree of matrices takes some gigabytes for a thousand steps."""


@partial(gen, static_argnums=1)
def model(p, steps):
    logits, means = p

    def step(z, _):
        z = sample("z", dist.Categorical(logits=logits[z]))
        sample("y", dist.Normal(means[z], 1.0))
        return z, None

    lax.scan(step, 0, None, length=steps)


def ours(p, ys):
    return sum_out(model, "z").assess({"y": ys}, p, len(ys))[0]


def by_logarithms(p, ys):
    """The forward algorithm in one scan, in logarithms, which JAX differentiates."""
    logits, means = p
    moves, seen = log_softmax(logits), norm.logpdf(ys[:, None], means)

    def step(weights, now):
        return logsumexp(weights[:, None] + moves, axis=0) + now, None

    return logsumexp(lax.scan(step, moves[0] + seen[0], seen[1:])[0])


def by_sums(p, ys):
    """The forward algorithm in one scan, of probabilities given what was seen."""
    logits, means = p
    moves, seen = softmax(logits), norm.logpdf(ys[:, None], means)
    most = seen.max(1)

    def step(weights, now):
        weights = (weights @ moves) * now
        total = weights.sum()
        return weights / total, total

    start = jax.nn.one_hot(0, STATES, dtype=seen.dtype)
    totals = lax.scan(step, start, jnp.exp(seen - most[:, None]))[1]
    return (jnp.log(totals) + most).sum()


def figures(quick: bool, installed: bool) -> Iterator[Figure]:
    programs = {"ours": ours, "by hand, logarithms": by_logarithms, "by hand, sums": by_sums}
    for n in (1_000,) if quick else (1_000, 10_000):
        args = regimes(n)
        for name, kind in {"value": values, "value and gradient": slopes}.items():
            runs = {of: kind(density, *args) for of, density in programs.items()}
            title = f"HMM, {STATES} states, n = {n:,}, {name}"
            spent = {of: first_call(run) for of, run in runs.items()}
            for other in list(spent)[1:]:
                yield Figure(f"first call, {title}", other, "CPU s", spent["ours"], spent[other])
            able = {peer: script for peer, script in SCRIPTS.items() if n <= LONGEST.get(peer, n)}
            others = peers(able, n) if installed and kind is slopes else {}
            cost = costs(runs, 3 if quick else 7, others)
            for other in list(cost)[1:]:
                goal = GOAL if other in programs and n >= 10_000 else None
                yield Figure(title, other, "CPU ms", cost["ours"], cost[other], goal)
