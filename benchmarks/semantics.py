"""How fast the checks are: tapes, chains and programs a second.

    python -m benchmarks.semantics [--quick] [--json]

The hand-written programs compute the same numbers (checked before anything is timed).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from inference import cycle, importance, mh, mixture, multinomial, resample, then
from ppl import Target, gen, integrate, sample, seed
from semantics import check_kernel, check_proper, programs

from .language import close
from .measure import Figure, medians
from .report import report

HAND = "hand-written JAX"
P = jnp.array([0.2, 0.3, 0.5])
Q = jnp.array([[0.6, 0.1, 0.3], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
LIKE = jnp.array([0.9, 0.4, 0.2])


@gen
def tiny(p, q):
    a = sample("a", dist.Categorical(p))
    b = sample("b", dist.Categorical(q[a]))
    sample("y", dist.Bernoulli(LIKE[b]))


def target(p=P, q=Q) -> Target:
    return Target(tiny, (p, q), {"y": 1})


def kernel(t: Target):
    return cycle(mh(t, "a"), mh(t, "b"))


def tapes(quick: bool) -> Iterator[Figure]:
    """Tapes of three sweeps of trace MH on a program with three choices: 9 * 36^3 of them."""
    sweeps = 2 if quick else 3

    def run(p, q):
        t = target(p, q)
        trace, w = t.generate()
        for _ in range(sweeps):
            trace = kernel(t)(trace)
        return jnp.exp(w) * trace["b"]

    def matrix(p, q):
        """The same by multiplying the transition matrices on the nine states."""
        joint = p[:, None] * q * LIKE
        same_a = p[None] * jnp.minimum(1, q.T[:, None] / q.T[:, :, None])  # b, a, a'
        stay = 1 - same_a.sum(2) + jnp.diagonal(same_a, axis1=1, axis2=2)
        same_a = jnp.where(jnp.eye(3, dtype=bool), stay[:, :, None], same_a)
        same_b = q[:, None] * jnp.minimum(1, LIKE[None, None] / LIKE[None, :, None])  # a, b, b'
        stay = 1 - same_b.sum(2) + jnp.diagonal(same_b, axis1=1, axis2=2)
        same_b = jnp.where(jnp.eye(3, dtype=bool), stay[:, :, None], same_b)
        for _ in range(sweeps):
            joint = jnp.einsum("ab,bac->cb", joint, same_a)
            joint = jnp.einsum("ab,abc->ac", joint, same_b)
        return joint.sum(0) @ jnp.arange(3.0)

    f = jax.jit(integrate(run))
    close(f(P, Q), matrix(P, Q), "tapes")
    (mine,) = medians(lambda: f(P, Q), repeats=5, seconds=3.0)
    n = 9 * 36**sweeps
    yield Figure(
        f"integrate {sweeps} sweeps of MH, {n} tapes", "-", "Mtapes/s", n / mine / 1e6, None
    )


def chains(quick: bool) -> Iterator[Figure]:
    """A million chains of one sweep of trace MH, exact start included."""
    n = 100_000 if quick else 1_000_000
    keys = jax.random.split(jax.random.key(0), n)

    def ours(keys):
        def run():
            t = target()
            return kernel(t)(t.generate()[0])["b"]

        return jax.vmap(seed(run))(keys).mean()

    def pick(cumulative, u):
        return jnp.sum(cumulative <= u[:, None], 1)

    def by_hand(keys):
        u = jax.vmap(lambda k: jax.random.uniform(k, (6,)))(keys)
        p, q = jnp.cumsum(P)[None, :-1], jnp.cumsum(Q, 1)[:, :-1]
        a = pick(p, u[:, 0])
        b = pick(q[a], u[:, 1])
        new = pick(p, u[:, 2])
        a = jnp.where(u[:, 3] * Q[a, b] < Q[new, b], new, a)
        new = pick(q[a], u[:, 4])
        b = jnp.where(u[:, 5] * LIKE[b] < LIKE[new], new, b)
        return b.mean()

    f, g = jax.jit(ours), jax.jit(by_hand)
    # both estimate the same mean of values in [0, 2]: standard errors of at most 2 / sqrt(n)
    assert abs(float(f(keys)) - float(g(keys))) < 12 / n**0.5
    mine, theirs = medians(lambda: f(keys), lambda: g(keys), repeats=5, seconds=3.0)
    yield Figure(f"{n} chains of one sweep", HAND, "Mchains/s", n / mine / 1e6, n / theirs / 1e6)


def sweep(t: Target):
    return cycle(*[mh(t, address) for address in t.latents])


def two_kernels(t: Target):
    if not t.latents:
        return lambda trace: trace
    return mixture([mh(t, t.latents[0]), mh(t, t.latents[-1])], [0.25, 0.75])


def resampled(t: Target):
    return then(importance(t, 2), partial(resample, scheme=multinomial))


def generated(quick: bool) -> Iterator[Figure]:
    """300 generated programs checked exactly, after compilation; in double precision from here."""
    jax.config.update("jax_enable_x64", True)
    n = 50 if quick else 300
    rows = {
        "trace MH": partial(check_kernel, sweep),
        "mixture of two kernels": partial(check_kernel, two_kernels),
        "importance, resampling": partial(check_proper, resampled),
    }
    for name, check in rows.items():
        check(programs.discrete(), max_examples=n)
        start = time.perf_counter()
        verdict = check(programs.discrete(), max_examples=n).require()
        seconds = time.perf_counter() - start
        what = f"{name}: {n} programs"
        yield Figure(what, "-", "s", seconds, None, 5.0, absolute=True)
        yield Figure(what, "-", "error", verdict.error, None, 1e-12, absolute=True)


def main(argv: list[str] | None = None) -> None:
    parts = {"tapes": tapes, "chains": chains, "generated": generated}
    report("benchmarks.semantics", __doc__, parts, argv)


if __name__ == "__main__":
    main()
